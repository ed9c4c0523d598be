#!/usr/bin/env bash
# Builds the CUDA kernels for the CPU (tools/emulate_cuda.py) into build/emulate and runs the families' tests on them. The
# package itself must have been built (make build).
# f32, bf16 and the integers: in f64 a row of gelu and one of mish stand and fall with the host's libm, which is not CUDA's.
# usage: tools/check_emulated_cuda.sh [PYTEST ARGUMENTS]        (PYTHON=… picks the interpreter that has torch and pytest)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
cuda_home=$(tools/cuda_home.sh) || { echo "check_emulated_cuda: no CUDA toolkit, whose headers it needs"; exit 1; }
# What runs kernels: derivatives, schemas and compilers do not know the device.
[ $# -gt 0 ] || set -- -m "not cuda" -k "not (gradcheck or opcheck or compile or reproducible)"
"$PYTHON" tools/emulate_cuda.py build/emulate --cuda-home "$cuda_home" --jobs "$(nproc)"
export PYTHON TENSOROPS_TEST_EMULATED_CUDA=1 TENSOROPS_TEST_FEW_DTYPES=1 PYTHONPATH=build/emulate
exec tools/test.sh tests/test_{elementwise,matmul,convolution,pooling,reduction,loss}.py "$@"
