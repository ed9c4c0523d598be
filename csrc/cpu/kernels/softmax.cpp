// Each op is up to three passes over its lines: a maximum, a sum, and the result. Sums are of
// groups in the compute type, then in double, as in reduction.cpp.
#include "cpu/kernels/softmax.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

constexpr int kGroup = 8;
constexpr int64_t kWritten = 16384;  // elements of a line that stay in the second cache

// `term` is what is summed, given x, r and the line's maximum m; kStores: it is kept.
// `result` gives y from the term kept or x, r, and the finished line values (m, s). m - m makes a line NaN that has
// +inf or nothing but -inf, as inf - inf is NaN. NaN makes the sum NaN: whether the maximum is, then, is left to the instruction.
struct Forward {
  static constexpr bool has_maximum = true, kStores = true;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T>, Vec<T> m) { return exp_term(x - m); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s, Vec<T> m) { return 1 / (s + (m - m)); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> stored, Vec<T>, Vec<T>, Vec<T> s) { return stored * s; }
};
struct LogForward {
  static constexpr bool has_maximum = true, kStores = false;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T>, Vec<T> m) { return exp_term(x - m); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s, Vec<T> m) { return log(unscaled(s) + (m - m)); }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> x, Vec<T>, Vec<T> m, Vec<T> s) { return x - m - s; }
};
struct Backward {
  static constexpr bool has_maximum = false, kStores = false;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T> r, Vec<T>) { return x * r; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s, Vec<T>) { return s; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> x, Vec<T> r, Vec<T>, Vec<T> s) { return (x - s) * r; }
};
struct LogBackward {
  static constexpr bool has_maximum = false, kStores = false;
  template <class T>
  static TENSOROPS_INLINE Vec<T> term(Vec<T> x, Vec<T>, Vec<T>) { return x; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> finish_sum(Vec<T> s, Vec<T>) { return s; }
  template <class T>
  static TENSOROPS_INLINE Vec<T> result(Vec<T> x, Vec<T> r, Vec<T>, Vec<T> s) { return x - exp(r) * s; }
};
template <class R>
constexpr bool kReadsResult = __is_same(R, Backward) || __is_same(R, LogBackward);

// acc (Vec<T>::size doubles) += x
template <class T>
TENSOROPS_INLINE void add_wide(Vec<double>* acc, Vec<T> x) {
  if constexpr (__is_same(T, double)) {
    acc[0] = acc[0] + x;
  } else {
    const Halves halves = widen(x);
    acc[0] = acc[0] + halves.low, acc[1] = acc[1] + halves.high;
  }
}

// S is the dtype in memory.
template <class R, class T, class S>
TENSOROPS_INLINE void run_line(const S* x, [[maybe_unused]] const S* r, S* y, int64_t n, [[maybe_unused]] T* terms, bool streams,
                               const S* next) {
  using V = Vec<T>;
  constexpr int L = V::size, parts = L / Vec<double>::size;
  const int64_t full = n - n % L, tail = n - full;
  V m(0);
  if constexpr (R::has_maximum) {
    const T lowest = -__builtin_inf();
    V best[4] = {V(lowest), V(lowest), V(lowest), V(lowest)};
    int64_t i = 0;
    for (; i + 4 * L <= n; i += 4 * L)
      for (int k = 0; k < 4; ++k) best[k] = larger(best[k], load_vector<T>(x + i + k * L));
    for (; i < full; i += L) best[0] = larger(best[0], load_vector<T>(x + i));
    if (tail > 0) best[1] = larger(best[1], first_lanes(load_part<T>(x + full, tail), tail, lowest));
    m = fold_lanes(larger(larger(best[0], best[1]), larger(best[2], best[3])),
                   [](V a, V b) TENSOROPS_LAMBDA_INLINE { return larger(a, b); });
  }
  const auto read = [&](int64_t i, int64_t lanes) TENSOROPS_LAMBDA_INLINE {
    if constexpr (kReadsResult<R>) return load_lanes<T>(r + i, lanes);
    else return V(0);
  };
  const auto term = [&](int64_t i, int64_t lanes) TENSOROPS_LAMBDA_INLINE {
    const V t = R::term(load_lanes<T>(x + i, lanes), read(i, lanes), m);
    if constexpr (R::kStores) store_lanes(t, terms + i, lanes);
    return t;
  };
  Vec<double> acc[parts];
  for (int k = 0; k < parts; ++k) acc[k] = Vec<double>(0.0);
  int64_t i = 0;
  for (; i + kGroup * L <= n; i += kGroup * L) {
    // The result's lines are on their way by the time they are written.
    if (!streams && i < kWritten)
      for (int64_t line = 0; line < kGroup * L * int64_t(sizeof(S)); line += 64)
        __builtin_prefetch(reinterpret_cast<char*>(y + i) + line, 1);
    // Exponentials leave the memory idle.
    if (R::has_maximum && next != nullptr)
      for (int64_t line = 0; line < kGroup * L * int64_t(sizeof(S)); line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(next + i) + line, 0, 2);
    V t[kGroup / 2];
    for (int k = 0; k < kGroup / 2; ++k) t[k] = term(i + 2 * k * L, L) + term(i + (2 * k + 1) * L, L);
    add_wide(acc, (t[0] + t[1]) + (t[2] + t[3]));
  }
  V rest(0);
  for (; i + 2 * L <= full; i += 2 * L) rest = rest + (term(i, L) + term(i + L, L));
  if (i < full) rest = rest + term(i, L);
  if (tail > 0) rest = rest + first_lanes(term(full, tail), tail, T(0));
  add_wide(acc, rest);
  if constexpr (parts == 2) acc[0] = acc[0] + acc[1];
  const V s = R::finish_sum(V(T(sum_lanes(acc[0]))), m);
  const auto finish = [&](int64_t i, int64_t lanes) TENSOROPS_LAMBDA_INLINE {
    if constexpr (R::kStores) return R::result(load_lanes<T>(terms + i, lanes), read(i, lanes), m, s);
    else return R::result(load_lanes<T>(x + i, lanes), read(i, lanes), m, s);
  };
  i = 0;
  if (streams)
    for (; i < full; i += L) stream_vector(finish(i, L), y + i);
  for (; i < full; i += L) store_vector(finish(i, L), y + i);
  if (tail > 0) store_lanes(finish(full, tail), y + full, tail);
}

// While one line waits for its sum, the next is begun: short lines take what their instructions take.
template <class R, class T, class S = T>
void run(const SoftmaxLines& lines) {
  const auto [x, r, y, n, count, x_line, r_line, y_line, terms, streams, fetches] = lines;
  for (int64_t i = 0; i < count; ++i) {
    const char *const from = static_cast<const char*>(x) + i * x_line, *const results = static_cast<const char*>(r) + i * r_line;
    char* const to = static_cast<char*>(y) + i * y_line;
    const char* const next = fetches && i + 1 < count ? from + x_line : nullptr;
    run_line<R, T>(reinterpret_cast<const S*>(from), reinterpret_cast<const S*>(results), reinterpret_cast<S*>(to), n,
                   static_cast<T*>(terms != nullptr ? terms : to), streams, reinterpret_cast<const S*>(next));
  }
}

// acc * by, lane by lane.
template <class T>
TENSOROPS_INLINE void scale_wide(Vec<double>* acc, Vec<T> by) {
  if constexpr (__is_same(T, double)) {
    acc[0] = acc[0] * by;
  } else {
    const Halves halves = widen(by);
    acc[0] = acc[0] * halves.low, acc[1] = acc[1] * halves.high;
  }
}

// The terms below an infinite maximum are nothing, but a difference from it may be no number.
template <class T>
TENSOROPS_INLINE Vec<T> finite_maximum(Vec<T> m) {
  return maximum(m, Vec<T>(T(sizeof(T) == 4 ? -0x1.fffffep127 : -0x1.fffffffffffffp1023)));
}
// What sums of terms below the maximum `before` are multiplied by where it is `m`.
template <class T>
TENSOROPS_INLINE Vec<T> rescaled(Vec<T> before, Vec<T> m) {
  return unscaled(exp_term(finite_maximum(before) - finite_maximum(m)));
}

// f(column, lanes) for vectors of columns: all lanes of them, but perhaps the last.
template <class T, class F>
TENSOROPS_INLINE void across(int64_t columns, F f) {
  constexpr int L = Vec<T>::size;
  int64_t c = 0;
  for (; c + L <= columns; c += L) f(c, L);
  if (c < columns) f(c, columns - c);
}

// What is known of columns: in double the sums of their terms, their maxima, and their finished sums.
template <class R, class T>
struct ColumnStates {
  using V = Vec<T>;
  static constexpr int kWide = Vec<double>::size, kParts = V::size / kWide;
  double* sums;
  T *maxima, *finished;

