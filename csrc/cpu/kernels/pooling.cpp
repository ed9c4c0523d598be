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

// Vectors of a run: where the first one's outputs are in the taps and in the results; the u-th follows it.
template <class C>
struct Whole {
  int64_t in_taps, in_results;

  template <class S>
  TENSOROPS_INLINE Vec<C> tap(const void* p, int u) const {
    return load_vector<C>(static_cast<const S*>(p) + in_taps + u * Vec<C>::size);
  }
  template <class Position>
  TENSOROPS_INLINE Vec<Lane<C>> tap_position(const void* p, int u) const {
    return load_positions<Lane<C>>(static_cast<const Position*>(p) + in_taps + u * Vec<C>::size);
  }
  template <class S>
  TENSOROPS_INLINE void store(Vec<C> x, void* p, int u, bool streams = false) const {
    S* const to = static_cast<S*>(p) + in_results + u * Vec<C>::size;
    if (streams) stream_vector(x, to);
    else store_vector(x, to);
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
  template <class S>
  TENSOROPS_INLINE void store(Vec<C> x, void* p, int, bool = false) const {
    store_lanes(x, static_cast<S*>(p) + in_results, n);
  }
  template <class Position>
  TENSOROPS_INLINE void store_position(Vec<Lane<C>> x, void* p, int) const {
    store_lanes(x, static_cast<Position*>(p) + in_results, n);
  }
};

// Calls f<N>(vectors) for N vectors at a time that cover a run: what is read of a tap serves all of them. A row's last one steps
// back over outputs that are done; only a row shorter than a vector is loaded and stored by parts.
template <class C, class F>
TENSOROPS_INLINE void for_vectors(const PoolRun& run, F f) {
  constexpr int64_t size = Vec<C>::size;
  Ahead ahead(run.ahead, run.ahead_lines * 64, run.ahead_lines * 64);
  for (int64_t row = 0; row < run.rows; ++row) {
    const int64_t in_taps = row * run.tap_step, in_results = row * run.out_step;
    if (run.ahead != nullptr) ahead.step(run.ahead_lines);
    int64_t i = 0;
    for (; i + 4 * size <= run.n; i += 4 * size) f.template operator()<4>(Whole<C>{in_taps + i, in_results + i});
    for (; i + size <= run.n; i += size) f.template operator()<1>(Whole<C>{in_taps + i, in_results + i});
    if (i == run.n) continue;
    if (run.n < size) f.template operator()<1>(Part<C>{run.n, in_taps, in_results});
    else f.template operator()<1>(Whole<C>{in_taps + run.n - size, in_results + run.n - size});
  }
}

struct NoPosition {};
template <class Position>
constexpr bool is_kept = !__is_same(Position, NoPosition);

// The maximum of what was taken, and its position if that is asked for.
template <class C, bool Places>
struct Largest {
  static constexpr bool places = Places;
  using L = Vec<Lane<C>>;
  Vec<C> value;
  L place;

  TENSOROPS_INLINE void take(Vec<C> x, L id) {
    if constexpr (places) {
      const Mask<C> better = (x > value) | (x != x);
      value = select(better, x, value);
      place = select_lane<C>(better, id, place);
    } else {
      value = maximum(value, x);
    }
  }
  static TENSOROPS_INLINE void take(C& value, Lane<C>& place, C x, Lane<C> id) {
    const bool better = x > value || x != x;
    value = better ? x : value;
    place = better ? id : place;
  }
};
template <class C>
struct Sum {
  static constexpr bool places = false;
  using L = Vec<Lane<C>>;
  Vec<C> value;
  L place;

  TENSOROPS_INLINE void take(Vec<C> x, L) { value = value + x; }
  static TENSOROPS_INLINE void take(C& value, Lane<C>&, C x, Lane<C>) {
    if constexpr (is_floating<C>) value += x;
    else value = C(uint64_t(value) + uint64_t(x));
  }
};

template <class S, class C, class Position>
void max_run(const MaxPoolRun& run) {
  using Best = Largest<C, is_kept<Position>>;
  using L = typename Best::L;
  for_vectors<C>(run, [&]<int N>(auto at) TENSOROPS_LAMBDA_INLINE {
    Best best[N];
    for (auto& b : best) b = {lowest<S, C>(), L(Lane<C>(run.first))};
    for (int64_t t = 0; t < run.count; ++t) {
      const void* const tap = run.taps[t];
      const L id(Lane<C>(run.ids[t]));
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) best[u].take(at.template tap<S>(tap, u), id);
    }
    for (int u = 0; u < N; ++u) {
      at.template store<S>(best[u].value, run.out, u);
      if constexpr (Best::places) at.template store_position<Position>(best[u].place, run.position, u);
    }
  });
}

