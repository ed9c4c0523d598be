// The functions that elementwise formulas are written with, over Vec<T>. The integer overloads exist for the ops that
// torch defines on integers. Where Sleef's transcendentals, inside libtorch_cpu, cost more than the memory traffic of the op,
// vec_math_*.h have our own: plain Vec arithmetic, the same on every instruction set, inlined into the formula around it. The
// others are Sleef's on AVX2 and AVX-512, and on the baseline libm's, lane by lane.
//
// Coefficients of our own, highest power first: minimax fits (Lawson-weighted least squares on Chebyshev nodes) by
// tools/fit_polynomials.py, which prints them. The errors stated are the largest found by tests/test_math_ulp.py and its like:
// in f32 over all floats, in f64 against 80-bit arithmetic at four million points.
#pragma once

#include <math.h>

#include "cpu/kernels/vec_basic.h"
#include "cpu/kernels/vec_math_erf.h"
#include "cpu/kernels/vec_math_exp.h"
#include "cpu/kernels/vec_math_log.h"
#include "cpu/kernels/vec_math_pow.h"
#include "cpu/kernels/vec_math_trig.h"

#if defined(__AVX2__)
#include <sleef.h>
#endif

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

#if defined(__AVX512F__)
#define TENSOROPS_SLEEF(name, ulp, x)                                                     \
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)Sleef_##name##f16_##ulp##avx512f((__m512)x.v)); \
  else return Vec<T>((typename Native<T>::type)Sleef_##name##d8_##ulp##avx512f((__m512d)x.v));
#define TENSOROPS_SLEEF2(name, ulp, x, y)                                                                 \
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)Sleef_##name##f16_##ulp##avx512f((__m512)x.v, (__m512)y.v)); \
  else return Vec<T>((typename Native<T>::type)Sleef_##name##d8_##ulp##avx512f((__m512d)x.v, (__m512d)y.v));
#elif defined(__AVX2__)
#define TENSOROPS_SLEEF(name, ulp, x)                                                   \
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)Sleef_##name##f8_##ulp##avx2((__m256)x.v)); \
  else return Vec<T>((typename Native<T>::type)Sleef_##name##d4_##ulp##avx2((__m256d)x.v));
#define TENSOROPS_SLEEF2(name, ulp, x, y)                                                               \
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)Sleef_##name##f8_##ulp##avx2((__m256)x.v, (__m256)y.v)); \
  else return Vec<T>((typename Native<T>::type)Sleef_##name##d4_##ulp##avx2((__m256d)x.v, (__m256d)y.v));
#else
#define TENSOROPS_SLEEF(name, ulp, x) \
  return map_lanes(x, [](T a) { return sizeof(T) == 4 ? T(::name##f(a)) : T(::name(a)); });
#define TENSOROPS_SLEEF2(name, ulp, x, y) \
  return map_lanes(x, y, [](T a, T b) { return sizeof(T) == 4 ? T(::name##f(a, b)) : T(::name(a, b)); });
#endif

#define TENSOROPS_UNARY_MATH(name, ulp)            \
  template <class T>                               \
  TENSOROPS_INLINE Vec<T> name(Vec<T> x) {         \
    TENSOROPS_SLEEF(name, ulp, x)                  \
  }
TENSOROPS_UNARY_MATH(exp2, u10)
TENSOROPS_UNARY_MATH(log2, u10)
TENSOROPS_UNARY_MATH(log10, u10)
TENSOROPS_UNARY_MATH(sin, u10)
TENSOROPS_UNARY_MATH(cos, u10)
TENSOROPS_UNARY_MATH(tan, u10)
TENSOROPS_UNARY_MATH(asin, u10)
TENSOROPS_UNARY_MATH(acos, u10)
TENSOROPS_UNARY_MATH(atan, u10)
#if !defined(__FMA__)
TENSOROPS_UNARY_MATH(erfc, u15)
#endif
#undef TENSOROPS_UNARY_MATH

#if defined(__FMA__)
// Far from zero, pi takes more digits than the polynomials' reduction has.
TENSOROPS_INLINE Vec<float> sin(Vec<float> x) {
  return __builtin_expect(any(abs(x) > kFarFromZero), 0) ? sin<float>(x) : sin_near_zero(x);
}
TENSOROPS_INLINE Vec<float> cos(Vec<float> x) {
  return __builtin_expect(any(abs(x) > kFarFromZero), 0) ? cos<float>(x) : cos_near_zero(x);
}
#endif

template <class T>
TENSOROPS_INLINE Vec<T> atan2(Vec<T> x, Vec<T> y) {
  TENSOROPS_SLEEF2(atan2, u10, x, y)
}
// Integers: torch multiplies by squaring with wrap-around; a negative exponent is refused before the kernel runs,
// except for bases 1 and -1.
template <class T>
TENSOROPS_INLINE T integer_power(T base, T exponent) {
  if (exponent < 0) {
    if (base == 1) return 1;
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
    return 0;
  }
  uint64_t result = 1, factor = static_cast<uint64_t>(base), n = static_cast<uint64_t>(exponent);
  for (; n != 0; n >>= 1, factor *= factor)
    if (n & 1) result *= factor;
  return static_cast<T>(result);
}
template <class T>
TENSOROPS_INLINE Vec<T> pow(Vec<T> x, Vec<T> y) {
  if constexpr (is_floating<T>) {
    TENSOROPS_SLEEF2(pow, u10, x, y)
  } else {
    return map_lanes(x, y, [](T a, T b) { return integer_power(a, b); });
  }
}
// Exact for every pair, as C's fmod is; the sign is the dividend's. Integers: zero divisors are refused by the caller; the
// padding of a tail may hold some.
template <class T>
TENSOROPS_INLINE Vec<T> fmod(Vec<T> x, Vec<T> y) {
  if constexpr (is_floating<T>) {
#if defined(__FMA__)
    // The remainder of a rounded quotient has no more digits than T, and a quotient that has no more either is 1 too far from
    // zero at most: the remainder is then negative. Quotients that have more leave what is 2^23 or 2^52 times as small.
    constexpr T limit = sizeof(T) == 4 ? 0x1p23 : 0x1p52, infinity = __builtin_inf();
    const Vec<T> divisor = abs(y);
    Vec<T> rest = abs(x), quotient = rest / divisor;
    if (__builtin_expect(all((quotient < infinity) & (divisor < infinity)), 1)) {
      for (;;) {
        quotient = trunc(quotient);
        rest = fma(-quotient, divisor, rest);
        if (__builtin_expect(all(abs(quotient) < limit), 1)) break;
        quotient = rest / divisor;
      }
      return copysign(select(rest < 0, rest + divisor, rest), x);
    }
#endif
    return map_lanes(x, y, [](T a, T b) { return sizeof(T) == 4 ? T(::fmodf(a, b)) : T(::fmod(a, b)); });
  } else {
    return map_lanes(x, y, [](T a, T b) { return b == 0 || b == -1 ? T(0) : T(a % b); });
  }
}

#undef TENSOROPS_SLEEF
#undef TENSOROPS_SLEEF2

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
