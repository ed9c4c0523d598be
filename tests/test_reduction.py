"""The reduction family: what is asked of every case, over its table."""

import math

import pytest
import tensorops
import torch

from tests import wide
from tests.generic import *  # noqa: F403
from tests.harness import EMULATED_CUDA, threads

FAMILY = "reduction"


@pytest.mark.parametrize(
    "op", ["sum", "mean", "amax", "var", "prod", "logsumexp", "cumsum", "cumprod", "softmax", "log_softmax"]
)
@pytest.mark.parametrize("devices", [("cpu", "meta"), ("meta", "cpu")], ids=str)
def test_out_on_another_device_refused(op: str, devices: tuple[str, str]) -> None:
    """Some of torch's write nothing there and say so not."""
    x = torch.ones(3, 4, device=devices[0])
    out = torch.empty_like(getattr(tensorops, op)(x, 0), device=devices[1])
    with pytest.raises(RuntimeError, match=f"{op}.*: input is on {devices[0]}, out= on {devices[1]}"):
        getattr(tensorops, op)(x, 0, out=out)


@pytest.mark.parametrize("shape", [(1031, 8192), (2, 131, 32784), (1031, 8199), (4099, 4240)], ids=str)
@pytest.mark.parametrize("op", ["cumsum", "cumprod", "softmax", "log_softmax"])
def test_results_past_the_caches(op: str, shape: tuple[int, ...]) -> None:
    """From 64 MB on results of lines side by side are streamed, if each row of them starts at a cache line; long lines are
    cut into blocks, and panels of these."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x = x / 64 + 1 if op == "cumprod" else x
    dim = len(shape) - 2
    with threads(2):
        value = getattr(tensorops, op)(x, dim)
        backward = op.endswith("softmax")
        grad = getattr(torch.ops.tensorops, f"_{op}_backward")(x, value, dim) if backward else x
    expected = getattr(torch, op)(x.double(), dim)
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-6)
    if backward:
        exact = getattr(torch.ops.aten, f"_{op}_backward_data")(x.double(), expected, dim, torch.float64)
        torch.testing.assert_close(grad, exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(7,), (70003,), (3, 1003), (64, 5), (5, 131073), (263, 32784), (1031, 8199)], ids=str
)
def test_reverse_cumsum(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """cumsum's gradient: bitwise what cumsum gives from the other end, in cache and past it."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = tensorops.cumsum(x.flip(-1), -1).flip(-1)
    for count in (1, 3):
        with threads(count):
            assert torch.equal(torch.ops.tensorops._reverse_cumsum(x, -1), expected)


# Tails of lines alone, lines that are turned, lines and columns in one block and in several, many of them and few.
PRODUCTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((7,), (0,)),
    ((127,), (0,)),
    ((70003,), (0,)),
    ((1000, 10), (1,)),
    ((40, 70), (0,)),
    ((40, 70), (1,)),
    ((17, 9001), (1,)),
    ((3, 9001), (1,)),
    ((300, 33), (0,)),
    ((18, 130, 20), (1,)),
    ((2, 131, 600), (1,)),
    ((5, 6, 70), (0, 2)),
    ((5, 60, 70), (1, 2)),
    ((4, 30, 7), (0, 1)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "dims"), PRODUCTS, ids=str)
def test_gradient_of_prod(shape: tuple[int, ...], dims: tuple[int, ...], dtype: torch.dtype) -> None:
    """With no zero in a product, with one and with two; for any number of threads, in any layout of the input."""
    draw = torch.Generator().manual_seed(1)
    length = math.prod(shape[dim] for dim in dims)
    signs = torch.randint(0, 2, shape, generator=draw) * 2 - 1
    x = (signs * (torch.randn(shape, generator=draw) / length**0.5).exp()).to(dtype)
    x.view(-1)[torch.randint(0, x.numel(), (3,), generator=draw)] = 0
    grad = torch.rand([1 if dim in dims else size for dim, size in enumerate(shape)], generator=draw).to(dtype)
    lines = x.double().movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims)).requires_grad_()
    lines.prod(-1).sum().backward()
    others = lines.grad.unflatten(-1, [shape[dim] for dim in dims]).movedim(tuple(range(-len(dims), 0)), dims)
    expected = others * grad.double()
    gradients = []
    for count, given in ((1, x), (3, x), (2, x.transpose(0, -1).contiguous().transpose(0, -1))):
        with threads(count):
            gradients.append(torch.ops.tensorops._prod_gradient(grad, given, dims))
    assert torch.equal(gradients[0], gradients[1])
    eps = torch.finfo(dtype).eps
    for gradient in gradients:
        assert gradient.dtype == dtype and gradient.is_contiguous()
        torch.testing.assert_close(
            gradient.double(),
            expected,
            rtol=length * eps if dtype == torch.float64 else 2 * eps,
            atol=torch.finfo(dtype).tiny,
        )


