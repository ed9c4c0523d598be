#include "cpu/capability.h"

#include <cstdlib>
#include <cstring>

namespace tensorops::cpu {
namespace {

Capability supported() {
#if defined(__x86_64__)
  // GCC's builtin asks the OS (XGETBV) as well as the CPU. The lists are what setup.py's flags let the compiler use.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return Capability::avx512;
  if (avx2) return Capability::avx2;
#endif
  return Capability::baseline;
}

Capability resolve() {
  const Capability best = supported();
  const char* wish = std::getenv("ATEN_CPU_CAPABILITY");
  if (wish == nullptr) return best;
  Capability cap = best;
  if (std::strcmp(wish, "default") == 0) cap = Capability::baseline;
  if (std::strcmp(wish, "avx2") == 0) cap = Capability::avx2;
  return cap < best ? cap : best;
}

}  // namespace

Capability capability() {
  static const Capability resolved = resolve();
  return resolved;
}

bool has_avx512_bf16() {
#if defined(__x86_64__)
  static const bool has = capability() == Capability::avx512 && __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

const char* capability_name() {
  switch (capability()) {
    case Capability::avx512:
      return "avx512";
    case Capability::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace tensorops::cpu
