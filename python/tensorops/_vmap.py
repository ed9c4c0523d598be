"""torch.vmap: how each op takes a batched dimension without a loop over it. An ordinary call pays nothing for it.

An op without a rule here still works: torch loops over the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _C

Dims = tuple[int | None, ...]
Rule = Callable[..., tuple[Any, Any]]


def ranks(args: tuple[Any, ...], in_dims: Dims) -> list[int | None]:
    """The number of dimensions that one example sees; None for what is not a tensor."""
    return [
        arg.dim() - (dim is not None) if isinstance(arg, Tensor) else None
        for arg, dim in zip(args, in_dims, strict=True)
    ]


def align(args: tuple[Any, ...], in_dims: Dims, promoted: slice) -> list[Any]:
    """The arguments with the batch in front, made to broadcast and promote as those of one example would."""
    logical = ranks(args, in_dims)
    most = max(rank for rank in logical if rank is not None)
    shaped = [arg.dtype for arg, rank in zip(args[promoted], logical[promoted], strict=True) if rank]
    common = functools.reduce(torch.promote_types, shaped) if shaped else None
    aligned = list(args)
    for i, (arg, dim, rank) in enumerate(zip(args, in_dims, logical, strict=True)):
        if dim is None or rank is None:
            continue
        arg = arg.movedim(dim, 0)
        for _ in range(most - rank):
            arg = arg.unsqueeze(1)
        # A 0-dim tensor's dtype gives way to that of tensors with dimensions; with the batch it is 0-dim no more.
        if rank == 0 and common not in (None, arg.dtype) and i in range(len(args))[promoted]:
            dtype = torch.result_type(
                torch.empty(1, dtype=common, device="meta"), torch.empty((), dtype=arg.dtype, device="meta")
            )
            arg = arg.to(dtype)
        aligned[i] = arg
    return aligned


def elementwise(name: str) -> Rule:
    """The batch is one more dimension to broadcast over."""
    op = getattr(torch.ops.tensorops, name)
    promoted = slice(1, None) if name == "where" else slice(None)

    def rule(info: Any, in_dims: Dims, *args: Any, **kwargs: Any) -> tuple[Tensor, int]:
        return op(*align(args, in_dims, promoted), **kwargs), 0

    return rule


def elementwise_inplace(name: str) -> Rule:
    """As above; the tensor written to must have the batch itself."""
    op = getattr(torch.ops.tensorops, name)

    def rule(info: Any, in_dims: Dims, *args: Any, **kwargs: Any) -> tuple[Tensor, int]:
        if in_dims[0] is None:
            raise RuntimeError(
                f"vmap: tensorops.{name} writes into a tensor that is the same for all examples, but not all its other "
                "arguments are; use the op that returns a new tensor"
            )
        logical = ranks(args, in_dims)
        if any(rank is not None and rank > (logical[0] or 0) for rank in logical):
            raise RuntimeError(f"vmap: tensorops.{name}: the result has more dimensions than the tensor written to")
        target, *others = align(args, in_dims, slice(1, None))
        # The schema wants tensors; a number, as such promotes, came through Python.
        others = [
            torch.scalar_tensor(other, dtype=torch.result_type(target, other))
            if _is_number_for_tensor(op, i + 1, other)
            else other
            for i, other in enumerate(others)
        ]
        op(target, *others, **kwargs)
        return args[0], in_dims[0]

    return rule


def _is_number_for_tensor(op: Any, position: int, value: Any) -> bool:
    kind = op.default._schema.arguments[position].type
    return not isinstance(value, Tensor) and isinstance(kind, torch.TensorType)


def rules() -> dict[str, Rule]:
    """Every op that has a rule, by its name."""
    found: dict[str, Rule] = {}
    for name in _C.elementwise_ops:
        found[name] = elementwise(name)
        if hasattr(torch.ops.tensorops, name + "_"):
            found[name + "_"] = elementwise_inplace(name + "_")
    return found


_library = torch.library.Library("tensorops", "FRAGMENT")


def register() -> None:
    """Registers all rules."""
    for name, rule in rules().items():
        torch.library.register_vmap(f"tensorops::{name}", rule, lib=_library)
