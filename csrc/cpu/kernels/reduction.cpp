// The reducers, and the two loops that run them: along a contiguous run, and down the rows of contiguous columns.
#include "cpu/kernels/reduction.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// Elements are taken kGroup at a time and reduced in the compute type by a tree in registers; only the group's state is
// widened and merged into the accumulators. So rounding stays that of kGroup values, and widening costs little.
constexpr int kGroup = 8;

template <class C>
struct AccumulatorOf { using type = int64_t; };
template <>
struct AccumulatorOf<float> { using type = double; };
template <>
struct AccumulatorOf<double> { using type = double; };

constexpr double kInfinity = __builtin_inf();

template <class A>
constexpr A lowest() {
  if constexpr (is_floating<A>) return -kInfinity;
  else return sizeof(A) == 4 ? INT32_MIN : INT64_MIN;
}
template <class A>
constexpr A highest() {
  if constexpr (is_floating<A>) return kInfinity;
  else return sizeof(A) == 4 ? INT32_MAX : INT64_MAX;
}

// How many elements each side of a merge holds, for the reducers that care.
template <class A>
struct Counts {
  Vec<A> into;    // elements in the accumulator
  Vec<A> weight;  // share of the other side in the union; 0 when both are empty
};

// Maps.
struct Identity {
  template <class T>
  static TENSOROPS_INLINE Vec<T> map(Vec<T> x, const ReduceParams&) { return x; }
};
struct NonZero {
  template <class T>
  static TENSOROPS_INLINE Vec<T> map(Vec<T> x, const ReduceParams&) { return indicator(x != Vec<T>(0)); }
};
struct Magnitude {
  template <class T>
  static TENSOROPS_INLINE Vec<T> map(Vec<T> x, const ReduceParams&) { return abs(x); }
};
struct Square {
  template <class T>
  static TENSOROPS_INLINE Vec<T> map(Vec<T> x, const ReduceParams&) { return x * x; }
};
struct Power {
  template <class T>
  static TENSOROPS_INLINE Vec<T> map(Vec<T> x, const ReduceParams& params) { return pow(abs(x), Vec<T>(T(params.p))); }
};

// f of N vectors, by pairs, pairs of pairs, …
template <int N, class V, class F>
TENSOROPS_INLINE V fold_pairs(const V* x, F f) {
  if constexpr (N == 1) return x[0];
  else return f(fold_pairs<N / 2>(x, f), fold_pairs<N / 2>(x + N / 2, f));
}

// A reducer: `states` accumulators of which `identity` is the neutral value; `group` gives the state of one element in each
// of kGroup vectors (or of n, n < kGroup); `merge` adds one state to another; `finish` makes the results.
// `neutral`, where there is one: the element that changes no state, so that any number of elements makes a group, and `group`
// takes N vectors, 1, 2, 4 or kGroup.
// kPairs: no more than two values are added in the compute type, all else in double. That is enough to be nearly always the
// best rounding of an f32 sum, and still memory speed; whole groups are for what has bits to spare: bf16, f16 and counts.
template <class Map, bool kPairs>
struct Additive {
  static constexpr int states = 1;
  static constexpr bool locates = false;
  template <class T>
  using compute = T;
  template <class A>
  static constexpr A identity(int) { return 0; }
  template <class C>
    requires(!__is_same(Map, Power))  // of which zero may be infinite
  static constexpr C neutral() { return 0; }
  template <int N = kGroup, class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams& p, Vec<C>* s) {
    Vec<C> y[N];
    for (int i = 0; i < N; ++i) y[i] = Map::map(x[i], p);
    s[0] = fold_pairs<N>(y, [](Vec<C> a, Vec<C> b) TENSOROPS_LAMBDA_INLINE { return a + b; });
  }
  // The state of a group, widened from pairs on.
  template <class W, int N = kGroup, class C>
    requires kPairs
  static TENSOROPS_INLINE W wide_group(const Vec<C>* x, const ReduceParams& p) {
    if constexpr (N == 1) return W::from(Map::map(x[0], p));
    W pair[N == 1 ? 1 : N / 2];
    for (int i = 0; i < N / 2; ++i) pair[i] = W::from(Map::map(x[2 * i], p) + Map::map(x[2 * i + 1], p));
    return fold_pairs<N == 1 ? 1 : N / 2>(pair, [](W a, W b) TENSOROPS_LAMBDA_INLINE {
      for (int w = 0; w < W::parts; ++w) a.part[w] = a.part[w] + b.part[w];
      return a;
    });
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams& p, Vec<C>* s) { s[0] = Map::map(x, p); }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>&) { a[0] = a[0] + b[0]; }
  // Of all lanes. A sum of negative zeros is zero.
  template <class A>
  static TENSOROPS_INLINE A fold_wide(Vec<A> x) { return sum_lanes(x) + identity<A>(0); }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>* s, int64_t, const ReduceParams& p) {
    if constexpr (is_floating<A>) {
      if constexpr (__is_same(Map, Square)) s[0] = sqrt(s[0]);
      else if constexpr (__is_same(Map, Power)) s[0] = pow(s[0], Vec<A>(1 / p.p));
      else s[0] = s[0] / Vec<A>(p.divisor);
    }
  }
};

// Multiplied in double, so that a product of floats neither overflows nor underflows on the way.
struct Product {
  static constexpr int states = 1;
  static constexpr bool locates = false;
  template <class T>
  using compute = typename AccumulatorOf<T>::type;
  template <class A>
  static constexpr A identity(int) { return 1; }
  template <class C>
  static constexpr C neutral() { return 1; }
  template <int N = kGroup, class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams&, Vec<C>* s) {
    s[0] = fold_pairs<N>(x, [](Vec<C> a, Vec<C> b) TENSOROPS_LAMBDA_INLINE { return a * b; });
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams&, Vec<C>* s) { s[0] = x; }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>&) { a[0] = a[0] * b[0]; }
  template <class A>
  static TENSOROPS_INLINE A fold_wide(Vec<A> x) {
    return fold_lanes(x, [](Vec<A> a, Vec<A> b) TENSOROPS_LAMBDA_INLINE { return a * b; }).v[0];
  }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>*, int64_t, const ReduceParams&) {}
};

