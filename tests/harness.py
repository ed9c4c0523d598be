"""How a result is judged: names, layouts, and error by the rule of DESIGN.md (promise 4).

The rule: error(ours) <= 2 * error(torch, same dtype) + 1 ulp, both against torch in float64. It is asked in two measures,
element by element against the largest error of torch: in absolute terms, and for elementwise ops in units of the last
place of each reference element too, so that small results are held to it as well.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import tensorops
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from tests.cases.case import Case, Draw

FAMILIES = ("elementwise", "matmul", "convolution", "pooling", "reduction", "loss")


# Set where CUDA's kernels stand in for the CPU's (tools/emulate_cuda.py).
EMULATED_CUDA = os.environ.get("TENSOROPS_TEST_EMULATED_CUDA") == "1"


def family_cases(family: str) -> list[Case]:
    """The family's table; empty where it has none yet, which test_family_has_cases reports."""
    name = f"tests.cases.{family}"
    if importlib.util.find_spec(name) is None:
        return []
    rows = list(importlib.import_module(name).CASES)
    return cuda_rows([without_rounded_scalars(row) for row in rows]) if EMULATED_CUDA else rows


def without_rounded_scalars(row: Case) -> Case:
    """Where CUDA's kernels stand in for the CPU's, the row in the dtypes that torch computes alike on both."""
    reduced = (torch.bfloat16, torch.float16) if row.rounds_scalar else ()
    return replace(row, dtypes=tuple(dtype for dtype in row.dtypes if dtype not in reduced))


def cuda_rows(rows: list[Case]) -> list[Case]:
    """The rows with the dtypes that their ops have on CUDA, without those that have none."""
    rows = [row if row.cuda_dtypes is None else replace(row, dtypes=row.cuda_dtypes) for row in rows]
    return [row for row in rows if row.dtypes]


def lookup(root: Any, path: str) -> Callable[..., Any]:
    """The function at a dotted path below torch or tensorops."""
    for part in path.split("."):
        root = getattr(root, part)
    return root


def ours(op: str) -> Callable[..., Any]:
    """Tensorops' function of that name; inside on_device(...), run there."""
    function = lookup(tensorops, op)
    assert function is not lookup(torch, op), f"tensorops.{op} is torch's own function"
    return run_on(function, _device) if _device else function


def theirs(op: str) -> Callable[..., Any]:
    """Torch's function of that name; inside on_device(...), run there."""
    function = lookup(torch, op)
    return run_on(function, _device) if _device else function


