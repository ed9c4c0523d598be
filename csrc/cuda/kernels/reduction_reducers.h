// The reducers: a state, its neutral value, how it absorbs elements, how two states merge, and the results it ends in.
// All are written so that any grouping of the elements is right; the kernels always group alike.
#pragma once

#include "cuda/kernels/common.h"
#include "cuda/kernels/math.h"
#include "cuda/kernels/reduction.h"

namespace tensorops::cuda {
namespace {

// Results are stored from the widest type: finishing touches each only once.
template <class C>
using Wide = std::conditional_t<is_floating<C>, double, int64_t>;
template <class First, class Second = void>
struct Results {
  static constexpr int count = 2;
  First first;
  Second second;
};
template <class First>
struct Results<First, void> {
  static constexpr int count = 1;
  First first;
};

template <class C>
TENSOROPS_DEVICE C lowest() {
  if constexpr (is_floating<C>) return static_cast<C>(-__builtin_inf());
  else return sizeof(C) == 8 ? static_cast<C>(INT64_MIN) : static_cast<C>(INT32_MIN);
}
template <class C>
TENSOROPS_DEVICE C highest() {
  if constexpr (is_floating<C>) return static_cast<C>(__builtin_inf());
  else return sizeof(C) == 8 ? static_cast<C>(INT64_MAX) : static_cast<C>(INT32_MAX);
}

// Maps.
struct Identity {
  template <class C>
  static TENSOROPS_DEVICE C map(C x, const ReduceParams&) { return x; }
};
struct NonZero {
  template <class C>
  static TENSOROPS_DEVICE C map(C x, const ReduceParams&) { return static_cast<C>(x != C(0)); }
};
struct Magnitude {
  template <class C>
  static TENSOROPS_DEVICE C map(C x, const ReduceParams&) { return abs(Value<C>(x)).v; }
};
struct Square {
  template <class C>
  static TENSOROPS_DEVICE C map(C x, const ReduceParams&) { return x * x; }
};
struct Power {
  template <class C>
  static TENSOROPS_DEVICE C map(C x, const ReduceParams& params) {
    return pow(abs(Value<C>(x)), Value<C>(params.p)).v;
  }
};

// A balanced tree in registers.
template <int N, class C, class F>
TENSOROPS_DEVICE C tree(const C (&x)[N], F combine) {
  C y[N];
#pragma unroll
  for (int i = 0; i < N; ++i) y[i] = x[i];
#pragma unroll
  for (int half = N / 2; half > 0; half /= 2)
#pragma unroll
    for (int i = 0; i < half; ++i) y[i] = combine(y[i], y[i + half]);
  return y[0];
}

template <class Map>
struct Additive {
  template <class C>
  struct Of {
    using A = std::conditional_t<is_floating<C> && !std::is_same_v<Map, NonZero>, C, int64_t>;
    using State = A;
    static TENSOROPS_DEVICE State identity() { return 0; }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t, int64_t, const ReduceParams& params) {
      A y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = static_cast<A>(Map::map(x[i], params));
      s = merge(s, tree(y, [](State a, State b) { return merge(a, b); }));
    }
    static TENSOROPS_DEVICE State merge(State a, State b) { return (Value<A>(a) + Value<A>(b)).v; }
    static TENSOROPS_DEVICE Results<Wide<C>> finish(State s, int64_t, const ReduceParams& params) {
      if constexpr (!is_floating<A>) return {static_cast<Wide<C>>(s)};
      else if constexpr (std::is_same_v<Map, Square>) return {::sqrt(static_cast<double>(s))};
      else if constexpr (std::is_same_v<Map, Power>) return {::pow(static_cast<double>(s), 1 / params.p)};
      else return {s / params.divisor};
    }
  };
};

// Multiplied in double, so that a product of floats neither overflows nor underflows on the way.
struct Product {
  template <class C>
  struct Of {
    using State = Wide<C>;
    static TENSOROPS_DEVICE State identity() { return 1; }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t, int64_t, const ReduceParams&) {
      State y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = static_cast<State>(x[i]);
      s = merge(s, tree(y, [](State a, State b) { return merge(a, b); }));
    }
    static TENSOROPS_DEVICE State merge(State a, State b) { return (Value<State>(a) * Value<State>(b)).v; }
    static TENSOROPS_DEVICE Results<Wide<C>> finish(State s, int64_t, const ReduceParams&) { return {s}; }
  };
};

// Directions: `pick` lets NaN win; `beats` is strict, and NaN beats every number but not another NaN.
struct Greater {
  template <class C>
  static TENSOROPS_DEVICE C pick(C a, C b) { return maximum(Value<C>(a), Value<C>(b)).v; }
  template <class C>
  static TENSOROPS_DEVICE bool beats(C a, C b) { return !(a <= b) && b == b; }
  template <class C>
  static TENSOROPS_DEVICE C identity() { return lowest<C>(); }
};
struct Less {
  template <class C>
  static TENSOROPS_DEVICE C pick(C a, C b) { return minimum(Value<C>(a), Value<C>(b)).v; }
  template <class C>
  static TENSOROPS_DEVICE bool beats(C a, C b) { return !(a >= b) && b == b; }
  template <class C>
  static TENSOROPS_DEVICE C identity() { return highest<C>(); }
};