// The lanes behind a partial run hold zeros, which integers must not divide by.
template <class C>
TENSOROPS_INLINE Vec<C> divided(Vec<C> sum, Vec<C> by) {
  if constexpr (is_floating<C>) return sum / by;
  else return map_lanes(sum, by, [](C a, C b) { return b == 0 ? C(0) : b == -1 ? C(0 - uint64_t(a)) : C(a / b); });
}

template <class S, class C>
void mean_run(const MeanPoolRun& run) {
  const Vec<C> divisor(*static_cast<const C*>(run.divisor));
  for_vectors<C>(run, [&]<int N>(auto at) TENSOROPS_LAMBDA_INLINE {
    Vec<C> sum[N];
    for (auto& x : sum) x = C(0);
    for (int64_t t = 0; t < run.count; ++t) {
      const void* const tap = run.taps[t];
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sum[u] = sum[u] + at.template tap<S>(tap, u);
    }
    for (int u = 0; u < N; ++u) at.template store<S>(divided(sum[u], divisor), run.out, u);
  });
}

TENSOROPS_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
TENSOROPS_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

template <class S, class C, class Position>
TENSOROPS_INLINE void max_window(const PoolWindowRun& run, int64_t output) {
  const S* const first = static_cast<const S*>(run.first) + output * run.apart;
  const auto finish = [&](C best, int64_t position) TENSOROPS_LAMBDA_INLINE {
    static_cast<S*>(run.out)[output] = StoreAs<S, C>::from(best);
    if constexpr (is_kept<Position>) static_cast<Position*>(run.position)[output] = static_cast<Position>(position);
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

// Elements 0, 2, ... and 1, 3, ... of twice a vector's, in an order that `ordered` undoes.
template <class C, class S>
TENSOROPS_INLINE void load_alternate(const S* p, Vec<C>* even, Vec<C>* odd) {
  if constexpr (__is_same(S, BFloat16)) {
    load_pair(p, even, odd);
  } else {
    const Vec<C> a = load_vector<C>(p), b = load_vector<C>(p + Vec<C>::size);
    *even = alternate_unordered(a, b, 0);
    *odd = alternate_unordered(a, b, 1);
  }
}
template <class S, class V>
TENSOROPS_INLINE V ordered(V x) {
  if constexpr (__is_same(S, BFloat16)) return x;
  else return in_order(x);
}

// The way back: element 2 i is even's i-th, element 2 i + 1 odd's.
template <class S, class C>
TENSOROPS_INLINE void store_alternate(Vec<C> even, Vec<C> odd, S* p) {
  if constexpr (__is_same(S, BFloat16)) {
    store_pair(even, odd, p, false);
  } else {
    store_vector(interleaved(even, odd, 0), p);
    store_vector(interleaved(even, odd, 1), p + Vec<C>::size);
  }
}

// Staged rows, with positions or without.
template <class C, bool places>
struct Rows {
  const PoolStaged& s;

  TENSOROPS_INLINE C* values(int64_t y) const {
    return static_cast<C*>(s.rows) + (y & (s.slots - 1)) * (places ? 2 : 1) * s.pitch;
  }
  TENSOROPS_INLINE Lane<C>* places_of(C* values) const { return reinterpret_cast<Lane<C>*>(values + s.pitch); }
  // stage(values) fills the row's place where another one is in it.
  template <class Stage>
  TENSOROPS_INLINE void need(int64_t plane, int64_t y, int64_t height, Stage stage) const {
    int64_t& held = s.held[y & (s.slots - 1)];
    if (held == plane * height + y) return;
    stage(values(y));
    held = plane * height + y;
  }
};

// What window columns hold in the row from element `at` of the input on. Step elements lie from window to window: a vector of
// outputs at a time, where all that it reads is there; 0: any number, one at a time. `Columns` of a window, neighbours, or 0: any.
template <class S, class C, class Reduce, int Step, int Columns>
TENSOROPS_INLINE void stage_columns(const PoolPlanes& p, int64_t at, C none, C* values, Lane<C>* places) {
  using L = typename Reduce::L;
  constexpr int64_t size = Vec<C>::size;
  const int64_t columns = Columns > 0 ? Columns : p.columns, apart = Columns > 0 ? 1 : p.column_dilation;
  const S* const windows = static_cast<const S*>(p.in) + at + p.left;
  const int64_t reach = (columns - 1) * apart + Step * size;  // of what a vector reads
  // Calls take(vector, column) for all columns; in_place: with the lanes in their order.
  const auto for_columns = [&](int64_t j, bool in_place, auto take) TENSOROPS_LAMBDA_INLINE {
    const S* const x = windows + Step * j;
    int64_t c = 0;
    if constexpr (Step == 2) {
      Vec<C> even, odd;
      const auto put = [&](Vec<C> v, int64_t c) TENSOROPS_LAMBDA_INLINE { take(in_place ? ordered<S>(v) : v, c); };
      if (apart == 1)
#pragma GCC unroll 4
        for (; c + 1 < columns; c += 2) {
          load_alternate(x + c, &even, &odd);
          put(even, c);
          put(odd, c + 1);
        }
#pragma GCC unroll 4
      for (; c < columns; ++c) {
        load_alternate(x + c * apart, &even, &odd);
        put(even, c);
      }
    } else {
#pragma GCC unroll 4
      for (; c < columns; ++c) take(load_vector<C>(x + c * apart), c);
    }
  };
  const auto edge = [&](int64_t j) TENSOROPS_LAMBDA_INLINE {
    const int64_t begin = at + p.left + Step * j;
    if (Step == 0 || begin < 0 || begin + reach > p.elements) {
      for (int64_t ow = j; ow < min(j + size, p.out_width); ++ow) {
        const int64_t first = p.first_column[ow], end = p.end_column[ow];
        const S* x = windows + ow * p.column_step;
        C value = none;
        auto place = static_cast<Lane<C>>(first);
        for (int64_t c = first; c < end; ++c)
          Reduce::take(value, place, load_as<C>(x[c * p.column_dilation]), static_cast<Lane<C>>(c));
        values[ow] = value;
        if constexpr (Reduce::places) places[ow] = place;
      }
      return;
    }
    const L first = load_vector<Lane<C>>(p.first_column + j), end = load_vector<Lane<C>>(p.end_column + j);
    Reduce r{Vec<C>(none), first};
    for_columns(j, true, [&](Vec<C> x, int64_t c) TENSOROPS_LAMBDA_INLINE {
      const L id(static_cast<Lane<C>>(c));
      r.take(select(Mask<C>{(end > id).bits & ~(first > id).bits}, x, Vec<C>(none)), id);
    });
    r.value.store(values + j);
    if constexpr (Reduce::places) r.place.store(places + j);
  };
  // Whole windows, and all there to be read.
  const int64_t begin = (p.whole_begin + size - 1) / size * size;
  int64_t end = p.whole_end == p.out_width ? p.out_width : p.whole_end - size + 1;
  if constexpr (Step > 0) end = min(end, ((p.elements - at - p.left - reach) >> (Step - 1)) + 1);
  for (int64_t j = 0; j < p.out_width; j += size) {
    if constexpr (Step > 0)
      if (j == begin) {
        for (; j < end; j += size) {
          Reduce r;
          for_columns(j, false, [&](Vec<C> x, int64_t c) TENSOROPS_LAMBDA_INLINE {
            if (c == 0) r = {x, L(Lane<C>(0))};
            else r.take(x, L(Lane<C>(c)));
          });
          if constexpr (Step == 2) r = {ordered<S>(r.value), ordered<S>(r.place)};
          r.value.store(values + j);
          if constexpr (Reduce::places) r.place.store(places + j);
        }
        if (j >= p.out_width) break;
      }
    edge(j);
  }
}
// The usual window of three columns by itself. Out of line: once for positions of any type.
template <class S, class C, class Reduce>
__attribute__((noinline)) void stage_columns(const PoolPlanes& p, int64_t at, C none, C* values, Lane<C>* places) {
  const bool usual = is_floating<C> && p.columns == 3 && p.column_dilation == 1;
  switch (p.column_step) {
    case 1: return usual ? stage_columns<S, C, Reduce, 1, is_floating<C> ? 3 : 0>(p, at, none, values, places)
                         : stage_columns<S, C, Reduce, 1, 0>(p, at, none, values, places);
    case 2: return usual ? stage_columns<S, C, Reduce, 2, is_floating<C> ? 3 : 0>(p, at, none, values, places)
                         : stage_columns<S, C, Reduce, 2, 0>(p, at, none, values, places);
    default: return stage_columns<S, C, Reduce, 0, 0>(p, at, none, values, places);
  }
}

// finish(value, oh, ow) is what an output of S is made from.
template <class S, class C, class Reduce, class Position, class Finish>
TENSOROPS_INLINE void pool_planes(const PoolPlanes& task, C none, Finish finish) {
  const PoolPlanes p = task;  // which no store changes
  using L = typename Reduce::L;
  constexpr int64_t size = Vec<C>::size;
  const PoolStaged& s = p.staged;
  const Rows<C, Reduce::places> rows{s};
  int64_t plane = s.begin / p.out_height, oh = s.begin % p.out_height;
  for (int64_t row = s.begin; row < s.end; ++row) {
    const int64_t first = p.first_row[oh], end = p.end_row[oh];
    const int64_t top = p.top + oh * p.row_step;
    for (int64_t r = first; r < end; ++r) {
      const int64_t y = top + r * p.row_dilation;
      rows.need(plane, y, p.height, [&](C* values) TENSOROPS_LAMBDA_INLINE {
        stage_columns<S, C, Reduce>(p, (plane * p.height + y) * p.width, none, values, rows.places_of(values));
      });
    }
    const int64_t room = (s.end - row) * p.out_width;  // the results of later rows may be written over
    S* const out = static_cast<S*>(p.out) + row * p.out_width;
    const auto vectors = [&]<int N>(int64_t j) TENSOROPS_LAMBDA_INLINE {
      Reduce best[N];
      const auto take = [&](int64_t r, bool begins) TENSOROPS_LAMBDA_INLINE {
        C* const values = rows.values(top + r * p.row_dilation);
        [[maybe_unused]] const L id(static_cast<Lane<C>>(r * p.columns));
#pragma GCC unroll 4
        for (int u = 0; u < N; ++u) {
          const Vec<C> value = Vec<C>::load(values + j + u * size);
          L place;
          if constexpr (Reduce::places) place = L::load(rows.places_of(values) + j + u * size) + id;
          if (begins) best[u] = {value, place};
          else best[u].take(value, place);
        }
      };
      take(first, true);
#pragma GCC unroll 1
      for (int64_t r = first + 1; r < end; ++r) take(r, false);
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) {
        const int64_t at = j + u * size;
        const Vec<C> result = finish(best[u].value, oh, at);
        if (at + size <= room) store_vector(result, out + at);
        else store_lanes(result, out + at, p.out_width - at);
        if constexpr (Reduce::places) {
          auto* const position = static_cast<Position*>(p.position) + row * p.out_width + at;
          if (at + size <= room) store_positions(best[u].place, position);
          else store_lanes(best[u].place, position, p.out_width - at);
        }
      }
    };
    if (first >= end) {
      for (int64_t ow = 0; ow < p.out_width; ++ow) {
        store_lanes(finish(Vec<C>(none), oh, ow), out + ow, 1);
        if constexpr (Reduce::places)
          static_cast<Position*>(p.position)[row * p.out_width + ow] =
              static_cast<Position>(first * p.columns + p.first_column[ow]);
      }
    } else {
      int64_t j = 0;
      for (; j + 3 * size < p.out_width; j += 4 * size) vectors.template operator()<4>(j);
      if (j + size < p.out_width) {
        vectors.template operator()<2>(j);
        j += 2 * size;
      }
      if (j < p.out_width) vectors.template operator()<1>(j);
    }
    if (++oh == p.out_height) {
      oh = 0;
      ++plane;
    }
  }
}

template <class S, class C, class Position>
void max_planes(const PoolPlanes& p) {
  using Best = Largest<C, is_kept<Position>>;
  pool_planes<S, C, Best, Position>(p, lowest<S, C>(), [](Vec<C> x, int64_t, int64_t) TENSOROPS_LAMBDA_INLINE { return x; });
}

template <class S, class C>
void mean_planes(const PoolPlanes& p) {
  pool_planes<S, C, Sum<C>, NoPosition>(p, C(0), [&](Vec<C> x, int64_t oh, int64_t ow) TENSOROPS_LAMBDA_INLINE {
    return divided(x, Vec<C>::load(static_cast<const C*>(p.divisors) + p.divisor_start[oh] + ow));
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
    for (int u = 0; u < N; ++u) at.template store<S>(sum[u], run.out, u, run.streams);
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
    for (int u = 0; u < N; ++u) at.template store<S>(sum[u], run.out, u, run.streams);
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
  using Best = Largest<C, is_kept<Position>>;
  using L = typename Best::L;
  const S* in = static_cast<const S*>(t.in);
  S* out = static_cast<S*>(t.out);
  for_tiles<C>(t, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    const S* x = in + row * t.rows * t.width + 2 * j;
    Best best{lowest<S, C>(), L(Lane<C>(0))};
    for (int64_t r = 0; r < t.rows; ++r, x += t.width) {
      Vec<C> even, odd;
      load_alternate(x, &even, &odd);
      best.take(even, L(Lane<C>(2 * r)));
      best.take(odd, L(Lane<C>(2 * r + 1)));
    }
    store_vector(ordered<S>(best.value), out + row * t.out_width + j);
    if constexpr (Best::places)
      store_positions(ordered<S>(best.place), static_cast<Position*>(t.position) + row * t.out_width + j);
  }, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    C best = lowest<S, C>();
    Lane<C> position = 0;
    for (int64_t k = 0; k < 2 * t.rows; ++k)
      Best::take(best, position, load_as<C>(in[(row * t.rows + (k >> 1)) * t.width + 2 * j + (k & 1)]), static_cast<Lane<C>>(k));
    out[row * t.out_width + j] = StoreAs<S, C>::from(best);
    if constexpr (Best::places) static_cast<Position*>(t.position)[row * t.out_width + j] = static_cast<Position>(position);
  });
}

template <class S, class C>
void mean_tiles(const PoolTiles& t) {
  const S* in = static_cast<const S*>(t.in);
  S* out = static_cast<S*>(t.out);
  const C divisor = C(t.divisor);
  for_tiles<C>(t, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    const S* x = in + row * t.rows * t.width + 2 * j;
    Vec<C> sum(C(0));
    for (int64_t r = 0; r < t.rows; ++r, x += t.width) {
      Vec<C> even, odd;
      load_alternate(x, &even, &odd);
      sum = sum + even + odd;
    }
    store_vector(divided(ordered<S>(sum), Vec<C>(divisor)), out + row * t.out_width + j);
  }, [&](int64_t row, int64_t j) TENSOROPS_LAMBDA_INLINE {
    C sum = 0;
    Lane<C> unused = 0;
    for (int64_t k = 0; k < 2 * t.rows; ++k)
      Sum<C>::take(sum, unused, load_as<C>(in[(row * t.rows + (k >> 1)) * t.width + 2 * j + (k & 1)]), 0);
    if constexpr (is_floating<C>) sum /= divisor;
    else sum = divisor == -1 ? C(0 - uint64_t(sum)) : C(sum / divisor);
    out[row * t.out_width + j] = StoreAs<S, C>::from(sum);
  });
}

