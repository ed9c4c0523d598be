// Inner kernels of matrix multiplication, shared by the matmul and convolution families: pack two operands into panels,
// then call the micro-kernel on every pair of panels.
//
//   panel of A: mr rows,    element (i, p) at a[p * mr + i]
//   panel of B: nr columns, element (p, j) at b[p * nr + j]
//
// Panels hold the compute type (compute_type(dtype): f32 for bf16 and f16); packing converts and absorbs any strides. The
// rows or columns that a panel lacks hold numbers that nobody uses. Each element of C is one chain of multiply-adds in the order of p,
// whatever the tile's size, so results depend on how k is cut and on nothing else.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/ahead.h"
#include "cpu/kernels/dtype.h"
#include "ops/gemm.h"

namespace tensorops::cpu {

// c = activation(alpha * (a @ b) + beta * source). All strides count elements.
//
// The source is anything that broadcasts: a bias per column has strides (0, 1), one per row (1, 0), a matrix its own. It may
// alias c element by element. A null tile.source means no source.
struct GemmEpilogue {
  GemmScalar alpha, beta;
  DType c_type = DType::f32;
  int64_t c_row = 0, c_column = 1;
  DType source_type = DType::f32;
  int64_t source_row = 0, source_column = 0;
  GemmActivation activation = GemmActivation::none;  // floating compute types only
};

// A tile of C, or some side by side or one below the other: to come and go once for all saves 3 to 20 % of their time. Packed
// operands have a_row = 1, a_step = mr, b_step = nr. Operands of the compute type may also be read where they lie: A with any
// strides, B with adjacent columns, of which whole vectors are read.
struct GemmTile {
  int64_t k = 0;                   // 0 is allowed: the product is zero
  int64_t rows = 0, columns = 0;   // 1 to mr, 1 to nr; more columns for tiles side by side
  int64_t row_panels = 1;          // tiles one below the other, then of nr columns at most
  const void* a = nullptr;
  int64_t a_row = 1, a_step = 0;
  const void* b = nullptr;
  int64_t b_step = 0, b_column = 1;
  int64_t a_panel = 0, b_panel = 0;  // from one tile's operand to the next one's
  void* c = nullptr;
  const void* source = nullptr;
  // Steps of one chain: a chain is summed by itself, then added to those before it. For the micro-kernels only, as are these:
  int64_t chain = INT64_MAX;
  // Of a product that is made in several calls, one after the other along k, all but the last leave their sums here, in the
  // compute type, from where the next ones take them. This may be C, where its columns are adjacent and of that type. A source
  // is met by the first call where it is so too, and by the last otherwise: then it must not alias the sums.
  bool first = true, last = true;
  void* sums = nullptr;
  int64_t sums_row = 0;
  FetchAhead* ahead = nullptr;
};
using GemmMicroKernel = void (*)(const GemmTile&, const GemmEpilogue&);

struct GemmTileSize {
  int mr, nr, vector;
};

// Packs `lanes` rows of A (or columns of B) over k steps into ceil(lanes / width) panels of `width` lanes (mr or nr),
// each width * k elements long. Strides count elements of the source's dtype.
using GemmPack = void (*)(const void* from, int64_t lane_stride, int64_t step_stride, int64_t lanes, int64_t k, int width,
                          void* to);

// Up to this many rows need no packing at all: the skinny kernels read each element of B once, where it lies.
constexpr int64_t kSkinnyRows = 4;

struct GemmKernels {
  GemmTileSize size[static_cast<int>(Compute::count)];
  GemmMicroKernel micro[static_cast<int>(Compute::count)];
  GemmPack pack[static_cast<int>(DType::count)];
  // Up to kSkinnyRows rows and any number of columns; A and B have the given storage dtype, null for integers.
  // dot: a_step = b_step = 1, so that vectors run along k. axpy: b_column = 1, vectors run along the columns.
  GemmMicroKernel dot[static_cast<int>(DType::count)];
  GemmMicroKernel axpy[static_cast<int>(DType::count)];
};

TENSOROPS_DECLARE_KERNELS(GemmKernels, gemm_kernels)

// Products of bf16 by the instruction that adds two of them to a sum in f32. A panel's element is a pair, steps 2p and
// 2p + 1 of k side by side, the last of an odd k with a zero; a tile's k, a_step and b_step count pairs.
struct GemmBf16Kernels {
  GemmTileSize size;
  GemmMicroKernel micro;  // of packed operands
  GemmPack pack;          // k counts elements; a panel is width * ceil(k / 2) pairs long
};

TENSOROPS_DECLARE_BF16_KERNELS(GemmBf16Kernels, gemm_bf16_kernels)

}  // namespace tensorops::cpu
