#!/usr/bin/env bash
# Compiles every source that includes torch against the headers of another torch, syntax only: by default the newest
# supported. Its wheel is downloaded without its dependencies.
# usage: tools/check_headers.sh [TORCH_VERSION]        (PYTHON=… picks the interpreter; build the package first)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
version=${1:-2.15.0}
facts=$(find build -name build_facts.h -not -path 'build/sanitize/*' | head -n 1)
[ -n "$facts" ] || { echo "check_headers: no build_facts.h under build; build first"; exit 1; }

folder=build/headers/torch-$version
if [ ! -d "$folder/include" ]; then
  mkdir -p "$folder"
  # A constraint on what pip installs here says nothing of headers that are only read.
  PIP_CONSTRAINT=/dev/null "$PYTHON" -m pip download --disable-pip-version-check -q --no-deps --only-binary=:all: -d "$folder" "torch==$version"
  "$PYTHON" - "$folder" <<'PYTHON'
import pathlib, shutil, sys, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder, [name for name in archive.namelist() if name.startswith("torch/include/")])
(folder / "torch" / "include").rename(folder / "include")
shutil.rmtree(folder / "torch")
wheel.unlink()
PYTHON
fi

flags=(-std=c++20 -fopenmp -Wall -Wno-unused-parameter -DTORCH_EXTENSION_NAME=_C
  -DTORCH_API_INCLUDE_EXTENSION_H -Icsrc -I"$(dirname "$facts")" -isystem "$folder/include"
  -isystem "$folder/include/torch/csrc/api/include"
  -isystem "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')")
[ "$(uname -m)" = x86_64 ] && flags+=(-march=x86-64-v2)
# As in setup.py, torch's headers are parsed once; a compiler that does not know GCC's form of that parses them anew.
printf '#include "%s/csrc/prefix.h"\n' "$PWD" >"$folder/prefix.h"
"${CXX:-g++}" "${flags[@]}" -x c++-header "$folder/prefix.h" -o "$folder/prefix.h.gch"
mapfile -t sources < <(find csrc -name '*.cpp' -not -path 'csrc/cpu/kernels/*' -not -path 'csrc/cuda/*' | sort)
printf '%s\0' "${sources[@]}" |
  xargs -0 -n 1 -P "${MAX_JOBS:-$(nproc)}" "${CXX:-g++}" "${flags[@]}" -fsyntax-only -include "$folder/prefix.h"
echo "check_headers: ${#sources[@]} files compile against torch $version"
