#include "cpu/kernels/pooling.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// The integer that fits a lane of C: positions are compared and selected alongside values.
template <class C>
using Lane = typename MaskInt<C>::type;

template <class C>
TENSOROPS_INLINE Vec<Lane<C>> select_lane(Mask<C> m, Vec<Lane<C>> a, Vec<Lane<C>> b) {
  return Vec<Lane<C>>(m.bits ? a.v : b.v);
}

// What no element of storage type S is below.
template <class S, class C>
constexpr C lowest() {
  if constexpr (C(0.5) != C(0)) return -C(__builtin_inf());
  else if constexpr (S(-1) > S(0)) return 0;  // unsigned
  else return -C((uint64_t(1) << (8 * sizeof(S) - 1)) - 1) - 1;
}

// Calls f(load, load_lane, store) for vectors that cover [0, n). The last one may run over the end where there is room, or step
// back over outputs that are done; only a run shorter than a vector is loaded and stored by parts.
template <class C, class F>
TENSOROPS_INLINE void for_vectors(const PoolRun& run, F f) {
  constexpr int64_t size = Vec<C>::size;
  const auto whole = [&](int64_t i) TENSOROPS_LAMBDA_INLINE {
    f([&](const auto* p) TENSOROPS_LAMBDA_INLINE { return load_vector<C>(p + i); },
      [&](const auto* p) TENSOROPS_LAMBDA_INLINE { return load_vector<Lane<C>>(p + i); },
      [&](auto x, auto* p) TENSOROPS_LAMBDA_INLINE { store_vector(x, p + i); });
  };
  int64_t i = 0;
  for (; i + size <= run.n; i += size) whole(i);
  if (i == run.n) return;
  if (i + size <= run.room) return whole(i);
  if (run.n >= size) return whole(run.n - size);
  const int64_t n = run.n;
  f([&](const auto* p) TENSOROPS_LAMBDA_INLINE { return load_lanes<C>(p, n); },
    [&](const auto* p) TENSOROPS_LAMBDA_INLINE { return load_lanes<Lane<C>>(p, n); },
    [&](auto x, auto* p) TENSOROPS_LAMBDA_INLINE { store_lanes(x, p, n); });
}

struct NoPosition {};

template <class In, class Out, class C, class Position>
void max_run(const MaxPoolRun& run) {
  using V = Vec<C>;
  using L = Vec<Lane<C>>;
  const auto* taps = reinterpret_cast<const In* const*>(run.taps);
  for_vectors<C>(run, [&](auto load, auto load_lane, auto store) TENSOROPS_LAMBDA_INLINE {
    V best(lowest<Out, C>());
    if constexpr (__is_same(Position, NoPosition)) {
      for (int64_t t = 0; t < run.count; ++t) {
        const V x = load(taps[t]);
        best = select((x > best) | (x != x), x, best);
      }
      store(best, static_cast<Out*>(run.out));
    } else {
      L position = run.shared_first ? L(Lane<C>(*run.first)) : load_lane(run.first);
      for (int64_t t = 0; t < run.count; ++t) {
        const V x = load(taps[t]);
        const Mask<C> better = (x > best) | (x != x);
        best = select(better, x, best);
        position = select_lane<C>(better, L(Lane<C>(run.ids[t])), position);
      }
      store(best, static_cast<Out*>(run.out));
      store(position, static_cast<Position*>(run.position));
    }
  });
}

template <class In, class Out, class C>
void mean_run(const MeanPoolRun& run) {
  const auto* taps = reinterpret_cast<const In* const*>(run.taps);
  const auto* divisor = static_cast<const C*>(run.divisor);
  for_vectors<C>(run, [&](auto load, auto, auto store) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum(C(0));
    for (int64_t t = 0; t < run.count; ++t) sum = sum + load(taps[t]);
    const Vec<C> by = run.shared_divisor ? Vec<C>(*divisor) : load(divisor);
    // The lanes behind a partial run hold zeros, which integers must not divide by.
    if constexpr (is_floating<C>) sum = sum / by;
    else sum = map_lanes(sum, by, [](C a, C b) { return b == 0 ? C(0) : b == -1 ? C(0 - uint64_t(a)) : C(a / b); });
    store(sum, static_cast<Out*>(run.out));
  });
}

template <class S, class C, class Position>
void max_window(const PoolWindowRun& run) {
  C best = lowest<S, C>();
  int32_t position = run.first_id;
  for (int64_t r = 0; r < run.rows; ++r) {
    const S* row = static_cast<const S*>(run.first) + r * run.row_stride;
    for (int64_t c = 0; c < run.columns; ++c) {
      const C x = load_as<C>(row[c * run.column_stride]);
      if (!(x > best) && x == x) continue;
      best = x;
      position = static_cast<int32_t>(run.first_id + r * run.id_pitch + c);
    }
  }
  *static_cast<S*>(run.out) = StoreAs<S, C>::from(best);
  if constexpr (!__is_same(Position, NoPosition)) *static_cast<Position*>(run.position) = static_cast<Position>(position);
}

