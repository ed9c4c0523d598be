// Conversions between memory dtypes and compute types.
#pragma once

#include "cpu/kernels/dtype.h"
#include "cpu/kernels/vec.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

struct BFloat16 { uint16_t bits; };
struct Half { uint16_t bits; };
struct Bool { uint8_t value; };

// Storage type of a DType.
template <DType>
struct Storage;
template <> struct Storage<DType::u8> { using type = uint8_t; };
template <> struct Storage<DType::i8> { using type = int8_t; };
template <> struct Storage<DType::i16> { using type = int16_t; };
template <> struct Storage<DType::i32> { using type = int32_t; };
template <> struct Storage<DType::i64> { using type = int64_t; };
template <> struct Storage<DType::f16> { using type = Half; };
template <> struct Storage<DType::f32> { using type = float; };
template <> struct Storage<DType::f64> { using type = double; };
template <> struct Storage<DType::boolean> { using type = Bool; };
template <> struct Storage<DType::bf16> { using type = BFloat16; };

TENSOROPS_INLINE float to_float(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
// Round to nearest even; NaN becomes the quiet NaN that torch stores.
TENSOROPS_INLINE BFloat16 to_bfloat16(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  const uint32_t rounded = (bits + (0x7fffu + ((bits >> 16) & 1u))) >> 16;
  return {static_cast<uint16_t>(f != f ? 0x7fc0u : rounded)};
}
TENSOROPS_INLINE float to_float(Half x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  // Scale the shifted pattern by 2^112: exact for normal and subnormal halves alike; inf and NaN are patched in.
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, rest = uint32_t(x.bits & 0x7fffu);
  uint32_t bits = rest << 13;
  float f;
  __builtin_memcpy(&f, &bits, 4);
  f *= 0x1.0p112f;
  __builtin_memcpy(&bits, &f, 4);
  if (rest >= 0x7c00u) bits = 0x7f800000u | ((rest & 0x3ffu) << 13);
  bits |= sign;
  __builtin_memcpy(&f, &bits, 4);
  return f;
#endif
}
TENSOROPS_INLINE Half to_half(float f) {
#if defined(__F16C__)
  return {static_cast<uint16_t>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT))};
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (bits >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (bits < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded mantissa in the low bits
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    uint32_t sum;
    __builtin_memcpy(&sum, &magnitude, 4);
    return {static_cast<uint16_t>(sign | (sum - 0x3f000000u))};
  }
  const uint32_t odd = (bits >> 13) & 1u;
  bits += 0xc8000fffu + odd;  // rebias the exponent, round to nearest even
  return {static_cast<uint16_t>(sign | (bits >> 13))};
#endif
}

// One element from storage to compute type and back, with C's conversions.
template <class C, class S>
TENSOROPS_INLINE C load_as(S x) { return static_cast<C>(x); }
template <class C>
TENSOROPS_INLINE C load_as(BFloat16 x) { return static_cast<C>(to_float(x)); }
template <class C>
TENSOROPS_INLINE C load_as(Half x) { return static_cast<C>(to_float(x)); }
template <class C>
TENSOROPS_INLINE C load_as(Bool x) { return static_cast<C>(x.value != 0); }

template <class S, class C>
struct StoreAs { static TENSOROPS_INLINE S from(C x) { return static_cast<S>(x); } };
template <class C>
struct StoreAs<BFloat16, C> { static TENSOROPS_INLINE BFloat16 from(C x) { return to_bfloat16(static_cast<float>(x)); } };
template <class C>
struct StoreAs<Half, C> { static TENSOROPS_INLINE Half from(C x) { return to_half(static_cast<float>(x)); } };
template <class C>
struct StoreAs<Bool, C> { static TENSOROPS_INLINE Bool from(C x) { return {static_cast<uint8_t>(x != 0)}; } };

// n elements, `stride` bytes apart. The contiguous case is its own loop, so that it vectorises.
template <class S, class C>
void load_run(const void* from, int64_t stride, void* to, int64_t n) {
  C* out = static_cast<C*>(to);
  const char* bytes = static_cast<const char*>(from);
  if (stride == int64_t(sizeof(S))) {
    const S* in = static_cast<const S*>(from);
    int64_t i = 0;
#if defined(__AVX512F__)
    if constexpr (__is_same(S, Half) && __is_same(C, float))
      for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i))));
#elif defined(__F16C__)
    if constexpr (__is_same(S, Half) && __is_same(C, float))
      for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
    for (; i < n; ++i) out[i] = load_as<C>(in[i]);
  } else if (stride == 0) {
    S value;
    __builtin_memcpy(&value, bytes, sizeof(S));
    const C converted = load_as<C>(value);
    for (int64_t i = 0; i < n; ++i) out[i] = converted;
  } else {
    for (int64_t i = 0; i < n; ++i) {
      S value;
      __builtin_memcpy(&value, bytes + i * stride, sizeof(S));
      out[i] = load_as<C>(value);
    }
  }
}

template <class S, class C>
void store_run(const void* from, void* to, int64_t stride, int64_t n) {
  const C* in = static_cast<const C*>(from);
  char* bytes = static_cast<char*>(to);
  if (stride == int64_t(sizeof(S))) {
    S* out = static_cast<S*>(to);
    int64_t i = 0;
#if defined(__AVX512F__)
    if constexpr (__is_same(S, Half) && __is_same(C, float))
      for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    if constexpr (__is_same(S, Half) && __is_same(C, float))
      for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; ++i) out[i] = StoreAs<S, C>::from(in[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      const S value = StoreAs<S, C>::from(in[i]);
      __builtin_memcpy(bytes + i * stride, &value, sizeof(S));
    }
  }
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
