// The table's rows as SIMD loops, once per instruction set.
#include "cpu/kernels/elementwise.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

#define TENSOROPS_FORMULA TENSOROPS_INLINE
#include "ops/elementwise_formulas.h"

template <class T>
TENSOROPS_INLINE Mask<T> isinf(Vec<T> x) {
  if constexpr (is_floating<T>) return abs(x) == T(__builtin_inf());
  else return x != x;
}
template <class T>
TENSOROPS_INLINE Mask<T> isfinite(Vec<T> x) {
  if constexpr (is_floating<T>) return abs(x) < T(__builtin_inf());
  else return x == x;
}
// z - x * y, rounded once where z is close to the product; without FMA by Dekker's exact product (1971), whose halves of a
// factor have few enough bits that theirs are exact, and 0 where these would underflow.
template <class T>
TENSOROPS_INLINE Vec<T> residual(Vec<T> x, Vec<T> y, Vec<T> z) {
#if defined(__FMA__)
  return fma(-x, y, z);
#else
  const Vec<T> splitter = T(sizeof(T) == 4 ? 0x1p12 + 1 : 0x1p27 + 1);
  const auto upper = [&](Vec<T> a) TENSOROPS_LAMBDA_INLINE {
    const Vec<T> scaled = splitter * a;
    return scaled - (scaled - a);
  };
  const Vec<T> x1 = upper(x), x2 = x - x1, y1 = upper(y), y2 = y - y1, product = x * y;
  const Vec<T> lost = ((x1 * y1 - product) + x1 * y2 + x2 * y1) + x2 * y2;
  return select(abs(z) < T(sizeof(T) == 4 ? 0x1p-102 : 0x1p-969), 0, (z - product) - lost);
#endif
}
// Integers: zero divisors are refused before the kernel runs; the padding of a tail may hold some.
template <class T>
TENSOROPS_INLINE Vec<T> div_trunc(Vec<T> a, Vec<T> b) {
  if constexpr (is_floating<T>) return trunc(a / b);
  else return map_lanes(a, b, [](T x, T y) { return y == 0 ? T(0) : y == -1 ? T(0 - uint64_t(x)) : T(x / y); });
}
// Python's floor division; for floats by way of fmod, exact where a / b would round across an integer (as torch's).
template <class T>
TENSOROPS_INLINE Vec<T> div_floor(Vec<T> a, Vec<T> b) {
  if constexpr (is_floating<T>) {
    const Vec<T> mod = fmod(a, b);
    Vec<T> quotient = (a - mod) / b;
    quotient = select((mod != 0) & ((b < 0) ^ (mod < 0)), quotient - 1, quotient);
    Vec<T> floored = floor(quotient);
    floored = select(quotient - floored > 0.5, floored + 1, floored);
    const Vec<T> signed_zero = copysign(Vec<T>(0), a / b);
    return select(b == 0, a / b, select(quotient == 0, signed_zero, floored));
  } else {
    return map_lanes(a, b, [](T x, T y) {
      if (y == 0) return T(0);
      if (y == -1) return T(0 - uint64_t(x));
      return T(x / y - ((x % y != 0) && ((x < 0) != (y < 0))));
    });
  }
}

// A row's formula as a type, with what its kernel needs to know.
#define UNARY(name, domain_, saved, scalars, formula, slope_, curve)                                             \
  struct name##_row {                                                                                            \
    static constexpr Domain domain = Domain::domain_;                                                            \
    template <class V>                                                                                           \
    static TENSOROPS_INLINE V value(V x, [[maybe_unused]] V p0, [[maybe_unused]] V p1, [[maybe_unused]] V p2) {  \
      return V(formula);                                                                                         \
    }                                                                                                            \
  };                                                                                                             \
  struct name##_backward_row {                                                                                   \
    static constexpr Domain domain = Domain::ACTIVATION;                                                         \
    template <class V>                                                                                           \
    static TENSOROPS_INLINE V value(V g, V saved_value, [[maybe_unused]] V p0, [[maybe_unused]] V p1,            \
                                    [[maybe_unused]] V p2) {                                                     \
      [[maybe_unused]] const V x = saved_value, y = saved_value;                                                 \
      const V slope = V(slope_);                                                                                 \
      /* Piecewise linear: a closed gate passes nothing on, not even an infinite gradient. */                    \
      if constexpr (__is_same(decltype(curve), const Flat)) return select(slope == 0, V(0), g * slope);                 \
      else return g * slope;                                                                                     \
    }                                                                                                            \
  };
TENSOROPS_UNARY_TABLE(UNARY)
#undef UNARY
#define BINARY(name, domain_, scalars, formula, ...)                                                                 \
  struct name##_row {                                                                                                \
    static constexpr Domain domain = Domain::domain_;                                                                \
    template <class V>                                                                                               \
    static TENSOROPS_INLINE V value(V a, V b, [[maybe_unused]] V p0, [[maybe_unused]] V p1, [[maybe_unused]] V p2) { \
      return V(formula);                                                                                             \
    }                                                                                                                \
  };