// Averages have no dilation: a row of the window is contiguous.
template <class S, class C>
void mean_window(const PoolWindowRun& run) {
  constexpr int64_t size = Vec<C>::size;
  const int64_t in_vectors = run.columns - run.columns % size;
  C sum = 0;
  if (in_vectors > 0) {
    Vec<C> lanes(C(0));
    for (int64_t r = 0; r < run.rows; ++r)
      for (int64_t c = 0; c < in_vectors; c += size)
        lanes = lanes + load_vector<C>(static_cast<const S*>(run.first) + r * run.row_stride + c);
    sum = sum_lanes(lanes);
  }
  for (int64_t r = 0; r < run.rows; ++r) {
    const S* row = static_cast<const S*>(run.first) + r * run.row_stride;
    for (int64_t c = in_vectors; c < run.columns; ++c) sum += load_as<C>(row[c]);
  }
  *static_cast<S*>(run.out) = StoreAs<S, C>::from(sum / *static_cast<const C*>(run.divisor));
}

template <class In, class Out, class C, class Position>
void max_backward_run(const MaxPoolBackwardRun& run) {
  const auto* taps = reinterpret_cast<const In* const*>(run.taps);
  const auto* positions = reinterpret_cast<const Position* const*>(run.positions);
  for_vectors<C>(run, [&](auto load, auto load_lane, auto store) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum(C(0));
    for (int64_t t = 0; t < run.count; ++t) {
      const auto mine = load_lane(positions[t]) == Vec<Lane<C>>(Lane<C>(run.ids[t]));
      sum = sum + select(Mask<C>{mine.bits}, load(taps[t]), Vec<C>(C(0)));
    }
    store(sum, static_cast<Out*>(run.out));
  });
}

template <class In, class Out, class C>
void mean_backward_run(const MeanPoolBackwardRun& run) {
  const auto* taps = reinterpret_cast<const In* const*>(run.taps);
  for_vectors<C>(run, [&](auto load, auto, auto store) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum(C(0));
    for (int64_t t = 0; t < run.count; ++t) sum = fma(load(taps[t]), Vec<C>(C(run.scales[t])), sum);
    store(sum, static_cast<Out*>(run.out));
  });
}

// The even lanes of a and b, and the two halves of a and b interleaved.
template <class C>
TENSOROPS_INLINE Vec<C> even_lanes(Vec<C> a, Vec<C> b) {
  typename Native<Lane<C>>::type from;
  for (int i = 0; i < Vec<C>::size; ++i) from[i] = 2 * i;
  return Vec<C>(__builtin_shuffle(a.v, b.v, from));
}
template <class C>
TENSOROPS_INLINE Vec<C> interleaved(Vec<C> a, Vec<C> b, int half) {
  constexpr int size = Vec<C>::size;
  typename Native<Lane<C>>::type from;
  for (int i = 0; i < size; ++i) from[i] = half * size / 2 + i / 2 + (i % 2) * size;
  return Vec<C>(__builtin_shuffle(a.v, b.v, from));
}

TENSOROPS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return a <= 0 ? 0 : (a + b - 1) / b; }
TENSOROPS_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

template <class S, class C>
void stage(const PoolStage& s) {
  constexpr int64_t size = Vec<C>::size;
  const S* row = static_cast<const S*>(s.row);
  const C fill = s.lowest ? lowest<S, C>() : C(0);
  for (int64_t r = 0; r < s.phases; ++r) {
    C* staged = static_cast<C*>(s.staged) + r * s.pitch;
    const int64_t begin = min(s.columns, ceil_div(s.padding - r, s.stride));
    const int64_t end = min(s.columns, ceil_div(s.width + s.padding - r, s.stride));
    const S* from = row + r - s.padding;  // column j is from[j * stride]
    const int64_t readable = s.readable - r + s.padding;
    int64_t j = begin;
    if (s.stride == 1) {
      for (; j < end && j + size <= readable; j += size) load_vector<C>(from + j).store(staged + j);
    } else if (s.stride == 2) {
      for (; j < end && 2 * (j + size) <= readable; j += size)
        even_lanes(load_vector<C>(from + 2 * j), load_vector<C>(from + 2 * j + size)).store(staged + j);
    }
    for (; j < end; ++j) staged[j] = load_as<C>(from[j * s.stride]);
    for (j = 0; j < begin; ++j) staged[j] = fill;
    for (j = end; j < s.columns; ++j) staged[j] = fill;
  }
}

template <class S, class C>
void unstage(const PoolUnstage& u) {
  constexpr int64_t size = Vec<C>::size;
  const C* staged = static_cast<const C*>(u.staged);
  S* out = static_cast<S*>(u.out);
  int64_t x = 0;
  if (u.stride == 1) {
    for (; x < u.width && x + size <= u.room; x += size) store_vector(Vec<C>::load(staged + u.padding + x), out + x);
  } else if (u.stride == 2) {
    const int64_t odd = u.padding % 2;  // the phase that out[0] is in
    const C* evens = staged + odd * u.pitch + u.padding / 2;
    const C* odds = staged + (1 - odd) * u.pitch + (u.padding + 1) / 2;
    for (; x < u.width && x + 2 * size <= u.room; x += 2 * size) {
      const Vec<C> a = Vec<C>::load(evens + x / 2), b = Vec<C>::load(odds + x / 2);
      store_vector(interleaved(a, b, 0), out + x);
      store_vector(interleaved(a, b, 1), out + x + size);
    }
  }
  for (int64_t j = (x + u.padding) / u.stride, r = (x + u.padding) % u.stride; x < u.width; ++x) {
    out[x] = StoreAs<S, C>::from(staged[r * u.pitch + j]);
    if (++r == u.stride) r = 0, ++j;
  }
}

