// Derivatives of the reductions, as tensor expressions of our own ops.
#include "ops/reduction.h"

#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <limits>

#include "autograd/node.h"
#include "autograd/tensor_expr.h"
#include "ops/reduction_forms.h"
#include "ops/scalar_type.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using c10::SymInt;

// The reduced dimensions put back with size 1, so that a result broadcasts against the input.
Tensor restore(const Tensor& result, const ReductionPlan& plan, int64_t ndim) {
  if (plan.keepdim || !result.defined()) return result;
  Tensor r = result;
  for (int64_t i = 0; i < ndim; ++i)
    if (plan.reduced[i]) r = r.unsqueeze(i);
  return r;
}

c10::SmallVector<int64_t, 6> dims_of(const ReductionPlan& plan, int64_t ndim) {
  c10::SmallVector<int64_t, 6> dims;
  for (int64_t i = 0; i < ndim; ++i)
    if (plan.reduced[i]) dims.push_back(i);
  return dims;
}

SymInt reduced_count(const ReductionPlan& plan, const Tensor& input) {
  SymInt n = 1;
  for (int64_t i = 0; i < input.dim(); ++i)
    if (plan.reduced[i]) n = n * input.sym_size(i);
  return n;
}

// A count as a factor: a plain number unless it is symbolic.
Expr number(const SymInt& n) { return static_cast<double>(n.guard_int(__FILE__, __LINE__)); }

// A gradient goes in equal parts to all elements equal to the result; where that is NaN, to the NaNs: there are none where
// it is not.
Tensor to_extrema(const Tensor& grad, const Tensor& input, const Tensor& result, c10::IntArrayRef dims) {
  const Condition equal = {ops::elementwise(Elementwise::_is_extremum, input, result), std::nullopt};
  const Tensor count = dims.empty() ? ops::sum(equal.tensor, {}, true, grad.scalar_type())
                                    : ops::sum(equal.tensor, dims, true, grad.scalar_type());
  return select(equal, Expr(grad) / Expr(count), Expr(0)).tensor();
}

Tensor var_gradient(const Tensor& grad, const Tensor& input, const Tensor& mean, const ReductionPlan& plan) {
  const double divisor = number(reduced_count(plan, input)).number() - plan.correction;
  // No degrees of freedom: torch gives inf, or NaN where the element is the mean.
  if (divisor <= 0) {
    const Expr scaled = Expr(grad) * Expr(std::numeric_limits<double>::infinity()), centered = Expr(input) - Expr(mean);
    return (select(centered == Expr(0), Expr(std::numeric_limits<double>::quiet_NaN()), scaled * centered)).tensor();
  }
  return ops::elementwise(Elementwise::_var_gradient, (Expr(grad) * Expr(2.0 / divisor)).tensor(), input, mean);
}

Tensor std_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Tensor& mean, const ReductionPlan& plan) {
  const Expr scaled = Expr(grad) / (Expr(2) * Expr(result));
  return var_gradient(select(Expr(result) == Expr(0), Expr(0), scaled).tensor(), input, mean, plan);
}

// Of nothing, the gradient is empty; a division by its count would still make NaN of the second derivative.
Tensor mean_gradient(const Tensor& grad, const SymInt& n, c10::SymIntArrayRef sizes) {
  return (n == 0 ? grad : (Expr(grad) / number(n)).tensor()).expand_symint(sizes);
}

Tensor norm_gradient(const Tensor& grad, const Tensor& input, const Tensor& norm, double p, c10::IntArrayRef dims) {
  const Expr x = input, g = grad, y = norm;
  if (p == 0) return at::zeros_like(input);
  if (p == 1) return (sign(x) * g).tensor();
  if (p == 2) return (x * select(y == Expr(0), Expr(0), g / y)).tensor();
  if (std::isinf(p)) return (Expr(to_extrema(grad, ops::elementwise(Elementwise::abs, input), norm, dims)) * sign(x)).tensor();
  if (p < 1) {
    const Expr power = select(x == Expr(0), Expr(0), sign(x) * pow(abs(x), Expr(p - 1)));
    return (power * (g * pow(y, Expr(1 - p)))).tensor();
  }
  const Expr scale = select(y == Expr(0), Expr(0), g / pow(y, Expr(p - 1)));
  if (p < 2) return (sign(x) * pow(abs(x), Expr(p - 1)) * scale).tensor();
  return (x * pow(abs(x), Expr(p - 2)) * scale).tensor();
}