@pytest.mark.skipif(EMULATED_CUDA, reason="the composition of scans that CUDA has rounds its parts to the dtype")
def test_gradient_of_prod_is_finite_where_the_product_is_not() -> None:
    """What overflows on the way in f32 need not in a gradient."""
    x = torch.tensor([1e30, 1e20, 1e-30], requires_grad=True)
    (gradient,) = torch.autograd.grad(tensorops.prod(x[:2]), x)
    torch.testing.assert_close(gradient, torch.tensor([1e20, 1e30, 0]))
    (gradient,) = torch.autograd.grad(tensorops.prod(x), x)
    torch.testing.assert_close(gradient, torch.tensor([1e-10, 1, float("inf")]))


def test_gradient_of_prod_refuses_other_shapes() -> None:
    """The gradient has size 1 along what was reduced, and the input's dtype."""
    op, x = torch.ops.tensorops._prod_gradient, torch.ones(3, 4)
    for grad in (torch.ones(3), torch.ones(3, 4), torch.ones(1, 4), torch.ones(3, 1, dtype=torch.float64)):
        with pytest.raises(RuntimeError, match="_prod_gradient: expected a gradient of shape"):
            op(grad, x, [1])
    with pytest.raises(RuntimeError, match="_prod_gradient: expected a floating point input"):
        op(torch.ones(3, 1, dtype=torch.int64), torch.ones(3, 4, dtype=torch.int64), [1])
    with pytest.raises(RuntimeError, match="_prod_gradient: dim 1 appears multiple times"):
        op(torch.ones(3, 1), x, [1, -1])
    with pytest.raises(IndexError):
        op(torch.ones(3, 1), x, [2])
    assert torch.equal(op(2 * x, x, []), 2 * x) and torch.equal(op(torch.ones(3, 1), x, [-1]), x)


# Columns of one panel and of several, short lines, lines of several pieces, many of them and few; long lines of several
# blocks with a rest.
CUMPRODS: list[tuple[tuple[int, ...], int]] = [
    ((7,), 0),
    ((1000,), 0),
    ((40003,), 0),
    ((2, 16400), 1),
    ((17, 17000), 1),
    ((1000, 10), 1),
    ((130, 33), 1),
    ((130, 33), 0),
    ((2, 40, 1100), 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "dim"), CUMPRODS, ids=str)
