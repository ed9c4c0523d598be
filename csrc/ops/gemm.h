// A matrix product with a fused epilogue, as every room's kernels are told of it. No torch here.
//
//   c = activation(alpha * (a @ b) + beta * source), for each of `batches` matrices
#pragma once

#include "ops/dtype.h"

namespace tensorops {

enum class GemmActivation : int { none, relu, gelu, gelu_tanh, sigmoid, tanh, silu };

// A factor of the epilogue: `real` is read by floating compute types, `integer` by integer ones.
struct GemmScalar {
  double real = 1;
  int64_t integer = 1;
};

// All strides count elements and may be anything, 0 included.
struct GemmOperand {
  const void* data = nullptr;
  int64_t row = 0, column = 0, batch = 0;
};

struct GemmProblem {
  DType dtype = DType::f32;  // of all operands
  int64_t batches = 1, m = 0, n = 0, k = 0;
  GemmOperand a, b;          // m x k, k x n
  GemmOperand source;        // nothing is added where its data is null; it may be c itself, element by element
  void* c = nullptr;         // m x n, its elements distinct
  int64_t c_row = 0, c_column = 0, c_batch = 0;
  GemmScalar alpha, beta;
  GemmActivation activation = GemmActivation::none;  // floating dtypes only
  bool sums_batches = false;  // c is one matrix, of the sum of all products
};

}  // namespace tensorops
