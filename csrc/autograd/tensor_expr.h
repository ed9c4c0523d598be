// Two more meanings of V for the formulas of the elementwise table:
//   Expr   a tensor expression made of our own differentiable ops, or a constant; constants fold
//   Probe  computes nothing and remembers which inputs an expression reads, so that only those are saved
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/elementwise.h"

namespace tensorops::autograd {

// Marks "no gradient" in the table.
struct None {};
constexpr None none;
// Marks a derivative that torch does not have either.
struct NotImplemented {};
constexpr NotImplemented not_implemented;

class Expr {
 public:
  Expr(at::Tensor tensor) : tensor_(std::move(tensor)) {
    constant_ = ops::number_of(tensor_);
  }
  Expr(const c10::Scalar& value) : constant_(value) {}
  Expr(double value) : constant_(value) {}
  Expr(int value) : constant_(value) {}

  bool is_constant() const { return constant_.has_value(); }
  bool is(double value) const { return constant_ && !constant_->isComplex() && constant_->toDouble() == value; }
  double number() const { return constant_->toDouble(); }
  at::Tensor tensor() const { return tensor_.defined() ? tensor_ : ops::wrapped_number(*constant_); }

 private:
  at::Tensor tensor_;
  std::optional<c10::Scalar> constant_;
};

struct Condition {
  at::Tensor tensor;
  std::optional<bool> constant;
};

inline Expr apply(Elementwise op, const Expr& a) { return ops::elementwise(op, a.tensor()); }
inline Expr apply(Elementwise op, const Expr& a, const Expr& b) { return ops::elementwise(op, a.tensor(), b.tensor()); }

inline Expr operator-(const Expr& a) {
  if (a.is_constant()) return -a.number();
  return apply(Elementwise::neg, a);
}
inline Expr operator+(const Expr& a, const Expr& b) {
  if (a.is_constant() && b.is_constant()) return a.number() + b.number();
  return ops::add(a.tensor(), b.tensor());
}
inline Expr operator-(const Expr& a, const Expr& b) {
  if (a.is_constant() && b.is_constant()) return a.number() - b.number();
  return ops::sub(a.tensor(), b.tensor());
}
inline Expr operator*(const Expr& a, const Expr& b) {
  if (a.is_constant() && b.is_constant()) return a.number() * b.number();
  if (a.is(1)) return b;
  if (b.is(1)) return a;
  if (a.is(-1)) return -b;
  if (b.is(-1)) return -a;
  return ops::mul(a.tensor(), b.tensor());
}
inline Expr operator/(const Expr& a, const Expr& b) {
  if (a.is_constant() && b.is_constant()) return a.number() / b.number();
  if (b.is(1)) return a;
  return ops::div(a.tensor(), b.tensor());
}

#define TENSOROPS_COMPARE(symbol, name)                                                                        \
  inline Condition operator symbol(const Expr& a, const Expr& b) {                                             \
    if (a.is_constant() && b.is_constant()) return {{}, a.number() symbol b.number()};                         \
    return {ops::elementwise(Elementwise::name, a.tensor(), b.tensor()), std::nullopt};                        \
  }
TENSOROPS_COMPARE(==, eq)
TENSOROPS_COMPARE(!=, ne)
TENSOROPS_COMPARE(<, lt)
TENSOROPS_COMPARE(<=, le)
TENSOROPS_COMPARE(>, gt)
TENSOROPS_COMPARE(>=, ge)
#undef TENSOROPS_COMPARE

inline Condition operator&(const Condition& a, const Condition& b) {
  if (a.constant) return *a.constant ? b : a;
  if (b.constant) return *b.constant ? a : b;
  return {ops::elementwise(Elementwise::logical_and, a.tensor, b.tensor), std::nullopt};
}
inline Condition operator|(const Condition& a, const Condition& b) {
  if (a.constant) return *a.constant ? a : b;
  if (b.constant) return *b.constant ? b : a;
  return {ops::elementwise(Elementwise::logical_or, a.tensor, b.tensor), std::nullopt};
}
inline Expr select(const Condition& c, const Expr& a, const Expr& b) {
  if (c.constant) return *c.constant ? a : b;
  return ops::elementwise(Elementwise::where, c.tensor, a.tensor(), b.tensor());
}

// The table's `where` has its condition as an input.
inline Expr select(const Expr& c, const Expr& a, const Expr& b) {
  return ops::elementwise(Elementwise::where, c.tensor(), a.tensor(), b.tensor());
}

inline Expr pow(const Expr& a, const Expr& b) {
  if (b.is(1)) return a;
  return apply(Elementwise::pow, a, b);
}
inline Expr log(const Expr& a) {
  if (a.is_constant()) return std::log(a.number());
  return apply(Elementwise::log, a);
}
inline Expr div_trunc(const Expr& a, const Expr& b) { return apply(Elementwise::_div_trunc, a, b); }
inline Expr div_floor(const Expr& a, const Expr& b) { return apply(Elementwise::_div_floor, a, b); }
inline Expr div_gradient(const Expr& g, const Expr& a, const Expr& b) {
  return ops::elementwise(Elementwise::_div_gradient, g.tensor(), a.tensor(), b.tensor());
}
inline Expr logsumexp_gradient(const Expr& g, const Expr& x, const Expr& y) {
  return ops::elementwise(Elementwise::_logsumexp_gradient, g.tensor(), x.tensor(), y.tensor());
}
inline Expr maximum(const Expr& a, const Expr& b) { return apply(Elementwise::maximum, a, b); }

#define TENSOROPS_EXPR_FUNCTION(name) \
  inline Expr name(const Expr& a) { return apply(Elementwise::name, a); }
TENSOROPS_EXPR_FUNCTION(abs)
TENSOROPS_EXPR_FUNCTION(sqrt)
TENSOROPS_EXPR_FUNCTION(exp)
TENSOROPS_EXPR_FUNCTION(expm1)
TENSOROPS_EXPR_FUNCTION(log1p)
TENSOROPS_EXPR_FUNCTION(sin)
TENSOROPS_EXPR_FUNCTION(cos)
TENSOROPS_EXPR_FUNCTION(sinh)
TENSOROPS_EXPR_FUNCTION(cosh)
TENSOROPS_EXPR_FUNCTION(tanh)
TENSOROPS_EXPR_FUNCTION(sigmoid)
TENSOROPS_EXPR_FUNCTION(erf)
TENSOROPS_EXPR_FUNCTION(erfc)
TENSOROPS_EXPR_FUNCTION(sign)
#undef TENSOROPS_EXPR_FUNCTION

// A set of inputs, as bits; every operation is the union of its operands.
struct Probe {
  int reads = 0;
  Probe() = default;
  explicit Probe(int bits, bool) : reads(bits) {}
  Probe(double) {}
};
inline Probe merge(const Probe& a, const Probe& b) { return Probe(a.reads | b.reads, true); }
inline Probe operator-(const Probe& a) { return a; }
#define TENSOROPS_PROBE(symbol) \
  inline Probe operator symbol(const Probe& a, const Probe& b) { return merge(a, b); }
TENSOROPS_PROBE(+) TENSOROPS_PROBE(-) TENSOROPS_PROBE(*) TENSOROPS_PROBE(/)
TENSOROPS_PROBE(==) TENSOROPS_PROBE(!=) TENSOROPS_PROBE(<) TENSOROPS_PROBE(<=) TENSOROPS_PROBE(>) TENSOROPS_PROBE(>=)
TENSOROPS_PROBE(&) TENSOROPS_PROBE(|)
#undef TENSOROPS_PROBE
inline Probe select(const Probe& c, const Probe& a, const Probe& b) { return merge(c, merge(a, b)); }
inline Probe pow(const Probe& a, const Probe& b) { return merge(a, b); }
inline Probe div_trunc(const Probe& a, const Probe& b) { return merge(a, b); }
inline Probe div_floor(const Probe& a, const Probe& b) { return merge(a, b); }
inline Probe div_gradient(const Probe& g, const Probe& a, const Probe& b) { return merge(g, merge(a, b)); }
inline Probe logsumexp_gradient(const Probe& g, const Probe& x, const Probe& y) { return merge(g, merge(x, y)); }
inline Probe log(const Probe& a) { return a; }
inline Probe abs(const Probe& a) { return a; }

}  // namespace tensorops::autograd
