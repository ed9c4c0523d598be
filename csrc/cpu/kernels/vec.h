// Vec<T>: one register's worth of T, written with the compiler's vector extensions, so that the same source serves every
// instruction set. Included by kernels only, always inside their anonymous namespace's rules: nothing here may end up as
// a weak symbol, for the linker would then be free to keep the AVX-512 copy for everybody.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TENSOROPS_INLINE inline __attribute__((always_inline))
#define TENSOROPS_LAMBDA_INLINE __attribute__((always_inline))

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct MaskInt;
template <>
struct MaskInt<float> { using type = int32_t; };
template <>
struct MaskInt<double> { using type = int64_t; };
template <>
struct MaskInt<int32_t> { using type = int32_t; };
template <>
struct MaskInt<int64_t> { using type = int64_t; };

template <class T>
struct Native;  // the compiler's vector type
#define TENSOROPS_NATIVE(T) \
  template <>               \
  struct Native<T> { typedef T type __attribute__((vector_size(kVectorBytes))); };
TENSOROPS_NATIVE(float)
TENSOROPS_NATIVE(double)
TENSOROPS_NATIVE(int32_t)
TENSOROPS_NATIVE(int64_t)
#undef TENSOROPS_NATIVE

// The bits of floating numbers, to calculate with: unsigned, as what NaN comes to wraps around.
template <class T>
struct Pattern;
template <>
struct Pattern<float> { typedef uint32_t type __attribute__((vector_size(kVectorBytes))); };
template <>
struct Pattern<double> { typedef uint64_t type __attribute__((vector_size(kVectorBytes))); };

// The result of a comparison: all ones or all zeros per lane of T.
template <class T>
struct Mask {
  using Bits = typename Native<typename MaskInt<T>::type>::type;
  Bits bits;
  TENSOROPS_INLINE Mask operator&(Mask o) const { return {bits & o.bits}; }
  TENSOROPS_INLINE Mask operator|(Mask o) const { return {bits | o.bits}; }
  TENSOROPS_INLINE Mask operator^(Mask o) const { return {bits ^ o.bits}; }
  TENSOROPS_INLINE Mask operator!() const { return {~bits}; }
};

template <class T>
struct Vec {
  using value_type = T;
  using V = typename Native<T>::type;
  static constexpr int size = kVectorBytes / sizeof(T);
  V v;

  TENSOROPS_INLINE Vec() = default;
  TENSOROPS_INLINE Vec(V value) : v(value) {}
  // `value - 0` is `value` for every bit pattern, -0 too, so the compiler is free to broadcast; `0 + value` is not.
  TENSOROPS_INLINE Vec(T value) : v(value - V{}) {}
  // Literals in formulas: `2 * x`, `0.5 * x`.
  template <class Number, class = decltype(static_cast<T>(Number{}))>
  TENSOROPS_INLINE Vec(Number value) : v(static_cast<T>(value) - V{}) {}

