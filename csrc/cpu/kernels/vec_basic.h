// Functions over Vec<T> that are exact, or rounded once, and what polynomials are written with.
#pragma once

#include "cpu/kernels/vec.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

template <class T>
constexpr bool is_floating = T(0.5) != T(0);

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
// -|x|
template <class T>
TENSOROPS_INLINE Vec<T> minus_abs(Vec<T> x) {
  using Bits = typename Mask<T>::Bits;
  constexpr auto sign = typename MaskInt<T>::type(uint64_t(1) << (8 * sizeof(T) - 1));
  return Vec<T>((typename Native<T>::type)((Bits)x.v | (Bits{} + sign)));
}
// |magnitude| with the sign bit of `sign`.
template <class T>
TENSOROPS_INLINE Vec<T> copysign(Vec<T> magnitude, Vec<T> sign) {
  using Bits = typename Mask<T>::Bits;
  const Bits bit = Bits{} + typename MaskInt<T>::type(uint64_t(1) << (8 * sizeof(T) - 1));
  return Vec<T>((typename Native<T>::type)(((Bits)magnitude.v & ~bit) | ((Bits)sign.v & bit)));
}
// a > b ? a : b and a < b ? a : b, which is what the instructions give. GCC does not find them.
#if defined(__AVX512F__)
#define TENSOROPS_BEYOND(operation, name)                                                                       \
  if constexpr (__is_same(T, float)) return Vec<T>((decltype(a.v))_mm512_##name##_ps((__m512)a.v, (__m512)b.v)); \
  else if constexpr (__is_same(T, double)) return Vec<T>((decltype(a.v))_mm512_##name##_pd((__m512d)a.v, (__m512d)b.v)); \
  else return select(a operation b, a, b);
#elif defined(__AVX2__)
#define TENSOROPS_BEYOND(operation, name)                                                                       \
  if constexpr (__is_same(T, float)) return Vec<T>((decltype(a.v))_mm256_##name##_ps((__m256)a.v, (__m256)b.v)); \
  else if constexpr (__is_same(T, double)) return Vec<T>((decltype(a.v))_mm256_##name##_pd((__m256d)a.v, (__m256d)b.v)); \
  else return select(a operation b, a, b);
#else
#define TENSOROPS_BEYOND(operation, name) return select(a operation b, a, b);
#endif
template <class T>
TENSOROPS_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) { TENSOROPS_BEYOND(>, max) }
template <class T>
TENSOROPS_INLINE Vec<T> smaller(Vec<T> a, Vec<T> b) { TENSOROPS_BEYOND(<, min) }
#undef TENSOROPS_BEYOND

// NaN in either argument wins, as in torch; of equal arguments, zeros of either sign, the first.
template <class T>
TENSOROPS_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) {
  if constexpr (is_floating<T>) return select(isnan(b), b, larger(b, a));
  else return larger(b, a);
}
template <class T>
TENSOROPS_INLINE Vec<T> minimum(Vec<T> a, Vec<T> b) {
  if constexpr (is_floating<T>) return select(isnan(b), b, smaller(b, a));
  else return smaller(b, a);
}
// A constant b, which is not NaN.
template <class T, class N>
TENSOROPS_INLINE Vec<T> maximum(Vec<T> a, N b) { return larger(Vec<T>(b), a); }
template <class T, class N>
TENSOROPS_INLINE Vec<T> minimum(Vec<T> a, N b) { return smaller(Vec<T>(b), a); }

template <class T>
TENSOROPS_INLINE bool all(Mask<T> m) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)m.bits) == 0xffff;
  else return _mm512_movepi64_mask((__m512i)m.bits) == 0xff;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)m.bits) == -1;
#else
  typename MaskInt<T>::type together = -1;
  for (int i = 0; i < Vec<T>::size; ++i) together &= m.bits[i];
  return together == -1;
#endif
}
template <class T>
TENSOROPS_INLINE bool any(Mask<T> m) { return !all(!m); }

