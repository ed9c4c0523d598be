#!/usr/bin/env bash
# The source distribution is whole: every tracked source is in it, byte for byte, and its setup.py runs where there is no git.
# A wheel is what comes of compiling it, which is compiling the tree once more: not done again here.
# usage: tools/check_sdist.sh        (PYTHON=… picks the interpreter that has torch and build; run it in a git checkout)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=$(command -v "${PYTHON:-python3}")
[[ $PYTHON = /* ]] || PYTHON=$PWD/$PYTHON
folder=build/sdist
rm -rf "$folder"
"$PYTHON" -m build --sdist --no-isolation -o "$folder" . >/dev/null
archive=("$folder"/tensorops-*.tar.gz)
tar -xzf "${archive[0]}" -C "$folder"
tree=${archive[0]%.tar.gz}
missing=$(git ls-files csrc python tests examples benchmarks tools setup.py pyproject.toml README.md LICENSE Makefile requirements.txt |
  while read -r file; do cmp -s "$file" "$tree/$file" || echo "$file"; done)
[ -z "$missing" ] || { echo "check_sdist: not in the source distribution, or not the same:"; echo "$missing"; exit 1; }

(cd "$tree" && GIT_DIR=/nonexistent TENSOROPS_CUDA=0 "$PYTHON" setup.py -q build_py -d ../built 2>/dev/null)
for file in tensorops/__init__.py tensorops/nn/functional.py tensorops/py.typed tensorops/_C.pyi; do
  [ -e "$folder/built/$file" ] || { echo "check_sdist: $file would not be installed"; exit 1; }
done
echo "check_sdist: all tracked sources are in it, and it can be built from"
