"""Cases of the convolution family."""

from __future__ import annotations

from typing import Any

import torch

from .case import FLOATING, INTEGRAL, Case, Draw, arguments

LAST = torch.channels_last

# Of long sums: the reference in float64 is torch itself, whose sums are longer there than in float32, by whose error it is judged.
SUMMED_IN_F32 = tuple(dtype for dtype in FLOATING if dtype != torch.float64)


def conv(
    label: str,
    input: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    bias: bool = True,
    input_last: bool = False,
    weight_last: bool = False,
    dtypes: tuple[torch.dtype, ...] = FLOATING,
    gradient: bool = True,
    exact: bool = False,
    smooth: bool = True,
    large: bool = False,
    **kwargs: Any,
) -> Case:
    """A row: sizes of input and weight, memory formats, and conv2d's keyword arguments."""

    def make(draw: Draw) -> tuple[tuple, dict[str, Any]]:
        x, w = draw.normal(*input), draw.normal(*weight)
        b = draw.normal(weight[0]) if bias else None
        if input_last:
            x = x.to(memory_format=LAST)
        if weight_last:
            w = w.to(memory_format=LAST)
        return arguments(x, w, b, **kwargs)

    return Case(
        "conv2d",
        make,
        label,
        dtypes,
        gradient,
        exact,
        large=large,
        smooth=smooth and not large,
        cuda_dtypes=tuple(dtype for dtype in dtypes if dtype.is_floating_point),
    )


