// y = softmax(x): dx = y * (g - sum(g * y)).  y = log_softmax(x): dx = g - exp(y) * sum(g). Both are linear in g, and the first
// is its own adjoint.
#include "ops/softmax.h"

#include <torch/library.h>

#include "autograd/node.h"
#include "autograd/tensor_expr.h"
#include "ops/reduction.h"
#include "ops/scalar_type.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

template <const auto& op, const auto& backward>
Tensor forward(const Tensor& input, int64_t dim, Dtype dtype) {
  Graph graph("SoftmaxBackward", {&input});
  Tensor result = graph.forward([&] { return op(input, dim, dtype); });
  if (graph.recording())
    graph.record({&result}, {&result}, [dim, type = input.scalar_type()](Backward& b) {
      b.result(0, as(backward(b.gradient(), b.saved(0), dim), type));
    });
  return result;
}

Expr sum_along(const Expr& x, int64_t dim) { return ops::sum(x.tensor(), dim, /*keepdim=*/true); }

Tensor softmax_backward(const Tensor& grad, const Tensor& output, int64_t dim) {
  Graph graph("SoftmaxBackwardBackward", {&grad, &output});
  Tensor result = graph.forward([&] { return ops::softmax_backward(grad, output, dim); });
  if (graph.recording())
    graph.record({&result}, {&grad, &output}, [dim](Backward& b) {
      const Expr u = b.gradient(), g = b.saved(0), y = b.saved(1);
      if (b.needs(0)) b.result(0, ops::softmax_backward(b.gradient(), b.saved(1), dim));
      if (b.needs(1)) b.result(1, (u * (g - sum_along(g * y, dim)) - g * sum_along(u * y, dim)).tensor());
    });
  return result;
}

Tensor log_softmax_backward(const Tensor& grad, const Tensor& output, int64_t dim) {
  Graph graph("LogSoftmaxBackwardBackward", {&grad, &output});
  Tensor result = graph.forward([&] { return ops::log_softmax_backward(grad, output, dim); });
  if (graph.recording())
    graph.record({&result}, {&grad, &output}, [dim](Backward& b) {
      const Expr u = b.gradient(), g = b.saved(0), y = b.saved(1), weighted = u * exp(y);
      if (b.needs(0)) b.result(0, (u - sum_along(weighted, dim)).tensor());
      if (b.needs(1)) b.result(1, (-(weighted * sum_along(g, dim))).tensor());
    });
  return result;
}

template <const auto& op>
Tensor& out_variant(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  Graph graph("SoftmaxBackward", {&input});
  if (graph.recording() || (at::GradMode::is_enabled() && out.requires_grad()))
    torch::autograd::throw_error_out_requires_grad(op.name());
  Graph::forward([&]() -> Tensor& { return op(input, dim, dtype, out); });
  Graph::after_inplace(out);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  library.impl("softmax", forward<ops::softmax, ops::softmax_backward>);
  library.impl("log_softmax", forward<ops::log_softmax, ops::log_softmax_backward>);
  library.impl("_softmax_backward", softmax_backward);
  library.impl("_log_softmax_backward", log_softmax_backward);
  library.impl("softmax.out", out_variant<ops::softmax_out>);
  library.impl("log_softmax.out", out_variant<ops::log_softmax_out>);
}

}  // namespace tensorops::autograd
