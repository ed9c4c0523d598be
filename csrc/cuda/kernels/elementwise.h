// Launchers of the elementwise table. Two kernels per row: `contiguous` moves 16 bytes at a time over operands that lie
// alike in memory and have the row's natural dtypes; `strided` takes any dtypes and strides.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/dtype.h"
#include "ops/elementwise_table.h"

namespace tensorops::cuda {

// A number from the host, as floating point and as an integer; a kernel reads the one of its compute type.
struct Constant {
  double real = 0;
  int64_t integer = 0;
};

// The natural dtypes: every input has the compute dtype S of the table's file, but `where`'s condition is bool; the
// output has S, but a predicate's is bool.
struct ContiguousElementwise {
  void* out;
  const void* in[3] = {};  // null: the operand is constant[i]
  Constant constant[3];
  Constant scalars[3];  // the op's own arguments
  int64_t n;
};

constexpr int kMaxDims = 8;
// At most 2^31 - 1 elements, and as many bytes between an operand's first and last one.
struct StridedElementwise {
  DType common;  // what the inputs are converted to before they are computed with
  int dims;
  int64_t sizes[kMaxDims];  // innermost first
  void* out;
  DType out_dtype;
  int64_t out_strides[kMaxDims];  // in bytes
  const void* in[3] = {};         // null: the operand is constant[i]
  DType in_dtype[3] = {};
  int64_t in_strides[3][kMaxDims];
  Constant constant[3];
  Constant scalars[3];
};

// Null where the op is not defined on that compute type.
using ContiguousLauncher = void (*)(const ContiguousElementwise&, cudaStream_t);
using StridedLauncher = void (*)(const StridedElementwise&, cudaStream_t);

extern const ContiguousLauncher elementwise_contiguous_f32[kElementwiseCount];
extern const ContiguousLauncher elementwise_contiguous_f64[kElementwiseCount];
extern const ContiguousLauncher elementwise_contiguous_f16[kElementwiseCount];
extern const ContiguousLauncher elementwise_contiguous_bf16[kElementwiseCount];
extern const ContiguousLauncher elementwise_contiguous_i32[kElementwiseCount];
extern const ContiguousLauncher elementwise_contiguous_i64[kElementwiseCount];
extern const StridedLauncher elementwise_strided_f32[kElementwiseCount];
extern const StridedLauncher elementwise_strided_f64[kElementwiseCount];
extern const StridedLauncher elementwise_strided_i32[kElementwiseCount];
extern const StridedLauncher elementwise_strided_i64[kElementwiseCount];

}  // namespace tensorops::cuda
