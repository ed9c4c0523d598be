"""References for float64 in numpy's long double, as torch has nothing wider.

Torch in float32 accumulates these ops in double, so its error there says nothing of its error in float64, which that of
ours is measured by. Each function takes the arguments of torch's and returns the results, and the gradient of the input
as a function of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Wide = NDArray[np.longdouble]
Pullback = Callable[..., Wide]


def axes_of(x: Wide, dim: Any) -> tuple[int, ...]:
    """The dimensions to reduce, none below zero."""
    dims = range(x.ndim) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    return tuple(d % x.ndim for d in dims) if x.ndim > 0 else ()


def moments(
    root: bool, x: Wide, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> tuple[list[Wide], Pullback]:
    """var_mean, or std_mean with `root`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = axes_of(x, dim)
    count = np.prod([x.shape[d] for d in axes], dtype=np.int64)
    divisor = count - (int(unbiased) if correction is None else correction)
    mean = x.mean(axes, keepdims=True)
    centered = x - mean
    spread = (centered * centered).sum(axes, keepdims=True) / divisor
    if root:
        spread = np.sqrt(spread)

    def pullback(g_spread: Wide, g_mean: Wide | None = None) -> Wide:
        scale = g_spread.reshape(mean.shape) / divisor
        gradient = centered * (scale / spread if root else 2 * scale)
        return gradient if g_mean is None else gradient + g_mean.reshape(mean.shape) / count

    shape = mean.shape if keepdim else tuple(n for d, n in enumerate(x.shape) if d not in axes)
    return [spread.reshape(shape), mean.reshape(shape)], pullback


def only_spread(root: bool) -> Callable[..., tuple[list[Wide], Pullback]]:
    """var, or std with `root`."""

    def function(x: Wide, *args: Any, **kwargs: Any) -> tuple[list[Wide], Pullback]:
        results, pullback = moments(root, x, *args, **kwargs)
        return results[:1], pullback

    return function


def both_moments(root: bool) -> Callable[..., tuple[list[Wide], Pullback]]:
    """var_mean, or std_mean with `root`."""
    return lambda x, *args, **kwargs: moments(root, x, *args, **kwargs)


def products_of_others(x: Wide) -> Wide:
    """Along the last dimension, without a division."""
    ones = np.ones_like(x[..., :1])
    left = np.cumprod(np.concatenate([ones, x[..., :-1]], -1), -1)
    right = np.cumprod(np.concatenate([ones, x[..., :0:-1]], -1), -1)
    result: Wide = left * right[..., ::-1]
    return result