// Directions: `pick` lets NaN win, `pick_number` is for numbers; `beats` is strict, and NaN beats every number but not another NaN.
struct Greater {
  template <class T>
  static TENSOROPS_INLINE Vec<T> pick(Vec<T> a, Vec<T> b) { return maximum(a, b); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> pick_number(Vec<T> a, Vec<T> b) { return larger(a, b); }
  template <class T>
  static TENSOROPS_INLINE Mask<T> beats(Vec<T> a, Vec<T> b) {
    if constexpr (is_floating<T>) return (!(a <= b)) & (b == b);
    else return a > b;
  }
  template <class A>
  static constexpr A identity() { return lowest<A>(); }
};
struct Less {
  template <class T>
  static TENSOROPS_INLINE Vec<T> pick(Vec<T> a, Vec<T> b) { return minimum(a, b); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> pick_number(Vec<T> a, Vec<T> b) { return smaller(a, b); }
  template <class T>
  static TENSOROPS_INLINE Mask<T> beats(Vec<T> a, Vec<T> b) {
    if constexpr (is_floating<T>) return (!(a >= b)) & (b == b);
    else return a < b;
  }
  template <class A>
  static constexpr A identity() { return highest<A>(); }
};

template <class Map, class Direction>
struct Extremum {
  static constexpr int states = 1;
  static constexpr bool locates = false;
  template <class T>
  using compute = T;
  template <class A>
  static constexpr A identity(int) {
    if constexpr (__is_same(Map, NonZero)) return __is_same(Direction, Less) ? 1 : 0;
    else if constexpr (__is_same(Map, Magnitude)) return __is_same(Direction, Less) ? highest<A>() : A(0);
    else return Direction::template identity<A>();
  }
  template <class C>
  static constexpr C neutral() { return identity<C>(0); }
  template <int N = kGroup, class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams& p, Vec<C>* s) {
    Vec<C> y[N];
    for (int i = 0; i < N; ++i) y[i] = Map::map(x[i], p);
    s[0] = fold_pairs<N>(y, [](Vec<C> a, Vec<C> b) TENSOROPS_LAMBDA_INLINE { return Direction::pick(a, b); });
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams& p, Vec<C>* s) { s[0] = Map::map(x, p); }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>&) { a[0] = Direction::pick(a[0], b[0]); }
  // Of all lanes. Whether one is NaN is asked once.
  template <class C>
  static TENSOROPS_INLINE C fold(Vec<C> x) {
    if constexpr (is_floating<C>)
      if (!all(x == x)) return __builtin_nan("");
    return fold_lanes(x, [](Vec<C> a, Vec<C> b) TENSOROPS_LAMBDA_INLINE { return Direction::pick_number(a, b); }).v[0];
  }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>*, int64_t, const ReduceParams&) {}
};

using Sum = Additive<Identity, true>;
using SumOfShort = Additive<Identity, false>;
using Count = Additive<NonZero, false>;
using Norm1 = Additive<Magnitude, true>;
using Norm2 = Additive<Square, true>;
using NormP = Additive<Power, true>;
using Max = Extremum<Identity, Greater>;
using Min = Extremum<Identity, Less>;
using Any = Extremum<NonZero, Greater>;
using All = Extremum<NonZero, Less>;
using MaxMagnitude = Extremum<Magnitude, Greater>;
using MinMagnitude = Extremum<Magnitude, Less>;

struct MinMax {
  static constexpr int states = 2;
  static constexpr bool locates = false;
  template <class T>
  using compute = T;
  template <class A>
  static constexpr A identity(int i) { return i == 0 ? highest<A>() : lowest<A>(); }
  template <class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams& p, Vec<C>* s) {
    Min::group(x, p, s);
    Max::group(x, p, s + 1);
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams&, Vec<C>* s) { s[0] = s[1] = x; }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>& counts) {
    Min::merge(a, b, counts);
    Max::merge(a + 1, b + 1, counts);
  }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>*, int64_t, const ReduceParams&) {}
};

// The value and its index; the lowest index among equals, and among NaNs. A group's index counts from the group.
template <class Direction>
struct ArgExtremum {
  static constexpr int states = 2;
  static constexpr bool locates = true;
  template <class T>
  using compute = T;
  template <class A>
  static constexpr A identity(int i) { return i == 0 ? Direction::template identity<A>() : A(INT64_MAX); }
  template <class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams&, Vec<C>* s) {
    s[0] = x[0];
    s[1] = Vec<C>(0);
    for (int i = 1; i < kGroup; ++i) {
      const Mask<C> better = Direction::beats(x[i], s[0]);
      s[0] = select(better, x[i], s[0]);
      s[1] = select(better, Vec<C>(C(i)), s[1]);
    }
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams&, Vec<C>* s) {
    s[0] = x;
    s[1] = Vec<C>(0);
  }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>&) {
    const Mask<A> tie = !(Direction::beats(a[0], b[0]) | Direction::beats(b[0], a[0]));
    const Mask<A> better = Direction::beats(b[0], a[0]) | (tie & (b[1] < a[1]));
    a[0] = select(better, b[0], a[0]);
    a[1] = select(better, b[1], a[1]);
  }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>*, int64_t, const ReduceParams&) {}
};