def _strided(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """Every other column of a wider image, and a weight whose kernel dimensions are swapped in memory."""
    return arguments(draw.normal(2, 3, 7, 16)[..., ::2], draw.normal(4, 3, 2, 3).transpose(2, 3), None, padding=1)


def _expanded(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """One image for the whole batch, one filter for all output channels."""
    return arguments(
        draw.normal(1, 3, 6, 6).expand(3, 3, 6, 6), draw.normal(1, 3, 3, 3).expand(5, 3, 3, 3), draw.normal(5)
    )


def _offset(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """Inner part of a larger image."""
    return arguments(draw.normal(2, 5, 9, 9)[:, 1:4, 1:8, 2:7], draw.normal(4, 3, 3, 3), draw.normal(8)[::2], padding=1)


def _winograd_strided(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """Every other channel and column of wider images, one of which serves as all."""
    images = draw.normal(1, 64, 16, 36)[:, ::2, :, ::2].expand(5, 32, 16, 18)
    return arguments(images, draw.normal(48, 3, 32, 3).permute(0, 2, 1, 3), draw.normal(96)[::2], padding=1)


def _pointwise_strided(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """One image with gaps between channels, rows and pixels for the whole batch, and every other filter of twice as many."""
    images = draw.normal(1, 80, 6, 22)[:, ::2, 1:5, ::2].expand(3, 40, 4, 11)
    return arguments(images, draw.normal(40, 40, 1, 1)[::2], draw.normal(40)[::2])


def _columns(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """Depthwise, and the image's rows lie apart: what surrounds it is not read."""
    return arguments(draw.normal(2, 4, 9, 40)[:, 1:3, 2:8, 9:29], draw.normal(2, 1, 3, 3), None, padding=1, groups=2)


def _columns_stride_2(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """The same where windows move by two."""
    (image, weight, bias), kwargs = _columns(draw)
    return (image, weight, bias), kwargs | {"stride": 2}


def _one_row(draw: Draw) -> tuple[tuple, dict[str, Any]]:
    """Depthwise over an image all of whose rows are one in memory."""
    return arguments(
        draw.normal(2, 3, 1, 20).expand(2, 3, 7, 20), draw.normal(3, 1, 3, 3), None, padding=1, stride=2, groups=3
    )


CASES: list[Case] = [
    conv("1x1", (2, 5, 6, 7), (4, 5, 1, 1)),
    conv("3x3", (2, 3, 7, 8), (4, 3, 3, 3), padding=1),
    conv("3x3-no-bias", (2, 3, 7, 8), (4, 3, 3, 3), bias=False),
    conv("5x5-one-channel", (2, 1, 9, 9), (6, 1, 5, 5), padding=2),
    conv("positional", (2, 3, 7, 8), (4, 3, 3, 3), stride=2, padding=1, dilation=1, groups=1),
    conv("wide", (1, 4, 5, 35), (17, 4, 3, 3), padding=1),
    conv("many-channels", (1, 9, 4, 5), (35, 9, 3, 3), padding=1),
    conv("one-pixel", (2, 3, 1, 1), (4, 3, 1, 1)),
    conv("kernel-fills-input", (2, 3, 4, 5), (4, 3, 4, 5)),
    conv("asymmetric-kernel", (2, 3, 6, 8), (4, 3, 1, 5), padding=(0, 2)),
    conv("stride-2", (2, 3, 9, 8), (4, 3, 3, 3), stride=2, padding=1),
    conv("stride-3-2", (2, 3, 11, 9), (5, 3, 3, 3), stride=(3, 2), padding=(2, 0)),
    # Rows and columns at the end that the kernel stops short of: their phase has one tap, with and without a dilation.
    conv("stride-2-stops-short", (2, 18, 10, 12), (20, 18, 3, 3), stride=2, smooth=False),
    conv("stride-2-dilation-stops-short", (2, 18, 11, 13), (20, 18, 2, 2), stride=2, dilation=3, smooth=False),
    conv("stride-beyond-kernel", (2, 3, 9, 9), (4, 3, 2, 2), stride=3),
    conv("stride-beyond-kernel-1x1", (2, 3, 7, 7), (4, 3, 1, 1), stride=2),
    conv("padding-beyond-kernel", (1, 2, 4, 4), (3, 2, 2, 2), padding=3),
    conv("dilation-2", (2, 3, 9, 9), (4, 3, 3, 3), dilation=2, padding=2),
    conv("dilation-stride", (1, 2, 11, 10), (3, 2, 3, 2), dilation=(2, 3), stride=(2, 1), padding=(1, 2)),
    conv("groups-2", (2, 4, 6, 7), (6, 2, 3, 3), groups=2, padding=1),
    conv("groups-3-wide", (1, 6, 5, 5), (51, 2, 3, 3), groups=3, padding=1),
    conv("depthwise", (2, 6, 7, 9), (6, 1, 3, 3), groups=6, padding=1),
    conv("depthwise-stride-2", (2, 6, 9, 8), (6, 1, 3, 3), groups=6, padding=1, stride=2),
    conv("depthwise-multiplier", (1, 4, 7, 7), (8, 1, 3, 3), groups=4, dilation=2, padding=2),
    conv("depthwise-5x5-wide", (1, 3, 6, 37), (3, 1, 5, 5), groups=3, padding=2),
    # Depthwise planes read where they lie, by rows of taps: one vector, two and a rest, padding beyond the image.
    conv("depthwise-row", (2, 3, 14, 14), (3, 1, 3, 3), groups=3, padding=1),
    conv("depthwise-wide", (1, 2, 19, 70), (2, 1, 3, 3), groups=2, padding=1, smooth=False),
    conv("depthwise-7x7", (1, 2, 10, 33), (2, 1, 7, 7), groups=2, padding=3, smooth=False),
    conv("depthwise-5x3", (1, 2, 9, 21), (2, 1, 5, 3), groups=2, padding=(0, 3), dilation=(1, 2)),
    conv("depthwise-3x24", (1, 2, 5, 40), (2, 1, 3, 24), groups=2, padding=(1, 12), smooth=False),
    conv("depthwise-dilated", (1, 2, 9, 20), (2, 1, 3, 3), groups=2, padding=4, dilation=2),
    conv("depthwise-padding-beyond", (1, 2, 3, 4), (2, 1, 3, 3), groups=2, padding=5),
    conv("depthwise-stride-2-1", (1, 2, 11, 18), (2, 1, 3, 3), groups=2, padding=1, stride=(2, 1)),
    conv("depthwise-stride-1-2", (1, 2, 11, 18), (2, 1, 3, 3), groups=2, padding=1, stride=(1, 2)),
    conv("depthwise-stride-2-wide", (1, 2, 37, 70), (2, 1, 3, 3), groups=2, padding=1, stride=2, smooth=False),
    conv(
        "depthwise-stride-2-dilated", (1, 2, 15, 21), (2, 1, 3, 5), groups=2, padding=(0, 3), dilation=(1, 2), stride=2
    ),
    conv("depthwise-stride-3", (1, 2, 16, 40), (2, 1, 3, 5), groups=2, padding=(1, 4), stride=3, smooth=False),
    conv("depthwise-7x3", (1, 2, 12, 20), (2, 1, 7, 3), groups=2, padding=(3, 1), smooth=False),
    conv("few-channels-padding", (1, 2, 9, 20), (3, 2, 3, 3), padding=(0, 1)),
    # Sums of few terms: panels of channels and rows of pixels with a rest, whole images as one row.
    conv("few-terms", (2, 3, 7, 31), (19, 3, 3, 3), padding=1, smooth=False),
    conv("few-terms-stride-2", (2, 3, 9, 62), (19, 3, 3, 3), padding=1, stride=2, smooth=False),
    conv("few-terms-groups", (1, 4, 5, 32), (38, 2, 3, 2), padding=1, groups=2, smooth=False),
    conv("few-terms-chains", (2, 3, 6, 32), (20, 3, 5, 5), padding=2, smooth=False),
    conv("few-terms-row", (2, 5, 9, 11), (21, 5, 1, 1), smooth=False),
    # Few out channels with pixels in the lanes, and weight gradients like that: rests of channels, taps and rows, chains, parts.
    conv("few-out", (19, 2, 7, 30), (7, 2, 5, 5), padding=2, smooth=False),
    conv("few-out-groups", (2, 6, 12, 28), (14, 3, 4, 4), padding=(1, 2), groups=2, smooth=False),
    conv("few-out-strides", (3, 3, 11, 57), (5, 3, 3, 7), padding=1, stride=(3, 2), dilation=(2, 1), smooth=False),
    conv("few-out-long", (2, 1, 70, 61), (3, 1, 2, 2), smooth=False),
    conv("long-rows", (3, 3, 6, 110), (13, 3, 3, 3), padding=1, stride=2, smooth=False),
    conv("few-terms-row-pieces", (1, 250, 10, 31), (17, 250, 1, 1), smooth=False),
    # One tap, a product of weights and pixels: small planes side by side, large ones, steps, any layout.
    conv("pointwise", (3, 40, 7, 7), (33, 40, 1, 1), smooth=False),
    conv("pointwise-no-bias", (2, 36, 12, 16), (20, 36, 1, 1), bias=False, smooth=False),
    conv("pointwise-deep", (2, 34, 30, 36), (20, 34, 1, 1), smooth=False),
    conv("pointwise-stride", (3, 40, 9, 7), (20, 40, 1, 1), stride=(2, 3), smooth=False),
    conv("pointwise-channels-last", (3, 40, 7, 7), (33, 40, 1, 1), input_last=True, smooth=False),
    conv("pointwise-channels-last-stride", (3, 40, 9, 7), (20, 40, 1, 1), stride=2, input_last=True, smooth=False),
    conv("pointwise-channels-last-weight", (3, 40, 7, 7), (33, 40, 1, 1), weight_last=True, smooth=False),
    Case("conv2d", _pointwise_strided, "pointwise-strided", gradient=False),
    # Weight gradients summed image by image: many sums, and a result that is turned over.
    conv("pointwise-many", (3, 270, 14, 14), (260, 270, 1, 1), smooth=False),
    conv("pointwise-turned", (3, 70, 13, 11), (40, 70, 1, 1), bias=False, smooth=False),
    conv("pointwise-turned-many", (3, 600, 13, 13), (120, 600, 1, 1), bias=False, dtypes=SUMMED_IN_F32, smooth=False),
    conv("same", (2, 3, 6, 7), (4, 3, 3, 5), padding="same"),
    conv("same-even", (2, 3, 6, 7), (4, 3, 2, 4), padding="same"),
    conv("same-even-dilated", (1, 2, 7, 7), (3, 2, 2, 4), padding="same", dilation=(3, 1)),
    conv("valid", (2, 3, 6, 7), (4, 3, 3, 3), padding="valid", stride=2),
    conv("unbatched", (3, 6, 7), (4, 3, 3, 3), padding=1),
    conv("unbatched-same", (3, 6, 7), (4, 3, 2, 2), padding="same"),
    conv("empty-batch", (0, 3, 6, 7), (4, 3, 3, 3), padding=1),
    conv("channels-last", (2, 5, 6, 7), (4, 5, 3, 3), padding=1, input_last=True, weight_last=True),
    conv("channels-last-input", (2, 5, 6, 7), (4, 5, 3, 3), padding=1, input_last=True),
    conv("channels-last-weight", (2, 5, 6, 7), (4, 5, 3, 3), padding=1, weight_last=True),
    conv("channels-last-1x1", (2, 5, 6, 7), (18, 5, 1, 1), input_last=True),
    conv("channels-last-groups", (2, 6, 6, 7), (4, 3, 3, 3), padding=1, groups=2, stride=2, input_last=True),
    conv("channels-last-depthwise", (2, 18, 6, 7), (18, 1, 3, 3), padding=1, groups=18, input_last=True),
    Case("conv2d", _columns, "columns"),
    Case("conv2d", _columns_stride_2, "columns-stride-2"),
    Case("conv2d", _one_row, "one-row"),
    Case("conv2d", _strided, "strided"),
    Case("conv2d", _expanded, "expanded", gradient=False),
    Case("conv2d", _offset, "offset"),
    # Taps that see only the border from whole rows, forward and backward.
    conv("border", (3, 12, 8, 8), (20, 12, 5, 7), padding=(2, 3), smooth=False),
    conv("border-short", (2, 12, 3, 9), (20, 12, 7, 5), padding=(4, 2), stride=(2, 1), smooth=False),
    conv("border-channels-last", (3, 12, 8, 8), (20, 12, 5, 7), padding=(2, 3), input_last=True, smooth=False),
    # Pixels whose distance is that of one set of the cache: 4 KB in the compute type, or in pairs of bf16.
    conv("cache-way", (2, 1024, 2, 7), (130, 1024, 1, 1), input_last=True, smooth=False),
    conv("cache-way-pairs", (1, 2048, 2, 3), (130, 2048, 1, 1), input_last=True, smooth=False),
    conv("cache-way-border", (1, 1024, 2, 3), (130, 1024, 3, 1), padding=(1, 0), input_last=True, smooth=False),
    # Winograd's way: ragged tiles, panels and blocks of channels, any padding, groups, layouts; several blocks of tiles.
    conv("winograd-3x3", (5, 32, 15, 17), (48, 32, 3, 3), padding=1, smooth=False),
    conv("winograd-3x3-no-padding", (5, 40, 16, 14), (32, 40, 3, 3), bias=False, smooth=False),
    conv("winograd-3x3-wide-padding", (5, 33, 12, 16), (34, 33, 3, 3), padding=(3, 0), smooth=False),
    conv("winograd-3x3-groups", (6, 64, 16, 14), (64, 32, 3, 3), padding=1, groups=2, smooth=False),
    conv("winograd-3x3-channels-last", (5, 40, 15, 17), (48, 40, 3, 3), padding=1, input_last=True, smooth=False),
    conv("winograd-3x3-long-sums", (8, 150, 8, 8), (48, 150, 3, 3), padding=1, dtypes=SUMMED_IN_F32, smooth=False),
    # Few tiles for many weights, which are then what stays in the caches.
    conv("winograd-3x3-many-out", (3, 48, 8, 8), (456, 24, 3, 3), padding=1, groups=2, smooth=False),
    conv(
        "winograd-3x3-many-in-channels-last", (4, 230, 8, 7), (40, 230, 3, 3), padding=1, input_last=True, smooth=False
    ),
    conv("winograd-3x3-many-channels-last", (4, 40, 7, 8), (240, 40, 3, 3), padding=1, input_last=True, smooth=False),
    conv("winograd-5x5", (9, 18, 13, 8), (33, 18, 5, 5), padding=2, smooth=False),
    conv("winograd-5x5-no-padding", (2, 16, 12, 9), (32, 16, 5, 5), smooth=False),
    conv("winograd-5x5-wide-padding", (2, 32, 9, 10), (20, 32, 5, 5), padding=(4, 3), smooth=False),
    conv("winograd-5x5-channels-last", (9, 16, 12, 12), (24, 16, 5, 5), padding=2, input_last=True, smooth=False),
    conv("winograd-5x5-long-sums", (3, 200, 8, 8), (24, 200, 5, 5), padding=2, dtypes=SUMMED_IN_F32, smooth=False),
    conv("winograd-5x5-few-channels", (9, 3, 20, 18), (70, 3, 5, 5), padding=2, smooth=False),
    conv("winograd-5x5-few-channels-last", (9, 4, 19, 22), (40, 4, 5, 5), padding=2, input_last=True, smooth=False),
    conv("winograd-4x4-few-channels", (5, 6, 13, 22), (34, 3, 4, 4), padding=(1, 2), groups=2, smooth=False),
    conv("winograd-3x3-few-channels", (4, 4, 24, 22), (33, 4, 3, 3), padding=1, smooth=False),
    conv("winograd-4x4", (3, 20, 22, 17), (40, 20, 4, 4), padding=(1, 2), smooth=False),
    conv("winograd-4x4-channels-last", (3, 20, 17, 22), (33, 20, 4, 4), input_last=True, smooth=False),
    conv("winograd-2x2", (4, 48, 30, 31), (48, 48, 2, 2), smooth=False),
    # The same with step 2, by way of the image's phases: odd and even sizes and padding, rows that do not exist.
    conv("strided-7x7", (2, 3, 41, 38), (40, 3, 7, 7), stride=2, padding=3, smooth=False),
    conv(
        "strided-7x7-channels-last",
        (2, 3, 38, 41),
        (40, 3, 7, 7),
        stride=2,
        padding=(3, 2),
        input_last=True,
        smooth=False,
    ),
    conv("strided-5x5", (2, 8, 37, 40), (33, 8, 5, 5), stride=2, padding=2, bias=False, smooth=False),
    conv("strided-8x8", (2, 4, 46, 45), (48, 4, 8, 8), stride=2, padding=3, smooth=False),
    conv("strided-3x3", (4, 33, 34, 30), (40, 33, 3, 3), stride=2, padding=1, smooth=False),
    conv(
        "strided-3x3-channels-last",
        (4, 40, 29, 33),
        (33, 40, 3, 3),
        stride=2,
        padding=(1, 0),
        input_last=True,
        weight_last=True,
        smooth=False,
    ),
    conv("strided-3x3-many-out", (7, 40, 15, 16), (264, 40, 3, 3), stride=2, padding=1, smooth=False),
    conv("strided-4x4", (3, 18, 32, 30), (40, 18, 4, 4), stride=2, padding=1, smooth=False),
    conv("border-5x5", (2, 32, 5, 4), (20, 32, 5, 5), padding=(4, 5), smooth=False),
    Case("conv2d", _winograd_strided, "winograd-strided", gradient=False),
    conv("integers", (2, 3, 6, 7), (4, 3, 3, 3), padding=1, dtypes=INTEGRAL, gradient=False, exact=True),
    conv("integers-depthwise", (2, 4, 6, 7), (4, 1, 3, 3), groups=4, dtypes=INTEGRAL, gradient=False, exact=True),
    conv("large", (8, 16, 28, 28), (40, 16, 3, 3), padding=1, large=True),
    conv("large-one-image", (1, 24, 30, 30), (70, 24, 3, 3), stride=2, padding=1, large=True),
    conv("large-winograd-3x3", (6, 40, 30, 31), (70, 40, 3, 3), padding=1, large=True),
    conv("large-winograd-5x5", (20, 30, 17, 16), (40, 30, 5, 5), padding=2, large=True),
    conv("large-pointwise", (8, 80, 14, 14), (70, 80, 1, 1), large=True),
    conv("large-pointwise-many", (3, 260, 14, 14), (270, 260, 1, 1), large=True),
    conv("large-pointwise-stride", (3, 64, 30, 30), (70, 64, 1, 1), stride=2, large=True),
    conv("large-pointwise-channels-last", (8, 80, 14, 14), (70, 80, 1, 1), input_last=True, large=True),
    conv("large-one-channel", (20, 1, 28, 28), (16, 1, 5, 5), padding=2, large=True),
    conv("large-depthwise", (4, 40, 30, 30), (40, 1, 3, 3), padding=1, groups=40, large=True),
    conv(
        "large-stride-channels-last", (6, 64, 40, 40), (40, 64, 3, 3), stride=2, padding=1, input_last=True, large=True
    ),
    conv(
        "large-wide-padding-channels-last",
        (6, 32, 40, 40),
        (20, 32, 2, 2),
        stride=3,
        padding=4,
        input_last=True,
        large=True,
    ),
    conv("large-channels-last", (6, 16, 28, 28), (40, 16, 3, 3), padding=1, input_last=True, large=True),
    conv(
        "large-channels-last-depthwise",
        (4, 40, 30, 30),
        (40, 1, 3, 3),
        padding=1,
        groups=40,
        input_last=True,
        large=True,
    ),
]
