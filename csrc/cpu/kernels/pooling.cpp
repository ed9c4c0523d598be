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

// Positions as lanes, and back. GCC makes scalar code of these conversions but for AVX-512.
template <class L, class Position>
TENSOROPS_INLINE Vec<L> load_positions(const Position* p) {
#if defined(__SSE4_1__)
  if constexpr (sizeof(L) == 4 && sizeof(Position) == 1) {
    using V = typename Native<L>::type;
#if defined(__AVX512F__)
    return Vec<L>((V)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    return Vec<L>((V)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
    return Vec<L>((V)_mm_cvtepu8_epi32(_mm_loadu_si32(p)));
#endif
  }
  if constexpr (sizeof(L) == 8 && sizeof(Position) == 1) {
    using V = typename Native<L>::type;
#if defined(__AVX512F__)
    return Vec<L>((V)_mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    return Vec<L>((V)_mm256_cvtepu8_epi64(_mm_loadu_si32(p)));
#else
    return Vec<L>((V)_mm_cvtepu8_epi64(_mm_loadu_si16(p)));
#endif
  }
#endif
  return load_vector<L>(p);
}
template <class Position, class L>
TENSOROPS_INLINE void store_positions(Vec<L> x, Position* p) {
#if defined(__SSE4_1__) && !defined(__AVX512F__)
  if constexpr (sizeof(L) == 4 && sizeof(Position) == 1) {
#if defined(__AVX2__)
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)x.v), _mm256_extracti128_si256((__m256i)x.v, 1));
    return _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
#else
    const __m128i words = _mm_packus_epi32((__m128i)x.v, (__m128i)x.v);
    return _mm_storeu_si32(p, _mm_packus_epi16(words, words));
#endif
  }
#endif
  store_vector(x, p);
}

// Vectors of a run: where the first one's outputs are in their row, in the taps and in the results; the u-th follows it.
template <class C>
struct Whole {
  int64_t column, in_taps, in_results;

  template <class S>
  TENSOROPS_INLINE Vec<C> tap(const void* p, int u) const {
    return load_vector<C>(static_cast<const S*>(p) + in_taps + u * Vec<C>::size);
  }
  template <class Position>
  TENSOROPS_INLINE Vec<Lane<C>> tap_position(const void* p, int u) const {
    return load_positions<Lane<C>>(static_cast<const Position*>(p) + in_taps + u * Vec<C>::size);
  }
  TENSOROPS_INLINE Vec<C> divisor(const C* p, int u) const { return load_vector<C>(p + column + u * Vec<C>::size); }
  TENSOROPS_INLINE Vec<Lane<C>> first(const int32_t* p, int u) const {
    return load_vector<Lane<C>>(p + column + u * Vec<C>::size);
  }
  template <class S>
  TENSOROPS_INLINE void store(Vec<C> x, void* p, int u) const {
    store_vector(x, static_cast<S*>(p) + in_results + u * Vec<C>::size);
  }
  template <class Position>
  TENSOROPS_INLINE void store_position(Vec<Lane<C>> x, void* p, int u) const {
    store_positions(x, static_cast<Position*>(p) + in_results + u * Vec<C>::size);
  }
};
// The same for n < Vec<C>::size outputs.
template <class C>
struct Part {
  int64_t n, in_taps, in_results;

  template <class S>
  TENSOROPS_INLINE Vec<C> tap(const void* p, int) const { return load_lanes<C>(static_cast<const S*>(p) + in_taps, n); }
  template <class Position>
  TENSOROPS_INLINE Vec<Lane<C>> tap_position(const void* p, int) const {
    return load_lanes<Lane<C>>(static_cast<const Position*>(p) + in_taps, n);
  }
  TENSOROPS_INLINE Vec<C> divisor(const C* p, int) const { return load_lanes<C>(p, n); }
  TENSOROPS_INLINE Vec<Lane<C>> first(const int32_t* p, int) const { return load_lanes<Lane<C>>(p, n); }
  template <class S>
  TENSOROPS_INLINE void store(Vec<C> x, void* p, int) const { store_lanes(x, static_cast<S*>(p) + in_results, n); }
  template <class Position>
  TENSOROPS_INLINE void store_position(Vec<Lane<C>> x, void* p, int) const {
    store_lanes(x, static_cast<Position*>(p) + in_results, n);
  }
};

// Calls f<N>(vectors) for N vectors at a time that cover a run: what is read of a tap serves all of them. A row's last one may
// run over the end where there is room, or step back over outputs that are done; only a row shorter than a vector is loaded
// and stored by parts.
template <class C, class F>
TENSOROPS_INLINE void for_vectors(const PoolRun& run, F f) {
  constexpr int64_t size = Vec<C>::size;
  for (int64_t row = 0; row < run.rows; ++row) {
    const int64_t in_taps = row * run.tap_step, in_results = row * run.out_step;
    int64_t i = 0;
    for (; i + 4 * size <= run.n; i += 4 * size) f.template operator()<4>(Whole<C>{i, in_taps + i, in_results + i});
    for (; i + size <= run.n; i += size) f.template operator()<1>(Whole<C>{i, in_taps + i, in_results + i});
    if (i == run.n) continue;
    if (run.n < size && i + size > run.room) {
      f.template operator()<1>(Part<C>{run.n, in_taps, in_results});
      continue;
    }
    if (i + size > run.room) i = run.n - size;
    f.template operator()<1>(Whole<C>{i, in_taps + i, in_results + i});
  }
}