bool is_differentiable(Reduction op) {
  return op != Reduction::any && op != Reduction::all && op != Reduction::count_nonzero && op != Reduction::argmax &&
         op != Reduction::argmin;
}

// What each op's backward reads: bit 0 the input, 1 and 2 the results.
int reads(Reduction op) {
  switch (op) {
    case Reduction::sum:
    case Reduction::mean: return 0;
    case Reduction::prod: return 1;
    case Reduction::var_mean: return 5;
    case Reduction::max:
    case Reduction::min: return 4;
    case Reduction::aminmax:
    case Reduction::std_mean: return 7;
    default: return 3;
  }
}

Tensor gradient(Backward& b, const ReductionPlan& plan, const std::vector<SymInt>& sizes, c10::ScalarType type) {
  const int64_t ndim = static_cast<int64_t>(sizes.size());
  const auto dims = dims_of(plan, ndim);
  const Tensor &input = b.saved(0), &first = b.saved(1), &second = b.saved(2);
  // Tensors of the result's shape, ready to broadcast.
  const auto wide = [&](const Tensor& t) { return restore(t, plan, ndim); };
  // A gradient of no dimensions expands to any shape as it is.
  const bool expands = (plan.op == Reduction::sum || plan.op == Reduction::mean) && b.gradient().dim() == 0;
  const Tensor g = expands ? b.gradient() : wide(b.gradient());
  const bool two = plan.count == 2 && plan.op != Reduction::max && plan.op != Reduction::min;
  const Tensor g2 = two ? wide(b.gradient(1)) : Tensor();
  const auto plus = [](const Tensor& a, const Tensor& c) { return !a.defined() ? c : !c.defined() ? a : ops::add(a, c); };
  switch (plan.op) {
    case Reduction::sum: return as(g.expand_symint(sizes), type);
    case Reduction::mean: {
      SymInt n = 1;
      for (int64_t dim : dims) n = n * sizes[dim];
      return as(mean_gradient(g, n, sizes), type);
    }
    case Reduction::prod:
      if (dims.empty()) return as(g, type);  // of a number
      return as(ops::prod_gradient(g, as(input, g.scalar_type()), dims), type);
    case Reduction::norm: return as(norm_gradient(g, as(input, g.scalar_type()), wide(first), plan.p, dims), type);
    case Reduction::logsumexp: {
      // Where the result is -inf all inputs are, and x - result would be NaN.
      const Tensor y = wide(first);
      const double infinity = std::numeric_limits<double>::infinity();
      const Expr finite = select(Expr(y) == Expr(-infinity), Expr(0), Expr(y));
      return logsumexp_gradient(g, input, finite).tensor();
    }
    case Reduction::amax:
    case Reduction::amin: return to_extrema(g, input, wide(first), dims);
    case Reduction::aminmax:
      return plus(g.defined() ? to_extrema(g, input, wide(first), dims) : Tensor(),
                  g2.defined() ? to_extrema(g2, input, wide(second), dims) : Tensor());
    case Reduction::max:
    case Reduction::min: return ops::select_backward(g, wide(second), ndim == 0 ? 0 : dims[0], ndim == 0 ? SymInt(1) : sizes[dims[0]]);
    case Reduction::var_mean:
      return plus(g.defined() ? var_gradient(g, input, wide(second), plan) : Tensor(),
                  g2.defined() ? mean_gradient(g2, reduced_count(plan, input), sizes) : Tensor());
    case Reduction::std_mean:
      return plus(g.defined() ? std_gradient(g, input, wide(first), wide(second), plan) : Tensor(),
                  g2.defined() ? mean_gradient(g2, reduced_count(plan, input), sizes) : Tensor());
    default: TORCH_INTERNAL_ASSERT(false, reduction_name(plan.op), " has no derivative");
  }
}

