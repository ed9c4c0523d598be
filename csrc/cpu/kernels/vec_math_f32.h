// Our own f32 functions, where Sleef's forms cost more than the memory traffic of the op. They are plain Vec arithmetic, the
// same on every instruction set, and inline into the formula around them.
// Coefficients, highest power first: minimax fits (Lawson-weighted least squares on Chebyshev nodes) by
// tools/fit_polynomials.py, which prints them. The errors stated are the largest found over all floats by
// tests/test_math_ulp.py.
#pragma once

#include "cpu/kernels/vec_basic.h"
#include "cpu/kernels/vec_math_log.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2)/2.
constexpr float kExp[] = {1.381314243e-03f, 8.369418792e-03f, 4.166845605e-02f, 1.666651517e-01f, 4.999999404e-01f};

// x = n ln(2) + r. ln(2) in two parts, the first with trailing zeros, so that n times it is exact.
struct ReducedByLn2 {
  Vec<float> r, n;
};
TENSOROPS_INLINE Vec<float> subtract_ln2(Vec<float> x, Vec<float> n) {
  return fma(n, Vec<float>(2.12194440e-4f), fma(n, Vec<float>(-0.693359375f), x));
}
TENSOROPS_INLINE ReducedByLn2 reduce_by_ln2(Vec<float> x) {
  const Vec<float> n = round_to_integer(x * 1.44269504f);
  return {subtract_ln2(x, n), n};
}
TENSOROPS_INLINE Vec<float> expm1_of_reduced(Vec<float> r) { return fma(r * r, polynomial(r, kExp), r); }

// exp(x) 2^k where that is a normal number, given 1.5 2^23 + k: a sum with it has no fraction, and n + k as its lowest bits,
// which one shift and one addition bring to the bits of the exponent. Of NaN anything.
TENSOROPS_INLINE Vec<float> scaled_exp(Vec<float> x, Vec<float> k) {
  const Vec<float> t = fma(x, Vec<float>(1.44269504f), k), power = expm1_of_reduced(subtract_ln2(x, t - k)) + 1.0f;
  using Bits = Pattern<float>::type;
  return Vec<float>((Native<float>::type)((Bits)power.v + ((Bits)t.v << 23)));
}

// exp(x) Term::scale for x <= 0: a term of a sum whose largest is exp(0). The scale keeps from being subnormal what without it
// is, or is zero. Of NaN anything: the sum's owner knows of it from the maximum.
template <class T>
struct Term;
template <>
struct Term<float> {
  static constexpr float scale = 0x1p64f, integers = 0x1.8p23f, k = 64, lowest = -130;  // lowest: of which x
};
template <>
struct Term<double> {
  static constexpr double scale = 0x1p128, integers = 0x1.8p52, k = 128, lowest = -780;
};
template <class T>
TENSOROPS_INLINE T unscaled(T sum_of_terms) { return sum_of_terms * (1 / Term<T>::scale); }
template <class T>
TENSOROPS_INLINE Vec<T> unscaled(Vec<T> sum_of_terms) { return sum_of_terms * (1 / Term<T>::scale); }
template <class T>
TENSOROPS_INLINE Vec<T> exp_term(Vec<T> x) {
  using E = Term<T>;
  return scaled_exp(maximum(x, E::lowest), Vec<T>(E::integers + E::k));
}

// exp(x) of what is clamped to where it is neither zero nor infinite, 1 ulp: scaled so that it is neither subnormal nor too
// large, down where x is not negative and up where it is; taken back by a multiplication, which rounds once.
template <class T>
TENSOROPS_INLINE Vec<T> exp_of_either_sign(Vec<T> x) {
  using E = Term<T>;
  using Bits = typename Pattern<T>::type;
  const Bits up = (Bits)Vec<T>(E::scale * E::scale).v - (Bits)Vec<T>(T(1)).v;
  const Bits twice = (Bits)((typename Mask<T>::Bits)x.v < 0) & up;
  const Bits power = (Bits)scaled_exp(x, Vec<T>(E::integers - E::k)).v + twice, back = (Bits)Vec<T>(E::scale).v - twice;
  using V = typename Native<T>::type;
  return fma(Vec<T>((V)power), Vec<T>((V)back), x - x);  // NaN stays
}
TENSOROPS_INLINE Vec<float> exp(Vec<float> x) {
  const Vec<float> bounded = clamp(x, -104.0f, 89.0f);
#if defined(__AVX512F__)
  const auto [r, n] = reduce_by_ln2(bounded);
  return scale_by_power_of_two(expm1_of_reduced(r) + 1.0f, n);
#else
  return exp_of_either_sign(bounded);
#endif
}

// 1 / (1 + exp(-x)), or exp(x) / (1 + exp(x)) where x is negative; 2.8 ulp.
template <class T>
TENSOROPS_INLINE Vec<T> sigmoid(Vec<T> x) {
  using E = Term<T>;
  const Vec<T> bounded = maximum(minus_abs(x), E::lowest), e = scaled_exp(bounded, Vec<T>(E::integers + E::k));
  const Vec<T> one = bounded - bounded + T(1);  // NaN stays
  const Vec<T> inverse = one / fma(e, Vec<T>(1 / Term<T>::scale), Vec<T>(T(1)));
  return select_by_sign(x, unscaled(e * inverse), inverse);
}