  ColumnStates(double* scratch, int64_t columns)
      : sums(scratch), maxima(reinterpret_cast<T*>(scratch + columns)), finished(reinterpret_cast<T*>(scratch + 2 * columns)) {}

  void clear(int64_t columns) const {
    for (int64_t c = 0; c < columns; ++c) sums[c] = 0;
    if constexpr (R::has_maximum)
      for (int64_t c = 0; c < columns; ++c) maxima[c] = T(-__builtin_inf());
  }
  TENSOROPS_INLINE V maximum_of(int64_t c, int64_t n) const {
    if constexpr (R::has_maximum) return load_lanes<T>(maxima + c, n);
    else return V(0);
  }
  TENSOROPS_INLINE void load_sums(int64_t c, int64_t n, Vec<double>* to) const {
    for (int k = 0; k < kParts; ++k)
      to[k] = n > k * kWide ? load_lanes<double>(sums + c + k * kWide, n - k * kWide) : Vec<double>(0.0);
  }
  TENSOROPS_INLINE void store_sums(const Vec<double>* from, int64_t c, int64_t n) const {
    for (int k = 0; k < kParts; ++k)
      if (n > k * kWide) store_lanes(from[k], sums + c + k * kWide, n - k * kWide);
  }
  // Takes in what is known of other rows of the columns.
  void merge(const ColumnStates& other, int64_t columns) const {
    across<T>(columns, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      Vec<double> acc[kParts], more[kParts];
      load_sums(c, n, acc);
      other.load_sums(c, n, more);
      if constexpr (R::has_maximum) {
        const V before = maximum_of(c, n), others = other.maximum_of(c, n), m = larger(before, others);
        scale_wide(acc, rescaled(before, m));
        scale_wide(more, rescaled(others, m));
        store_lanes(m, maxima + c, n);
      }
      for (int k = 0; k < kParts; ++k) acc[k] = acc[k] + more[k];
      store_sums(acc, c, n);
    });
  }
  void finish(int64_t columns) const {
    for (int64_t c = 0; c < columns; ++c) finished[c] = static_cast<T>(sums[c]);
    across<T>(columns, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      store_lanes(R::finish_sum(load_lanes<T>(finished + c, n), maximum_of(c, n)), finished + c, n);
    });
  }
};

