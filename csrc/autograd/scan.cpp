// cumsum's derivative is cumsum from the other end; cumprod's is the linear recurrence, which is closed under derivatives.
#include "ops/scan.h"

#include <torch/library.h>

#include "autograd/node.h"
#include "ops/elementwise.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

auto cumsum_backward(const Tensor& input, int64_t dim) {
  return [dim, type = input.scalar_type()](Backward& b) { b.result(0, ops::reverse_cumsum(b.gradient(), dim).to(type)); };
}

Tensor cumsum(const Tensor& input, int64_t dim, Dtype dtype) {
  Graph graph("CumsumBackward", {&input});
  Tensor result = graph.forward([&] { return ops::cumsum(input, dim, dtype); });
  if (graph.recording() && result.is_floating_point())
    graph.record({&result}, {}, cumsum_backward(input, dim));
  return result;
}

Tensor reverse_cumsum(const Tensor& input, int64_t dim) {
  Graph graph("ReverseCumsumBackward", {&input});
  Tensor result = graph.forward([&] { return ops::reverse_cumsum(input, dim); });
  if (graph.recording())
    graph.record({&result}, {}, [dim](Backward& b) { b.result(0, ops::cumsum(b.gradient(), dim, std::nullopt)); });
  return result;
}

Tensor& cumsum_inplace(Tensor& self, int64_t dim, Dtype dtype) {
  Graph graph("CumsumBackward", {&self});
  graph.before_inplace(self);
  Graph::forward([&]() -> Tensor& { return ops::cumsum_(self, dim, dtype); });
  Graph::after_inplace(self);
  if (graph.recording()) graph.record_inplace(self, {}, cumsum_backward(self, dim));
  return self;
}

// Reads the input and the result.
auto cumprod_backward(int64_t dim) {
  return [dim](Backward& b) {
    const Tensor &input = b.saved(0), &result = b.saved(1);
    if (input.dim() == 0) return b.result(0, b.gradient().to(input.scalar_type()));
    b.result(0, ops::cumprod_gradient(b.gradient(), input.to(result.scalar_type()), result, dim).to(input.scalar_type()));
  };
}

Tensor cumprod(const Tensor& input, int64_t dim, Dtype dtype) {
  Graph graph("CumprodBackward", {&input});
  Tensor result = graph.forward([&] { return ops::cumprod(input, dim, dtype); });
  if (graph.recording() && result.is_floating_point())
    graph.record({&result}, {&input, &result}, cumprod_backward(dim));
  return result;
}

Tensor& cumprod_inplace(Tensor& self, int64_t dim, Dtype dtype) {
  Graph graph("CumprodBackward", {&self});
  graph.before_inplace(self);
  const Tensor before = graph.recording() ? self.clone() : self;
  Graph::forward([&]() -> Tensor& { return ops::cumprod_(self, dim, dtype); });
  Graph::after_inplace(self);
  if (graph.recording()) graph.record_inplace(self, {&before, &self}, cumprod_backward(dim));
  return self;
}

Tensor linear_scan(const Tensor& input, const Tensor& coefficient, int64_t dim, bool reverse) {
  Graph graph("LinearScanBackward", {&input, &coefficient});
  Tensor result = graph.forward([&] { return ops::linear_scan(input, coefficient, dim, reverse); });
  if (graph.recording())
    graph.record({&result}, {&coefficient, &result}, [dim, reverse](Backward& b) {
      const Tensor &coefficient = b.saved(0), &h = b.saved(1);
      const Tensor adjoint = ops::linear_scan(b.gradient(), coefficient, dim, !reverse);
      if (b.needs(0)) b.result(0, adjoint);
      // The edge from k-1 to k carries the earlier end's value to the later end's gradient; in reverse, the other way round.
      if (b.needs(1)) b.result(1, reverse ? ops::mul(ops::shift(adjoint, dim, 0), h) : ops::mul(adjoint, ops::shift(h, dim, 0)));
    });
  return result;
}

// The kernel, unless there is to be a derivative again.
Tensor cumprod_gradient(const Tensor& grad, const Tensor& input, const Tensor& product, int64_t dim) {
  const Graph graph("CumprodBackwardBackward", {&grad, &input, &product});
  if (graph.recording()) return ops::cumprod_gradient_by_scan(grad, input, product, dim);
  return Graph::forward([&] { return ops::cumprod_gradient(grad, input, product, dim); });
}

template <const auto& op>
Tensor& out_variant(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  Graph graph("ScanBackward", {&input});
  if (graph.recording() || (at::GradMode::is_enabled() && out.requires_grad()))
    torch::autograd::throw_error_out_requires_grad(op.name());
  Graph::forward([&]() -> Tensor& { return op(input, dim, dtype, out); });
  Graph::after_inplace(out);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  library.impl("cumsum", cumsum);
  library.impl("cumprod", cumprod);
  library.impl("_reverse_cumsum", reverse_cumsum);
  library.impl("_linear_scan", linear_scan);
  library.impl("_cumprod_gradient", cumprod_gradient);
  library.impl("cumsum_", cumsum_inplace);
  library.impl("cumprod_", cumprod_inplace);
  library.impl("cumsum.out", out_variant<ops::cumsum_out>);
  library.impl("cumprod.out", out_variant<ops::cumprod_out>);
}

}  // namespace tensorops::autograd