// 2^n 2^r with |r| <= 1/2; 1 ulp.
constexpr float kExp2[] = {1.535336050e-04f, 1.339887502e-03f, 9.618436918e-03f, 5.550332367e-02f, 2.402264774e-01f,
                           6.931471825e-01f, 1.0f};
TENSOROPS_INLINE Vec<float> exp2(Vec<float> x) {
  const Vec<float> bounded = clamp(x, -151.0f, 129.0f), n = round_to_integer(bounded);
  return scale_by_power_of_two(polynomial(bounded - n, kExp2), n);
}

// A quarter of exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), which is finite where sinh and cosh are. n = 0 where x is small.
TENSOROPS_INLINE Vec<float> quarter_expm1(Vec<float> x) {
  const auto [r, n] = reduce_by_ln2(clamp(x, -104.0f, 89.5f));
  const Vec<float> power = scale_by_power_of_two(Vec<float>(0.25f), n);
  return fma(expm1_of_reduced(r), power, power - 0.25f);
}
// 1.5, 1.6 and 1.6 ulp.
TENSOROPS_INLINE Vec<float> expm1(Vec<float> x) { return select(abs(x) < 0x1p-24f, x, 4.0f * quarter_expm1(x)); }
// x + x^3 p(x^2) up to 1.
constexpr float kSinh[] = {2.816951337e-06f, 1.983615948e-04f, 8.333349600e-03f, 1.666666716e-01f};
TENSOROPS_INLINE Vec<float> sinh(Vec<float> x) {
  const Vec<float> magnitude = abs(x), s = x * x, q = quarter_expm1(magnitude);
  const Vec<float> small = fma(x * s, polynomial(s, kSinh), x);
  const Vec<float> large = 2.0f * (q + q / fma(q, Vec<float>(4.0f), Vec<float>(1.0f)));
  return copysign(select(magnitude < 1.0f, small, large), x);
}
TENSOROPS_INLINE Vec<float> cosh(Vec<float> x) {
  const Vec<float> quarter = quarter_expm1(abs(x)) + 0.25f;
  return 2.0f * (quarter + 0.0625f / quarter);
}

// Odd polynomial near zero, 1 - 2 / (exp(2|x|) + 1) beyond; 1.3 ulp.
constexpr float kTanh[] = {-5.905860569e-03f, 2.080537751e-02f, -5.378668010e-02f, 1.333195865e-01f, -3.333329856e-01f};
TENSOROPS_INLINE Vec<float> tanh(Vec<float> x) {
  const Vec<float> magnitude = abs(x), s = x * x, small = fma(x * s, polynomial(s, kTanh), x);
  const Vec<float> e = scaled_exp(minimum(magnitude + magnitude, 20.0f), Vec<float>(0x1.8p23f)), large = 1.0f - 2.0f / (e + 1.0f);
  return copysign(select(magnitude >= 0.6f, large, small), x);  // NaN is small
}

#if defined(__FMA__)  // without it what these round away is too much: libm's stand there
// x = n pi/2 + r with pi/2 in three parts: n times the first two cancels x without loss where r is small. Then
// sin(r) = r + r^3 p(r^2), cos(r) = 1 - r^2/2 + r^4 p(r^2) for |r| <= pi/4; 1.6 ulp.
constexpr float kSin[] = {-1.950694132e-04f, 8.332099766e-03f, -1.666665375e-01f};
constexpr float kCos[] = {2.442362347e-05f, -1.388723380e-03f, 4.166664556e-02f};
constexpr float kFarFromZero = 0x1p16f;
TENSOROPS_INLINE Vec<float> sin_of_quarters(Vec<float> x, int32_t quarters) {  // sin(x + quarters pi/2)
  const Vec<float> n = round_to_integer(x * 0.636619772f);
  Vec<float> r = fma(n, Vec<float>(-0x1.921fb6p0f), x);
  r = fma(n, Vec<float>(0x1.777a5cp-25f), r);
  r = fma(n, Vec<float>(0x1.ee59dap-50f), r);
  const Vec<float> s = r * r, sine = fma(r * s, polynomial(s, kSin), r);
  const Vec<float> cosine = fma(s * s, polynomial(s, kCos), fma(s, Vec<float>(-0.5f), Vec<float>(1.0f)));
  const FloatBits turn = __builtin_convertvector(n.v, FloatBits) + quarters;
  const Vec<float> value = select(Mask<float>{(turn & 1) != 0}, cosine, sine);
  return Vec<float>((Native<float>::type)((FloatBits)value.v ^ ((turn & 2) << 30)));
}
TENSOROPS_INLINE Vec<float> sin_near_zero(Vec<float> x) { return select(x == 0.0f, x, sin_of_quarters(x, 0)); }
TENSOROPS_INLINE Vec<float> cos_near_zero(Vec<float> x) { return sin_of_quarters(x, 1); }
#endif

