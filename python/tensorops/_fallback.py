"""Calls that no kernel of ours covers (complex, sparse, quantized): torch's op runs, counted and warned of once."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from . import _C

_counts: Counter[str] = Counter()
_lock = threading.Lock()
_strict = False


def fallbacks() -> dict[str, int]:
    """How many calls of each op went to torch's kernels so far, by the op's name."""
    with _lock:
        return dict(_counts)


class strict:
    """Makes a call that no kernel of ours covers an error, for the whole process.

    Both a switch, `tensorops.strict(True)`, and a context, `with tensorops.strict(): ...`, like torch.set_grad_enabled.
    """

    def __init__(self, mode: bool = True) -> None:
        global _strict
        self.previous = _strict
        _strict = bool(mode)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _strict
        _strict = self.previous


def is_strict() -> bool:
    """Whether strict mode is on."""
    return _strict


def torch_function(name: str, path: str) -> Callable[..., Any]:
    """The torch function that stands in for ours: the C function where torch.nn.functional wraps one in Python."""
    places: list[tuple[Any, str]] = [(torch._C._nn, name)] if path.startswith("torch.nn.functional.") else []
    owner: Any = torch
    *parents, leaf = path.split(".")[1:]
    for parent in parents:
        owner = getattr(owner, parent, None)
    places += [(owner, leaf), (torch._C._nn, name), (torch.Tensor, name)]
    for place, attribute in places:
        found = getattr(place, attribute, None)
        if found is not None:
            return found
    raise NotImplementedError(f"tensorops.{name} does not cover these arguments, and torch has no {path}")


def linear_activation(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str) -> Any:
    """Its two steps, each of which falls back by itself."""
    y = _C.linear(input, weight, bias)
    return _C.gelu(y, approximate="tanh") if activation == "gelu_tanh" else getattr(_C, activation)(y)


# Ops of ours that torch has no function for.
_STEPS: dict[str, Callable[..., Any]] = {"_linear_activation": linear_activation}


def refusal(name: str, args: tuple[Any, ...]) -> str:
    """What strict mode says."""
    return f"tensorops.{name} has no kernel for these arguments ({describe(args)}), and strict mode refuses torch's"


def call(name: str, torch_path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs torch's op in place of ours. csrc/python/fallback.cpp calls this."""
    if name in _STEPS:
        return _STEPS[name](*args, **kwargs)
    if _strict:
        raise NotImplementedError(refusal(name, args))
    function = torch_function(name, torch_path)
    with _lock:
        _counts[name] += 1
        first = _counts[name] == 1
    if first:
        warnings.warn(
            f"tensorops.{name} has no kernel for these arguments ({describe(args)}); torch's runs instead. "
            "tensorops.fallbacks() counts such calls, tensorops.strict() makes them errors.",
            stacklevel=2,
        )
    return function(*args, **kwargs)


def describe(args: tuple[Any, ...]) -> str:
    """Each tensor by what decides whether it is covered."""
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    kinds = []
    for t in tensors:
        layout = "" if t.layout == torch.strided else f" {str(t.layout).removeprefix('torch.')}"
        kinds.append(f"{str(t.dtype).removeprefix('torch.')}{layout} on {t.device.type}")
    return ", ".join(kinds) or "no tensors"