template <class Map, class Direction>
struct Extremum {
  template <class C>
  struct Of {
    using State = C;
    static TENSOROPS_DEVICE State identity() {
      constexpr bool least = std::is_same_v<Direction, Less>;
      if constexpr (std::is_same_v<Map, NonZero>) return least ? C(1) : C(0);
      else if constexpr (std::is_same_v<Map, Magnitude>) return least ? highest<C>() : C(0);
      else return Direction::template identity<C>();
    }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t, int64_t, const ReduceParams& params) {
      C y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = Map::map(x[i], params);
      s = merge(s, tree(y, [](State a, State b) { return merge(a, b); }));
    }
    static TENSOROPS_DEVICE State merge(State a, State b) { return Direction::pick(a, b); }
    static TENSOROPS_DEVICE Results<Wide<C>> finish(State s, int64_t, const ReduceParams&) { return {s}; }
  };
};

using Max = Extremum<Identity, Greater>;
using Min = Extremum<Identity, Less>;
using Any = Extremum<NonZero, Greater>;
using All = Extremum<NonZero, Less>;
using MaxMagnitude = Extremum<Magnitude, Greater>;
using MinMagnitude = Extremum<Magnitude, Less>;

struct MinMax {
  template <class C>
  struct Of {
    using Least = Min::Of<C>;
    using Most = Max::Of<C>;
    struct State {
      C least, most;
    };
    static TENSOROPS_DEVICE State identity() { return {Least::identity(), Most::identity()}; }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t first, int64_t step, const ReduceParams& params) {
      Least::absorb(s.least, x, first, step, params);
      Most::absorb(s.most, x, first, step, params);
    }
    static TENSOROPS_DEVICE State merge(State a, State b) {
      return {Least::merge(a.least, b.least), Most::merge(a.most, b.most)};
    }
    static TENSOROPS_DEVICE Results<Wide<C>, Wide<C>> finish(State s, int64_t, const ReduceParams&) {
      return {s.least, s.most};
    }
  };
};

// The value and its index; the lowest index among equals, and among NaNs.
template <class Direction>
struct ArgExtremum {
  template <class C>
  struct Of {
    struct State {
      C value;
      int64_t index;
    };
    static TENSOROPS_DEVICE State identity() { return {Direction::template identity<C>(), INT64_MAX}; }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t first, int64_t step, const ReduceParams&) {
#pragma unroll
      for (int i = 0; i < N; ++i) s = merge(s, {x[i], first + i * step});
    }
    static TENSOROPS_DEVICE State merge(State a, State b) {
      if (Direction::beats(a.value, b.value)) return a;
      if (Direction::beats(b.value, a.value)) return b;
      return a.index < b.index ? a : b;
    }
    static TENSOROPS_DEVICE Results<Wide<C>, int64_t> finish(State s, int64_t, const ReduceParams&) {
      return {s.value, s.index};
    }
  };
};

// Mean and sum of squared deviations, merged as Chan, Golub and LeVeque do. The state is in double: far from zero a mean in
// float is rounded by more than what the deviations are made of. Neighbours are brought together in C.
struct Variance {
  template <class C>
  struct Of {
    struct State {
      double mean, squares;
      int64_t n;
    };
    static TENSOROPS_DEVICE State identity() { return {0, 0, 0}; }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t, int64_t, const ReduceParams&) {
      const auto add = [](C a, C b) { return a + b; };
      const C origin = isfinite(Value<C>(x[0])) ? x[0] : C(0);
      C deviations[N], squares[N];
#pragma unroll
      for (int i = 0; i < N; ++i) deviations[i] = x[i] - origin;
      const C mean = tree(deviations, add) / N;
#pragma unroll
      for (int i = 0; i < N; ++i) squares[i] = (deviations[i] - mean) * (deviations[i] - mean);
      s = merge(s, {static_cast<double>(origin) + mean, tree(squares, add), N});
    }
    static TENSOROPS_DEVICE State merge(State a, State b) {
      if (a.n == 0) return b;
      if (b.n == 0) return a;
      const double delta = b.mean - a.mean;
      const C share = static_cast<C>(b.n) / static_cast<C>(a.n + b.n);
      return {a.mean + delta * share, a.squares + b.squares + delta * (delta * share) * a.n, a.n + b.n};
    }
    static TENSOROPS_DEVICE Results<double, double> finish(State s, int64_t n, const ReduceParams& params) {
      const double divisor = static_cast<double>(n) - params.correction;
      const double variance = s.squares / (divisor > 0 ? divisor : 0.0);
      return {params.root ? ::sqrt(variance) : variance, n == 0 ? __builtin_nan("") : s.mean};
    }
  };
};

// The maximum m and the sum of exp(x - m); an infinite m is replaced by 0 in the exponent, as inf - inf is NaN.
struct LogSumExp {
  template <class C>
  struct Of {
    struct State {
      C most, sum;
    };
    static TENSOROPS_DEVICE C finite(C m) { return isinf(Value<C>(m)) ? C(0) : m; }
    static TENSOROPS_DEVICE C exponential(C x) { return exp(Value<C>(x)).v; }
    static TENSOROPS_DEVICE State identity() { return {lowest<C>(), 0}; }
    template <int N>
    static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], int64_t, int64_t, const ReduceParams&) {
      State group;
      group.most = tree(x, [](C a, C b) { return Greater::pick(a, b); });
      const C shift = finite(group.most);
      C y[N];
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = exponential(x[i] - shift);
      group.sum = tree(y, [](C a, C b) { return a + b; });
      s = merge(s, group);
    }
    static TENSOROPS_DEVICE State merge(State a, State b) {
      const C scale = a.most == b.most ? C(1) : exponential(-abs(Value<C>(a.most - b.most)).v);
      return {Greater::pick(a.most, b.most), a.most >= b.most ? a.sum + b.sum * scale : a.sum * scale + b.sum};
    }
    static TENSOROPS_DEVICE Results<double> finish(State s, int64_t, const ReduceParams&) {
      return {finite(s.most) + ::log(static_cast<double>(s.sum))};
    }
  };
};

}  // namespace
}  // namespace tensorops::cuda
