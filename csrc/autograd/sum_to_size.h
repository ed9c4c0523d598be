// The way back from broadcasting: sums a gradient over the dimensions along which an input was expanded.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include "ops/reduction.h"

namespace tensorops::autograd {

inline at::Tensor sum_to_size(const at::Tensor& gradient, c10::SymIntArrayRef sizes) {
  if (gradient.sym_sizes() == sizes) return gradient;
  const int64_t extra = gradient.dim() - static_cast<int64_t>(sizes.size());
  c10::SmallVector<int64_t, 6> dims;
  for (int64_t dim = 0; dim < gradient.dim(); ++dim)
    if (dim < extra || (sizes[dim - extra] == 1 && gradient.sym_size(dim) != 1)) dims.push_back(dim);
  if (dims.empty()) return gradient;
  const at::Tensor summed = ops::sum(gradient, dims, /*keepdim=*/true, std::nullopt);
  return extra > 0 ? summed.view_symint(sizes) : summed;
}

}  // namespace tensorops::autograd
