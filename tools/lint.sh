#!/usr/bin/env bash
# Style and types: ruff's rules and format over all Python, the stubs of the C functions up to date, mypy over the package.
# usage: tools/lint.sh        (PYTHON=… picks the interpreter that has ruff, mypy and torch)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" tools/make_stubs.py --check
"$PYTHON" -m mypy