def rounded_to_tf32(t: Tensor) -> Tensor:
    """Float32 with 10 bits of mantissa, rounded to nearest, ties away from zero."""
    return ((t.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@contextmanager
def tf32(backend: Any, allowed: bool) -> Iterator[None]:
    """A backend's allow_tf32 for a while."""
    before = backend.allow_tf32
    backend.allow_tf32 = allowed
    try:
        yield
    finally:
        backend.allow_tf32 = before


needs_tf32 = pytest.mark.skipif(
    not EMULATED_CUDA and not torch.cuda.is_available(), reason="tf32 needs an NVIDIA GPU, or the emulated kernels"
)
CUDA_OR_EMULATED = "cpu" if EMULATED_CUDA else "cuda"

_device: str | None = None


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Ops run on this device for a while, on copies of their arguments; results come back to the CPU, gradients too."""
    global _device
    _device = device
    try:
        yield
    finally:
        _device = None


def run_on(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """The function of CPU tensors that computes on a device."""

    def moved(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = map_tensors(lambda t: same_layout_on(t, device), (args, kwargs))
        return map_tensors(lambda t: same_layout_on(t, "cpu"), function(*args, **kwargs))

    return moved


def same_layout_on(t: Tensor, device: str) -> Tensor:
    """A copy on the device with t's strides and storage offset, through which gradients go back."""
    if t.numel() == 0:
        return t.to(device, copy=True)
    extent = t.storage_offset() + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) + 1
    whole = t.as_strided((extent,), (1,), 0).to(device, copy=True)
    return whole.as_strided(t.shape, t.stride(), t.storage_offset())


def inplace_twins(op: str) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None]:
    """(ours, torch's) of `op_`; None where there is none."""
    *parents, name = op.split(".")
    path = ".".join([*parents, name + "_"])

    def find(root: Any, *more: Any) -> Callable[..., Any] | None:
        try:
            return lookup(root, path)
        except AttributeError:
            return next((getattr(place, name + "_") for place in more if hasattr(place, name + "_")), None)

    return find(tensorops), find(torch, torch.Tensor)


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The tree with function(t) in place of each tensor t."""
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def with_gradients(args: tuple, kwargs: dict, constants: tuple[str, ...] = ()) -> tuple[tuple, dict]:
    """Leaf copies of the same layout; floating tensors require a gradient, but for the keyword arguments `constants`."""
    leaves = map_tensors(lambda t: same_layout(t).requires_grad_(t.is_floating_point()), (args, kwargs))
    for name in constants:
        map_tensors(lambda t: t.requires_grad_(False), leaves[1].get(name))
    return leaves


def unexpanded(t: Tensor) -> Tensor:
    """The part of t that its expanded dimensions repeat."""
    for dim in range(t.dim()):
        if t.stride(dim) == 0 and t.shape[dim] > 1:
            t = t.narrow(dim, 0, 1)
    return t


def same_layout(t: Tensor) -> Tensor:
    """A copy with t's strides and storage offset, expanded dimensions included."""
    if t.numel() == 0:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device)
    extent = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) + 1
    storage = torch.empty(t.storage_offset() + extent, dtype=t.dtype, device=t.device)
    storage.copy_(torch.as_strided(t.detach(), storage.shape, (1,), 0))
    return storage.as_strided(t.shape, t.stride(), t.storage_offset())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch.set_default_dtype for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch.set_num_threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_double(tree: Any) -> Any:
    """The same values in float64; dtype arguments as well."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf.detach().double()
        if isinstance(leaf, torch.dtype) and leaf.is_floating_point:
            return torch.float64
        return leaf

    return tree_map(convert, tree)


def reference(compute: Callable[[tuple, dict], Any], args: tuple, kwargs: dict) -> Any:
    """compute(args, kwargs) in float64."""
    with default_dtype(torch.float64):
        return compute(in_double(args), in_double(kwargs))


# --- error --------------------------------------------------------------------------------------------------------------


def ulp(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The unit in the last place of `dtype` at each value, in float64; of a subnormal, the smallest step."""
    info = torch.finfo(dtype)
    magnitude = value.detach().double().abs().clamp(info.tiny, info.max)
    exponent = torch.frexp(magnitude).exponent - 1
    return torch.ldexp(torch.full_like(magnitude, info.eps), exponent)


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise: equal bit for bit, any NaN equal to any other."""
    if not a.is_floating_point():
        return a == b
    return ((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())


def errors(value: Tensor, exact: Tensor) -> tuple[float, float]:
    """The largest error where both are finite: absolute, and in ulps of the exact element."""
    distance = (value.double() - exact).abs()
    distance = distance[distance.isfinite()]
    if distance.numel() == 0:
        return 0.0, 0.0
    finite = exact[(value.double() - exact).isfinite()]
    return distance.max().item(), (distance / ulp(finite, value.dtype)).max().item()


def assert_same_kind(value: Any, expected: Any, strides: bool = True) -> None:
    """Same type of result (tensor, tuple, named tuple), dtypes, shapes and strides."""
    assert type(value) is type(expected), f"result is a {type(value)}, torch's a {type(expected)}"
    if isinstance(expected, Tensor):
        assert value.dtype == expected.dtype, f"dtype {value.dtype}, torch's {expected.dtype}"
        assert value.shape == expected.shape, f"shape {tuple(value.shape)}, torch's {tuple(expected.shape)}"
        if strides and expected.numel() > 0:
            meaningful = [i for i, size in enumerate(expected.shape) if size > 1]
            got, want = [value.stride(i) for i in meaningful], [expected.stride(i) for i in meaningful]
            assert got == want, f"strides {value.stride()}, torch's {expected.stride()}"
    elif isinstance(expected, (tuple, list)):
        assert len(value) == len(expected)
        for a, b in zip(value, expected, strict=True):
            assert_same_kind(a, b, strides)


def assert_equal(value: Any, expected: Any, what: str = "result") -> None:
    """Bit for bit, NaN-aware."""
    for a, b in zip(tensors_of(value), tensors_of(expected), strict=True):
        same = same_bits(a.detach(), b.detach())
        assert bool(same.all()), f"{what} differs{first_difference(a, b, ~same)}"


def first_difference(a: Tensor, b: Tensor, where: Tensor) -> str:
    """Says how often and where two tensors differ, and how at the first place."""
    index = tuple(where.nonzero()[0].tolist())
    count = int(where.sum())
    return (
        f" at {count} of {where.numel()} places, first at {list(index)}: {a[index].item()!r}, torch {b[index].item()!r}"
    )


def assert_accurate(
    value: Tensor, torchs: Tensor, exact: Tensor, ulps: bool, allowed: tuple[float, float], what: str = "result"
) -> None:
    """Promise 4 for one tensor: `allowed` is the error, absolute and in ulps, beside one ulp: of the largest element for
    the absolute measure, as the rounding of a sum is one of its large terms; of each element where `ulps`."""
    value, torchs, exact = value.detach(), torchs.detach(), exact.detach()
    if not torchs.is_floating_point():
        same = value == torchs
        assert bool(same.all()), f"{what} differs{first_difference(value, torchs, ~same)}"
        return
    rounded = exact.to(value.dtype)
    judged = value.isfinite() & rounded.isfinite()
    agree = (value == torchs) | (value == rounded) | (value.isnan() & (torchs.isnan() | rounded.isnan()))
    strange = ~judged & ~agree
    assert not bool(strange.any()), f"{what} differs{first_difference(value, torchs, strange)}"
    # Equal to torch is right wherever torch is, by definition.
    judged &= value != torchs
    value, torchs, exact = value[judged].double(), torchs[judged], exact[judged].double()
    if value.numel() == 0:
        return
    absolute, in_ulps = allowed
    scale = ulp(rounded[rounded.isfinite()].abs().max(), torchs.dtype).item()
    error = (value - exact).abs()
    worst = int(error.argmax())
    assert error[worst] <= absolute + scale, (
        f"{what}: error {error[worst]:.3g} against float64 at {exact[worst]:.9g} (ours {value[worst]:.9g}, torch "
        f"{torchs[worst].item():.9g}); allowed by torch's error {absolute:.3g}, by one ulp {scale:.3g}"
    )
    if ulps:
        distance = error / ulp(exact, torchs.dtype)
        if torchs.dtype == torch.float64:  # the reference is torch itself, which loses subnormal results sooner than we
            distance[exact.abs() < torch.finfo(torch.float64).tiny] = 0
        worst = int(distance.argmax())
        assert distance[worst] <= in_ulps + 1, (
            f"{what}: {distance[worst]:.2f} ulp against float64 at {exact[worst]:.9g} (ours {value[worst]:.9g}, "
            f"torch {torchs[worst].item():.9g}); allowed by torch's error {in_ulps:.2f}"
        )


Allowed = dict[torch.dtype, tuple[float, float]]


def allowed_error(torchs: Any, exacts: Any, narrow: tuple[Any, Any] | None = None) -> Allowed:
    """Per dtype, twice torch's largest error over all tensors of a result, absolute and in ulps. For float64 there is no
    wider reference: `narrow` is (torch in float32, float64), and torch is taken to be as many units of epsilon off in
    float64 as there, or the half unit that rounding the result costs if a few numbers in float32 happened to come out
    better; three times that, because the reference is as far off as torch."""
    allowed: Allowed = {}

    def allow(dtype: torch.dtype, absolute: float, in_ulps: float) -> None:
        before = allowed.get(dtype, (0.0, 0.0))
        allowed[dtype] = max(before[0], absolute), max(before[1], in_ulps)

    for a, b in floating_pairs(torchs, exacts):
        absolute, in_ulps = errors(a.detach(), b.detach())
        allow(a.dtype, 2 * absolute, 2 * in_ulps)
    scale = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    for a, b in floating_pairs(*narrow) if narrow else ():
        if a.dtype == torch.float32:
            absolute, in_ulps = errors(a.detach(), b.detach())
            finite = b[b.isfinite()].abs()
            rounding = ulp(finite.max(), torch.float64).item() / 2 if finite.numel() else 0.0
            allow(torch.float64, 3 * max(absolute * scale, rounding), 3 * max(in_ulps, 0.5))
    return allowed


def allowed_over_draws(draws: Iterable[tuple[Any, Any]], exacts: Any) -> Allowed:
    """For float64: twice torch's largest error over several draws of a case, each given as (torch's result, exact), in units
    of the last place of its largest element. Where a case has few results, one draw may happen to be a lucky one."""
    absolute = in_ulps = 0.0
    for torchs, own in draws:
        for a, b in floating_pairs(torchs, own):
            error, error_in_ulps = errors(a.detach(), b.detach())
            absolute, in_ulps = max(absolute, error / largest_ulp(own)), max(in_ulps, error_in_ulps)
    return {torch.float64: (2 * absolute * largest_ulp(exacts), 2 * in_ulps)}


def largest_ulp(exacts: Any, dtype: torch.dtype = torch.float64) -> float:
    """The unit in the last place of the largest finite element of a result."""
    elements = [t[t.isfinite()].abs().max() for t in tensors_of(exacts) if bool(t.isfinite().any())]
    return ulp(torch.stack(elements).max(), dtype).item() if elements else torch.finfo(dtype).tiny


def typical_ulps(exacts: Sequence[Any], dtype: torch.dtype) -> list[float]:
    """Over the exact results of several draws, the median unit in the last place of each tensor's largest element."""
    draws_of_each = zip(*map(tensors_of, exacts), strict=True)
    return [median(largest_ulp(t, dtype) if t.is_floating_point() else 0.0 for t in draws) for draws in draws_of_each]


