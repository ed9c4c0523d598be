// Losses on CUDA. Sums are made of partial sums in f64 whose number depends on the size alone.
#include "ops/loss.h"

#include <torch/library.h>

#include <limits>

#include "cuda/kernels/loss.h"
#include "cuda/launch.h"
#include "cuda/lines.h"
#include "ops/layout.h"

namespace tensorops::cuda {
namespace {

using at::Tensor;
using ops::OptionalTensor;

Tensor scratch(int64_t bytes, const Tensor& like) { return empty({bytes}, c10::kByte, like.device()); }

void check_devices(const Tensor& input, const Tensor& target, const OptionalTensor& weight) {
  const Tensor none;
  check_same_device({&input, &target, weight ? &*weight : &none});
}

c10::SmallVector<int64_t, 6> position_sizes(const Tensor& input) {
  c10::SmallVector<int64_t, 6> sizes(input.sizes().begin(), input.sizes().end());
  sizes.erase(sizes.begin() + class_dim(input));
  return sizes;
}

// Lines over the classes in logical order, as labels are counted.
CrossEntropyCall class_call(const char* op, const Tensor& shape, const Tensor* logits, const Tensor& target, const Tensor* result,
                            const OptionalTensor& weight, int64_t ignored, double smoothing) {
  const bool probabilities = is_probabilities(target);
  CrossEntropyCall call{};
  call.lines = make_lines(op, shape, {logits, probabilities ? &target : nullptr, result}, class_dim(shape), /*ordered=*/true);
  if (!probabilities) call.target.labels = target.const_data_ptr<int64_t>();
  if (weight) {
    call.target.weight = weight->const_data_ptr();
    call.target.weight_step = weight->stride(0);
  }
  call.target.kept = 1 - smoothing;
  call.target.spread = smoothing / static_cast<double>(shape.size(class_dim(shape)));
  call.target.ignored = ignored;
  call.fault = fault_word();
  return call;
}

// The loss of the positions' losses and weights, which are two rows of n, and the total weight.
struct Sums {
  Tensor loss, total;
};
Sums reduced(const Tensor& rows, int64_t n, int64_t reduction, const Tensor& losses, c10::ScalarType dtype) {
  const bool f64 = rows.scalar_type() == c10::kDouble;
  const Tensor workspace = scratch(loss_sum_bytes(2), rows), sums = empty({2}, c10::kDouble, rows.device());
  Sums result{losses, empty({}, rows.scalar_type(), rows.device())};
  if (reduction != at::Reduction::None) result.loss = empty({}, dtype, rows.device());
  auto* const sum = sums.data_ptr<double>();
  launch_loss_sum(f64, rows.const_data_ptr(), 2, n, workspace.data_ptr(), sum, stream());
  launch_loss_finish(sum, reduction == at::Reduction::Mean, 0, dtype_of(dtype),
                     reduction == at::Reduction::None ? nullptr : result.loss.data_ptr(), f64, result.total.data_ptr(), stream());
  check_launch_with_indices();
  return result;
}

// Where the positions' losses go: with no reduction into the result itself.
struct PositionLosses {
  Tensor rows;    // losses and weights
  Tensor losses;  // the result of no reduction
  PositionLosses(const Tensor& input, int64_t n, int64_t reduction, c10::IntArrayRef sizes)
      : rows(empty({2, n}, loss_compute_dtype(input), input.device())) {
    if (reduction == at::Reduction::None) losses = empty(sizes, input.scalar_type(), input.device());
  }
  void set(CrossEntropyCall& call, int64_t n) const {
    call.losses = losses.defined() ? losses.data_ptr() : rows.data_ptr();
    call.loss_dtype = dtype_of(losses.defined() ? losses.scalar_type() : rows.scalar_type());
    call.weights = static_cast<char*>(rows.data_ptr()) + n * rows.element_size();
  }
};

ClassGradient class_gradient(const Tensor& grad, const Tensor& total, int64_t reduction) {
  return {grad.const_data_ptr(), dtype_of(grad.scalar_type()), reduction != at::Reduction::None,
          reduction == at::Reduction::Mean ? total.const_data_ptr() : nullptr};
}

// ---- Losses over classes

std::tuple<Tensor, Tensor> nll_loss(const Tensor& input, const Tensor& target_, const OptionalTensor& weight, int64_t reduction,
                                    c10::SymInt ignore_index) {
  raise_fault();
  check_devices(input, target_, weight);
  const Guard guard(input.device());
  const Tensor target = target_.contiguous();
  const int64_t n = target.numel();
  const PositionLosses out(input, n, reduction, target.sizes());
  auto call = class_call("nll_loss", input, &input, target, nullptr, weight, ignore_index.guard_int(__FILE__, __LINE__), 0);
  out.set(call, n);
  if (n > 0) launch_pick(call, stream());
  const Sums sums = reduced(out.rows, n, reduction, out.losses, input.scalar_type());
  return {sums.loss, sums.total};
}

Tensor nll_loss_backward(const Tensor& grad_, const Tensor& target_, const OptionalTensor& weight, const Tensor& total,
                         c10::SymInt classes, int64_t reduction, c10::SymInt ignore_index) {
  raise_fault();
  check_devices(grad_, target_, weight);
  const Guard guard(grad_.device());
  const Tensor target = target_.contiguous(), grad = grad_.contiguous();
  auto sizes = target.sizes().vec();
  sizes.insert(sizes.begin() + (sizes.empty() ? 0 : 1), classes.guard_int(__FILE__, __LINE__));
  const Tensor result = empty(sizes, grad.scalar_type(), grad.device());
  if (result.numel() == 0) return result;
  const auto call = class_call("nll_loss", result, nullptr, target, &result, weight, ignore_index.guard_int(__FILE__, __LINE__), 0);
  launch_pick_backward(call, class_gradient(grad, total, reduction), static_cast<int64_t>(result.nbytes()), stream());
  check_launch_with_indices();
  return result;
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy(const Tensor& input, const Tensor& target_, const OptionalTensor& weight,
                                                 int64_t reduction, c10::SymInt ignore_index, double smoothing) {
  raise_fault();
  check_devices(input, target_, weight);
  const Guard guard(input.device());
  const Tensor target = is_probabilities(target_) ? target_ : target_.contiguous();
  auto sizes = position_sizes(input);
  int64_t n = 1;
  for (int64_t size : sizes) n *= size;
  const PositionLosses out(input, n, reduction, sizes);
  sizes.insert(sizes.begin(), 2);
  const Tensor normalizer = empty(sizes, loss_compute_dtype(input), input.device());
  auto call =
      class_call("cross_entropy", input, &input, target, nullptr, weight, ignore_index.guard_int(__FILE__, __LINE__), smoothing);
  out.set(call, n);
  call.maximum = normalizer.data_ptr();
  call.sum = static_cast<char*>(normalizer.data_ptr()) + n * normalizer.element_size();
  if (n > 0) launch_cross_entropy(call, stream());
  const Sums sums = reduced(out.rows, n, reduction, out.losses, input.scalar_type());
  return {sums.loss, normalizer, sums.total};
}

Tensor cross_entropy_backward(const Tensor& grad_, const Tensor& input, const Tensor& target_, const OptionalTensor& weight,
                              const Tensor& normalizer_, const Tensor& total, int64_t reduction, c10::SymInt ignore_index,
                              double smoothing) {
  raise_fault();
  check_devices(input, target_, weight);
  const Guard guard(input.device());
  const Tensor target = is_probabilities(target_) ? target_ : target_.contiguous();
  const Tensor grad = grad_.contiguous(), normalizer = normalizer_.contiguous();
  Tensor result;
  if (has_class_rows(input)) {
    const auto sizes = input.movedim(class_dim(input), -1).sizes().vec();
    result = empty(sizes, input.scalar_type(), input.device()).movedim(-1, class_dim(input));
  } else {
    result = empty(input.sizes(), input.scalar_type(), input.device());
  }
  if (result.numel() == 0) return result;
  auto call =
      class_call("cross_entropy", input, &input, target, &result, weight, ignore_index.guard_int(__FILE__, __LINE__), smoothing);
  call.maximum = normalizer.data_ptr();
  call.sum = static_cast<char*>(normalizer.data_ptr()) + normalizer.nbytes() / 2;
  launch_cross_entropy_backward(call, class_gradient(grad, total, reduction), stream());
  check_launch_with_indices();
  return result;
}

// ---- Losses over elements

// Tensors of one shape in one dense layout, the result's.
struct Elements {
  Dims<int64_t> strides;
  Tensor input, target, weight;

  Elements(const Tensor& x, const Tensor& t, const OptionalTensor& w)
      : strides(result_strides<int64_t>({{&x, &t}, 2}, x.sizes())), input(dense(x)), target(dense(t)) {
    if (w) weight = dense(*w);
  }
  Tensor dense(const Tensor& t) const {
    if (t.strides() == c10::IntArrayRef(strides)) return t;
    return empty_like(t).copy_(t);
  }
  Tensor empty_like(const Tensor& t) const { return empty_strided(t.sizes(), strides, t.scalar_type(), t.device()); }
  ElementLossCall call() const {
    return {dtype_of(input.scalar_type()), input.const_data_ptr(), target.const_data_ptr(),
            weight.defined() ? weight.const_data_ptr() : nullptr, input.numel(), fault_word()};
  }
};

Tensor element_loss(ElementLoss kind, const Tensor& input, const Tensor& target, const OptionalTensor& weight, int64_t reduction) {
  raise_fault();
  check_devices(input, target, weight);
  const Guard guard(input.device());
  const Elements e(input, target, weight);
  const int64_t n = input.numel();
  if (reduction == at::Reduction::None) {
    const Tensor loss = e.empty_like(input);
    if (n > 0) launch_element_loss(kind, e.call(), loss.data_ptr(), stream());
    check_launch_with_indices();
    return loss;
  }
  const Tensor loss = empty({}, input.scalar_type(), input.device());
  const Tensor workspace = scratch(loss_sum_bytes(1), input), sum = empty({1}, c10::kDouble, input.device());
  launch_element_loss_sum(kind, e.call(), workspace.data_ptr(), sum.data_ptr<double>(), stream());
  // The mean of nothing is 0 / 0.
  const double divisor = reduction != at::Reduction::Mean ? 1 : n > 0 ? static_cast<double>(n) : std::numeric_limits<double>::quiet_NaN();
  launch_loss_finish(sum.const_data_ptr<double>(), false, divisor, dtype_of(input.scalar_type()), loss.data_ptr(), false, nullptr,
                     stream());
  check_launch_with_indices();
  return loss;
}

Tensor element_backward(ElementLoss kind, const Tensor& grad_, const Tensor& input, const Tensor& target,
                        const OptionalTensor& weight, int64_t reduction) {
  check_devices(input, target, weight);
  const Guard guard(input.device());
  const Elements e(input, target, weight);
  const Tensor result = e.empty_like(input);
  const int64_t n = input.numel();
  if (n == 0) return result;
  const bool shared = reduction != at::Reduction::None;
  const Tensor grad = shared ? grad_ : e.dense(grad_);
  launch_element_loss_backward(kind, e.call(), grad.const_data_ptr(), shared,
                               reduction == at::Reduction::Mean ? 1.0 / static_cast<double>(n) : 1.0, result.data_ptr(), stream());
  check_launch();
  return result;
}

Tensor mse_loss(const Tensor& input, const Tensor& target, int64_t reduction) {
  return element_loss(ElementLoss::mse, input, target, std::nullopt, reduction);
}
Tensor mse_loss_backward(const Tensor& grad, const Tensor& input, const Tensor& target, int64_t reduction) {
  return element_backward(ElementLoss::mse, grad, input, target, std::nullopt, reduction);
}
Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight, int64_t reduction) {
  return element_loss(ElementLoss::binary_cross_entropy, input, target, weight, reduction);
}
Tensor binary_cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                                     int64_t reduction) {
  return element_backward(ElementLoss::binary_cross_entropy, grad, input, target, weight, reduction);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) {
  library.impl("_nll_loss", nll_loss);
  library.impl("_nll_loss_backward", nll_loss_backward);
  library.impl("_cross_entropy", cross_entropy);
  library.impl("_cross_entropy_backward", cross_entropy_backward);
  library.impl("_mse_loss", mse_loss);
  library.impl("_mse_loss_backward", mse_loss_backward);
  library.impl("_binary_cross_entropy", binary_cross_entropy);
  library.impl("_binary_cross_entropy_backward", binary_cross_entropy_backward);
}

}  // namespace tensorops::cuda