template <class S, class C, class Position>
void tiles_backward(const PoolTilesBackward& t) {
  constexpr int64_t size = Vec<C>::size;
  constexpr bool averages = !is_kept<Position>;
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
        const Vec<C> share = x / by;
        for (int64_t r = 0; r < rows; ++r) store_alternate(share, share, out + r * width + 2 * j);
      } else {
        const auto at = load_positions<Lane<C>>(position + j);
        for (int64_t r = 0; r < rows; ++r) {
          const Vec<C> a = select(Mask<C>{(at == Vec<Lane<C>>(Lane<C>(2 * r))).bits}, x, Vec<C>(C(0)));
          const Vec<C> b = select(Mask<C>{(at == Vec<Lane<C>>(Lane<C>(2 * r + 1))).bits}, x, Vec<C>(C(0)));
          store_alternate(a, b, out + r * width + 2 * j);
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

// Elements of a row of the gradient from x on, step to the next of a phase: N vectors of each of the phases. They may run over the
// end of the row where there is room: what they leave there is written over.
template <class S, class C, int N, class AddUp>
TENSOROPS_INLINE void put_phases(S* out, int64_t x, int64_t step, int64_t width, int64_t room, AddUp add_up) {
  constexpr int64_t size = Vec<C>::size;
  Vec<C> first[N], second[N];
  if (x + step * N * size <= room && step <= 2) {
    add_up(0, first);
    if (step == 1) {
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) store_vector(first[u], out + x + u * size);
      return;
    }
    add_up(1, second);
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) store_alternate(first[u], second[u], out + x + 2 * u * size);
    return;
  }
  S lanes[N * size];
  for (int64_t phase = 0; phase < step; ++phase) {
    add_up(phase, first);
    for (int u = 0; u < N; ++u) store_vector(first[u], lanes + u * size);
    for (int64_t i = 0, at = x + phase; i < N * size && at < width; ++i, at += step) out[at] = lanes[i];
  }
}

