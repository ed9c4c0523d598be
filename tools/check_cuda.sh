#!/usr/bin/env bash
# The whole CUDA package without a GPU: built against torch 2.11.0 (tools/cuda_venv.sh) with CUDAExtension for sm_80 and sm_90a,
# linked and imported; and the CPU tests run on that build.
# usage: tools/check_cuda.sh [PYTEST ARGUMENTS]        (PYTHON=… picks the interpreter; CUDA_HOME or nvcc on PATH the toolkit)
set -euo pipefail
cd "$(dirname "$0")/.."
CUDA_HOME=$(tools/cuda_home.sh) || { echo "check_cuda: no CUDA toolkit: set CUDA_HOME, or put nvcc on PATH"; exit 1; }
export CUDA_HOME TENSOROPS_CUDA=1 TORCH_CUDA_ARCH_LIST="8.0;9.0a"
[ $# -gt 0 ] || set -- -m "not cuda"

venv=$(tools/cuda_venv.sh)
"$venv/bin/python" -c 'import torch; assert torch.version.cuda, f"torch {torch.__version__} is not a CUDA build"'

PYTHONPATH=$(PYTHON=$venv/bin/python tools/build.sh build/cuda)
export PYTHONPATH
code=$("$venv/bin/python" tools/cuda_architectures.py "$PYTHONPATH"/tensorops/_C*.so)
for arch in sm_80 sm_90a; do
  grep -qx "$arch" <<<"$code" || { echo "check_cuda: no code for $arch, only for: $code"; exit 1; }
done
"$venv/bin/python" -m tensorops.info
PYTHON=$venv/bin/python exec tools/test.sh -p no:cacheprovider "$@"