// Mean and sum of squared deviations, merged in double as Chan, Golub and LeVeque do; a group's in C, which is float for what
// has bits to spare.
template <class Computed>
struct Variance {
  static constexpr int states = 2;
  static constexpr bool locates = false;
  template <class T>
  using compute = Computed;
  template <class A>
  static constexpr A identity(int) { return 0; }
  template <class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams&, Vec<C>* s) {
    const Vec<C> mean = (((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]))) * Vec<C>(C(1) / kGroup);
    Vec<C> even(0), odd(0);
    for (int i = 0; i < kGroup; i += 2) {
      even = fma(x[i] - mean, x[i] - mean, even);
      odd = fma(x[i + 1] - mean, x[i + 1] - mean, odd);
    }
    s[0] = mean;
    s[1] = even + odd;
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams&, Vec<C>* s) {
    s[0] = x;
    s[1] = x - x;  // 0, or NaN where the variance is
  }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>& counts) {
    const Vec<A> delta = b[0] - a[0], step = delta * counts.weight;
    // An empty side must not turn an infinite mean into NaN; its squared deviation already says NaN.
    a[0] = select(counts.into == 0, select(counts.weight == 0, a[0], b[0]), a[0] + step);
    a[1] = a[1] + b[1] + select(counts.into == 0, Vec<A>(0), delta * step * counts.into);
  }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>* s, int64_t n, const ReduceParams& p) {
    const double divisor = double(n) - p.correction;
    s[1] = s[1] / Vec<A>(divisor > 0 ? divisor : 0.0);
    if (p.root) s[1] = sqrt(s[1]);
    const Vec<A> mean = n == 0 ? Vec<A>(__builtin_nan("")) : s[0];
    s[0] = s[1];
    s[1] = mean;
  }
};

// The maximum m and the sum of exp(x - m). Where m is infinite it is the result, and the sum anything.
struct LogSumExp {
  static constexpr int states = 2;
  static constexpr bool locates = false;
  template <class T>
  using compute = T;
  template <class A>
  static constexpr A identity(int i) { return i == 0 ? lowest<A>() : A(0); }
  template <class C>
  static TENSOROPS_INLINE Mask<C> infinite(Vec<C> m) { return abs(m) == Vec<C>(C(kInfinity)); }
  template <class C>
  static TENSOROPS_INLINE Vec<C> sum_of_group(const Vec<C>* x, Vec<C> m) {
    const Vec<C> shift = select(infinite(m), Vec<C>(0), m);
    Vec<C> even(0), odd(0);
    for (int i = 0; i < kGroup; i += 2) {
      even = even + exp_term(x[i] - shift);
      odd = odd + exp_term(x[i + 1] - shift);
    }
    return unscaled(even + odd);
  }
  template <class C>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams& p, Vec<C>* s) {
    Max::group(x, p, s);
    s[1] = sum_of_group(x, s[0]);
  }
  // The state of so many groups one after another, of which all lanes have one maximum: these merge without an exponential. In two
  // passes, for which they stay in the first cache.
  static constexpr int64_t kBlock = 64;
  template <class W, class C, class S>
  static void block(const S* x, int64_t groups, const ReduceParams& p, W* s) {
    constexpr int64_t kStep = kGroup * Vec<C>::size, kAhead = kBlock * kStep;
    Vec<C> g[kGroup], top(lowest<C>());
    const auto load = [&](int64_t i) TENSOROPS_LAMBDA_INLINE {
      for (int k = 0; k < kGroup; ++k) g[k] = load_vector<C>(x + i * kStep + k * Vec<C>::size);
    };
    for (int64_t i = 0; i < groups; ++i) {
      load(i);
      Vec<C> best;
      Max::group(g, p, &best);
      top = maximum(top, best);
    }
    C lanes[Vec<C>::size];
    top.store(lanes);
    for (int i = 1; i < Vec<C>::size; ++i) lanes[0] = lanes[i] > lanes[0] || lanes[i] != lanes[i] ? lanes[i] : lanes[0];
    const Vec<C> m(lanes[0]);
    s[0] = W::from(m), s[1] = W::from(Vec<C>(0));
    for (int64_t i = 0; i < groups; ++i) {
      for (int64_t line = 0; line < kStep * int64_t(sizeof(S)); line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(x + i * kStep + kAhead) + line, 0, 2);
      load(i);
      const W sum = W::from(sum_of_group(g, m));
      for (int w = 0; w < W::parts; ++w) s[1].part[w] = s[1].part[w] + sum.part[w];
    }
  }
  template <class C>
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams&, Vec<C>* s) {
    s[0] = x;
    s[1] = Vec<C>(1);
  }
  template <class A>
  static TENSOROPS_INLINE void merge(Vec<A>* a, const Vec<A>* b, const Counts<A>&) {
    const Vec<A> m = maximum(a[0], b[0]);
    const Vec<A> scale = select(a[0] == b[0], Vec<A>(1), unscaled(exp_term(-abs(a[0] - b[0]))));
    a[1] = select(a[0] >= b[0], a[1] + b[1] * scale, a[1] * scale + b[1]);
    a[0] = m;
  }
  template <class A>
  static TENSOROPS_INLINE void finish(Vec<A>* s, int64_t, const ReduceParams&) {
    s[0] = select(infinite(s[0]), s[0], s[0] + log(s[1]));
  }
};

// A register of C as the registers of A that hold the same lanes.
template <class A, class C>
struct Wide {
  static constexpr int parts = Vec<C>::size / Vec<A>::size;
  Vec<A> part[parts];

  static TENSOROPS_INLINE Wide from(Vec<C> x) {
    Wide w;
    if constexpr (__is_same(A, C)) {
      w.part[0] = x;
    } else if constexpr (__is_same(C, float) && __is_same(A, double)) {
      const Halves halves = widen(x);
      w.part[0] = halves.low, w.part[1] = halves.high;
    } else {
      typedef C Half __attribute__((vector_size(kVectorBytes / 2)));
      Half halves[2];
      __builtin_memcpy(halves, &x.v, sizeof(x.v));
      for (int i = 0; i < 2; ++i) w.part[i] = Vec<A>(__builtin_convertvector(halves[i], typename Native<A>::type));
    }
    return w;
  }
};

