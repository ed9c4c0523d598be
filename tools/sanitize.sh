#!/usr/bin/env bash
# AddressSanitizer and UBSan over the kernels: builds the package with both into build/sanitize and runs a part of the tests
# on that build. An out-of-bounds read, a misaligned access or a signed overflow ends the run.
# usage: tools/sanitize.sh [PYTEST ARGUMENTS]        (PYTHON=… picks the interpreter that has torch and pytest)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null || { echo "sanitize: no $PYTHON; set PYTHON"; exit 1; }
PYTHON=$(command -v "$PYTHON")
# What runs kernels; compilers, numerical Jacobians and whole training runs would take hours and show nothing more. The
# build instruments the best instruction set alone.
[ $# -gt 0 ] || set -- -m "not cuda" -k "not (gradcheck or opcheck or compile or reproducible or ulp or benchmarks or demo or instruction_set)"

export PYTHON TENSOROPS_SANITIZE=address,undefined TENSOROPS_CUDA=0
PYTHONPATH=$(tools/build.sh build/sanitize)
export PYTHONPATH
[[ $(nm -D "$PYTHONPATH"/tensorops/_C*.so) == *__asan_load* ]] || { echo "sanitize: the build is not instrumented"; exit 1; }

# The interpreter is not instrumented: the runtimes are loaded before it, and libstdc++ with them, so that exceptions are
# intercepted. Python never frees everything, hence no leak check; our caching allocator would hide overruns.
runtime() { "${CXX:-g++}" -print-file-name="$1"; }
export LD_PRELOAD="$(runtime libasan.so) $(runtime libubsan.so) $(runtime libstdc++.so.6)"
export TENSOROPS_CACHE_LIMIT=0 TENSOROPS_TEST_FEW_DTYPES=1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:halt_on_error=1:abort_on_error=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1
export PYTHONMALLOC=malloc

# First that it can fail: a kernel reads, and one writes, vectors of an array that is said to be 4 bytes longer than it is.
overrun='
import sys, numpy, torch, tensorops
def array(n): return torch.from_numpy(numpy.lib.stride_tricks.as_strided(numpy.ones(n, numpy.float32), (4096,)))
end = 4096 - int(sys.argv[2])
tensorops.exp(array(end if sys.argv[1] == "read" else 4096), out=array(end if sys.argv[1] == "write" else 4096))
'
for access in read write; do
  "$PYTHON" -c "$overrun" $access 0
  if report=$("$PYTHON" -c "$overrun" $access 1 2>&1) || [[ $report != *AddressSanitizer*"${access^^} of size"* ]]; then
    echo "sanitize: a $access past the end went unnoticed; the sanitizer is not active"
    exit 1
  fi
done
# The reports go to the standard error of the process, which pytest must leave alone; the abort shows the Python stack.
exec tools/test.sh --capture=sys -p no:cacheprovider "$@"