TENSOROPS_BINARY_TABLE(BINARY)
#undef BINARY
#define TERNARY(name, domain_, scalars, formula, ...)                                                         \
  struct name##_row {                                                                                         \
    static constexpr Domain domain = Domain::domain_;                                                         \
    template <class V>                                                                                        \
    static TENSOROPS_INLINE V value(V a, V b, V c, [[maybe_unused]] V p0, [[maybe_unused]] V p1,              \
                                    [[maybe_unused]] V p2) {                                                  \
      return V(formula);                                                                                      \
    }                                                                                                         \
  };
TENSOROPS_TERNARY_TABLE(TERNARY)
#undef TERNARY

// Rows of one argument whose result is bf16 as it is if that is: to round it would take longer than the row. (Of two, one may be a
// number that is not.)
template <class Row>
constexpr bool is_exact = false;
#define EXACT(row) \
  template <>      \
  constexpr bool is_exact<row> = true;
EXACT(abs_row)
EXACT(neg_row)
EXACT(sign_row)
EXACT(ceil_row)
EXACT(floor_row)
EXACT(round_row)
EXACT(trunc_row)
EXACT(relu_row)
EXACT(relu6_row)
#undef EXACT

// What costs little is memory's: it gets the reads of several vectors before their writes. All rows that integers have, and these.
template <class Row>
constexpr bool is_cheap = Row::domain == Domain::REAL || Row::domain == Domain::PREDICATE;
#define CHEAP(row) \
  template <>      \
  constexpr bool is_cheap<row> = true;
CHEAP(frac_row)
CHEAP(leaky_relu_row)
CHEAP(hardswish_row)
CHEAP(hardsigmoid_row)
CHEAP(_prelu_row)
CHEAP(lerp_row)
CHEAP(_var_gradient_row)
#undef CHEAP

// In and Out are the dtypes in memory, First that of the first input.
template <class Row, class T, int Inputs, class In = T, class Out = T, class First = In>
void kernel(const ElementwiseParams& params, const ElementwiseRun& run, int64_t n) {
  using V = Vec<T>;
  constexpr bool kPairs = __is_same(First, BFloat16) && __is_same(Out, BFloat16);
  constexpr int L = V::size, kVectors = is_cheap<Row> ? 4 : kPairs ? 2 : 1;
  V p[3];
  for (int i = 0; i < 3; ++i) p[i] = is_floating<T> ? V(T(params.real[i])) : V(T(params.integer[i]));
  // A row's last vector steps back over elements that are done, where no input lies where results do: parts of vectors are slow.
  bool steps_back = n >= L, repeats[Inputs];
  const bool streams = run.streams;
  const char* x[Inputs];
  Out* y = static_cast<Out*>(run.out);
  const T nothing = 0;
  for (int k = 0; k < Inputs; ++k) {
    steps_back &= run.in[k] != run.out;
    repeats[k] = run.repeats[k];
    x[k] = static_cast<const char*>(run.in[k]);
  }
  for (int64_t row = 0; row < run.rows; ++row) {
    V repeated[Inputs];
    for (int k = 0; k < Inputs; ++k) repeated[k] = V(*(repeats[k] ? reinterpret_cast<const T*>(x[k]) : &nothing));
    // read(p): of input k, from element i on.
    const auto from_input = [&](int k, int64_t i, auto read) TENSOROPS_LAMBDA_INLINE {
      return k == 0 ? read(reinterpret_cast<const First*>(x[k]) + i) : read(reinterpret_cast<const In*>(x[k]) + i);
    };
    const auto apply = [&](auto load) TENSOROPS_LAMBDA_INLINE {
      if constexpr (Inputs == 1) return Row::template value<V>(load(0), p[0], p[1], p[2]);
      else if constexpr (Inputs == 2) return Row::template value<V>(load(0), load(1), p[0], p[1], p[2]);
      else return Row::template value<V>(load(0), load(1), load(2), p[0], p[1], p[2]);
    };
    int64_t i = 0;
    for (; i + kVectors * L <= n; i += kVectors * L) {
      V from[Inputs][kVectors], to[kVectors];
      for (int k = 0; k < Inputs; ++k) {
        if (repeats[k])
          for (int v = 0; v < kVectors; ++v) from[k][v] = repeated[k];
        else if constexpr (kPairs)
          for (int v = 0; v < kVectors; v += 2)
            load_pair(reinterpret_cast<const In*>(x[k]) + i + v * L, &from[k][v], &from[k][v + 1]);
        else
          for (int v = 0; v < kVectors; ++v)
            from[k][v] = from_input(k, i + v * L, [](auto p) TENSOROPS_LAMBDA_INLINE { return load_vector<T>(p); });
      }
      for (int v = 0; v < kVectors; ++v) to[v] = apply([&](int k) TENSOROPS_LAMBDA_INLINE { return from[k][v]; });
      if constexpr (kPairs)
        for (int v = 0; v < kVectors; v += 2) store_pair<is_exact<Row>>(to[v], to[v + 1], y + i + v * L, streams);
      else if (streams)
        for (int v = 0; v < kVectors; ++v) stream_vector(to[v], y + i + v * L);
      else
        for (int v = 0; v < kVectors; ++v) store_vector(to[v], y + i + v * L);
    }
    const auto store_some = [&](int64_t left) TENSOROPS_LAMBDA_INLINE {
      const V some = apply([&](int k) TENSOROPS_LAMBDA_INLINE {
        return repeats[k] ? repeated[k] : from_input(k, i, [&](auto p) TENSOROPS_LAMBDA_INLINE { return load_lanes<T>(p, left); });
      });
      store_lanes(some, y + i, left);
    };
    // One question for rows of whole groups.
    if (i < n) {
      if constexpr (kVectors > 1)
        for (; i + L <= n; i += L) store_some(L);
      if (i < n) {
        if (steps_back) i = n - L;
        store_some(n - i);
      }
    }
    for (int k = 0; k < Inputs; ++k) x[k] += run.in_step[k];
    y = reinterpret_cast<Out*>(reinterpret_cast<char*>(y) + run.out_step);
  }
}

