"""The loss family: what is asked of every case, over its table."""

import pytest
import tensorops
import torch

from tests.faults import assert_same_refusal
from tests.generic import *  # noqa: F403
from tests.harness import EMULATED_CUDA

FAMILY = "loss"

CLASS_LOSSES = ("cross_entropy", "nll_loss")
ELEMENT_LOSSES = ("mse_loss", "binary_cross_entropy")


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


@pytest.mark.parametrize("op", CLASS_LOSSES)
@pytest.mark.parametrize("label", [-1, 5, 100, 2**31, -(2**40)])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (2, 5, 3, 4)], ids=str)
def test_bad_label(op: str, label: int, shape: tuple[int, ...]) -> None:
    """A label out of range is an IndexError, in every layout."""
    target = zeros(shape[0], *shape[2:])
    target.view(-1)[-1] = label
    # A GPU does not tell which.
    message = "index that is out of bounds" if EMULATED_CUDA else f"Target {label} is out of bounds"
    with pytest.raises(IndexError, match=message):
        getattr(tensorops.nn.functional, op)(logits(*shape), target)


@pytest.mark.parametrize("op", CLASS_LOSSES)
@pytest.mark.parametrize("ignored", [-100, -1, 5, 2**40])
def test_ignored_label_out_of_range(op: str, ignored: int) -> None:
    """ignore_index need not be a class."""
    target = torch.tensor([1, ignored, 4, ignored])
    mine = getattr(tensorops.nn.functional, op)(logits(4, 5), target, ignore_index=ignored)
    torch.testing.assert_close(mine, getattr(torch.nn.functional, op)(logits(4, 5), target, ignore_index=ignored))


@pytest.mark.parametrize("op", CLASS_LOSSES)
@pytest.mark.parametrize(
    "arguments",
    {
        "batch": (logits(4, 5), zeros(3)),
        "no target dimension": (logits(4, 5), zeros()),
        "unbatched": (logits(5), zeros(2)),
        "0-d": (logits(), zeros()),
        "positions": (logits(2, 5, 3), zeros(2, 4)),
        "rank": (logits(2, 5, 3, 4), zeros(2, 4)),
        "int32 labels": (logits(4, 5), zeros(4).int()),
        "byte labels": (logits(2, 5, 3, 4), zeros(2, 3, 4).byte()),
        "integers": (zeros(4, 5), zeros(4)),
        "weight size": (logits(4, 5), zeros(4), torch.ones(4)),
        "weight shape": (logits(4, 5), zeros(4), torch.ones(5, 1)),
        "weight shape and size": (logits(4, 5, 2), zeros(4, 2), torch.ones(6, 1)),
        "weight dtype": (logits(4, 5), zeros(4), torch.ones(5, dtype=torch.float64)),
        "weight gradient": (logits(4, 5), zeros(4), torch.ones(5, requires_grad=True)),
        "device": (logits(4, 5), zeros(4).to("meta")),
    }.items(),
    ids=lambda item: item[0],
)
def test_class_loss_refuses(op: str, arguments: tuple[str, tuple]) -> None:
    assert_same_refusal(lambda root: getattr(root.nn.functional, op)(*arguments[1]))


@pytest.mark.parametrize(
    "arguments",
    {
        "smoothing": dict(target=zeros(4), label_smoothing=1.1),
        "ignored probabilities": dict(target=logits(4, 5), ignore_index=2),
        "probabilities' shape": dict(target=logits(4, 6)),
        "integer probabilities": dict(target=zeros(4, 5)),
        "probabilities' weight": dict(target=logits(4, 5), weight=torch.ones(4)),
    }.items(),
    ids=lambda item: item[0],
)
def test_cross_entropy_refuses(arguments: tuple[str, dict]) -> None:
    assert_same_refusal(lambda root: root.nn.functional.cross_entropy(logits(4, 5), **arguments[1]))