struct NoPosition {};

template <class In, class Out, class C, class Position>
void max_run(const MaxPoolRun& run) {
  constexpr bool places = !__is_same(Position, NoPosition);
  using L = Vec<Lane<C>>;
  for_vectors<C>(run, [&]<int N>(auto at) TENSOROPS_LAMBDA_INLINE {
    Vec<C> best[N];
    L position[N];
    for (int u = 0; u < N; ++u) {
      best[u] = lowest<Out, C>();
      if constexpr (places) position[u] = run.shared_first ? L(Lane<C>(*run.first)) : at.first(run.first, u);
    }
    for (int64_t t = 0; t < run.count; ++t) {
      const void* const tap = run.taps[t];
      const L id(Lane<C>(run.ids[t]));
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) {
        const Vec<C> x = at.template tap<In>(tap, u);
        const Mask<C> better = (x > best[u]) | (x != x);
        best[u] = select(better, x, best[u]);
        if constexpr (places) position[u] = select_lane<C>(better, id, position[u]);
      }
    }
    for (int u = 0; u < N; ++u) {
      at.template store<Out>(best[u], run.out, u);
      if constexpr (places) at.template store_position<Position>(position[u], run.position, u);
    }
  });
}

// The lanes behind a partial run hold zeros, which integers must not divide by.
template <class C>
TENSOROPS_INLINE Vec<C> divided(Vec<C> sum, Vec<C> by) {
  if constexpr (is_floating<C>) return sum / by;
  else return map_lanes(sum, by, [](C a, C b) { return b == 0 ? C(0) : b == -1 ? C(0 - uint64_t(a)) : C(a / b); });
}

template <class In, class Out, class C>
void mean_run(const MeanPoolRun& run) {
  const auto* divisor = static_cast<const C*>(run.divisor);
  for_vectors<C>(run, [&]<int N>(auto at) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum[N];
    for (auto& x : sum) x = C(0);
    for (int64_t t = 0; t < run.count; ++t) {
      const void* const tap = run.taps[t];
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sum[u] = sum[u] + at.template tap<In>(tap, u);
    }
    for (int u = 0; u < N; ++u) {
      const Vec<C> by = run.shared_divisor ? Vec<C>(*divisor) : at.divisor(divisor, u);
      at.template store<Out>(divided(sum[u], by), run.out, u);
    }
  });
}

TENSOROPS_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
TENSOROPS_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

template <class S, class C, class Position>
TENSOROPS_INLINE void max_window(const PoolWindowRun& run, int64_t output) {
  const S* const first = static_cast<const S*>(run.first) + output * run.apart;
  const auto finish = [&](C best, int64_t position) TENSOROPS_LAMBDA_INLINE {
    static_cast<S*>(run.out)[output] = StoreAs<S, C>::from(best);
    if constexpr (!__is_same(Position, NoPosition)) static_cast<Position*>(run.position)[output] = static_cast<Position>(position);
  };
  C best = lowest<S, C>();
  int32_t position = run.first_id;
  constexpr int64_t size = Vec<C>::size;
  const int64_t count = run.rows * run.columns;
  const bool dense = run.column_stride == 1 && (run.rows == 1 || (run.row_stride == run.columns && run.id_pitch == run.columns));
  if (dense && count >= 2 * size) {
    // Lane by lane; of the lanes' maxima the first of equals, and the last NaN.
    Vec<C> top(best);
    Vec<Lane<C>> where(Lane<C>(0));
    const auto take = [&](int64_t i) TENSOROPS_LAMBDA_INLINE {
      const Vec<C> v = load_vector<C>(first + i);
      const Mask<C> better = (v > top) | (v != v);
      top = select(better, v, top);
      where = select_lane<C>(better, Vec<Lane<C>>(Lane<C>(i)), where);
    };
    int64_t i = 0;
    for (; i + size <= count; i += size) take(i);
    C tops[size];
    Lane<C> wheres[size];
    top.store(tops);
    where.store(wheres);
    int64_t at = 0;
    for (int64_t lane = 0; lane < size; ++lane) {
      const int64_t index = wheres[lane] + lane;
      const C v = tops[lane];
      const bool wins = v != v ? best == best || index > at : v > best || (v == best && index < at);
      if (lane > 0 && !wins) continue;
      best = v;
      at = index;
    }
    for (; i < count; ++i) {
      const C v = load_as<C>(first[i]);
      if (!(v > best) && v == v) continue;
      best = v;
      at = i;
    }
    return finish(best, run.first_id + at);
  }
  for (int64_t r = 0; r < run.rows; ++r) {
    const S* row = first + r * run.row_stride;
    for (int64_t c = 0; c < run.columns; ++c) {
      const C x = load_as<C>(row[c * run.column_stride]);
      if (!(x > best) && x == x) continue;
      best = x;
      position = static_cast<int32_t>(run.first_id + r * run.id_pitch + c);
    }
  }
  finish(best, position);
}
template <class S, class C, class Position>
void max_window(const PoolWindowRun& run) {
  for (int64_t i = 0; i < run.outputs; ++i) max_window<S, C, Position>(run, i);
}