// A row of the gradient of rows of windows of which one is seen by `sights` or, for averages, of their sum.
template <class C, class Position>
struct GatherRow {
  const PoolGather& g;
  Rows<C, is_kept<Position>> rows;
  const PoolSight *sights, *sights_end;
  const C* sum;
};

template <class S, class C, class Position>
TENSOROPS_INLINE void gather_row(const GatherRow<C, Position>& row, S* out, int64_t room) {
  constexpr int64_t size = Vec<C>::size;
  const PoolGather& g = row.g;
  const auto vectors = [&]<int N>(int64_t x) TENSOROPS_LAMBDA_INLINE {
    const int64_t q = g.step == 1 ? x : g.step == 2 ? x >> 1 : x / g.step;
    put_phases<S, C, N>(out, x, g.step, g.width, room, [&](int64_t phase, Vec<C> (&sum)[N]) TENSOROPS_LAMBDA_INLINE {
      for (auto& v : sum) v = C(0);
      const auto taps = [&](auto add) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 1
        for (int64_t t = g.taps_begin[phase]; t < g.taps_begin[phase + 1]; ++t) add(q + g.offset[t], g.column[t]);
      };
      if constexpr (!is_kept<Position>) {
        taps([&](int64_t at, int32_t) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 4
          for (int u = 0; u < N; ++u) sum[u] = sum[u] + Vec<C>::load(row.sum + at + u * size);
        });
      } else {
#pragma GCC unroll 1
        for (const PoolSight* sight = row.sights; sight < row.sights_end; ++sight)
          taps([&](int64_t at, int32_t column) TENSOROPS_LAMBDA_INLINE {
            C* const values = row.rows.values(sight->window);
            const C* gradient = values + g.margin + at;
            const Lane<C>* place = row.rows.places_of(values) + g.margin + at;
            const Vec<Lane<C>> id(static_cast<Lane<C>>(sight->position * g.columns + column));
#pragma GCC unroll 4
            for (int u = 0; u < N; ++u) {
              const Mask<C> mine{(Vec<Lane<C>>::load(place + u * size) == id).bits};
              sum[u] = sum[u] + select(mine, Vec<C>::load(gradient + u * size), Vec<C>(C(0)));
            }
          });
      }
    });
  };
  static_assert(kPoolTogether == 4);
  const int64_t vector = g.step * size;
  int64_t x = 0;
  for (; x + 2 * vector < g.width; x += 4 * vector) vectors.template operator()<4>(x);
  for (; x < g.width; x += vector) vectors.template operator()<1>(x);
}