template <class Row, class T, int Inputs>
constexpr ElementwiseKernel kernel_for() {
  if constexpr (is_floating<T> || Row::domain == Domain::REAL || Row::domain == Domain::PREDICATE) return kernel<Row, T, Inputs>;
  else return nullptr;
}
template <class Row>
constexpr bool kHasCondition = __is_same(Row, where_row);
template <class Row, class T, int Inputs>
constexpr ElementwiseKernel kernel_with_bool() {
  if constexpr (Row::domain == Domain::PREDICATE) return kernel<Row, T, Inputs, T, Bool>;
  else if constexpr (kHasCondition<Row>) return kernel<Row, T, Inputs, T, T, Bool>;
  else return nullptr;
}
template <class Row, class S, int Inputs>
constexpr ElementwiseKernel short_kernel_for() {
  if constexpr (Row::domain == Domain::PREDICATE) return kernel<Row, float, Inputs, S, Bool>;
  else if constexpr (kHasCondition<Row>) return kernel<Row, float, Inputs, S, S, Bool>;
  else return kernel<Row, float, Inputs, S, S>;
}

#define KERNELS(row, inputs)                                                                                 \
  {{kernel_for<row, float, inputs>(), kernel_for<row, double, inputs>(), kernel_for<row, int32_t, inputs>(), \
    kernel_for<row, int64_t, inputs>()},                                                                     \
   {kernel_with_bool<row, float, inputs>(), kernel_with_bool<row, double, inputs>(),                         \
    kernel_with_bool<row, int32_t, inputs>(), kernel_with_bool<row, int64_t, inputs>()},                     \
   short_kernel_for<row, BFloat16, inputs>(), short_kernel_for<row, Half, inputs>()},

#define LOADS(dtype)                                                                            \
  {load_run<Storage<DType::dtype>::type, float>, load_run<Storage<DType::dtype>::type, double>, \
   load_run<Storage<DType::dtype>::type, int32_t>, load_run<Storage<DType::dtype>::type, int64_t>},

#define STORES(C)                                                                                         \
  {store_run<uint8_t, C>, store_run<int8_t, C>, store_run<int16_t, C>, store_run<int32_t, C>,             \
   store_run<int64_t, C>, store_run<Half, C>, store_run<float, C>, store_run<double, C>, store_run<Bool, C>, \
   store_run<BFloat16, C>},

}  // namespace

extern const ElementwiseKernels elementwise_kernels;
const ElementwiseKernels elementwise_kernels = {
    {
#define UNARY(name, ...) KERNELS(name##_row, 1) KERNELS(name##_backward_row, 2)
        TENSOROPS_UNARY_TABLE(UNARY)
#undef UNARY
#define BINARY(name, ...) KERNELS(name##_row, 2)
        TENSOROPS_BINARY_TABLE(BINARY)
#undef BINARY
#define TERNARY(name, ...) KERNELS(name##_row, 3)
        TENSOROPS_TERNARY_TABLE(TERNARY)
#undef TERNARY
    },
    {LOADS(u8) LOADS(i8) LOADS(i16) LOADS(i32) LOADS(i64) LOADS(f16) LOADS(f32) LOADS(f64) LOADS(boolean) LOADS(bf16)},
    {STORES(float) STORES(double) STORES(int32_t) STORES(int64_t)},
    end_stream,
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