def prod(x: Wide, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> tuple[list[Wide], Pullback]:
    """Torch's takes one dimension or all."""
    if x.ndim == 0:
        return [x], lambda g: g
    lines = x.reshape(1, -1) if dim is None else np.moveaxis(x, dim, -1)
    result = np.asarray(x.prod(None if dim is None else dim, keepdims=keepdim))

    def pullback(g: Wide) -> Wide:
        gradient = g.reshape(lines.shape[:-1])[..., None] * products_of_others(lines)
        return gradient.reshape(x.shape) if dim is None else np.moveaxis(gradient, -1, dim)

    return [result], pullback


def cumsum(x: Wide, dim: int, *, dtype: Any = None) -> tuple[list[Wide], Pullback]:
    """The gradient is the sum from the other end."""
    if x.ndim == 0:
        return [x], lambda g: g
    return [np.cumsum(x, dim)], lambda g: np.flip(np.cumsum(np.flip(g, dim), dim), dim)


def cumprod(x: Wide, dim: int, *, dtype: Any = None) -> tuple[list[Wide], Pullback]:
    """Element k's gradient is the product before it times s, with s = g + x·s of the next element."""
    if x.ndim == 0:
        return [x], lambda g: g
    result = np.cumprod(x, dim)

    def pullback(g: Wide) -> Wide:
        lines, grads = np.moveaxis(x, dim, 0), np.moveaxis(g, dim, 0)
        gradient = np.empty_like(lines)
        s = np.zeros_like(lines[:1])
        for k in reversed(range(len(lines))):
            s = grads[k] + (lines[k + 1] * s if k + 1 < len(lines) else 0)
            gradient[k] = s * lines[:k].prod(0)
        return np.moveaxis(gradient, 0, dim)

    return [result], pullback


def softmax(x: Wide, dim: int, dtype: Any = None) -> tuple[list[Wide], Pullback]:
    """Without overflow; a line whose maximum is infinite is NaN."""
    axis = dim if x.ndim > 0 else None
    with np.errstate(invalid="ignore"):
        powers = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
    y = powers / powers.sum(axis, keepdims=True)
    return [y], lambda g: y * (g - (g * y).sum(axis, keepdims=True))


def log_softmax(x: Wide, dim: int, dtype: Any = None) -> tuple[list[Wide], Pullback]:
    """Without overflow; a line whose maximum is infinite is NaN."""
    axis = dim if x.ndim > 0 else None
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.max(axis, keepdims=True, initial=-np.inf)
        y = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return [y], lambda g: g - np.exp(y) * g.sum(axis, keepdims=True)


PI = np.longdouble("3.14159265358979323846264338327950288")


def erfc(x: Wide) -> Wide:
    """Of x >= 0: up to 1 by Abramowitz and Stegun 7.1.6, whose terms are all positive, beyond by the fraction 7.1.14."""
    near, far = np.minimum(x, 1), np.maximum(x, 1)
    term = 2 / np.sqrt(PI) * near * np.exp(-near * near)
    total = term
    for n in range(1, 60):
        term = term * (2 * near * near / (2 * n + 1))
        total = total + term
    fraction = far
    for n in range(600, 0, -1):
        fraction = far + np.longdouble(n) / 2 / fraction
    return np.where(x <= 1, 1 - total, np.exp(-far * far) / (np.sqrt(PI) * fraction))


def gelu(x: Wide, approximate: str = "none") -> tuple[list[Wide], Pullback]:
    """Without cancellation on the left, where torch's formulas are right to a step of erf and tanh only."""
    if approximate == "none":
        tail = erfc(np.abs(x) / np.sqrt(np.longdouble(2))) / 2
        cdf = np.where(x < 0, tail, 1 - tail)
        slope = np.exp(-x * x / 2) / np.sqrt(2 * PI)
    else:
        cubic = np.longdouble("0.044715")
        scale = 2 * np.sqrt(2 / PI)
        power = np.exp(-np.abs(scale * (x + cubic * x**3)))
        cdf = np.where(x < 0, power, 1) / (1 + power)
        slope = power / (1 + power) ** 2 * scale * (1 + 3 * cubic * x * x)
    with np.errstate(invalid="ignore"):
        return [x * cdf], lambda g: g * (cdf + x * slope)


OPS: dict[str, Callable[..., tuple[list[Wide], Pullback]]] = {
    "var": only_spread(False),
    "std": only_spread(True),
    "var_mean": both_moments(False),
    "std_mean": both_moments(True),
    "prod": prod,
    "cumsum": cumsum,
    "cumprod": cumprod,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "nn.functional.gelu": gelu,
}


def widened(t: Tensor) -> Wide:
    return t.detach().numpy().astype(np.longdouble)


def narrowed(x: Wide) -> Tensor:
    return torch.from_numpy(np.asarray(x, dtype=np.float64).copy())


def results(op: str, args: tuple, kwargs: dict) -> list[Tensor]:
    """The op of one tensor in long double, rounded to float64 at the end."""
    return [narrowed(value) for value in OPS[op](widened(args[0]), *args[1:], **kwargs)[0]]


def gradient(op: str, args: tuple, kwargs: dict, incoming: list[Tensor]) -> list[Tensor]:
    """The gradient of that tensor, likewise."""
    pullback = OPS[op](widened(args[0]), *args[1:], **kwargs)[1]
    return [narrowed(pullback(*map(widened, incoming)))]
