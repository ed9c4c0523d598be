#!/usr/bin/env bash
# All that a machine with an NVIDIA GPU can show, in one command: the build for this GPU, the tests marked `cuda`,
# compute-sanitizer's memcheck and racecheck on a part of them, and the benchmarks as JSON. It goes on after a failure, so
# that one visit to such a machine tells everything, and exits with 1 if any part failed.
# usage: tools/gpu_check.sh        (PYTHON=… an interpreter with a CUDA build of torch, pytest and hypothesis;
#                                   results go to $OUT, by default benchmarks/results)
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
out=${OUT:-benchmarks/results}
mkdir -p "$out"
failed=()

# step NAME COMMAND…: runs it with its output in $out/NAME.log as well, and notes a failure.
step() {
  local name=$1 started=$SECONDS
  shift
  echo "== $name"
  if "$@" 2>&1 | tee "$out/$name.log"; then
    echo "== $name passed in $((SECONDS - started)) s"
  else
    failed+=("$name")
    echo "== $name FAILED after $((SECONDS - started)) s"
  fi
}

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  { echo "gpu_check: $PYTHON's torch sees no GPU"; exit 1; }
CUDA_HOME=$(tools/cuda_home.sh) || { echo "gpu_check: no CUDA toolkit: set CUDA_HOME, or put nvcc on PATH"; exit 1; }
export CUDA_HOME TENSOROPS_CUDA=1
export PYTHON
step build tools/build.sh build/gpu
PYTHONPATH=$(tail -n 1 "$out/build.log")
export PYTHONPATH
[ -d "$PYTHONPATH/tensorops" ] || { echo "gpu_check: nothing was built"; exit 1; }
step info "$PYTHON" -m tensorops.info
step tests "$PYTHON" -m pytest -q -p no:cacheprovider -m cuda
sanitizer=$(command -v compute-sanitizer || echo "$CUDA_HOME/bin/compute-sanitizer")
# The caching allocator would hide overruns between tensors of one block.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
for tool in memcheck racecheck; do
  step "$tool" "$sanitizer" --tool "$tool" --error-exitcode 1 --print-limit 20 \
    "$PYTHON" -m pytest -q -p no:cacheprovider -m cuda -k "${SANITIZE_TESTS:-test_forward}"
done
unset PYTORCH_NO_CUDA_MEMORY_CACHING
step benchmarks "$PYTHON" -m benchmarks --device cuda --json "$out/gpu.json"

echo "commit $(git rev-parse HEAD 2>/dev/null || echo unknown), $("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())')"
[ ${#failed[@]} -eq 0 ] && { echo "gpu_check: all passed"; exit 0; }
echo "gpu_check: failed: ${failed[*]}"
exit 1