def worst_errors(
    pairs: Iterable[tuple[Any, Any]], typical: list[float], forgiven: int = 0
) -> list[tuple[float, float]]:
    """Over (result, exact) pairs, the largest error of each tensor: in units of the last place of its largest element,
    less those `forgiven`, and in ulps of each element. A sum that cancels is as wrong as any other but smaller, so that
    the unit is the `typical` one where it is less: else the draw that came nearest to zero, and torch's luck in it, would
    decide."""
    worst = [(0.0, 0.0)] * len(typical)
    for results, exacts in pairs:
        for i, (a, b) in enumerate(zip(tensors_of(results), tensors_of(exacts), strict=True)):
            if a.is_floating_point():
                absolute, in_ulps = errors(a.detach(), b.detach())
                own = largest_ulp(b, a.dtype)
                beyond = (absolute - forgiven * own) / max(own, typical[i])
                worst[i] = max(worst[i][0], beyond), max(worst[i][1], in_ulps)
    return worst


def floating_pairs(a: Any, b: Any) -> Iterator[tuple[Tensor, Tensor]]:
    return ((x, y) for x, y in zip(tensors_of(a), tensors_of(b), strict=True) if x.is_floating_point())


def assert_all_accurate(
    values: Any, torchs: Any, exacts: Any, ulps: bool, allowed: Allowed, what: str = "result"
) -> None:
    """Promise 4 for every tensor of a result."""
    triples = zip(tensors_of(values), tensors_of(torchs), tensors_of(exacts), strict=True)
    for i, (value, torchs_, exact) in enumerate(triples):
        assert_accurate(
            value, torchs_, exact, ulps, allowed.get(torchs_.dtype, (0.0, 0.0)), f"{what} {i}" if i else what
        )


