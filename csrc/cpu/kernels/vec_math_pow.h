// pow of our own, in f32. Coefficients and errors: see vec_math.h.
#pragma once

#include "cpu/kernels/vec_math_log.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// The halves of a vector of f64 as one of f32.
TENSOROPS_INLINE Vec<float> narrow(Halves x) {
  using V = Native<float>::type;
#if defined(__AVX512F__)
  const __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)x.low.v));
  return Vec<float>((V)_mm512_insertf32x8(low, _mm512_cvtpd_ps((__m512d)x.high.v), 1));
#elif defined(__AVX2__)
  return Vec<float>((V)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)x.high.v), _mm256_cvtpd_ps((__m256d)x.low.v)));
#else
  return Vec<float>(V{float(x.low.v[0]), float(x.low.v[1]), float(x.high.v[0]), float(x.high.v[1])});
#endif
}

// log2(m) = s p(s^2) of s = (m - 1) / (m + 1), m in [3/4, 3/2], and 2^r for |r| <= 1/2: in f64, as y log2(x) is up to 128
// and its error is the result's relative one.
constexpr double kLog2Wide[] = {2.90890459902282572e-01, 3.19279539354076436e-01, 4.12226351162178262e-01,
                                5.77077753264357840e-01, 9.61796694836031141e-01, 2.88539008177741740e+00};
constexpr double kExp2Wide[] = {1.53458071180982583e-04, 1.33999311783484978e-03, 9.61848897522933101e-03,
                                5.55032877709133454e-02, 2.40226468904673363e-01, 6.93147205737189243e-01,
                                1.00000000055418758e+00};
// 2^(y log2(x)) of positive, finite x.
TENSOROPS_INLINE Vec<double> power_of_positive(Vec<double> x, Vec<double> y) {
  const auto [m, e] = split_normal(x);
  const Vec<double> s = (m - 1.0) / (m + 1.0);
  const Vec<double> t = clamp(y * fma(s, polynomial(s * s, kLog2Wide), e), -200.0, 200.0), n = round_to_integer(t);
  return scale_by_power_of_two(polynomial(t - n, kExp2Wide), n);
}
// 0.6 ulp. What C's pow says of zeros, infinities, NaN and negative bases takes a few instructions more.
TENSOROPS_INLINE Vec<float> pow(Vec<float> x, Vec<float> y) {
  const float infinity = __builtin_inff();
  const Vec<float> base = abs(x);
  const Halves wide_base = widen(base), wide_y = widen(y);
  const Vec<float> power =
      narrow({power_of_positive(wide_base.low, wide_y.low), power_of_positive(wide_base.high, wide_y.high)});
  if (__builtin_expect(all((x > 0.0f) & (x < infinity) & (abs(y) < infinity)), 1)) return power;
  const Vec<float> half = y * 0.5f;
  const Mask<float> whole = round(y) == y, odd = whole & (round(half) != half);
  const Mask<float> extreme = (base == 0.0f) | (base == infinity) | (abs(y) == infinity), grows = (base > 1.0f) ^ (y < 0.0f);
  Vec<float> result = select(extreme, select(grows, Vec<float>(infinity), 0.0f), power);
  result = select(base == 1.0f, Vec<float>(1.0f), result);
  result = select((x < 0.0f) & (base < infinity) & !whole, Vec<float>(__builtin_nanf("")), result);
  result = select(odd, copysign(result, x), result);
  result = select(isnan(x) | isnan(y), x + y, result);
  return select((x == 1.0f) | (y == 0.0f), Vec<float>(1.0f), result);
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
