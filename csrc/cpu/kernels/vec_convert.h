// One register's worth of a compute type from storage and back.
#pragma once

#include "cpu/kernels/convert.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// Lane by lane in plain loops, which GCC turns into the widening and narrowing instructions; of __builtin_convertvector
// between registers of different sizes it makes scalar code.
template <class To, class From>
TENSOROPS_INLINE typename Native<To>::type widened(const From* p) {
  To lanes[Vec<To>::size];
  for (int i = 0; i < Vec<To>::size; ++i) lanes[i] = static_cast<To>(p[i]);
  return Vec<To>::load(lanes).v;
}
template <class To, class From>
TENSOROPS_INLINE void narrow(typename Native<From>::type x, To* p) {
  From lanes[Vec<From>::size];
  Vec<From>(x).store(lanes);
  for (int i = 0; i < Vec<From>::size; ++i) p[i] = static_cast<To>(lanes[i]);
}

template <class C, class S>
TENSOROPS_INLINE Vec<C> load_vec(const S* p) {
  [[maybe_unused]] constexpr int N = Vec<C>::size;
  if constexpr (__is_same(S, C)) {
    return Vec<C>::load(p);
  } else if constexpr (__is_same(S, BFloat16)) {
    return Vec<C>((typename Native<C>::type)(widened<int32_t>(reinterpret_cast<const uint16_t*>(p)) << 16));
  } else if constexpr (__is_same(S, Half)) {
#if defined(__AVX512F__)
    return Vec<C>((typename Native<C>::type)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
    return Vec<C>((typename Native<C>::type)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    C lanes[N];
    for (int i = 0; i < N; ++i) lanes[i] = to_float(p[i]);
    return Vec<C>::load(lanes);
#endif
  } else {
    return Vec<C>(widened<C>(p));
  }
}

template <class S, class C>
TENSOROPS_INLINE void store_vec(Vec<C> x, S* p) {
  [[maybe_unused]] constexpr int N = Vec<C>::size;
  if constexpr (__is_same(S, C)) {
    x.store(p);
  } else if constexpr (__is_same(S, BFloat16)) {
    // Round to nearest even; NaN becomes the quiet NaN that torch stores.
    typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
    const Bits bits = (Bits)x.v;
    const Bits rounded = (bits + (((bits >> 16) & 1u) + 0x7fffu)) >> 16;
    const Bits kept = (Bits)(x != x).bits ? Bits{} + 0x7fc0u : rounded;
    narrow<uint16_t, int32_t>((typename Native<int32_t>::type)kept, reinterpret_cast<uint16_t*>(p));
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
    narrow<S, C>(x.v, p);
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