template <class S, class C>
void scatter_add(const void* grad, const int64_t* index, int64_t n, int64_t channels, int64_t size, void* sums) {
  const S* g = static_cast<const S*>(grad);
  C* out = static_cast<C*>(sums);
  for (int64_t p = 0; p < n; ++p, g += channels, index += channels)
    for (int64_t c = 0; c < channels; ++c)
      if (uint64_t(index[c]) < uint64_t(size)) out[index[c] * channels + c] += load_as<C>(g[c]);
}

// Rows of the table, in the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define NUMBERS(K)                                                                                                  \
  {K(uint8_t, int32_t), K(int8_t, int32_t), K(int16_t, int32_t), K(int32_t, int32_t), K(int64_t, int64_t),          \
   K(Half, float), K(float, float), K(double, double), nullptr, K(BFloat16, float)}
#define FLOATS(K) \
  {nullptr, nullptr, nullptr, nullptr, nullptr, K(Half, float), K(float, float), K(double, double), nullptr, K(BFloat16, float)}
#define FLOATS_AND_INT64(K)                                                                                     \
  {nullptr, nullptr, nullptr, nullptr, K(int64_t, int64_t), K(Half, float), K(float, float), K(double, double), \
   nullptr, K(BFloat16, float)}
#define NONE(S, C) nullptr
#define MAX_STAGED(S, C) max_run<C, S, C, NoPosition>
#define MAX_STAGED_U8(S, C) max_run<C, S, C, uint8_t>
#define MAX_STAGED_I32(S, C) max_run<C, S, C, int32_t>
#define MAX_DIRECT(S, C) max_run<S, S, C, NoPosition>
#define MAX_DIRECT_U8(S, C) max_run<S, S, C, uint8_t>
#define MAX_DIRECT_I32(S, C) max_run<S, S, C, int32_t>
#define MEAN_STAGED(S, C) mean_run<C, S, C>
#define MEAN_DIRECT(S, C) mean_run<S, S, C>
#define MAX_WINDOW(S, C) max_window<S, C, NoPosition>
#define MAX_WINDOW_U8(S, C) max_window<S, C, uint8_t>
#define MAX_WINDOW_I32(S, C) max_window<S, C, int32_t>
#define MEAN_WINDOW(S, C) mean_window<S, C>
#define MAX_BACKWARD_STAGED_U8(S, C) max_backward_run<C, C, C, uint8_t>
#define MAX_BACKWARD_STAGED_I32(S, C) max_backward_run<C, C, C, int32_t>
#define MAX_BACKWARD_DIRECT_U8(S, C) max_backward_run<S, S, C, uint8_t>
#define MAX_BACKWARD_DIRECT_I32(S, C) max_backward_run<S, S, C, int32_t>
#define MEAN_BACKWARD_STAGED(S, C) mean_backward_run<C, C, C>
#define MEAN_BACKWARD_DIRECT(S, C) mean_backward_run<S, S, C>
#define STAGE(S, C) stage<S, C>
#define UNSTAGE(S, C) unstage<S, C>
#define SCATTER_ADD(S, C) scatter_add<S, C>

}  // namespace

extern const PoolingKernels pooling_kernels;
const PoolingKernels pooling_kernels = {
    {{NUMBERS(MAX_STAGED), NUMBERS(MAX_STAGED_U8), NUMBERS(MAX_STAGED_I32)},
     {NUMBERS(MAX_DIRECT), NUMBERS(MAX_DIRECT_U8), NUMBERS(MAX_DIRECT_I32)}},
    {FLOATS_AND_INT64(MEAN_STAGED), FLOATS_AND_INT64(MEAN_DIRECT)},
    {NUMBERS(MAX_WINDOW), NUMBERS(MAX_WINDOW_U8), NUMBERS(MAX_WINDOW_I32)},
    FLOATS_AND_INT64(MEAN_WINDOW),
    {{FLOATS(NONE), FLOATS(MAX_BACKWARD_STAGED_U8), FLOATS(MAX_BACKWARD_STAGED_I32)},
     {FLOATS(NONE), FLOATS(MAX_BACKWARD_DIRECT_U8), FLOATS(MAX_BACKWARD_DIRECT_I32)}},
    {FLOATS(MEAN_BACKWARD_STAGED), FLOATS(MEAN_BACKWARD_DIRECT)},
    NUMBERS(STAGE),
    FLOATS(UNSTAGE),
    FLOATS(SCATTER_ADD),
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
