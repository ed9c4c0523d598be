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
        return op(*numbers_as_tensors(op, align(args, in_dims, promoted), promoted), **kwargs), 0

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
        op(*numbers_as_tensors(op, align(args, in_dims, slice(1, None)), slice(None)), **kwargs)
        return args[0], in_dims[0]

    return rule


def numbers_as_tensors(op: Any, args: list[Any], promoted: slice) -> list[Any]:
    """A number in a tensor's place reaches a rule as such, and the schema refuses it: a 0-dim tensor that promotes alike."""
    places = [
        i for i, argument in enumerate(op.default._schema.arguments) if isinstance(argument.type, torch.TensorType)
    ]
    numbers = [i for i in places if i < len(args) and not isinstance(args[i], Tensor)]
    if not numbers:
        return args
    operands = [args[i] for i in places[promoted]]
    tensors = [operand for operand in operands if isinstance(operand, Tensor)]
    shaped = any(tensor.dim() > 0 for tensor in tensors)
    common = result_type(tensors) if tensors else None
    dtype = result_type(operands)
    # Beside a tensor of its own kind that has dimensions, a 0-dim tensor has no say: there it can keep the full value.
    if shaped and dtype == common and dtype != torch.bool:
        dtype = torch.float64 if dtype.is_floating_point else torch.int64
    return [torch.scalar_tensor(arg, dtype=dtype) if i in numbers else arg for i, arg in enumerate(args)]


def result_type(operands: list[Any]) -> torch.dtype:
    """torch.result_type of any number of tensors and numbers."""
    total = operands[0]
    dtype = torch.result_type(total, total)
    for operand in operands[1:]:
        dtype = torch.result_type(total, operand)
        both = [value for value in (total, operand) if isinstance(value, Tensor)]
        if both:
            total = torch.empty([1] * max(value.dim() for value in both), dtype=dtype, device="meta")
        else:
            total = max(total, operand, key=lambda value: isinstance(value, float))
    return dtype


def front(arg: Tensor, dim: int | None, batch: int | None = None) -> Tensor:
    """The batch as dimension 0; a tensor without one is left alone, or repeated `batch` times without a copy."""
    if dim is not None:
        return arg.movedim(dim, 0)
    return arg if batch is None else arg.expand(batch, *arg.shape)


def unfold(results: Any, dim: int, batch: int) -> Any:
    """Splits the batch off again: of dimension `dim`, in every result."""
    if isinstance(results, tuple):
        return tuple(unfold(result, dim, batch) for result in results)
    return results.unflatten(dim, (batch, -1))