template <class A>
TENSOROPS_INLINE Vec<A> iota() {
  A lanes[Vec<A>::size];
  for (int i = 0; i < Vec<A>::size; ++i) lanes[i] = A(i);
  return Vec<A>::load(lanes);
}

template <class A>
TENSOROPS_INLINE Counts<A> counts_of(int64_t into, int64_t from) {
  if constexpr (is_floating<A>)
    return {Vec<A>(A(into)), Vec<A>(into + from == 0 ? A(0) : A(from) / A(into + from))};
  else return {Vec<A>(0), Vec<A>(0)};
}

template <class A>
TENSOROPS_INLINE Counts<A> counts_of(Vec<A> into, Vec<A> from) {
  const Vec<A> both = into + from;
  if constexpr (is_floating<A>) return {into, select(both == 0, Vec<A>(0), from / both)};
  else return {into, Vec<A>(0)};
}

template <class A>
TENSOROPS_INLINE A first_lane(Vec<A> x) {
  A lanes[Vec<A>::size];
  x.store(lanes);
  return lanes[0];
}
// The upper `half` of the first 2 * half lanes, moved to the bottom.
template <int half, class A>
TENSOROPS_INLINE Vec<A> upper(Vec<A> x) {
  typename Native<int64_t>::type index;
  for (int i = 0; i < Vec<A>::size; ++i) index[i] = (i + half) % Vec<A>::size;
  return Vec<A>(__builtin_shuffle(x.v, index));
}
// Leaves the state of all lanes in the first.
template <class R, int half, class A>
TENSOROPS_INLINE void merge_halves(Vec<A>* a, Vec<A> held) {
  Vec<A> b[R::states];
  for (int k = 0; k < R::states; ++k) b[k] = upper<half>(a[k]);
  const Vec<A> other = upper<half>(held);
  R::merge(a, b, counts_of(held, other));
  if constexpr (half > 1) merge_halves<R, half / 2>(a, held + other);
}

// The engine's inner step, shared by both loops: state(s) of Vec<C>::size columns.
template <class R, class T>
struct Step {
  using C = typename R::template compute<T>;
  using A = typename AccumulatorOf<C>::type;
  using W = Wide<A, C>;
  static constexpr int K = R::states;
  static constexpr int lanes = Vec<C>::size;

  static TENSOROPS_INLINE void reset(W* acc) {
    for (int k = 0; k < K; ++k)
      for (int w = 0; w < W::parts; ++w) acc[k].part[w] = Vec<A>(R::template identity<A>(k));
  }
  template <int N = kGroup>
  static TENSOROPS_INLINE void group(const Vec<C>* x, const ReduceParams& params, W* wide) {
    if constexpr (requires { R::template wide_group<W, N>(x, params); }) {
      wide[0] = R::template wide_group<W, N>(x, params);
    } else {
      Vec<C> s[K];
      if constexpr (N == kGroup) R::group(x, params, s);
      else R::template group<N>(x, params, s);
      for (int k = 0; k < K; ++k) wide[k] = W::from(s[k]);
    }
  }
  static TENSOROPS_INLINE void single(Vec<C> x, const ReduceParams& params, W* wide) {
    Vec<C> s[K];
    R::single(x, params, s);
    for (int k = 0; k < K; ++k) wide[k] = W::from(s[k]);
  }
  // Merges a state, whose local index i stands for the global index origin + i * step.
  static TENSOROPS_INLINE void merge(W* acc, const W* wide, const Counts<A>& counts, const W& origin, A step) {
    for (int w = 0; w < W::parts; ++w) {
      Vec<A> a[K], b[K];
      for (int k = 0; k < K; ++k) {
        a[k] = acc[k].part[w];
        b[k] = wide[k].part[w];
      }
      if constexpr (R::locates) b[1] = origin.part[w] + b[1] * Vec<A>(step);
      R::merge(a, b, counts);
      for (int k = 0; k < K; ++k) acc[k].part[w] = a[k];
    }
  }
};

// Keeps the compiler from moving the computation of x, and what it reads, past others that are kept: wide loads that do not
// follow each other in memory mislead the prefetcher.
template <class A>
TENSOROPS_INLINE void keep_here(Vec<A>& x) {
#if defined(__x86_64__)
  asm volatile("" : "+v"(x.v));
#endif
}

// The next vector in memory. In halves, which the prefetcher follows better than whole cache lines at a time.
template <class C, class S>
TENSOROPS_INLINE Vec<C> load_next(const S* x) {
  Vec<C> next;
#if defined(__AVX512F__)
  if constexpr (__is_same(C, S)) {
    __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    asm volatile("" : "+v"(low));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x) + 1);
    next.v = (decltype(next.v))_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  } else {
    next = load_vector<C>(x);
  }
#else
  next = load_vector<C>(x);
#endif
  keep_here(next);
  return next;
}
TENSOROPS_INLINE void load_next(const BFloat16* x, Vec<float>* even, Vec<float>* odd) {
  load_pair(x, even, odd);
  keep_here(*odd);
}

// Sums of f64 and the like, one operation for each vector read: read in order into few running sums, which is a tenth faster
// from small pages than groups of 8 reads. Short chains, so that rounding stays as theirs.
constexpr int kChains = 4, kChainLength = 32;
template <class R, class C, class A>
constexpr bool kInChains = __is_same(C, A) && R::states == 1 && is_floating<A>;

// AVX2 cores read from several places at once in two thirds of the time that one takes: from a long run, where these are so
// many bytes apart, or from several shorter ones. 512-bit loads are best read in order (csrc/README.md).
constexpr int kStreams = kVectorBytes == 32 ? 4 : 1;
constexpr int64_t kApart = 8192;
template <class R, class C, class A>
constexpr int kRuns = R::states == 1 && !R::locates && !kInChains<R, C, A> ? kStreams : 1;

