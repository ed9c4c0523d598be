"""Losses: targets as labels and as probabilities, every reduction, weights, ignored labels, more dimensions."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .case import Case, Draw, arguments

REDUCTIONS = ("mean", "sum", "none")


def classes_of(shape: tuple[int, ...]) -> int:
    """The size of the class dimension."""
    return shape[0] if len(shape) == 1 else shape[1]


def labels(d: Draw, shape: tuple[int, ...], ignored: int | None = None) -> torch.Tensor:
    """Labels for logits of the given shape, every third one `ignored` if that is given."""
    positions = () if len(shape) == 1 else (shape[0], *shape[2:])
    target = d.integers(0, classes_of(shape), *positions)
    if ignored is not None and target.dim() > 0:
        target.view(-1)[::3] = ignored
    return target


def probabilities(d: Draw, shape: tuple[int, ...]) -> torch.Tensor:
    """Rows of positive numbers that add up to one."""
    return d.normal(*shape, dtype=torch.float64).softmax(0 if len(shape) == 1 else 1).to(d.device, d.dtype)


def entropy(
    label: str,
    shape: tuple[int, ...],
    *,
    soft: bool = False,
    weighted: bool = False,
    ignored: int | None = None,
    layout: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    large: bool = False,
    **kwargs: object,
) -> list[Case]:
    """cross_entropy for each reduction."""

    def make(d: Draw, reduction: str) -> tuple[tuple, dict]:
        target = probabilities(d, shape) if soft else labels(d, shape, ignored)
        given = dict(kwargs, reduction=reduction)
        if weighted:
            given["weight"] = d.uniform(0.5, 2, classes_of(shape))
        if ignored is not None:
            given["ignore_index"] = ignored
        return arguments(layout(d.normal(*shape)), target, **given)

    return [
        Case(
            "nn.functional.cross_entropy",
            lambda d, r=reduction: make(d, r),
            f"{label}-{reduction}",
            constants=() if soft else ("weight",),
            smooth=not mean_of_nothing(shape, reduction),
            large=large,
        )
        for reduction in REDUCTIONS
    ]


def mean_of_nothing(shape: tuple[int, ...], reduction: str) -> bool:
    """Whether the loss is 0 / 0, so that the gradient's derivative by the incoming gradient is NaN, as in torch."""
    return 0 in shape and reduction == "mean"


def likelihood(
    label: str, shape: tuple[int, ...], *, weighted: bool = False, ignored: int | None = None, large: bool = False
) -> list[Case]:
    """nll_loss for each reduction."""

    def make(d: Draw, reduction: str) -> tuple[tuple, dict]:
        given: dict[str, object] = {"reduction": reduction}
        if weighted:
            given["weight"] = d.uniform(0.5, 2, classes_of(shape))
        if ignored is not None:
            given["ignore_index"] = ignored
        return arguments(d.normal(*shape), labels(d, shape, ignored), **given)

    return [
        Case(
            "nn.functional.nll_loss",
            lambda d, r=reduction: make(d, r),
            f"{label}-{reduction}",
            constants=("weight",),
            dense_gradient=True,
            smooth=not mean_of_nothing(shape, reduction),
            large=large,
        )
        for reduction in REDUCTIONS
    ]


def elements(op: str, label: str, make: Callable[[Draw], tuple], *, large: bool = False) -> list[Case]:
    """A loss over elements for each reduction; `make` draws input, target and weight, if there is one."""

    def named(d: Draw, reduction: str) -> tuple[tuple, dict]:
        input, target, *weight = make(d)
        return arguments(input, target, reduction=reduction, **({"weight": weight[0]} if weight else {}))

    return [
        Case(
            f"nn.functional.{op}",
            lambda d, r=reduction: named(d, r),
            f"{label}-{reduction}",
            constants=("weight",) if op == "binary_cross_entropy" else (),
            large=large,
        )
        for reduction in REDUCTIONS
    ]


def probability(d: Draw, *shape: int) -> torch.Tensor:
    """Values inside (0, 1), away from the ends, where the slope is cut off."""
    return d.uniform(0.1, 0.9, *shape)


