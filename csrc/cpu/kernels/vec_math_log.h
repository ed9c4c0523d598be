// Logarithms of our own, in f32 and f64. Coefficients and errors: see vec_math.h.
#pragma once

#include "cpu/kernels/vec_basic.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// x = m 2^e with m in [3/4, 3/2). Zero and infinity: m = 1 and e = -inf, inf. Negative: m is NaN.
template <class T>
struct MantissaAndExponent {
  Vec<T> m, e;
};
#if defined(__AVX512F__)
TENSOROPS_INLINE MantissaAndExponent<float> split(Vec<float> x) {
  const __m512 m = _mm512_getmant_ps((__m512)x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan);
  const __m512 e = _mm512_getexp_ps((__m512)x.v);
  const __m512 one = _mm512_set1_ps(1), next = _mm512_mask_add_ps(e, _mm512_cmp_ps_mask(m, one, _CMP_LT_OQ), e, one);
  return {Vec<float>((Native<float>::type)m), Vec<float>((Native<float>::type)next)};
}
TENSOROPS_INLINE MantissaAndExponent<double> split(Vec<double> x) {
  const __m512d m = _mm512_getmant_pd((__m512d)x.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan);
  const __m512d e = _mm512_getexp_pd((__m512d)x.v);
  const __m512d one = _mm512_set1_pd(1), next = _mm512_mask_add_pd(e, _mm512_cmp_pd_mask(m, one, _CMP_LT_OQ), e, one);
  return {Vec<double>((Native<double>::type)m), Vec<double>((Native<double>::type)next)};
}
TENSOROPS_INLINE MantissaAndExponent<double> split_normal(Vec<double> x) { return split(x); }
#else
// Of positive, normal, finite x. Unsigned, for what has no logarithm may wrap around.
TENSOROPS_INLINE MantissaAndExponent<float> split_normal(Vec<float> x) {
  using Bits = Pattern<float>::type;
  const Bits bits = (Bits)x.v;
  const FloatBits whole = (FloatBits)(bits - 0x3f400000) >> 23;  // the bits of 3/4
  return {Vec<float>((Native<float>::type)(bits - (Bits)(whole << 23))),
          Vec<float>(__builtin_convertvector(whole, Native<float>::type))};
}
// By logical shifts alone: there is no arithmetic one of 64 bits, and no conversion.
TENSOROPS_INLINE MantissaAndExponent<double> split_normal(Vec<double> x) {
  using Bits = Pattern<double>::type;
  using V = Native<double>::type;
  const Bits bits = (Bits)x.v, biased = (bits + 0x0008000000000000) >> 52;
  return {Vec<double>((V)(bits - (biased << 52) + 0x3ff0000000000000)),
          Vec<double>((V)(biased | 0x4330000000000000)) - (0x1p52 + 1023)};
}
template <class T>
TENSOROPS_INLINE MantissaAndExponent<T> split(Vec<T> x) {
  constexpr bool kSingle = sizeof(T) == 4;
  constexpr T infinity = __builtin_inf(), normal = kSingle ? T(0x1p-126) : T(0x1p-1022);
  const Mask<T> subnormal = x < normal, extreme = (x == T(0)) | (x == infinity);
  const auto [m, e] = split_normal(select(subnormal, x * (kSingle ? T(0x1p24) : T(0x1p54)), x));
  const Vec<T> finite = select(subnormal, e - T(kSingle ? 24 : 54), e);
  return {select(x >= T(0), select(extreme, Vec<T>(T(1)), m), Vec<T>(T(__builtin_nan("")))),
          select(x == T(0), Vec<T>(-infinity), select(x == infinity, Vec<T>(infinity), finite))};
}
#endif

// log(1 + z) - z + rest for z in [-1/4, 1/2], the former z^2 p(z).
constexpr float kLog[] = {-4.491528124e-02f, 1.044967324e-01f, -1.316308975e-01f, 1.448215097e-01f, -1.664769799e-01f,
                          1.999059319e-01f, -2.500005662e-01f, 3.333345354e-01f, -5.000000000e-01f};
TENSOROPS_INLINE Vec<float> log1p_tail(Vec<float> z, Vec<float> rest) { return fma(z * z, polynomial(z, kLog), rest); }
// With s = z / (2 + z) it is also s (z^2/2 + s^2 p(s^2)) - z^2/2, as in fdlibm's e_log.c.
constexpr double kLogF64[] = {1.53737383929192006e-01, 1.52494751740882756e-01, 1.81863917340712000e-01,
                              2.22221376304519963e-01, 2.85714294059600915e-01, 3.99999999961021702e-01,
                              6.66666666666728247e-01};
