// The reduction family's typed callers.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/OptionalArrayRef.h>

#include "ops/handle.h"

namespace tensorops::ops {

inline const Op<at::Tensor(const at::Tensor&, at::OptionalIntArrayRef, bool, std::optional<c10::ScalarType>)> sum{
    "sum", "dim_IntList"};

}  // namespace tensorops::ops
