// Each op is up to three passes over data that the caller keeps in cache: a maximum, a sum, and the result. Sums are of
// groups in the compute type, then in double, as in reduction.cpp.
#include "cpu/kernels/softmax.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

constexpr int kGroup = 8;

// `term` is what is summed, given x, r and the line's maximum m; it may leave a value in y on the way (kStores).
// `result` gives y from what the second pass left or x, r, and the finished line values (m, s).
struct Forward {
  static constexpr bool has_maximum = true, kStores = true;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T>, Vec<T> m) { return exp(x - m); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s) { return 1 / s; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> stored, Vec<T>, Vec<T>, Vec<T> s) { return stored * s; }
};
struct LogForward {
  static constexpr bool has_maximum = true, kStores = false;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T>, Vec<T> m) { return exp(x - m); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s) { return log(s); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> x, Vec<T>, Vec<T> m, Vec<T> s) { return x - m - s; }
};
struct Backward {
  static constexpr bool has_maximum = false, kStores = false;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T> r, Vec<T>) { return x * r; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s) { return s; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> x, Vec<T> r, Vec<T>, Vec<T> s) { return (x - s) * r; }
};
struct LogBackward {
  static constexpr bool has_maximum = false, kStores = false;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T>, Vec<T>) { return x; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s) { return s; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> x, Vec<T> r, Vec<T>, Vec<T> s) { return x - exp(r) * s; }
};
template <class R>
constexpr bool kReadsResult = __is_same(R, Backward) || __is_same(R, LogBackward);

// The first n lanes of x, the rest `other`.
template <class T>
TENSOROPS_INLINE Vec<T> keep(Vec<T> x, int64_t n, T other) {
  T lanes[Vec<T>::size];
  x.store(lanes);
  for (int64_t i = n; i < Vec<T>::size; ++i) lanes[i] = other;
  return Vec<T>::load(lanes);
}
template <class T>
TENSOROPS_INLINE double total(Vec<T> x) {
  T lanes[Vec<T>::size];
  x.store(lanes);
  double sum = 0;
  for (int i = 0; i < Vec<T>::size; ++i) sum += lanes[i];
  return sum;
}

// acc (Vec<T>::size doubles) += x
template <class T>
TENSOROPS_INLINE void add_wide(Vec<double>* acc, Vec<T> x) {
  if constexpr (__is_same(T, double)) {
    acc[0] = acc[0] + x;
  } else {
    typedef T Half __attribute__((vector_size(kVectorBytes / 2)));
    Half halves[2];
    __builtin_memcpy(halves, &x.v, sizeof(x.v));
    for (int i = 0; i < 2; ++i)
      acc[i] = acc[i] + Vec<double>(__builtin_convertvector(halves[i], typename Native<double>::type));
  }
}

// S is the dtype in memory: T, or a shorter one where no pass reads what another stored.
template <class R, class T, class S = T>
void run(const void* from, const void* results, void* to, int64_t n) {
  static_assert(__is_same(S, T) || !R::kStores);
  using V = Vec<T>;
  constexpr int L = V::size, parts = L / Vec<double>::size;
  const S* x = static_cast<const S*>(from);
  [[maybe_unused]] const S* r = static_cast<const S*>(results);
  S* y = static_cast<S*>(to);
  const int64_t full = n - n % L, tail = n - full;
  V m(0);
  if constexpr (R::has_maximum) {
    const T lowest = -__builtin_inf();
    V best[4] = {V(lowest), V(lowest), V(lowest), V(lowest)};
    int64_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L)
      for (int k = 0; k < 4; ++k) best[k] = maximum(best[k], load_vector<T>(x + i + k * L));
    for (; i < full; i += L) best[0] = maximum(best[0], load_vector<T>(x + i));
    if (tail > 0) best[1] = maximum(best[1], keep(load_part<T>(x + full, tail), tail, lowest));
    T lanes[L];
    maximum(maximum(best[0], best[1]), maximum(best[2], best[3])).store(lanes);
    T largest = lanes[0];
    for (int i = 1; i < L; ++i) largest = !(lanes[i] <= largest) && largest == largest ? lanes[i] : largest;
    m = V(largest);
  }
  const auto read = [&](int64_t i, int64_t lanes) TENSOROPS_LAMBDA_INLINE {
    if constexpr (kReadsResult<R>) return load_lanes<T>(r + i, lanes);
    else return V(0);
  };
  const auto term = [&](int64_t i, int64_t lanes) TENSOROPS_LAMBDA_INLINE {
    const V t = R::term(load_lanes<T>(x + i, lanes), read(i, lanes), m);
    if constexpr (R::kStores) store_lanes(t, y + i, lanes);
    return t;
  };
  Vec<double> acc[parts];
  for (int k = 0; k < parts; ++k) acc[k] = Vec<double>(0.0);
  int64_t i = 0;
  for (; i + kGroup * L <= n; i += kGroup * L) {
    V t[kGroup / 2];
    for (int k = 0; k < kGroup / 2; ++k) t[k] = term(i + 2 * k * L, L) + term(i + (2 * k + 1) * L, L);
    add_wide(acc, (t[0] + t[1]) + (t[2] + t[3]));
  }
  for (; i < full; i += L) add_wide(acc, term(i, L));
  if (tail > 0) add_wide(acc, keep(term(full, tail), tail, T(0)));
  double sum = 0;
  for (int k = 0; k < parts; ++k) sum += total(acc[k]);
  const V s = R::finish_sum(V(T(sum)));
  const S* second = R::kStores ? y : x;
  const auto finish = [&](int64_t i, int64_t lanes) TENSOROPS_LAMBDA_INLINE {
    store_lanes(R::result(load_lanes<T>(second + i, lanes), read(i, lanes), m, s), y + i, lanes);
  };
  for (i = 0; i < full; i += L) finish(i, L);
  if (tail > 0) finish(full, tail);
}