// By the sign bit of x. GCC 12 does not see that the blend looks at nothing else.
template <class T>
TENSOROPS_INLINE Vec<T> select_by_sign(Vec<T> x, Vec<T> negative, Vec<T> positive) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  using V = typename Native<T>::type;
  if constexpr (__is_same(T, float)) return Vec<T>((V)_mm256_blendv_ps((__m256)positive.v, (__m256)negative.v, (__m256)x.v));
  if constexpr (__is_same(T, double)) return Vec<T>((V)_mm256_blendv_pd((__m256d)positive.v, (__m256d)negative.v, (__m256d)x.v));
#endif
  return select(Mask<T>{(typename Mask<T>::Bits)x.v < 0}, negative, positive);
}

// 1 where the mask holds, else 0: how predicates leave a kernel.
template <class T>
TENSOROPS_INLINE Vec<T> indicator(Mask<T> m) { return select(m, Vec<T>(1), Vec<T>(0)); }

using FloatBits = Mask<float>::Bits;
using DoubleBits = Mask<double>::Bits;

// A long one as two chains, of even and of odd powers: the core does not see far enough to hide the latency of one. (And GCC
// would leave its loop a loop.)
template <class T, int N>
TENSOROPS_INLINE Vec<T> polynomial(Vec<T> x, const T (&coefficients)[N]) {
  constexpr int kChains = N > 16 ? 2 : 1;
  const Vec<T> step = kChains == 2 ? x * x : x;
  Vec<T> p[2] = {coefficients[0], coefficients[kChains - 1]};
  for (int c = 0; c < kChains; ++c)
    for (int i = c + kChains; i < N; i += kChains) p[c] = fma(p[c], step, Vec<T>(coefficients[i]));
  if constexpr (kChains == 1) return p[0];
  constexpr int kOdd = N % 2;  // the chain of the odd powers
  return fma(p[kOdd], x, p[1 - kOdd]);
}

template <class T>
TENSOROPS_INLINE Vec<T> clamp(Vec<T> x, T low, T high) {
  return maximum(minimum(x, high), low);  // NaN stays
}

// Half to even; |x| is below 2^22.
template <class T>
TENSOROPS_INLINE Vec<T> round_to_integer(Vec<T> x) {
#if defined(__AVX2__)
  return round(x);
#else
  const T magic = sizeof(T) == 4 ? T(0x1.8p23) : T(0x1.8p52);  // adding it leaves no fraction bits
  return (x + magic) - magic;
#endif
}

// 2^n for integral n, where that is a normal number.
template <class T>
TENSOROPS_INLINE Vec<T> power_of_two(Vec<T> n) {
  using Bits = typename Pattern<T>::type;
  const Vec<T> biased = n + T(sizeof(T) == 4 ? 0x1.8p23 + 127 : 0x1.8p52 + 1023);  // its lowest bits: AVX2 converts no 64-bit ones
  return Vec<T>((typename Native<T>::type)((Bits)biased.v << (sizeof(T) == 4 ? 23 : 52)));
}

// x * 2^n for integral n, |n| <= 200 in f32 and 1500 in f64: in two steps, so that subnormal and overflowing results round
// once.
TENSOROPS_INLINE Vec<float> scale_by_power_of_two(Vec<float> x, Vec<float> n) {
#if defined(__AVX512F__)
  return Vec<float>((Native<float>::type)_mm512_scalef_ps((__m512)x.v, (__m512)n.v));
#else
  const FloatBits whole = __builtin_convertvector(n.v, FloatBits), half = whole >> 1;
  const Vec<float> first((Native<float>::type)((half + 127) << 23));
  return x * first * Vec<float>((Native<float>::type)((whole - half + 127) << 23));
#endif
}
TENSOROPS_INLINE Vec<double> scale_by_power_of_two(Vec<double> x, Vec<double> n) {
#if defined(__AVX512F__)
  return Vec<double>((Native<double>::type)_mm512_scalef_pd((__m512d)x.v, (__m512d)n.v));
#else
  const Vec<double> half = round_to_integer(n * 0.5);
  return x * power_of_two(half) * power_of_two(n - half);
#endif
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
