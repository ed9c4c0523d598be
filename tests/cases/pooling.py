"""Pooling: windows of every shape, both memory formats, ties and NaN."""

from __future__ import annotations

from dataclasses import replace

import torch

from .case import INTEGRAL, Case, Draw, arguments

MAX = "nn.functional.max_pool2d"
AVG = "nn.functional.avg_pool2d"
UNPOOL = "nn.functional.max_unpool2d"
LAST = torch.channels_last


def max_case(
    label: str, shape: tuple[int, ...], *args: object, last: bool = False, large: bool = False, **kwargs
) -> Case:
    """max_pool2d without ties, so that finite differences exist."""
    layout = LAST if last else torch.contiguous_format

    def make(d: Draw) -> tuple[tuple, dict]:
        return arguments(d.distinct(*shape).to(memory_format=layout), *args, **kwargs)

    return Case(MAX, make, label, exact=True, large=large)


def avg_case(
    label: str, shape: tuple[int, ...], *args: object, last: bool = False, large: bool = False, **kwargs
) -> Case:
    """avg_pool2d of normal values."""
    layout = LAST if last else torch.contiguous_format

    def make(d: Draw) -> tuple[tuple, dict]:
        return arguments(d.normal(*shape).to(memory_format=layout), *args, **kwargs)

    return Case(AVG, make, label, large=large)


def special_values(d: Draw, *shape: int) -> torch.Tensor:
    """NaN, infinities and ties in every window."""
    values = torch.tensor([0.0, -0.0, 1.0, 1.0, float("nan"), float("inf"), -float("inf"), -2.0], dtype=torch.float64)
    return values[d.integers(0, 8, *(shape or (2, 3, 9, 11))).cpu()].to(d.device, d.dtype)


def unpool_case(label: str, *shape: int, large: bool = False, **kwargs: object) -> Case:
    """max_unpool2d; torch's backward takes dense indices only."""
    make = lambda d: unpool_arguments(d, *shape, **kwargs)  # noqa: E731
    return Case(UNPOOL, make, label, exact=True, dense_gradient=True, large=large)


def unpool_arguments(d: Draw, *shape: int, last: bool = False, **kwargs: object) -> tuple[tuple, dict]:
    """Pooled values and their indices, as max_pool2d gives them."""
    input = d.normal(*shape, dtype=torch.float64)
    if last:
        input = input.to(memory_format=LAST)
    values, indices = torch.nn.functional.max_pool2d(input, 2, return_indices=True)
    kwargs.setdefault("output_size", shape[-2:])
    return arguments(values.to(d.device, d.dtype), indices.to(d.device), 2, **kwargs)


