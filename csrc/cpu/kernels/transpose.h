// Tiles of memory transposed: elements of 1, 2, 4 or 8 bytes, whatever they mean.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace tensorops::cpu {

struct TileStrides { int64_t row, column; };  // in bytes

// to[row][column] = from[row][column], where they do not overlap. Fast where rows lie side by side in `to`, columns in `from`.
using TransposeKernel = void (*)(const void* from, TileStrides of_from, void* to, TileStrides of_to, int64_t rows, int64_t columns);

struct TransposeKernels {
  TransposeKernel of_size[4];  // by log2 of an element's bytes
};

TENSOROPS_DECLARE_KERNELS(TransposeKernels, transpose_kernels)

}  // namespace tensorops::cpu