// Averages have no dilation: a row of the window is contiguous.
template <class S, class C>
void mean_window(const PoolWindowRun& run) {
  constexpr int64_t size = Vec<C>::size;
  const int64_t in_vectors = run.columns - run.columns % size;
  const S* first = static_cast<const S*>(run.first);
  for (int64_t i = 0; i < run.outputs; ++i, first += run.apart) {
    C sum = 0;
    if (in_vectors > 0) {
      Vec<C> lanes(C(0));
      for (int64_t r = 0; r < run.rows; ++r)
        for (int64_t c = 0; c < in_vectors; c += size) lanes = lanes + load_vector<C>(first + r * run.row_stride + c);
      sum = sum_lanes(lanes);
    }
    for (int64_t r = 0; r < run.rows; ++r)
      for (int64_t c = in_vectors; c < run.columns; ++c) sum += load_as<C>(first[r * run.row_stride + c]);
    static_cast<S*>(run.out)[i] = StoreAs<S, C>::from(sum / *static_cast<const C*>(run.divisor));
  }
}

// The even (0) or odd (1) lanes of a and b, in an order that costs an instruction less than theirs, and back from that order. Two
// operands across the halves of a register are one instruction with AVX-512 alone.
#if defined(__AVX512F__)
constexpr int kUnitBytes = kVectorBytes;
#else
constexpr int kUnitBytes = 16;
#endif
template <class C>
TENSOROPS_INLINE Vec<C> alternate_unordered(Vec<C> a, Vec<C> b, int first) {
  constexpr int size = Vec<C>::size, unit = kUnitBytes / sizeof(C), half = unit / 2;
  typename Native<Lane<C>>::type from;
  for (int i = 0; i < size; ++i) {
    const int k = i % unit;
    from[i] = i - k + (k < half ? 2 * k : size + 2 * (k - half)) + first;
  }
  return Vec<C>(__builtin_shuffle(a.v, b.v, from));
}
template <class C>
TENSOROPS_INLINE Vec<C> in_order(Vec<C> x) {
  constexpr int size = Vec<C>::size, unit = kUnitBytes / sizeof(C), half = unit / 2;
  if constexpr (unit == size) return x;
  typename Native<Lane<C>>::type from;
  for (int i = 0; i < size; ++i) {
    const int k = i % (size / 2);
    from[i] = k / half * unit + k % half + (i < size / 2 ? 0 : half);
  }
  return Vec<C>(__builtin_shuffle(x.v, from));
}
// The two halves of a and b interleaved.
template <class C>
TENSOROPS_INLINE Vec<C> interleaved(Vec<C> a, Vec<C> b, int half) {
  constexpr int size = Vec<C>::size;
  typename Native<Lane<C>>::type from;
  for (int i = 0; i < size; ++i) from[i] = half * size / 2 + i / 2 + (i % 2) * size;
  return Vec<C>(__builtin_shuffle(a.v, b.v, from));
}

// Calls start(), take(vector, position) for what the positions of windows show to a vector of outputs, and finish(to) with where
// these are in the results; returns how many outputs are done. `Columns` of a window, neighbours, or 0: any. With a step of 2 the
// lanes are in the order of alternate_unordered.
template <class S, class C, int Step, int Columns, class Start, class Take, class Finish>
TENSOROPS_INLINE int64_t slide(const PoolSlideRun& run, Start start, Take take, Finish finish) {
  constexpr int64_t size = Vec<C>::size;
  const int64_t columns = Columns > 0 ? Columns : run.columns, apart = Columns > 0 ? 1 : run.column_stride;
  const int64_t reach = (run.rows - 1) * run.row_stride + (columns - 1) * apart + Step * size;
  const int64_t whole = min((run.readable - reach) >> (Step - 1), run.room - size);
  const auto vector = [&](int64_t j) TENSOROPS_LAMBDA_INLINE {
    const S* x = static_cast<const S*>(run.first) + Step * j;
    start();
    for (int64_t r = 0; r < run.rows; ++r, x += run.row_stride) {
      const int64_t id = run.first_id + r * run.id_pitch;
      int64_t c = 0;
      if constexpr (Step == 2) {
        if (apart == 1)
#pragma GCC unroll 4
          for (; c + 1 < columns; c += 2) {
            const Vec<C> a = load_vector<C>(x + c), b = load_vector<C>(x + c + size);
            take(alternate_unordered(a, b, 0), id + c);
            take(alternate_unordered(a, b, 1), id + c + 1);
          }
#pragma GCC unroll 4
        for (; c < columns; ++c)
          take(alternate_unordered(load_vector<C>(x + c * apart), load_vector<C>(x + c * apart + size), 0), id + c);
      } else {
#pragma GCC unroll 4
        for (; c < columns; ++c) take(load_vector<C>(x + c * apart), id + c);
      }
    }
    finish(j);
  };
  int64_t j = 0;
  for (; j < run.n && j <= whole; j += size) vector(j);
  // The last vector may run over the end where there is room, or step back over outputs that are done.
  if (j < run.n && run.n >= size && run.n - size <= whole) vector(run.n - size), j = run.n;
  return min(j, run.n);
}
// The usual window of three columns by itself.
template <class S, class C, class F>
TENSOROPS_INLINE int64_t for_slides(const PoolSlideRun& run, F f) {
  if constexpr (is_floating<C>) {
    if (run.columns == 3 && run.column_stride == 1)
      return run.step == 2 ? f.template operator()<2, 3>() : f.template operator()<1, 3>();
  }
  return run.step == 2 ? f.template operator()<2, 0>() : f.template operator()<1, 0>();
}

