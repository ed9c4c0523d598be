"""The pooling family: what is asked of every case, over its table."""

import pytest
import tensorops
import torch

from tests.faults import assert_same_refusal
from tests.generic import *  # noqa: F403
from tests.harness import EMULATED_CUDA

FAMILY = "pooling"

IMAGE = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
POOLED, INDICES = torch.nn.functional.max_pool2d(IMAGE, 2, return_indices=True)


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "arguments",
    {
        "no kernel": (0,),
        "negative kernel": (-1,),
        "three numbers": ((2, 2, 2),),
        "kernel beyond the image": (9,),
        "kernel as a float": (2.5,),
        "no stride": (2, 0),
        "negative stride": (2, -1),
        "three strides": (2, (1, 2, 3)),
        "negative padding": (2, 2, -1),
        "padding beyond half a kernel": (3, 2, 2),
    }.items(),
    ids=lambda item: item[0],
)
def test_window_refused(op: str, arguments: tuple[str, tuple]) -> None:
    assert_same_refusal(lambda root: getattr(root.nn.functional, op)(IMAGE, *arguments[1]))


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    "shape", [(), (8,), (8, 8), (1, 2, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (3, 8, 0), (2, 3, 1, 1)], ids=str
)
def test_image_refused(op: str, shape: tuple[int, ...]) -> None:
    assert_same_refusal(lambda root: getattr(root.nn.functional, op)(torch.zeros(shape), 2))


@pytest.mark.parametrize("dilation", [0, -1, (1, 1, 1), 8])
def test_dilation_refused(dilation: int | tuple[int, ...]) -> None:
    assert_same_refusal(lambda root: root.nn.functional.max_pool2d(IMAGE, 2, 1, 0, dilation))


def test_no_divisor() -> None:
    assert_same_refusal(lambda root: root.nn.functional.avg_pool2d(IMAGE, 2, divisor_override=0))


@pytest.mark.parametrize(
    "out",
    {
        "dtype": torch.empty(2, 3, 4, 4, dtype=torch.float64),
        "expanded": torch.empty(4).expand(2, 3, 4, 4),
        "gradient": torch.empty(2, 3, 4, 4, requires_grad=True),
        "device": torch.empty(2, 3, 4, 4, device="meta"),
    }.items(),
    ids=lambda item: item[0],
)
def test_avg_pool2d_refuses_out(out: tuple[str, torch.Tensor]) -> None:
    assert_same_refusal(lambda root: root.nn.functional.avg_pool2d(IMAGE, 2, out=out[1]))


@pytest.mark.parametrize(
    "arguments",
    {
        "int32 indices": (POOLED, INDICES.int(), 2),
        "shape": (POOLED, INDICES[:1], 2),
        "dimensions": (POOLED, INDICES[0], 2),
        "2-d": (POOLED[0, 0], INDICES[0, 0], 2),
        "integers": (POOLED.long(), INDICES, 2),
        "size too small": (POOLED, INDICES, 2, None, 0, (6, 6)),
        "size too large": (POOLED, INDICES, 2, None, 0, (10, 10)),
        "size of one number": (POOLED, INDICES, 2, None, 0, (8,)),
    }.items(),
    ids=lambda item: item[0],
)
def test_max_unpool2d_refuses(arguments: tuple[str, tuple]) -> None:
    assert_same_refusal(lambda root: root.nn.functional.max_unpool2d(*arguments[1]))


@pytest.mark.parametrize("offset", [-100, 1, 2**40])
def test_max_unpool2d_refuses_indices(offset: int) -> None:
    if EMULATED_CUDA:  # the kernel does not tell which, as for labels
        with pytest.raises(IndexError, match="index that is out of bounds"):
            tensorops.nn.functional.max_unpool2d(POOLED, INDICES + offset, 2)
    else:
        assert_same_refusal(lambda root: root.nn.functional.max_unpool2d(POOLED, INDICES + offset, 2))


def test_max_unpool2d_compiles_with_dynamic_shapes() -> None:
    def program(x: torch.Tensor, size: torch.Size | None) -> torch.Tensor:
        unpool = tensorops.nn.functional.max_unpool2d
        return unpool(*tensorops.nn.functional.max_pool2d(x, 2, return_indices=True), 2, output_size=size)

    compiled = torch.compile(program, dynamic=True, fullgraph=True, backend="aot_eager")
    for height in (8, 9, 11):
        x = torch.randn(2, 3, height, height + 2)
        assert torch.equal(compiled(x, x.shape), program(x, x.shape))
        assert torch.equal(compiled(x[..., :8, :6], None), program(x[..., :8, :6], None))


def test_positions_outside_are_dropped() -> None:
    """A position that no window has, or that lies in the padding, must not be written to."""
    ops = torch.ops.tensorops
    grad = torch.ones(1, 1, 4, 4)
    for format in (torch.contiguous_format, torch.channels_last):
        for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (5, 2, 2)):
            position = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8).contiguous(memory_format=format)
            result = ops._max_pool2d_backward(grad, position, [8, 8], [kernel], [stride], [padding], [1])
            assert result.count_nonzero() == 0
            position.zero_()  # the upper left corners, of which those in the padding are dropped
            result = ops._max_pool2d_backward(grad, position, [8, 8], [kernel], [stride], [padding], [1])
            assert result.sum() == (9 if padding else 16)
