"""The convolution family: what is asked of every case, over its table."""

import pytest
import tensorops.nn.functional as F
import torch

from tests.generic import *  # noqa: F403
from tests.harness import CUDA_OR_EMULATED, needs_tf32, rounded_to_tf32, tf32

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