template <class S, class C, class Position>
int64_t max_slide(const PoolSlideRun& run) {
  constexpr bool places = !__is_same(Position, NoPosition);
  using L = Vec<Lane<C>>;
  return for_slides<S, C>(run, [&]<int Step, int Columns>() TENSOROPS_LAMBDA_INLINE {
    Vec<C> best;
    L position;
    return slide<S, C, Step, Columns>(run, [&]() TENSOROPS_LAMBDA_INLINE {
      best = lowest<S, C>();
      position = L(Lane<C>(run.first_id));
    }, [&](Vec<C> x, int64_t id) TENSOROPS_LAMBDA_INLINE {
      const Mask<C> better = (x > best) | (x != x);
      best = select(better, x, best);
      if constexpr (places) position = select_lane<C>(better, L(Lane<C>(id)), position);
    }, [&](int64_t j) TENSOROPS_LAMBDA_INLINE {
      store_vector(Step == 2 ? in_order(best) : best, static_cast<S*>(run.out) + j);
      if constexpr (places) store_positions(Step == 2 ? in_order(position) : position, static_cast<Position*>(run.position) + j);
    });
  });
}

template <class S, class C>
int64_t mean_slide(const PoolSlideRun& run) {
  const C divisor = *static_cast<const C*>(run.divisor);
  return for_slides<S, C>(run, [&]<int Step, int Columns>() TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum;
    return slide<S, C, Step, Columns>(run, [&]() TENSOROPS_LAMBDA_INLINE {
      sum = C(0);
    }, [&](Vec<C> x, int64_t) TENSOROPS_LAMBDA_INLINE {
      sum = sum + x;
    }, [&](int64_t j) TENSOROPS_LAMBDA_INLINE {
      store_vector(divided(Step == 2 ? in_order(sum) : sum, Vec<C>(divisor)), static_cast<S*>(run.out) + j);
    });
  });
}

template <class S, class C, class Position>
void max_backward_run(const MaxPoolBackwardRun& run) {
  for_vectors<C>(run, [&]<int N>(auto at) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum[N];
    for (auto& x : sum) x = C(0);
    for (int64_t t = 0; t < run.count; ++t) {
      const void *const tap = run.taps[t], *const positions = run.positions[t];
      const Vec<Lane<C>> id(Lane<C>(run.ids[t]));
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) {
        const Mask<C> mine{(at.template tap_position<Position>(positions, u) == id).bits};
        sum[u] = sum[u] + select(mine, at.template tap<S>(tap, u), Vec<C>(C(0)));
      }
    }
    for (int u = 0; u < N; ++u) at.template store<S>(sum[u], run.out, u);
  });
}

template <class S, class C>
void mean_backward_run(const MeanPoolBackwardRun& run) {
  for_vectors<C>(run, [&]<int N>(auto at) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum[N];
    for (auto& x : sum) x = C(0);
    for (int64_t t = 0; t < run.count; ++t) {
      const void* const tap = run.taps[t];
      const Vec<C> scale(static_cast<C>(run.scales[t]));
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sum[u] = fma(at.template tap<S>(tap, u), scale, sum[u]);
    }
    for (int u = 0; u < N; ++u) at.template store<S>(sum[u], run.out, u);
  });
}

template <class T>
TENSOROPS_INLINE void fill_zeros(T* p, int64_t n) {
  __builtin_memset(p, 0, n * sizeof(T));
}

