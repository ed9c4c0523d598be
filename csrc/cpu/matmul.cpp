// Matmul on the CPU: checks, allocates, and describes each op as one call of gemm().
#include "ops/matmul.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include "cpu/dtype.h"
#include "cpu/gemm.h"
#include "cpu/memory.h"

namespace tensorops::cpu {
namespace {

using at::Tensor;
using c10::Scalar;
using Bias = const std::optional<Tensor>&;

GemmScalar gemm_scalar(const Scalar& value, c10::ScalarType type) {
  GemmScalar s{value.toDouble(), 0};
  if (c10::isIntegralType(type, /*includeBool=*/true)) s.integer = value.to<int64_t>();
  return s;
}

// A factor of the product as one matrix, or one per batch index. A vector is a column, or a row where it stands first.
GemmOperand operand(const Tensor& t, bool vector_is_row) {
  GemmOperand o;
  o.data = t.const_data_ptr();
  const auto s = t.strides();
  switch (t.dim()) {
    case 1: vector_is_row ? o.column = s[0] : o.row = s[0]; break;
    case 2: o.row = s[0], o.column = s[1]; break;
    default: o.batch = s[0], o.row = s[1], o.column = s[2]; break;
  }
  return o;
}

// Sizes and factors of `product`; result and source are set by the caller.
Gemm describe(Product product, const Tensor& a, const Tensor& b) {
  Gemm g;
  g.type = dtype_of(a.scalar_type());
  g.a = operand(a, /*vector_is_row=*/product == Product::dot);
  g.b = operand(b, /*vector_is_row=*/product == Product::outer);
  switch (product) {
    case Product::mm: g.m = a.size(0), g.k = a.size(1), g.n = b.size(1); break;
    case Product::mv: g.m = a.size(0), g.k = a.size(1), g.n = 1; break;
    case Product::dot: g.m = 1, g.k = a.size(0), g.n = 1; break;
    case Product::outer: g.m = a.size(0), g.k = 1, g.n = b.size(0); break;
    default: g.batch = a.size(0), g.m = a.size(1), g.k = a.size(2), g.n = b.size(2); break;
  }
  return g;
}

void set_result(Gemm& g, const Tensor& out) {
  GemmEpilogue& e = g.epilogue;
  g.c = out.mutable_data_ptr();
  e.c_type = dtype_of(out.scalar_type());
  const auto s = out.strides();
  switch (out.dim()) {
    case 0: break;
    case 1: e.c_row = s[0]; break;
    case 2: e.c_row = s[0], e.c_column = s[1]; break;
    default: g.c_batch = s[0], e.c_row = s[1], e.c_column = s[2]; break;
  }
}

// `added`, broadcast to the result.
void set_source(Gemm& g, const Tensor& added, c10::IntArrayRef sizes) {
  GemmEpilogue& e = g.epilogue;
  g.source = added.const_data_ptr();
  e.source_type = dtype_of(added.scalar_type());
  const auto stride = [&](int64_t from_end) -> int64_t {
    const int64_t own = added.dim() - from_end, dim = static_cast<int64_t>(sizes.size()) - from_end;
    return own < 0 || dim < 0 || (added.size(own) == 1 && sizes[dim] != 1) ? 0 : added.stride(own);
  };
  if (sizes.size() == 1) {
    e.source_row = stride(1);
  } else {
    e.source_column = stride(1);
    e.source_row = stride(2);
    g.source_batch = stride(3);
  }
}

// Whether the result shares memory with an operand that is still read when parts of the result are written.
bool overlaps(const Tensor& out, const Tensor& operand) {
  return at::get_overlap_status(out, operand) != at::MemOverlapStatus::No;
}

// Brings `out` to the given shape; false when the result must take a detour through memory of its own, because it has
// another dtype or because writing it would spoil what is still to be read.
bool prepare_out(const char* name, Product product, const Tensor& out, c10::IntArrayRef sizes, c10::ScalarType type,
                 const Tensor& a, const Tensor& b, const Tensor* added) {
  check_out_dtype(name, product, type, out.scalar_type());
  at::assert_no_internal_overlap(out);
  if (out.scalar_type() != type || overlaps(out, a) || overlaps(out, b)) return false;
  if (added != nullptr && overlaps(out, *added)) {
    // Element by element in place is fine.
    return out.sizes() == sizes && added->data_ptr() == out.data_ptr() && added->sizes() == sizes &&
           added->strides() == out.strides();
  }
  return true;
}

// The detour's end.
void copy_to_out(const Tensor& out, const Tensor& result) {
  if (at::native::resize_output(out, result.sizes()) && !result.is_contiguous())
    out.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides());
  out.copy_(result);
}

Tensor as(const Tensor& t, c10::ScalarType type) { return t.scalar_type() == type ? t : t.to(type); }

void multiply_into(Product product, const Tensor& a, const Tensor& b, const Tensor& out) {
  Gemm g = describe(product, a, b);
  set_result(g, out);
  gemm(g);
}

Tensor product(const ProductRow& row, const Tensor& a, const Tensor& b) {
  const auto sizes = product_sizes<int64_t>(row.name, row.product, a, b);
  const c10::ScalarType type = result_dtype(row.name, row.product, a, b);
  Tensor out = empty(sizes, type);
  multiply_into(row.product, as(a, type), as(b, type), out);
  return out;
}

void product_out(const ProductRow& row, const Tensor& a, const Tensor& b, Tensor& out) {
  const auto sizes = product_sizes<int64_t>(row.name, row.product, a, b);
  const c10::ScalarType type = result_dtype(row.name, row.product, a, b);
  if (!prepare_out(row.name, row.product, out, sizes, type, a, b, nullptr)) return copy_to_out(out, product(row, a, b));
  at::native::resize_output(out, sizes);
  multiply_into(row.product, as(a, type), as(b, type), out);
}

// out = beta * input + alpha * product(a, b); all of one dtype.
void add_into(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
              const Scalar& alpha, const Tensor& out) {
  Gemm g = describe(row.product, a, b);
  set_result(g, out);
  const c10::ScalarType type = out.scalar_type();
  g.epilogue.alpha = gemm_scalar(alpha, type);
  g.epilogue.beta = gemm_scalar(beta, type);
  if (!beta.equal(0)) set_source(g, input, out.sizes());
  // As in BLAS, a product that counts for nothing is not computed: its NaNs stay out of the sum.
  if (alpha.equal(0) && row.product != Product::outer && row.product != Product::bmm) g.k = 0;
  if (row.product != Product::bmm_sum) return gemm(g);

  // The sum over the batch: one matrix after the other is added to what the ones before have left.
  const int64_t batch = g.batch;
  g.batch = 1;
  if (batch == 0) {
    g.k = 0;
    return gemm(g);
  }
  const bool staged = batch > 1 && c10::isReducedFloatingType(type);
  const Tensor sums = staged ? empty(out.sizes(), c10::kFloat) : out;
  for (int64_t i = 0; i < batch; ++i) {
    if (i == 1) {
      g.epilogue.beta = {};
      set_source(g, sums, out.sizes());
    }
    set_result(g, i + 1 < batch ? sums : out);
    gemm(g);
    g.a.data = static_cast<const char*>(g.a.data) + g.a.batch * a.element_size();
    g.b.data = static_cast<const char*>(g.b.data) + g.b.batch * b.element_size();
  }
}

struct SumTypes {
  Dims<int64_t> sizes;
  c10::ScalarType type;
};
SumTypes check_sum(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
                   const Scalar& alpha) {
  SumTypes checked{product_sizes<int64_t>(row.name, row.product, a, b),
                   result_dtype(row.name, row.product, a, b, &input)};
  check_expands<int64_t>(row.name, input, checked.sizes);
  if (row.product == Product::outer) {  // addr is an elementwise op at heart
    check_factor(row.name, "beta", checked.type, beta);
    check_factor(row.name, "alpha", checked.type, alpha);
  }
  return checked;
}

Tensor sum(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
           const Scalar& alpha) {
  const auto [sizes, type] = check_sum(row, input, a, b, beta, alpha);
  Tensor out = empty_strided(sizes, sum_strides<int64_t>(row.product, input, a, b, sizes), type);
  add_into(row, as(input, type), as(a, type), as(b, type), beta, alpha, out);
  return out;
}

void sum_out(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
             const Scalar& alpha, Tensor& out) {
  const auto [sizes, type] = check_sum(row, input, a, b, beta, alpha);
  if (!prepare_out(row.name, row.product, out, sizes, type, a, b, &input))
    return copy_to_out(out, sum(row, input, a, b, beta, alpha));
  if (at::native::resize_output(out, sizes))
    out.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, sum_strides<int64_t>(row.product, input, a, b, sizes));
  add_into(row, as(input, type), as(a, type), as(b, type), beta, alpha, out);
}

