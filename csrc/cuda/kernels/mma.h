// Tensor-core products of one warp (mma.sync, from sm_80), one function per element type: D = A B + D in f32.
//
// With g = lane / 4 and t = lane % 4, a lane holds (PTX ISA, "Matrix fragments for mma.m16n8k16 / m16n8k8"):
//   16-bit: a[0..3] = A[g][2t..], A[g+8][2t..], A[g][2t+8..], A[g+8][2t+8..]   two neighbours in k each
//           b[0..1] = B[2t..][g], B[2t+8..][g]
//   tf32:   a[0..3] = A[g][t], A[g+8][t], A[g][t+4], A[g+8][t+4];  b[0..1] = B[t][g], B[t+4][g]
//   d[0..3] = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]
#pragma once

#include "cuda/kernels/common.h"

namespace tensorops::cuda {
namespace {

// What an operand is kept as in shared memory, and the shape of one product.
struct TF32 {
  uint32_t bits;
};
template <class E>
constexpr int kMmaDepth = sizeof(E) == 2 ? 16 : 8;

#if !defined(TENSOROPS_EMULATE_CUDA)
template <class E>
TENSOROPS_DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<E, Half>)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else if constexpr (std::is_same_v<E, BFloat16>)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Round to nearest, ties away: what the tensor cores' tf32 input expects.
TENSOROPS_DEVICE uint32_t to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
#else
TENSOROPS_DEVICE uint32_t to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x1000u) & ~0x1fffu;
}
// The value of element `i` (0 or 1) of a fragment register.
template <class E>
TENSOROPS_DEVICE float mma_element(uint32_t bits, int i) {
  if constexpr (std::is_same_v<E, TF32>) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
  } else {
    const uint16_t half = static_cast<uint16_t>(bits >> (16 * i));
    E x;
    memcpy(&x, &half, 2);
    return load_as<float>(x);
  }
}
template <class E>
TENSOROPS_DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  constexpr int kPerRegister = std::is_same_v<E, TF32> ? 1 : 2;
  for (int half = 0; half < 2; ++half)
    for (int source = 0; source < 4; ++source) {
      const uint32_t upper = __shfl_sync(0xffffffffu, a[2 * half], g * 4 + source);
      const uint32_t lower = __shfl_sync(0xffffffffu, a[2 * half + 1], g * 4 + source);
      const uint32_t left = __shfl_sync(0xffffffffu, b[half], (2 * t) * 4 + source);
      const uint32_t right = __shfl_sync(0xffffffffu, b[half], (2 * t + 1) * 4 + source);
      for (int i = 0; i < kPerRegister; ++i) {
        d[0] += mma_element<E>(upper, i) * mma_element<E>(left, i);
        d[1] += mma_element<E>(upper, i) * mma_element<E>(right, i);
        d[2] += mma_element<E>(lower, i) * mma_element<E>(left, i);
        d[3] += mma_element<E>(lower, i) * mma_element<E>(right, i);
      }
    }
}
#endif

}  // namespace
}  // namespace tensorops::cuda