// What is left of a run of n elements from row `row` of vectors on, added to the state of each lane, and these to one.
template <class R, class T, class Stored>
void end_run(const ReduceParams& params, const Stored* x, int64_t n, int64_t row, typename Step<R, T>::W origin,
             typename Step<R, T>::W* acc, typename Step<R, T>::A* state, int64_t pitch) {
  using S = Step<R, T>;
  using C = typename S::C;
  using A = typename S::A;
  using W = typename S::W;
  constexpr int L = S::lanes, K = S::K;
  const Vec<A> lane = iota<A>();
  const int64_t rows = n / L;
  for (; row < rows; ++row) {
    W s[K];
    S::single(load_vector<C>(x + row * L), params, s);
    S::merge(acc, s, counts_of<A>(row, 1), origin, A(L));
    if constexpr (R::locates)
      for (int w = 0; w < W::parts; ++w) origin.part[w] = origin.part[w] + Vec<A>(A(L));
  }
  // The last elements go to the first lanes.
  const int64_t tail = n - rows * L;
  if (tail > 0) {
    W before[K];
    for (int k = 0; k < K; ++k) before[k] = acc[k];
    W s[K];
    S::single(load_part<C>(x + rows * L, tail), params, s);
    S::merge(acc, s, counts_of<A>(rows, 1), origin, A(L));
    for (int w = 0; w < W::parts; ++w) {
      const Mask<A> took = lane + Vec<A>(A(w * Vec<A>::size)) < Vec<A>(A(tail));
      for (int k = 0; k < K; ++k) acc[k].part[w] = select(took, acc[k].part[w], before[k].part[w]);
    }
  }
  // The lanes are merged in halves; `counts` says how many elements each holds.
  Vec<A> counts[W::parts];
  for (int w = 0; w < W::parts; ++w) {
    const Mask<A> took = lane + Vec<A>(A(w * Vec<A>::size)) < Vec<A>(A(tail));
    counts[w] = select(took, Vec<A>(A(rows + 1)), Vec<A>(A(rows)));
  }
  Vec<A> a[K], b[K];
  for (int k = 0; k < K; ++k) a[k] = acc[k].part[0];
  Vec<A> held = counts[0];
  for (int w = 1; w < W::parts; ++w) {
    for (int k = 0; k < K; ++k) b[k] = acc[k].part[w];
    R::merge(a, b, counts_of(held, counts[w]));
    held = held + counts[w];
  }
  merge_halves<R, Vec<A>::size / 2>(a, held);
  for (int k = 0; k < K; ++k) state[k * pitch] = first_lane(a[k]);
}

// Whether a run is read from several places.
template <class R, class T, class Stored>
TENSOROPS_INLINE bool in_places(int64_t n) {
  using S = Step<R, T>;
  constexpr int64_t kStep = kInChains<R, typename S::C, typename S::A> ? kChains : kGroup;
  return !R::locates && kStreams > 1 && n / S::lanes / kStep * kStep / kStreams * S::lanes * int64_t(sizeof(Stored)) >= kApart;
}

// `Runs` runs side by side, of elements that are stored as such or as a narrower dtype.
template <class R, class T, class Stored, int Runs>
void some_runs(const ReduceParams& params, const void* from, int64_t stride, int64_t n, int64_t first, States states) {
  using S = Step<R, T>;
  using C = typename S::C;
  using A = typename S::A;
  using W = typename S::W;
  constexpr int L = S::lanes, K = S::K;
  const auto run = [&](int r) TENSOROPS_LAMBDA_INLINE {
    return reinterpret_cast<const Stored*>(static_cast<const char*>(from) + r * stride);
  };
  [[maybe_unused]] const Stored* const x = run(0);
  W acc[Runs][K], origin;
#pragma GCC unroll 4
  for (int r = 0; r < Runs; ++r) S::reset(acc[r]);
  const Vec<A> lane = iota<A>();
  for (int w = 0; w < W::parts; ++w) origin.part[w] = Vec<A>(A(first + w * Vec<A>::size)) + lane;
  const int64_t rows = n / L;
  int64_t row = 0;
  if constexpr (requires { R::kBlock; }) {
    while (row + kGroup <= rows) {
      const int64_t left = (rows - row) / kGroup, groups = left < R::kBlock ? left : R::kBlock;
      W s[K];
      R::template block<W, C>(x + row * L, groups, params, s);
      S::merge(acc[0], s, counts_of<A>(row, groups * kGroup), origin, A(L));
      row += groups * kGroup;
    }
  }
  if constexpr (kInChains<R, C, A>) {
    // The chains side by side, or each from a place of its own.
    const auto run_chains = [&](int64_t at, int64_t end, int64_t apart, int64_t step) TENSOROPS_LAMBDA_INLINE {
      while (at < end) {
        const int64_t stop = at + kChainLength * step < end ? at + kChainLength * step : end;
        W chain[kChains];
        for (W& c : chain) S::reset(&c);
        for (; at < stop; at += step)
          for (int k = 0; k < kChains; ++k) {
            W s;
            S::single(load_next<C>(x + (at + k * apart) * L), params, &s);
            S::merge(chain + k, &s, {}, origin, A(L));
          }
        S::merge(chain, chain + 1, {}, origin, A(L));
        S::merge(chain + 2, chain + 3, {}, origin, A(L));
        S::merge(chain, chain + 2, {}, origin, A(L));
        S::merge(acc[0], chain, {}, origin, A(L));
      }
    };
    const int64_t apart = rows / kChains;
    if (in_places<R, T, Stored>(n)) run_chains(0, apart, apart, 1);
    else run_chains(0, apart * kChains, 1, kChains);
    row = apart * kChains;
  }
  // A group of rows from `Places` places, `apart` rows from one to the next; `done` rows have been merged before.
  const auto merge_group = [&]<int Places>(int r, int64_t at, int64_t apart, int64_t done) TENSOROPS_LAMBDA_INLINE {
    const Stored* const begin = run(r);
    Vec<C> g[kGroup];
    W s[K];
    if constexpr (__is_same(Stored, BFloat16) && __is_same(C, float) && !R::locates) {
      for (int i = 0; i < kGroup; i += 2)
        load_next(begin + (at + i / 2 / Places * 2 + i / 2 % Places * apart) * L, g + i, g + i + 1);
    } else {
      for (int i = 0; i < kGroup; ++i) g[i] = load_next<C>(begin + (at + i / Places + i % Places * apart) * L);
    }
    S::group(g, params, s);
    S::merge(acc[r], s, counts_of<A>(done, kGroup), origin, A(L));
  };
  if constexpr (Runs == 1 && !R::locates && kStreams > 1 && !kInChains<R, C, A> && !requires { R::kBlock; }) {
    if (in_places<R, T, Stored>(n)) {
      constexpr int64_t kStep = kGroup / kStreams;
      const int64_t apart = rows / kGroup * kStep;
      for (int64_t at = 0; at < apart; at += kStep, row += kGroup)
        merge_group.template operator()<kStreams>(0, at, apart, row);
    }
  }
  for (; row + kGroup <= rows; row += kGroup) {
#pragma GCC unroll 4
    for (int r = 0; r < Runs; ++r) merge_group.template operator()<1>(r, row, 0, row);
    if constexpr (R::locates)
      for (int w = 0; w < W::parts; ++w) origin.part[w] = origin.part[w] + Vec<A>(A(kGroup * L));
  }
  // Copied, so that in the loops they are in registers.
  W reached[Runs][K];
#pragma GCC unroll 4
  for (int r = 0; r < Runs; ++r)
    for (int k = 0; k < K; ++k) reached[r][k] = acc[r][k];
  for (int r = 0; r < Runs; ++r)
    end_run<R, T>(params, run(r), n, row, origin, reached[r], static_cast<A*>(states.data) + r, states.pitch);
}

