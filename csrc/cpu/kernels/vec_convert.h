// One register's worth of a compute type from storage and back.
#pragma once

#include "cpu/kernels/convert.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

template <class S, int N>
struct Packed { typedef S type __attribute__((vector_size(N * sizeof(S)))); };

template <class C, class S>
TENSOROPS_INLINE Vec<C> load_vec(const S* p) {
  constexpr int N = Vec<C>::size;
  using Native = typename Vec<C>::V;
  if constexpr (__is_same(S, C)) {
    return Vec<C>::load(p);
  } else if constexpr (__is_same(S, BFloat16)) {
    typename Packed<uint16_t, N>::type bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    return Vec<C>((Native)(__builtin_convertvector(bits, typename Packed<uint32_t, N>::type) << 16));
  } else if constexpr (__is_same(S, Half)) {
#if defined(__AVX512F__)
    return Vec<C>((Native)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
    return Vec<C>((Native)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    C lanes[N];
    for (int i = 0; i < N; ++i) lanes[i] = to_float(p[i]);
    return Vec<C>::load(lanes);
#endif
  } else {
    typename Packed<S, N>::type packed;
    __builtin_memcpy(&packed, p, sizeof(packed));
    return Vec<C>(__builtin_convertvector(packed, Native));
  }
}

template <class S, class C>
TENSOROPS_INLINE void store_vec(Vec<C> x, S* p) {
  constexpr int N = Vec<C>::size;
  if constexpr (__is_same(S, C)) {
    x.store(p);
  } else if constexpr (__is_same(S, BFloat16)) {
    // Round to nearest even; NaN becomes the quiet NaN that torch stores.
    using Bits = typename Packed<uint32_t, N>::type;
    const Bits bits = (Bits)x.v;
    const Bits rounded = (bits + (((bits >> 16) & 1u) + 0x7fffu)) >> 16;
    const Bits kept = (Bits)(x != x).bits ? Bits{} + 0x7fc0u : rounded;
    const auto packed = __builtin_convertvector(kept, typename Packed<uint16_t, N>::type);
    __builtin_memcpy(p, &packed, sizeof(packed));
  } else if constexpr (__is_same(S, Half)) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph((__m512)x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)x.v, _MM_FROUND_TO_NEAREST_INT));
#else
    C lanes[N];
    x.store(lanes);
    for (int i = 0; i < N; ++i) p[i] = to_half(lanes[i]);
#endif
  } else {
    const auto packed = __builtin_convertvector(x.v, typename Packed<S, N>::type);
    __builtin_memcpy(p, &packed, sizeof(packed));
  }
}

// The first n lanes; the others are zero on load and untouched in memory on store.
template <class C, class S>
TENSOROPS_INLINE Vec<C> load_vec(const S* p, int64_t n) {
  S lanes[Vec<C>::size] = {};
  __builtin_memcpy(lanes, p, n * sizeof(S));
  return load_vec<C>(static_cast<const S*>(lanes));
}
template <class S, class C>
TENSOROPS_INLINE void store_vec(Vec<C> x, S* p, int64_t n) {
  S lanes[Vec<C>::size];
  store_vec(x, static_cast<S*>(lanes));
  __builtin_memcpy(p, lanes, n * sizeof(S));
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
