#include "ops/softmax.h"

#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace tensorops {

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };
  for (const std::string name : {"softmax", "log_softmax"}) {
    define(name + "(Tensor input, int dim, ScalarType? dtype=None) -> Tensor");
    define(name + ".out(Tensor input, int dim, ScalarType? dtype=None, *, Tensor(a!) out) -> Tensor(a!)");
    define("_" + name + "_backward(Tensor grad, Tensor output, int dim) -> Tensor");
  }
}

namespace {

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

template <const auto& op>
Tensor like(const Tensor& input, int64_t dim, Dtype dtype) {
  at::maybe_wrap_dim(dim, input.dim());
  return at::empty_symint(input.sym_sizes(), input.options().dtype(softmax_dtype(op.name(), input, dtype)));
}
template <const auto& op>
Tensor& resized(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  TORCH_CHECK(input.device() == out.device(), op.name(), "(): input is on ", input.device(), ", out= on ", out.device());
  at::maybe_wrap_dim(dim, input.dim());
  const auto type = softmax_dtype(op.name(), input, dtype);
  TORCH_CHECK(type == out.scalar_type(), "Expected out tensor to have dtype ", type, ", but got ", out.scalar_type(), " instead");
  at::native::resize_output_symint(out, input.sym_sizes());
  return out;
}
Tensor gradient(const Tensor& grad, const Tensor& output, int64_t dim) {
  at::maybe_wrap_dim(dim, output.dim());
  return at::empty_symint(output.sym_sizes(), grad.options());
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  library.impl("softmax", like<ops::softmax>);
  library.impl("log_softmax", like<ops::log_softmax>);
  library.impl("softmax.out", resized<ops::softmax_out>);
  library.impl("log_softmax.out", resized<ops::log_softmax_out>);
  library.impl("_softmax_backward", gradient);
  library.impl("_log_softmax_backward", gradient);
}

}  // namespace tensorops
