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

}  // namespace ops
}  // namespace tensorops
