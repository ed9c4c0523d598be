"""torch.compile and torch.export: while they trace, a call of one of our C functions becomes a node of the same op.

Dynamo cannot look into a C function; `substitute_in_graph` tells it to trace a Python stand-in. An eager call still
runs the C function itself. Importing Dynamo takes longer than importing tensorops, so the stand-ins are registered when
it is first imported, by torch.compile or torch.export.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import _C, _fallback
from ._lazy import when_imported

# What torch's argument parser takes in the place of its own names.
NUMPY_NAMES = (
    ("axis", "dim"),
    ("keepdims", "keepdim"),
    ("x", "input"),
    ("a", "input"),
    ("x1", "input"),
    ("x2", "other"),
)


COVERED_DTYPES = (
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)


def covered(value: Any) -> bool:
    """Whether our kernels cover an argument: require_covered of csrc/python/bind.h, in terms that Dynamo can trace."""
    if isinstance(value, torch.Tensor):
        return value.dtype in COVERED_DTYPES and not value.is_nested and value.layout == torch.strided
    if isinstance(value, torch.dtype):
        return value in COVERED_DTYPES
    return not isinstance(value, complex)


def kind(dtype: torch.dtype) -> int:
    """bool, integer, floating, complex: a result is cast up this ladder, never down. torch.can_cast, traceable."""
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype == torch.bool else 1


def write(target: torch.Tensor, value: torch.Tensor, resize: bool) -> torch.Tensor:
    """target.copy_(value), with the refusals of out= and of in-place ops."""
    if kind(value.dtype) > kind(target.dtype):
        raise RuntimeError(f"result type {value.dtype} can't be cast to the desired output type {target.dtype}")
    if target.shape != value.shape:
        if not resize:
            raise RuntimeError(
                f"output with shape {list(target.shape)} doesn't match the broadcast shape {list(value.shape)}"
            )
        target.resize_(value.shape)
    return target.copy_(value)


def deprecated_forms(name: str) -> list[list[tuple[bool, str]]]:
    """The positional parameters of each deprecated call form, (whether it is a tensor, name): add(input, alpha, other)."""
    forms = []
    for signature in _C.signatures()[name]:
        if signature.endswith("|deprecated"):
            parameters = signature[signature.index("(") + 1 : signature.index(")")].split(", *")[0].split(", ")
            forms.append([(kind == "Tensor", own) for kind, own in map(str.split, parameters)])
    return forms


def stand_in(name: str, torch_path: str) -> Callable[..., Any] | None:
    """What Dynamo traces in place of the C function `name`; None where there is no op to trace."""
    inplace = name.endswith("_")
    functional = name[:-1] if inplace else name
    # An in-place op or out= is its functional twin and a copy: compilers fuse those, and AOTAutograd wants no aliases.
    op = getattr(torch.ops.tensorops, functional, None)
    if op is None:
        return None
    torchs = _fallback_function(name, torch_path)
    named = getattr(torch.return_types, name, None)
    deprecated = deprecated_forms(name)

    def traced(*args: Any, **kwargs: Any) -> Any:
        for numpys, torchs_own in NUMPY_NAMES:
            if numpys in kwargs:
                kwargs[torchs_own] = kwargs.pop(numpys)
        for form in deprecated:
            # Of the same length as another call there are forms with a tensor where this one has a number.
            if len(args) == len(form) and all(
                tensor or not isinstance(arg, torch.Tensor) for arg, (tensor, _) in zip(args, form, strict=True)
            ):
                kwargs.update({own: arg for arg, (_, own) in zip(args, form, strict=True)})
                args = ()
                break
        for value in (*args, *kwargs.values()):
            if not covered(value):
                if _fallback._strict:
                    raise NotImplementedError(f"tensorops.{name} has no kernel for these arguments")
                return torchs(*args, **kwargs)
        if name == "where" and len(args) + len(kwargs) == 1:  # nonzero, which is torch's
            return torchs(*args, **kwargs)
        if inplace:
            return write(args[0] if args else kwargs["input"], op(*args, **kwargs), False)
        out = kwargs.pop("out", None)
        result = op(*args, **kwargs)
        if named is not None and isinstance(result, tuple):
            result = named(result)
        if out is None:
            return result
        if isinstance(out, torch.Tensor):
            return write(out, result, True)
        return tuple([write(target, value, True) for target, value in zip(out, result, strict=True)])

    traced.__name__ = traced.__qualname__ = name
    return traced


def _fallback_function(name: str, torch_path: str) -> Callable[..., Any]:
    try:
        return _fallback.torch_function(name, torch_path)
    except NotImplementedError as error:
        message = str(error)

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(message)

        return refuse


def register() -> None:
    """Tells Dynamo of every bound function."""
    for name, torch_path in _C.bound_functions().items():
        traced = stand_in(name, torch_path)
        if traced is not None:
            torch.compiler.substitute_in_graph(getattr(_C, name), skip_signature_check=True)(traced)


def register_when_dynamo_loads() -> None:
    """Registers now if Dynamo is loaded, else as soon as it is."""
    when_imported("torch._dynamo", register)
