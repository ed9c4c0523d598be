#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/handle.h"

namespace tensorops {

// The result's dtype: the input's unless named; integers must be told a floating one.
inline c10::ScalarType softmax_dtype(const char* name, const at::Tensor& input, std::optional<c10::ScalarType> dtype) {
  const c10::ScalarType type = dtype.value_or(input.scalar_type());
  TORCH_CHECK_NOT_IMPLEMENTED(c10::isFloatingType(type), "\"", name, "\" not implemented for '", type, "'");
  return type;
}

namespace ops {

using at::Tensor;

inline const Op<Tensor(const Tensor&, int64_t, std::optional<c10::ScalarType>)> softmax{"softmax"}, log_softmax{"log_softmax"};
inline const Op<Tensor&(const Tensor&, int64_t, std::optional<c10::ScalarType>, Tensor&)> softmax_out{"softmax", "out"},
    log_softmax_out{"log_softmax", "out"};
// From the incoming gradient and the forward's result.
inline const Op<Tensor(const Tensor&, const Tensor&, int64_t)> softmax_backward{"_softmax_backward"},
    log_softmax_backward{"_log_softmax_backward"};

}  // namespace ops
}  // namespace tensorops