// Sum is C, or S where no two gradients meet.
template <class S, class Sum, class C, class Position>
void max_scatter(const MaxPoolScatter& s) {
  const auto positions = static_cast<uint32_t>(s.positions);
  const S* g = static_cast<const S*>(s.gradient);
  const auto* position = static_cast<const Position*>(s.position);
  Sum* sums = static_cast<Sum*>(s.sums);
  const int64_t area = s.height * s.width, row_size = s.out_width * s.pitch;
  const auto give = [](Sum& sum, S x) TENSOROPS_LAMBDA_INLINE {
    sum = StoreAs<Sum, C>::from(load_as<C>(sum) + load_as<C>(x));
  };
  // Windows [begin, end) of a row of them lie between the plane's left and right edge.
  int64_t begin = 0, end = s.out_width;
  while (begin < end && s.left + begin * s.column_step < 0) ++begin;
  while (end > begin && s.left + (end - 1) * s.column_step + s.span_width > s.width) --end;
  const auto add = [&](int64_t top, int64_t ow, bool check_row, bool check_column) TENSOROPS_LAMBDA_INLINE {
    const int64_t left = s.left + ow * s.column_step, window = (top * s.width + left) * s.pitch;
    for (int64_t c = 0, i = ow * s.pitch; c < s.channels; ++c, ++i) {
      const auto k = static_cast<uint32_t>(position[i]);
      if (k >= positions) continue;
      if (check_row && static_cast<uint64_t>(top + s.row[k]) >= static_cast<uint64_t>(s.height)) continue;
      if (check_column && static_cast<uint64_t>(left + s.column[k]) >= static_cast<uint64_t>(s.width)) continue;
      give(sums[window + s.offset[k] + c], g[i]);
    }
  };
  for (int64_t plane = 0; plane < s.planes; ++plane, sums += area * s.pitch) {
    if (s.channels == s.pitch) fill_zeros(sums, area * s.pitch);
    else
      for (int64_t i = 0; i < area; ++i) fill_zeros(sums + i * s.pitch, s.channels);
    for (int64_t oh = 0; oh < s.out_height; ++oh, g += row_size, position += row_size) {
      const int64_t top = s.top + oh * s.row_step;
      if (top < 0 || top + s.span_height > s.height) {
        for (int64_t ow = 0; ow < s.out_width; ++ow) add(top, ow, true, true);
        continue;
      }
      for (int64_t ow = 0; ow < begin; ++ow) add(top, ow, false, true);
      if (s.pitch == 1) {
        Sum* window = sums + top * s.width + s.left + begin * s.column_step;
#pragma GCC unroll 4
        for (int64_t ow = begin; ow < end; ++ow, window += s.column_step) {
          const auto k = static_cast<uint32_t>(position[ow]);
          if (k < positions) give(window[s.offset[k]], g[ow]);
        }
      } else {
        for (int64_t ow = begin; ow < end; ++ow) add(top, ow, false, false);
      }
      for (int64_t ow = end; ow < s.out_width; ++ow) add(top, ow, false, true);
    }
  }
}

template <class S, class C>
void mean_scatter(const MeanPoolScatter& s) {
  const S* g = static_cast<const S*>(s.gradient);
  const C* divisor = static_cast<const C*>(s.divisor);
  C* sums = static_cast<C*>(s.sums);
  const int64_t area = s.height * s.width;
  const auto add = [&](C* p, int64_t n, C share) TENSOROPS_LAMBDA_INLINE {
    int64_t i = 0;
    for (; i + Vec<C>::size <= n; i += Vec<C>::size) (Vec<C>::load(p + i) + Vec<C>(share)).store(p + i);
    if (i < n) store_part(load_part<C>(p + i, n - i) + Vec<C>(share), p + i, n - i);
  };
  // One window that is the whole plane.
  const bool whole = s.out_height == 1 && s.out_width == 1 && s.top <= 0 && s.top + s.span_height >= s.height && s.left <= 0 &&
                     s.left + s.span_width >= s.width;
  if (whole && area >= Vec<C>::size) {
    for (int64_t plane = 0; plane < s.planes; ++plane, sums += area, ++g) {
      const Vec<C> share(load_as<C>(*g) / *divisor);
      for (int64_t i = 0; i + Vec<C>::size <= area; i += Vec<C>::size) share.store(sums + i);
      share.store(sums + area - Vec<C>::size);
    }
    return;
  }
  for (int64_t plane = 0; plane < s.planes; ++plane, sums += area) {
    fill_zeros(sums, area);
    for (int64_t oh = 0, i = 0; oh < s.out_height; ++oh) {
      const int64_t origin = s.top + oh * s.row_step, top = max(origin, 0), rows = min(origin + s.span_height, s.height) - top;
      for (int64_t ow = 0; ow < s.out_width; ++ow, ++i, ++g) {
        const C share = load_as<C>(*g) / divisor[i];
        const int64_t begin = s.left + ow * s.column_step, left = max(begin, 0), n = min(begin + s.span_width, s.width) - left;
        if (n <= 0) continue;
        C* window = sums + top * s.width + left;
        if (n == s.width && rows > 0) add(window, rows * n, share);
        else
          for (int64_t y = 0; y < rows; ++y) add(window + y * s.width, n, share);
      }
    }
  }
}

// Calls f(row, j) for the vectors of results from column j of a row on that may be read and written whole, and rest(row, j)
// for the other results.
template <class C, class F, class G>
TENSOROPS_INLINE void for_tiles(const PoolTiles& t, F f, G rest) {
  constexpr int64_t size = Vec<C>::size;
  for (int64_t row = 0; row < t.out_height; ++row) {
    const int64_t last = row * t.rows + t.rows - 1;  // row of the plane
    const int64_t whole = min((t.readable - last * t.width) / 2, t.room - row * t.out_width) - size;
    int64_t j = 0;
    for (; j < t.out_width && j <= whole; j += size) f(row, j);
    for (; j < t.out_width; ++j) rest(row, j);
  }
}

