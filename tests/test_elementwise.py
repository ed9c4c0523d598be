"""The elementwise family: what is asked of every case, over its table."""

import pytest
import tensorops
import torch

from tests.generic import *  # noqa: F403

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


@pytest.mark.parametrize("shape", [(3, 1000), (2, 3, 700), (4096, 3)], ids=str)
def test_columns_repeat_along_rows(shape: tuple[int, ...]) -> None:
    """An operand of one column fills a buffer once for all blocks of a row, in every dtype."""
    x = torch.randn(shape)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int32):
        matrix, column = (x * 8).to(dtype), (x[..., :1] * 8).to(dtype)
        assert torch.equal(tensorops.add(matrix, column), torch.add(matrix, column))
        assert torch.equal(tensorops.sub(column, matrix), torch.sub(column, matrix))
        assert torch.equal(tensorops.maximum(matrix, column.double()), torch.maximum(matrix, column.double()))