ops::TwoTensors functional(Reduction op, const Tensor& input, const ReductionArguments& arguments) {
  if (!is_differentiable(op)) return Graph::forward([&] { return ops::reduce(op, input, arguments); });
  Graph graph("ReductionBackward", {&input});
  // The derivatives of var and std read the mean: a second result, which the caller does not see.
  if (graph.recording() && op == Reduction::var) op = Reduction::var_mean;
  if (graph.recording() && op == Reduction::std) op = Reduction::std_mean;
  ops::TwoTensors results = graph.forward([&] { return ops::reduce(op, input, arguments); });
  const Tensor &first = std::get<0>(results), &second = std::get<1>(results);
  if (!graph.recording() || !first.is_floating_point()) return results;
  const ReductionPlan plan = plan_reduction(op, input, arguments);
  const Tensor nothing;
  const int saved = reads(op);
  const auto pick = [&](int bit, const Tensor& t) { return saved & bit ? &t : &nothing; };
  const auto function = [plan, sizes = input.sym_sizes().vec(), type = input.scalar_type()](Backward& b) {
    b.result(0, gradient(b, plan, sizes, type));
  };
  if (second.defined() && second.is_floating_point())
    graph.record({&first, &second}, {pick(1, input), pick(2, first), pick(4, second)}, function);
  else graph.record({&first}, {pick(1, input), pick(2, first), pick(4, second)}, function);
  return results;
}

void out_variant(Reduction op, const Tensor& input, const ReductionArguments& arguments, Tensor& out, Tensor* second) {
  Graph graph("ReductionBackward", {&input});
  const auto wants = [](const Tensor& t) { return at::GradMode::is_enabled() && t.requires_grad(); };
  if (wants(out) || (second != nullptr && wants(*second)) || (graph.recording() && is_differentiable(op)))
    torch::autograd::throw_error_out_requires_grad(reduction_name(op));
  Graph::forward([&] { return ops::reduce_out(op, input, arguments, out, second); });
  Graph::after_inplace(out);
  if (second != nullptr) Graph::after_inplace(*second);
}

Tensor select_backward(const Tensor& grad, const Tensor& indices, int64_t dim, SymInt size) {
  Graph graph("SelectBackwardBackward", {&grad});
  Tensor result = graph.forward([&] { return ops::select_backward(grad, indices, dim, size); });
  if (graph.recording())
    graph.record({&result}, {&indices}, [dim](Backward& b) { b.result(0, ops::select(b.gradient(), b.saved(0), dim)); });
  return result;
}

// The kernel, unless there is to be a derivative again.
Tensor prod_gradient(const Tensor& grad, const Tensor& input, c10::IntArrayRef dims) {
  const Graph graph("ProdBackwardBackward", {&grad, &input});
  if (graph.recording()) return ops::prod_gradient_by_scans(grad, input, dims);
  return Graph::forward([&] { return ops::prod_gradient(grad, input, dims); });
}

Tensor select_elements(const Tensor& input, const Tensor& indices, int64_t dim) {
  Graph graph("SelectBackward", {&input});
  Tensor result = graph.forward([&] { return ops::select(input, indices, dim); });
  if (graph.recording())
    graph.record({&result}, {&indices}, [dim, size = input.dim() == 0 ? SymInt(1) : input.sym_size(dim)](Backward& b) {
      b.result(0, ops::select_backward(b.gradient(), b.saved(0), dim, size));
    });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  impl_reductions(library, functional, out_variant);
  library.impl("_select_backward", select_backward);
  library.impl("_select", select_elements);
  library.impl("_prod_gradient", prod_gradient);
}

}  // namespace tensorops::autograd