// The same for so many sights, and A taps of the first phase and B of the second, if there is one: all that stays along the row
// stays in registers.
template <class S, class C, class Position, int Sights, int A, int B>
TENSOROPS_INLINE void gather_row(const GatherRow<C, Position>& row, S* out, int64_t room) {
  constexpr int step = B > 0 ? 2 : 1, taps = A + B;
  constexpr int64_t size = Vec<C>::size;
  constexpr bool averages = !is_kept<Position>;
  const PoolGather& g = row.g;
  const C* gradient[Sights][taps];
  const Lane<C>* place[Sights][taps];
  Vec<Lane<C>> id[Sights][taps];
#pragma GCC unroll 4
  for (int s = 0; s < Sights; ++s)
#pragma GCC unroll 4
    for (int t = 0; t < taps; ++t) {
      if constexpr (averages) {
        gradient[s][t] = row.sum + g.offset[t];
      } else {
        C* const values = row.rows.values(row.sights[s].window);
        gradient[s][t] = values + g.margin + g.offset[t];
        place[s][t] = row.rows.places_of(values) + g.margin + g.offset[t];
        id[s][t] = Vec<Lane<C>>(static_cast<Lane<C>>(row.sights[s].position * g.columns + g.column[t]));
      }
    }
  for (int64_t x = 0; x < g.width; x += step * size) {
    const int64_t q = x / step;
    const auto of_taps = [&]<int Begin, int End>() TENSOROPS_LAMBDA_INLINE {
      Vec<C> sum(C(0));
#pragma GCC unroll 4
      for (int s = 0; s < Sights; ++s)
#pragma GCC unroll 4
        for (int t = Begin; t < End; ++t) {
          Vec<C> x = Vec<C>::load(gradient[s][t] + q);
          if constexpr (!averages) x = select(Mask<C>{(Vec<Lane<C>>::load(place[s][t] + q) == id[s][t]).bits}, x, Vec<C>(C(0)));
          sum = sum + x;
        }
      return sum;
    };
    put_phases<S, C, 1>(out, x, step, g.width, room, [&](int64_t phase, Vec<C> (&sum)[1]) TENSOROPS_LAMBDA_INLINE {
      sum[0] = phase == 0 ? of_taps.template operator()<0, A>() : of_taps.template operator()<A, taps>();
    });
  }
}

