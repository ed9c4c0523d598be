// First derivatives are ops of their own; what lies beyond them, and the rarer gradients of targets and weights, are
// formulas made of differentiable ops.
#include "ops/loss.h"

#include <torch/library.h>

#include "autograd/node.h"
#include "autograd/sum_to_size.h"
#include "autograd/tensor_expr.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using ops::OptionalTensor;

const Tensor& value_or_undefined(const OptionalTensor& t) {
  static const Tensor undefined;
  return t ? *t : undefined;
}
OptionalTensor optional(const Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

// ---- nll_loss is linear in its input, and its backward op in the gradient.

// Torch gives weights a gradient only in the cross entropy of probabilities, and refuses those that want one elsewhere.
void refuse_weight_gradient(const OptionalTensor& weight, const char* op) {
  torch::autograd::check_no_requires_grad(weight, "weight", op);
}

std::tuple<Tensor, Tensor> nll_loss(const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                                    int64_t reduction, c10::SymInt ignore_index) {
  refuse_weight_gradient(weight, "nll_loss");
  Graph graph("NllLossBackward", {&input});
  auto result = Graph::forward([&] { return ops::nll_loss_forward(input, target, weight, reduction, ignore_index); });
  auto& [loss, total] = result;
  if (graph.recording())
    graph.record({&loss}, {&target, &value_or_undefined(weight), &total},
                 [=, classes = input.sym_size(class_dim(input))](Backward& b) {
                   b.result(0, ops::nll_loss_backward(b.gradient(), b.saved(0), optional(b.saved(1)), b.saved(2), classes,
                                                      reduction, ignore_index));
                 });
  return result;
}

Tensor nll_loss_backward(const Tensor& grad, const Tensor& target, const OptionalTensor& weight, const Tensor& total,
                         c10::SymInt classes, int64_t reduction, c10::SymInt ignore_index) {
  Graph graph("NllLossBackwardBackward", {&grad});
  Tensor result = Graph::forward(
      [&] { return ops::nll_loss_backward(grad, target, weight, total, classes, reduction, ignore_index); });
  if (graph.recording())
    graph.record({&result}, {&target, &value_or_undefined(weight)}, [=](Backward& b) {
      b.result(0, std::get<0>(ops::nll_loss_forward(b.gradient(), b.saved(0), optional(b.saved(1)), reduction,
                                                    ignore_index)));
    });
  return result;
}

// ---- cross_entropy, with q as in cpu/kernels/loss.h, p = softmax(x) and the gradient g of each position's loss:
//   loss = -sum(q * log(p)),  d loss / dx = sum(q) * p - q

struct CrossEntropy {
  int64_t dim;  // of the classes
  double kept, spread;
  Tensor weight;  // undefined, or with the dimensions of the input
  Expr t;         // the target as probabilities
  Expr q, q_sum, p, log_p;

  // `normalizer` spares finding the maximum again; its own derivative cancels out.
  CrossEntropy(const Tensor& input, const Tensor& target, const Tensor& weight_, const Tensor& normalizer,
               const c10::SymInt& ignore_index, double smoothing)
      : dim(class_dim(input)), kept(1 - smoothing), t(0), q(0), q_sum(0), p(0), log_p(0) {
    const c10::SymInt& classes = input.sym_size(dim);
    std::vector<c10::SymInt> sizes(input.dim(), c10::SymInt(1));
    sizes[dim] = classes;
    if (weight_.defined()) weight = weight_.view_symint(sizes);
    spread = smoothing / static_cast<double>(classes.guard_int(__FILE__, __LINE__));
    if (is_probabilities(target)) {
      t = target;
      q = weighted(t * kept + spread);
    } else {
      const Tensor counts = target.ne(ignore_index).unsqueeze(dim).to(input.scalar_type());
      const Tensor numbers = at::arange(classes, target.options()).view_symint(sizes);
      t = ops::elementwise(Elementwise::eq, numbers, target.unsqueeze(dim)).to(input.scalar_type());
      q = weighted(t * kept + spread) * Expr(counts);
    }
    const Tensor maximum = normalizer.select(0, 0).unsqueeze(dim).to(input.scalar_type());
    const Expr shifted = Expr(input) - Expr(maximum), e = exp(shifted), sum = over_classes(e);
    q_sum = over_classes(q);
    p = e / sum;
    log_p = shifted - log(sum);
  }
  Expr weighted(const Expr& x) const { return weight.defined() ? x * Expr(weight) : x; }
  Expr over_classes(const Expr& x) const { return ops::sum(x.tensor(), dim, /*keepdim=*/true); }

  // The gradient of each position's loss, from that of the result.
  Expr of_positions(const Tensor& grad, const Tensor& total, int64_t reduction) const {
    if (reduction == at::Reduction::None) return grad.unsqueeze(dim);
    if (reduction == at::Reduction::Mean) return Expr(grad) / Expr(total.to(grad.scalar_type()));
    return grad;
  }
  // The way back of that.
  Tensor to_result(const Expr& x, const Tensor& total, int64_t reduction) const {
    if (reduction == at::Reduction::None) return ops::sum(x.tensor(), dim);
    const Tensor sum = ops::sum(x.tensor());
    return reduction == at::Reduction::Mean ? (Expr(sum) / Expr(total.to(sum.scalar_type()))).tensor() : sum;
  }
  // The gradients of probabilities and of weights, from that of q.
  Tensor to_target(const Expr& x) const { return weighted(x * kept).tensor(); }
  Tensor to_weight(const Expr& x) const {
    return sum_to_size((x * (t * kept + spread)).tensor(), weight.sym_sizes()).flatten();
  }
};

std::tuple<Tensor, Tensor, Tensor> cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight_,
                                                 int64_t reduction, c10::SymInt ignore_index, double smoothing) {
  if (!is_probabilities(target)) refuse_weight_gradient(weight_, "cross_entropy");
  const Tensor& weight = value_or_undefined(weight_);
  Graph graph("CrossEntropyBackward", {&input, &target, &weight});
  auto result = Graph::forward(
      [&] { return ops::cross_entropy_forward(input, target, weight_, reduction, ignore_index, smoothing); });
  auto& [loss, normalizer, total] = result;
  if (graph.recording())
    graph.record({&loss}, {&input, &target, &weight, &normalizer, &total}, [=](Backward& b) {
      const Tensor &x = b.saved(0), &t = b.saved(1), &w = b.saved(2);
      if (b.needs(0))
        b.result(0, ops::cross_entropy_backward(b.gradient(), x, t, optional(w), b.saved(3), b.saved(4), reduction,
                                                ignore_index, smoothing));
      if (!b.needs(1) && !b.needs(2)) return;
      const CrossEntropy c(x, t, w, b.saved(3), ignore_index, smoothing);
      const Expr slope = -(c.of_positions(b.gradient(), b.saved(4), reduction) * c.log_p);
      if (b.needs(1)) b.result(1, c.to_target(slope));
      if (b.needs(2)) b.result(2, c.to_weight(slope));
    });
  return result;
}

