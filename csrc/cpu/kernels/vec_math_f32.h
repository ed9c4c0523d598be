// Our own f32 polynomials, for the functions that sit in every network: Sleef's forms cost more than the memory traffic
// of the op. They are plain Vec arithmetic, the same on every instruction set, and inline into the formula around them.
// Coefficients: minimax fits (Lawson-weighted least squares on Chebyshev nodes) by tools/fit_polynomials.py, which prints
// these lines. The errors stated are the largest found over all floats by tests/test_math_ulp.py.
#pragma once

#include "cpu/kernels/vec.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

using FloatBits = Mask<float>::Bits;

// x * 2^n for integral n, |n| <= 200: two steps, so that subnormal and overflowing results round once.
TENSOROPS_INLINE Vec<float> scale_by_power_of_two(Vec<float> x, Vec<float> n) {
#if defined(__AVX512F__)
  return Vec<float>((Native<float>::type)_mm512_scalef_ps((__m512)x.v, (__m512)n.v));
#else
  const FloatBits whole = __builtin_convertvector(n.v, FloatBits), half = whole >> 1;
  const Vec<float> first((Native<float>::type)((half + 127) << 23)), second((Native<float>::type)((whole - half + 127) << 23));
  return x * first * second;
#endif
}

TENSOROPS_INLINE Vec<float> round_to_integer(Vec<float> x) {
#if defined(__AVX512F__)
  return Vec<float>((Native<float>::type)_mm512_roundscale_ps((__m512)x.v, 8));
#elif defined(__AVX2__)
  return Vec<float>((Native<float>::type)_mm256_round_ps((__m256)x.v, 8));
#else
  const float magic = 0x1.8p23f;  // adding it leaves no fraction bits; |x| is far below 2^22 here
  return (x + magic) - magic;
#endif
}

// exp(x) = 2^n exp(r) with |r| <= ln(2)/2; 1 ulp.
TENSOROPS_INLINE Vec<float> exp(Vec<float> x) {
  const Vec<float> bounded = select(x > 89.0f, Vec<float>(89.0f), select(x < -104.0f, Vec<float>(-104.0f), x));
  const Vec<float> n = round_to_integer(bounded * 1.44269504f);
  // ln(2) in two parts, the first with trailing zeros, so that the reduction is exact.
  Vec<float> r = fma(n, Vec<float>(-0.693359375f), bounded);
  r = fma(n, Vec<float>(2.12194440e-4f), r);
  Vec<float> p = 1.381314243e-03f;
  p = fma(p, r, Vec<float>(8.369418792e-03f));
  p = fma(p, r, Vec<float>(4.166845605e-02f));
  p = fma(p, r, Vec<float>(1.666651517e-01f));
  p = fma(p, r, Vec<float>(4.999999404e-01f));
  return scale_by_power_of_two(fma(r * r, p, r) + 1.0f, n);
}

// Odd polynomial near zero, 1 - 2 / (exp(2|x|) + 1) beyond; 1.5 ulp.
TENSOROPS_INLINE Vec<float> tanh(Vec<float> x) {
  const FloatBits sign_bit = FloatBits{} + int32_t(0x80000000);
  const Vec<float> magnitude((Native<float>::type)((FloatBits)x.v & ~sign_bit));
  const Vec<float> s = x * x;
  Vec<float> p = -5.905860569e-03f;
  p = fma(p, s, Vec<float>(2.080537751e-02f));
  p = fma(p, s, Vec<float>(-5.378668010e-02f));
  p = fma(p, s, Vec<float>(1.333195865e-01f));
  p = fma(p, s, Vec<float>(-3.333329856e-01f));
  const Vec<float> small = fma(x * s, p, x);
  const Vec<float> large = 1.0f - 2.0f / (exp(2.0f * magnitude) + 1.0f);
  const Vec<float> result = select(magnitude < 0.6f, small, large);
  return Vec<float>((Native<float>::type)((FloatBits)result.v | ((FloatBits)x.v & sign_bit)));
}

