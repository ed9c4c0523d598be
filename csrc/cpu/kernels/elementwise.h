// Inner elementwise kernels: contiguous runs of a compute type, of bf16 or of f16. Other dtypes and strides are brought
// into the form of the compute type by load and store, a block at a time in the L1 cache, so that an op needs no kernel of
// its own per dtype.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"
#include "ops/elementwise_table.h"

namespace tensorops::cpu {

// The op's scalar arguments, as floating point and as integers.
struct ElementwiseParams {
  double real[3] = {};
  int64_t integer[3] = {};
};

// Where one call of a kernel reads and writes: a run, or rows of such, a number of bytes apart.
struct ElementwiseRun {
  void* out;
  const void* in[3];
  bool repeats[3] = {};  // the input is one element, of the compute type, for the whole run
  bool streams = false;  // the results go past the caches (then end_stream is due); runs begin at multiples of kStreamed bytes
  int64_t rows = 1;
  int64_t out_step = 0, in_step[3] = {};
};
constexpr int64_t kStreamed = 64;

// Runs of n elements.
using ElementwiseKernel = void (*)(const ElementwiseParams&, const ElementwiseRun&, int64_t n);
// Reads n elements, `stride` bytes apart, into a contiguous run of a compute type.
using LoadKernel = void (*)(const void* from, int64_t stride, void* to, int64_t n);
// The way back.
using StoreKernel = void (*)(const void* from, void* to, int64_t stride, int64_t n);

// The kernels of one op; null where it is not defined on that type.
struct OpKernels {
  ElementwiseKernel of[static_cast<int>(Compute::count)];
  // The same, but a predicate's results, or the condition of where, stored as bool. Only they have one.
  ElementwiseKernel with_bool[static_cast<int>(Compute::count)];
  // Inputs and results stored as bf16 or as f16, other than those bools.
  ElementwiseKernel of_bf16, of_f16;
};

struct ElementwiseKernels {
  OpKernels op[kElementwiseCount];
  LoadKernel load[static_cast<int>(DType::count)][static_cast<int>(Compute::count)];
  StoreKernel store[static_cast<int>(Compute::count)][static_cast<int>(DType::count)];
  void (*end_stream)();  // makes results that went past the caches visible to other threads
};

TENSOROPS_DECLARE_KERNELS(ElementwiseKernels, elementwise_kernels)

}  // namespace tensorops::cpu
