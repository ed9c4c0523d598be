// Tensors as lines along one dimension, with the geometry of their launch.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

#include "cuda/kernels/lines.h"
#include "ops/scalar_type.h"

namespace tensorops::cuda {

// How many elements of a line are worth a thread of its own.
constexpr int64_t kElementsPerLane = 8;

// `shape` gives the sizes; an operand lacks nothing of them, or is null. With `ordered`, lines are counted in the logical order
// of the other dimensions; else in the order in which they lie in `shape`'s memory.
inline Lines make_lines(const char* op, const at::Tensor& shape, const at::Tensor* const (&operands)[kLineOperands],
                        int64_t dim, bool ordered = false) {
  struct Axis {
    int64_t size, strides[kLineOperands];
  };
  Lines lines;
  lines.length = shape.dim() == 0 ? 1 : shape.size(dim);
  lines.count = 1;
  lines.uniform = true;
  for (int k = 0; k < kLineOperands; ++k) {
    if (operands[k] == nullptr) continue;
    const at::Tensor& t = *operands[k];
    lines.operands[k].data = static_cast<char*>(const_cast<void*>(t.const_data_ptr()));
    lines.operands[k].dtype = dtype_of(t.scalar_type());
    lines.operands[k].step = shape.dim() == 0 ? 0 : t.stride(dim) * static_cast<int64_t>(t.element_size());
    lines.uniform &= t.scalar_type() == shape.scalar_type() && c10::isFloatingType(t.scalar_type());
  }
  c10::SmallVector<Axis, 6> axes;
  for (int64_t i = shape.dim() - 1; i >= 0; --i) {
    if (i == dim) continue;
    lines.count *= shape.size(i);
    if (shape.size(i) == 1) continue;
    Axis axis{shape.size(i), {}};
    for (int k = 0; k < kLineOperands; ++k)
      if (operands[k] != nullptr) axis.strides[k] = operands[k]->stride(i) * static_cast<int64_t>(operands[k]->element_size());
    axes.push_back(axis);
  }
  if (!ordered) {
    int last = kLineOperands - 1;
    while (operands[last] == nullptr) --last;
    std::stable_sort(axes.begin(), axes.end(), [&](const Axis& a, const Axis& b) { return a.strides[last] < b.strides[last]; });
  }
  size_t kept = 0;
  for (const Axis& axis : axes) {
    bool mergeable = kept > 0;
    for (int k = 0; mergeable && k < kLineOperands; ++k)
      mergeable = axis.strides[k] == axes[kept - 1].strides[k] * axes[kept - 1].size;
    if (mergeable) axes[kept - 1].size *= axis.size;
    else axes[kept++] = axis;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(kept <= kMaxAxes, op, ": more than ", kMaxAxes, " dimensions that do not merge are not covered "
                              "on CUDA");
  lines.axes = static_cast<int>(kept);
  for (int i = 0; i < lines.axes; ++i) {
    lines.sizes[i] = axes[i].size;
    for (int k = 0; k < kLineOperands; ++k) lines.operands[k].strides[i] = axes[i].strides[k];
  }

  // By sizes and strides alone.
  const auto& first = lines.operands[0];
  lines.across = lines.axes > 0 && first.strides[0] < first.step;
  lines.vector = lines.uniform && !lines.across;
  int64_t pack = 16 / element_size(first.dtype);
  for (const auto& o : lines.operands) {
    if (o.data == nullptr) continue;
    lines.vector &= o.step == element_size(o.dtype) && reinterpret_cast<uintptr_t>(o.data) % 16 == 0;
    for (int i = 0; i < lines.axes; ++i) lines.vector &= o.strides[i] % 16 == 0;
  }
  if (!lines.vector) pack = 1;
  const int most = lines.across ? 8 : 256;  // across, 32 neighbouring lines make one wide load
  while (lines.lanes < most && lines.lanes * pack * kElementsPerLane < lines.length) lines.lanes *= 2;
  return lines;
}

}  // namespace tensorops::cuda
