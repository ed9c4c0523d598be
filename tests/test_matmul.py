"""The matmul family: what is asked of every case, over its table."""

from typing import Any

import pytest
import tensorops
import torch

from tests.faults import assert_same_deprecation, assert_same_refusal
from tests.generic import *  # noqa: F403
from tests.harness import CUDA_OR_EMULATED, lookup, needs_tf32, rounded_to_tf32, tf32, threads

FAMILY = "matmul"

PRODUCTS = {"mm": ((2, 3), (3, 4)), "mv": ((2, 3), (3,)), "bmm": ((2, 3, 4), (2, 4, 5)), "dot": ((3,), (3,))}
SUMS = {
    "addmm": ((2, 4), (2, 3), (3, 4)),
    "addmv": ((2,), (2, 3), (3,)),
    "addr": ((2, 4), (2,), (4,)),
    "baddbmm": ((2, 2, 4), (2, 2, 3), (2, 3, 4)),
    "addbmm": ((2, 4), (2, 2, 3), (2, 3, 4)),
}


def ones(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.ones(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("mm", ((2, 3), (4, 3))),
        ("mm", ((3,), (3, 4))),
        ("mm", ((2, 2, 3), (3, 4))),
        ("mv", ((2, 3), (2,))),
        ("mv", ((2, 3), (3, 1))),
        ("dot", ((3,), (4,))),
        ("dot", ((2, 3), (3,))),
        ("outer", ((3, 1), (4,))),
        ("bmm", ((2, 3, 4), (3, 4, 5))),
        ("bmm", ((2, 3, 4), (4, 5))),
        ("matmul", ((), (3,))),
        ("matmul", ((2, 3), (2, 3))),
        ("matmul", ((2, 3, 4), (3, 4, 5))),
        ("matmul", ((2, 3, 4), (5,))),
        ("nn.functional.linear", ((3, 6), (4, 5))),
        ("nn.functional.linear", ((3, 5), (4, 5), (6,))),
        ("nn.functional.linear", ((3, 5), (2, 4, 5))),
        ("addmm", ((3,), (2, 3), (3, 4))),
        ("addmm", ((5, 4), (2, 3), (3, 4))),
        ("addmm", ((2, 4), (2, 3), (2, 3))),
        ("addmv", ((3,), (2, 3), (3,))),
        ("addr", ((3, 4), (2,), (4,))),
        ("baddbmm", ((3, 2, 4), (2, 2, 3), (2, 3, 4))),
        ("addbmm", ((2, 2, 4), (2, 2, 3), (2, 3, 4))),
    ],
    ids=str,
)
def test_shapes_refused(op: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    assert_same_refusal(lambda root: lookup(root, op)(*ones(*shapes)))


@pytest.mark.parametrize("op", PRODUCTS)
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("int64", "float32"), ("bool", "bool")], ids=str)
def test_dtypes_refused(op: str, dtypes: tuple[str, str]) -> None:
    a, b = (torch.ones(s, dtype=getattr(torch, d)) for s, d in zip(PRODUCTS[op], dtypes, strict=True))
    assert_same_refusal(lambda root: getattr(root, op)(a, b))


@pytest.mark.parametrize("factors", [{"beta": 0.5}, {"alpha": 1.5}, {"beta": True}, {"alpha": True}], ids=str)
def test_addr_factors_refused(factors: dict[str, float]) -> None:
    """addr is an elementwise op in torch, whose factors are of the kind of the result."""
    assert_same_refusal(lambda root: root.addr(*ones(*SUMS["addr"], dtype=torch.int64), **factors))


