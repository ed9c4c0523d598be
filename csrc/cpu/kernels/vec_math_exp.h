// Exponentials of our own and what is made of them. Coefficients and errors: see vec_math.h.
#pragma once

#include "cpu/kernels/vec_math_log.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2)/2.
constexpr float kExp[] = {1.381314243e-03f, 8.369418792e-03f, 4.166845605e-02f, 1.666651517e-01f, 4.999999404e-01f};
constexpr double kExpF64[] = {2.49989998396715898e-08, 2.76316878545380089e-07, 2.75575971675888385e-06,
                              2.48014893507346894e-05, 1.98412694861771770e-04, 1.38888889469215566e-03,
                              8.33333333350765731e-03, 4.16666666665191435e-02, 1.66666666666663854e-01,
                              5.00000000000001221e-01};
TENSOROPS_INLINE Vec<float> exp_tail(Vec<float> r) { return polynomial(r, kExp); }
TENSOROPS_INLINE Vec<double> exp_tail(Vec<double> r) { return polynomial(r, kExpF64); }
template <class T>
TENSOROPS_INLINE Vec<T> expm1_of_reduced(Vec<T> r) { return fma(r * r, exp_tail(r), r); }

// x = n ln(2) + r
template <class T>
struct ReducedByLn2 {
  Vec<T> r, n;
};
template <class T>
TENSOROPS_INLINE Vec<T> subtract_ln2(Vec<T> x, Vec<T> n) {
  using L = Logarithms<T>;
  return fma(n, Vec<T>(-L::ln_2_low), fma(n, Vec<T>(-L::ln_2), x));
}
template <class T>
TENSOROPS_INLINE ReducedByLn2<T> reduce_by_ln2(Vec<T> x) {
  const Vec<T> n = round_to_integer(x * Logarithms<T>::log2_e);
  return {subtract_ln2(x, n), n};
}

template <class T>
struct Exponential;
template <>
struct Exponential<float> {
  static constexpr float integers = 0x1.8p23f;            // a sum with it has no fraction
  static constexpr float scale = 0x1p64f, log2_scale = 64;
  static constexpr float zero_below = -104, infinite_above = 89, lowest_term = -130, tanh_is_one_at = 10;
  static constexpr float expm1_is_x_below = 0x1p-24f, expm1_is_minus_one_below = -20, cosh_infinite_above = 89.5f;
};
template <>
struct Exponential<double> {
  static constexpr double integers = 0x1.8p52;
  static constexpr double scale = 0x1p128, log2_scale = 128;
  static constexpr double zero_below = -746, infinite_above = 710, lowest_term = -780, tanh_is_one_at = 25;
  static constexpr double expm1_is_x_below = 0x1p-53, expm1_is_minus_one_below = -40, cosh_infinite_above = 710.5;
};

// exp(x) 2^k where that is a normal number, given `integers` + k: of the sum with it n + k are the lowest bits, which one shift
// and one addition bring to those of the exponent. Of NaN anything.
template <class T>
TENSOROPS_INLINE Vec<T> scaled_exp(Vec<T> x, Vec<T> k) {
  using Bits = typename Pattern<T>::type;
  const Vec<T> t = fma(x, Vec<T>(Logarithms<T>::log2_e), k), power = expm1_of_reduced(subtract_ln2(x, t - k)) + T(1);
  return Vec<T>((typename Native<T>::type)((Bits)power.v + ((Bits)t.v << (sizeof(T) == 4 ? 23 : 52))));
}

// exp(x) `scale` for x <= 0: a term of a sum whose largest is exp(0). The scale keeps from being subnormal what without it is,
// or is zero. Of NaN anything: the sum's owner knows of it from the maximum.
template <class T>
TENSOROPS_INLINE Vec<T> exp_term(Vec<T> x) {
  using E = Exponential<T>;
  return scaled_exp(maximum(x, E::lowest_term), Vec<T>(E::integers + E::log2_scale));
}
template <class T>
TENSOROPS_INLINE T unscaled(T sum_of_terms) { return sum_of_terms * (1 / Exponential<T>::scale); }
template <class T>
TENSOROPS_INLINE Vec<T> unscaled(Vec<T> sum_of_terms) { return sum_of_terms * (1 / Exponential<T>::scale); }

// 1 ulp, in f64 1.1.
template <class T>
TENSOROPS_INLINE Vec<T> exp(Vec<T> x) {
  using E = Exponential<T>;
  const Vec<T> bounded = clamp(x, E::zero_below, E::infinite_above);
#if defined(__AVX512F__)
  const auto [r, n] = reduce_by_ln2(bounded);
  return scale_by_power_of_two(expm1_of_reduced(r) + T(1), n);
#else
  // Scaled so that it is neither subnormal nor too large, down where x is not negative and up where it is; taken back by a
  // multiplication, which rounds once.
  using Bits = typename Pattern<T>::type;
  using V = typename Native<T>::type;
  const Bits up = (Bits)Vec<T>(E::scale * E::scale).v - (Bits)Vec<T>(T(1)).v;
  const Bits twice = (Bits)((typename Mask<T>::Bits)bounded.v < 0) & up;
  const Bits power = (Bits)scaled_exp(bounded, Vec<T>(E::integers - E::log2_scale)).v + twice;
  const Bits back = (Bits)Vec<T>(E::scale).v - twice;
  return fma(Vec<T>((V)power), Vec<T>((V)back), bounded - bounded);  // NaN stays
#endif
}