@pytest.mark.parametrize(
    "arguments",
    {
        "shape": (torch.rand(4, 5), torch.rand(3, 5)),
        "broadcast": (torch.rand(4, 5), torch.rand(5)),
        "target dtype": (torch.rand(4, 5), torch.rand(4, 5).double()),
        "integers": (zeros(4, 5), zeros(4, 5)),
        "below": (torch.tensor([-0.1, 0.5]), torch.rand(2)),
        "above": (torch.tensor([1.1, 0.5]), torch.rand(2)),
        "nan": (torch.tensor([float("nan"), 0.5]), torch.rand(2)),
        "target above": (torch.rand(2), torch.tensor([1.1, 0.5])),
        "weight shape": (torch.rand(4, 5), torch.rand(4, 5), torch.rand(4)),
        "weight gradient": (torch.rand(4, 5), torch.rand(4, 5), torch.ones(5, requires_grad=True)),
        "device": (torch.rand(4, 5), torch.rand(4, 5).to("meta")),
    }.items(),
    ids=lambda item: item[0],
)
def test_binary_cross_entropy_refuses(arguments: tuple[str, tuple]) -> None:
    assert_same_refusal(lambda root: root.nn.functional.binary_cross_entropy(*arguments[1]))


@pytest.mark.parametrize("op", [*CLASS_LOSSES, *ELEMENT_LOSSES])
@pytest.mark.parametrize("reduction", ["avg", "", "MEAN", None, 1])
def test_bad_reduction(op: str, reduction: object) -> None:
    target = zeros(4) if op in CLASS_LOSSES else torch.rand(4, 5)
    assert_same_refusal(lambda root: getattr(root.nn.functional, op)(torch.rand(4, 5), target, reduction=reduction))


@pytest.mark.parametrize("op", [*CLASS_LOSSES, *ELEMENT_LOSSES])
@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
@pytest.mark.filterwarnings("ignore:size_average and reduce args")
def test_legacy_reduction(op: str, size_average: bool | None, reduce: bool | None) -> None:
    """size_average and reduce, which came before reduction."""
    input = torch.rand(4, 5)
    target = zeros(4) if op in CLASS_LOSSES else torch.rand(4, 5)
    kwargs = {"size_average": size_average, "reduce": reduce}
    mine = getattr(tensorops.nn.functional, op)(input, target, **kwargs)
    torch.testing.assert_close(mine, getattr(torch.nn.functional, op)(input, target, **kwargs))


@pytest.mark.parametrize("op", CLASS_LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 3, 4), (2, 5, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("weight", [(5, 1), (1, 5), (5, 1, 1)], ids=str)
def test_weight_of_another_shape(op: str, reduction: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """Of more than two dimensions, torch takes the weights in any shape."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(5, (shape[0], *shape[2:]), generator=generator)
    weights = torch.rand(weight, generator=generator)
    results = []
    for root in (tensorops, torch):
        leaf = logits(*shape).requires_grad_()
        value = getattr(root.nn.functional, op)(leaf, target, weights, reduction=reduction)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), leaf)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("smoothing", [float("nan"), -0.1, -float("inf")])
def test_no_smoothing(smoothing: float) -> None:
    """What is not above zero does not smooth."""
    mine = tensorops.nn.functional.cross_entropy(logits(4, 5), zeros(4), label_smoothing=smoothing)
    torch.testing.assert_close(
        mine, torch.nn.functional.cross_entropy(logits(4, 5), zeros(4), label_smoothing=smoothing)
    )


@pytest.mark.parametrize("op", CLASS_LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(4, 0), (0, 0), (2, 0, 3, 3), (2, 0, 0, 3)], ids=str)
def test_no_classes(op: str, reduction: str, shape: tuple[int, ...]) -> None:
    """No label is in range, but for the ignored one."""
    positions = (shape[0], *shape[2:])
    if torch.Size(positions).numel() > 0:
        assert_same_refusal(lambda root: getattr(root.nn.functional, op)(logits(*shape), zeros(*positions)))
    ignored = torch.full(positions, -100)
    mine, its = (getattr(t.nn.functional, op)(logits(*shape), ignored, reduction=reduction) for t in (tensorops, torch))
    torch.testing.assert_close(mine, its, equal_nan=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0)], ids=str)
def test_cross_entropy_of_no_probabilities(shape: tuple[int, ...], reduction: str) -> None:
    """No positions, or no classes: nothing is read."""
    mine = tensorops.nn.functional.cross_entropy(logits(*shape), logits(*shape), reduction=reduction)
    theirs = torch.nn.functional.cross_entropy(logits(*shape), logits(*shape), reduction=reduction)
    torch.testing.assert_close(mine, theirs, equal_nan=True)