# --- gradients ----------------------------------------------------------------------------------------------------------


def cotangents(result: Any, seed: int = 1) -> list[Tensor]:
    """An incoming gradient for every differentiable output, the same values for every dtype up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for t in tensors_of(result):
        if t.is_floating_point():
            drawn.append(torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype))
    return drawn


def gradients(
    function: Callable[..., Any],
    args: tuple,
    kwargs: dict,
    incoming: list[Tensor] | None = None,
    constants: tuple[str, ...] = (),
) -> list[Tensor]:
    """The gradient of every floating argument that is not one of `constants`; zeros where there is none."""
    args, kwargs = with_gradients(args, kwargs, constants)
    result = function(*args, **kwargs)
    outputs = [t for t in tensors_of(result) if t.is_floating_point()]
    incoming = (
        cotangents(result) if incoming is None else [g.to(t.dtype) for g, t in zip(incoming, outputs, strict=True)]
    )
    pairs = [(t, g) for t, g in zip(outputs, incoming, strict=True) if t.requires_grad]
    inputs = [t for t in tensors_of((args, kwargs)) if t.requires_grad]
    if not pairs:
        return [torch.zeros_like(t) for t in inputs]
    outputs, incoming = [t for t, _ in pairs], [g for _, g in pairs]
    return list(torch.autograd.grad(outputs, inputs, incoming, allow_unused=True, materialize_grads=True))


# --- layouts ------------------------------------------------------------------------------------------------------------


def transposed(t: Tensor) -> Tensor | None:
    """The same values with the first and last dimensions swapped in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else None


