#!/usr/bin/env bash
# The inner kernels are compiled once per instruction set. An inline function or template that two of those objects share
# is a weak symbol, and the linker keeps one copy: perhaps the AVX-512 one, for every CPU (SIGILL). So: no weak (W, V) and no
# unique (u) symbols in the objects built with instruction-set flags.
# usage: tools/check_symbols.sh        (build the package first)
set -euo pipefail
cd "$(dirname "$0")/.."

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

# One object per instruction set and kernel file; those of files that are gone may lie beside them.
objects=()
# expect SET SOURCE…
expect() {
  local set=$1 source object
  shift
  for source in "$@"; do
    object=build/kernels/$set/$(basename "$source" .cpp).o
    [ -e "$object" ] || { echo "check_symbols: there is no $object; build first"; exit 1; }
    objects+=("$object")
  done
}
expect baseline csrc/cpu/kernels/*.cpp
if [ "$(uname -m)" = x86_64 ]; then
  expect avx2 csrc/cpu/kernels/*.cpp
  expect avx512 csrc/cpu/kernels/*.cpp
  expect avx512_bf16 csrc/cpu/kernels/avx512_bf16/*.cpp
fi
found=$(shared_symbols "${objects[@]}")
if [ -n "$found" ]; then
  echo "check_symbols: these symbols can be merged across instruction sets; give them internal linkage:"
  echo "$found"
  exit 1
fi
echo "check_symbols: ${#objects[@]} objects, no weak symbols"
