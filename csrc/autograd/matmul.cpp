// Matmul derivatives: every gradient is again a product of the family.
#include "ops/matmul.h"

#include <ATen/ops/ones.h>
#include <torch/library.h>

#include "autograd/node.h"
#include "autograd/sum_to_size.h"
#include "ops/elementwise.h"
#include "ops/scalar_type.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using c10::Scalar;
using Bias = const std::optional<Tensor>&;

Tensor scaled(const Tensor& t, const Scalar& factor) {
  return factor.equal(1) ? t : ops::mul(t, ops::wrapped_number(factor));
}

// Gradients of the product's factors, given that of its result.
Tensor gradient_a(Product product, const Tensor& g, const Tensor& b, const c10::SymDimVector& sizes) {
  switch (product) {
    case Product::mm: return ops::mm(g, b.t());
    case Product::mv: return ops::outer(g, b);
    case Product::dot: return ops::mul(g, b);
    case Product::outer: return ops::mv(g, b);
    case Product::bmm: return ops::bmm(g, b.transpose(1, 2));
    default: return ops::bmm(g.expand_symint({sizes[0], g.sym_size(0), g.sym_size(1)}), b.transpose(1, 2));
  }
}
Tensor gradient_b(Product product, const Tensor& g, const Tensor& a, const c10::SymDimVector& sizes) {
  switch (product) {
    case Product::mm: return ops::mm(a.t(), g);
    case Product::mv: return ops::mv(a.t(), g);
    case Product::dot: return ops::mul(g, a);
    case Product::outer: return ops::mv(g.t(), a);
    case Product::bmm: return ops::bmm(a.transpose(1, 2), g);
    default: return ops::bmm(a.transpose(1, 2), g.expand_symint({sizes[0], g.sym_size(0), g.sym_size(1)}));
  }
}

// outer and addr promote: a gradient goes back to its input's dtype, and factors meet in the gradient's.
struct Factor {
  explicit Factor(const Tensor& t) : sizes(t.sym_sizes()), type(t.scalar_type()) {}
  c10::SymDimVector sizes;
  c10::ScalarType type;
};

// Sets the gradients of the factors at results `first` and `first + 1`; saved are the factors.
void set_factor_gradients(Backward& b, Product product, const Tensor& g, const Factor& a_was, const Factor& b_was,
                          size_t first) {
  if (b.needs(first))
    b.result(first, as(gradient_a(product, g, as(b.saved(1), g.scalar_type()), a_was.sizes), a_was.type));
  if (b.needs(first + 1))
    b.result(first + 1, as(gradient_b(product, g, as(b.saved(0), g.scalar_type()), b_was.sizes), b_was.type));
}

Tensor product(const ProductRow& row, const Tensor& a, const Tensor& b) {
  Graph graph(row.node, {&a, &b});
  Tensor out = Graph::forward([&] { return row.op(a, b); });
  if (graph.recording())
    graph.record({&out}, {&a, &b}, [product = row.product, a_was = Factor(a), b_was = Factor(b)](Backward& backward) {
      set_factor_gradients(backward, product, backward.gradient(), a_was, b_was, 0);
    });
  return out;
}

void product_out(const ProductRow& row, const Tensor& a, const Tensor& b, Tensor& out) {
  Graph(row.node, {&a, &b}).refuse_out(row.name, out);
  Graph::forward([&] { return row.out(a, b, out); });
  Graph::after_inplace(out);
}

auto sum_backward(Product product, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
                  const Scalar& alpha) {
  return [product, beta, alpha, input_was = Factor(input), a_was = Factor(a), b_was = Factor(b)](Backward& backward) {
    const Tensor& g = backward.gradient();
    if (backward.needs(0))
      backward.result(0, as(scaled(sum_to_size(g, input_was.sizes), beta), input_was.type));
    if (backward.needs(1) || backward.needs(2))
      set_factor_gradients(backward, product, scaled(g, alpha), a_was, b_was, 1);
  };
}

Tensor sum(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
           const Scalar& alpha) {
  Graph graph(row.node, {&input, &a, &b});
  Tensor out = Graph::forward([&] { return row.op(input, a, b, beta, alpha); });
  if (graph.recording()) graph.record({&out}, {&a, &b}, sum_backward(row.product, input, a, b, beta, alpha));
  return out;
}

void sum_inplace(const SumRow& row, Tensor& self, const Tensor& a, const Tensor& b, const Scalar& beta,
                 const Scalar& alpha) {
  Graph graph(row.node, {&self, &a, &b});
  graph.before_inplace(self);
  // What the backward reads of the overwritten memory must outlive the write.
  const bool keep_a = graph.recording() && may_alias(a, self), keep_b = graph.recording() && may_alias(b, self);
  const Tensor old_a = keep_a ? a.clone() : a, old_b = keep_b ? b.clone() : b;
  auto backward = sum_backward(row.product, self, a, b, beta, alpha);
  Graph::forward([&] { return row.inplace(self, a, b, beta, alpha); });
  Graph::after_inplace(self);
  if (graph.recording()) graph.record_inplace(self, {&old_a, &old_b}, std::move(backward));
}