def stepped(t: Tensor) -> Tensor | None:
    """The same values, every other element of a wider tensor."""
    if t.dim() == 0:
        return None
    wide = torch.zeros(*t.shape[:-1], 2 * t.shape[-1] + 1, dtype=t.dtype, device=t.device)
    view = wide[..., 1::2]
    return view.copy_(t)


def offset(t: Tensor) -> Tensor | None:
    """The same values one element into a storage: not aligned."""
    storage = torch.zeros(t.numel() + 1, dtype=t.dtype, device=t.device)
    return storage[1:].view(t.shape).copy_(t)


def expanded(t: Tensor) -> Tensor | None:
    """The first slice of the first dimension, repeated with stride 0: other values."""
    return t[:1].expand(t.shape) if t.dim() > 0 and t.shape[0] > 1 else None


def channels_last(t: Tensor) -> Tensor | None:
    """The same values in channels_last order."""
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else None


LAYOUTS: dict[str, Callable[[Tensor], Tensor | None]] = {
    f.__name__: f for f in (transposed, stepped, offset, expanded, channels_last)
}


def layout_variants(args: tuple, kwargs: dict) -> Iterator[tuple[str, tuple, dict]]:
    """(label, args, kwargs) with each tensor argument in each layout, and with all of them."""
    leaves, spec = tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    for name, change in LAYOUTS.items():
        changed = {i: change(leaves[i]) for i in places}
        changed = {i: t for i, t in changed.items() if t is not None}
        groups: Iterable[list[int]] = [[i] for i in changed]
        if len(changed) > 1:
            groups = [*groups, list(changed)]
        for group in groups:
            new = [changed[i] if i in group else leaf for i, leaf in enumerate(leaves)]
            new_args, new_kwargs = torch.utils._pytree.tree_unflatten(new, spec)
            yield f"{name} {','.join(map(str, group))}", new_args, new_kwargs


def draw(case: Case, dtype: torch.dtype, seed: int = 0) -> tuple[tuple, dict]:
    """The case's arguments."""
    return case.make(Draw(dtype, seed=seed))
