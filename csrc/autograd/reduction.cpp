#include "ops/reduction.h"

#include <torch/library.h>

#include "autograd/node.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using ops::Dims;
using ops::Dtype;

// The reduced dimensions put back with size 1, so that a result broadcasts against the input.
Tensor restore(const Tensor& result, Dims dim, bool keepdim, int64_t ndim) {
  if (keepdim || ndim == 0) return result;
  if (!dim || dim->empty()) return result.view_symint(std::vector<c10::SymInt>(ndim, 1));
  const auto mask = at::dim_list_to_bitset(*dim, ndim);
  Tensor r = result;
  for (int64_t i = 0; i < ndim; ++i)
    if (mask[i]) r = r.unsqueeze(i);
  return r;
}

std::vector<c10::SymInt> shape_of(const Tensor& t) { return t.sym_sizes().vec(); }
std::optional<std::vector<int64_t>> owned(Dims dim) {
  return dim ? std::make_optional(dim->vec()) : std::nullopt;
}
Dims borrowed(const std::optional<std::vector<int64_t>>& dim) { return dim ? Dims(*dim) : Dims(); }

Tensor sum(const Tensor& input, Dims dim, bool keepdim, Dtype dtype) {
  Graph graph("SumBackward", {&input});
  Tensor result = graph.forward([&] { return ops::sum(input, dim, keepdim, dtype); });
  if (graph.recording() && result.is_floating_point())
    graph.record({&result}, {}, [sizes = shape_of(input), dim = owned(dim), keepdim, type = input.scalar_type()](Backward& b) {
      b.result(0, restore(b.gradient(), borrowed(dim), keepdim, sizes.size()).expand_symint(sizes).to(type));
    });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) { library.impl("sum", sum); }

}  // namespace tensorops::autograd
