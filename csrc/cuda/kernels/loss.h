// Launchers of the losses.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/kernels/fault.h"
#include "cuda/kernels/lines.h"

namespace tensorops::cuda {

// What the target asks of the logits x of a position: the loss is sum_c q[c] * -log_softmax(x)[c]. With labels q is
// `kept` * weight[label] at the label plus `spread` * weight[c] everywhere, with probabilities t it is
// (kept * t[c] + spread) * weight[c].
struct ClassTarget {
  const int64_t* labels = nullptr;  // by position; null: probabilities, the second operand of the lines
  const void* weight = nullptr;     // of the logits' dtype, by class; null for all ones
  int64_t weight_step = 1;          // elements
  double kept = 1, spread = 0;
  int64_t ignored = -100;  // the label of positions without loss and gradient
};

// Positions are lines over the classes, counted in logical order. Compute type: f64 for f64, f32 else.
//   losses   by position, of `loss_dtype`: the logits' for no reduction, else the compute type
//   weights  by position, of the compute type: what the mean is divided by
// A label out of range reads nothing, gives NaN, and sets *fault.
struct CrossEntropyCall {
  Lines lines;  // logits; probabilities or none; (backward: the result)
  ClassTarget target;
  DType loss_dtype;
  void *losses, *weights;
  void *maximum, *sum;  // by position, of the compute type: softmax(x) is exp(x - maximum) / sum
  int* fault;
};
void launch_cross_entropy(const CrossEntropyCall& call, cudaStream_t stream);

// The gradient of a position's loss: gradient[position], or gradient[0], divided by *total if that is not null.
struct ClassGradient {
  const void* gradient;
  DType dtype;
  bool shared;
  const void* total;  // of the compute type
};
void launch_cross_entropy_backward(const CrossEntropyCall& call, const ClassGradient& gradient, cudaStream_t stream);

// The logit of each position's label, and the way back: the third operand is contiguous, of that many bytes.
void launch_pick(const CrossEntropyCall& call, cudaStream_t stream);
void launch_pick_backward(const CrossEntropyCall& call, const ClassGradient& gradient, int64_t bytes, cudaStream_t stream);

// Sums: `rows` runs of n values of the compute type (f64 or f32) to sums[row], in a tree that depends on n alone. The
// workspace has loss_sum_bytes.
constexpr int64_t loss_sum_bytes(int rows) { return rows * int64_t(1024) * 8; }
void launch_loss_sum(bool f64, const void* values, int rows, int64_t n, void* workspace, double* sums, cudaStream_t stream);
// loss = sums[0], divided by sums[1] or by `divisor` where that is not 0; total = sums[1], unless it is null.
void launch_loss_finish(const double* sums, bool by_total, double divisor, DType loss_dtype, void* loss, bool f64, void* total,
                        cudaStream_t stream);

// Losses over elements: runs of n elements of one floating dtype. weight may be null.
enum class ElementLoss : int { mse, binary_cross_entropy };
struct ElementLossCall {
  DType dtype;
  const void *input, *target, *weight;
  int64_t n;
  int* fault;
};
void launch_element_loss(ElementLoss kind, const ElementLossCall& call, void* out, cudaStream_t stream);
void launch_element_loss_sum(ElementLoss kind, const ElementLossCall& call, void* workspace, double* sum, cudaStream_t stream);
// `gradient` is one element or n, times `scale`.
void launch_element_loss_backward(ElementLoss kind, const ElementLossCall& call, const void* gradient, bool shared, double scale,
                                  void* out, cudaStream_t stream);

}  // namespace tensorops::cuda
