// Softmax on CUDA.
#include "ops/softmax.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include "cuda/kernels/softmax.h"
#include "cuda/launch.h"
#include "cuda/lines.h"

namespace tensorops::cuda {
namespace {

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

void compute_into(Softmax op, const Tensor& x, const Tensor* result, const Tensor& y, int64_t dim) {
  if (y.numel() == 0) return;
  launch_softmax(op, make_lines("softmax", y, {&x, result, &y}, dim), stream());
  check_launch();
}

template <Softmax op, const auto& row>
Tensor forward(const Tensor& input, int64_t dim, Dtype dtype) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Guard guard(input.device());
  const Tensor result = empty(input.sizes(), softmax_dtype(row.name(), input, dtype), input.device());
  compute_into(op, input, nullptr, result, dim);
  return result;
}

template <Softmax op, const auto& row>
Tensor& out_variant(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  check_same_device({&input, &out});
  const Guard guard(input.device());
  const auto type = softmax_dtype(row.name(), input, dtype);
  TORCH_CHECK(type == out.scalar_type(), "Expected out tensor to have dtype ", type, ", but got ", out.scalar_type(), " instead");
  at::native::resize_output(out, input.sizes());
  at::assert_no_internal_overlap(out);
  at::assert_no_partial_overlap(out, input);
  if (out.is_alias_of(input)) out.copy_(forward<op, row>(input, dim, dtype));
  else compute_into(op, input, nullptr, out, dim);
  return out;
}

template <Softmax op>
Tensor backward(const Tensor& grad, const Tensor& output, int64_t dim) {
  TORCH_CHECK(grad.sizes() == output.sizes(), "softmax backward: shapes ", grad.sizes(), " and ", output.sizes(),
              " of grad and output differ");
  check_same_device({&grad, &output});
  dim = at::maybe_wrap_dim(dim, output.dim());
  const Guard guard(grad.device());
  const Tensor result = empty(output.sizes(), grad.scalar_type(), grad.device());
  compute_into(op, grad, &output, result, dim);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) {
  library.impl("softmax", forward<Softmax::softmax, ops::softmax>);
  library.impl("log_softmax", forward<Softmax::log_softmax, ops::log_softmax>);
  library.impl("softmax.out", out_variant<Softmax::softmax, ops::softmax>);
  library.impl("log_softmax.out", out_variant<Softmax::log_softmax, ops::log_softmax>);
  library.impl("_softmax_backward", backward<Softmax::softmax_backward>);
  library.impl("_log_softmax_backward", backward<Softmax::log_softmax_backward>);
}

}  // namespace tensorops::cuda
