// Matrix products on the GPU, on raw pointers: C = alpha A B + beta source + bias, with any strides and batches.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/dtype.h"

namespace tensorops::cuda {

// Strides in elements; a stride of zero broadcasts.
struct GemmOperand {
  const void* data = nullptr;
  int64_t row = 0, column = 0, batch = 0;
};

enum class GemmActivation : int { none, relu, gelu, gelu_tanh, sigmoid, tanh, silu };

struct GemmProblem {
  DType dtype;               // f32, f64, bf16 or f16, of all operands
  int64_t m, n, k, batches;
  GemmOperand a, b;          // A: m x k, B: k x n
  GemmOperand source;        // added times beta; absent when its data is null
  const void* bias = nullptr;  // one value per column, added last
  void* c = nullptr;         // m x n
  int64_t c_row, c_column, c_batch;
  double alpha = 1, beta = 0;
  GemmActivation activation = GemmActivation::none;
  bool allow_tf32 = false;   // f32 on tensor cores, with 10 bits of mantissa in the factors
};

void launch_gemm(const GemmProblem& problem, cudaStream_t stream);

}  // namespace tensorops::cuda
