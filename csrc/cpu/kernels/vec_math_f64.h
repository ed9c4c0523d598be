// Our own f64 functions, as those of f32; the errors stated are the largest found against 80-bit arithmetic at four million
// points.
#pragma once

#include "cpu/kernels/vec_basic.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// exp(x) = 2^n exp(r), exp(r) = 1 + r + r^2 p(r) for |r| <= ln(2)/2; 1.1 ulp. ln(2) in two parts, the first with trailing
// zeros, so that n times it is exact.
constexpr double kExpF64[] = {2.49989998396715898e-08, 2.76316878545380089e-07, 2.75575971675888385e-06,
                              2.48014893507346894e-05, 1.98412694861771770e-04, 1.38888889469215566e-03,
                              8.33333333350765731e-03, 4.16666666665191435e-02, 1.66666666666663854e-01,
                              5.00000000000001221e-01};
TENSOROPS_INLINE Vec<double> exp_of_reduced(Vec<double> x, Vec<double> n) {
  Vec<double> r = fma(n, Vec<double>(-0x1.62e42fefa38p-1), x);
  r = fma(n, Vec<double>(-0x1.ef35793c7673p-45), r);
  return fma(r * r, polynomial(r, kExpF64), r) + 1.0;
}

// As in f32.
TENSOROPS_INLINE Vec<double> scaled_exp(Vec<double> x, Vec<double> k) {
  const Vec<double> t = fma(x, Vec<double>(0x1.71547652b82fep0), k);
  using Bits = Pattern<double>::type;
  return Vec<double>((Native<double>::type)((Bits)exp_of_reduced(x, t - k).v + ((Bits)t.v << 52)));
}
TENSOROPS_INLINE Vec<double> exp(Vec<double> x) {
  const Vec<double> bounded = clamp(x, -746.0, 710.0);
#if defined(__AVX512F__)
  const Vec<double> n = round_to_integer(bounded * 0x1.71547652b82fep0);
  return scale_by_power_of_two(exp_of_reduced(bounded, n), n);
#else
  return exp_of_either_sign(bounded);
#endif
}

// Odd polynomial near zero, 1 - 2 / (exp(2|x|) + 1) beyond; 1.4 ulp.
constexpr double kTanhF64[] = {-1.72107571307820568e-05, 7.93770842997017364e-05, -2.30450487622773503e-04,
                               5.87214157335466560e-04, -1.45522301847708798e-03, 3.59203883676426474e-03,
                               -8.86322695480587855e-03, 2.18694880159093080e-02, -5.39682539498727645e-02,
                               1.33333333333008980e-01, -3.33333333333331316e-01};
TENSOROPS_INLINE Vec<double> tanh(Vec<double> x) {
  const Vec<double> magnitude = abs(x), s = x * x, small = fma(x * s, polynomial(s, kTanhF64), x);
  const Vec<double> e = scaled_exp(minimum(magnitude + magnitude, 50.0), Vec<double>(0x1.8p52)), large = 1.0 - 2.0 / (e + 1.0);
  return copysign(select(magnitude >= 0.6, large, small), x);  // NaN is small
}

// x + x p(x^2) up to 1.2, 1 - g(|x|)^8 beyond, as in f32; 1.8 ulp, without FMA 2.
constexpr double kErfF64[] = {4.81064606524793315e-11, -1.05620263668030718e-09, 1.44061533237411930e-08,
                              -1.63042573959867793e-07, 1.64556436462007415e-06, -1.49251798749449731e-05,
                              1.20553094390256254e-04, -8.54832623068721648e-04, 5.22397760824345157e-03,
                              -2.68661706429026877e-02, 1.12837916709400646e-01, -3.76126389031833486e-01,
                              1.28379167095512559e-01};
constexpr double kErfcRootF64[] = {1.02772068028905642e-12, -4.60810355689975429e-11, 9.28349081443591925e-10,
                                   -1.07880897883621073e-08, 7.63374876737325046e-08, -3.08163606900884635e-07,
                                   4.56365796789510675e-07, 1.68818516916661612e-06, -1.58781073506036866e-05,
                                   1.19242845398806645e-04, -5.65319256239746760e-04, 2.49763312479622432e-04,
                                   6.53468753624510731e-03, -2.05592947140709062e-03, -6.96438352551951578e-02,
                                   -1.41044064771857547e-01, 9.99999617791359818e-01};
TENSOROPS_INLINE Vec<double> erf(Vec<double> x) {
  const Vec<double> t = minimum(abs(x), 5.93), g = polynomial(t, kErfcRootF64), g2 = g * g, g4 = g2 * g2;
  const Vec<double> small = fma(polynomial(x * x, kErfF64), x, x), large = fma(-g4, g4, Vec<double>(1.0));
  return copysign(select(t < 1.2, small, large), x);
}

// 1/2 + x p(x^2) up to 1.7, g(|x|)^8 left of it and, from 1, right of it, up to 8.3, as in f32; fitted to the root of
// what is small, so that that keeps digits.
constexpr double kCdfF64[] = {4.06969151319499769e-15, -1.80807458547310969e-13, 4.96153044585974820e-12,
                              -1.12527827752148110e-10, 2.27245933079010466e-09, -4.12250177222185155e-08,
                              6.65967562647476985e-07, -9.44465493365432815e-06, 1.15434686964793596e-04,
                              -1.18732821528059465e-03, 9.97355701000123517e-03, -6.64903800669026518e-02,
                              3.98942280401432592e-01};
constexpr double kCdfRootF64[] = {3.23071206482525299e-19, -3.01258729716133058e-17, 1.31560695460674737e-15,
                                  -3.58295648645262787e-14, 6.84856731165118368e-13, -9.81641459117291941e-12,
                                  1.09913710494617036e-10, -9.80577425167463279e-10, 6.93427245595327454e-09,
                                  -3.76434981282534754e-08, 1.49203905557213388e-07, -4.08469005238753860e-07,
                                  4.38263676213856340e-07, 6.60348638476522493e-06, -5.92682617237758126e-05,
                                  3.26510357669522352e-05, 1.50659016500848337e-03, -6.73375087289977258e-04,
                                  -3.19280332778696663e-02, -9.14570786945850950e-02, 9.17003905747183712e-01};
TENSOROPS_INLINE Vec<double> normal_cdf(Vec<double> x) {
  const Vec<double> t = abs(x), g = polynomial(minimum(t, 8.3), kCdfRootF64), g2 = g * g, g4 = g2 * g2;
  const Vec<double> near = fma(polynomial(x * x, kCdfF64), x, Vec<double>(0.5));
  const Vec<double> tail = select(t > 8.3, Vec<double>(0.0), g4 * g4), far = select(x < 0.0, tail, 1.0 - tail);
  return select(t < 1.7, near, far);
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