CASES: list[Case] = [
    *entropy("labels", (5, 7)),
    *entropy("many-classes", (3, 1100)),
    *entropy("one-class", (4, 1)),
    *entropy("unbatched", (9,)),
    *entropy("weighted", (6, 19), weighted=True),
    *entropy("ignored", (7, 10), ignored=2),
    *entropy("smoothed", (6, 18), label_smoothing=0.1),
    *entropy("smoothed-weighted-ignored", (7, 18), label_smoothing=0.3, weighted=True, ignored=-1),
    *entropy("three-dimensions", (2, 5, 37), weighted=True, ignored=0),
    *entropy("four-dimensions", (2, 5, 3, 7), label_smoothing=0.2),
    *entropy("five-dimensions", (2, 3, 2, 3, 4)),
    *entropy("channels-last", (2, 18, 3, 4), weighted=True, layout=lambda x: x.to(memory_format=torch.channels_last)),
    *entropy("classes-last", (2, 5, 6), layout=lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)),
    *entropy("probabilities", (5, 19), soft=True),
    *entropy("probabilities-unbatched", (19,), soft=True),
    *entropy("probabilities-smoothed-weighted", (5, 19), soft=True, weighted=True, label_smoothing=0.2),
    *entropy("probabilities-dimensions", (2, 5, 3, 7), soft=True, weighted=True),
    *entropy(
        "probabilities-channels-last", (2, 5, 3, 4), soft=True, layout=lambda x: x.to(memory_format=torch.channels_last)
    ),
    # Rows so short that they are turned, where there are many.
    *entropy("few-classes", (37, 7), weighted=True, ignored=2, label_smoothing=0.1),
    *entropy("few-classes-channels-last", (3, 5, 4, 4), layout=lambda x: x.to(memory_format=torch.channels_last)),
    *entropy("empty", (0, 5)),
    *likelihood("labels", (5, 7)),
    *likelihood("unbatched", (7,)),
    *likelihood("weighted-ignored", (9, 7), weighted=True, ignored=3),
    *likelihood("dimensions", (2, 5, 3, 4), weighted=True),
    *likelihood("empty", (0, 5)),
    *elements("mse_loss", "vector", lambda d: (d.normal(1000), d.normal(1000))),
    *elements("mse_loss", "transposed", lambda d: (d.normal(5, 7).t(), d.normal(7, 5))),
    *elements("mse_loss", "scalar", lambda d: (d.normal(), d.normal())),
    *elements("mse_loss", "empty", lambda d: (d.normal(0, 3), d.normal(0, 3))),
    *elements("mse_loss", "weighted", lambda d: (d.normal(4, 9), d.normal(4, 9), d.uniform(0.5, 2, 4, 9))),
    *elements("binary_cross_entropy", "vector", lambda d: (probability(d, 1000), probability(d, 1000))),
    *elements(
        "binary_cross_entropy", "weighted", lambda d: (probability(d, 5, 7), probability(d, 5, 7), probability(d, 7))
    ),
    *elements("binary_cross_entropy", "transposed", lambda d: (probability(d, 5, 7).t(), probability(d, 7, 5))),
    *elements("binary_cross_entropy", "empty", lambda d: (probability(d, 0, 3), probability(d, 0, 3))),
    *entropy("large-rows", (3000, 130), large=True),
    *entropy("large-short-rows", (20001, 10), weighted=True, ignored=2, large=True),
    *entropy("large-rows-smoothed", (3000, 130), weighted=True, ignored=2, label_smoothing=0.1, large=True),
    *entropy("large-columns", (3, 19, 90, 100), weighted=True, ignored=2, label_smoothing=0.1, large=True),
    *entropy("large-probabilities-rows", (3000, 130), soft=True, weighted=True, large=True),
    *entropy("large-probabilities-columns", (3, 19, 90, 100), soft=True, label_smoothing=0.1, large=True),
    *likelihood("large-rows", (100000, 4), weighted=True, ignored=1, large=True),
    *likelihood("large-columns", (3, 19, 90, 100), large=True),
    *elements("mse_loss", "large", lambda d: (d.normal(700, 600), d.normal(700, 600)), large=True),
    *elements("mse_loss", "large-transposed", lambda d: (d.normal(600, 700).t(), d.normal(700, 600)), large=True),
    *elements(
        "binary_cross_entropy",
        "large",
        lambda d: (probability(d, 700, 600), probability(d, 700, 600), probability(d, 600)),
        large=True,
    ),
]
