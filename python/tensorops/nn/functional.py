"""torch.nn.functional, with functions of our own where we have a kernel: same arguments, defaults, results and errors.

Where the C function's signature is torch's, the name is the C function itself; else it is one thin Python function.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction as _Reduction
from torch.nn.functional import *  # noqa: F403
from torch.nn.functional import _get_softmax_dim  # type: ignore[attr-defined]
from torch.nn.modules.utils import _pair
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic
from torch.types import _dtype as DType

from .. import _C

# Its own annotation knows torch's functions of these names alone.
_handle: Callable[..., Any] = handle_torch_function

# The C functions with torch.nn.functional's own signatures.
avg_pool2d = _C.avg_pool2d
conv2d = _C.conv2d
gelu = _C.gelu
linear = _C.linear
logsigmoid = _C.logsigmoid
prelu = _C.prelu
sigmoid = _C.sigmoid
softplus = _C.softplus
softsign = _C.softsign
tanh = _C.tanh
tanhshrink = _C.tanhshrink

relu_ = _C.relu_
leaky_relu_ = _C.leaky_relu_
elu_ = _C.elu_
selu_ = _C.selu_
hardtanh_ = _C.hardtanh_
threshold_ = _C.threshold_


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x). See torch.nn.functional.relu."""
    return _C.relu_(input) if inplace else _C.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6). See torch.nn.functional.relu6."""
    return _C.relu6_(input) if inplace else _C.relu6(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere. See torch.nn.functional.leaky_relu."""
    return _C.leaky_relu_(input, negative_slope) if inplace else _C.leaky_relu(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, alpha * (exp(x) - 1) elsewhere. See torch.nn.functional.elu."""
    return _C.elu_(input, alpha) if inplace else _C.elu(input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The scaled, self-normalizing elu. See torch.nn.functional.selu."""
    return _C.selu_(input) if inplace else _C.selu(input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x). See torch.nn.functional.silu."""
    return _C.silu_(input) if inplace else _C.silu(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)). See torch.nn.functional.mish."""
    return _C.mish_(input) if inplace else _C.mish(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x within [min_val, max_val]. See torch.nn.functional.hardtanh."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return _C.hardtanh_(input, min_val, max_val) if inplace else _C.hardtanh(input, min_val, max_val)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * relu6(x + 3) / 6. See torch.nn.functional.hardswish."""
    return _C.hardswish_(input) if inplace else _C.hardswish(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6. See torch.nn.functional.hardsigmoid."""
    return _C.hardsigmoid_(input) if inplace else _C.hardsigmoid(input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, value elsewhere. See torch.nn.functional.threshold."""
    return _C.threshold_(input, threshold, value) if inplace else _C.threshold(input, threshold, value)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along dim. See torch.nn.functional.softmax."""
    if dim is None:
        if has_torch_function_unary(input):
            return _handle(softmax, (input,), input, dim=dim, _stacklevel=_stacklevel, dtype=dtype)
        dim = _get_softmax_dim("softmax", input.dim(), _stacklevel)
    return _C.softmax(input, dim) if dtype is None else _C.softmax(input, dim, dtype)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """x - log(sum(exp(x))) along dim. See torch.nn.functional.log_softmax."""
    if dim is None:
        if has_torch_function_unary(input):
            return _handle(log_softmax, (input,), input, dim=dim, _stacklevel=_stacklevel, dtype=dtype)
        dim = _get_softmax_dim("log_softmax", input.dim(), _stacklevel)
    return _C.log_softmax(input, dim) if dtype is None else _C.log_softmax(input, dim, dtype)


Size2 = int | Sequence[int]


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Size2,
    stride: Size2 | None = None,
    padding: Size2 = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The maxima and where they stood. See torch.nn.functional.max_pool2d_with_indices."""
    stride = () if stride is None else stride
    return _C.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    input: Tensor,
    kernel_size: Size2,
    stride: Size2 | None = None,
    padding: Size2 = 0,
    dilation: Size2 = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each window. See torch.nn.functional.max_pool2d."""
    stride = () if stride is None else stride
    if return_indices:
        return _C.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
    return _C.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Size2,
    stride: Size2 | None = None,
    padding: Size2 = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts each maximum back where it stood, zeros elsewhere. See torch.nn.functional.max_unpool2d."""
    if has_torch_function_variadic(input, indices):
        return _handle(
            max_unpool2d,
            (input, indices),
            input,
            indices,
            kernel_size,
            stride=stride,
            padding=padding,
            output_size=output_size,
        )
    window = _pair(kernel_size)
    step = _pair(stride) if stride is not None else window
    size = _unpooled_size(input, window, step, _pair(padding), output_size)
    return _C.max_unpool2d(input, indices, size)


def _unpooled_size(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_size: Sequence[int] | None,
) -> list[int]:
    """Height and width of what was pooled: torch's _unpool_output_size, whose messages Dynamo cannot trace."""
    default = [(input.shape[d - 2] - 1) * stride[d] + kernel_size[d] - 2 * padding[d] for d in range(2)]
    if output_size is None:
        size = default
    else:
        if len(output_size) == 4:
            output_size = output_size[2:]
        if len(output_size) != 2:
            raise ValueError(
                "output_size should be a sequence containing "
                f"2 or 4 elements, but it has a length of '{len(output_size)}'"
            )
        size = list(output_size)
        for d in range(2):
            low, high = default[d] - stride[d], default[d] + stride[d]
            if not low < size[d] < high:
                raise ValueError(f'invalid output_size "{output_size}" (dim {d} must be between {low} and {high})')
    for d in range(2):
        if size[d] < 0:
            raise ValueError(
                "max_unpooling: output_size must contain non-negative spatial dimensions, but got "
                f"output_size[{d}]={size[d]}"
            )
    return size


def _reduction_number(size_average: bool | None, reduce: bool | None, reduction: str) -> int:
    if size_average is not None or reduce is not None:
        reduction = _Reduction.legacy_get_string(size_average, reduce)
    return _Reduction.get_enum(reduction)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-weight[target] * input[target]. See torch.nn.functional.nll_loss."""
    return _C.nll_loss(input, target, weight, _reduction_number(size_average, reduce, reduction), ignore_index)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """nll_loss of log_softmax, or its like for class probabilities. See torch.nn.functional.cross_entropy."""
    number = _reduction_number(size_average, reduce, reduction)
    return _C.cross_entropy(input, target, weight, number, ignore_index, label_smoothing)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target)². See torch.nn.functional.mse_loss."""
    if has_torch_function_variadic(input, target, weight):
        return _handle(
            mse_loss,
            (input, target, weight),
            input,
            target,
            size_average=size_average,
            reduce=reduce,
            reduction=reduction,
            weight=weight,
        )
    if weight is not None:
        return _weighted_mse_loss(input, target, size_average, reduce, reduction, weight)
    if target.size() != input.size():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). "
            "This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=2,
        )
        input, target = torch.broadcast_tensors(input, target)
    return _C.mse_loss(input, target, _reduction_number(size_average, reduce, reduction))


def _weighted_mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None, reduce: bool | None, reduction: str, weight: Tensor
) -> Tensor:
    if weight.size() != input.size():
        raise ValueError("Weights and input must have the same size.")
    if size_average is not None or reduce is not None:
        reduction = _Reduction.legacy_get_string(size_average, reduce)
    input, target = torch.broadcast_tensors(input, target)
    weighted = _C.mul(_C.mse_loss(input, target, 0), weight)
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return _C.sum(weighted)
    if reduction == "mean":
        return _C.div(_C.sum(weighted), _C.sum(weight))
    raise ValueError(f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'.")


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(target * log(input) + (1 - target) * log(1 - input)). See torch.nn.functional.binary_cross_entropy."""
    if has_torch_function_variadic(input, target, weight):
        return _handle(
            binary_cross_entropy,
            (input, target, weight),
            input,
            target,
            weight=weight,
            size_average=size_average,
            reduce=reduce,
            reduction=reduction,
        )
    if target.size() != input.size():
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) "
            "is deprecated. "
            "Please ensure they have the same size."
        )
    if weight is not None:
        weight = weight.expand(torch.broadcast_shapes(target.size(), weight.size()))
    return _C.binary_cross_entropy(input, target, weight, _reduction_number(size_average, reduce, reduction))


def __getattr__(name: str) -> object:
    """What `import *` leaves out of torch.nn.functional."""
    return getattr(torch.nn.functional, name)