// Whether a part of a vector is loaded in an instruction.
template <class C, class Stored>
constexpr bool kLoadsParts = kVectorBytes >= 32 && (__is_same(C, Stored) || (__is_same(C, double) && __is_same(Stored, float)) ||
                                                    (kVectorBytes == 64 && is_floating<C> && !__is_same(Stored, Bool)));

template <class R, class T>
constexpr bool kHasNeutral = requires { R::template neutral<typename Step<R, T>::C>(); };

// Runs too short to be read from several places, one after another: while one waits for its last sums, the next is begun.
// Beside whole groups each has `Rest` vectors more, of which the last half may be partial or past the end: filled with what
// changes nothing.
template <class R, class T, class Stored, int Rest>
TENSOROPS_INLINE void short_runs(const ReduceParams& params, const char* from, int64_t stride, int64_t count, int64_t n,
                                 typename Step<R, T>::A* states) {
  using S = Step<R, T>;
  using C = typename S::C;
  using A = typename S::A;
  using W = typename S::W;
  constexpr int L = S::lanes;
  constexpr C neutral = R::template neutral<C>();
  const int64_t whole = n / (kGroup * L) * (kGroup * L);
  int64_t held[kGroup];  // lanes of each vector of the rest
  for (int i = 0; i < Rest; ++i) {
    const int64_t left = n - whole - i * L;
    held[i] = left < 0 ? 0 : left < L ? left : L;
  }
  for (int64_t r = 0; r < count; ++r) {
    const Stored* const x = reinterpret_cast<const Stored*>(from + r * stride);
    // What `reduce` makes of the rest, merged with what it makes of whole groups.
    const auto reduced = [&](auto start, auto reduce, auto merge) TENSOROPS_LAMBDA_INLINE {
      auto acc = start;
      if constexpr (Rest > 0) {
        Vec<C> g[Rest];
#pragma GCC unroll 8
        for (int i = 0; i < Rest; ++i) {
          const Stored* const p = x + whole + i * L;
          if (i < Rest / 2 || (!kLoadsParts<C, Stored> && held[i] == L)) g[i] = load_vector<C>(p);
          else if (!kLoadsParts<C, Stored> && held[i] == 0) g[i] = Vec<C>(neutral);
          else g[i] = first_lanes(load_part<C>(p, held[i]), held[i], neutral);
        }
        acc = reduce.template operator()<Rest>(g);
      }
      for (int64_t at = 0; at < whole; at += kGroup * L) {
        Vec<C> g[kGroup];
        for (int i = 0; i < kGroup; ++i) g[i] = load_vector<C>(x + at + i * L);
        merge(acc, reduce.template operator()<kGroup>(g));
      }
      return acc;
    };
    if constexpr (requires { R::fold(Vec<C>(neutral)); }) {
      states[r] = static_cast<A>(R::fold(reduced(
          Vec<C>(neutral),
          [&]<int N>(const Vec<C>* g) TENSOROPS_LAMBDA_INLINE {
            Vec<C> s;
            R::template group<N>(g, params, &s);
            return s;
          },
          [](Vec<C>& acc, Vec<C> s) TENSOROPS_LAMBDA_INLINE { R::merge(&acc, &s, {}); })));
    } else {
      W identity;
      S::reset(&identity);
      const W acc = reduced(
          identity,
          [&]<int N>(const Vec<C>* g) TENSOROPS_LAMBDA_INLINE {
            W s;
            S::template group<N>(g, params, &s);
            return s;
          },
          [](W& acc, W s) TENSOROPS_LAMBDA_INLINE { S::merge(&acc, &s, {}, {}, A(L)); });
      Vec<A> all = acc.part[0];
      for (int w = 1; w < W::parts; ++w) R::merge(&all, &acc.part[w], Counts<A>{});
      states[r] = R::fold_wide(all);
    }
  }
}

