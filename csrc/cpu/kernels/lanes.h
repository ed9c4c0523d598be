// Vectors from any storage type, whole or in part, and what moves values across lanes.
#pragma once

#include "cpu/kernels/ahead.h"
#include "cpu/kernels/convert.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// One vector of C from adjacent elements of S.
template <class C, class S>
TENSOROPS_INLINE Vec<C> load_vector(const S* p) {
  if constexpr (__is_same(C, S)) {
    return Vec<C>::load(p);
  } else if constexpr (__is_same(C, float) && __is_same(S, BFloat16)) {
#if defined(__AVX512F__)
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return Vec<C>((typename Native<C>::type)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#elif defined(__AVX2__)
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return Vec<C>((typename Native<C>::type)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#elif defined(__SSE4_1__)
    const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return Vec<C>((typename Native<C>::type)_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16));
#endif
  } else if constexpr (__is_same(C, float) && __is_same(S, Half)) {
#if defined(__AVX512F__)
    return Vec<C>((typename Native<C>::type)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
    return Vec<C>((typename Native<C>::type)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#endif
  }
#if defined(__AVX2__)
  if constexpr (__is_same(S, Bool)) {
    uint64_t low = 0, high = 0;
    __builtin_memcpy(&low, p, Vec<C>::size < 8 ? Vec<C>::size : 8);
    if constexpr (Vec<C>::size == 16) __builtin_memcpy(&high, p + 8, 8);
    const __m128i ones = _mm_min_epu8(_mm_set_epi64x(high, low), _mm_set1_epi8(1));
#if defined(__AVX512F__)
    if constexpr (__is_same(C, float)) return Vec<C>((typename Native<C>::type)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(ones)));
    if constexpr (__is_same(C, double)) return Vec<C>((typename Native<C>::type)_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(ones)));
    if constexpr (__is_same(C, int32_t)) return Vec<C>((typename Native<C>::type)_mm512_cvtepu8_epi32(ones));
    if constexpr (__is_same(C, int64_t)) return Vec<C>((typename Native<C>::type)_mm512_cvtepu8_epi64(ones));
#else
    if constexpr (__is_same(C, float)) return Vec<C>((typename Native<C>::type)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(ones)));
    if constexpr (__is_same(C, double)) return Vec<C>((typename Native<C>::type)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(ones)));
    if constexpr (__is_same(C, int32_t)) return Vec<C>((typename Native<C>::type)_mm256_cvtepu8_epi32(ones));
    if constexpr (__is_same(C, int64_t)) return Vec<C>((typename Native<C>::type)_mm256_cvtepu8_epi64(ones));
#endif
  }
#endif
  if constexpr (__is_same(C, double) && __is_same(S, float)) {
#if defined(__AVX512F__)
    return Vec<C>((typename Native<C>::type)_mm512_cvtps_pd(_mm256_loadu_ps(p)));
#elif defined(__AVX2__)
    return Vec<C>((typename Native<C>::type)_mm256_cvtps_pd(_mm_loadu_ps(p)));
#else
    return Vec<C>(typename Native<C>::type{p[0], p[1]});
#endif
  }
#if defined(__AVX2__)
  if constexpr (__is_same(C, double) && (__is_same(S, BFloat16) || __is_same(S, Half))) {
    using V = typename Native<C>::type;
    constexpr bool is_bf16 = __is_same(S, BFloat16);
#if defined(__AVX512F__)
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256 floats = is_bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)) : _mm256_cvtph_ps(bits);
    return Vec<C>((V)_mm512_cvtps_pd(floats));
#else
    const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128 floats = is_bf16 ? _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16)) : _mm_cvtph_ps(bits);
    return Vec<C>((V)_mm256_cvtps_pd(floats));
#endif
  }
#endif
  C lanes[Vec<C>::size];
  for (int i = 0; i < Vec<C>::size; ++i) lanes[i] = load_as<C>(p[i]);
  return Vec<C>::load(lanes);
}

// The next two vectors of bf16 where nobody asks which lane an element is in: the even ones and the odd ones, an instruction
// each.
TENSOROPS_INLINE void load_pair(const BFloat16* p, Vec<float>* even, Vec<float>* odd) {
  using Bits = Pattern<float>::type;
  Bits pairs;
  __builtin_memcpy(&pairs, p, sizeof(pairs));
  even->v = (Vec<float>::V)(pairs << 16);
  odd->v = (Vec<float>::V)(pairs & 0xffff0000u);
}