// 1 / (1 + exp(-x)), or exp(x) / (1 + exp(x)) where x is negative; 2.8 ulp.
template <class T>
TENSOROPS_INLINE Vec<T> sigmoid(Vec<T> x) {
#if defined(__AVX512F__)  // where an instruction scales exp
  const Vec<T> e = exp(minus_abs(x)), inverse = T(1) / (e + T(1));
  return select_by_sign(x, e * inverse, inverse);
#else
  using E = Exponential<T>;
  const Vec<T> bounded = maximum(minus_abs(x), E::lowest_term), e = scaled_exp(bounded, Vec<T>(E::integers + E::log2_scale));
  const Vec<T> one = bounded - bounded + T(1);  // NaN stays
  const Vec<T> inverse = one / fma(e, Vec<T>(1 / E::scale), Vec<T>(T(1)));
  return select_by_sign(x, unscaled(e * inverse), inverse);
#endif
}

// 2^n 2^r with |r| <= 1/2; 1 ulp.
constexpr float kExp2[] = {1.535336050e-04f, 1.339887502e-03f, 9.618436918e-03f, 5.550332367e-02f, 2.402264774e-01f,
                           6.931471825e-01f, 1.0f};
TENSOROPS_INLINE Vec<float> exp2(Vec<float> x) {
  const Vec<float> bounded = clamp(x, -151.0f, 129.0f), n = round_to_integer(bounded);
  return scale_by_power_of_two(polynomial(bounded - n, kExp2), n);
}

// x = n ln(2) + r, and a quarter of 2^n, which is finite where sinh and cosh are. n = 0 where x is small.
template <class T>
struct QuarterPower {
  Vec<T> r, power;
};
template <class T>
TENSOROPS_INLINE QuarterPower<T> quarter_power(Vec<T> x) {
  using E = Exponential<T>;
  const auto [r, n] = reduce_by_ln2(clamp(x, E::expm1_is_minus_one_below, E::cosh_infinite_above));
  return {r, power_of_two(n - T(2))};
}
// exp(x) - 1 = 2^n (r^2 p(r) + r) + (2^n - 1); 1.6 ulp, in f64 1.8. The sum of r and 1, which are not small, comes first: where
// they cancel, what is rounded before that would count.
template <class T>
TENSOROPS_INLINE Vec<T> expm1(Vec<T> x) {
  const auto [r, power] = quarter_power(x);
  const Vec<T> quarter = fma(r * r * exp_tail(r), power, fma(r, power, power - T(0.25)));
  return select(abs(x) < Exponential<T>::expm1_is_x_below, x, T(4) * quarter);
}
// A quarter of it, of what is not negative.
template <class T>
TENSOROPS_INLINE Vec<T> quarter_expm1(Vec<T> x) {
  const auto [r, power] = quarter_power(x);
  return fma(expm1_of_reduced(r), power, power - T(0.25));
}
// x + x^3 p(x^2) up to 1.
constexpr float kSinh[] = {2.816951337e-06f, 1.983615948e-04f, 8.333349600e-03f, 1.666666716e-01f};
constexpr double kSinhF64[] = {7.75874892976670039e-13, 1.60572597639936146e-10, 2.50521231367917490e-08,
                               2.75573191570713781e-06, 1.98412698414318753e-04, 8.33333333333314760e-03,
                               1.66666666666666685e-01};
TENSOROPS_INLINE Vec<float> sinh_tail(Vec<float> s) { return s * polynomial(s, kSinh); }
TENSOROPS_INLINE Vec<double> sinh_tail(Vec<double> s) { return s * polynomial(s, kSinhF64); }
// 1.6 ulp, in f64 1.7.
template <class T>
TENSOROPS_INLINE Vec<T> sinh(Vec<T> x) {
  const Vec<T> magnitude = abs(x), q = quarter_expm1(magnitude);
  const Vec<T> small = fma(x, sinh_tail(x * x), x), large = T(2) * (q + q / fma(q, Vec<T>(T(4)), Vec<T>(T(1))));
  return copysign(select(magnitude < T(1), small, large), x);
}
// 1.6 ulp.
template <class T>
TENSOROPS_INLINE Vec<T> cosh(Vec<T> x) {
  const Vec<T> quarter = quarter_expm1(abs(x)) + T(0.25);
  return T(2) * (quarter + T(0.0625) / quarter);
}

// Odd polynomial near zero, 1 - 2 / (exp(2|x|) + 1) beyond; 1.3 ulp, in f64 1.4.
constexpr float kTanh[] = {-5.905860569e-03f, 2.080537751e-02f, -5.378668010e-02f, 1.333195865e-01f, -3.333329856e-01f};
constexpr double kTanhF64[] = {-1.72107571307820568e-05, 7.93770842997017364e-05, -2.30450487622773503e-04,
                               5.87214157335466560e-04, -1.45522301847708798e-03, 3.59203883676426474e-03,
                               -8.86322695480587855e-03, 2.18694880159093080e-02, -5.39682539498727645e-02,
                               1.33333333333008980e-01, -3.33333333333331316e-01};
TENSOROPS_INLINE Vec<float> tanh_tail(Vec<float> s) { return s * polynomial(s, kTanh); }
TENSOROPS_INLINE Vec<double> tanh_tail(Vec<double> s) { return s * polynomial(s, kTanhF64); }
template <class T>
TENSOROPS_INLINE Vec<T> tanh(Vec<T> x) {
  using E = Exponential<T>;
  const Vec<T> magnitude = abs(x), small = fma(x, tanh_tail(x * x), x);
  const Vec<T> e = scaled_exp(minimum(magnitude + magnitude, 2 * E::tanh_is_one_at), Vec<T>(E::integers));
  const Vec<T> large = T(1) - T(2) / (e + T(1));
  return copysign(select(magnitude >= T(0.6), large, small), x);  // NaN is small
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
