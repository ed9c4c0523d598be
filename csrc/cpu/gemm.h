// Matrix multiplication of raw arrays, batched, with a fused epilogue: blocks, packs and threads over the kernels of
// cpu/kernels/gemm.h.
//
//   c = activation(alpha * (a @ b) + beta * source), for each of `batch` matrices
//
// How k is cut depends on the sizes alone, so results are the same for any number of threads.
#pragma once

#include "cpu/kernels/gemm.h"

namespace tensorops::cpu {

// Unlike a GemmProblem it may take source and c in other dtypes; c's elements must be distinct.
struct Gemm {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  DType type = DType::f32;      // of a and b
  GemmOperand a, b;             // m x k, k x n
  void* c = nullptr;            // m x n; strides within a matrix are epilogue.c_row and c_column
  int64_t c_batch = 0;
  const void* source = nullptr; // null: nothing is added; otherwise strides are epilogue.source_row and source_column
  int64_t source_batch = 0;
  GemmEpilogue epilogue;
};

// Panels of columns up to which rows of A are read where they lie, whatever their length.
constexpr int64_t kUnpackedPanels = 4;

void gemm(const Gemm& problem);

}  // namespace tensorops::cpu