// The first n < size lanes (n <= 0: none), the others zero; nothing past them is read.
template <class C, class S>
TENSOROPS_INLINE Vec<C> load_part(const S* p, int64_t n) {
#if defined(__AVX512F__)
  const auto mask = static_cast<uint32_t>((1u << (n > 0 ? n : 0)) - 1);
  using V = typename Native<C>::type;
  if constexpr (__is_same(C, S) && sizeof(C) == 4) return Vec<C>((V)_mm512_maskz_loadu_epi32(__mmask16(mask), p));
  if constexpr (__is_same(C, S) && sizeof(C) == 8) return Vec<C>((V)_mm512_maskz_loadu_epi64(__mmask8(mask), p));
  if constexpr (__is_same(C, float) && __is_same(S, BFloat16))
    return Vec<C>((V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(__mmask16(mask), p)), 16));
  if constexpr (__is_same(C, float) && __is_same(S, Half))
    return Vec<C>((V)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(__mmask16(mask), p)));
  if constexpr (__is_same(C, double) && __is_same(S, float)) return Vec<C>((V)_mm512_cvtps_pd(_mm256_maskz_loadu_ps(__mmask8(mask), p)));
#elif defined(__AVX2__)
  if constexpr (__is_same(C, S)) return Vec<C>::load(p, n);
  if constexpr (__is_same(C, double) && __is_same(S, float)) {
    const __m128i present = _mm_cmplt_epi32(_mm_set_epi32(3, 2, 1, 0), _mm_set1_epi32(static_cast<int>(n)));
    return Vec<C>((typename Native<C>::type)_mm256_cvtps_pd(_mm_maskload_ps(p, present)));
  }
#endif
  C lanes[Vec<C>::size] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = load_as<C>(p[i]);
  return Vec<C>::load(lanes);
}

// The same for any n.
template <class C, class S>
TENSOROPS_INLINE Vec<C> load_lanes(const S* p, int64_t n) {
  return n >= Vec<C>::size ? load_vector<C>(p) : load_part<C>(p, n);
}

// A pointer of which GCC knows nothing: what it points to is left in memory, and several are not computed as a vector.
template <class P>
TENSOROPS_INLINE P* opaque(P* p) {
  asm("" : "+r"(p));
  return p;
}

// f(row, vector) for every vector of a tile in registers.
template <int R, int N, class F>
TENSOROPS_INLINE void for_tile(F f) {
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) f(r, v);
}

// The cache lines of so many adjacent elements, to be read or, if Writes, written.
template <int Elements, int Writes = 0, class T>
TENSOROPS_INLINE void fetch_lines(const T* p) {
  constexpr int kLine = 64 / sizeof(T);
  for (int i = 0; i < Elements; i += kLine) __builtin_prefetch(p + i, Writes);
}

// Rows that lie apart are a pattern no prefetcher sees. While some of them are worked on from left to right, the next are
// fetched in the order of memory, `lines` cache lines at each step: to the second cache, to which more lines can be on their
// way than to the first.
class Ahead {
 public:
  Ahead(const void* next, int64_t row_stride, int64_t row_bytes)
      : row_(static_cast<const char*>(next)), stride_(row_stride), bytes_(row_bytes) {}
  TENSOROPS_INLINE void step(int64_t lines) {
    constexpr int64_t kLine = 64;
    for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(row_ + at_ + i * kLine, 0, 2);
    at_ += lines * kLine;
    if (at_ >= bytes_) {
      at_ = 0;
      row_ += stride_;
    }
  }

 private:
  const char* row_;
  const int64_t stride_, bytes_;
  int64_t at_ = 0;
};

// The same where a row ends anywhere among the lines of a step.
TENSOROPS_INLINE void fetch_ahead(FetchAhead& ahead) {
  constexpr int64_t kLine = 64;
  for (int64_t line = 0; line < ahead.lines && ahead.rows > 0; ++line) {
    __builtin_prefetch(ahead.row + ahead.byte, 0, 2);
    if ((ahead.byte += kLine) < ahead.bytes) continue;
    ahead.byte = 0, ahead.row += ahead.stride, --ahead.rows;
  }
}

