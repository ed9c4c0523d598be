// Inner loss kernels.
//
// Losses over classes see n positions (samples, pixels), each with a logit per class. Either the classes of a position
// are neighbours ("rows"), or the positions are, for each class in turn ("columns"): vectors run along the neighbours.
// Losses over elements (mse_loss, binary_cross_entropy) see runs.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "ops/dtype.h"

namespace tensorops::cpu {

enum class ClassLayout : int { rows, columns, count };

// What the target asks of the logits x of a position: the loss is sum_c q[c] * -log_softmax(x)[c]. With labels q is
// `kept` * weight[label] at the label plus `spread` * weight[c] everywhere, with probabilities t it is
// (kept * t[c] + spread) * weight[c].
struct ClassTarget {
  const int64_t* labels;      // checked; or null
  const void* probabilities;  // laid out as the logits; or null
  const void* weight;         // of the compute type; null for all ones
  double kept, spread, weight_sum;
  int64_t ignored;            // the label of positions without loss and gradient
};

// Elements of the compute type, unless said otherwise.
struct CrossEntropyRun {
  const void* logits;  // of the storage type
  int64_t n, classes;
  int64_t stride;  // between neighbouring rows of memory: positions' in `rows`, classes' in `columns`
  ClassTarget target;
  void *loss, *maximum, *sum;  // by position; softmax(x) is exp(x - maximum) / sum
};
struct CrossEntropyBackwardRun {
  const void* logits;  // of the storage type
  int64_t n, classes, stride;
  ClassTarget target;
  const void *maximum, *sum, *gradient;  // by position; the gradient of an ignored position is zero
  void* out;  // of the storage type
};
// The logit of each position's label, and its gradient's way back into zeroed memory.
struct PickRun {
  const void* logits;
  int64_t n, position_stride, class_stride;
  ClassTarget target;
  void* loss;
};
struct PickBackwardRun {
  const void* gradient;
  int64_t n, position_stride, class_stride;
  ClassTarget target;
  void* out;
};

enum class ElementLoss : int { mse, binary_cross_entropy, count };

// weight may be null. `valid` is cleared by a binary_cross_entropy of what is not a probability.
struct ElementLossRun {
  const void *input, *target, *weight;
  int64_t n;
  void* out;  // of `each`
  bool* valid;
};
// gradient is one value of the compute type for the whole run, or n of the storage type; `scale` multiplies it.
struct ElementLossBackwardRun {
  const void *gradient, *input, *target, *weight;
  bool shared_gradient;
  double scale;
  int64_t n;
  void* out;
};

struct LossKernels {
  static constexpr int kLayouts = static_cast<int>(ClassLayout::count), kDTypes = static_cast<int>(DType::count),
                       kElementLosses = static_cast<int>(ElementLoss::count);
  // Null for dtypes that are not floating.
  void (*cross_entropy[kLayouts][kDTypes])(const CrossEntropyRun&);
  void (*cross_entropy_backward[kLayouts][kDTypes])(const CrossEntropyBackwardRun&);
  void (*pick[kDTypes])(const PickRun&);
  void (*pick_backward[kDTypes])(const PickBackwardRun&);
  double (*sum[kElementLosses][kDTypes])(const ElementLossRun&);
  void (*each[kElementLosses][kDTypes])(const ElementLossRun&);
  void (*backward[kElementLosses][kDTypes])(const ElementLossBackwardRun&);
};

TENSOROPS_DECLARE_KERNELS(LossKernels, loss_kernels)

}  // namespace tensorops::cpu