CASES: list[Case] = [
    max_case("2x2", (2, 3, 8, 10), 2),
    max_case("3x3-stride2-padded", (2, 3, 9, 37), 3, 2, 1),
    max_case("3x3-stride1", (1, 2, 7, 40), 3, 1, 1),
    max_case("2x2-stride1", (2, 2, 7, 39), 2, 1),
    max_case("4x4-stride2-padded", (2, 2, 10, 70), 4, 2, 1),
    max_case("5x2-stride1-padded", (1, 2, 9, 37), (5, 2), 1, (2, 1)),
    max_case("dilated-stride2", (2, 2, 13, 70), (2, 3), (1, 2), (0, 1), (1, 2)),
    max_case("dilated-stride1", (1, 2, 9, 41), 2, 1, 1, (2, 3)),
    max_case("5x3-stride1-padded", (1, 2, 9, 38), (5, 3), 1, (2, 1)),
    max_case("3x3-steps-1-and-2", (2, 2, 8, 34), 3, (1, 2), (1, 0)),
    max_case("13x13-padded", (1, 2, 15, 18), 13, 1, 6),
    max_case("stride3", (2, 2, 11, 41), (2, 4), 3, 1),
    max_case("ceil", (2, 2, 10, 11), 3, 2, 1, ceil_mode=True),
    max_case("ceil-stride2", (2, 2, 10, 52), 3, 2, 0, ceil_mode=True),
    max_case("dilated", (2, 2, 13, 15), (3, 2), (2, 3), (1, 1), (2, 3)),
    max_case("stride-beyond-window", (1, 2, 11, 23), 2, 5),
    # Torch's own backward writes outside the image here and corrupts the heap; nothing that differentiates is asked.
    replace(max_case("padding-alone", (1, 1, 3, 3), 2, 1, 1, 4), gradient=False),
    max_case("tiles-and-rest", (2, 3, 11, 37), (3, 2)),
    max_case("unbatched", (3, 8, 9), 2),
    max_case("one-output", (3, 2, 7, 7), 7),
    max_case("window-over-a-byte", (1, 2, 20, 40), (17, 19), 3),
    max_case("empty-batch", (0, 3, 8, 8), 2),
    max_case("channels-last", (2, 19, 9, 8), 3, 2, 1, last=True),
    max_case("many-channels-last", (2, 85, 9, 8), 3, 2, 1, last=True),
    max_case("few-channels-last", (2, 4, 9, 8), 2, last=True),
    max_case("wide-window-last", (2, 70, 9, 8), 5, 2, 2, last=True),
    max_case("dilated-last", (2, 3, 13, 15), (3, 2), (2, 3), (1, 1), (2, 3), last=True),
    Case(MAX, lambda d: arguments(d.distinct(2, 3, 8, 10).transpose(2, 3), 2), "transposed", exact=True),
    Case(MAX, lambda d: arguments(d.distinct(2, 6, 8, 20)[:, ::2, :, 1::2], 2), "strided", exact=True),
    Case(MAX, lambda d: arguments(d.distinct(2, 1, 8, 8).expand(2, 5, 8, 8), 2), "expanded", exact=True),
    Case(MAX, lambda d: arguments(special_values(d), 3, 2, 1), "special", gradient=False, exact=True),
    Case(MAX, lambda d: arguments(special_values(d, 2, 2, 7, 75), 3, 2, 1), "special-wide", gradient=False, exact=True),
    Case(MAX, lambda d: arguments(special_values(d), (9, 11)), "special-global", gradient=False, exact=True),
    Case(
        MAX,
        lambda d: arguments(special_values(d).to(memory_format=LAST), 3, 2, 1),
        "special-last",
        gradient=False,
        exact=True,
    ),
    # int64 first, the one tested in every layout: torch's channels_last kernel counts pixels in the tensor's own dtype.
    Case(
        MAX, lambda d: arguments(d.normal(2, 3, 8, 37), 3, 2, 1), "integers", INTEGRAL[::-1], gradient=False, exact=True
    ),
    max_case("indices", (2, 3, 9, 37), 3, 2, 1, return_indices=True),
    max_case("indices-last", (2, 17, 9, 8), 3, 2, 1, last=True, return_indices=True),
    Case(
        MAX,
        lambda d: arguments(special_values(d), 3, 1, 1, return_indices=True),
        "indices-special",
        gradient=False,
        exact=True,
    ),
    avg_case("2x2", (2, 3, 8, 10), 2),
    avg_case("3x3-stride2-padded", (2, 3, 9, 37), 3, 2, 1),
    avg_case("3x3-stride1", (1, 2, 7, 40), 3, 1, 1),
    avg_case("2x2-stride1", (2, 2, 7, 39), 2, 1),
    avg_case("4x4-stride2-padded", (2, 2, 10, 70), 4, 2, 1),
    avg_case("5x2-stride1-padded", (1, 2, 9, 37), (5, 2), 1, (2, 1)),
    avg_case("7x7-stride1-padded", (1, 2, 12, 41), 7, 1, 3, count_include_pad=False),
    avg_case("5x3-stride1-padded", (1, 2, 9, 38), (5, 3), 1, (2, 1)),
    avg_case("3x3-steps-1-and-2", (2, 2, 8, 34), 3, (1, 2), (1, 0)),
    avg_case("13x13-padded", (1, 2, 15, 18), 13, 1, 6),
    avg_case("stride3", (2, 2, 11, 41), (2, 4), 3, 1),
    avg_case("ceil-stride2", (2, 2, 10, 52), 3, 2, 0, ceil_mode=True),
    avg_case("padding-uncounted", (2, 2, 9, 21), 3, 2, 1, count_include_pad=False),
    avg_case("ceil", (2, 2, 10, 12), 3, 2, 1, ceil_mode=True),
    avg_case("ceil-uncounted", (2, 2, 10, 12), (3, 4), (2, 3), (1, 2), ceil_mode=True, count_include_pad=False),
    avg_case("divisor", (2, 2, 8, 21), (2, 3), divisor_override=-5),
    avg_case("stride-beyond-window", (1, 2, 11, 23), 2, 5),
    avg_case("tiles-and-rest", (2, 3, 11, 37), (3, 2)),
    avg_case("tiles-divisor", (2, 3, 8, 10), 2, divisor_override=-3),
    avg_case("narrow-padded", (2, 3, 9, 6), 3, 2, 1, count_include_pad=False),
    avg_case("ceil-last", (2, 5, 10, 12), (3, 4), (2, 3), (1, 2), ceil_mode=True, last=True),
    avg_case("unbatched", (3, 8, 9), 2),
    avg_case("global", (3, 5, 7, 7), 7),
    avg_case("empty-batch", (0, 3, 8, 8), 2),
    avg_case("channels-last", (2, 19, 9, 8), 3, 2, 1, last=True, count_include_pad=False),
    avg_case("many-channels-last", (2, 85, 9, 8), 3, 2, 1, last=True, count_include_pad=False),
    Case(AVG, lambda d: arguments(d.normal(2, 3, 8, 10).transpose(2, 3), 2), "transposed"),
    Case(AVG, lambda d: arguments(d.normal(2, 1, 8, 8).expand(2, 5, 8, 8), 2), "expanded"),
    Case(AVG, lambda d: arguments(d.normal(2, 3, 9, 21), 3, 2, 1), "int64", (torch.int64,), gradient=False, exact=True),
    Case(AVG, lambda d: arguments(special_values(d), 2), "special", gradient=False),
    unpool_case("2x2", 2, 3, 8, 10),
    unpool_case("channels-last", 2, 5, 8, 10, last=True),
    unpool_case("unbatched", 3, 8, 9),
    unpool_case("default-size", 2, 3, 8, 10, output_size=None),
    max_case("large", (2, 20, 90, 100), 3, 2, 1, large=True),
    max_case("large-last", (2, 20, 90, 100), 3, 2, 1, last=True, large=True),
    max_case("past-caches-last", (2, 64, 180, 180), 3, 2, 1, last=True, large=True),
    max_case("large-tiles", (3, 2, 303, 301), (3, 2), large=True),
    max_case("large-wide-window-last", (2, 70, 60, 60), 5, 2, 2, last=True, large=True),
    max_case("large-narrow", (500, 20, 7, 7), 5, 2, 1, large=True),
    max_case("large-wide-window", (2, 2, 300, 300), (17, 19), 3, large=True),
    max_case("large-indices", (2, 20, 90, 100), 3, 1, 1, return_indices=True, large=True),
    max_case("large-indices-last", (2, 20, 90, 100), 3, 1, 1, last=True, return_indices=True, large=True),
    avg_case("large", (2, 20, 90, 100), 3, 2, 1, large=True),
    avg_case("large-last", (2, 20, 90, 100), 3, 2, 1, last=True, large=True),
    avg_case("past-caches-last", (2, 64, 180, 180), 3, 2, 1, last=True, large=True),
    avg_case("large-tiles", (3, 2, 303, 301), (3, 2), large=True),
    avg_case("large-global", (500, 20, 7, 7), 7, large=True),
    unpool_case("large", 2, 20, 90, 100, large=True),
    unpool_case("large-last", 2, 20, 90, 100, last=True, large=True),
]