Tensor cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target, const OptionalTensor& weight_,
                              const Tensor& normalizer, const Tensor& total, int64_t reduction, c10::SymInt ignore_index,
                              double smoothing) {
  const Tensor& weight = value_or_undefined(weight_);
  Graph graph("CrossEntropyBackwardBackward", {&grad, &input, &target, &weight});
  Tensor result = Graph::forward([&] {
    return ops::cross_entropy_backward(grad, input, target, weight_, normalizer, total, reduction, ignore_index, smoothing);
  });
  if (graph.recording())
    graph.record({&result}, {&grad, &input, &target, &weight, &normalizer, &total}, [=](Backward& b) {
      const Tensor &x = b.saved(1), &t = b.saved(2), &w = b.saved(3), &n = b.saved(5);
      const Expr v = b.gradient();
      const CrossEntropy c(x, t, w, b.saved(4), ignore_index, smoothing);
      const Expr g = c.of_positions(b.saved(0), n, reduction);
      if (b.needs(0)) b.result(0, c.to_result(v * (c.q_sum * c.p - c.q), n, reduction));
      if (!b.needs(1) && !b.needs(2) && !b.needs(3)) return;
      const Expr dot = c.over_classes(v * c.p);
      if (b.needs(1)) b.result(1, (g * c.q_sum * c.p * (v - dot)).tensor());
      if (!b.needs(2) && !b.needs(3)) return;
      const Expr slope = g * (dot - v);
      if (b.needs(2)) b.result(2, c.to_target(slope));
      if (b.needs(3)) b.result(3, c.to_weight(slope));
    });
  return result;
}

// ---- Losses over elements

// What one element's share of the result is multiplied by. Where there are no elements it is finite too: infinity times a
// sum of nothing would be NaN.
double share(const Tensor& input, int64_t reduction) {
  if (reduction != at::Reduction::Mean) return 1;
  return 1.0 / static_cast<double>(std::max<int64_t>(input.sym_numel().guard_int(__FILE__, __LINE__), 1));
}
// The gradient of a result, from that of its elements.
Tensor to_result(const Expr& x, int64_t reduction) {
  return reduction == at::Reduction::None ? x.tensor() : ops::sum(x.tensor());
}

