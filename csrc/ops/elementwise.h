// The elementwise family: one enumeration over the table's rows, and the way to call any of them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>

#include <array>

#include "ops/elementwise_table.h"
#include "ops/handle.h"

namespace tensorops {

// What the rooms need to know of a row.
struct ElementwiseRow {
  const char* name;
  Elementwise op;
  int tensors;          // 1, 2 or 3
  int scalars;          // 0 to 3
  const char* scalar_schema;
  Domain domain;
  Saved saved;          // of a unary op
  bool backward;        // this row is some unary op's <name>_backward(grad, saved)
};
const std::array<ElementwiseRow, kElementwiseCount>& elementwise_rows();
// An op that saves nothing has no use for a backward op of its own: its slope is a constant.
inline bool is_registered(const ElementwiseRow& row) { return !(row.backward && row.saved == Saved::none); }
inline const ElementwiseRow& row_of(Elementwise op) { return elementwise_rows()[static_cast<size_t>(op)]; }

// The arguments of a call, borrowed.
struct Inputs {
  const at::Tensor* tensors[3];
  int count;
  const at::Tensor& operator[](int i) const { return *tensors[i]; }
};
struct Scalars {
  c10::Scalar values[3];
  int count = 0;
};

namespace ops {

// Calls a row through the dispatcher.
at::Tensor elementwise(Elementwise op, const Inputs& inputs, const Scalars& scalars);
at::Tensor& elementwise_out(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& out);
at::Tensor& elementwise_inplace(Elementwise op, const Inputs& inputs, const Scalars& scalars);

inline at::Tensor elementwise(Elementwise op, const at::Tensor& a) { return elementwise(op, {{&a}, 1}, {}); }
inline at::Tensor elementwise(Elementwise op, const at::Tensor& a, const at::Tensor& b) {
  return elementwise(op, {{&a, &b}, 2}, {});
}
inline at::Tensor elementwise(Elementwise op, const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  return elementwise(op, {{&a, &b, &c}, 3}, {});
}
// add and sub, which have a scalar.
inline at::Tensor add(const at::Tensor& a, const at::Tensor& b, const c10::Scalar& alpha = 1) {
  return elementwise(Elementwise::add, {{&a, &b}, 2}, {{alpha}, 1});
}
inline at::Tensor sub(const at::Tensor& a, const at::Tensor& b, const c10::Scalar& alpha = 1) {
  return elementwise(Elementwise::sub, {{&a, &b}, 2}, {{alpha}, 1});
}
inline at::Tensor mul(const at::Tensor& a, const at::Tensor& b) { return elementwise(Elementwise::mul, a, b); }
inline at::Tensor div(const at::Tensor& a, const at::Tensor& b) { return elementwise(Elementwise::_div_true, a, b); }

// A Python number as torch passes it to a tensor argument: 0-dim, and weak in type promotion.
at::Tensor wrapped_number(const c10::Scalar& value);
// The number in such a tensor; nothing for another tensor, or where a tracer stands in for the value.
std::optional<c10::Scalar> number_of(const at::Tensor& t);

}  // namespace ops
}  // namespace tensorops

// What torch offers on top of the rows. `out` and in-place forms follow from the row that a call resolves to.
namespace tensorops::ops {

// Whether torch takes a number for the first, or the second, of a row's two tensors.
bool takes_first_number(const ElementwiseRow& row);
bool takes_second_number(const ElementwiseRow& row);

// div(rounding_mode=None | "trunc" | "floor"): the row that it is.
Elementwise division(std::optional<std::string_view> rounding_mode);
// gelu(approximate="none" | "tanh"): the row that it is.
Elementwise gelu_row(std::string_view approximate);

// clamp with numbers: an absent bound is infinite. The input comes promoted to the result's dtype.
struct Clamp {
  at::Tensor input;
  Scalars bounds;
};
Clamp clamp_arguments(const at::Tensor& input, const std::optional<c10::Scalar>& min, const std::optional<c10::Scalar>& max);

at::Tensor clamp(const at::Tensor& input, const std::optional<c10::Scalar>& min, const std::optional<c10::Scalar>& max);
at::Tensor clamp_tensor(const at::Tensor& input, const std::optional<at::Tensor>& min, const std::optional<at::Tensor>& max);
at::Tensor gelu(const at::Tensor& input, std::string_view approximate);
at::Tensor prelu(const at::Tensor& input, const at::Tensor& weight);

// round(decimals=): the row that it is, and the power of ten that it scales by.
struct Rounding {
  Elementwise op;
  Scalars scale;
};
Rounding rounding(int64_t decimals);
at::Tensor round_decimals(const at::Tensor& input, int64_t decimals);

}  // namespace tensorops::ops