template <class S, class C, class Position>
void gather(const PoolGather& task) {
  constexpr int64_t size = Vec<C>::size;
  constexpr bool averages = !is_kept<Position>;
  const PoolGather g = task;  // which no store changes
  const PoolStaged& s = g.staged;
  const Rows<C, !averages> rows{s};
  fill_zeros(static_cast<C*>(s.rows), s.slots * (averages ? 1 : 2) * s.pitch);
  if constexpr (averages) fill_zeros(static_cast<C*>(g.summed), s.pitch);
  // Windows of three columns.
  const bool usual = g.step <= 2 && g.taps_begin[g.step] == 3 && (g.step == 1 || g.taps_begin[1] % 3 != 0);
  int64_t plane = s.begin / g.height, y = s.begin % g.height;
  for (int64_t row = s.begin; row < s.end; ++row) {
    // A row's windows are staged while the one above is made: vectors that lie across what was just stored would wait for it.
    const bool begins = row == s.begin || y == 0;
    const PoolSight* const last = g.sights + g.sights_begin[min(y + 2, g.height)];
    for (const PoolSight* sight = g.sights + g.sights_begin[begins ? y : min(y + 1, g.height)]; sight < last; ++sight) {
      const int64_t oh = sight->window, at = (plane * g.out_height + oh) * g.out_width;
      rows.need(plane, oh, g.out_height, [&](C* values) TENSOROPS_LAMBDA_INLINE {
        const S* gradient = static_cast<const S*>(g.gradient) + at;
        [[maybe_unused]] Lane<C>* const places = rows.places_of(values);
        for (int64_t i = 0; i < g.out_width; i += size) {
          const Vec<C> x = load_lanes<C>(gradient + i, g.out_width - i);  // behind the row there are zeros
          if constexpr (averages) {
            (x / Vec<C>::load(static_cast<const C*>(g.divisors) + g.divisor_start[oh] + i)).store(values + g.margin + i);
          } else {
            x.store(values + g.margin + i);
            const Position* position = static_cast<const Position*>(g.position) + at + i;
            const bool whole = at + i + size <= g.elements;
            (whole ? load_positions<Lane<C>>(position) : load_lanes<Lane<C>>(position, g.out_width - i))
                .store(places + g.margin + i);
          }
        }
      });
    }
    const PoolSight *const sights = g.sights + g.sights_begin[y], *const sights_end = g.sights + g.sights_begin[y + 1];
    GatherRow<C, Position> task{g, rows, sights, sights_end, nullptr};
    if constexpr (averages) {
      if (sights_end - sights == 1) {
        task.sum = rows.values(sights->window) + g.margin;
      } else {
        C* const summed = static_cast<C*>(g.summed) + g.margin;
        for (int64_t i = 0; i < g.out_width; i += size) {
          Vec<C> sum(C(0));
          for (const PoolSight* sight = sights; sight < sights_end; ++sight)
            sum = sum + Vec<C>::load(rows.values(sight->window) + g.margin + i);
          sum.store(summed + i);
        }
        task.sum = summed;
      }
    }
    S* const out = static_cast<S*>(g.out) + row * g.width;
    const int64_t room = (s.end - row) * g.width;
    const int64_t count = averages ? 1 : sights_end - sights;
    const auto of = [&]<int Sights>() TENSOROPS_LAMBDA_INLINE {
      if (g.step == 1) gather_row<S, C, Position, Sights, 3, 0>(task, out, room);
      else if (g.taps_begin[1] == 1) gather_row<S, C, Position, Sights, 1, 2>(task, out, room);
      else gather_row<S, C, Position, Sights, 2, 1>(task, out, room);
    };
    if (usual && count == 1) of.template operator()<1>();
    else if (usual && !averages && count == 2) of.template operator()<averages ? 1 : 2>();
    else if (usual && !averages && count == 3 && g.step == 1) gather_row<S, C, Position, averages ? 1 : 3, 3, 0>(task, out, room);
    else gather_row<S, C, Position>(task, out, room);
    if (++y == g.height) {
      y = 0;
      ++plane;
    }
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
#define MAX(S, C) max_run<S, C, NoPosition>
#define MAX_U8(S, C) max_run<S, C, uint8_t>
#define MAX_I32(S, C) max_run<S, C, int32_t>
#define MEAN(S, C) mean_run<S, C>
#define MAX_PLANES(S, C) max_planes<S, C, NoPosition>
#define MAX_PLANES_U8(S, C) max_planes<S, C, uint8_t>
#define MAX_PLANES_I32(S, C) max_planes<S, C, int32_t>
#define MEAN_PLANES(S, C) mean_planes<S, C>
#define MAX_TILES(S, C) max_tiles<S, C, NoPosition>
#define MAX_TILES_U8(S, C) max_tiles<S, C, uint8_t>
#define MAX_TILES_I32(S, C) max_tiles<S, C, int32_t>
#define MEAN_TILES(S, C) mean_tiles<S, C>
#define MAX_WINDOW(S, C) max_window<S, C, NoPosition>
#define MAX_WINDOW_U8(S, C) max_window<S, C, uint8_t>
#define MAX_WINDOW_I32(S, C) max_window<S, C, int32_t>
#define MEAN_WINDOW(S, C) mean_window<S, C>
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
#define UNSTAGE(S, C) unstage<S, C>
#define SCATTER_ADD(S, C) scatter_add<S, C>

}  // namespace

extern const PoolingKernels pooling_kernels;
const PoolingKernels pooling_kernels = {
    {NUMBERS(MAX), NUMBERS(MAX_U8), NUMBERS(MAX_I32)},
    FLOATS_AND_INT64(MEAN),
    {NUMBERS(MAX_PLANES), NUMBERS(MAX_PLANES_U8), NUMBERS(MAX_PLANES_I32)},
    FLOATS_AND_INT64(MEAN_PLANES),
    {NUMBERS(MAX_TILES), NUMBERS(MAX_TILES_U8), NUMBERS(MAX_TILES_I32)},
    FLOATS_AND_INT64(MEAN_TILES),
    {NUMBERS(MAX_WINDOW), NUMBERS(MAX_WINDOW_U8), NUMBERS(MAX_WINDOW_I32)},
    FLOATS_AND_INT64(MEAN_WINDOW),
    {FLOATS(NONE), FLOATS(MAX_BACKWARD_U8), FLOATS(MAX_BACKWARD_I32)},
    {FLOATS(NONE), FLOATS(MAX_SCATTER_U8), FLOATS(MAX_SCATTER_I32)},
    {FLOATS(NONE), FLOATS(MAX_SCATTER_APART_U8), FLOATS(MAX_SCATTER_APART_I32)},
    FLOATS(MEAN_SCATTER),
    {FLOATS(TILES_BACKWARD), FLOATS(TILES_BACKWARD_U8), FLOATS(TILES_BACKWARD_I32)},
    {FLOATS(GATHER), FLOATS(GATHER_U8), FLOATS(GATHER_I32)},
    FLOATS(MEAN_BACKWARD),
    end_stream,
    FLOATS(UNSTAGE),
    FLOATS(SCATTER_ADD),
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
