"""Every family once more under each instruction set below the best one: results and gradients, f32 and bf16; and the ulps of
our own polynomials.

ATEN_CPU_CAPABILITY is read once per process and lowers torch's kernels too, so the errors compared are of the same level.
oneDNN and MKL, which torch takes for convolutions and products, have switches of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorops
import torch

from tests.harness import FAMILIES

LEVELS = {"default": "baseline", "avx2": "avx2"}
LIBRARIES = {
    "default": {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
ORDER = ("baseline", "avx2", "avx512")
TESTS = dict.fromkeys(FAMILIES, "test_forward or test_gradient") | {"math_ulp": "test"}


@pytest.mark.parametrize("family", TESTS)
@pytest.mark.parametrize("wish", LEVELS)
def test_instruction_set(wish: str, family: str) -> None:
    mine = tensorops._C.cpu_capability()
    if ORDER.index(LEVELS[wish]) >= ORDER.index(mine):
        pytest.skip(f"this process runs {mine} already; {wish} is no lower")
    # Child processes must find the tensorops of this process, installed or not.
    path = os.pathsep.join([str(Path(tensorops.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **LIBRARIES[wish], "ATEN_CPU_CAPABILITY": wish, "PYTHONPATH": path}
    environment["TENSOROPS_TEST_FEW_DTYPES"] = "1"
    script = "import tensorops; print(tensorops._C.cpu_capability(), tensorops._C.has_avx512_bf16())"
    used = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert used.stdout.split() == [LEVELS[wish], "False"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=short", "--no-header"]
    command += [str(Path(__file__).parent / f"test_{family}.py"), "-k", TESTS[family]]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, f"under {wish}, torch {torch.__version__}:\n{run.stdout[-6000:]}{run.stderr[-2000:]}"