void sum_inplace(const SumRow& row, Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
                 const Scalar& alpha) {
  check_inplace(row, self, product_sizes<int64_t>(row.name, row.product, a, b));
  sum_out(row, self, a, b, beta, alpha, self);
}

// ---- linear ----------------------------------------------------------------------------------------------------------

GemmActivation activation_named(std::string_view name) {
  if (name == "relu") return GemmActivation::relu;
  if (name == "gelu") return GemmActivation::gelu;
  if (name == "gelu_tanh") return GemmActivation::gelu_tanh;
  if (name == "sigmoid") return GemmActivation::sigmoid;
  if (name == "tanh") return GemmActivation::tanh;
  if (name == "silu") return GemmActivation::silu;
  TORCH_CHECK_VALUE(false, "_linear_activation: unknown activation '", name, "'");
}

// The input's leading dimensions as rows of one matrix.
void linear_into(const Tensor& input, const Tensor& weight, Bias bias, GemmActivation activation, const Tensor& out) {
  const int64_t k = weight.size(-1), n = weight.dim() == 2 ? weight.size(0) : 1;
  int64_t m = 1;
  for (const int64_t size : input.sizes().slice(0, input.dim() - 1)) m *= size;
  const Tensor rows = input.dim() == 2 || input.is_contiguous() ? input : input.reshape({m, k});
  Gemm g;
  g.m = m;
  g.n = n;
  g.k = k;
  g.type = dtype_of(input.scalar_type());
  g.a = {rows.const_data_ptr(), rows.dim() == 2 ? rows.stride(0) : k, rows.stride(-1), 0};
  g.b = {weight.const_data_ptr(), weight.stride(-1), weight.dim() == 2 ? weight.stride(0) : 0, 0};
  g.c = out.mutable_data_ptr();
  g.epilogue.c_type = g.type;
  g.epilogue.c_row = n;
  g.epilogue.activation = activation;
  if (bias) {
    // A bias per row of the batch is rare: it is brought into the result's shape.
    const bool matrix = bias->dim() > 1;
    const Tensor added = matrix ? bias->expand(out.sizes()).reshape({m, n}) : *bias;
    set_source(g, added, {m, n});
    gemm(g);
    return;
  }
  gemm(g);
}

