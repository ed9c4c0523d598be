// What the matmul family does around its kernel, the same on every device: out= and its detours, in-place sums, linear. A
// room registers all of it by giving a type with
//   struct Entry { explicit Entry(std::initializer_list<const Tensor*>); };  lives while an op works on these tensors
//   static Tensor empty_strided(IntArrayRef sizes, IntArrayRef strides, ScalarType, Device);
//   static void multiply(const char* name, const GemmProblem&, const Tensor& out);
#pragma once

#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include "ops/gemm.h"
#include "ops/matmul.h"
#include "ops/scalar_type.h"

namespace tensorops {

// ---- Tensors as operands ---------------------------------------------------------------------------------------------

inline GemmScalar gemm_scalar(const c10::Scalar& value, c10::ScalarType type) {
  GemmScalar s{value.toDouble(), 0};
  if (c10::isIntegralType(type, /*includeBool=*/true)) s.integer = value.to<int64_t>();
  return s;
}

// A factor of the product as one matrix, or one per batch index. A vector is a column, or a row where it stands first.
inline GemmOperand gemm_operand(const at::Tensor& t, bool vector_is_row) {
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
inline GemmProblem gemm_problem(Product product, const at::Tensor& a, const at::Tensor& b) {
  GemmProblem p;
  p.dtype = dtype_of(a.scalar_type());
  p.a = gemm_operand(a, /*vector_is_row=*/product == Product::dot);
  p.b = gemm_operand(b, /*vector_is_row=*/product == Product::outer);
  switch (product) {
    case Product::mm: p.m = a.size(0), p.k = a.size(1), p.n = b.size(1); break;
    case Product::mv: p.m = a.size(0), p.k = a.size(1), p.n = 1; break;
    case Product::dot: p.m = 1, p.k = a.size(0), p.n = 1; break;
    case Product::outer: p.m = a.size(0), p.k = 1, p.n = b.size(0); break;
    default: p.batches = a.size(0), p.m = a.size(1), p.k = a.size(2), p.n = b.size(2); break;
  }
  p.sums_batches = product == Product::bmm_sum;
  return p;
}

inline void set_result(GemmProblem& p, const at::Tensor& out) {
  p.c = out.mutable_data_ptr();
  const auto s = out.strides();
  switch (out.dim()) {
    case 0: break;
    case 1: p.c_row = s[0]; break;
    case 2: p.c_row = s[0], p.c_column = s[1]; break;
    default: p.c_batch = s[0], p.c_row = s[1], p.c_column = s[2]; break;
  }
}

// `added`, broadcast to the result.
inline void set_source(GemmProblem& p, const at::Tensor& added, c10::IntArrayRef sizes) {
  p.source.data = added.const_data_ptr();
  const auto stride = [&](int64_t from_end) -> int64_t {
    const int64_t own = added.dim() - from_end, dim = static_cast<int64_t>(sizes.size()) - from_end;
    return own < 0 || dim < 0 || (added.size(own) == 1 && sizes[dim] != 1) ? 0 : added.stride(own);
  };
  if (sizes.size() == 1) {
    p.source.row = stride(1);
  } else {
    p.source.column = stride(1);
    p.source.row = stride(2);
    p.source.batch = stride(3);
  }
}

inline GemmActivation activation_named(std::string_view name) {
  if (name == "relu") return GemmActivation::relu;
  if (name == "gelu") return GemmActivation::gelu;
  if (name == "gelu_tanh") return GemmActivation::gelu_tanh;
  if (name == "sigmoid") return GemmActivation::sigmoid;
  if (name == "tanh") return GemmActivation::tanh;
  if (name == "silu") return GemmActivation::silu;
  TORCH_CHECK_VALUE(false, "_linear_activation: unknown activation '", name, "'");
}

// ---- out= ------------------------------------------------------------------------------------------------------------

// Whether the result shares memory with an operand that is still read when parts of the result are written.
inline bool overlaps(const at::Tensor& out, const at::Tensor& operand) {
  return at::get_overlap_status(out, operand) != at::MemOverlapStatus::No;
}

// Brings `out` to the given shape; false when the result must take a detour through memory of its own, because it has
// another dtype or because writing it would spoil what is still to be read.
inline bool prepare_out(const char* name, Product product, const at::Tensor& out, c10::IntArrayRef sizes,
                        c10::ScalarType type, const at::Tensor& a, const at::Tensor& b, const at::Tensor* added) {
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
inline void copy_to_out(const at::Tensor& out, const at::Tensor& result) {
  if (at::native::resize_output(out, result.sizes()) && !result.is_contiguous())
    out.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides());
  out.copy_(result);
}

// ---- The forms -------------------------------------------------------------------------------------------------------

template <class Room>
class MatmulForms {
  using Tensor = at::Tensor;
  using Scalar = c10::Scalar;
  using Bias = const std::optional<Tensor>&;
  using Entry = typename Room::Entry;

 public:
  static void impl(torch::Library& library) {
    impl_products(library, product, product_out);
    impl_sums(library, sum, sum_inplace, sum_out);
    library.impl("linear", linear);
    library.impl("linear.out", linear_out);
    library.impl("_linear_activation", linear_activation);
  }

 private:
  static Tensor empty(c10::IntArrayRef sizes, c10::ScalarType type, c10::Device device) {
    return Room::empty_strided(sizes, row_major<int64_t>(sizes), type, device);
  }

  static void multiply_into(const ProductRow& row, const Tensor& a, const Tensor& b, const Tensor& out) {
    GemmProblem p = gemm_problem(row.product, a, b);
    set_result(p, out);
    Room::multiply(row.name, p, out);
  }

  static Tensor product(const ProductRow& row, const Tensor& a, const Tensor& b) {
    const auto sizes = product_sizes<int64_t>(row.name, row.product, a, b);
    const c10::ScalarType type = result_dtype(row.name, row.product, a, b);
    const Entry entry({&a, &b});
    Tensor out = empty(sizes, type, a.device());
    multiply_into(row, as(a, type), as(b, type), out);
    return out;
  }

  static void product_out(const ProductRow& row, const Tensor& a, const Tensor& b, Tensor& out) {
    const auto sizes = product_sizes<int64_t>(row.name, row.product, a, b);
    const c10::ScalarType type = result_dtype(row.name, row.product, a, b);
    const Entry entry({&a, &b, &out});
    if (!prepare_out(row.name, row.product, out, sizes, type, a, b, nullptr)) return copy_to_out(out, product(row, a, b));
    at::native::resize_output(out, sizes);
    multiply_into(row, as(a, type), as(b, type), out);
  }

  // out = beta * input + alpha * product(a, b); all of one dtype.
  static void add_into(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
                       const Scalar& alpha, const Tensor& out) {
    GemmProblem p = gemm_problem(row.product, a, b);
    set_result(p, out);
    const c10::ScalarType type = out.scalar_type();
    p.alpha = gemm_scalar(alpha, type);
    p.beta = gemm_scalar(beta, type);
    if (!beta.equal(0)) set_source(p, input, out.sizes());
    // As in BLAS, a product that counts for nothing is not computed: its NaNs stay out of the sum.
    if (alpha.equal(0) && row.product != Product::outer && row.product != Product::bmm) p.k = 0;
    Room::multiply(row.name, p, out);
  }

  struct SumTypes {
    Dims<int64_t> sizes;
    c10::ScalarType type;
  };
  static SumTypes check_sum(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
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

  static Tensor sum(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
                    const Scalar& alpha) {
    const auto [sizes, type] = check_sum(row, input, a, b, beta, alpha);
    const Entry entry({&input, &a, &b});
    const auto strides = sum_strides<int64_t>(row.product, input, a, b, sizes);
    Tensor out = Room::empty_strided(sizes, strides, type, input.device());
    add_into(row, as(input, type), as(a, type), as(b, type), beta, alpha, out);
    return out;
  }

  static void sum_out(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
                      const Scalar& alpha, Tensor& out) {
    const auto [sizes, type] = check_sum(row, input, a, b, beta, alpha);
    const Entry entry({&input, &a, &b, &out});
    if (!prepare_out(row.name, row.product, out, sizes, type, a, b, &input))
      return copy_to_out(out, sum(row, input, a, b, beta, alpha));
    if (at::native::resize_output(out, sizes))
      out.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, sum_strides<int64_t>(row.product, input, a, b, sizes));
    add_into(row, as(input, type), as(a, type), as(b, type), beta, alpha, out);
  }

  static void sum_inplace(const SumRow& row, Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
                          const Scalar& alpha) {
    check_inplace(row, self, product_sizes<int64_t>(row.name, row.product, a, b));
    sum_out(row, self, a, b, beta, alpha, self);
  }

  // ---- linear --------------------------------------------------------------------------------------------------------

  // The input's leading dimensions as rows of one matrix.
  static void linear_into(const Tensor& input, const Tensor& weight, Bias bias, GemmActivation activation,
                          const Tensor& out) {
    const int64_t k = weight.size(-1), n = weight.dim() == 2 ? weight.size(0) : 1;
    int64_t m = 1;
    for (const int64_t size : input.sizes().slice(0, input.dim() - 1)) m *= size;
    const Tensor rows = input.dim() == 2 || input.is_contiguous() ? input : input.reshape({m, k});
    GemmProblem p;
    p.m = m;
    p.n = n;
    p.k = k;
    p.dtype = dtype_of(input.scalar_type());
    p.a = {rows.const_data_ptr(), rows.dim() == 2 ? rows.stride(0) : k, rows.stride(-1), 0};
    p.b = {weight.const_data_ptr(), weight.stride(-1), weight.dim() == 2 ? weight.stride(0) : 0, 0};
    p.c = out.mutable_data_ptr();
    p.c_row = n;
    p.c_column = 1;
    p.activation = activation;
    Tensor added;  // lives until the product is launched
    if (bias) {
      // A bias per row of the batch is rare: it is brought into the result's shape.
      added = bias->dim() > 1 ? bias->expand(out.sizes()).reshape({m, n}) : *bias;
      set_source(p, added, {m, n});
    }
    Room::multiply("linear", p, out);
  }

  static const Tensor* pointer(Bias bias) { return bias ? &*bias : nullptr; }

  static Tensor linear_with(const Tensor& input, const Tensor& weight, Bias bias, GemmActivation activation) {
    const auto sizes = linear_sizes<int64_t>(input, weight, bias);
    const auto type = product_dtype("linear", input, weight, pointer(bias));
    TORCH_CHECK(activation == GemmActivation::none || c10::isFloatingType(type),
                "\"_linear_activation\" not implemented for '", type, "'");
    const Entry entry({&input, &weight, bias ? &*bias : &input});
    Tensor out = empty(sizes, type, input.device());
    linear_into(input, weight, bias, activation, out);
    return out;
  }

  static Tensor linear(const Tensor& input, const Tensor& weight, Bias bias) {
    return linear_with(input, weight, bias, GemmActivation::none);
  }
  static Tensor linear_activation(const Tensor& input, const Tensor& weight, Bias bias, std::string_view activation) {
    return linear_with(input, weight, bias, activation_named(activation));
  }
  static Tensor& linear_out(const Tensor& input, const Tensor& weight, Bias bias, Tensor& out) {
    const auto sizes = linear_sizes<int64_t>(input, weight, bias);
    const auto type = product_dtype("linear", input, weight, pointer(bias));
    const Entry entry({&input, &weight, bias ? &*bias : &input, &out});
    if (prepare_out("linear", Product::mm, out, sizes, type, input, weight, pointer(bias))) {
      at::native::resize_output(out, sizes);
      if (out.is_contiguous()) {
        linear_into(input, weight, bias, GemmActivation::none, out);
        return out;
      }
    }
    copy_to_out(out, linear_with(input, weight, bias, GemmActivation::none));
    return out;
  }
};

}  // namespace tensorops
