"""The elementwise family: what is asked of every case, over its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tensorops
import torch
from torch import Tensor

from tests.faults import assert_same_deprecation, assert_same_refusal
from tests.generic import *  # noqa: F403
from tests.harness import lookup, threads

FAMILY = "elementwise"


@pytest.mark.parametrize("name", ["eq", "lt", "logical_and", "isnan", "logical_not"])
def test_predicates_leave_no_graph(name: str) -> None:
    x, y = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    inputs = (x,) if name in ("isnan", "logical_not") else (x, y)
    ours, theirs = getattr(tensorops, name), getattr(torch, name)
    assert not ours(*inputs).requires_grad
    # A predicate may stand in a function that is differentiated, in any mode.
    gradients = [
        torch.func.grad(lambda a, *b, f=f: (f(a, *b).to(a.dtype) * a).sum())(x.detach(), *inputs[1:])
        for f in (ours, theirs)
    ]
    assert torch.equal(*gradients)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones(5))
        assert torch.autograd.forward_ad.unpack_dual(ours(dual, *inputs[1:])).tangent is None


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (300, 171), (1030, 517), (2, 67, 3, 45), (3, 40, 33, 1)], ids=str)
def test_turned_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Inputs that lie closer together along another dimension than the result, transposed tile by tile: every element is of
    its own place, whichever dimensions change places, whole or every other one, and for any number of threads."""
    generator = torch.Generator().manual_seed(1)

    def draw(*size: int) -> Tensor:
        return torch.randint(-60, 60, size, generator=generator).to(dtype)

    a, condition = draw(*shape), torch.rand(shape, generator=generator) > 0.5
    for first in range(len(shape)):
        for second in range(first):
            size = list(shape)
            size[first], size[second] = size[second], size[first]
            b = draw(*size).transpose(first, second)
            stepped = draw(*size[:-1], 2 * size[-1])[..., ::2].transpose(first, second)
            for count in (1, 3):
                with threads(count):
                    assert torch.equal(tensorops.sub(a, b), torch.sub(a, b))
                    assert torch.equal(tensorops.lt(stepped, a), torch.lt(stepped, a))
                    assert torch.equal(tensorops.where(condition, b, stepped), torch.where(condition, b, stepped))
                    assert torch.equal(tensorops.add(a, b, out=a.clone()), a + b)
                    assert torch.equal(tensorops.mul(a.clone(), b), a * b)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [2, 3, 8, 17, 32, 33, 64, 100, 300, 1100])
def test_rows(n: int, dtype: torch.dtype) -> None:
    """Operands that repeat along rows, from row to row or both, whose rows lie apart or follow each other: bitwise what
    their contiguous copies give, for any number of threads."""
    generator = torch.Generator().manual_seed(n)
    rows = 190 if n <= 100 else 23
    shape = (3, rows, n)

    def draw(*size: int) -> Tensor:
        return torch.randint(1, 60, size, generator=generator).to(dtype)

    layouts = {
        "all": draw(*shape),
        "a column": draw(3, rows, 1),
        "a row": draw(n),
        "a matrix": draw(rows, n),
        "rows": draw(3, 1, n),
        "numbers": draw(3, 1, 1),
        "a number": draw(),
        "rows apart": draw(3, rows, 2 * n)[..., :n],
        "elements apart": draw(3, rows, 2 * n)[..., ::2],
        "another dtype's column": draw(3, rows, 1).float(),
    }
    condition = torch.rand(shape, generator=generator) > 0.5

    def whole(*operands: Tensor) -> list[Tensor]:
        return [x.expand(shape).contiguous() for x in operands]

    def check(function: Callable[..., Tensor], *operands: Tensor) -> None:
        result, expected = function(*operands), function(*whole(*operands))
        assert result.dtype == expected.dtype
        assert torch.equal(result.expand(shape), expected)

    for count in (1, 3):
        with threads(count):
            for first in ("all", "a row", "rows apart"):
                a = layouts[first]
                check(tensorops.exp, a)
                for b in layouts.values():
                    for function in (tensorops.sub, tensorops.gt, tensorops.atan2, tensorops.fmod):
                        check(function, a, b)
                    check(tensorops.where, condition[:, :, :1], a, b)
                    check(tensorops.where, condition, a, b)
                    if dtype.is_floating_point and b.dtype == dtype:
                        check(tensorops.lerp, a, b, layouts["a column"])
                    if first == "all" and torch.promote_types(dtype, b.dtype) == dtype:
                        apart = torch.zeros(3, rows, 2 * n, dtype=dtype)
                        tensorops.add(a, b, out=apart[..., :n])
                        assert torch.equal(apart[..., :n], tensorops.add(*whole(a, b)))
                        assert not apart[..., n:].any()
                        assert torch.equal(tensorops.mul(a.clone(), b, out=a.clone()), tensorops.mul(*whole(a, b)))