template <class S, class C, class Position>
void max_tiles(const PoolTiles& t) {
  constexpr bool places = !__is_same(Position, NoPosition);
  constexpr int64_t size = Vec<C>::size;
  using L = Vec<Lane<C>>;
  const S* in = static_cast<const S*>(t.in);
  S* out = static_cast<S*>(t.out);
  for_tiles<C>(t, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    const S* x = in + row * t.rows * t.width + 2 * j;
    Vec<C> best(lowest<S, C>());
    L position(Lane<C>(0));
    const auto take = [&](Vec<C> v, int64_t k) TENSOROPS_LAMBDA_INLINE {
      const Mask<C> better = (v > best) | (v != v);
      best = select(better, v, best);
      if constexpr (places) position = select_lane<C>(better, L(Lane<C>(k)), position);
    };
    for (int64_t r = 0; r < t.rows; ++r, x += t.width) {
      const Vec<C> a = load_vector<C>(x), b = load_vector<C>(x + size);
      take(alternate_unordered(a, b, 0), 2 * r);
      take(alternate_unordered(a, b, 1), 2 * r + 1);
    }
    store_vector(in_order(best), out + row * t.out_width + j);
    if constexpr (places) store_positions(in_order(position), static_cast<Position*>(t.position) + row * t.out_width + j);
  }, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    C best = lowest<S, C>();
    int64_t position = 0;
    for (int64_t k = 0; k < 2 * t.rows; ++k) {
      const C v = load_as<C>(in[(row * t.rows + (k >> 1)) * t.width + 2 * j + (k & 1)]);
      if (!(v > best) && v == v) continue;
      best = v;
      position = k;
    }
    out[row * t.out_width + j] = StoreAs<S, C>::from(best);
    if constexpr (places) static_cast<Position*>(t.position)[row * t.out_width + j] = static_cast<Position>(position);
  });
}

template <class S, class C>
void mean_tiles(const PoolTiles& t) {
  constexpr int64_t size = Vec<C>::size;
  const S* in = static_cast<const S*>(t.in);
  S* out = static_cast<S*>(t.out);
  const C divisor = C(t.divisor);
  for_tiles<C>(t, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    const S* x = in + row * t.rows * t.width + 2 * j;
    Vec<C> sum(C(0));
    for (int64_t r = 0; r < t.rows; ++r, x += t.width) {
      const Vec<C> a = load_vector<C>(x), b = load_vector<C>(x + size);
      sum = sum + alternate_unordered(a, b, 0) + alternate_unordered(a, b, 1);
    }
    store_vector(divided(in_order(sum), Vec<C>(divisor)), out + row * t.out_width + j);
  }, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    C sum = 0;
    for (int64_t k = 0; k < 2 * t.rows; ++k) {
      const C v = load_as<C>(in[(row * t.rows + (k >> 1)) * t.width + 2 * j + (k & 1)]);
      if constexpr (is_floating<C>) sum += v;
      else sum = C(uint64_t(sum) + uint64_t(v));
    }
    if constexpr (is_floating<C>) sum /= divisor;
    else sum = divisor == -1 ? C(0 - uint64_t(sum)) : C(sum / divisor);
    out[row * t.out_width + j] = StoreAs<S, C>::from(sum);
  });
}

template <class S, class C, class Position>
void tiles_backward(const PoolTilesBackward& t) {
  constexpr int64_t size = Vec<C>::size;
  constexpr bool averages = __is_same(Position, NoPosition);
  const S* g = static_cast<const S*>(t.gradient);
  S* out = static_cast<S*>(t.out);
  const Vec<C> by(C(t.divisor));
  const int64_t rows = t.rows, width = t.width, windows = t.out_width;
  for (int64_t row = 0; row < t.out_height; ++row, g += windows, out += rows * width) {
    [[maybe_unused]] const Position* const position = [&] {
      if constexpr (averages) return nullptr;
      else return static_cast<const Position*>(t.position) + row * windows;
    }();
    // Where a row is shorter than a vector that one runs over its end: what it leaves there is written over.
    const int64_t room = t.room - (row * rows + rows - 1) * width;
    const bool whole = windows >= size || (size <= t.readable - row * windows && 2 * size <= room);
    // The last vector overlaps the one before it.
    for (int64_t j = 0, last = max(windows - size, 0); whole; j = min(j + size, last)) {
      const Vec<C> x = load_vector<C>(g + j);
      if constexpr (averages) {
        const Vec<C> share = x / by, low = interleaved(share, share, 0), high = interleaved(share, share, 1);
        for (int64_t r = 0; r < rows; ++r) {
          store_vector(low, out + r * width + 2 * j);
          store_vector(high, out + r * width + 2 * j + size);
        }
      } else {
        const auto at = load_positions<Lane<C>>(position + j);
        for (int64_t r = 0; r < rows; ++r) {
          const Vec<C> a = select(Mask<C>{(at == Vec<Lane<C>>(Lane<C>(2 * r))).bits}, x, Vec<C>(C(0)));
          const Vec<C> b = select(Mask<C>{(at == Vec<Lane<C>>(Lane<C>(2 * r + 1))).bits}, x, Vec<C>(C(0)));
          store_vector(interleaved(a, b, 0), out + r * width + 2 * j);
          store_vector(interleaved(a, b, 1), out + r * width + 2 * j + size);
        }
      }
      if (j == last) break;
    }
    if (whole && 2 * windows == width) continue;
    for (int64_t r = 0; r < rows; ++r) {
      S* const to = out + r * width;
      for (int64_t j = whole ? windows : 0; j < windows; ++j) {
        const C x = load_as<C>(g[j]);
        if constexpr (averages) {
          to[2 * j] = to[2 * j + 1] = StoreAs<S, C>::from(x / C(t.divisor));
        } else {
          const auto at = static_cast<int64_t>(position[j]);
          to[2 * j] = StoreAs<S, C>::from(at == 2 * r ? x : C(0));
          to[2 * j + 1] = StoreAs<S, C>::from(at == 2 * r + 1 ? x : C(0));
        }
      }
      for (int64_t x = 2 * windows; x < width; ++x) to[x] = StoreAs<S, C>::from(C(0));
    }
  }
  for (int64_t i = 0; i < t.elements - t.out_height * rows * width; ++i) out[i] = StoreAs<S, C>::from(C(0));
}

