#!/usr/bin/env bash
# Runs tests, spread over the cores. Their processes share the cores, so that one which waits must not spin (OMP_WAIT_POLICY):
# on 2 cores that is twice the time (csrc/README.md).
# usage: tools/test.sh [PYTEST ARGUMENTS]        (PYTHON=… picks the interpreter that has torch and pytest)
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive
exec "${PYTHON:-python3}" -m pytest -q -n auto --maxprocesses 8 --dist worksteal "$@"
