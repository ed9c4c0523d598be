// sin, cos and their inverses of our own, in f32. Coefficients and errors: see vec_math.h.
#pragma once

#include "cpu/kernels/vec_basic.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

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

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