// Merges the states of blocks of rows in their order, into the first block's, and finishes them.
template <class R, class T>
void merge_columns(double* scratch, int64_t blocks, int64_t columns) {
  const ColumnStates<R, T> all(scratch, columns);
  for (int64_t block = 1; block < blocks; ++block)
    all.merge(ColumnStates<R, T>(scratch + block * kColumnState * columns, columns), columns);
  all.finish(columns);
}

// A sweep for the maxima, one for the sums, kGroup rows at a time, and one for the results. Of many rows whose terms are not kept
// the first two are one: of a group in registers the maximum is found and the terms are summed, and where it is a new one, what
// was summed before is scaled to it. What a sweep brings to the last-level cache the next finds there. S is the dtype in memory.
template <class R, class T, class S = T>
void columns(const SoftmaxColumns& given) {
  using V = Vec<T>;
  using States = ColumnStates<R, T>;
  constexpr int L = V::size;
  constexpr int64_t kFetched = 128 * 1024, kLines = kGroup * L * int64_t(sizeof(S)) / 64;
  const auto [from, x_stride, results, r_stride, to, y_stride, rows, width, scratch, terms_, streams, part] = given;
  const S* x = static_cast<const S*>(from);
  [[maybe_unused]] const S* r = static_cast<const S*>(results);
  S* y = static_cast<S*>(to);
  const States states(scratch, width);
  [[maybe_unused]] T* const terms = static_cast<T*>(terms_);
  const int64_t row_bytes = width * int64_t(sizeof(S));
  const bool fetches = rows * row_bytes >= kFetched;
  const auto read = [&](int64_t row, int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
    if constexpr (kReadsResult<R>) return load_lanes<T>(r + row * r_stride + c, n);
    else return V(0);
  };
  // work(first row, end row, column, lanes) for each group of rows and vector of columns.
  const auto sweep = [&](bool reads_results, auto work) TENSOROPS_LAMBDA_INLINE {
    for (int64_t row = 0; row < rows; row += kGroup) {
      const int64_t next = row + kGroup;
      if (next > rows) {
        across<T>(width, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE { work(row, rows, c, n); });
        return;
      }
      const bool ahead = fetches && next < rows;
      Ahead next_x(x + next * x_stride, x_stride * int64_t(sizeof(S)), row_bytes);
      [[maybe_unused]] Ahead next_r(r + next * r_stride, r_stride * int64_t(sizeof(S)), row_bytes);
      across<T>(width, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        if (ahead) next_x.step(kLines);
        if (ahead && reads_results) next_r.step(kLines);
        work(row, next, c, n);
      });
    }
  };
  const bool kept = R::kStores && terms != nullptr;
  const bool at_once = R::has_maximum && !kept && (rows > 2 * kGroup || part != SoftmaxPart::whole);
  // Adds up terms of rows that load(row) gives; `scale`, of what was summed before, may be null.
  const auto add_rows = [&](int64_t first, int64_t last, int64_t c, int64_t n, V m, const V* scale,
                            auto load) TENSOROPS_LAMBDA_INLINE {
    V sum(0);
    for (int64_t row = first; row < last; ++row) {
      const V term = R::term(load(row), read(row, c, n), m);
      if (kept) store_lanes(term, terms + row * width + c, n);
      sum = sum + term;
    }
    Vec<double> acc[States::kParts];
    states.load_sums(c, n, acc);
    if (scale != nullptr) scale_wide(acc, *scale);
    add_wide(acc, sum);
    states.store_sums(acc, c, n);
  };
  // The same with their maximum, which is the lines' so far.
  const auto add_rows_at_once = [&](int64_t first, int64_t last, int64_t c, int64_t n, auto load) TENSOROPS_LAMBDA_INLINE {
    const V before = states.maximum_of(c, n);
    V m = before;
    for (int64_t row = first; row < last; ++row) m = larger(m, load(row));
    V scale(1);
    if (any(m != before)) {
      store_lanes(m, states.maxima + c, n);
      scale = rescaled(before, m);
    }
    add_rows(first, last, c, n, finite_maximum(m), &scale, load);
  };
  if (part != SoftmaxPart::results) {
    states.clear(width);
    if (R::has_maximum && !at_once)
      sweep(false, [&](int64_t row, int64_t last, int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        V m = states.maximum_of(c, n);
        for (int64_t i = row; i < last; ++i) m = larger(m, load_lanes<T>(x + i * x_stride + c, n));
        store_lanes(m, states.maxima + c, n);
      });
    sweep(__is_same(R, Backward), [&](int64_t row, int64_t last, int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      const auto load = [&](int64_t i) TENSOROPS_LAMBDA_INLINE { return load_lanes<T>(x + i * x_stride + c, n); };
      if (!at_once) return add_rows(row, last, c, n, states.maximum_of(c, n), nullptr, load);
      if constexpr (R::has_maximum) {
        if (n < L || last - row < kGroup) return add_rows_at_once(row, last, c, n, load);
        V group[kGroup];
#pragma GCC unroll 8
        for (int k = 0; k < kGroup; ++k) group[k] = load_vector<T>(x + (row + k) * x_stride + c);
        add_rows_at_once(row, row + kGroup, c, L, [&](int64_t i) TENSOROPS_LAMBDA_INLINE { return group[i - row]; });
      }
    });
    if (part == SoftmaxPart::sums) return;
    states.finish(width);
  }
  // Row by row, so that streamed lines are written whole.
  for (int64_t row = 0; row < rows; ++row)
    across<T>(width, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      if (fetches && !kept && row + kGroup < rows) {
        __builtin_prefetch(x + (row + kGroup) * x_stride + c, 0, 2);
        if constexpr (kReadsResult<R>) __builtin_prefetch(r + (row + kGroup) * r_stride + c, 0, 2);
      }
      const V m = states.maximum_of(c, n), s = load_lanes<T>(states.finished + c, n), other = read(row, c, n);
      V value = kept ? load_lanes<T>(terms + row * width + c, n) : load_lanes<T>(x + row * x_stride + c, n);
      if (R::kStores && !kept) value = R::term(value, other, m);
      const V result = R::result(value, other, m, s);
      if (streams && n == L) stream_vector(result, y + row * y_stride + c);
      else store_lanes(result, y + row * y_stride + c, n);
    });
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
    {{merge_columns<Forward, float>, merge_columns<Forward, double>},
     {merge_columns<LogForward, float>, merge_columns<LogForward, double>},
     {merge_columns<Backward, float>, merge_columns<Backward, double>},
     {merge_columns<LogBackward, float>, merge_columns<LogBackward, double>}},
    {run<Forward, float, BFloat16>, run<LogForward, float, BFloat16>, run<Backward, float, BFloat16>,
     run<LogBackward, float, BFloat16>},
    {run<Forward, float, Half>, run<LogForward, float, Half>, run<Backward, float, Half>, run<LogBackward, float, Half>},
    {columns<Forward, float, BFloat16>, columns<LogForward, float, BFloat16>, columns<Backward, float, BFloat16>,
     columns<LogBackward, float, BFloat16>},
    {columns<Forward, float, Half>, columns<LogForward, float, Half>, columns<Backward, float, Half>,
     columns<LogBackward, float, Half>},
    end_stream,
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