// asin(x) = root + root^3 p(root^2) up to 1/2; beyond it is pi/2 - 2 asin(root) of root = sqrt((1 - x) / 2).
constexpr float kAsin[] = {4.216628522e-02f, 2.417952567e-02f, 4.547037557e-02f, 7.495297492e-02f, 1.666675210e-01f};
constexpr float kHalfPi = 0x1.921fb6p0f, kHalfPiLow = -0x1.777a5cp-25f;
struct AsinParts {
  Vec<float> root, rest;
  Mask<float> small;
};
TENSOROPS_INLINE AsinParts asin_parts(Vec<float> magnitude) {
  const Mask<float> small = magnitude <= 0.5f;
  const Vec<float> s = select(small, magnitude * magnitude, fma(magnitude, Vec<float>(-0.5f), Vec<float>(0.5f)));
  const Vec<float> root = select(small, magnitude, sqrt(s));
  return {root, root * s * polynomial(s, kAsin), small};
}
// 1.8 and 1.3 ulp.
TENSOROPS_INLINE Vec<float> asin(Vec<float> x) {
  const auto [root, rest, small] = asin_parts(abs(x));
  const Vec<float> low = fma(rest, Vec<float>(-2.0f), Vec<float>(kHalfPiLow));
  return copysign(select(small, root + rest, fma(root, Vec<float>(-2.0f), Vec<float>(kHalfPi)) + low), x);
}
TENSOROPS_INLINE Vec<float> acos(Vec<float> x) {
  const auto [root, rest, small] = asin_parts(abs(x));
  const Vec<float> value = root + rest, inner = kHalfPi - (copysign(value, x) - kHalfPiLow);
  const Vec<float> outer = select(x < 0.0f, fma(value, Vec<float>(-2.0f), Vec<float>(2 * kHalfPi)), value + value);
  return select(small, inner, outer);
}

// t + t^3 p(t^2) up to 1, pi/2 - atan(1/x) beyond; 1.5 ulp.
constexpr float kAtan[] = {-1.793593867e-03f, 1.091448124e-02f, -3.117761388e-02f, 5.795735866e-02f, -8.403436840e-02f,
                           1.095218137e-01f, -1.426424086e-01f, 1.999854892e-01f, -3.333329856e-01f};
TENSOROPS_INLINE Vec<float> atan(Vec<float> x) {
  const Vec<float> magnitude = abs(x);
  const Mask<float> large = magnitude > 1.0f;
  const Vec<float> t = select(large, 1.0f / magnitude, magnitude), s = t * t, value = fma(t * s, polynomial(s, kAtan), t);
  return copysign(select(large, kHalfPi - (value - kHalfPiLow), value), x);
}

// x + x p(x^2) up to 1.1, 1 - g(|x|)^8 beyond, as the eighth root of erfc is close to a line; 1 in f32 from 3.93 on;
// 2.1 ulp, without FMA 2.4.
constexpr float kErf[] = {7.121521776e-05f, -7.783187903e-04f, 5.161996931e-03f, -2.683977783e-02f, 1.128324866e-01f,
                          -3.761259615e-01f, 1.283791661e-01f};
constexpr float kErfcRoot[] = {1.593643974e-04f, -2.571837977e-03f, 1.337228157e-02f, -1.239197515e-02f,
                               -6.014692411e-02f, -1.459004730e-01f, 1.001060009e+00f};
TENSOROPS_INLINE Vec<float> erf(Vec<float> x) {
  const Vec<float> t = minimum(abs(x), 3.95f), g = polynomial(t, kErfcRoot), g2 = g * g, g4 = g2 * g2;
  const Vec<float> small = fma(polynomial(x * x, kErf), x, x), large = fma(-g4, g4, Vec<float>(1.0f));
  return copysign(select(t < 1.1f, small, large), x);
}

// The normal distribution's, for gelu: 1/2 + x p(x^2) up to 1.55, g(|x|)^8 left of it and, from 1, right of it, up to 5.6.
// x cdf(x) is good to 1.6 ulp where x is positive and to 1.1e-7 where it is negative (torch's to 4.7 and 1.0e-6).
constexpr float kCdf[] = {3.793753933e-07f, -8.483702914e-06f, 1.136980645e-04f, -1.185600297e-03f, 9.972657077e-03f,
                          -6.649016589e-02f, 3.989422619e-01f};
constexpr float kCdfRoot[] = {1.876143324e-05f, -4.242890573e-04f, 3.110532416e-03f, -4.160294309e-03f,
                              -2.732779086e-02f, -9.483318031e-02f, 9.180614948e-01f};
TENSOROPS_INLINE Vec<float> normal_cdf(Vec<float> x) {
  const Vec<float> t = abs(x), g = polynomial(minimum(t, 5.6f), kCdfRoot), g2 = g * g, g4 = g2 * g2;
  const Vec<float> near = fma(polynomial(x * x, kCdf), x, Vec<float>(0.5f));
  const Vec<float> tail = select(t > 5.6f, Vec<float>(0.0f), g4 * g4), far = select(x < 0.0f, tail, 1.0f - tail);
  return select(t < 1.55f, near, far);
}

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