def planes(name: str) -> Rule:
    """Pooling works plane by plane: the batch folds into N, or is N where the example has none."""
    op = getattr(torch.ops.tensorops, name)

    def rule(info: Any, in_dims: Dims, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        folded = [
            front(arg, dim, info.batch_size) if isinstance(arg, Tensor) else arg
            for arg, dim in zip(args, in_dims, strict=True)
        ]
        if folded[0].dim() == 4:
            results = op(*folded, **kwargs)
        else:
            folded = [arg.flatten(0, 1) if isinstance(arg, Tensor) else arg for arg in folded]
            results = unfold(op(*folded, **kwargs), 0, info.batch_size)
        return results, (0,) * len(results) if isinstance(results, tuple) else 0

    return rule


def channels(arg: Tensor, dim: int | None, batch: int) -> Tensor:
    """(N, C, H, W) per example as (N, batch · C, H, W)."""
    return front(arg, dim, batch).movedim(0, 1).flatten(1, 2)


def outputs(arg: Tensor | None, dim: int | None, batch: int) -> Tensor | None:
    """A weight or bias, (O, ...) per example, as (batch · O, ...)."""
    return None if arg is None else front(arg, dim, batch).flatten(0, 1)


def conv2d(
    info: Any, in_dims: Dims, input: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any
) -> tuple[Tensor, int]:
    """One weight for all: the batch folds into N. A weight per example: into groups."""
    op, batch = torch.ops.tensorops._conv2d, info.batch_size
    if in_dims[1] is None and in_dims[2] is None:
        return unfold(op(front(input, in_dims[0]).flatten(0, 1), weight, bias, *geometry), 0, batch), 0
    *window, groups = geometry
    wide, kernels = channels(input, in_dims[0], batch), outputs(weight, in_dims[1], batch)
    return unfold(op(wide, kernels, outputs(bias, in_dims[2], batch), *window, groups * batch), 1, batch), 1


def conv2d_input_gradient(
    info: Any, in_dims: Dims, grad: Tensor, weight: Tensor, input_size: list[int], *geometry: Any
) -> tuple[Tensor, int]:
    """As conv2d."""
    op, batch = torch.ops.tensorops.conv2d_input_gradient, info.batch_size
    n, c, *plane = input_size
    if in_dims[1] is None:
        folded = front(grad, in_dims[0]).flatten(0, 1)
        return unfold(op(folded, weight, [batch * n, c, *plane], *geometry), 0, batch), 0
    *window, groups = geometry
    wide, kernels = channels(grad, in_dims[0], batch), outputs(weight, in_dims[1], batch)
    return unfold(op(wide, kernels, [n, batch * c, *plane], *window, groups * batch), 1, batch), 1


def conv2d_weight_gradient(
    info: Any, in_dims: Dims, grad: Tensor, input: Tensor, weight_size: list[int], *geometry: Any
) -> tuple[Tensor, int]:
    """A gradient per example: the batch goes into groups."""
    op, batch = torch.ops.tensorops.conv2d_weight_gradient, info.batch_size
    o, *kernel = weight_size
    *window, groups = geometry
    wide = channels(grad, in_dims[0], batch), channels(input, in_dims[1], batch)
    return unfold(op(*wide, [batch * o, *kernel], *window, groups * batch), 0, batch), 0


def conv2d_bias_gradient(info: Any, in_dims: Dims, grad: Tensor) -> tuple[Tensor, int]:
    """A sum per channel."""
    wide = channels(grad, in_dims[0], info.batch_size)
    return unfold(torch.ops.tensorops.conv2d_bias_gradient(wide), 0, info.batch_size), 0


def product(form: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    """A product of two tensors that broadcasts once the batch is in front."""

    def rule(info: Any, in_dims: Dims, a: Tensor, b: Tensor) -> tuple[Tensor, int]:
        return form(front(a, in_dims[0]), front(b, in_dims[1])), 0

    return rule


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Our matmul."""
    result: Tensor = torch.ops.tensorops.matmul(a, b)
    return result


PRODUCTS: dict[str, Rule] = {
    "mm": product(matmul),
    "bmm": product(matmul),
    "mv": product(lambda a, b: matmul(a, b.unsqueeze(-1)).squeeze(-1)),
    "dot": product(lambda a, b: matmul(a.unsqueeze(-2), b.unsqueeze(-1)).squeeze(-1).squeeze(-1)),
    "outer": product(lambda a, b: torch.ops.tensorops.mul(a.unsqueeze(-1), b.unsqueeze(-2))),
}


def added(name: str) -> Rule:
    """beta · input + alpha · product, input broadcast to the product."""

    def rule(
        info: Any, in_dims: Dims, input: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1
    ) -> tuple[Tensor, int]:
        ops = torch.ops.tensorops
        if in_dims[1] is None and in_dims[2] is None:
            value, dim = getattr(ops, name)(a, b), None
        else:
            value, dim = PRODUCTS[name](info, in_dims[1:], a, b)
        if alpha != 1:
            value = ops.mul(value, alpha)
        if beta == 0:  # input, NaN and all, has no say
            return front(value, dim, info.batch_size), 0
        if beta != 1:
            input = ops.mul(input, beta)
        return ops.add(*align((input, value), (in_dims[0], dim), slice(None))), 0

    return rule


def linear(info: Any, in_dims: Dims, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, int]:
    """One weight for all: the batch is one more row dimension. A weight per example: a batched matrix product."""
    biased = bias is not None
    if in_dims[1] is None and (not biased or in_dims[2] is None):
        return torch.ops.tensorops.linear(front(input, in_dims[0]), weight, bias), 0
    batch = info.batch_size
    x = front(input, in_dims[0], batch)
    y = matmul(x.reshape(batch, -1, x.shape[-1]), front(weight, in_dims[1]).transpose(-1, -2))
    if bias is not None:
        y = torch.ops.tensorops.add(y, front(bias, in_dims[2], batch).unsqueeze(1))
    return y.reshape(*x.shape[:-1], y.shape[-1]), 0


def shifted(dim: int, rank: int) -> int:
    """A dimension of one example, behind the batch."""
    if not -rank <= dim < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    return dim % rank + 1


def reduction(name: str, overload: str = "default") -> Rule:
    """The dimensions to reduce move one to the right; `none` means all but the batch."""
    op = getattr(getattr(torch.ops.tensorops, name), overload)
    arguments = op._schema.arguments
    position = next(i for i, argument in enumerate(arguments) if argument.name == "dim")
    several = "List" in str(arguments[position].type)

    def rule(info: Any, in_dims: Dims, input: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        named = {a.name: value for a, value in zip(arguments[1:], args, strict=False)} | kwargs
        x = front(input, in_dims[0])
        rank, dim, keep = x.dim() - 1, named.get("dim"), named.get("keepdim", False)
        shape = None
        if rank == 0:
            shape = [info.batch_size]
            x, dim = x.unsqueeze(1), [1] if several else 1
            if "keepdim" in named:
                named["keepdim"] = False
        elif several:
            dims = dim if isinstance(dim, (list, tuple)) else [] if dim is None else [dim]
            dim = [shifted(d, rank) for d in dims] or list(range(1, rank + 1))
        elif dim is None:
            x, dim = x.flatten(1), 1
            shape = [info.batch_size, *[1] * rank] if keep else None
        else:
            dim = shifted(dim, rank)
        results = op(x, **named | {"dim": dim})
        if isinstance(results, tuple):
            return tuple(r if shape is None else r.reshape(shape) for r in results), (0,) * len(results)
        return results if shape is None else results.reshape(shape), 0

    return rule


def scan_inplace(name: str) -> Rule:
    """Through a view with the batch in front."""
    batched = reduction(name)

    def rule(info: Any, in_dims: Dims, input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, int | None]:
        batched(info, in_dims, input, *args, **kwargs)
        return input, in_dims[0]

    return rule


REDUCTIONS = (
    ("sum", "default"),
    ("mean", "default"),
    ("prod", "default"),
    ("amax", "default"),
    ("amin", "default"),
    ("any", "default"),
    ("all", "default"),
    ("var", "default"),
    ("std", "default"),
    ("var_mean", "default"),
    ("std_mean", "default"),
    ("logsumexp", "default"),
    ("count_nonzero", "default"),
    ("argmax", "default"),
    ("argmin", "default"),
    ("aminmax", "default"),
    ("max", "dim"),
    ("min", "dim"),
    ("norm", "scalar"),
    # these keep the dimension
    ("cumsum", "default"),
    ("cumprod", "default"),
    ("softmax", "default"),
    ("log_softmax", "default"),
)

PLANES = (
    "avg_pool2d",
    "_avg_pool2d_backward",
    "max_pool2d",
    "max_pool2d_with_indices",
    "_max_pool2d_with_position",
    "_max_pool2d_backward",
    "_max_pool2d_pick",
    "max_unpool2d",
    "_plane_gather",
    "_plane_scatter_add",
)


def rules() -> dict[str, Rule]:
    """Every op that has a rule, by its name."""
    found: dict[str, Rule] = {}
    for name in _C.elementwise_ops:
        found[name] = elementwise(name)
        if hasattr(torch.ops.tensorops, name + "_"):
            found[name + "_"] = elementwise_inplace(name + "_")
    found |= {name: planes(name) for name in PLANES}
    found |= PRODUCTS
    for name, overload in REDUCTIONS:
        found[name if overload == "default" else f"{name}.{overload}"] = reduction(name, overload)
    found |= {name: scan_inplace(name) for name in ("cumsum_", "cumprod_")}
    found |= {"addmm": added("mm"), "addmv": added("mv"), "baddbmm": added("bmm"), "addr": added("outer")}
    found |= {
        "linear": linear,
        "_conv2d": conv2d,
        "conv2d_input_gradient": conv2d_input_gradient,
        "conv2d_weight_gradient": conv2d_weight_gradient,
        "conv2d_bias_gradient": conv2d_bias_gradient,
    }
    return found


_library = torch.library.Library("tensorops", "FRAGMENT")


def decomposed(op: Any) -> Callable[..., Any]:
    """An op that is made of others: each of them has its own rule."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return op.decompose(*args, **kwargs)

    return kernel


def register() -> None:
    """Registers all rules."""
    for name, rule in rules().items():
        torch.library.register_vmap(f"tensorops::{name}", rule, lib=_library)
    for qualified in torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd"):
        namespace, _, name = qualified.partition("::")
        if namespace == "tensorops":
            base, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.tensorops, base), overload or "default")
            _library.impl(name, decomposed(op), "FuncTorchBatched")