template <class R, class T, class Stored = T>
void runs(const ReduceParams& params, const void* from, int64_t stride, int64_t count, int64_t n, int64_t first,
          States states) {
  using A = typename Step<R, T>::A;
  constexpr int kTogether = kRuns<R, typename Step<R, T>::C, A>;
  const char* x = static_cast<const char*>(from);
  if constexpr (kHasNeutral<R, T>) {
    if (n * int64_t(sizeof(Stored)) < kApart) {
      constexpr int L = Step<R, T>::lanes;
      const auto take = [&]<int Rest>() TENSOROPS_LAMBDA_INLINE {
        short_runs<R, T, Stored, Rest>(params, x, stride, count, n, static_cast<A*>(states.data));
      };
      const int64_t rest = n % (kGroup * L);
      if (rest == 0) return take.template operator()<0>();
      if (rest <= L) return take.template operator()<1>();
      if (rest <= 2 * L) return take.template operator()<2>();
      if (rest <= 4 * L) return take.template operator()<4>();
      return take.template operator()<kGroup>();
    }
  }
  int64_t r = 0;
  const auto at = [&]() TENSOROPS_LAMBDA_INLINE { return States{static_cast<A*>(states.data) + r, states.pitch}; };
  if (kTogether > 1 && !in_places<R, T, Stored>(n))
    for (; r + kTogether <= count; r += kTogether)
      some_runs<R, T, Stored, kTogether>(params, x + r * stride, stride, n, first, at());
  for (; r < count; ++r) some_runs<R, T, Stored, 1>(params, x + r * stride, stride, n, first, at());
}

template <class R, class T, class Stored = T>
void rows(const ReduceParams& params, const void* from, int64_t row_stride, int64_t count, int64_t columns, int64_t first,
          int64_t before, States states) {
  using S = Step<R, T>;
  using C = typename S::C;
  using A = typename S::A;
  using W = typename S::W;
  constexpr int L = S::lanes, K = S::K;
  const char* bytes = static_cast<const char*>(from);
  A* const acc_data = static_cast<A*>(states.data);
  if (before == 0)
    for (int k = 0; k < K; ++k)
      for (int64_t c = 0; c < columns; ++c) acc_data[k * states.pitch + c] = R::template identity<A>(k);
  // One column vector: `load(row)` reads it; n < L marks the last, partial one.
  const auto column = [&](int64_t c, int64_t n, auto reduce, const Counts<A>& counts, int64_t row) TENSOROPS_LAMBDA_INLINE {
    W acc[K], origin;
    for (int k = 0; k < K; ++k)
      for (int w = 0; w < W::parts; ++w) {
        const A* p = acc_data + k * states.pitch + c + w * Vec<A>::size;
        const int64_t left = n - w * Vec<A>::size;
        acc[k].part[w] = left >= Vec<A>::size ? Vec<A>::load(p) : left > 0 ? Vec<A>::load(p, left) : Vec<A>(0);
      }
    W s[K];
    reduce(s);
    if constexpr (R::locates)
      for (int w = 0; w < W::parts; ++w) origin.part[w] = Vec<A>(A(first + row));
    S::merge(acc, s, counts, origin, A(1));
    for (int k = 0; k < K; ++k)
      for (int w = 0; w < W::parts; ++w) {
        A* p = acc_data + k * states.pitch + c + w * Vec<A>::size;
        const int64_t left = n - w * Vec<A>::size;
        if (left >= Vec<A>::size) acc[k].part[w].store(p);
        else if (left > 0) acc[k].part[w].store(p, left);
      }
  };
  // Not where all is so little that it may well be in the cache, nor, by AVX2 cores, whose own prefetchers follow longer rows.
  constexpr int64_t kFetched = 128 * 1024, kFollowed = 4096, kLines = kGroup * L * int64_t(sizeof(Stored)) / 64;
  const int64_t row_bytes = columns * int64_t(sizeof(Stored));
  const bool fetches = count * row_bytes >= kFetched && (kVectorBytes != 32 || row_bytes < kFollowed);
  int64_t row = 0;
  while (row < count) {
    const bool whole = row + kGroup <= count;
    const int64_t taken = whole ? kGroup : 1;
    const Counts<A> counts = counts_of<A>(before + row, taken);
    const char* top = bytes + row * row_stride;
    const auto at = [&](int i, int64_t c) TENSOROPS_LAMBDA_INLINE {
      return reinterpret_cast<const Stored*>(top + i * row_stride) + c;
    };
    const int64_t full = columns - columns % L;
    if (whole) {
      const auto group = [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        column(c, n, [&](W* s) TENSOROPS_LAMBDA_INLINE {
          Vec<C> g[kGroup];
          for (int i = 0; i < kGroup; ++i) g[i] = load_lanes<C>(at(i, c), n);
          S::group(g, params, s);
        }, counts, row);
      };
      if (fetches && row + 2 * kGroup <= count) {
        Ahead ahead(top + kGroup * row_stride, row_stride, row_bytes);
        for (int64_t c = 0; c < full; c += L) {
          ahead.step(kLines);
          group(c, L);
        }
      } else {
        for (int64_t c = 0; c < full; c += L) group(c, L);
      }
      if (full < columns) group(full, columns - full);
    } else {
      const auto single = [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        column(c, n, [&](W* s) TENSOROPS_LAMBDA_INLINE {
          S::single(load_lanes<C>(at(0, c), n), params, s);
        }, counts, row);
      };
      for (int64_t c = 0; c < full; c += L) single(c, L);
      if (full < columns) single(full, columns - full);
    }
    row += taken;
  }
}

// Applies f(vectors of the K components) to all columns, the last of them in a padded vector.
template <int K, class A, class F>
TENSOROPS_INLINE void for_columns(int64_t columns, F f) {
  for (int64_t c = 0; c < columns; c += Vec<A>::size) {
    const int64_t n = columns - c;
    f(c, n < Vec<A>::size ? n : int64_t(Vec<A>::size));
  }
}

