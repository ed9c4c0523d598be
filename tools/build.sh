#!/usr/bin/env bash
# Builds the package beside any other build: into FOLDER, with its log in FOLDER/build.log. Shows the build's decisions and
# errors, and prints on its last line the path to import it from.
# usage: tools/build.sh FOLDER        (PYTHON=… picks the interpreter; setup.py's environment variables apply)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
mkdir -p "$folder"
if ! "${PYTHON:-python3}" setup.py -q build -b "$folder" >"$folder/build.log" 2>&1; then
  grep -E 'tensorops: | error: |Error|undefined' "$folder/build.log" >&2 || true
  echo "build failed; the whole log: $folder/build.log" >&2
  exit 1
fi
grep -oE 'tensorops: .*' "$folder/build.log" >&2
library=("$folder"/lib*/tensorops/_C*.so)
[ ${#library[@]} -eq 1 ] || { echo "expected one library in $folder, found ${library[*]}" >&2; exit 1; }
realpath "$folder"/lib*