// Stores the first n < size lanes.
template <class T>
TENSOROPS_INLINE void store_part(Vec<T> x, T* p, int64_t n) {
#if defined(__AVX512F__)
  const auto mask = static_cast<uint32_t>((1u << n) - 1);
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_epi32(p, __mmask16(mask), (__m512i)x.v);
  else _mm512_mask_storeu_epi64(p, __mmask8(mask), (__m512i)x.v);
#else
  // Halves, quarters, ... by the bits of n: no masked store, which is slow on some AVX2 cores.
  T lanes[Vec<T>::size];
  x.store(lanes);
  int64_t i = 0;
  if constexpr (Vec<T>::size > 4)
    if (n & 4) {
      __builtin_memcpy(p, lanes, 4 * sizeof(T));
      i = 4;
    }
  if constexpr (Vec<T>::size > 2)
    if (n & 2) {
      __builtin_memcpy(p + i, lanes + i, 2 * sizeof(T));
      i += 2;
    }
  if (n & 1) p[i] = lanes[i];
#endif
}

// The bits of bf16 in the upper half of each lane, anything in the lower one. Round to nearest even; NaN becomes the quiet
// NaN that torch stores.
using FloatPattern = Pattern<float>::type;
TENSOROPS_INLINE FloatPattern bf16_in_upper_half(Vec<float> x) {
  const FloatPattern bits = (FloatPattern)x.v, rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
#if defined(__AVX512F__)
  // GCC would take the mask through a vector.
  return (FloatPattern)_mm512_mask_mov_epi32((__m512i)rounded, _mm512_cmp_ps_mask((__m512)x.v, (__m512)x.v, _CMP_UNORD_Q),
                                             _mm512_set1_epi32(0x7fc00000));
#else
  return (FloatPattern)(x != x).bits ? FloatPattern{} + 0x7fc00000u : rounded;
#endif
}

// The same into any storage type. The plain loop becomes a narrowing instruction; of __builtin_convertvector between
// registers of different sizes GCC makes scalar code.
template <class S, class C>
TENSOROPS_INLINE void store_vector(Vec<C> x, S* p) {
  if constexpr (__is_same(S, C)) {
    x.store(p);
  } else if constexpr (__is_same(S, BFloat16)) {
#if defined(__AVX512F__)
    const __m256i narrow = _mm512_cvtepi32_epi16((__m512i)(bf16_in_upper_half(x) >> 16));
    __builtin_memcpy(p, &narrow, sizeof(narrow));
#else
    const auto kept = bf16_in_upper_half(x) >> 16;
    uint32_t lanes[Vec<C>::size];
    __builtin_memcpy(lanes, &kept, sizeof(lanes));
    for (int i = 0; i < Vec<C>::size; ++i) p[i].bits = static_cast<uint16_t>(lanes[i]);
#endif
  } else if constexpr (__is_same(S, Half) && kVectorBytes > 16) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph((__m512)x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)x.v, _MM_FROUND_TO_NEAREST_INT));
#endif
  } else if constexpr (__is_same(S, Bool)) {
    typename MaskInt<C>::type lanes[Vec<C>::size];
    const auto nonzero = (x != Vec<C>(0)).bits;
    __builtin_memcpy(lanes, &nonzero, sizeof(lanes));
    for (int i = 0; i < Vec<C>::size; ++i) p[i].value = static_cast<uint8_t>(lanes[i] & 1);
  } else {
    C lanes[Vec<C>::size];
    x.store(lanes);
    for (int i = 0; i < Vec<C>::size; ++i) p[i] = StoreAs<S, C>::from(lanes[i]);
  }
}
// The same past the caches: for data that would not stay there until it is read again, as its lines then need not be read
// before they are written. `p` is aligned to what is stored. Other threads see it after end_stream.
template <class S, class C>
TENSOROPS_INLINE void stream_vector(Vec<C> x, S* p) {
#if defined(__x86_64__)
  constexpr int bytes = Vec<C>::size * sizeof(S);
  if constexpr (bytes >= 16) {
    S lanes[Vec<C>::size];
    store_vector(x, static_cast<S*>(lanes));
#if defined(__AVX512F__)
    if constexpr (bytes == 64) return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), _mm512_loadu_si512(lanes));
#endif
#if defined(__AVX__)
    if constexpr (bytes == 32)
      return _mm256_stream_si256(reinterpret_cast<__m256i*>(p), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)));
#endif
    if constexpr (bytes == 16)
      return _mm_stream_si128(reinterpret_cast<__m128i*>(p), _mm_loadu_si128(reinterpret_cast<const __m128i*>(lanes)));
  }
#endif
  store_vector(x, p);
}
// What load_pair has split. Exact: both are bf16 as they are.
template <bool Exact = false>
TENSOROPS_INLINE void store_pair(Vec<float> even, Vec<float> odd, BFloat16* p, bool streams) {
  const auto upper = [](Vec<float> x) TENSOROPS_LAMBDA_INLINE { return Exact ? (FloatPattern)x.v : bf16_in_upper_half(x); };
  const FloatPattern pairs = (upper(even) >> 16) | (upper(odd) & 0xffff0000u);
  const Vec<int32_t> stored((Vec<int32_t>::V)pairs);
  if (streams) stream_vector(stored, reinterpret_cast<int32_t*>(p));
  else stored.store(reinterpret_cast<int32_t*>(p));
}
inline void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

