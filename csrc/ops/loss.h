// Losses: typed callers, and the rules for shapes.
//
// The public ops are composites: they check, promote and broadcast as torch does, then call the differentiable op of the
// same name with an underscore, whose arguments are plain.
#pragma once

#include <ATen/core/Reduction.h>
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <optional>
#include <tuple>

#include "ops/handle.h"

namespace tensorops {

namespace ops {

using at::Tensor;
using OptionalTensor = std::optional<at::Tensor>;

inline const Op<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, int64_t, c10::SymInt)> nll_loss{"nll_loss"};
inline const Op<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, int64_t, c10::SymInt, double)> cross_entropy{
    "cross_entropy"};
inline const Op<Tensor(const Tensor&, const Tensor&, int64_t)> mse_loss{"mse_loss"};
inline const Op<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, int64_t)> binary_cross_entropy{
    "binary_cross_entropy"};

// The loss and the total weight that a mean is divided by.
inline const Op<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const OptionalTensor&, int64_t, c10::SymInt)>
    nll_loss_forward{"_nll_loss"};
inline const Op<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, c10::SymInt, int64_t, c10::SymInt)>
    nll_loss_backward{"_nll_loss_backward"};

// The loss, what softmax is made of (the logits' maximum, and the sum of the exponentials of what is left: [2, ...]), and
// the total weight.
inline const Op<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const OptionalTensor&, int64_t,
                                                   c10::SymInt, double)>
    cross_entropy_forward{"_cross_entropy"};
inline const Op<Tensor(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&,
                       int64_t, c10::SymInt, double)>
    cross_entropy_backward{"_cross_entropy_backward"};

inline const Op<Tensor(const Tensor&, const Tensor&, int64_t)> mse_loss_forward{"_mse_loss"};
inline const Op<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t)> mse_loss_backward{"_mse_loss_backward"};
inline const Op<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, int64_t)> binary_cross_entropy_forward{
    "_binary_cross_entropy"};
inline const Op<Tensor(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, int64_t)>
    binary_cross_entropy_backward{"_binary_cross_entropy_backward"};

}  // namespace ops

// The dimension of the classes: (C), (N, C) or (N, C, d1, ...).
inline int64_t class_dim(const at::Tensor& input) { return input.dim() == 1 ? 0 : 1; }
// Targets that are probabilities have the input's shape, labels lack its class dimension.
inline bool is_probabilities(const at::Tensor& target) { return target.is_floating_point(); }
// The dtype of what is kept between forward and backward.
inline c10::ScalarType loss_compute_dtype(const at::Tensor& input) {
  return input.scalar_type() == c10::kDouble ? c10::kDouble : c10::kFloat;
}

// Whether the classes of `input` are neighbours in memory and its other dimensions dense in order: (N, d1, ..., C).
bool has_class_rows(const at::Tensor& input);

}  // namespace tensorops