template <class R, class T>
void merge(States into, int64_t n_into, States from, int64_t n_from, int64_t columns) {
  using A = typename Step<R, T>::A;
  constexpr int K = R::states;
  const Counts<A> counts = counts_of<A>(n_into, n_from);
  A* to = static_cast<A*>(into.data);
  const A* other = static_cast<const A*>(from.data);
  for_columns<K, A>(columns, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
    Vec<A> a[K], b[K];
    for (int k = 0; k < K; ++k) {
      a[k] = load_lanes<A>(to + k * into.pitch + c, n);
      b[k] = load_lanes<A>(other + k * from.pitch + c, n);
    }
    R::merge(a, b, counts);
    for (int k = 0; k < K; ++k) store_lanes(a[k], to + k * into.pitch + c, n);
  });
}

template <class R, class T>
void finish(const ReduceParams& params, States states, int64_t count, int64_t columns) {
  using A = typename Step<R, T>::A;
  constexpr int K = R::states;
  A* data = static_cast<A*>(states.data);
  for_columns<K, A>(columns, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
    Vec<A> s[K];
    for (int k = 0; k < K; ++k) s[k] = load_lanes<A>(data + k * states.pitch + c, n);
    R::finish(s, count, params);
    for (int k = 0; k < K; ++k) store_lanes(s[k], data + k * states.pitch + c, n);
  });
}

// N vectors of columns, of which `lanes` columns exist. Rows may lie so far apart that they push each other out of the first
// cache: for the way back they are kept where they are adjacent, and those of the next columns are fetched.
template <class S, int N>
TENSOROPS_INLINE void product_gradient_columns(const S* x, int64_t row, int64_t rows, int64_t lanes, const double* factors,
                                               S* out) {
  using V = Vec<double>;
  using F = Vec<float>;
  constexpr int width = N * V::size;
  const auto left = [&](int v) TENSOROPS_LAMBDA_INLINE { return lanes - v * V::size; };
  V before[kProductRows][N], product[N];
  S kept[kProductRows][width];
#pragma GCC unroll 4
  for (int v = 0; v < N; ++v) product[v] = load_lanes<double>(factors + v * V::size, left(v));
  for (int64_t r = 0; r < rows; ++r, x += row) {
    fetch_lines<width>(x + width);
    __builtin_memcpy(kept[r], x, lanes * sizeof(S));
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      before[r][v] = product[v];
      product[v] = product[v] * load_lanes<double>(x + v * V::size, left(v));
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < N; ++v) product[v] = V(1.0);
  out += (rows - 1) * row;
  for (int64_t r = rows - 1; r >= 0; --r, out -= row) {
    [[maybe_unused]] float narrow[width < F::size ? F::size : width];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      const V gradient = before[r][v] * product[v];
      product[v] = product[v] * load_lanes<double>(kept[r] + v * V::size, left(v));
      if constexpr (sizeof(S) < sizeof(float)) store_vector(gradient, narrow + v * V::size);
      else store_lanes(gradient, out + v * V::size, left(v));
    }
    if constexpr (sizeof(S) < sizeof(float))
      for (int i = 0; i < width; i += F::size) store_lanes(F::load(narrow + i), out + i, lanes - i);
  }
}

template <class S>
void product_gradient(const void* from, int64_t row, int64_t rows, int64_t columns, const double* factors, void* to) {
  constexpr int64_t size = Vec<double>::size;
  const S* x = static_cast<const S*>(from);
  S* out = static_cast<S*>(to);
  int64_t c = 0;
  for (; c + 4 * size <= columns; c += 4 * size) product_gradient_columns<S, 4>(x + c, row, rows, 4 * size, factors + c, out + c);
  for (; c < columns; c += size) {
    const int64_t left = columns - c;
    product_gradient_columns<S, 1>(x + c, row, rows, left < size ? left : size, factors + c, out + c);
  }
}

template <class R, class T>
constexpr int64_t kShortRun = kHasNeutral<R, T> ? (kVectorBytes >= 32 ? 48 : 128) / sizeof(T) : __is_same(R, LogSumExp) ? 128 : 48;

enum Types { SHORT, FLOATING, NUMERIC, ANY };

template <class R, class T, Types types>
constexpr ReduceKernels kernels_for() {
  constexpr bool is_float = types == SHORT ? __is_same(T, float) : is_floating<T>;
  if constexpr (is_float || types == ANY || (types == NUMERIC && __is_same(T, int64_t)))
    return {runs<R, T>, rows<R, T>, merge<R, T>, finish<R, T>, kShortRun<R, T>};
  else return {};
}

// Sums and variances of f16 and bf16 have reducers of their own; powers take their time anyway.
template <class R, class S>
constexpr StoredKernels kernels_of_short() {
  if constexpr (__is_same(R, Sum) || __is_same(R, Variance<double>) || __is_same(R, NormP)) return {};
  else return {runs<R, float, S>, rows<R, float, S>};
}

}  // namespace

extern const ReductionKernels reduction_kernels;
const ReductionKernels reduction_kernels = {{
#define REDUCER(name, reducer, types)                                     \
  {kernels_for<reducer, float, types>(),            \
   kernels_for<reducer, double, types>(),           \
   kernels_for<reducer, int32_t, types>(),          \
   kernels_for<reducer, int64_t, types>()},
    TENSOROPS_REDUCER_TABLE(REDUCER)
#undef REDUCER
}, {
#define REDUCER(name, reducer, types) kernels_of_short<reducer, Half>(),
    TENSOROPS_REDUCER_TABLE(REDUCER)
#undef REDUCER
}, {
#define REDUCER(name, reducer, types) kernels_of_short<reducer, BFloat16>(),
    TENSOROPS_REDUCER_TABLE(REDUCER)
#undef REDUCER
}, {runs<SumOfShort, float, Bool>, rows<SumOfShort, float, Bool>},
   // In the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
   {nullptr, nullptr, nullptr, nullptr, nullptr, product_gradient<Half>, product_gradient<float>, product_gradient<double>, nullptr,
    product_gradient<BFloat16>}};

}  // namespace tensorops::cpu::TENSOROPS_ISA
