#!/usr/bin/env bash
# Prints the folder of the CUDA toolkit: CUDA_HOME, or where the nvcc on PATH says it lives, or /usr/local/cuda.
# Fails where there is none.
set -uo pipefail
if [ -z "${CUDA_HOME:-}" ]; then
  # nvcc on PATH can be a link or a wrapper script: a dry run tells its real home.
  here=$(nvcc --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^#\$ _HERE_=//p' | head -n 1)
  CUDA_HOME=${here:+$(dirname "$here")}
fi
CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
[ -x "$CUDA_HOME/bin/nvcc" ] && [ -e "$CUDA_HOME/include/cuda_runtime.h" ] && echo "$CUDA_HOME"
