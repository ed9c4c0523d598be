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

}  // namespace
}  // namespace tensorops::cuda
