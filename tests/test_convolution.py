"""The convolution family: what is asked of every case, over its table."""

import os
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
import tensorops.nn.functional as F
import torch
from torch import Tensor

from tests.generic import *  # noqa: F403
from tests.harness import CUDA_OR_EMULATED, EMULATED_CUDA, needs_tf32, rounded_to_tf32, tf32

FAMILY = "convolution"


@pytest.mark.cuda
@needs_tf32
def test_tf32_when_allowed() -> None:
    """cudnn.allow_tf32 rounds the factors of a float32 convolution, and nothing else."""
    x, w = torch.randn(2, 16, 9, 8), torch.randn(12, 16, 3, 3)
    results = []
    for allowed in (False, True):
        with tf32(torch.backends.cudnn, allowed):
            results.append(F.conv2d(x.to(CUDA_OR_EMULATED), w.to(CUDA_OR_EMULATED), padding=1).cpu().double())
    expected = [
        torch.nn.functional.conv2d(a.double(), b.double(), padding=1)
        for a, b in ((x, w), (rounded_to_tf32(x), rounded_to_tf32(w)))
    ]
    for result, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(result, exact, rtol=0, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_winograd_can_be_turned_off(wanted: str) -> None:
    """A large pixel changes what is rounded off its neighbours' results, out of its taps' reach, in Winograd's way alone."""
    program = """
import tensorops, torch
x, w = torch.randn(4, 32, 16, 16), torch.randn(32, 32, 3, 3)
plain = tensorops.conv2d(x, w, padding=1)
x[:, :, 5, 5] = 1e6
print(torch.equal(plain[:, :, 7:], tensorops.conv2d(x, w, padding=1)[:, :, 7:]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TENSOROPS_WINOGRAD": wanted},
        capture_output=True,
        text=True,
        check=False,
    )
    has_winograd = not EMULATED_CUDA and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert ran.stdout.split() == [str(wanted == "0" or not has_winograd)], ran.stderr


@pytest.mark.skipif(EMULATED_CUDA, reason="the emulated CUDA kernels know no Winograd")
def test_winograd_at_sizes_where_it_does_not_pay() -> None:
    """All cases of its own in float32, and sizes drawn at random; which of them pay changes with what was measured."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--no-header",
        __file__,
    ]
    command += ["-k", "drawn or ((winograd- or strided-) and (forward or gradient))"]
    ran = subprocess.run(
        command,
        env=os.environ | {"TENSOROPS_WINOGRAD": "always", "TENSOROPS_TEST_FEW_DTYPES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 3e38])
@pytest.mark.parametrize(
    ("inner", "outer", "width", "column", "stride"),
    [(24, 40, 16, 6, 1), (3, 40, 16, 6, 1), (2, 5, 28, 0, 1), (24, 40, 16, 6, 2)],
    ids=["winograd", "winograd of few", "few channels", "phases"],
)
def test_an_extreme_pixel_reaches_only_its_neighbours(
    taps: int, value: float, inner: int, outer: int, width: int, column: int, stride: int
) -> None:
    """Winograd's transforms mix the pixels of a tile; what is not finite, or overflows there, must not spread further than
    in the sum over taps: in the result, in the input's gradient, and in the weight's. Nor may lanes behind a row's end."""
    generator = torch.Generator().manual_seed(0)
    padding = taps // 2
    x = torch.randn(6, inner, 16, width, generator=generator, requires_grad=True)
    w = torch.randn(outer, inner, taps, taps, generator=generator, requires_grad=True)
    grad = torch.randn(6, outer, 16 // stride, width // stride, generator=generator)
    with torch.no_grad():
        x[1, 1, 5, column] = value
        # Nearer to the border its product with the zeros there is NaN, as in im2col.
        grad[2, 3, 8 // stride, 3] = value

    def results(conv2d: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        result = conv2d(x.to(dtype), w.to(dtype), stride=stride, padding=padding)
        return [result.detach(), *torch.autograd.grad(result, (x, w), grad.to(dtype))]

    for ours_, torchs in zip(
        results(F.conv2d, torch.float32), results(torch.nn.functional.conv2d, torch.float32), strict=True
    ):
        assert torch.equal(ours_.isfinite(), torchs.isfinite())
        finite = torchs.isfinite()
        assert bool(finite.any())
        scale = torchs[finite].abs()
        assert bool(((ours_[finite] - torchs[finite]).abs() <= 1e-3 + 1e-5 * scale).all())


@pytest.mark.parametrize("seed", range(4))
def test_drawn_sizes(seed: int) -> None:
    """Each way of convolving takes what it is right for alone, whatever the sizes: all is compared with torch in f64."""
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5 if EMULATED_CUDA else 100):
        groups = dice.choice([1, 1, 1, 2, 3])
        inner, outer = dice.choice([1, 3, 4, 15, 16, 17, 32, 33]), dice.choice([1, 3, 8, 16, 17, 33, 64])
        kernel = dice.choice([(1, 1), (2, 2), (3, 3), (3, 3), (4, 4), (5, 5), (7, 7), (3, 5), (1, 3)])
        stride, dilation = dice.choice([(1, 1), (2, 2), (2, 2), (2, 1), (3, 2)]), dice.choice([(1, 1), (1, 1), (2, 3)])
        padding = (dice.randint(0, kernel[0]), dice.randint(0, kernel[1]))
        size = [dice.randint(d * (k - 1) + 1, d * (k - 1) + 24) for d, k in zip(dilation, kernel, strict=True)]
        x = torch.randn(dice.randint(1, 6), groups * inner, *size, generator=generator)
        w = torch.randn(groups * outer, inner, *kernel, generator=generator)
        if dice.random() < 0.4:
            x = x.contiguous(memory_format=torch.channels_last)
        kwargs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        results = []
        for conv2d, dtype in ((F.conv2d, torch.float32), (torch.nn.functional.conv2d, torch.float64)):
            inputs = [t.to(dtype).requires_grad_() for t in (x, w)]
            result = conv2d(*inputs, **kwargs)
            grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(seed))
            results.append([result.detach(), *torch.autograd.grad(result, inputs, grad.to(dtype))])
        for name, mine, exact in zip(("result", "input's", "weight's"), *results, strict=True):
            error = float((mine.double() - exact).abs().max())
            assert error <= 1e-5 * max(1.0, float(exact.abs().max())), (name, x.shape, w.shape, kwargs)
