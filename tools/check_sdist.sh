#!/usr/bin/env bash
# The source distribution is whole: every tracked source is in it, and a wheel builds from it.
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
  while read -r file; do [ -e "$tree/$file" ] || echo "$file"; done)
[ -z "$missing" ] || { echo "check_sdist: not in the source distribution:"; echo "$missing"; exit 1; }

echo "check_sdist: building a wheel from ${archive[0]}"
TENSOROPS_CUDA=0 "$PYTHON" -m pip wheel --disable-pip-version-check -q --no-build-isolation --no-deps -w "$folder" "${archive[0]}"
listing=$("$PYTHON" -m zipfile -l "$(echo "$folder"/tensorops-*.whl)")
for file in tensorops/_C. tensorops/__init__.py tensorops/nn/functional.py tensorops/py.typed LICENSE; do
  [[ $listing == *"$file"* ]] || { echo "check_sdist: the wheel has no $file"; exit 1; }
done
echo "check_sdist: all tracked sources are in it, and a wheel builds from it"