Tensor mse_loss(const Tensor& input, const Tensor& target, int64_t reduction) {
  Graph graph("MseLossBackward", {&input, &target});
  Tensor loss = Graph::forward([&] { return ops::mse_loss_forward(input, target, reduction); });
  if (graph.recording())
    graph.record({&loss}, {&input, &target}, [=](Backward& b) {
      if (b.needs(0)) b.result(0, ops::mse_loss_backward(b.gradient(), b.saved(0), b.saved(1), reduction));
      if (b.needs(1)) b.result(1, ops::mse_loss_backward(b.gradient(), b.saved(1), b.saved(0), reduction));
    });
  return loss;
}

Tensor mse_loss_backward(const Tensor& grad, const Tensor& input, const Tensor& target, int64_t reduction) {
  Graph graph("MseLossBackwardBackward", {&grad, &input, &target});
  Tensor result = Graph::forward([&] { return ops::mse_loss_backward(grad, input, target, reduction); });
  if (graph.recording())
    graph.record({&result}, {&grad, &input, &target}, [=, s = 2 * share(input, reduction)](Backward& b) {
      const Expr v = Expr(b.gradient()) * s;
      if (b.needs(0)) b.result(0, to_result(v * (Expr(b.saved(1)) - Expr(b.saved(2))), reduction));
      if (!b.needs(1) && !b.needs(2)) return;
      const Expr slope = v * Expr(b.saved(0));
      if (b.needs(1)) b.result(1, slope.tensor());
      if (b.needs(2)) b.result(2, (-slope).tensor());
    });
  return result;
}

Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight_, int64_t reduction) {
  refuse_weight_gradient(weight_, "binary_cross_entropy");
  const Tensor& weight = value_or_undefined(weight_);
  Graph graph("BinaryCrossEntropyBackward", {&input, &target});
  Tensor loss = Graph::forward([&] { return ops::binary_cross_entropy_forward(input, target, weight_, reduction); });
  if (graph.recording())
    graph.record({&loss}, {&input, &target, &weight}, [=, s = share(input, reduction)](Backward& b) {
      const Tensor &x = b.saved(0), &t = b.saved(1), &w = b.saved(2);
      if (b.needs(0)) b.result(0, ops::binary_cross_entropy_backward(b.gradient(), x, t, optional(w), reduction));
      if (b.needs(1)) {
        const Expr slope = Expr(b.gradient()) * s * (log1p(-Expr(x)) - log(Expr(x)));
        b.result(1, (w.defined() ? slope * Expr(w) : slope).tensor());
      }
    });
  return loss;
}

Tensor binary_cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target,
                                     const OptionalTensor& weight_, int64_t reduction) {
  const Tensor& weight = value_or_undefined(weight_);
  Graph graph("BinaryCrossEntropyBackwardBackward", {&grad, &input, &target});
  Tensor result =
      Graph::forward([&] { return ops::binary_cross_entropy_backward(grad, input, target, weight_, reduction); });
  if (graph.recording())
    graph.record({&result}, {&grad, &input, &target, &weight}, [=, s = share(input, reduction)](Backward& b) {
      const Expr g = b.saved(0), x = b.saved(1), t = b.saved(2);
      Expr v = Expr(b.gradient()) * s;
      if (b.saved(3).defined()) v = v * Expr(b.saved(3));
      const Expr product = maximum(x * (1 - x), Expr(1e-12));
      if (b.needs(0)) b.result(0, to_result(v * ((x - t) / product), reduction));
      if (b.needs(1)) b.result(1, (v * g * ((x * x - 2 * x * t + t) / (product * product))).tensor());
      if (b.needs(2)) b.result(2, (-(v * g / product)).tensor());
    });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  library.impl("_nll_loss", nll_loss);
  library.impl("_nll_loss_backward", nll_loss_backward);
  library.impl("_cross_entropy", cross_entropy);
  library.impl("_cross_entropy_backward", cross_entropy_backward);
  library.impl("_mse_loss", mse_loss);
  library.impl("_mse_loss_backward", mse_loss_backward);
  library.impl("_binary_cross_entropy", binary_cross_entropy);
  library.impl("_binary_cross_entropy_backward", binary_cross_entropy_backward);
}

}  // namespace tensorops::autograd
