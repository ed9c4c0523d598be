#include "ops/scan.h"

#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/elementwise.h"

namespace tensorops {

void check_cumprod_gradient(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& product) {
  const auto type = input.scalar_type();
  TORCH_CHECK(c10::isFloatingType(type), "_cumprod_gradient: expected a floating point input, got ", type);
  for (const at::Tensor* t : {&grad, &product})
    TORCH_CHECK(t->sym_sizes() == input.sym_sizes() && t->scalar_type() == type,
                "_cumprod_gradient: expected a gradient and a product of shape ", input.sym_sizes(), " and dtype ", type, ", got ",
                t->sym_sizes(), " and ", t->scalar_type());
}

namespace ops {

Tensor shift(const Tensor& t, int64_t dim, double fill) {
  dim = at::maybe_wrap_dim(dim, t.dim());
  if (t.sym_size(dim) == 0) return t;
  std::vector<c10::SymInt> padding(2 * (t.dim() - dim), 0);
  padding[2 * (t.dim() - 1 - dim)] = 1;
  return at::constant_pad_nd_symint(t.narrow_symint(dim, 0, t.sym_size(dim) - 1), padding, fill);
}

Tensor cumprod_gradient_by_scan(const Tensor& grad, const Tensor& input, const Tensor& product, int64_t dim) {
  check_cumprod_gradient(grad, input, product);
  if (input.dim() == 0) return grad.clone();
  return ops::mul(linear_scan(grad, input, dim, /*reverse=*/true), shift(product, dim, 1)).contiguous();
}

Tensor pad_last(const Tensor& t, const c10::SymInt& n) { return at::constant_pad_nd_symint(t, {n, 0}, 0); }

}  // namespace ops

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };
  for (const std::string name : {"cumsum", "cumprod"}) {
    define(name + "(Tensor input, int dim, *, ScalarType? dtype=None) -> Tensor");
    define(name + "_(Tensor(a!) input, int dim, *, ScalarType? dtype=None) -> Tensor(a!)");
    define(name + ".out(Tensor input, int dim, *, ScalarType? dtype=None, Tensor(a!) out) -> Tensor(a!)");
  }
  define("_reverse_cumsum(Tensor input, int dim) -> Tensor");
  define("_linear_scan(Tensor input, Tensor coefficient, int dim, bool reverse) -> Tensor");
  define("_cumprod_gradient(Tensor grad, Tensor input, Tensor product, int dim) -> Tensor");
}

namespace {

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

Tensor like(const Tensor& input, int64_t dim, Dtype dtype) {
  at::maybe_wrap_dim(dim, input.dim());
  return at::empty_symint(input.sym_sizes(), input.options().dtype(scan_dtype(input, dtype)));
}
template <const auto& op>
Tensor& resized(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  TORCH_CHECK(input.device() == out.device(), op.name(), "(): input is on ", input.device(), ", out= on ", out.device());
  at::maybe_wrap_dim(dim, input.dim());
  TORCH_CHECK(!dtype || *dtype == out.scalar_type(), "Expected out tensor to have dtype ", *dtype, ", but got ", out.scalar_type(), " instead");
  at::native::resize_output_symint(out, input.sym_sizes());
  return out;
}
Tensor& inplace(Tensor& self, int64_t dim, Dtype dtype) {
  at::maybe_wrap_dim(dim, self.dim());
  check_scan_inplace(self, dtype);
  return self;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  library.impl("cumsum", like);
  library.impl("cumprod", like);
  library.impl("cumsum_", inplace);
  library.impl("cumprod_", inplace);
  library.impl("cumsum.out", resized<ops::cumsum_out>);
  library.impl("cumprod.out", resized<ops::cumprod_out>);
  library.impl("_reverse_cumsum", [](const Tensor& input, int64_t dim) { return like(input, dim, input.scalar_type()); });
  library.impl("_linear_scan", [](const Tensor& input, const Tensor&, int64_t dim, bool) {
    return like(input, dim, input.scalar_type());
  });
  library.impl("_cumprod_gradient", [](const Tensor& grad, const Tensor& input, const Tensor& product, int64_t dim) {
    check_cumprod_gradient(grad, input, product);
    return like(input, dim, input.scalar_type());
  });
}

}  // namespace tensorops
