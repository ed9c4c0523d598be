"""What is asked of every case of every family. A family's test module names its FAMILY and imports these tests; conftest
makes one test per row and dtype, or per row, or per op."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import tensorops
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from tests import wide
from tests.cases.case import Case
from tests.harness import (
    Allowed,
    allowed_error,
    allowed_over_draws,
    assert_accurate,
    assert_all_accurate,
    assert_equal,
    assert_same_kind,
    cotangents,
    draw,
    gradients,
    inplace_twins,
    largest_ulp,
    layout_variants,
    lookup,
    map_tensors,
    on_device,
    ours,
    reference,
    same_bits,
    same_layout,
    same_layout_on,
    tensors_of,
    theirs,
    threads,
    typical_ulps,
    unexpanded,
    with_gradients,
    worst_errors,
)

# Set where the whole table would take too long, as under another instruction set: only f32 and bf16.
FEW_DTYPES = os.environ.get("TENSOROPS_TEST_FEW_DTYPES") == "1"


def tested_dtypes(case: Case) -> list[torch.dtype]:
    """Large rows are about threads, not dtypes: one is enough."""
    some = [d for d in case.dtypes if d in (torch.float32, torch.bfloat16)] if FEW_DTYPES or case.large else []
    return list(some[:1] if case.large and some else some or case.dtypes)


def representative(case: Case) -> torch.dtype:
    """The dtype for checks that are done in one only: the first, but f32 rather than a wider or narrower float."""
    return torch.float32 if torch.float32 in case.dtypes else case.dtypes[0]


def check_forward(case: Case, dtype: torch.dtype, args: tuple, kwargs: dict) -> None:
    """Our result against torch's, and against float64."""
    torchs = theirs(case.op)(*args, **kwargs)
    result = ours(case.op)(*args, **kwargs)
    assert_same_kind(result, torchs, case.strides)
    if case.exact:
        assert_equal(result, torchs)
        return
    compute = lambda args, kwargs: theirs(case.op)(*args, **kwargs)  # noqa: E731
    our_compute = lambda args, kwargs: ours(case.op)(*args, **kwargs)  # noqa: E731
    widely = lambda args, kwargs: wide.results(case.op, args, kwargs)  # noqa: E731
    exact, allowed = judge(case, dtype, (args, kwargs), torchs, compute, widely)
    assert_as_accurate(case, dtype, result, torchs, exact, allowed, case.ulps, our_compute, compute)


def check_gradient(case: Case, dtype: torch.dtype, args: tuple, kwargs: dict) -> None:
    """Our gradients against torch's, and against float64."""
    incoming = cotangents(theirs(case.op)(*args, **kwargs))
    mine = gradients(ours(case.op), args, kwargs, incoming, case.constants)
    if case.dense_gradient:
        args, kwargs = map_tensors(Tensor.contiguous, (args, kwargs))
    torchs = gradients(theirs(case.op), args, kwargs, incoming, case.constants)
    for a, b in zip(mine, torchs, strict=True):
        assert_same_kind(a, b, strides=False)
    compute = lambda args, kwargs: gradients(theirs(case.op), args, kwargs, incoming, case.constants)  # noqa: E731
    our_compute = lambda args, kwargs: gradients(ours(case.op), args, kwargs, incoming, case.constants)  # noqa: E731
    widely = lambda args, kwargs: wide.gradient(case.op, args, kwargs, incoming)  # noqa: E731
    exact, allowed = judge(case, dtype, (args, kwargs), torchs, compute, widely)
    assert_as_accurate(case, dtype, mine, torchs, exact, allowed, False, our_compute, compute, what="gradient")


Compute = Callable[[tuple, dict], Any]


