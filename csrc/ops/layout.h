// Shapes and strides of elementwise results, by the rules of torch's TensorIterator, written once for plain and symbolic
// integers (Int = int64_t or c10::SymInt).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ExpandUtils.h>
#include <c10/core/SymInt.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <numeric>

#include "ops/elementwise.h"

namespace tensorops {

template <class Int>
using Dims = c10::SmallVector<Int, 6>;

template <class Int>
c10::ArrayRef<Int> sizes_of(const at::Tensor& t) {
  if constexpr (std::is_same_v<Int, int64_t>) return t.sizes();
  else return t.sym_sizes();
}
template <class Int>
c10::ArrayRef<Int> strides_of(const at::Tensor& t) {
  if constexpr (std::is_same_v<Int, int64_t>) return t.strides();
  else return t.sym_strides();
}

// torch.broadcast_shapes over all inputs.
template <class Int>
Dims<Int> broadcast_sizes(const Inputs& inputs) {
  const auto first = sizes_of<Int>(inputs[0]);
  Dims<Int> sizes(first.begin(), first.end());
  for (int i = 1; i < inputs.count; ++i) {
    const auto other = sizes_of<Int>(inputs[i]);
    if (other == c10::ArrayRef<Int>(sizes)) continue;
    if constexpr (std::is_same_v<Int, int64_t>) {
      const auto merged = at::infer_size_dimvector(sizes, other);
      sizes.assign(merged.begin(), merged.end());
    } else {
      const auto merged = at::infer_size_symdimvector(sizes, other);
      sizes.assign(merged.begin(), merged.end());
    }
  }
  return sizes;
}

// The order of dimensions, innermost first, in which the inputs lie in memory; ties and broadcast dimensions keep the
// order of the shape. The same insertion sort as TensorIteratorBase::reorder_dimensions.
template <class Int>
c10::SmallVector<int, 6> memory_order(const Inputs& inputs, c10::ArrayRef<Int> sizes) {
  const int ndim = static_cast<int>(sizes.size());
  c10::SmallVector<int, 6> order(ndim);
  for (int i = 0; i < ndim; ++i) order[i] = ndim - 1 - i;
  const auto stride_in = [&](const at::Tensor& t, int dim) -> Int {
    const int own = dim - (ndim - static_cast<int>(t.dim()));
    if (own < 0) return Int(0);
    if (sizes_of<Int>(t)[own] == 1 && sizes[dim] != 1) return Int(0);
    return strides_of<Int>(t)[own];
  };
  const auto should_swap = [&](int outer, int inner) {
    for (int i = 0; i < inputs.count; ++i) {
      const Int a = stride_in(inputs[i], outer), b = stride_in(inputs[i], inner);
      if (a == 0 || b == 0) continue;
      if (a < b) return -1;
      if (a > b) return 1;
      if (sizes[outer] > sizes[inner]) return 1;
    }
    return 0;
  };
  for (int i = 1; i < ndim; ++i) {
    int dim = i;
    for (int other = i - 1; other >= 0; --other) {
      const int verdict = should_swap(order[other], order[dim]);
      if (verdict > 0) {
        std::swap(order[other], order[dim]);
        dim = other;
      } else if (verdict < 0) {
        break;
      }
    }
  }
  return order;
}

// The strides torch would give the result: the inputs' own when they agree and are dense, else dense in memory order.
template <class Int>
Dims<Int> result_strides(const Inputs& inputs, c10::ArrayRef<Int> sizes) {
  const at::Tensor& first = inputs[0];
  bool alike = first.is_non_overlapping_and_dense() && sizes_of<Int>(first) == sizes;
  for (int i = 1; alike && i < inputs.count; ++i)
    alike = sizes_of<Int>(inputs[i]) == sizes && strides_of<Int>(inputs[i]) == strides_of<Int>(first);
  if (alike) {
    const auto strides = strides_of<Int>(first);
    return Dims<Int>(strides.begin(), strides.end());
  }
  Dims<Int> strides(sizes.size());
  Int next = 1;
  for (int dim : memory_order<Int>(inputs, sizes)) {
    strides[dim] = next;
    next = next * std::max<Int>(sizes[dim], Int(1));
  }
  return strides;
}

}  // namespace tensorops