void sum_out(const SumRow& row, const Tensor& input, const Tensor& a, const Tensor& b, const Scalar& beta,
             const Scalar& alpha, Tensor& out) {
  Graph(row.node, {&input, &a, &b}).refuse_out(row.name, out);
  Graph::forward([&] { return row.out(input, a, b, beta, alpha, out); });
  Graph::after_inplace(out);
}

// ---- linear ----------------------------------------------------------------------------------------------------------

// Below this many elements the least calls win.
constexpr int64_t kFewElements = 1 << 14;

// Sums down the columns of a matrix; of a large one as a product with ones, which runs at the speed of memory.
Tensor column_sums(const Tensor& matrix) {
  const bool few = !matrix.unsafeGetTensorImpl()->has_symbolic_sizes_strides() && matrix.numel() <= kFewElements;
  if (few) return ops::sum(matrix, at::IntArrayRef{0});
  return ops::mv(matrix.t(), at::ones({1}, matrix.options()).expand_symint({matrix.sym_size(0)}));
}

Tensor linear(const Tensor& input, const Tensor& weight, Bias bias) {
  const Tensor none;
  const Tensor& added = bias ? *bias : none;
  Graph graph("LinearBackward", {&input, &weight, &added});
  Tensor out = Graph::forward([&] { return ops::linear(input, weight, bias); });
  if (!graph.recording()) return out;
  c10::SymDimVector bias_sizes;
  if (bias) bias_sizes = c10::SymDimVector(bias->sym_sizes());
  graph.record({&out}, {&input, &weight}, [bias_sizes = std::move(bias_sizes)](Backward& b) {
    const Tensor &g = b.gradient(), &x = b.saved(0), &w = b.saved(1);
    // All leading dimensions as rows of one matrix, a vector weight as a matrix of one row.
    const bool matrices = x.dim() == 2 && w.dim() == 2;
    c10::SymInt m = 1;
    for (const c10::SymInt& size : x.sym_sizes().slice(0, x.dim() - 1)) m = m * size;
    const c10::SymInt k = w.sym_size(-1), n = w.dim() == 2 ? w.sym_size(0) : c10::SymInt(1);
    const auto as_matrix = [&](const Tensor& t, const c10::SymInt& rows, const c10::SymInt& columns) {
      return matrices ? t : t.reshape_symint({rows, columns});
    };
    const auto shaped_like = [&](const Tensor& t, const Tensor& like) {
      return matrices ? t : t.view_symint(like.sym_sizes());
    };
    const Tensor rows = as_matrix(g, m, n);
    if (b.needs(0)) b.result(0, shaped_like(ops::mm(rows, as_matrix(w, n, k)), x));
    if (b.needs(1)) b.result(1, shaped_like(ops::mm(rows.t(), as_matrix(x, m, k)), w));
    if (b.needs(2)) {
      const bool per_column = bias_sizes.size() == 1 && bias_sizes[0] == n;
      b.result(2, per_column ? column_sums(rows) : sum_to_size(g, bias_sizes));
    }
  });
  return out;
}

Tensor& linear_out(const Tensor& input, const Tensor& weight, Bias bias, Tensor& out) {
  const Tensor none;
  Graph("LinearBackward", {&input, &weight, bias ? &*bias : &none}).refuse_out("linear", out);
  Graph::forward([&] { return ops::linear_out(input, weight, bias, out); });
  Graph::after_inplace(out);
  return out;
}

// With a gradient to compute, the activation is a step of its own: its backward reads what it was applied to.
Tensor linear_activation(const Tensor& input, const Tensor& weight, Bias bias, std::string_view activation) {
  const Tensor none;
  const Graph graph("LinearActivationBackward", {&input, &weight, bias ? &*bias : &none});
  if (!graph.recording()) return Graph::forward([&] { return ops::linear_activation(input, weight, bias, activation); });
  const Tensor y = ops::linear(input, weight, bias);
  if (activation == "relu") return ops::elementwise(Elementwise::relu, y);
  if (activation == "gelu") return ops::gelu(y, "none");
  if (activation == "gelu_tanh") return ops::gelu(y, "tanh");
  if (activation == "sigmoid") return ops::elementwise(Elementwise::sigmoid, y);
  if (activation == "tanh") return ops::elementwise(Elementwise::tanh, y);
  if (activation == "silu") return ops::elementwise(Elementwise::silu, y);
  TORCH_CHECK_VALUE(false, "_linear_activation: unknown activation '", activation, "'");
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  impl_products(library, product, product_out);
  impl_sums(library, sum, sum_inplace, sum_out);
  library.impl("linear", linear);
  library.impl("linear.out", linear_out);
  library.impl("_linear_activation", linear_activation);
}

}  // namespace tensorops::autograd