// `scratch`: per column a maximum and a finished sum of type T, and a sum in double.
template <class R, class T>
void columns(const void* from, int64_t x_stride, const void* results, int64_t r_stride, void* to, int64_t y_stride,
             int64_t rows, int64_t width, double* scratch) {
  using V = Vec<T>;
  constexpr int L = V::size, parts = L / Vec<double>::size;
  const T* x = static_cast<const T*>(from);
  [[maybe_unused]] const T* r = static_cast<const T*>(results);
  T* y = static_cast<T*>(to);
  double* sums = scratch;
  T* maxima = reinterpret_cast<T*>(scratch + width);
  T* finished = reinterpret_cast<T*>(scratch + 2 * width);
  // Rows outermost: each is a contiguous stretch of memory.
  if constexpr (R::has_maximum) {
    for (int64_t c = 0; c < width; ++c) maxima[c] = T(-__builtin_inf());
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t c = 0; c < width; c += L) {
        const int64_t n = width - c;
        store_lanes(maximum(load_lanes<T>(maxima + c, n), load_lanes<T>(x + row * x_stride + c, n)), maxima + c, n);
      }
  }
  const auto maximum_of = [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
    if constexpr (R::has_maximum) return load_lanes<T>(maxima + c, n);
    else return V(0);
  };
  const auto read = [&](int64_t row, int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
    if constexpr (kReadsResult<R>) return load_lanes<T>(r + row * r_stride + c, n);
    else return V(0);
  };
  for (int64_t c = 0; c < width; ++c) sums[c] = 0;
  for (int64_t row = 0; row < rows; row += kGroup) {
    const int64_t last = row + kGroup < rows ? row + kGroup : rows;
    for (int64_t c = 0; c < width; c += L) {
      const int64_t n = width - c;
      const V m = maximum_of(c, n);
      V sum(0);
      for (int64_t i = row; i < last; ++i) {
        const V t = R::term(load_lanes<T>(x + i * x_stride + c, n), read(i, c, n), m);
        if constexpr (R::kStores) store_lanes(t, y + i * y_stride + c, n);
        sum = sum + t;
      }
      Vec<double> acc[parts];
      for (int k = 0; k < parts; ++k) {
        const int64_t left = n - k * Vec<double>::size;
        acc[k] = left > 0 ? load_lanes<double>(sums + c + k * Vec<double>::size, left) : Vec<double>(0.0);
      }
      add_wide(acc, sum);
      for (int k = 0; k < parts; ++k) {
        const int64_t left = n - k * Vec<double>::size;
        if (left > 0) store_lanes(acc[k], sums + c + k * Vec<double>::size, left);
      }
    }
  }
  for (int64_t c = 0; c < width; ++c) finished[c] = static_cast<T>(sums[c]);
  for (int64_t c = 0; c < width; c += L) {
    const int64_t n = width - c;
    store_lanes(R::finish_sum(load_lanes<T>(finished + c, n)), finished + c, n);
  }
  const T* second = R::kStores ? y : x;
  const int64_t second_stride = R::kStores ? y_stride : x_stride;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < width; c += L) {
      const int64_t n = width - c;
      store_lanes(R::result(load_lanes<T>(second + row * second_stride + c, n), read(row, c, n), maximum_of(c, n),
                            load_lanes<T>(finished + c, n)),
                  y + row * y_stride + c, n);
    }
}

}  // namespace

extern const SoftmaxKernels softmax_kernels;
const SoftmaxKernels softmax_kernels = {
    {{run<Forward, float>, run<Forward, double>},
     {run<LogForward, float>, run<LogForward, double>},
     {run<Backward, float>, run<Backward, double>},
     {run<LogBackward, float>, run<LogBackward, double>}},
    {{columns<Forward, float>, columns<Forward, double>},
     {columns<LogForward, float>, columns<LogForward, double>},
     {columns<Backward, float>, columns<Backward, double>},
     {columns<LogBackward, float>, columns<LogBackward, double>}},
    {nullptr, run<LogForward, float, BFloat16>, run<Backward, float, BFloat16>, run<LogBackward, float, BFloat16>},
    {nullptr, run<LogForward, float, Half>, run<Backward, float, Half>, run<LogBackward, float, Half>},
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
