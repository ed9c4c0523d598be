// Value<T>: one scalar that behaves in formulas as the CPU's Vec<T> does. A bare float would not: `0.5 * x` would be
// computed in double. Transcendentals are the CUDA math library's accurate versions; -use_fast_math is never set.
#pragma once

#include "cuda/kernels/common.h"

namespace tensorops::cuda {
namespace {

template <class T>
struct Value {
  T v;

  Value() = default;
  // Literals in formulas: `2 * x`, `0.5 * x`.
  template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
  TENSOROPS_DEVICE Value(Number number) : v(static_cast<T>(number)) {}

  // Integers wrap around.
  using Unsigned = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  using Ring = std::conditional_t<is_floating<T>, T, Unsigned>;
  friend TENSOROPS_DEVICE Value operator+(Value a, Value b) { return static_cast<T>(Ring(a.v) + Ring(b.v)); }
  friend TENSOROPS_DEVICE Value operator-(Value a, Value b) { return static_cast<T>(Ring(a.v) - Ring(b.v)); }
  friend TENSOROPS_DEVICE Value operator*(Value a, Value b) { return static_cast<T>(Ring(a.v) * Ring(b.v)); }
  friend TENSOROPS_DEVICE Value operator/(Value a, Value b) { return a.v / b.v; }
  TENSOROPS_DEVICE Value operator-() const {
    if constexpr (is_floating<T>) return -v;
    else return static_cast<T>(Unsigned(0) - Unsigned(v));
  }
  friend TENSOROPS_DEVICE bool operator==(Value a, Value b) { return a.v == b.v; }
  friend TENSOROPS_DEVICE bool operator!=(Value a, Value b) { return a.v != b.v; }
  friend TENSOROPS_DEVICE bool operator<(Value a, Value b) { return a.v < b.v; }
  friend TENSOROPS_DEVICE bool operator<=(Value a, Value b) { return a.v <= b.v; }
  friend TENSOROPS_DEVICE bool operator>(Value a, Value b) { return a.v > b.v; }
  friend TENSOROPS_DEVICE bool operator>=(Value a, Value b) { return a.v >= b.v; }
};

template <class T>
TENSOROPS_DEVICE Value<T> select(bool condition, Value<T> a, Value<T> b) {
  return condition ? a : b;
}
// The literal branches of `select(x > 0, x, 0)`.
template <class T, class N>
TENSOROPS_DEVICE Value<T> select(bool condition, Value<T> a, N b) {
  return condition ? a : Value<T>(b);
}
template <class T, class N>
TENSOROPS_DEVICE Value<T> select(bool condition, N a, Value<T> b) {
  return condition ? Value<T>(a) : b;
}
// How predicates leave a kernel.
TENSOROPS_DEVICE bool indicator(bool condition) { return condition; }

#define TENSOROPS_UNARY_MATH(name)                          \
  template <class T>                                        \
  TENSOROPS_DEVICE Value<T> name(Value<T> x) {              \
    static_assert(is_floating<T>);                          \
    if constexpr (sizeof(T) == 4) return ::name##f(x.v);    \
    else return ::name(x.v);                                \
  }
TENSOROPS_UNARY_MATH(sqrt)
TENSOROPS_UNARY_MATH(exp)
TENSOROPS_UNARY_MATH(exp2)
TENSOROPS_UNARY_MATH(expm1)
TENSOROPS_UNARY_MATH(log)
TENSOROPS_UNARY_MATH(log2)
TENSOROPS_UNARY_MATH(log10)
TENSOROPS_UNARY_MATH(log1p)
TENSOROPS_UNARY_MATH(sin)
TENSOROPS_UNARY_MATH(cos)
TENSOROPS_UNARY_MATH(tan)
TENSOROPS_UNARY_MATH(asin)
TENSOROPS_UNARY_MATH(acos)
TENSOROPS_UNARY_MATH(atan)
TENSOROPS_UNARY_MATH(sinh)
TENSOROPS_UNARY_MATH(cosh)
TENSOROPS_UNARY_MATH(tanh)
TENSOROPS_UNARY_MATH(erf)
TENSOROPS_UNARY_MATH(erfc)
#undef TENSOROPS_UNARY_MATH

// Integers are their own rounding.
#define TENSOROPS_ROUNDING(name, libm)                           \
  template <class T>                                             \
  TENSOROPS_DEVICE Value<T> name(Value<T> x) {                   \
    if constexpr (!is_floating<T>) return x;                     \
    else if constexpr (sizeof(T) == 4) return ::libm##f(x.v);    \
    else return ::libm(x.v);                                     \
  }
TENSOROPS_ROUNDING(round, rint)  // half to even, as torch
TENSOROPS_ROUNDING(floor, floor)
TENSOROPS_ROUNDING(ceil, ceil)
TENSOROPS_ROUNDING(trunc, trunc)
#undef TENSOROPS_ROUNDING

// z - x * y, rounded once.
template <class T>
TENSOROPS_DEVICE Value<T> residual(Value<T> x, Value<T> y, Value<T> z) {
  if constexpr (sizeof(T) == 4) return ::fmaf(-x.v, y.v, z.v);
  else return ::fma(-x.v, y.v, z.v);
}

template <class T>
TENSOROPS_DEVICE Value<T> abs(Value<T> x) {
  if constexpr (!is_floating<T>) return x.v < 0 ? -x : x;
  else if constexpr (sizeof(T) == 4) return ::fabsf(x.v);
  else return ::fabs(x.v);
}
template <class T>
TENSOROPS_DEVICE Value<T> copysign(Value<T> magnitude, Value<T> sign) {
  if constexpr (sizeof(T) == 4) return ::copysignf(magnitude.v, sign.v);
  else return ::copysign(magnitude.v, sign.v);
}
template <class T>
TENSOROPS_DEVICE bool isnan(Value<T> x) {
  return x.v != x.v;
}
template <class T>
TENSOROPS_DEVICE bool isinf(Value<T> x) {
  if constexpr (is_floating<T>) return abs(x).v == static_cast<T>(__builtin_inf());
  else return false;
}
template <class T>
TENSOROPS_DEVICE bool isfinite(Value<T> x) {
  if constexpr (is_floating<T>) return abs(x).v < static_cast<T>(__builtin_inf());
  else return true;
}
// NaN in either argument wins, as in torch; of equal arguments, zeros of either sign, the first.
template <class T>
TENSOROPS_DEVICE Value<T> maximum(Value<T> a, Value<T> b) {
  return isnan(a) || a.v >= b.v ? a : b;
}
template <class T>
TENSOROPS_DEVICE Value<T> minimum(Value<T> a, Value<T> b) {
  return isnan(a) || a.v <= b.v ? a : b;
}
template <class T, class N>
TENSOROPS_DEVICE Value<T> maximum(Value<T> a, N b) {
  return maximum(a, Value<T>(b));
}
template <class T, class N>
TENSOROPS_DEVICE Value<T> minimum(Value<T> a, N b) {
  return minimum(a, Value<T>(b));
}

template <class T>
TENSOROPS_DEVICE Value<T> atan2(Value<T> a, Value<T> b) {
  if constexpr (sizeof(T) == 4) return ::atan2f(a.v, b.v);
  else return ::atan2(a.v, b.v);
}
// Integers: by squaring with wrap-around; a negative exponent leaves 0, except for bases 1 and -1.
template <class T>
TENSOROPS_DEVICE Value<T> pow(Value<T> base, Value<T> exponent) {
  if constexpr (!is_floating<T>) {
    if (exponent.v < 0) return base.v == 1 ? 1 : base.v == -1 ? (exponent.v % 2 == 0 ? 1 : -1) : 0;
    using Unsigned = typename Value<T>::Unsigned;
    Unsigned result = 1, factor = static_cast<Unsigned>(base.v), n = static_cast<Unsigned>(exponent.v);
    for (; n != 0; n >>= 1, factor *= factor)
      if (n & 1) result *= factor;
    return static_cast<T>(result);
  } else if constexpr (sizeof(T) == 4) {
    return ::powf(base.v, exponent.v);
  } else {
    return ::pow(base.v, exponent.v);
  }
}

// A GPU cannot raise for an integer divided by zero; torch leaves the result open. Here the quotient is -1 and the
// remainder is the dividend. -1 as a divisor is set apart because the lowest integer would overflow.
template <class T>
TENSOROPS_DEVICE Value<T> fmod(Value<T> a, Value<T> b) {
  if constexpr (!is_floating<T>) return b.v == 0 ? a : b.v == -1 ? Value<T>(0) : Value<T>(a.v % b.v);
  else if constexpr (sizeof(T) == 4) return ::fmodf(a.v, b.v);
  else return ::fmod(a.v, b.v);
}
template <class T>
TENSOROPS_DEVICE Value<T> div_trunc(Value<T> a, Value<T> b) {
  if constexpr (is_floating<T>) return trunc(a / b);
  else return b.v == 0 ? Value<T>(-1) : b.v == -1 ? -a : Value<T>(a.v / b.v);
}
// Python's floor division; for floats by way of fmod, exact where a / b would round across an integer (as torch's).
template <class T>
TENSOROPS_DEVICE Value<T> div_floor(Value<T> a, Value<T> b) {
  if constexpr (is_floating<T>) {
    if (b == 0) return a / b;
    const Value<T> mod = fmod(a, b);
    Value<T> quotient = (a - mod) / b;
    if (mod != 0 && (b < 0) != (mod < 0)) quotient = quotient - 1;
    if (quotient == 0) return copysign(Value<T>(0), a / b);
    const Value<T> floored = floor(quotient);
    return quotient - floored > 0.5 ? floored + 1 : floored;
  } else {
    if (b.v == 0) return -1;
    if (b.v == -1) return -a;
    return static_cast<T>(a.v / b.v - (a.v % b.v != 0 && (a.v < 0) != (b.v < 0)));
  }
}

#define TENSOROPS_FORMULA TENSOROPS_DEVICE
#include "ops/elementwise_formulas.h"
#undef TENSOROPS_FORMULA

}  // namespace
}  // namespace tensorops::cuda