X, Y = torch.tensor([1.0, 2.5, -3.25]), torch.tensor([2.0, 3.0, 4.0])
N = torch.tensor([1, 2, 3])
META = X.to("meta")

Call = Callable[[Any], Any]


def out(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(3, dtype=dtype)


def refusals() -> Iterator[tuple[str, Call]]:
    """Calls that torch refuses."""
    yield "pow of integers to a negative number", lambda t: t.pow(N, -1)
    yield "pow of bool to a negative number", lambda t: t.pow(N > 1, -1)
    yield "pow of no integers to a negative number", lambda t: t.pow(N[:0], -1)
    yield "pow of integers to a negative number, out=", lambda t: t.pow(N, -1, out=out())
    yield "pow beyond the dtype", lambda t: t.pow(N.to(torch.int8), 300)
    yield "pow beyond float16", lambda t: t.pow(X.half(), 1e10)
    yield "where beyond the dtype", lambda t: t.where(N > 1, N.to(torch.uint8), 300)
    yield "where beyond float32", lambda t: t.where(N > 1, X, 1e300)
    yield "hardtanh with a negative limit of bytes", lambda t: t.nn.functional.hardtanh(N.to(torch.uint8), -1, 2)
    yield "addcdiv of two integers", lambda t: t.addcdiv(X, N, N)
    yield "addcdiv of integers", lambda t: t.addcdiv(N, N, N)
    yield "lerp to another dtype", lambda t: t.lerp(X, X.double(), 0.5)
    yield "lerp to integers", lambda t: t.lerp(X, N, 0.5)
    yield "lerp of integers", lambda t: t.lerp(N, N, 0.5)
    yield "lerp of integers by a tensor", lambda t: t.lerp(N, N, N)
    yield "lerp by another dtype", lambda t: t.lerp(X.half(), X.half(), X)
    yield "lerp to another dtype's 0-dim", lambda t: t.lerp(X, torch.tensor(1.0).double(), 0.5)
    yield "lerp to a number", lambda t: t.lerp(X, 1.0, 0.5)
    yield "round of integers to decimals", lambda t: t.round(N, decimals=1)
    yield "round of integers to no decimals", lambda t: t.round(N, decimals=0)
    yield "round to a float", lambda t: t.round(X, decimals=1.0)
    yield "round to a position", lambda t: t.round(X, 1)
    for name in ("maximum", "minimum", "atan2", "logical_and", "logical_or", "logical_xor"):
        yield f"{name} with a number", lambda t, n=name: getattr(t, n)(X, 2)
        yield f"{name} of a number", lambda t, n=name: getattr(t, n)(2, X)
    for name in ("fmod", "eq", "ne", "lt", "le", "gt", "ge"):
        yield f"{name} of a number", lambda t, n=name: getattr(t, n)(2, X)
    yield "remainder of a number with out=", lambda t: t.remainder(2, X, out=out())
    yield "where of a number with out=", lambda t: t.where(X > 0, 1, X, out=out())
    for name in ("relu", "selu", "isnan", "isinf", "isfinite", "nn.functional.softsign", "nn.functional.tanhshrink"):
        yield f"{name} with out=", lambda t, n=name: lookup(t, n)(X, out=out())
    for name in ("mul", "pow", "maximum", "eq", "floor_divide"):
        yield f"{name} of cpu and meta", lambda t, n=name: getattr(t, n)(X, META)
        yield f"{name} of cpu and 0-dim meta", lambda t, n=name: getattr(t, n)(X, META[0])
        yield f"{name} of meta with out= on cpu", lambda t, n=name: getattr(t, n)(META, META, out=out())
    for name in ("mul", "pow", "maximum", "eq"):
        yield f"{name} of meta and cpu", lambda t, n=name: getattr(t, n)(META, X)
    for place in range(3):
        one = [META if i == place else X for i in range(3)]
        yield f"lerp with meta in place {place}", lambda t, a=one: t.lerp(*a)
        yield f"addcmul with meta in place {place}", lambda t, a=one: t.addcmul(*a)
        yield f"where with meta in place {place}", lambda t, a=one: t.where(a[0] > 0, *a[1:])
    yield "abs of cpu with out= on meta", lambda t: t.abs(X, out=META.clone())


@pytest.mark.parametrize("call", list(refusals()), ids=lambda call: call[0])
def test_refused(call: tuple[str, Call]) -> None:
    assert_same_refusal(call[1])


@pytest.mark.parametrize(("of", "by"), [("X", "2"), ("X", "Y"), ("Y", "X")])
def test_floor_divide_has_no_derivative(of: str, by: str) -> None:
    """It can be computed of what requires a gradient, and refuses the gradient itself."""
    leaf = X.clone().requires_grad_()
    values = {"X": leaf, "Y": Y, "2": 2}
    results = [t.floor_divide(values[of], values[by]) for t in (tensorops, torch)]
    assert all(result.requires_grad for result in results)
    for result in results:
        with pytest.raises(RuntimeError, match=r"derivative for .*floor_divide is not implemented"):
            result.sum().backward()


@pytest.mark.parametrize("name", ["mul", "add", "lerp", "where"])
def test_meta_goes_with_cpu_scalars(name: str) -> None:
    arguments = [X[0], META, META][: 3 if name in ("lerp", "where") else 2]
    if name == "where":
        arguments = [META > 0, X[0], META]
    if name == "lerp":
        arguments = [META, META, X[0]]
    assert getattr(tensorops, name)(*arguments).device == getattr(torch, name)(*arguments).device


def test_pow_of_bool_to_bool() -> None:
    for exponent in (True, False):
        assert torch.equal(tensorops.pow(N > 1, exponent), torch.pow(N > 1, exponent))


@pytest.mark.parametrize("name", ["sign", "ceil", "floor", "round", "trunc"])
def test_no_slope_passes_nothing_on(name: str) -> None:
    """Not even of an infinite gradient."""
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(tensorops, name)(x), x, torch.tensor([torch.inf, torch.nan, 1.0]))
    assert torch.equal(gradient, torch.zeros(3))


