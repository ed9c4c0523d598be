// Scans along a dimension: cumsum, cumprod, and the linear recurrence that cumprod's and prod's derivatives are.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/handle.h"

namespace tensorops {

// What a scan's result is: integers and bool add up in int64.
inline c10::ScalarType scan_dtype(const at::Tensor& input, std::optional<c10::ScalarType> dtype) {
  if (dtype) return *dtype;
  return c10::isIntegralType(input.scalar_type(), /*includeBool=*/true) ? c10::kLong : input.scalar_type();
}

// A scan in place keeps the dtype of its tensor.
inline void check_scan_inplace(const at::Tensor& self, std::optional<c10::ScalarType> dtype) {
  TORCH_CHECK(!dtype || *dtype == self.scalar_type(), "Bad in-place call: input tensor dtype ", self.scalar_type(),
              " and output tensor dtype ", *dtype, " should match");
}

// The operands of _cumprod_gradient are alike.
void check_cumprod_gradient(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& product);

namespace ops {

using at::Tensor;

inline const Op<Tensor(const Tensor&, int64_t, std::optional<c10::ScalarType>)> cumsum{"cumsum"}, cumprod{"cumprod"};
inline const Op<Tensor&(const Tensor&, int64_t, std::optional<c10::ScalarType>, Tensor&)> cumsum_out{"cumsum", "out"},
    cumprod_out{"cumprod", "out"};
inline const Op<Tensor&(Tensor&, int64_t, std::optional<c10::ScalarType>)> cumsum_{"cumsum_"}, cumprod_{"cumprod_"};
// Sums from the end.
inline const Op<Tensor(const Tensor&, int64_t)> reverse_cumsum{"_reverse_cumsum"};
// h_k = x_k + c_k * h_{k-1}, and in reverse h_k = x_k + c_{k+1} * h_{k+1}: c_k belongs to the edge between k-1 and k.
inline const Op<Tensor(const Tensor&, const Tensor&, int64_t, bool)> linear_scan{"_linear_scan"};

// The gradient of cumprod, given its result: P_{k-1} S_k with S_k = g_k + x_{k+1} S_{k+1}. Right for zeros, as nothing is divided.
inline const Op<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t)> cumprod_gradient{"_cumprod_gradient"};
// The same as a composition of differentiable ops.
Tensor cumprod_gradient_by_scan(const Tensor& grad, const Tensor& input, const Tensor& product, int64_t dim);

// Elements moved one place up along dim, the last one dropped, `fill` put in front.
Tensor shift(const Tensor& t, int64_t dim, double fill);
// n zeros put in front along the last dimension.
Tensor pad_last(const Tensor& t, const c10::SymInt& n);

}  // namespace ops
}  // namespace tensorops