// Odd polynomial near zero, 1 - exp(P(|x|)) beyond, P fitted to log(erfc); 1.5 ulp.
TENSOROPS_INLINE Vec<float> erf(Vec<float> x) {
  const FloatBits sign_bit = FloatBits{} + int32_t(0x80000000);
  const Vec<float> magnitude((Native<float>::type)((FloatBits)x.v & ~sign_bit));
  const Vec<float> s = x * x;
  Vec<float> p = 8.316772437e-05f;
  p = fma(p, s, Vec<float>(-8.130011847e-04f));
  p = fma(p, s, Vec<float>(5.199906416e-03f));
  p = fma(p, s, Vec<float>(-2.685894072e-02f));
  p = fma(p, s, Vec<float>(1.128368750e-01f));
  p = fma(p, s, Vec<float>(-3.761263192e-01f));
  p = fma(p, s, Vec<float>(1.283791661e-01f));
  const Vec<float> small = fma(p, x, x);
  // erf is 1 in f32 from 3.92 on; a NaN fails the comparison and passes through.
  const Vec<float> t = select(magnitude > 4.0f, Vec<float>(4.0f), magnitude);
  Vec<float> q = 1.949467551e-04f;
  q = fma(q, t, Vec<float>(-3.033692483e-03f));
  q = fma(q, t, Vec<float>(2.218977734e-02f));
  q = fma(q, t, Vec<float>(-1.038563773e-01f));
  q = fma(q, t, Vec<float>(-6.372657418e-01f));
  q = fma(q, t, Vec<float>(-1.127627373e+00f));
  q = fma(q, t, Vec<float>(-2.070085029e-04f));
  const Vec<float> large = 1.0f - exp(q);
  const Vec<float> result = select(magnitude < 0.925f, small, large);
  return Vec<float>((Native<float>::type)((FloatBits)result.v | ((FloatBits)x.v & sign_bit)));
}

#if defined(__FMA__)
// The normal distribution's, for gelu: 1/2 + x P(u) within 5.5, u = x^2 / (5.5^2 / 2) - 1, where P is well conditioned, and 0 or 1
// beyond; x cdf(x) is good to 2 ulp where x is positive. Next to erf it spares an exponential. Without FMA the sum's roundings
// cost too much beside -5: there the general formula stands, by erf.
TENSOROPS_INLINE Vec<float> normal_cdf(Vec<float> x) {
  const Vec<float> u = fma(x * x, Vec<float>(6.611569971e-02f), Vec<float>(-1.0f));
  Vec<float> p = 8.364994574e-05f;
  p = fma(p, u, Vec<float>(-2.643855405e-04f));
  p = fma(p, u, Vec<float>(3.095909778e-04f));
  p = fma(p, u, Vec<float>(-4.301267618e-04f));
  p = fma(p, u, Vec<float>(1.222432475e-03f));
  p = fma(p, u, Vec<float>(-2.558257198e-03f));
  p = fma(p, u, Vec<float>(4.214746878e-03f));
  p = fma(p, u, Vec<float>(-6.720153149e-03f));
  p = fma(p, u, Vec<float>(1.040998753e-02f));
  p = fma(p, u, Vec<float>(-1.503702346e-02f));
  p = fma(p, u, Vec<float>(2.032045461e-02f));
  p = fma(p, u, Vec<float>(-2.604090609e-02f));
  p = fma(p, u, Vec<float>(3.207548335e-02f));
  p = fma(p, u, Vec<float>(-3.879340738e-02f));
  p = fma(p, u, Vec<float>(4.773739353e-02f));
  p = fma(p, u, Vec<float>(-6.417232007e-02f));
  p = fma(p, u, Vec<float>(1.285519302e-01f));
  const Vec<float> inside = fma(x, p, Vec<float>(0.5f));
  return select(x > 5.5f, Vec<float>(1.0f), select(x < -5.5f, Vec<float>(0.0f), inside));
}
#endif

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
