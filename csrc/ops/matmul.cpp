// Matmul: schemas, Meta kernels, and matmul itself, which is one of the other products for any pair of shapes.
#include "ops/matmul.h"

#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

namespace tensorops {
namespace {

using at::Tensor;
using c10::Scalar;
using c10::SymInt;
using Bias = const std::optional<Tensor>&;

Tensor meta_empty(c10::ArrayRef<SymInt> sizes, const Tensor& like, c10::ScalarType type) {
  return at::empty_symint(sizes, at::TensorOptions().device(like.device()).dtype(type));
}
void meta_out(const char* name, Product product, c10::ArrayRef<SymInt> sizes, c10::ScalarType type, const Tensor& out) {
  check_out_dtype(name, product, type, out.scalar_type());
  at::native::resize_output_symint(out, sizes);
}

void check_devices(const char* name, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    TORCH_CHECK(t->is_meta(), name, ": Tensor on device ", t->device(), " is not on the expected device meta!");
}

Tensor product_meta(const ProductRow& row, const Tensor& a, const Tensor& b) {
  check_devices(row.name, {&a, &b});
  return meta_empty(product_sizes<SymInt>(row.name, row.product, a, b), a, result_dtype(row.name, row.product, a, b));
}
void product_meta_out(const ProductRow& row, const Tensor& a, const Tensor& b, Tensor& out) {
  check_devices(row.name, {&a, &b, &out});
  meta_out(row.name, row.product, product_sizes<SymInt>(row.name, row.product, a, b), result_dtype(row.name, row.product, a, b), out);
}
Dims<SymInt> sum_sizes(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b) {
  check_devices(row.name, {&a, &b, input.dim() > 0 ? &input : &a});
  auto sizes = product_sizes<SymInt>(row.name, row.product, a, b);
  check_expands<SymInt>(row.name, input, sizes);
  return sizes;
}
Tensor sum_meta(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b) {
  const auto sizes = sum_sizes(row, input, a, b);
  const auto strides = sum_strides<SymInt>(row.product, input, a, b, sizes);
  const auto type = result_dtype(row.name, row.product, a, b, &input);
  return at::empty_strided_symint(sizes, strides, at::TensorOptions().device(a.device()).dtype(type));
}
void sum_meta_out(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Tensor& out) {
  check_devices(row.name, {&out});
  meta_out(row.name, row.product, sum_sizes(row, input, a, b), result_dtype(row.name, row.product, a, b, &input), out);
}

c10::ScalarType linear_dtype(const Tensor& input, const Tensor& weight, Bias bias) {
  check_devices("linear", {&input, &weight, bias && bias->dim() > 0 ? &*bias : &input});
  return product_dtype("linear", input, weight, bias ? &*bias : nullptr);
}
Tensor linear_meta(const Tensor& input, const Tensor& weight, Bias bias) {
  return meta_empty(linear_sizes<SymInt>(input, weight, bias), input, linear_dtype(input, weight, bias));
}
Tensor& linear_meta_out(const Tensor& input, const Tensor& weight, Bias bias, Tensor& out) {
  meta_out("linear", Product::mm, linear_sizes<SymInt>(input, weight, bias), linear_dtype(input, weight, bias), out);
  return out;
}
Tensor linear_activation_meta(const Tensor& input, const Tensor& weight, Bias bias, std::string_view) {
  return linear_meta(input, weight, bias);
}

// What matmul does with two shapes: operands brought into the form of one product, and the shape of the result.
struct Plan {
  Product product;
  Tensor a, b;
  c10::SymDimVector sizes;  // of the result, where the product's own has other dimensions
  bool reshapes = false;
};

Plan plan_matmul(const Tensor& a, const Tensor& b) {
  const int64_t m = a.dim(), n = b.dim();
  TORCH_CHECK(m > 0 && n > 0, "both arguments to matmul need to be at least 1D, but they are ", m, "D and ", n, "D");
  if (m == 1 && n == 1) return {Product::dot, a, b, {}, false};
  if (m == 2 && n == 1) return {Product::mv, a, b, {}, false};
  if (m == 1 && n == 2) return {Product::mv, b.t(), a, {}, false};
  if (m == 2 && n == 2) return {Product::mm, a, b, {}, false};
  const auto x = a.sym_sizes(), y = b.sym_sizes();
  // One operand has all the batch dimensions: fold them into its rows, if that takes no copy.
  if (n <= 2 && m >= 3) {
    c10::SymDimVector sizes(x.begin(), x.end() - 1);
    SymInt rows = 1;
    for (const SymInt& size : sizes) rows = rows * size;
    if (n == 2) sizes.push_back(y[1]);
    return {n == 2 ? Product::mm : Product::mv, a.reshape_symint({rows, x.back()}), b, std::move(sizes), true};
  }
  // Batch dimensions broadcast; a vector is a matrix with a dimension that the result does not have.
  const Tensor left = m == 1 ? a.unsqueeze(0) : a, right = n == 1 ? b.unsqueeze(1) : b;
  const auto l = left.sym_sizes(), r = right.sym_sizes();
  const auto batch = at::infer_size_symdimvector(l.slice(0, l.size() - 2), r.slice(0, r.size() - 2));
  SymInt count = 1;
  for (const SymInt& size : batch) count = count * size;
  const auto three = [&](const Tensor& t) {
    c10::SymDimVector expanded(batch.begin(), batch.end());
    expanded.push_back(t.sym_size(-2));
    expanded.push_back(t.sym_size(-1));
    return t.expand_symint(expanded).reshape_symint({count, t.sym_size(-2), t.sym_size(-1)});
  };
  c10::SymDimVector sizes(batch.begin(), batch.end());
  if (m > 1) sizes.push_back(l[l.size() - 2]);
  if (n > 1) sizes.push_back(r.back());
  return {Product::bmm, three(left), three(right), std::move(sizes), true};
}

Tensor matmul(const Tensor& a, const Tensor& b) {
  const Plan plan = plan_matmul(a, b);
  const Tensor result = kProducts[static_cast<size_t>(plan.product)].op(plan.a, plan.b);
  return plan.reshapes ? result.view_symint(plan.sizes) : result;
}

Tensor& matmul_out(const Tensor& a, const Tensor& b, Tensor& out) {
  const Plan plan = plan_matmul(a, b);
  const ProductRow& row = kProducts[static_cast<size_t>(plan.product)];
  if (!plan.reshapes) return row.out(plan.a, plan.b, out);
  const Tensor result = row.op(plan.a, plan.b);
  check_out_dtype("matmul", plan.product, result.scalar_type(), out.scalar_type());
  at::native::resize_output_symint(out, plan.sizes);
  return out.copy_(result.view_symint(plan.sizes));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };
  const auto define_product = [&](const std::string& name, const std::string& parameters) {
    define(name + "(" + parameters + ") -> Tensor");
    define(name + ".out(" + parameters + ", *, Tensor(a!) out) -> Tensor(a!)");
  };
  for (const ProductRow& row : kProducts) define_product(row.name, row.parameters);
  define_product("matmul", "Tensor input, Tensor other");
  define_product("linear", "Tensor input, Tensor weight, Tensor? bias=None");
  define("_linear_activation(Tensor input, Tensor weight, Tensor? bias, str activation) -> Tensor");
  for (const SumRow& row : kSums) {
    const std::string name = row.name, factors = std::string(row.parameters) + ", *, Scalar beta=1, Scalar alpha=1";
    define(name + "(Tensor input, " + factors + ") -> Tensor");
    define(name + "_(Tensor(a!) input, " + factors + ") -> Tensor(a!)");
    define(name + ".out(Tensor input, " + factors + ", Tensor(a!) out) -> Tensor(a!)");
  }
}

TORCH_LIBRARY_IMPL(tensorops, CompositeImplicitAutograd, library) {
  library.impl("matmul", matmul);
  library.impl("matmul.out", matmul_out);
}

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  impl_products(library, product_meta, product_meta_out);
  impl_sums(
      library, [](const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar&,
                  const Scalar&) { return sum_meta(row, input, a, b); },
      [](const SumRow& row, Tensor& self, const Tensor& a, const Tensor& b, const Scalar&, const Scalar&) {
        check_inplace(row, self, sum_sizes(row, self, a, b));
        sum_meta_out(row, self, a, b, self);
      },
      [](const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar&, const Scalar&,
         Tensor& out) { sum_meta_out(row, input, a, b, out); });
  library.impl("linear", linear_meta);
  library.impl("linear.out", linear_meta_out);
  library.impl("_linear_activation", linear_activation_meta);
}

}  // namespace tensorops
