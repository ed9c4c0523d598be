// The loop nest of an elementwise call: sizes and byte strides, innermost dimension first, with dimensions merged where
// every operand allows it. The same on every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include "ops/elementwise.h"
#include "ops/scalar_type.h"
#include "ops/stable_sort.h"

namespace tensorops {

constexpr int kMaxOperands = 4;  // the output and up to three inputs

struct Operand {
  char* data;
  DType dtype;
  c10::SmallVector<int64_t, 6> strides;  // in bytes
};

struct Loop {
  c10::SmallVector<int64_t, 6> sizes;
  Operand operands[kMaxOperands];  // the output first
  int count = 0;
  int64_t numel = 1;
};

inline void add_operand(Loop& loop, const at::Tensor& t, void* data, c10::IntArrayRef shape, c10::ArrayRef<int> order) {
  Operand& operand = loop.operands[loop.count++];
  operand.data = static_cast<char*>(data);
  operand.dtype = dtype_of(t.scalar_type());
  const int64_t size = element_size(operand.dtype);
  const auto missing = static_cast<int64_t>(shape.size()) - t.dim();
  for (int dim : order) {
    const int64_t own = dim - missing;
    const bool broadcast = own < 0 || (t.size(own) == 1 && shape[dim] != 1);
    operand.strides.push_back(broadcast ? 0 : t.stride(own) * size);
  }
}

inline void coalesce(Loop& loop) {
  size_t kept = 0;
  for (size_t dim = 0; dim < loop.sizes.size(); ++dim) {
    if (loop.sizes[dim] == 1 && loop.sizes.size() > 1) continue;
    bool mergeable = kept > 0;
    for (int i = 0; mergeable && i < loop.count; ++i)
      mergeable = loop.operands[i].strides[dim] == loop.operands[i].strides[kept - 1] * loop.sizes[kept - 1];
    if (mergeable) {
      loop.sizes[kept - 1] *= loop.sizes[dim];
      continue;
    }
    loop.sizes[kept] = loop.sizes[dim];
    for (int i = 0; i < loop.count; ++i) loop.operands[i].strides[kept] = loop.operands[i].strides[dim];
    ++kept;
  }
  if (kept == 0) {
    loop.sizes.assign(1, 1);
    for (int i = 0; i < loop.count; ++i) loop.operands[i].strides.assign(1, 0);
    return;
  }
  loop.sizes.resize(kept);
  for (int i = 0; i < loop.count; ++i) loop.operands[i].strides.resize(kept);
}

// Dimensions from the output's innermost outwards, so that writes are as sequential as they can be.
inline c10::SmallVector<int, 6> order_of(const at::Tensor& out) {
  c10::SmallVector<int, 6> order(out.dim());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(order.size() - 1 - i);
  stable_sort(order.begin(), order.end(), [&](int a, int b) { return out.stride(a) < out.stride(b); });
  return order;
}

inline Loop make_loop(const at::Tensor& out, const Inputs& inputs) {
  Loop loop;
  const auto order = order_of(out);
  for (int dim : order) {
    loop.sizes.push_back(out.size(dim));
    loop.numel *= out.size(dim);
  }
  add_operand(loop, out, out.data_ptr(), out.sizes(), order);
  for (int i = 0; i < inputs.count; ++i)
    add_operand(loop, inputs[i], const_cast<void*>(inputs[i].const_data_ptr()), out.sizes(), order);
  coalesce(loop);
  return loop;
}

}  // namespace tensorops
