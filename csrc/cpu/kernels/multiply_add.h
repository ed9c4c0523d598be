// sum + x * y, lane by lane, for the products of gemm and convolution.
#pragma once

#include "cpu/kernels/vec.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

template <class T>
TENSOROPS_INLINE Vec<T> multiply_add(Vec<T> x, Vec<T> y, Vec<T> sum) { return fma(x, y, sum); }

// Two bf16, the first in the lower half. A product of pairs is the sum of two products, added in f32; unlike fma, the
// instruction takes subnormal operands for zeros and flushes subnormal sums to zero.
using Bf16Pair = int32_t;
#if defined(__AVX512BF16__)
TENSOROPS_INLINE Vec<float> multiply_add(Vec<Bf16Pair> x, Vec<Bf16Pair> y, Vec<float> sum) {
  return Vec<float>((Native<float>::type)_mm512_dpbf16_ps((__m512)sum.v, (__m512bh)(__m512i)x.v, (__m512bh)(__m512i)y.v));
}
#endif

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
