#!/usr/bin/env bash
# A second virtual environment with torch 2.11.0, whose wheel is the CUDA 13.0 build and which is also the oldest torch we
# support; prints its path.
# usage: tools/cuda_venv.sh        (PYTHON=… picks the interpreter, CUDA_VENV=… the place)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${CUDA_VENV:-.cuda-venv}
if [ ! -e "$venv/.ready" ] || [ requirements.txt -nt "$venv/.ready" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  sed 's/^torch==.*/torch==2.11.0/' requirements.txt >"$venv/requirements.txt"
  "$venv/bin/pip" install --disable-pip-version-check -q -r "$venv/requirements.txt" >&2
  touch "$venv/.ready"
fi
echo "$venv"
