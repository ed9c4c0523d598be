// Inner elementwise kernels: one contiguous run of one compute type. Other dtypes and strides are brought into that form
// by load and store, a block at a time in the L1 cache, so that an op needs no kernel of its own per dtype.
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

using ElementwiseKernel = void (*)(const ElementwiseParams&, void* out, const void* const* in, int64_t n);
// Reads n elements, `stride` bytes apart, into a contiguous run of a compute type.
using LoadKernel = void (*)(const void* from, int64_t stride, void* to, int64_t n);
// The way back.
using StoreKernel = void (*)(const void* from, void* to, int64_t stride, int64_t n);

struct ElementwiseKernels {
  // Null where the op is not defined on that compute type.
  ElementwiseKernel kernel[kElementwiseCount][static_cast<int>(Compute::count)];
  LoadKernel load[static_cast<int>(DType::count)][static_cast<int>(Compute::count)];
  StoreKernel store[static_cast<int>(Compute::count)][static_cast<int>(DType::count)];
};

TENSOROPS_DECLARE_KERNELS(ElementwiseKernels, elementwise_kernels)

}  // namespace tensorops::cpu
