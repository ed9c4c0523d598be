// Our own f64 function, as those of f32; the error stated is the largest found against 80-bit arithmetic at four million points.
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
TENSOROPS_INLINE Vec<double> exp_from(Vec<double> x, double low) {
  const Vec<double> bounded = clamp(x, low, 710.0), n = round_to_integer(bounded * 0x1.71547652b82fep0);
  Vec<double> r = fma(n, Vec<double>(-0x1.62e42fefa38p-1), bounded);
  r = fma(n, Vec<double>(-0x1.ef35793c7673p-45), r);
  return scale_by_power_of_two(fma(r * r, polynomial(r, kExpF64), r) + 1.0, n);
}
TENSOROPS_INLINE Vec<double> exp(Vec<double> x) { return exp_from(x, -746.0); }

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