template <class S, class C>
TENSOROPS_INLINE void store_lanes(Vec<C> x, S* p, int64_t n) {
  if (n >= Vec<C>::size) return store_vector(x, p);
  if constexpr (__is_same(S, C)) return store_part(x, p, n);
  S lanes[Vec<C>::size];
  store_vector(x, static_cast<S*>(lanes));
  __builtin_memcpy(p, lanes, n * sizeof(S));
}

// The first n lanes of x, and `otherwise` in the rest.
template <class C>
TENSOROPS_INLINE Vec<C> first_lanes(Vec<C> x, int64_t n, C otherwise) {
  using Lane = typename MaskInt<C>::type;
  Lane number[Vec<C>::size];
  for (int i = 0; i < Vec<C>::size; ++i) number[i] = Lane(i);
  const auto inside = Vec<Lane>::load(number) < Vec<Lane>(Lane(n));
  return select(Mask<C>{inside.bits}, x, Vec<C>(otherwise));
}

// All lanes folded by f, in every lane of the result: halves, quarters, …
template <class T, int Width = Vec<T>::size / 2, class F>
TENSOROPS_INLINE Vec<T> fold_lanes(Vec<T> x, F f) {
  if constexpr (Width == 0) {
    return x;
  } else {
    typename Native<typename MaskInt<T>::type>::type other;
    for (int i = 0; i < Vec<T>::size; ++i) other[i] = i ^ Width;
    return fold_lanes<T, Width / 2>(f(x, Vec<T>(__builtin_shuffle(x.v, other))), f);
  }
}
template <class T>
TENSOROPS_INLINE T sum_lanes(Vec<T> x) {
#if defined(__AVX512F__)
  // By the same halves, in narrower registers as they shrink.
  if constexpr (__is_same(T, float)) return _mm512_reduce_add_ps((__m512)x.v);
  if constexpr (__is_same(T, double)) return _mm512_reduce_add_pd((__m512d)x.v);
#endif
  return fold_lanes(x, [](Vec<T> a, Vec<T> b) TENSOROPS_LAMBDA_INLINE { return a + b; }).v[0];
}

// Lane j of the result's row i is lane i of row j: log2(size) rounds that swap blocks across the diagonal.
template <class T, int D>
TENSOROPS_INLINE void transpose_round(Vec<T>* rows) {
  using Index = typename Native<typename MaskInt<T>::type>::type;
  constexpr int n = Vec<T>::size;
  Index low, high;
  for (int j = 0; j < n; ++j) {
    low[j] = (j & D) ? n + j - D : j;
    high[j] = (j & D) ? n + j : j + D;
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    if ((i & D) == 0) {
      const auto a = rows[i].v, b = rows[i + D].v;
      rows[i].v = __builtin_shuffle(a, b, low);
      rows[i + D].v = __builtin_shuffle(a, b, high);
    }
}
// AVX2 has no instruction for the round of two by two blocks. Its interleaving ones, which come first here, leave the middle
// two of four rows swapped.
template <class T>
TENSOROPS_INLINE void transpose_eight(Vec<T>* rows) {
  using Index = typename Native<typename MaskInt<T>::type>::type;
  constexpr Index low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    const auto a = rows[i].v, b = rows[i + 1].v;
    rows[i].v = __builtin_shuffle(a, b, low);
    rows[i + 1].v = __builtin_shuffle(a, b, high);
  }
  transpose_round<T, 2>(rows);
#pragma GCC unroll 2
  for (int i = 1; i < 8; i += 4) {
    const auto row = rows[i].v;
    rows[i].v = rows[i + 1].v;
    rows[i + 1].v = row;
  }
  transpose_round<T, 4>(rows);
}
template <class T>
TENSOROPS_INLINE void transpose(Vec<T>* rows) {
  if constexpr (Vec<T>::size == 8 && kVectorBytes == 32) return transpose_eight(rows);
  if constexpr (Vec<T>::size >= 16) transpose_round<T, 8>(rows);
  if constexpr (Vec<T>::size >= 8) transpose_round<T, 4>(rows);
  if constexpr (Vec<T>::size >= 4) transpose_round<T, 2>(rows);
  transpose_round<T, 1>(rows);
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