TENSOROPS_INLINE Vec<double> log1p_tail(Vec<double> z, Vec<double> rest) {
  const Vec<double> s = z / (z + 2.0), w = s * s, half = 0.5 * z * z;
  return fma(s, fma(w, polynomial(w, kLogF64), half), rest - half);
}

// Numbers in two parts. Those of 2 are multiplied by an exponent, which is exact for the first.
template <class T>
struct Logarithms;
template <>
struct Logarithms<float> {
  static constexpr float ln_2 = 0x1.62e4p-1f, ln_2_low = 0x1.7f7d1cp-20f, log10_2 = 0x1.344p-2f, log10_2_low = 0x1.3509f8p-18f,
                         log10_e = 0x1.bcb7b2p-2f, log10_e_low = -0x1.5b235ep-27f, log2_e = 0x1.715476p0f,
                         log2_e_low = 0x1.4ae0cp-26f;
};
template <>
struct Logarithms<double> {
  static constexpr double ln_2 = 0x1.62e42fefa38p-1, ln_2_low = 0x1.ef35793c7673p-45, log10_2 = 0x1.34413509f78p-2,
                          log10_2_low = 0x1.fef311f12b358p-46, log10_e = 0x1.bcb7b1526e50ep-2,
                          log10_e_low = 0x1.95355baaafad3p-57, log2_e = 0x1.71547652b82fep0, log2_e_low = 0x1.777d0ffda0d24p-56;
};

// log(1 + z) + e ln(2)
template <class T>
TENSOROPS_INLINE Vec<T> log_of_parts(Vec<T> z, Vec<T> e) {
  return fma(e, Vec<T>(Logarithms<T>::ln_2), log1p_tail(z, e * Logarithms<T>::ln_2_low) + z);
}
template <class T>
TENSOROPS_INLINE Vec<T> own_log(Vec<T> x) {
  const auto [m, e] = split(x);
  return log_of_parts(m - T(1), e);
}
template <class T>
TENSOROPS_INLINE Vec<T> own_log10(Vec<T> x) {
  using L = Logarithms<T>;
  const auto [m, e] = split(x);
  const Vec<T> z = m - T(1), low = fma(z, Vec<T>(L::log10_e_low), e * L::log10_2_low);
  return fma(e, Vec<T>(L::log10_2), fma(z, Vec<T>(L::log10_e), fma(log1p_tail(z, Vec<T>(T(0))), Vec<T>(L::log10_e), low)));
}
// z = (1 + x) 2^-e - 1 from x itself: where e = 0 that is x, with no digit lost to the sum. Where 1 is lost beside x, or m is
// NaN, from m.
template <class T>
TENSOROPS_INLINE Vec<T> own_log1p(Vec<T> x) {
  const auto [m, e] = split(x + T(1));
  const Vec<T> power = power_of_two(-e), z = select(x < m * T(0x1p60), fma(x, power, power - T(1)), m - T(1));
  return select(x == T(0), x, log_of_parts(z, e));
}
// 0.8, 0.9, 0.9 ulp, in f64 0.9 and, log10, 1.35; half an ulp more where there is no FMA.
TENSOROPS_INLINE Vec<float> log(Vec<float> x) { return own_log(x); }
TENSOROPS_INLINE Vec<float> log10(Vec<float> x) { return own_log10(x); }
TENSOROPS_INLINE Vec<float> log1p(Vec<float> x) { return own_log1p(x); }
TENSOROPS_INLINE Vec<double> log(Vec<double> x) { return own_log(x); }
TENSOROPS_INLINE Vec<double> log1p(Vec<double> x) { return own_log1p(x); }

#if defined(__FMA__)  // without it what these round away is too much: libm's stand there
TENSOROPS_INLINE Vec<double> log10(Vec<double> x) { return own_log10(x); }
template <class T>
TENSOROPS_INLINE Vec<T> own_log2(Vec<T> x) {
  using L = Logarithms<T>;
  const auto [m, e] = split(x);
  const Vec<T> z = m - T(1), low = fma(log1p_tail(z, Vec<T>(T(0))), Vec<T>(L::log2_e), z * L::log2_e_low);
  return fma(z, Vec<T>(L::log2_e), low) + e;
}
TENSOROPS_INLINE Vec<float> log2(Vec<float> x) { return own_log2(x); }  // 1.6 ulp
TENSOROPS_INLINE Vec<double> log2(Vec<double> x) { return own_log2(x); }
#endif

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