@pytest.mark.parametrize("op", SUMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_beta_ignores_input(op: str, value: float) -> None:
    """With beta = 0 what the input holds does not count."""
    added, a, b = ones(*SUMS[op])
    assert bool(getattr(tensorops, op)(added * value, a, b, beta=0).isfinite().all())


@pytest.mark.parametrize("op", SUMS)
def test_out_may_be_the_input(op: str) -> None:
    added, a, b = ones(*SUMS[op])
    expected = getattr(torch, op)(added, a, b)
    assert bool((getattr(tensorops, op)(added, a, b, out=added) == expected).all())


@pytest.mark.parametrize("op", SUMS)
@pytest.mark.parametrize("form", ["in place", "out"])
def test_expanded_target_refused(op: str, form: str) -> None:
    """Elements that share memory cannot hold a result each; torch's addmv_ and baddbmm_ write wrong numbers there."""
    added, a, b = ones(*SUMS[op])
    target = added[:1].expand(2, *added.shape[1:])
    with pytest.raises(RuntimeError, match="single memory location"):
        if form == "out":
            getattr(tensorops, op)(added, a, b, out=target)
        else:
            getattr(tensorops, op + "_")(target, a, b)


@pytest.mark.parametrize("k", [300, 512, 1024])
def test_error_of_long_sums(k: int) -> None:
    """A large product's worst element is hardly further off than torch's, which sums over lengths of some 200; sums over
    512 come to 2.3 to 2.8 times its error."""
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn(1500, k, generator=generator), torch.randn(k, 2100, generator=generator)
    exact = a.double() @ b.double()
    error, torchs = ((product.double() - exact).abs().max().item() for product in (tensorops.mm(a, b), a @ b))
    assert error <= 1.5 * torchs


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(211, 307, 113), (64, 700, 555), (1500, 96, 70), (40, 64, 2500), (97, 4500, 101)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("transposed", ["", "a", "b", "ab"])
def test_same_for_any_number_of_threads(m: int, k: int, n: int, dtype: torch.dtype, transposed: str) -> None:
    """Each thread has an area of the result; where they meet does not show, nor does how many there are."""
    generator = torch.Generator().manual_seed(1)
    a, b, added = (torch.randn(shape, generator=generator).to(dtype) for shape in ((m, k), (k, n), (n,)))
    a = a.t().contiguous().t() if "a" in transposed else a
    b = b.t().contiguous().t() if "b" in transposed else b
    with threads(1):
        expected = tensorops.addmm(added, a, b)
    for count in (2, 3, 4, 7, 16):
        with threads(count):
            assert torch.equal(tensorops.addmm(added, a, b), expected), f"differs with {count} threads"


@pytest.mark.parametrize("op", ["mm", "matmul"])
def test_out_may_be_a_factor(op: str) -> None:
    """Torch's result is wrong there; ours is the product of what the factors held before."""
    a = torch.arange(16, dtype=torch.float32).reshape(4, 4)
    expected = a @ a
    assert bool((getattr(tensorops, op)(a, a.clone(), out=a) == expected).all())


@pytest.mark.parametrize("op", SUMS)
@pytest.mark.parametrize("factors", [(2,), (2, 0.5)], ids=["beta", "beta, alpha"])
@pytest.mark.parametrize("form", ["functional", "out", "in place"])
def test_deprecated_form(op: str, factors: tuple[float, ...], form: str) -> None:
    """beta and alpha before the tensors they scale."""
    beta, *alpha = factors

    def call(root: Any) -> torch.Tensor:
        added, a, b = ones(*SUMS[op])
        if form == "in place" and op != "addmv":  # torch's are methods, all but addmv_
            return getattr(torch.Tensor if root is torch else root, op + "_")(added, beta, *alpha, a, b)
        function = getattr(root, op + "_" if form == "in place" else op)
        out = {"out": torch.empty(0)} if form == "out" else {}
        return function(beta, added, *alpha, a, b, **out)

    assert_same_deprecation(call)


@pytest.mark.parametrize("factors", [(2,), (2, 0.5)], ids=["beta", "beta, alpha"])
@pytest.mark.filterwarnings("ignore")
def test_deprecated_form_compiles(factors: tuple[float, ...]) -> None:
    beta, *alpha = factors
    added, a, b = ones(*SUMS["addmm"])
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda: tensorops.addmm(beta, tensorops.addmm_(added.clone(), beta, *alpha, a, b), *alpha, a, b),
        fullgraph=True,
        backend="aot_eager",
    )
    expected = torch.addmm(beta, added.clone().addmm_(beta, *alpha, a, b), *alpha, a, b)
    torch.testing.assert_close(compiled(), expected)


@pytest.mark.parametrize("op", [*PRODUCTS, *SUMS])
def test_devices_refused(op: str) -> None:
    """What torch makes of a mixture with meta tensors differs from op to op, unwritten memory among it."""
    shapes = {**PRODUCTS, **SUMS}[op]
    for place in range(len(shapes)):
        tensors = [t.to("meta") if i == place else t for i, t in enumerate(ones(*shapes))]
        with pytest.raises(RuntimeError, match="device"):
            getattr(tensorops, op)(*tensors)


@pytest.mark.parametrize("input", [(5,), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("bias", [(), (1, 1), (2, 3)], ids=str)
def test_linear_by_a_vector_with_a_bias(input: tuple[int, ...], bias: tuple[int, ...]) -> None:
    """A vector weight goes with a bias of any number of dimensions but one."""
    tensors = [torch.randn(s, generator=torch.Generator().manual_seed(0)) for s in (input, (5,), bias)]
    if len(bias) > len(input) - 1:
        assert_same_refusal(lambda root: root.nn.functional.linear(*tensors))
    else:
        torch.testing.assert_close(tensorops.nn.functional.linear(*tensors), torch.nn.functional.linear(*tensors))


@pytest.mark.parametrize(("input", "bias"), [((3, 5), ()), ((3, 5), (3,)), ((5,), (1,)), ((2, 3, 5), (3,))], ids=str)
def test_linear_by_a_vector_refused(input: tuple[int, ...], bias: tuple[int, ...]) -> None:
    assert_same_refusal(lambda root: root.nn.functional.linear(*ones(input, (5,), bias)))


@pytest.mark.cuda
@needs_tf32
@pytest.mark.parametrize("shape", [(70, 40, 50), (17, 2000, 20)])
def test_tf32_when_allowed(shape: tuple[int, int, int]) -> None:
    """allow_tf32 rounds the factors of a float32 product, and nothing else."""
    m, k, n = shape
    a, b = torch.randn(m, k), torch.randn(k, n)
    results = []
    for allowed in (False, True):
        with tf32(torch.backends.cuda.matmul, allowed):
            results.append(tensorops.mm(a.to(CUDA_OR_EMULATED), b.to(CUDA_OR_EMULATED)).cpu().double())
    exact, rounded = a.double() @ b.double(), rounded_to_tf32(a).double() @ rounded_to_tf32(b).double()
    for result, expected in zip(results, (exact, rounded), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6 * k)
    assert (exact - rounded).abs().max() > 1e-6 * k