DEPRECATED: dict[str, Call] = {
    "add": lambda t: t.add(X, 2, Y),
    "add out": lambda t: t.add(X, 2, Y, out=out()),
    "add number": lambda t: t.add(X, 2, 3),
    "add integers": lambda t: t.add(N, 2, N),
    "sub": lambda t: t.sub(X, 2.5, Y),
    "addcmul": lambda t: t.addcmul(X, 2, Y, Y),
    "addcmul out": lambda t: t.addcmul(X, 2, Y, Y, out=out()),
    "addcmul names": lambda t: t.addcmul(X, 2, tensor1=Y, tensor2=Y),
    "addcdiv": lambda t: t.addcdiv(X, 2, Y, Y),
    "add_": lambda t: method(t, "add_")(X.clone(), 2, Y),
    "sub_": lambda t: method(t, "sub_")(X.clone(), 2, Y),
    "addcmul_": lambda t: method(t, "addcmul_")(X.clone(), 2, Y, Y),
    "addcdiv_": lambda t: method(t, "addcdiv_")(X.clone(), 2, Y, Y),
}


def method(root: Any, name: str) -> Callable[..., Any]:
    return getattr(torch.Tensor if root is torch else root, name)


@pytest.mark.parametrize("form", DEPRECATED)
def test_deprecated_form(form: str) -> None:
    assert_same_deprecation(DEPRECATED[form])


@pytest.mark.parametrize("form", [form for form in DEPRECATED if "names" not in form])
@pytest.mark.filterwarnings("ignore")
def test_deprecated_form_compiles(form: str) -> None:
    torch._dynamo.reset()
    call = DEPRECATED[form]
    compiled = torch.compile(lambda: call(tensorops), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), call(torch))


@pytest.mark.parametrize("decimals", [2, 0, -1])
def test_round_to_decimals_compiles(decimals: int) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: tensorops.round_(x.clone(), decimals=decimals) + tensorops.round(x, decimals=decimals),
        fullgraph=True,
        backend="aot_eager",
    )
    x = torch.randn(9, generator=torch.Generator().manual_seed(0)) * 30
    torch.testing.assert_close(compiled(x), 2 * torch.round(x, decimals=decimals))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradient_of_divisor(dtype: torch.dtype) -> None:
    """-g a / b² in one op, rounded to the dtype once: at most as wrong as torch's four roundings anywhere."""
    generator = torch.Generator().manual_seed(0)
    a, b, g = (torch.randn(4096, generator=generator).to(dtype) for _ in range(3))
    exact = -g.double() * a.double() / b.double() ** 2

    def error(root: Any) -> Tensor:
        leaf = b.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(root.div(a, leaf), leaf, g)
        kept = exact.abs().clamp(torch.finfo(dtype).tiny, torch.finfo(dtype).max) == exact.abs()
        return ((gradient.double() - exact) / exact)[kept].abs() / torch.finfo(dtype).eps

    assert error(tensorops).mean() <= error(torch).mean()
    assert error(tensorops).max() <= error(torch).max()


def test_gradient_of_divisor_at_the_edges() -> None:
    """Infinities, zeros and what overflows on the way, as torch's."""
    values = torch.tensor([1.0, -2.0, 0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e30, 1e-30, 1e-40, 3e38])
    a, b, g = (t.reshape(-1) for t in torch.meshgrid(values, values, values, indexing="ij"))
    results = []
    for root in (tensorops, torch):
        leaf = b.clone().requires_grad_()
        results.append(torch.autograd.grad(root.div(a, leaf), leaf, g)[0])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-44, equal_nan=True)
