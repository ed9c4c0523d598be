#!/usr/bin/env bash
# The inner kernels are compiled once per instruction set. An inline function or template that two of those objects share
# is a weak symbol, and the linker keeps one copy: perhaps the AVX-512 one, for every CPU (SIGILL). So: no weak (W, V) and no
# unique (u) symbols in the objects built with instruction-set flags.
# usage: tools/check_symbols.sh [BUILD_FOLDER]        (default: build; build the package first)
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}

# Prints the shared symbols of the objects given; empty when all is well.
shared_symbols() {
  nm -A -C "$@" | grep -E '^[^ ]+:[0-9a-fA-F ]* [WVu] ' || true
}

# First that the check can fail: an inline function that a linker would merge must be found.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf 'inline int shared(int x) { return x + 1; }\nint (*keep)(int) = shared;\n' >"$scratch/weak.cpp"
printf 'namespace { int own(int x) { return x + 1; } }\nint (*keep)(int) = own;\n' >"$scratch/strong.cpp"
for name in weak strong; do "${CXX:-g++}" -O2 -c "$scratch/$name.cpp" -o "$scratch/$name.o"; done
[ -n "$(shared_symbols "$scratch/weak.o")" ] || { echo "check_symbols: the check does not see a weak symbol"; exit 1; }
[ -z "$(shared_symbols "$scratch/strong.o")" ] || { echo "check_symbols: the check sees a weak symbol where none is"; exit 1; }

mapfile -t objects < <(find "$build" -path '*/temp*' -regextype posix-extended \
  -regex '.*/(baseline|avx2|avx512|avx512_bf16)/.*\.o' -not -path '*/sanitize/*' | sort)
kernels=(csrc/cpu/kernels/*.cpp)
expected=${#kernels[@]}
if [ "$(uname -m)" = x86_64 ]; then
  extra=(csrc/cpu/kernels/avx512_bf16/*.cpp)
  expected=$((3 * ${#kernels[@]} + ${#extra[@]}))
fi
if [ "${#objects[@]}" -lt "$expected" ]; then
  echo "check_symbols: ${#objects[@]} objects under $build, expected $expected of the kernel files; build first"
  exit 1
fi
found=$(shared_symbols "${objects[@]}")
if [ -n "$found" ]; then
  echo "check_symbols: these symbols can be merged across instruction sets; give them internal linkage:"
  echo "$found"
  exit 1
fi
echo "check_symbols: ${#objects[@]} objects, no weak symbols"
