// The table's rows as device functions, and what a kernel needs to know of each.
#pragma once

#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/math.h"

namespace tensorops::cuda {
namespace {

#define UNARY(name, domain_, saved, scalars, formula, slope_, curve)                                               \
  struct name##_row {                                                                                              \
    static constexpr Elementwise op = Elementwise::name;                                                           \
    static constexpr Domain domain = Domain::domain_;                                                              \
    static constexpr bool exists = true;                                                                           \
    template <class V>                                                                                             \
    static TENSOROPS_DEVICE V value(V x, [[maybe_unused]] V p0, [[maybe_unused]] V p1, [[maybe_unused]] V p2) {    \
      return V(formula);                                                                                           \
    }                                                                                                              \
  };                                                                                                               \
  struct name##_backward_row {                                                                                     \
    static constexpr Elementwise op = Elementwise::name##_backward;                                                \
    static constexpr Domain domain = Domain::ACTIVATION;                                                           \
    static constexpr bool exists = Saved::saved != Saved::none;                                                    \
    template <class V>                                                                                             \
    static TENSOROPS_DEVICE V value(V g, V saved_value, [[maybe_unused]] V p0, [[maybe_unused]] V p1,              \
                                    [[maybe_unused]] V p2) {                                                       \
      [[maybe_unused]] const V x = saved_value, y = saved_value;                                                   \
      const V slope = V(slope_);                                                                                   \
      /* Piecewise linear: a closed gate passes nothing on, not even an infinite gradient. */                      \
      if constexpr (std::is_same_v<decltype(curve), const Flat>) return select(slope == 0, V(0), g * slope);       \
      else return g * slope;                                                                                       \
    }                                                                                                              \
  };
TENSOROPS_UNARY_TABLE(UNARY)
#undef UNARY
#define BINARY(name, domain_, scalars, formula, ...)                                                               \
  struct name##_row {                                                                                              \
    static constexpr Elementwise op = Elementwise::name;                                                           \
    static constexpr Domain domain = Domain::domain_;                                                              \
    static constexpr bool exists = true;                                                                           \
    template <class V>                                                                                             \
    static TENSOROPS_DEVICE V value(V a, V b, [[maybe_unused]] V p0, [[maybe_unused]] V p1,                        \
                                    [[maybe_unused]] V p2) {                                                       \
      return V(formula);                                                                                           \
    }                                                                                                              \
  };
TENSOROPS_BINARY_TABLE(BINARY)
#undef BINARY
#define TERNARY(name, domain_, scalars, formula, ...)                                                              \
  struct name##_row {                                                                                              \
    static constexpr Elementwise op = Elementwise::name;                                                           \
    static constexpr Domain domain = Domain::domain_;                                                              \
    static constexpr bool exists = true;                                                                           \
    template <class V>                                                                                             \
    static TENSOROPS_DEVICE V value(V a, V b, V c, [[maybe_unused]] V p0, [[maybe_unused]] V p1,                   \
                                    [[maybe_unused]] V p2) {                                                       \
      return V(formula);                                                                                           \
    }                                                                                                              \
  };
TENSOROPS_TERNARY_TABLE(TERNARY)
#undef TERNARY

template <class Row, class C>
constexpr bool is_defined =
    Row::exists && (is_floating<C> || Row::domain == Domain::REAL || Row::domain == Domain::PREDICATE);

// Applies a row to element j of the loaded operands x[input][element].
template <class Row, int Inputs, class C, int N>
TENSOROPS_DEVICE C evaluate(const C (&x)[Inputs][N], int j, const C (&p)[3]) {
  using V = Value<C>;
  const V p0 = p[0], p1 = p[1], p2 = p[2];
  if constexpr (Inputs == 1) return Row::template value<V>(V(x[0][j]), p0, p1, p2).v;
  else if constexpr (Inputs == 2) return Row::template value<V>(V(x[0][j]), V(x[1][j]), p0, p1, p2).v;
  else return Row::template value<V>(V(x[0][j]), V(x[1][j]), V(x[2][j]), p0, p1, p2).v;
}

template <class C>
C constant_as(const Constant& constant) {
  return is_floating<C> ? static_cast<C>(constant.real) : static_cast<C>(constant.integer);
}

// All rows in the order of the enumeration: ROW(name_row, number of inputs).
#define TENSOROPS_UNARY_ROW(name, ...) TENSOROPS_ROW(name##_row, 1) TENSOROPS_ROW(name##_backward_row, 2)
#define TENSOROPS_BINARY_ROW(name, ...) TENSOROPS_ROW(name##_row, 2)
#define TENSOROPS_TERNARY_ROW(name, ...) TENSOROPS_ROW(name##_row, 3)
#define TENSOROPS_ALL_ROWS                    \
  TENSOROPS_UNARY_TABLE(TENSOROPS_UNARY_ROW)   \
  TENSOROPS_BINARY_TABLE(TENSOROPS_BINARY_ROW) \
  TENSOROPS_TERNARY_TABLE(TENSOROPS_TERNARY_ROW)

}  // namespace
}  // namespace tensorops::cuda
