// Tiles of memory transposed: elements of 1, 2, 4 or 8 bytes, whatever they mean.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace tensorops::cpu {

// to[column][row] = from[row][column]; `row` and `column` are the strides of `from` in bytes, `to` is dense.
using TransposeKernel = void (*)(const void* from, int64_t row, int64_t column, void* to, int64_t rows, int64_t columns);

struct TransposeKernels {
  TransposeKernel of_size[4];  // by log2 of an element's bytes
};

TENSOROPS_DECLARE_KERNELS(TransposeKernels, transpose_kernels)

}  // namespace tensorops::cpu
