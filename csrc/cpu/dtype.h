// From torch's dtypes to the kernels', which are the same on every device, and what moves elements whatever they mean.
#pragma once

#include "cpu/kernels/transpose.h"
#include "ops/scalar_type.h"

namespace tensorops::cpu {
using tensorops::dtype_of;

inline TransposeKernel transposer(DType t) {
  return TENSOROPS_KERNELS(transpose_kernels).of_size[__builtin_ctzll(static_cast<unsigned long long>(element_size(t)))];
}
}
