"""The reduction family: what is asked of every case, over its table."""

import pytest
import tensorops
import torch

from tests.generic import *  # noqa: F403
from tests.harness import threads

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


@pytest.mark.parametrize("shape", [(1031, 8192), (2, 131, 32784), (1031, 8199)], ids=str)
@pytest.mark.parametrize("op", ["cumsum", "cumprod", "softmax", "log_softmax"])
def test_results_past_the_caches(op: str, shape: tuple[int, ...]) -> None:
    """From 64 MB on results of lines side by side are streamed, if each row of them starts at a cache line."""
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(600, 37), (3, 601, 300), (2, 9, 1100)], ids=str)
@pytest.mark.parametrize("op", ["cumsum", "cumprod", "softmax", "log_softmax"])
def test_lines_side_by_side(op: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """NaN and infinities stay in their columns; panels of any width, for any number of threads, give what lines alone do."""
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) / 4 + 1).to(dtype)
    dim = len(shape) - 2
    x.select(dim, 2)[..., 3] = float("nan")
    x.select(dim, 5)[..., 7] = float("inf")
    x[..., 11] = -float("inf")
    expected = getattr(torch, op)(x.double(), dim)
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(getattr(tensorops, op)(x, dim))
    assert torch.equal(results[0].nan_to_num(7), results[1].nan_to_num(7))
    assert torch.equal(results[0].nan_to_num(7), results[2].nan_to_num(7))
    eps = torch.finfo(dtype).eps
    kept = expected.abs() < torch.finfo(dtype).max / 2
    # In f64 both sides round once per step, up to eps / 2 each, and need not go in the same order.
    rtol = shape[dim] * eps if op.startswith("cum") and dtype == torch.float64 else 4 * eps
    torch.testing.assert_close(
        results[0].double()[kept], expected[kept], rtol=rtol, atol=8 * eps if dtype != torch.float32 else 1e-5
    )
    assert torch.equal(results[0].isnan(), expected.isnan())
