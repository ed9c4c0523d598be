// The functions that elementwise formulas are written with, over Vec<T>. The integer overloads exist for the ops that
// torch defines on integers. Transcendentals come from Sleef (inside libtorch_cpu) on AVX2 and AVX-512, and from libm,
// lane by lane, on the baseline.
#pragma once

#include <math.h>

#include "cpu/kernels/vec.h"
#include "cpu/kernels/vec_math_f32.h"

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
TENSOROPS_UNARY_MATH(exp, u10)
TENSOROPS_UNARY_MATH(exp2, u10)
TENSOROPS_UNARY_MATH(expm1, u10)
TENSOROPS_UNARY_MATH(log, u10)
TENSOROPS_UNARY_MATH(log2, u10)
TENSOROPS_UNARY_MATH(log10, u10)
TENSOROPS_UNARY_MATH(log1p, u10)
TENSOROPS_UNARY_MATH(sin, u10)
TENSOROPS_UNARY_MATH(cos, u10)
TENSOROPS_UNARY_MATH(tan, u10)
TENSOROPS_UNARY_MATH(asin, u10)
TENSOROPS_UNARY_MATH(acos, u10)
TENSOROPS_UNARY_MATH(atan, u10)
TENSOROPS_UNARY_MATH(sinh, u10)
TENSOROPS_UNARY_MATH(cosh, u10)
TENSOROPS_UNARY_MATH(tanh, u10)
TENSOROPS_UNARY_MATH(erf, u10)
TENSOROPS_UNARY_MATH(erfc, u15)
#undef TENSOROPS_UNARY_MATH

template <class T>
constexpr bool is_floating = T(0.5) != T(0);

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
    return map_lanes(x, y, [](T a, T b) { return sizeof(T) == 4 ? T(::fmodf(a, b)) : T(::fmod(a, b)); });
  } else {
    return map_lanes(x, y, [](T a, T b) { return b == 0 || b == -1 ? T(0) : T(a % b); });
  }
}

#undef TENSOROPS_SLEEF
#undef TENSOROPS_SLEEF2

template <class T>
TENSOROPS_INLINE Vec<T> sqrt(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)_mm512_sqrt_ps((__m512)x.v));
  else return Vec<T>((typename Native<T>::type)_mm512_sqrt_pd((__m512d)x.v));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)_mm256_sqrt_ps((__m256)x.v));
  else return Vec<T>((typename Native<T>::type)_mm256_sqrt_pd((__m256d)x.v));
#else
  return map_lanes(x, [](T a) { return sizeof(T) == 4 ? T(__builtin_sqrtf(a)) : T(__builtin_sqrt(a)); });
#endif
}

#if defined(__AVX512F__)
#define TENSOROPS_ROUND(name, mode, libm)                                                             \
  template <class T>                                                                                  \
  TENSOROPS_INLINE Vec<T> name(Vec<T> x) {                                                            \
    if constexpr (!is_floating<T>) return x;                                                          \
    else if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)_mm512_roundscale_ps((__m512)x.v, mode | 8)); \
    else return Vec<T>((typename Native<T>::type)_mm512_roundscale_pd((__m512d)x.v, mode | 8));                          \
  }
#elif defined(__AVX2__)
#define TENSOROPS_ROUND(name, mode, libm)                                                        \
  template <class T>                                                                             \
  TENSOROPS_INLINE Vec<T> name(Vec<T> x) {                                                       \
    if constexpr (!is_floating<T>) return x;                                                     \
    else if constexpr (sizeof(T) == 4) return Vec<T>((typename Native<T>::type)_mm256_round_ps((__m256)x.v, mode | 8)); \
    else return Vec<T>((typename Native<T>::type)_mm256_round_pd((__m256d)x.v, mode | 8));                          \
  }
#else
#define TENSOROPS_ROUND(name, mode, libm)                                          \
  template <class T>                                                               \
  TENSOROPS_INLINE Vec<T> name(Vec<T> x) {                                         \
    if constexpr (!is_floating<T>) return x;                                       \
    else return map_lanes(x, [](T a) { return sizeof(T) == 4 ? T(__builtin_##libm##f(a)) : T(__builtin_##libm(a)); }); \
  }
#endif
TENSOROPS_ROUND(round, 0, nearbyint)  // half to even, as torch
TENSOROPS_ROUND(floor, 1, floor)
TENSOROPS_ROUND(ceil, 2, ceil)
TENSOROPS_ROUND(trunc, 3, trunc)
#undef TENSOROPS_ROUND

template <class T>
TENSOROPS_INLINE Mask<T> isnan(Vec<T> x) { return x != x; }
template <class T>
TENSOROPS_INLINE Vec<T> abs(Vec<T> x) {
  if constexpr (is_floating<T>) {
    using Bits = typename Mask<T>::Bits;
    constexpr auto sign = typename MaskInt<T>::type(uint64_t(1) << (8 * sizeof(T) - 1));
    return Vec<T>((typename Native<T>::type)((Bits)x.v & ~(Bits{} + sign)));
  } else {
    return select(x < 0, -x, x);
  }
}
// |magnitude| with the sign bit of `sign`.
template <class T>
TENSOROPS_INLINE Vec<T> copysign(Vec<T> magnitude, Vec<T> sign) {
  using Bits = typename Mask<T>::Bits;
  const Bits bit = Bits{} + typename MaskInt<T>::type(uint64_t(1) << (8 * sizeof(T) - 1));
  return Vec<T>((typename Native<T>::type)(((Bits)magnitude.v & ~bit) | ((Bits)sign.v & bit)));
}
// NaN in either argument wins, as in torch; of equal arguments, zeros of either sign, the first. Written so that it is one
// instruction where b is a constant.
template <class T>
TENSOROPS_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) {
  if constexpr (is_floating<T>) return select(isnan(b), b, select(b > a, b, a));
  else return select(a > b, a, b);
}
template <class T>
TENSOROPS_INLINE Vec<T> minimum(Vec<T> a, Vec<T> b) {
  if constexpr (is_floating<T>) return select(isnan(b), b, select(b < a, b, a));
  else return select(a < b, a, b);
}
template <class T, class N>
TENSOROPS_INLINE Vec<T> maximum(Vec<T> a, N b) { return maximum(a, Vec<T>(b)); }
template <class T, class N>
TENSOROPS_INLINE Vec<T> minimum(Vec<T> a, N b) { return minimum(a, Vec<T>(b)); }

// 1 where the mask holds, else 0: how predicates leave a kernel.
template <class T>
TENSOROPS_INLINE Vec<T> indicator(Mask<T> m) { return select(m, Vec<T>(1), Vec<T>(0)); }

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