def test_gradient_of_cumprod(shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
    """With zeros among the elements, for any number of threads and in any layout; measured by the sum of what may cancel."""
    draw = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, shape, generator=draw) * 2 - 1
    x = (signs * (torch.randn(shape, generator=draw) / shape[dim] ** 0.5).exp()).to(dtype)
    x.view(-1)[torch.randint(0, x.numel(), (2,), generator=draw)] = 0
    grad, product = torch.randn(shape, generator=draw).to(dtype), torch.cumprod(x.double(), dim).to(dtype)

    def exact(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        x = x.double().requires_grad_()
        return torch.autograd.grad(torch.cumprod(x, dim), x, grad.double())[0]

    def turned(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(0, -1).contiguous().transpose(0, -1)

    gradients = []
    for count, arguments in (
        (1, (grad, x, product)),
        (3, (grad, x, product)),
        (2, (turned(grad), turned(x), turned(product))),
    ):
        with threads(count):
            gradients.append(torch.ops.tensorops._cumprod_gradient(*arguments, dim))
    assert torch.equal(gradients[0], gradients[1])
    eps = torch.finfo(dtype).eps * (2 * shape[dim] if dtype == torch.float64 else 2)
    expected, bound = exact(x, grad), eps * exact(x.abs(), grad.abs()) + torch.finfo(dtype).tiny
    for gradient in gradients:
        assert gradient.dtype == dtype and gradient.is_contiguous()
        assert ((gradient.double() - expected).abs() <= bound).all()


def test_gradient_of_cumprod_refuses_other_shapes() -> None:
    """All three have one shape and dtype."""
    op, x = torch.ops.tensorops._cumprod_gradient, torch.ones(3, 4)
    for other in (torch.ones(4), torch.ones(3, 4, dtype=torch.float64)):
        for arguments in ((other, x, x), (x, x, other)):
            with pytest.raises(RuntimeError, match="_cumprod_gradient: expected a gradient and a product of shape"):
                op(*arguments, 1)
    with pytest.raises(IndexError):
        op(x, x, x, 2)


@pytest.mark.parametrize("shape", [(0, 3), (100003,), (37, 1003), (513, 70), (9000, 17), (3, 33, 65)], ids=str)
def test_counts_of_bools(shape: tuple[int, ...]) -> None:
    """Bools are counted exactly, in any layout and result dtype."""
    whole = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.3
    for x in (whole, whole[..., ::2], whole.transpose(0, -1), whole[1:]):
        for dim in (None, *range(len(shape))):
            with threads(3):
                assert torch.equal(tensorops.count_nonzero(x, dim), torch.count_nonzero(x, dim))
                for dtype in (torch.int64, torch.int32, torch.int8, torch.float16, torch.float32, torch.float64):
                    expected = torch.sum(x, dim, dtype=torch.int64).to(dtype)
                    assert torch.equal(tensorops.sum(x, dim, dtype=dtype), expected)
                mean = torch.mean(x, dim, dtype=torch.float64)
                assert torch.equal(tensorops.mean(x, dim, dtype=torch.float64).nan_to_num(7), mean.nan_to_num(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(600, 37), (3, 601, 300), (2, 9, 1100), (17003, 40), (2, 33003, 70)], ids=str)
@pytest.mark.parametrize("op", ["cumsum", "cumprod", "softmax", "log_softmax"])
def test_lines_side_by_side(op: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """NaN and infinities stay in their columns, wherever in them; panels of any width, for any number of threads, give what
    lines alone do. Maxima that rise along a line, of which what was summed before is a vanishing part."""
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) / 4 + 1).to(dtype)
    dim = len(shape) - 2
    x.select(dim, 2)[..., 3] = float("nan")
    x.select(dim, 5)[..., 7] = float("inf")
    x[..., 11] = -float("inf")
    x.narrow(dim, 0, shape[dim] * 2 // 3)[..., 13] = -float("inf")
    if op.endswith("softmax"):
        x[..., 15] += torch.arange(shape[dim]) / 4
        x[..., 17] -= torch.arange(shape[dim]) / 4
    x.select(dim, -1)[..., 19] = float("nan")
    x.select(dim, -2)[..., 21] = float("inf")
    # In f64 torch's sums of softmax's lines are several times as far off as ours.
    widely = op.endswith("softmax") and dtype == torch.float64
    expected = wide.results(op, (x, dim), {})[0] if widely else getattr(torch, op)(x.double(), dim)
    results, gradients = [], []
    for count in (1, 2, 3):
        with threads(count):
            results.append(getattr(tensorops, op)(x, dim))
            if op.endswith("softmax"):
                gradients.append(getattr(torch.ops.tensorops, f"_{op}_backward")(expected.to(dtype), results[0], dim))
    for first, *others in (results, gradients or results):
        for other in others:
            assert torch.equal(first.nan_to_num(7), other.nan_to_num(7))
    eps = torch.finfo(dtype).eps
    kept = expected.abs() < torch.finfo(dtype).max / 2
    # In f64 both sides round once per step, up to eps / 2 each, and need not go in the same order.
    rtol = shape[dim] * eps if op.startswith("cum") and dtype == torch.float64 else 4 * eps
    torch.testing.assert_close(
        results[0].double()[kept], expected[kept], rtol=rtol, atol=8 * eps if dtype != torch.float32 else 1e-5
    )
    assert torch.equal(results[0].isnan(), expected.isnan())


FLOATS = (torch.float32, torch.float64, torch.bfloat16)
RUNS = [
    (op, dtype)
    for op in ("sum", "prod", "amax", "amin", "any", "all", "count_nonzero")
    for dtype in (*FLOATS, torch.int32, torch.int64)
]
RUNS += [("norm", dtype) for dtype in FLOATS]


@pytest.mark.parametrize(("op", "dtype"), RUNS, ids=str)
def test_runs_of_every_length(op: str, dtype: torch.dtype) -> None:
    """A run is whole groups of vectors and what is left of one, or lines are turned: no element is lost, none read twice."""
    source = torch.randint(-4, 5, (300, 21), generator=torch.Generator().manual_seed(1))
    source[source == 0] = 1 if op in ("prod", "all") else 0
    source = torch.where(source.abs() > 1, 1, source) if op == "prod" else source
    for n in range(1, 300, 3):
        x = source[:n].t().contiguous().to(dtype)
        x[20, n - 1] = 7
        if dtype.is_floating_point:
            x[3, n - 1] = float("nan")
            x[4, n // 2] = float("inf")
        # Exact in every dtype: sums of small integers, of squares of those.
        arguments = (2, 1) if op == "norm" else (1,)
        mine = getattr(tensorops, op)(x, *arguments)
        theirs = getattr(torch, op)(x.double() if dtype.is_floating_point else x, *arguments).to(mine.dtype)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        if dtype.is_floating_point:  # rows that do not follow each other
            apart = torch.cat([x, x], 1)[:, :n]
            again = getattr(tensorops, op)(apart, *arguments)
            torch.testing.assert_close(again, mine, rtol=0, atol=0, equal_nan=True)
