// Stands in for csrc/cuda/kernels/mma.h: a warp's tensor-core product, as the PTX ISA lays its fragments out among the lanes.
// Every lane hands over its registers, the product of whole matrices is formed from them, and each lane takes its part.
#pragma once

#include "cuda/kernels/common.h"

namespace tensorops::cuda {
namespace {

struct TF32 {
  uint32_t bits;
};
template <class E>
constexpr int kMmaDepth = sizeof(E) == 2 ? 16 : 8;

inline uint32_t to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & ~0x1fffu : bits;
}

// The value of the i-th element of a register. Tensor cores ignore the 13 low bits of a tf32.
template <class E>
float mma_element(uint32_t bits, int i) {
  if constexpr (std::is_same_v<E, TF32>) {
    bits &= ~0x1fffu;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  } else {
    const auto half = static_cast<uint16_t>(bits >> (16 * i));
    E x;
    std::memcpy(&x, &half, 2);
    return load_as<float>(x);
  }
}

template <class E>
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Registers {
    uint32_t a[4], b[2];
  };
  constexpr int kPerRegister = std::is_same_v<E, TF32> ? 1 : 2, kHalf = kMmaDepth<E> / 2;
  Registers own;
  std::memcpy(own.a, a, sizeof(own.a));
  std::memcpy(own.b, b, sizeof(own.b));
  emulate::with_warp(own, [&](auto of_lane) {
    // A[row][k] and B[k][column] from the lane and register that hold them.
    const auto element_a = [&](int row, int k) {
      const Registers& from = of_lane(row % 8 * 4 + k % kHalf / kPerRegister);
      return mma_element<E>(from.a[row / 8 + 2 * (k / kHalf)], k % kPerRegister);
    };
    const auto element_b = [&](int k, int column) {
      return mma_element<E>(of_lane(column * 4 + k % kHalf / kPerRegister).b[k / kHalf], k % kPerRegister);
    };
    const int lane = threadIdx.x % kWarp;
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < kMmaDepth<E>; ++k) d[i] += element_a(row, k) * element_b(k, column);
    }
  });
}

}  // namespace
}  // namespace tensorops::cuda