Tensor linear_with(const Tensor& input, const Tensor& weight, Bias bias, GemmActivation activation) {
  const auto sizes = linear_sizes<int64_t>(input, weight, bias);
  const auto type = product_dtype("linear", input, weight, bias ? &*bias : nullptr);
  TORCH_CHECK(activation == GemmActivation::none || c10::isFloatingType(type),
              "\"_linear_activation\" not implemented for '", type, "'");
  Tensor out = empty(sizes, type);
  linear_into(input, weight, bias, activation, out);
  return out;
}

Tensor linear(const Tensor& input, const Tensor& weight, Bias bias) {
  return linear_with(input, weight, bias, GemmActivation::none);
}
Tensor linear_activation(const Tensor& input, const Tensor& weight, Bias bias, std::string_view activation) {
  return linear_with(input, weight, bias, activation_named(activation));
}
Tensor& linear_out(const Tensor& input, const Tensor& weight, Bias bias, Tensor& out) {
  const auto sizes = linear_sizes<int64_t>(input, weight, bias);
  const auto type = product_dtype("linear", input, weight, bias ? &*bias : nullptr);
  if (prepare_out("linear", Product::mm, out, sizes, type, input, weight, bias ? &*bias : nullptr)) {
    at::native::resize_output(out, sizes);
    if (out.is_contiguous()) {
      linear_into(input, weight, bias, GemmActivation::none, out);
      return out;
    }
  }
  copy_to_out(out, linear_with(input, weight, bias, GemmActivation::none));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  impl_products(library, product, product_out);
  impl_sums(library, sum, sum_inplace, sum_out);
  library.impl("linear", linear);
  library.impl("linear.out", linear_out);
  library.impl("_linear_activation", linear_activation);
}

}  // namespace tensorops::cpu