template <class S, class C, class Position>
void gather(const PoolGather& g) {
  constexpr int64_t size = Vec<C>::size;
  constexpr bool averages = __is_same(Position, NoPosition);
  S* out = static_cast<S*>(g.out);
  C* summed = static_cast<C*>(g.summed);
  if constexpr (averages) {
    for (int64_t i = 0; i < g.windows; i += size) {
      Vec<C> sum(C(0));
      for (int64_t r = 0; r < g.rows; ++r)
        sum = sum + load_lanes<C>(static_cast<const S*>(g.gradients[r]) + i, g.windows - i) /
                        Vec<C>::load(static_cast<const C*>(g.divisors[r]) + i);
      sum.store(summed + i);
    }
  }
  // N vectors of a phase, from element step * q + phase on.
  const auto add_up = [&]<int N>(int64_t phase, int64_t q, Vec<C> (&sum)[N]) TENSOROPS_LAMBDA_INLINE {
    for (auto& x : sum) x = C(0);
    const auto taps = [&](auto add) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 1
      for (int64_t t = g.begin[phase]; t < g.begin[phase + 1]; ++t) add(q + g.offset[t], g.column[t]);
    };
    if constexpr (averages) {
      taps([&](int64_t at, int32_t) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 4
        for (int u = 0; u < N; ++u) sum[u] = sum[u] + Vec<C>::load(summed + at + u * size);
      });
      return;
    }
#pragma GCC unroll 1
    for (int64_t r = 0; r < g.rows; ++r)
      taps([&](int64_t at, int32_t column) TENSOROPS_LAMBDA_INLINE {
        const C* gradient = static_cast<const C*>(g.gradients[r]) + at;
        const auto* position = static_cast<const Position*>(g.positions[r]) + at;
        const Vec<Lane<C>> id(static_cast<Lane<C>>(g.ids[r] + column));
#pragma GCC unroll 4
        for (int u = 0; u < N; ++u) {
          if constexpr (!averages) {
            const Mask<C> mine{(load_positions<Lane<C>>(position + u * size) == id).bits};
            sum[u] = sum[u] + select(mine, Vec<C>::load(gradient + u * size), Vec<C>(C(0)));
          }
        }
      });
  };
  // The elements from x on; vectors may run over the end of the row where there is room: what they leave there is written over.
  const auto some = [&]<int N>(int64_t x) TENSOROPS_LAMBDA_INLINE {
    const int64_t q = g.step == 1 ? x : g.step == 2 ? x >> 1 : x / g.step;
    Vec<C> first[N], second[N];
    S lanes[N * size];
    if (x + g.step * N * size <= g.room && g.step <= 2) {
      add_up.template operator()<N>(0, q, first);
      if (g.step == 1) {
#pragma GCC unroll 4
        for (int u = 0; u < N; ++u) store_vector(first[u], out + x + u * size);
        return;
      }
      add_up.template operator()<N>(1, q, second);
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) {
        store_vector(interleaved(first[u], second[u], 0), out + x + 2 * u * size);
        store_vector(interleaved(first[u], second[u], 1), out + x + (2 * u + 1) * size);
      }
      return;
    }
    for (int64_t phase = 0; phase < g.step; ++phase) {
      add_up.template operator()<N>(phase, q, first);
      for (int u = 0; u < N; ++u) store_vector(first[u], lanes + u * size);
      for (int64_t i = 0, at = x + phase; i < N * size && at < g.width; ++i, at += g.step) out[at] = lanes[i];
    }
  };
  static_assert(kPoolTogether == 4);
  const int64_t vector = g.step * size;
  int64_t x = 0;
  for (; x + 2 * vector < g.width; x += 4 * vector) some.template operator()<4>(x);
  for (; x < g.width; x += vector) some.template operator()<1>(x);
}