def judge(
    case: Case, dtype: torch.dtype, call: tuple[tuple, dict], torchs: Any, compute: Compute, widely: Compute
) -> tuple[Any, Allowed]:
    """The exact result, and the error allowed beside it. `compute` is torch's way, `widely` that in long double."""
    if dtype == torch.float64 and case.op in wide.OPS:
        exact = widely(*call)
        # One result is one draw, and so is a gradient that stands on it, of however many elements.
        count = sum(t.numel() for t in wide.results(case.op, *call))
        others = (draw(case, dtype, seed) for seed in range(max(4, min(32, 1000 // max(count, 1)))))
        return exact, allowed_over_draws(((compute(*other), widely(*other)) for other in others), exact)
    exact = reference(compute, *call)
    return exact, allowed_error(torchs, exact, in_float32(case, compute) if dtype == torch.float64 else None)


DRAWS = 32


def assert_as_accurate(
    case: Case,
    dtype: torch.dtype,
    values: Any,
    torchs: Any,
    exact: Any,
    allowed: Allowed,
    ulps: bool,
    ours_of: Compute,
    theirs_of: Compute,
    what: str = "result",
) -> None:
    """Promise 4 by torch's error in this very draw, which is `allowed`; where that is not enough, by torch's worst error
    over many draws, for this draw and for our worst of the same draws. How lucky torch was in one depends on the machine:
    its kernels fuse, and order sums, by instruction set."""
    try:
        assert_all_accurate(values, torchs, exact, ulps, allowed, what)
    except AssertionError:
        if dtype == torch.float64 and (case.op in wide.OPS or torch.float32 not in case.dtypes):
            raise
        # Torch in float64 is itself the reference there: its error is that in float32, and the reference's comes on top.
        narrow, multiple = (torch.float32, 3.0) if dtype == torch.float64 else (dtype, 2.0)
        drawn = [draw(case, narrow, seed) for seed in range(DRAWS)]
        exacts = [reference(theirs_of, *call) for call in drawn]
        typical = typical_ulps(exacts, narrow)
        torchs_worst = worst_errors(zip((theirs_of(*call) for call in drawn), exacts, strict=True), typical)
        our_worst = worst_errors(zip((ours_of(*call) for call in drawn), exacts, strict=True), typical, forgiven=1)
        for i, ((ours_, in_ulps), (theirs_, theirs_in_ulps)) in enumerate(zip(our_worst, torchs_worst, strict=True)):
            over = f"{what} {i} over {DRAWS} draws in {narrow}: ours"
            assert ours_ <= 2 * theirs_, f"{over} {ours_:.3g} and one, torch's {theirs_:.3g} ulp of the largest element"
            assert not ulps or in_ulps <= 2 * theirs_in_ulps + 1, (
                f"{over} {in_ulps:.3g}, torch's {theirs_in_ulps:.3g} ulp"
            )
        typical = typical_ulps(exacts, dtype)
        parts = zip(tensors_of(values), tensors_of(torchs), tensors_of(exact), torchs_worst, typical, strict=True)
        for i, (value, torchs_, exact_, (units, in_ulps), usual) in enumerate(parts):
            scale = max(largest_ulp(exact_, torchs_.dtype), usual) if torchs_.is_floating_point() else 0.0
            assert_accurate(value, torchs_, exact_, ulps, (multiple * units * scale, multiple * in_ulps), f"{what} {i}")


def in_float32(case: Case, compute: Callable[..., Any]) -> tuple[Any, Any] | None:
    """The case computed in float32, and its float64 reference."""
    if torch.float32 not in case.dtypes:
        return None
    args, kwargs = draw(case, torch.float32)
    return compute(args, kwargs), reference(compute, args, kwargs)


# --- one test per row ---------------------------------------------------------------------------------------------------


def for_dtypes(case: Case, check: Callable[..., None], dtypes: list[torch.dtype]) -> None:
    """Runs the check in every dtype before it fails, to tell a wrong dtype from a wrong op."""
    failures = []
    for dtype in dtypes:
        try:
            check(case, dtype, *draw(case, dtype))
        except Exception as error:
            failures.append((dtype, error))
    if failures:
        message = "\n".join(f"{dtype}: {type(error).__name__}: {error}" for dtype, error in failures)
        raise AssertionError(f"{len(failures)} of {len(dtypes)} dtypes\n{message}") from failures[0][1]


def test_forward(case: Case) -> None:
    for_dtypes(case, check_forward, tested_dtypes(case))


def test_gradient(case: Case) -> None:
    for_dtypes(case, check_gradient, [dtype for dtype in tested_dtypes(case) if dtype.is_floating_point])


def test_gradcheck(case: Case) -> None:
    """First and second derivative against finite differences, for defined and undefined incoming gradients."""
    args, kwargs = draw(case, torch.float64)
    args, kwargs = with_gradients(args, kwargs, case.constants)
    # Finite differences move one element at a time, so what is expanded is expanded inside the function.
    inputs = [same_layout(unexpanded(t)).requires_grad_() for t in tensors_of((args, kwargs)) if t.requires_grad]
    fast = sum(t.numel() for t in inputs) > 48

    def function(*values: Tensor) -> Any:
        given = iter(values)
        call = map_tensors(lambda t: next(given).expand(t.shape) if t.requires_grad else t, (args, kwargs))
        result = ours(case.op)(*call[0], **call[1])
        outputs = tuple(t for t in tensors_of(result) if t.requires_grad)
        return outputs[0] if len(outputs) == 1 else outputs

    assert torch.autograd.gradcheck(function, inputs, fast_mode=fast)
    # A stride-0 or overlapping result of a backward cannot be perturbed; gradgradcheck draws contiguous gradients.
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=fast)


def test_layouts(case: Case) -> None:
    """Every tensor argument transposed, stepped, offset, expanded, channels_last: result, strides, gradients."""
    dtype = representative(case)
    args, kwargs = draw(case, dtype)
    for label, new_args, new_kwargs in layout_variants(args, kwargs):
        try:
            check_forward(case, dtype, new_args, new_kwargs)
            if case.gradient and case.torch_gradient and dtype.is_floating_point:
                check_gradient(case, dtype, new_args, new_kwargs)
        except Exception as error:
            raise AssertionError(f"with arguments in layout: {label}: {error}") from error


def test_reproducible(case: Case) -> None:
    """Bit for bit the same on every run and for 1, 2 and 3 threads, gradients included."""
    dtype = representative(case)
    args, kwargs = draw(case, dtype)

    def run() -> list[Tensor]:
        result = tensors_of(ours(case.op)(*args, **kwargs))
        if case.gradient and dtype.is_floating_point:
            result += gradients(ours(case.op), args, kwargs, constants=case.constants)
        return result

    with threads(1):
        first = run()
    for count in (1, 2, 3):
        with threads(count):
            for a, b in zip(run(), first, strict=True):
                assert bool((same_or_nan(a, b)).all()), f"differs with {count} threads"


def same_or_nan(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) | ((a != a) & (b != b))


OUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "empty": lambda t: torch.empty(0, dtype=t.dtype),
    "right size": torch.empty_like,
    "wrong size": lambda t: torch.empty(3, 1, 2, dtype=t.dtype),
    "reversed strides": lambda t: torch.empty(t.shape[::-1], dtype=t.dtype).permute(tuple(range(t.dim()))[::-1]),
    "stepped": lambda t: torch.empty(*t.shape, 2, dtype=t.dtype)[..., 0],
    "wider": lambda t: torch.empty(t.shape, dtype=torch.float64),
    "narrower": lambda t: torch.empty(t.shape, dtype=torch.bfloat16),
    "bool": lambda t: torch.empty(t.shape, dtype=torch.bool),
    "int": lambda t: torch.empty(t.shape, dtype=torch.int32),
}


CONTIGUOUS_OUTS = ("empty", "right size", "wrong size")
OTHER_DTYPES = ("wider", "narrower", "bool", "int")


def test_out(case: Case) -> None:
    """out= of the right size, of a wrong size, strided, and of other dtypes. Where torch takes it, so do we, with the value
    that comes without out=; but where torch computes in the dtype of out=, as accurately as that, and strides may change
    the order of a sum. Where torch refuses it, the same exception; but its products refuse strides that
    they cannot fold, and ours take them."""
    dtype = representative(case)
    args, kwargs = draw(case, dtype)
    function, torchs = ours(case.op), theirs(case.op)
    compute = lambda args, kwargs: torchs(*args, **kwargs)  # noqa: E731
    widely = lambda args, kwargs: wide.results(case.op, args, kwargs)  # noqa: E731

    def outs(make: Callable[[Tensor], Tensor]) -> Any:
        made = map_tensors(make, expected)
        return made if isinstance(made, Tensor) else tuple(made)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resizing
        expected = torchs(*args, **kwargs)
        try:
            torchs(*args, **kwargs, out=outs(torch.empty_like))
        except TypeError:
            return  # torch has no out= here
        plain = tensors_of(function(*args, **kwargs))
        for label, make in OUTS.items():
            mine, its, refused = outs(make), outs(make), None
            try:
                torchs(*args, **kwargs, out=its)
            except (RuntimeError, TypeError, IndexError, ValueError) as error:
                refused = error
            fits = all(torch.can_cast(t.dtype, o.dtype) for t, o in zip(plain, tensors_of(mine), strict=True))
            try:
                result = function(*args, **kwargs, out=mine)
            except RuntimeError as error:
                if refused is None and fits:
                    raise
                assert refused is None or type(error) is type(refused)
                continue
            strides = label not in OTHER_DTYPES and fits
            assert refused is None or strides, f"out= {label}: torch refuses with {refused}"
            for filled, returned, its_, value in zip(*map(tensors_of, (mine, result, its)), plain, strict=True):
                assert returned is filled, f"out= {label}: the result is not the tensor given"
                given = make(value)
                if given.shape == value.shape:  # nothing to resize: torch's detours by another shape do not count
                    assert filled.shape == given.shape and filled.stride() == given.stride(), f"out= {label}: resized"
                elif refused is None:
                    assert_same_kind(filled, its_)
            what = f"out= {label}: result"
            if refused is not None or label in CONTIGUOUS_OUTS:
                for filled, value in zip(tensors_of(mine), plain, strict=True):
                    assert_equal(filled, value.to(filled.dtype), what)
            elif not (is_converted(mine, plain) and is_converted(its, expected)):
                exact, allowed = judge(case, tensors_of(its)[0].dtype, (args, kwargs), its, compute, widely)
                finite = [t.isfinite() for t in tensors_of(exact)]  # what is not has no integer
                masked = [
                    [t if t.is_floating_point() else t * kept for t, kept in zip(tensors_of(tree), finite, strict=True)]
                    for tree in (mine, its)
                ]
                assert_all_accurate(*masked, exact, case.ulps, allowed, what)


def is_converted(filled: Any, values: Any) -> bool:
    """Whether `filled` is just the values in its dtype."""
    pairs = zip(tensors_of(filled), tensors_of(values), strict=True)
    return all(bool(same_bits(a, b.to(a.dtype)).all()) for a, b in pairs)


def test_inplace(case: Case) -> None:
    """The twin `op_`, where torch has one: value, identity, gradient; and where torch refuses, the same exception."""
    function, torchs = inplace_twins(case.op)
    if torchs is None:
        return
    assert function is not None, f"torch has {case.op}_, tensorops has not"
    dtype = representative(case)
    args, kwargs = draw(case, dtype)
    if not isinstance(args[0], Tensor):
        return
    with torch.no_grad():
        target, its = same_layout(args[0]), same_layout(args[0])
        try:
            torchs(its, *args[1:], **kwargs)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            with pytest.raises(type(error)):
                function(target, *args[1:], **kwargs)
            return
        version = target._version
        result = function(target, *args[1:], **kwargs)
        assert result is target
        assert target._version > version, "the version counter was not moved"
        assert_same_kind(target, its)
        assert_equal(target, ours(case.op)(*args, **kwargs).to(target.dtype))
    if case.gradient and dtype.is_floating_point:
        mine = gradients(lambda x, *a, **k: function(x.clone(), *a, **k), args, kwargs)
        assert_equal(mine, gradients(ours(case.op), args, kwargs), "gradient")


# --- one test per op ----------------------------------------------------------------------------------------------------


class RecordOps(TorchDispatchMode):
    """Keeps the first call of each of our registered ops, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[torch._ops.OpOverload, tuple[tuple, dict]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "tensorops" and func not in self.calls:
            self.calls[func] = map_tensors(lambda t: same_layout(t.detach()), (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


opchecked: set[torch._ops.OpOverload] = set()


def test_opcheck(op_cases: list[Case]) -> None:
    """torch.library.opcheck on every registered op that the rows of this op reach, backward ops included; once each."""
    recorder = RecordOps()
    for case in op_cases:
        args, kwargs = draw(case, representative(case))
        # Some ops are others where a gradient is wanted.
        with recorder:
            ours(case.op)(*args, **kwargs)
        if case.gradient and representative(case).is_floating_point:
            call = with_gradients(args, kwargs, case.constants)
            incoming = cotangents(ours(case.op)(*call[0], **call[1]))
            with recorder:
                gradients(ours(case.op), args, kwargs, incoming, case.constants)
    for op, (args, kwargs) in recorder.calls.items():
        if op in opchecked:
            continue
        opchecked.add(op)
        differentiable = (
            any(case.gradient for case in op_cases)
            and torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "Autograd")
            and not op._schema.is_mutable
        )
        args, kwargs = map_tensors(
            lambda t: t.requires_grad_(t.is_floating_point() and differentiable),  # noqa: B023
            (args, kwargs),
        )
        try:
            torch.library.opcheck(op, args, kwargs)
        except Exception as error:
            raise AssertionError(f"op {op}, arguments {describe(args)}: {error}") from error


def describe(tree: Any) -> str:
    return str(tree_map(lambda x: f"{x.dtype}{list(x.shape)}" if isinstance(x, Tensor) else x, tree))


def test_compile(op_cases: list[Case]) -> None:
    """torch.compile(fullgraph=True) gives what eager gives, gradients included."""
    case = next((c for c in op_cases if c.gradient and not c.large), op_cases[0])
    dtype = representative(case)
    args, kwargs = draw(case, dtype)

    def function(args: tuple, kwargs: dict) -> Any:
        return ours(case.op)(*args, **kwargs)

    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = function(args, kwargs)
    with torch.no_grad():
        result = compiled(args, kwargs)
    assert_same_kind(result, expected)
    assert_equal(result, expected, "compiled result")
    if case.gradient and dtype.is_floating_point:
        mine = gradients(lambda *a, **k: compiled(a, k), args, kwargs, constants=case.constants)
        assert_equal(mine, gradients(ours(case.op), args, kwargs, constants=case.constants), "compiled gradient")


def test_meta(op_cases: list[Case]) -> None:
    """The Meta kernel's dtype, shape and strides are the CPU kernel's, for every row."""
    for case in op_cases:
        args, kwargs = draw(case, representative(case))
        expected = ours(case.op)(*args, **kwargs)
        result = ours(case.op)(
            *map_tensors(lambda t: t.to("meta"), args), **map_tensors(lambda t: t.to("meta"), kwargs)
        )
        assert_same_kind(result, expected)


def test_inference_mode(op_cases: list[Case]) -> None:
    """What the in-place twin and out= write to: an inference tensor is refused outside inference mode, whatever the other
    arguments are, and the version of another tensor counts inside it."""
    function, _ = inplace_twins(op_cases[0].op)
    # The arguments, the call, of them and of the tensors to write to, and those tensors.
    writers: list[tuple[tuple, dict, Callable[[tuple, dict, list[Tensor]], Any], list[Tensor]]] = []
    with torch.no_grad():
        fitting = next((case for case in op_cases if writes_in_place(case)), None)
        if fitting is not None and function is not None:
            args, kwargs = draw(fitting, representative(fitting))
            in_place = lambda args, kwargs, targets: function(targets[0], *args[1:], **kwargs)  # noqa: E731
            writers.append((args, kwargs, in_place, [args[0]]))
        case = op_cases[0]
        args, kwargs = draw(case, representative(case))
        result = theirs(case.op)(*args, **kwargs)
        if accepts_out(theirs(case.op), args, kwargs, result):

            def write_out(args: tuple, kwargs: dict, targets: list[Tensor]) -> Any:
                return ours(case.op)(*args, **kwargs, out=targets[0] if isinstance(result, Tensor) else tuple(targets))

            writers.append((args, kwargs, write_out, tensors_of(result)))
        for args, kwargs, write, like in writers:
            with torch.inference_mode():
                targets, inference = [same_layout(t) for t in like], map_tensors(same_layout, (args, kwargs))
            for given in ((args, kwargs), inference):
                with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
                    write(*given, targets)
            targets = [same_layout(t) for t in like]
            with torch.inference_mode():
                write(*inference, targets)
            assert all(t._version > 0 for t in targets), "the version counter was not moved in inference mode"


def writes_in_place(case: Case) -> bool:
    """Whether torch has the in-place twin for the case's arguments."""
    _, torchs = inplace_twins(case.op)
    args, kwargs = draw(case, representative(case))
    try:
        return torchs is not None and torchs(same_layout(args[0]), *args[1:], **kwargs) is not None
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False


def accepts_out(function: Callable[..., Any], args: tuple, kwargs: dict, result: Any) -> bool:
    """Whether torch's function has out=."""
    made = map_tensors(torch.empty_like, result)
    try:
        function(*args, **kwargs, out=made if isinstance(made, Tensor) else tuple(made))
    except TypeError:
        return False
    return True


# --- on a GPU: one test per op, over all its rows, large ones too -------------------------------------------------------


def for_rows(cases: list[Case], check: Callable[[Case], None]) -> None:
    """Runs the check for every row, on the GPU, before it fails."""
    failures = []
    with on_device("cuda"):
        for case in cases:
            try:
                check(case)
            except Exception as error:
                failures.append((case.name, error))
    if failures:
        message = "\n".join(f"{name}: {type(error).__name__}: {error}" for name, error in failures)
        raise AssertionError(f"{len(failures)} of {len(cases)} rows\n{message}") from failures[0][1]


@pytest.mark.cuda
def test_forward_on_cuda(cuda_cases: list[Case]) -> None:
    for_rows(cuda_cases, test_forward)


@pytest.mark.cuda
def test_gradient_on_cuda(cuda_cases: list[Case]) -> None:
    for_rows([case for case in cuda_cases if case.gradient and case.torch_gradient and not case.large], test_gradient)


@pytest.mark.cuda
def test_layouts_on_cuda(cuda_cases: list[Case]) -> None:
    for_rows([case for case in cuda_cases if not case.large], test_layouts)


@pytest.mark.cuda
def test_reproducible_on_cuda(cuda_cases: list[Case]) -> None:
    """Bit for bit the same on every run."""

    def check(case: Case) -> None:
        args, kwargs = draw(case, representative(case))
        first, second = (tensors_of(ours(case.op)(*args, **kwargs)) for _ in range(2))
        assert all(bool(same_or_nan(a, b).all()) for a, b in zip(first, second, strict=True))

    for_rows(cuda_cases, check)


@pytest.mark.cuda
def test_writes_on_cuda(cuda_cases: list[Case]) -> None:
    """out= and the twin `op_`, where torch has them: the values that come without."""

    def check(case: Case) -> None:
        args, kwargs = map_tensors(lambda t: same_layout_on(t, "cuda"), draw(case, representative(case)))
        function, torchs = lookup(tensorops, case.op), lookup(torch, case.op)
        plain = function(*args, **kwargs)
        out = map_tensors(torch.empty_like, plain)
        try:
            torchs(*args, **kwargs, out=out)
        except (TypeError, RuntimeError):
            out = None
        if out is not None:
            out = map_tensors(lambda t: torch.zeros_like(t), plain)
            assert_equal(function(*args, **kwargs, out=out), plain, "out=")
            assert_equal(out, plain, "out=")
        inplace, torchs_inplace = inplace_twins(case.op)
        if torchs_inplace is None or not isinstance(args[0], Tensor):
            return
        try:
            torchs_inplace(same_layout(args[0]), *args[1:], **kwargs)
        except (TypeError, RuntimeError, ValueError):
            return
        assert inplace is not None
        target = same_layout(args[0])
        assert inplace(target, *args[1:], **kwargs) is target
        assert_equal(target, plain.to(target.dtype), "in place")

    for_rows([case for case in cuda_cases if not case.large], check)


# --- the table itself ---------------------------------------------------------------------------------------------------


def test_family_has_cases(family_rows: list[Case]) -> None:
    """There is a table, every row has a name of its own, and some rows are big enough to be split among threads."""
    assert family_rows, "this family has no cases: tests/cases/<family>.py is missing"
    names = [case.name for case in family_rows]
    repeated = {name for name in names if names.count(name) > 1}
    assert not repeated, f"rows with the same name: {sorted(repeated)}"
    assert any(case.large for case in family_rows), "no row is marked large"


__all__ = [name for name in dir() if name.startswith("test_")]