  static TENSOROPS_INLINE Vec load(const T* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof(V));
    return r;
  }
  TENSOROPS_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof(V)); }
  // The first n lanes; the others are zero on load and untouched in memory on store.
  static TENSOROPS_INLINE Vec load(const T* p, int64_t n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return Vec((V)_mm512_maskz_loadu_epi32(__mmask16((1u << n) - 1), p));
    else return Vec((V)_mm512_maskz_loadu_epi64(__mmask8((1u << n) - 1), p));
#elif defined(__AVX2__)
    using Bits = typename Mask<T>::Bits;
    Bits lane;
    for (int i = 0; i < size; ++i) lane[i] = i;
    const Bits present = lane < Bits{} + static_cast<typename MaskInt<T>::type>(n);
    if constexpr (sizeof(T) == 4) return Vec((V)_mm256_maskload_epi32(reinterpret_cast<const int*>(p), (__m256i)present));
    else return Vec((V)_mm256_maskload_epi64(reinterpret_cast<const long long*>(p), (__m256i)present));
#else
    T lanes[size] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
#endif
  }
  TENSOROPS_INLINE void store(T* p, int64_t n) const {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_epi32(p, __mmask16((1u << n) - 1), (__m512i)v);
    else _mm512_mask_storeu_epi64(p, __mmask8((1u << n) - 1), (__m512i)v);
#else
    T lanes[size];
    store(lanes);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#endif
  }

  friend TENSOROPS_INLINE Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend TENSOROPS_INLINE Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend TENSOROPS_INLINE Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend TENSOROPS_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  TENSOROPS_INLINE Vec operator-() const { return -v; }
  friend TENSOROPS_INLINE Mask<T> operator==(Vec a, Vec b) { return {a.v == b.v}; }
  friend TENSOROPS_INLINE Mask<T> operator!=(Vec a, Vec b) { return {a.v != b.v}; }
  friend TENSOROPS_INLINE Mask<T> operator<(Vec a, Vec b) { return {a.v < b.v}; }
  friend TENSOROPS_INLINE Mask<T> operator<=(Vec a, Vec b) { return {a.v <= b.v}; }
  friend TENSOROPS_INLINE Mask<T> operator>(Vec a, Vec b) { return {a.v > b.v}; }
  friend TENSOROPS_INLINE Mask<T> operator>=(Vec a, Vec b) { return {a.v >= b.v}; }
};

template <class T>
TENSOROPS_INLINE Vec<T> select(Mask<T> m, Vec<T> a, Vec<T> b) {
  return Vec<T>(m.bits ? a.v : b.v);
}
// The literal branches of `select(x > 0, x, 0)`.
template <class T, class N>
TENSOROPS_INLINE Vec<T> select(Mask<T> m, Vec<T> a, N b) { return select(m, a, Vec<T>(b)); }
template <class T, class N>
TENSOROPS_INLINE Vec<T> select(Mask<T> m, N a, Vec<T> b) { return select(m, Vec<T>(a), b); }

// The lower and the upper half of the lanes in f64. Of __builtin_convertvector GCC makes conversions of two lanes each.
struct Halves {
  Vec<double> low, high;
};
TENSOROPS_INLINE Halves widen(Vec<float> x) {
  using V = Native<double>::type;
#if defined(__AVX512F__)
  const __m512 v = (__m512)x.v;
  return {Vec<double>((V)_mm512_cvtps_pd(_mm512_castps512_ps256(v))),
          Vec<double>((V)_mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)))};
#elif defined(__AVX2__)
  const __m256 v = (__m256)x.v;
  return {Vec<double>((V)_mm256_cvtps_pd(_mm256_castps256_ps128(v))),
          Vec<double>((V)_mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)))};
#else
  return {Vec<double>(V{x.v[0], x.v[1]}), Vec<double>(V{x.v[2], x.v[3]})};
#endif
}

// Applies a scalar function to every lane: for what has no vector form on this instruction set.
template <class T, class F>
TENSOROPS_INLINE Vec<T> map_lanes(Vec<T> x, F f) {
  T lanes[Vec<T>::size];
  x.store(lanes);
  for (int i = 0; i < Vec<T>::size; ++i) lanes[i] = f(lanes[i]);
  return Vec<T>::load(lanes);
}
template <class T, class F>
TENSOROPS_INLINE Vec<T> map_lanes(Vec<T> x, Vec<T> y, F f) {
  T a[Vec<T>::size], b[Vec<T>::size];
  x.store(a);
  y.store(b);
  for (int i = 0; i < Vec<T>::size; ++i) a[i] = f(a[i], b[i]);
  return Vec<T>::load(a);
}

// a * b + c, rounded once where the instruction set has FMA.
template <class T>
TENSOROPS_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && T(0.5) != 0) return Vec<T>((typename Native<T>::type)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
  if constexpr (sizeof(T) == 8 && T(0.5) != 0) return Vec<T>((typename Native<T>::type)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v));
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4 && T(0.5) != 0) return Vec<T>((typename Native<T>::type)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
  if constexpr (sizeof(T) == 8 && T(0.5) != 0) return Vec<T>((typename Native<T>::type)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v));
#endif
  return a * b + c;
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