// A division of what is not below zero by the strides that there are as a rule is a shift.
TENSOROPS_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return a <= 0 ? 0 : b == 1 ? a : b == 2 ? (a + 1) >> 1 : (a + b - 1) / b;
}

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
        in_order(alternate_unordered(load_vector<C>(from + 2 * j), load_vector<C>(from + 2 * j + size), 0)).store(staged + j);
    }
    for (; j < end; ++j) staged[j] = load_as<C>(from[j * s.stride]);
    for (j = 0; j < begin; ++j) staged[j] = fill;
    for (j = end; j < s.columns; ++j) staged[j] = fill;
  }
}

template <class S, class C>
void unstage(const void* staged, int64_t n, void* out) {
  const C* from = static_cast<const C*>(staged);
  S* to = static_cast<S*>(out);
  int64_t i = 0;
  for (; i + Vec<C>::size <= n; i += Vec<C>::size) store_vector(Vec<C>::load(from + i), to + i);
  for (; i < n; ++i) to[i] = StoreAs<S, C>::from(from[i]);
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
#define MAX_TILES(S, C) max_tiles<S, C, NoPosition>
#define MAX_TILES_U8(S, C) max_tiles<S, C, uint8_t>
#define MAX_TILES_I32(S, C) max_tiles<S, C, int32_t>
#define MEAN_TILES(S, C) mean_tiles<S, C>
#define MAX_WINDOW(S, C) max_window<S, C, NoPosition>
#define MAX_WINDOW_U8(S, C) max_window<S, C, uint8_t>
#define MAX_WINDOW_I32(S, C) max_window<S, C, int32_t>
#define MEAN_WINDOW(S, C) mean_window<S, C>
#define MAX_SLIDE(S, C) max_slide<S, C, NoPosition>
#define MAX_SLIDE_U8(S, C) max_slide<S, C, uint8_t>
#define MAX_SLIDE_I32(S, C) max_slide<S, C, int32_t>
#define MEAN_SLIDE(S, C) mean_slide<S, C>
#define MAX_BACKWARD_U8(S, C) max_backward_run<S, C, uint8_t>
#define MAX_BACKWARD_I32(S, C) max_backward_run<S, C, int32_t>
#define MAX_SCATTER_U8(S, C) max_scatter<S, C, C, uint8_t>
#define MAX_SCATTER_I32(S, C) max_scatter<S, C, C, int32_t>
#define MAX_SCATTER_APART_U8(S, C) max_scatter<S, S, C, uint8_t>
#define MAX_SCATTER_APART_I32(S, C) max_scatter<S, S, C, int32_t>
#define MEAN_SCATTER(S, C) mean_scatter<S, C>
#define TILES_BACKWARD(S, C) tiles_backward<S, C, NoPosition>
#define TILES_BACKWARD_U8(S, C) tiles_backward<S, C, uint8_t>
#define TILES_BACKWARD_I32(S, C) tiles_backward<S, C, int32_t>
#define GATHER(S, C) gather<S, C, NoPosition>
#define GATHER_U8(S, C) gather<S, C, uint8_t>
#define GATHER_I32(S, C) gather<S, C, int32_t>
#define MEAN_BACKWARD(S, C) mean_backward_run<S, C>
#define STAGE(S, C) stage<S, C>
#define UNSTAGE(S, C) unstage<S, C>
#define SCATTER_ADD(S, C) scatter_add<S, C>

}  // namespace

extern const PoolingKernels pooling_kernels;
const PoolingKernels pooling_kernels = {
    {{NUMBERS(MAX_STAGED), NUMBERS(MAX_STAGED_U8), NUMBERS(MAX_STAGED_I32)},
     {NUMBERS(MAX_DIRECT), NUMBERS(MAX_DIRECT_U8), NUMBERS(MAX_DIRECT_I32)}},
    {FLOATS_AND_INT64(MEAN_STAGED), FLOATS_AND_INT64(MEAN_DIRECT)},
    {NUMBERS(MAX_TILES), NUMBERS(MAX_TILES_U8), NUMBERS(MAX_TILES_I32)},
    FLOATS_AND_INT64(MEAN_TILES),
    {NUMBERS(MAX_WINDOW), NUMBERS(MAX_WINDOW_U8), NUMBERS(MAX_WINDOW_I32)},
    FLOATS_AND_INT64(MEAN_WINDOW),
    {NUMBERS(MAX_SLIDE), NUMBERS(MAX_SLIDE_U8), NUMBERS(MAX_SLIDE_I32)},
    FLOATS_AND_INT64(MEAN_SLIDE),
    {FLOATS(NONE), FLOATS(MAX_BACKWARD_U8), FLOATS(MAX_BACKWARD_I32)},
    {FLOATS(NONE), FLOATS(MAX_SCATTER_U8), FLOATS(MAX_SCATTER_I32)},
    {FLOATS(NONE), FLOATS(MAX_SCATTER_APART_U8), FLOATS(MAX_SCATTER_APART_I32)},
    FLOATS(MEAN_SCATTER),
    {FLOATS(TILES_BACKWARD), FLOATS(TILES_BACKWARD_U8), FLOATS(TILES_BACKWARD_I32)},
    {FLOATS(GATHER), FLOATS(GATHER_U8), FLOATS(GATHER_I32)},
    FLOATS(MEAN_BACKWARD),
    NUMBERS(STAGE),
    FLOATS(UNSTAGE),
    FLOATS(SCATTER_ADD),
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
