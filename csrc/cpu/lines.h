// N operands seen as lines along one dimension, for ops that work on whole lines: scans and softmax.
#pragma once

#include <ATen/core/Tensor.h>

#include "cpu/axes.h"
#include "cpu/dtype.h"
#include "cpu/kernels/elementwise.h"
#include "ops/stable_sort.h"

namespace tensorops::cpu {

// A tile of lines that are turned to lie side by side: elements that stay in the L1 cache, and lines. Not 1024 lines, as rows
// 4 KB apart would share a set of the cache.
constexpr int64_t kTileElements = 8192, kTileColumns = 1008;

template <int N>
struct Lines {
  struct Operand {
    char* data;
    DType dtype;
    int64_t step;  // bytes from one element of a line to the next
  };
  Operand operands[N];
  Axes<N> axes;   // the other dimensions, innermost of the last operand first
  int64_t length;  // of a line
  int64_t count;   // of lines

  // All tensors have the shape of the last, which is the result.
  Lines(const at::Tensor* const (&tensors)[N], int64_t dim) {
    const at::Tensor& shape = *tensors[N - 1];
    length = shape.dim() == 0 ? 1 : shape.size(dim);
    for (int k = 0; k < N; ++k) {
      const at::Tensor& t = *tensors[k];
      operands[k] = {static_cast<char*>(const_cast<void*>(t.const_data_ptr())), dtype_of(t.scalar_type()),
                     shape.dim() == 0 ? 0 : t.stride(dim) * static_cast<int64_t>(t.element_size())};
    }
    for (int64_t i = shape.dim() - 1; i >= 0; --i) {
      if (i == dim || shape.size(i) == 1) continue;
      Axis<N> axis{shape.size(i), {}};
      for (int k = 0; k < N; ++k) axis.stride[k] = tensors[k]->stride(i) * static_cast<int64_t>(tensors[k]->element_size());
      axes.push_back(axis);
    }
    stable_sort(axes.begin(), axes.end(), [](const Axis<N>& a, const Axis<N>& b) { return a.stride[N - 1] < b.stride[N - 1]; });
    coalesce(axes);
    count = cpu::count(axes);
  }

  // Starts at the far end of every line.
  void reverse() {
    for (Operand& o : operands) {
      o.data += (length - 1) * o.step;
      o.step = -o.step;
    }
  }
  // Lines [first, first + m) of operand k into a tile whose rows are their elements, or back.
  void move_tile(int k, char* tile, int64_t first, int64_t m, bool back) const {
    const Operand& operand = operands[k];
    const TransposeKernel transpose = transposer(operand.dtype);
    const int64_t size = element_size(operand.dtype), next = inner_stride(axes, k);
    for_pieces(axes, first, first + m, [&](const int64_t (&offset)[N], int64_t n) {
      char* const lines = operand.data + offset[k];
      if (back) transpose(tile, {m * size, size}, lines, {operand.step, next}, length, n);
      else transpose(lines, {next, operand.step}, tile, {size, m * size}, n, length);
      tile += n * size;
    });
  }
  // Whether lines lie one after another in the result, each contiguous.
  bool contiguous_lines() const {
    const Operand& result = operands[N - 1];
    return count == 1 || std::abs(result.step) <= axes[0].stride[N - 1];
  }
};

inline LoadKernel loader(DType from, Compute to) {
  return TENSOROPS_KERNELS(elementwise_kernels).load[static_cast<int>(from)][static_cast<int>(to)];
}
inline StoreKernel storer(Compute from, DType to) {
  return TENSOROPS_KERNELS(elementwise_kernels).store[static_cast<int>(from)][static_cast<int>(to)];
}

}  // namespace tensorops::cpu
