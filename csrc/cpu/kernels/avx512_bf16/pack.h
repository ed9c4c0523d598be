// Panels of pairs of bf16 for the products of gemm and convolution.
#pragma once

#include "cpu/kernels/convert.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/multiply_add.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

using Pairs = Vec<Bf16Pair>;

TENSOROPS_INLINE Bf16Pair pair_of(BFloat16 first, BFloat16 second) {
  return static_cast<Bf16Pair>(uint32_t(first.bits) | uint32_t(second.bits) << 16);
}

// Element i of `first` beside element i of `second`, for n <= 16 of them; a null `second` is zeros.
TENSOROPS_INLINE Pairs interleave(const BFloat16* first, const BFloat16* second, int64_t n) {
  const auto mask = static_cast<__mmask16>((1u << (n > 0 ? n : 0)) - 1);
  __m512i pairs = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first));
  if (second != nullptr)
    pairs = _mm512_or_si512(pairs,
                            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, second)), 16));
  return Pairs((Pairs::V)pairs);
}
// The same of two vectors' pairs.
TENSOROPS_INLINE void interleave(const BFloat16* first, const BFloat16* second, Bf16Pair* to) {
  const __m512i a = _mm512_loadu_si512(first), b = second == nullptr ? _mm512_setzero_si512() : _mm512_loadu_si512(second);
  int16_t index[2][32];
  for (int i = 0; i < 32; ++i) {
    index[0][i] = static_cast<int16_t>(i / 2 + i % 2 * 32);
    index[1][i] = static_cast<int16_t>(16 + i / 2 + i % 2 * 32);
  }
  for (int half = 0; half < 2; ++half)
    _mm512_storeu_si512(to + half * Pairs::size, _mm512_permutex2var_epi16(a, _mm512_loadu_si512(index[half]), b));
}

// One panel of `width` lanes, the first `lanes` of which exist: panel[p * width + l] is the pair of
// first[l * lane_stride + p * step_stride] and the same element of `second`, which is null for zeros.
TENSOROPS_INLINE void pack_panel(const BFloat16* first, const BFloat16* second, int64_t lane_stride, int64_t step_stride,
                                 int64_t lanes, int64_t steps, int width, Bf16Pair* panel) {
  constexpr int kSize = Pairs::size;
  // Squares of one vector by one vector, transposed in registers; row(l, p, n) is n pairs of lane l from step p on.
  const auto transposed = [&](auto row) TENSOROPS_LAMBDA_INLINE {
    for (int l = 0; l < width; l += kSize)
      for (int64_t p = 0; p < steps; p += kSize) {
        const int64_t n = steps - p < kSize ? steps - p : kSize;
        Pairs square[kSize];
#pragma GCC unroll 16
        for (int i = 0; i < kSize; ++i) square[i] = l + i < lanes ? row(l + i, p, n) : Pairs(0);
        transpose<Bf16Pair>(square);
#pragma GCC unroll 16
        for (int i = 0; i < kSize; ++i)
          if (i < n) store_lanes(square[i], panel + (p + i) * width + l, width - l);
      }
  };
  if (second == first + 1 && step_stride == 2) {
    transposed([&](int64_t lane, int64_t p, int64_t n) TENSOROPS_LAMBDA_INLINE {
      const BFloat16* from = first + lane * lane_stride + 2 * p;
      const auto mask = static_cast<__mmask16>((1u << n) - 1);
      return Pairs((Pairs::V)_mm512_maskz_loadu_epi32(mask, from));
    });
  } else if (lane_stride == 1) {
    int l = 0;
    for (; l + 2 * kSize <= lanes; l += 2 * kSize)
      for (int64_t p = 0; p < steps; ++p) {
        const int64_t at = p * step_stride + l;
        interleave(first + at, second == nullptr ? nullptr : second + at, panel + p * width + l);
      }
    for (; l < width; l += kSize) {
      const int64_t n = lanes - l < kSize ? lanes - l : kSize;
      for (int64_t p = 0; p < steps; ++p) {
        const int64_t at = p * step_stride + l;
        store_lanes(interleave(first + at, second == nullptr ? nullptr : second + at, n), panel + p * width + l, width - l);
      }
    }
  } else if (step_stride == 1) {
    transposed([&](int64_t lane, int64_t p, int64_t n) TENSOROPS_LAMBDA_INLINE {
      const int64_t at = lane * lane_stride + p;
      return interleave(first + at, second == nullptr ? nullptr : second + at, n);
    });
  } else {
    for (int64_t p = 0; p < steps; ++p, panel += width) {
      for (int64_t l = 0; l < lanes; ++l) {
        const int64_t at = l * lane_stride + p * step_stride;
        panel[l] = pair_of(first[at], second == nullptr ? BFloat16{0} : second[at]);
      }
      for (int64_t l = lanes; l < width; ++l) panel[l] = 0;
    }
  }
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
