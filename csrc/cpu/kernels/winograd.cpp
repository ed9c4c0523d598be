// Winograd's convolution, once per instruction set.
#include "cpu/kernels/winograd.h"

#include "cpu/kernels/convert.h"
#include "cpu/kernels/gemm_tile.h"
#include "cpu/kernels/lanes.h"

namespace tensorops::cpu::TENSOROPS_ISA {
#if defined(__FMA__)
namespace {

using T = float;
using V = Vec<T>;

constexpr int kTile = kWinogradTile;

// The transforms in one dimension. With M(x) the product of x - p over the finite points p, the row of B' for p holds the
// coefficients of M(x) / (x - p), that of G the powers of p divided by M'(p), and that of A those powers; at infinity they are
// M's coefficients and the highest power alone. Of two conjugate points only one is kept, as its real and imaginary part, with
// twice the weight: values come as `reals` at 0 (but for r = 2 and 4), 1, -1 and infinity, then as pairs.
template <int r>
struct Points;

// And i: M(x) = x^5 - x. Or without 0: M(x) = x^4 - 1, M'(p) = 4 / p, of which the rows of B' take the 1 / p.
template <bool Zero>
struct FourthRoots {
  static constexpr int n = 5 + Zero, reals = 3 + Zero, one = Zero, infinite = one + 2, r = n - 3;
  template <class V>
  static TENSOROPS_INLINE void image(const V* d, V* v) {
    const V fourth = d[Zero ? 4 : 0], even = d[2] + fourth, odd = d[1] + d[3];
    if constexpr (Zero) v[0] = d[0] - d[4];
    v[one] = even + odd;
    v[one + 1] = even - odd;
    v[infinite] = d[n - 1] - d[n - 5];
    v[reals] = fourth - d[2];
    v[reals + 1] = d[3] - d[1];
  }
  template <class V>
  static TENSOROPS_INLINE void result(const V* m, V* y) {
    const V *const real = m + one, *const pair = m + reals;
    const V even = real[0] + real[1], odd = real[0] - real[1];
    y[0] = even + pair[0];
    if constexpr (Zero) y[0] = m[0] + y[0];
    y[1] = odd - pair[1];
    y[2] = even - pair[0];
    y[3] = m[infinite] + (odd + pair[1]);
  }
  template <class V>
  static TENSOROPS_INLINE void weights(const V* g, V* u) {
    V plus = g[0], minus = g[0];  // with the third, if there is one
    if constexpr (r == 3) plus = g[0] + g[2], minus = g[0] - g[2];
    const V even = 0.25 * plus, odd = 0.25 * g[1];
    if constexpr (Zero) u[0] = g[0];
    u[one] = even + odd;
    u[one + 1] = even - odd;
    u[infinite] = g[r - 1];
    u[reals] = 0.5 * minus;
    u[reals + 1] = 0.5 * g[1];
  }
  template <class V>
  static TENSOROPS_INLINE void gradient(const V* y, V* z) {
    const V even = y[0] + y[2], odd = y[1] + y[3];
    if constexpr (Zero) z[0] = y[0];
    z[one] = even + odd;
    z[one + 1] = even - odd;
    z[infinite] = y[3];
    z[reals] = y[0] - y[2];
    z[reals + 1] = y[3] - y[1];
  }
  template <class V>
  static TENSOROPS_INLINE void taps(const V* m, V* y) {
    const V *const real = m + one, *const pair = m + reals;
    const V even = 0.25 * (real[0] + real[1]), odd = 0.25 * (real[0] - real[1]);
    y[0] = even + 0.5 * pair[0];
    if constexpr (Zero) y[0] = m[0] + y[0];
    y[1] = odd + 0.5 * pair[1];
    if constexpr (r == 3) y[2] = even - 0.5 * pair[0];
    y[r - 1] = m[infinite] + y[r - 1];
  }
};
template <>
struct Points<2> : FourthRoots<false> {};
template <>
struct Points<3> : FourthRoots<true> {};

// And w, -w, the sixth roots of 1, w = 1/2 + i sqrt(3)/2: M(x) = x^7 - x. Or without 0: M(x) = x^6 - 1, M'(p) = 6 / p.
template <bool Zero>
struct SixthRoots {
  static constexpr int n = 7 + Zero, reals = 3 + Zero, one = Zero, infinite = one + 2, r = n - 3;
  static constexpr double s = 0.86602540378443864676;  // sqrt(3)/2
  template <class V>
  static TENSOROPS_INLINE void image(const V* d, V* v) {
    const V sixth = d[Zero ? 6 : 0], even = d[2] + d[4], odd = d[1] + d[5];
    const V even_re = fma(V(-0.5), even, sixth), odd_re = fma(V(0.5), odd, V(0.0) - d[3]);
    const V even_im = d[4] - d[2], odd_im = d[5] - d[1];
    const V even_one = even + sixth, odd_one = odd + d[3];
    if constexpr (Zero) v[0] = d[0] - d[6];
    put(even_one, odd_one, v + one);
    v[infinite] = d[n - 1] - d[n - 7];
    v[reals] = even_re + odd_re;
    v[reals + 1] = V(s) * (even_im + odd_im);
    v[reals + 2] = even_re - odd_re;
    v[reals + 3] = V(s) * (even_im - odd_im);
  }
  template <class V>
  static TENSOROPS_INLINE void result(const V* m, V* y) {
    const V *const real = m + one, *const pair = m + reals;
    const V even = real[0] + real[1], odd = real[0] - real[1];
    const V even_re = pair[0] + pair[2], odd_re = pair[0] - pair[2], even_im = pair[1] + pair[3], odd_im = pair[1] - pair[3];
    y[0] = even + even_re;
    if constexpr (Zero) y[0] = m[0] + y[0];
    y[1] = fma(V(-s), odd_im, fma(V(0.5), odd_re, odd));
    y[2] = fma(V(-s), even_im, fma(V(-0.5), even_re, even));
    y[3] = m[infinite] + (odd - odd_re);
  }
  template <class V>
  static TENSOROPS_INLINE void weights(const V* g, V* u) {
    V plus = g[2], minus = g[2];  // with the fifth, if there is one
    if constexpr (r == 5) plus = g[2] + g[4], minus = g[2] - g[4];
    put(sixth * (g[0] + plus), sixth * (g[1] + g[3]), u + one);
    u[infinite] = g[r - 1];
    if constexpr (Zero) u[0] = g[0];
    put_pairs(third * (g[0] - 0.5 * plus), third * (0.5 * g[1] - g[3]), third_s * minus, third_s * g[1], u + reals);
  }
  template <class V>
  static TENSOROPS_INLINE void gradient(const V* y, V* z) {
    if constexpr (Zero) z[0] = y[0];
    put(y[0] + y[2], y[1] + y[3], z + one);
    z[infinite] = y[3];
    const V even_re = fma(V(-0.5), y[2], y[0]), odd_re = fma(V(0.5), y[1], V(0.0) - y[3]);
    put_pairs(even_re, odd_re, V(-s) * y[2], V(-s) * y[1], z + reals);
  }
  template <class V>
  static TENSOROPS_INLINE void taps(const V* m, V* y) {
    const V *const real = m + one, *const pair = m + reals;
    const V even = sixth * (real[0] + real[1]), odd = sixth * (real[0] - real[1]);
    const V even_re = third * (pair[0] + pair[2]), odd_re = third * (pair[0] - pair[2]);
    const V even_im = third_s * (pair[1] + pair[3]), odd_im = third_s * (pair[1] - pair[3]);
    y[0] = even + even_re;
    if constexpr (Zero) y[0] = m[0] + y[0];
    y[1] = odd + (0.5 * odd_re + odd_im);
    y[2] = even + (even_im - 0.5 * even_re);
    y[3] = odd - odd_re;
    if constexpr (r == 5) y[4] = even - (0.5 * even_re + even_im);
    y[r - 1] = m[infinite] + y[r - 1];
  }

 private:
  static constexpr double sixth = 1.0 / 6, third = 1.0 / 3, third_s = s / 3;
  // At 1 and -1, and at w and -w, from the even and the odd powers.
  template <class V>
  static TENSOROPS_INLINE void put(V even, V odd, V* u) { u[0] = even + odd, u[1] = even - odd; }
  template <class V>
  static TENSOROPS_INLINE void put_pairs(V even_re, V odd_re, V even_im, V odd_im, V* u) {
    u[0] = even_re + odd_re, u[1] = even_im + odd_im, u[2] = even_re - odd_re, u[3] = even_im - odd_im;
  }
};
template <>
struct Points<4> : SixthRoots<false> {};
template <>
struct Points<5> : SixthRoots<true> {};

// The second dimension, rows of values of the first one to points: row(i, v) makes the row of value i. Real values go to
// put(x), pairs to put(re, im); a pair of pairs is two complex points, (p, q) and (p, conj q), of which weights count half.
template <int r, class V, bool Weights, class Row, class Put>
TENSOROPS_INLINE void to_points(const Row& row, const Put& put) {
  constexpr int n = Points<r>::n, reals = Points<r>::reals;
  const auto scaled = [](V x) TENSOROPS_LAMBDA_INLINE { return Weights ? 0.5 * x : x; };
#pragma GCC unroll 4
  for (int i = 0; i < reals; ++i) {
    V v[n];
    row(i, v);
#pragma GCC unroll 4
    for (int j = 0; j < reals; ++j) put(v[j]);
#pragma GCC unroll 2
    for (int j = reals; j < n; j += 2) put(v[j], v[j + 1]);
  }
#pragma GCC unroll 2
  for (int i = reals; i < n; i += 2) {
    V re[n], im[n];
    row(i, re);
    row(i + 1, im);
#pragma GCC unroll 4
    for (int j = 0; j < reals; ++j) put(re[j], im[j]);
#pragma GCC unroll 2
    for (int j = reals; j < n; j += 2) {
      put(scaled(re[j] - im[j + 1]), scaled(re[j + 1] + im[j]));
      put(scaled(re[j] + im[j + 1]), scaled(im[j] - re[j + 1]));
    }
  }
}
// And back: get() and get(re, im) in the same order, for row(i, values of row i).
template <int r, class V, bool Weights, class Get, class Row>
TENSOROPS_INLINE void from_points(const Get& get, const Row& row) {
  constexpr int n = Points<r>::n, reals = Points<r>::reals;
  const auto scaled = [](V x) TENSOROPS_LAMBDA_INLINE { return Weights ? 0.5 * x : x; };
#pragma GCC unroll 4
  for (int i = 0; i < reals; ++i) {
    V m[n];
#pragma GCC unroll 4
    for (int j = 0; j < reals; ++j) m[j] = get();
#pragma GCC unroll 2
    for (int j = reals; j < n; j += 2) get(m[j], m[j + 1]);
    row(i, m);
  }
#pragma GCC unroll 2
  for (int i = reals; i < n; i += 2) {
    V re[n], im[n];
#pragma GCC unroll 4
    for (int j = 0; j < reals; ++j) get(re[j], im[j]);
#pragma GCC unroll 2
    for (int j = reals; j < n; j += 2) {
      V sum_re, sum_im, difference_re, difference_im;
      get(sum_re, sum_im);
      get(difference_re, difference_im);
      re[j] = scaled(sum_re + difference_re);
      re[j + 1] = scaled(sum_im - difference_im);
      im[j] = scaled(sum_im + difference_im);
      im[j + 1] = scaled(difference_re - sum_re);
    }
    row(i, re);
    row(i + 1, im);
  }
}

// A complex product in three: (re, im) times (re', im') is (p - q, t - p - q) with p = re re', q = im im' and
// t = (re + im) (re' + im'). A factor is stored as its three, which are summed each for itself.
template <class V, class Store>
struct Factor {
  Store store;
  TENSOROPS_INLINE void operator()(V x) const { store(x); }
  TENSOROPS_INLINE void operator()(V re, V im) const { store(re), store(im), store(re + im); }
};
template <class V, class Load>
struct Product {
  Load load;
  TENSOROPS_INLINE V operator()() const { return load(); }
  TENSOROPS_INLINE void operator()(V& re, V& im) const {
    const V p = load(), q = load(), t = load();
    re = p - q;
    im = t - (p + q);
  }
};
// The transpose of the way from products, the gradient's way to them; and that of the way to factors (q has changed its sign).
template <class V, class Store>
struct ProductGradient {
  Store store;
  TENSOROPS_INLINE void operator()(V x) const { store(x); }
  TENSOROPS_INLINE void operator()(V re, V im) const { store(re - im), store(re + im), store(im); }
};
template <class V, class Load>
struct FactorGradient {
  Load load;
  TENSOROPS_INLINE V operator()() const { return load(); }
  TENSOROPS_INLINE void operator()(V& re, V& im) const {
    const V p = load(), q = load(), t = load();
    re = p + t;
    im = t - q;
  }
};

template <class N>
TENSOROPS_INLINE bool is_zero(Vec<N> x) {
  N lanes[Vec<N>::size];
  x.store(lanes);
  bool all = true;
  for (int l = 0; l < Vec<N>::size; ++l) all &= lanes[l] == 0;
  return all;
}

constexpr int kTilesTogether = 4;  // whose columns lie in the first cache between the two dimensions

template <int r>
void image(const WinogradTiles& t) {
  constexpr int n = Points<r>::n, kept = n - kTile;
  V columns[n][kTile * kTilesTogether + kept];
  const T* x = static_cast<const T*>(t.pixels);
  T* to = static_cast<T*>(t.points);
  const int64_t point = t.point;
  for (int64_t first = 0; first < t.tiles; first += kTilesTogether) {
    const int64_t tiles = t.tiles - first < kTilesTogether ? t.tiles - first : kTilesTogether;
    if (first > 0)  // the tiles' overlap with those before
      for (int i = 0; i < n; ++i)
        for (int w = 0; w < kept; ++w) columns[i][w] = columns[i][kTile * kTilesTogether + w];
    for (int64_t w = first > 0 ? kept : 0; w < kTile * tiles + kept; ++w) {
      V d[n], v[n];
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) d[i] = V::load(x + i * t.pixels_row + (kTile * first + w) * V::size);
      Points<r>::image(d, v);
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) columns[i][w] = v[i];
    }
    for (int64_t j = 0; j < tiles; ++j, to += t.tile) {
      T* at = to;
      const auto store = [&at, point](V v) TENSOROPS_LAMBDA_INLINE {
        v.store(at);
        at += point;
      };
      to_points<r, V, false>([&](int i, V* v) TENSOROPS_LAMBDA_INLINE { Points<r>::image(&columns[i][kTile * j], v); },
                             Factor<V, decltype(store)>{store});
    }
  }
}

// points_of(tile): what gives its points, one after the other.
template <int r, class F>
TENSOROPS_INLINE bool result_from(const WinogradTiles& t, const F& points_of) {
  constexpr int n = Points<r>::n;
  const V bias = t.bias == nullptr ? V(T(0)) : V::load(static_cast<const T*>(t.bias));
  T* to = static_cast<T*>(t.pixels);
  V finite(T(0));  // NaN from where something is not
  for (int64_t j = 0; j < t.tiles; ++j, to += kTile * V::size) {
    V columns[kTile][n];
    auto points = points_of(j);
    const auto load = [&points]() TENSOROPS_LAMBDA_INLINE { return points.next(); };
    from_points<r, V, false>(Product<V, decltype(load)>{load}, [&](int i, const V* m) TENSOROPS_LAMBDA_INLINE {
      V y[kTile];
      Points<r>::result(m, y);
#pragma GCC unroll 4
      for (int w = 0; w < kTile; ++w) columns[w][i] = y[w];
    });
    const int64_t width = t.width - kTile * j;
#pragma GCC unroll 4
    for (int w = 0; w < kTile; ++w) {
      V y[kTile];
      Points<r>::result(columns[w], y);
      finite = finite + (((y[0] - y[0]) + (y[1] - y[1])) + ((y[2] - y[2]) + (y[3] - y[3])));
      if (w >= width) continue;
#pragma GCC unroll 4
      for (int h = 0; h < kTile; ++h)
        if (h < t.rows) (y[h] + bias).store(to + h * t.pixels_row + w * V::size);
    }
  }
  return is_zero(finite);
}

struct StoredPoints {
  const T* at;
  const int64_t point;
  TENSOROPS_INLINE V next() {
    const V m = V::load(at);
    at += point;
    return m;
  }
};
template <int r>
bool result(const WinogradTiles& t) {
  return result_from<r>(t, [&](int64_t tile) TENSOROPS_LAMBDA_INLINE {
    return StoredPoints{static_cast<const T*>(t.points) + tile * t.tile, t.point};
  });
}

template <int K>
struct PointsOfFactors {
  const T *image, *weights;
  const int64_t image_channel, weights_point, weights_channel;
  TENSOROPS_INLINE V next() {
    V m = V(image[0]) * V::load(weights);
#pragma GCC unroll 4
    for (int k = 1; k < K; ++k) m = fma(V(image[k * image_channel]), V::load(weights + k * weights_channel), m);
    ++image;
    weights += weights_point;
    return m;
  }
};
template <int r, int K>
bool result_of_few(const WinogradTiles& t, const WinogradFactors& f) {
  return result_from<r>(t, [&](int64_t tile) TENSOROPS_LAMBDA_INLINE {
    return PointsOfFactors<K>{static_cast<const T*>(f.image) + tile * f.image_tile, static_cast<const T*>(f.weights),
                              f.image_channel, f.weights_point, f.weights_channel};
  });
}

template <int r>
void gradient(const WinogradTiles& t) {
  constexpr int n = Points<r>::n;
  const T* x = static_cast<const T*>(t.pixels);
  T* to = static_cast<T*>(t.points);
  const int64_t point = t.point;
  for (int64_t j = 0; j < t.tiles; ++j, to += t.tile, x += kTile * V::size) {
    V columns[n][kTile];
#pragma GCC unroll 4
    for (int w = 0; w < kTile; ++w) {
      V g[kTile], z[n];
#pragma GCC unroll 4
      for (int h = 0; h < kTile; ++h) g[h] = V::load(x + h * t.pixels_row + w * V::size);
      Points<r>::gradient(g, z);
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) columns[i][w] = z[i];
    }
    T* at = to;
    const auto store = [&at, point](V v) TENSOROPS_LAMBDA_INLINE {
      v.store(at);
      at += point;
    };
    to_points<r, V, false>([&](int i, V* v) TENSOROPS_LAMBDA_INLINE { Points<r>::gradient(columns[i], v); },
                           ProductGradient<V, decltype(store)>{store});
  }
}

template <int r>
void weights(const void* packed, int64_t channels, int64_t channel, int64_t tap, int64_t width, void* points, int64_t point) {
  constexpr int n = Points<r>::n;
  constexpr int64_t kAhead = 8;
  for (int64_t c = 0; c < channels; ++c) {
    // Where they lie, weights are a line here and a line there.
    for (int t = 0; t < r * r; ++t) __builtin_prefetch(static_cast<const T*>(packed) + (c + kAhead) * channel + t * tap);
    for (int64_t lane = 0; lane < width; lane += V::size) {
      const T* from = static_cast<const T*>(packed) + c * channel + lane;
      V columns[n][r];
      for (int w = 0; w < r; ++w) {
        V g[r], u[n];
#pragma GCC unroll 8
        for (int h = 0; h < r; ++h) g[h] = V::load(from + (h * r + w) * tap);
        Points<r>::weights(g, u);
#pragma GCC unroll 8
        for (int i = 0; i < n; ++i) columns[i][w] = u[i];
      }
      T* to = static_cast<T*>(points) + c * width + lane;
      const auto store = [&](V u) TENSOROPS_LAMBDA_INLINE {
        u.store(to);
        to += point;
      };
      to_points<r, V, true>([&](int i, V* u) TENSOROPS_LAMBDA_INLINE { Points<r>::weights(columns[i], u); },
                            Factor<V, decltype(store)>{store});
    }
  }
}

template <int r>
bool taps(const void* points, int64_t point, void* taps, int64_t tap_stride) {
  constexpr int n = Points<r>::n;
  const T* from = static_cast<const T*>(points);
  const auto load = [&]() TENSOROPS_LAMBDA_INLINE {
    const V m = V::load(from);
    from += point;
    return m;
  };
  V columns[r][n];
  from_points<r, V, true>(FactorGradient<V, decltype(load)>{load}, [&](int i, const V* m) TENSOROPS_LAMBDA_INLINE {
    V y[r];
    Points<r>::taps(m, y);
#pragma GCC unroll 8
    for (int w = 0; w < r; ++w) columns[w][i] = y[w];
  });
  V finite(T(0));
#pragma GCC unroll 8
  for (int w = 0; w < r; ++w) {
    V y[r];
    Points<r>::taps(columns[w], y);
#pragma GCC unroll 8
    for (int h = 0; h < r; ++h) {
      y[h].store(static_cast<T*>(taps) + (h * r + w) * tap_stride);
      finite = finite + (y[h] - y[h]);
    }
  }
  return is_zero(finite);
}

// The rows of a tile from row `first` on.
template <int R, int N>
void product_of(const WinogradProduct& p, int64_t first) {
  V sum[R][N];
  // The chains before this one. In memory, unless there are registers for them beside the sums.
  constexpr bool kInRegisters = 2 * R * N + N + 1 <= (kVectorBytes == 64 ? 32 : 16);
  alignas(64) T room[R * N * V::size];
  T* const kept = kInRegisters ? static_cast<T*>(room) : opaque(static_cast<T*>(room));
  const auto in_kept = [&](int i, int v) TENSOROPS_LAMBDA_INLINE { return kept + (i * N + v) * V::size; };
  const T* a = static_cast<const T*>(p.a) + first * p.a_row;
  const T* b = static_cast<const T*>(p.b);
  for (int64_t done = 0;; done += p.chain) {
    for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v] = V(T(0)); });
    multiply<T, T, R, N, false>(a + done * p.a_step, p.a_row, p.a_step, b + done * p.b_step, p.b_step,
                                p.k - done < p.chain ? p.k - done : p.chain, sum);
    if (done > 0) for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v] = sum[i][v] + V::load(in_kept(i, v)); });
    if (done + p.chain >= p.k) break;
    for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v].store(in_kept(i, v)); });
  }
  T* const c = static_cast<T*>(p.c) + first * p.c_row;
  const int64_t c_row = p.c_row;
  const bool accumulate = p.accumulate;
  for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE {
    T* const to = c + i * c_row + v * V::size;
    (accumulate ? sum[i][v] + V::load(to) : sum[i][v]).store(to);
  });
}
template <int N, int R = rows_of<T>>
TENSOROPS_INLINE void product_of_rows(const WinogradProduct& p, int64_t first, int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return product_of_rows<N, R - 1>(p, first, rows);
  }
  product_of<R, N>(p, first);
}
void product(const WinogradProduct& p) {
  // Cut evenly: a tile of two rows takes as long as one of seven.
  const int64_t tiles = (p.rows + rows_of<T> - 1) / rows_of<T>;
  int64_t first = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t end = p.rows * (t + 1) / tiles;
    if (p.columns > V::size) product_of_rows<2>(p, first, end - first);
    else product_of_rows<1>(p, first, end - first);
    first = end;
  }
}

// `count` pixels, adjacent in the tensor, for f(i, vector i), one square of pixels and channels.
template <class S, bool Whole, class F>
TENSOROPS_INLINE void load_square(const S* from, int64_t channel, int64_t channels, int64_t count, F f) {
  V square[V::size];
#pragma GCC unroll 16
  for (int c = 0; c < V::size; ++c)
    square[c] = Whole          ? load_vector<T>(from + c * channel)
                : c < channels ? load_lanes<T>(from + c * channel, count)
                               : V(T(0));
  transpose<T>(square);
#pragma GCC unroll 16
  for (int i = 0; i < V::size; ++i)
    if (Whole || i < count) f(square[i]);
}

void lanes(const WinogradLanes& p) {
  const T* const* const rows = reinterpret_cast<const T* const*>(p.rows);
  T* to = static_cast<T*>(p.vectors);
  for (int64_t h = 0; h < p.size; ++h, to += p.size * V::size) {
    V square[V::size];
#pragma GCC unroll 16
    for (int l = 0; l < V::size; ++l) square[l] = V::load(rows[l] + h * p.row);
    transpose<T>(square);
#pragma GCC unroll 8
    for (int w = 0; w < 8; ++w)
      if (w < p.size) square[w].store(to + w * V::size);
  }
}

template <class S>
void load_pixels(const WinogradPixels& p) {
  const S* const from = static_cast<const S*>(p.tensor);
  T* to = static_cast<T*>(p.vectors);
  if (p.pixel == 1) {
    // Rows that follow each other in the tensor are one run.
    const bool dense = p.row == p.width;
    const int64_t runs = dense ? 1 : p.rows, run = dense ? p.rows * p.width : p.width;
    const int64_t gap = p.vectors_row - p.width * V::size;
    int64_t w = 0;
    const auto put = [&](V pixel) TENSOROPS_LAMBDA_INLINE {
      pixel.store(to);
      to += V::size;
      if (++w == p.width) {
        w = 0;
        to += gap;
      }
    };
    for (int64_t h = 0; h < runs; ++h)
      for (int64_t i = 0; i < run; i += V::size) {
        const S* at = from + h * p.row + i;
        if (p.channels == V::size && run - i >= V::size)
          load_square<S, true>(at, p.channel, V::size, V::size, put);
        else
          load_square<S, false>(at, p.channel, p.channels, run - i < V::size ? run - i : V::size, put);
      }
    return;
  }
  for (int64_t h = 0; h < p.rows; ++h, to += p.vectors_row)
    for (int64_t w = 0; w < p.width; ++w) {
      const S* at = from + h * p.row + w * p.pixel;
      if (p.channel == 1) {
        load_lanes<T>(at, p.channels).store(to + w * V::size);
      } else {
        T lanes[V::size] = {};
        for (int64_t c = 0; c < p.channels; ++c) lanes[c] = load_as<T>(at[c * p.channel]);
        V::load(lanes).store(to + w * V::size);
      }
    }
}

template <class S>
void store_pixels(const WinogradPixels& p) {
  S* const to = static_cast<S*>(p.tensor);
  const T* const from = static_cast<const T*>(p.vectors);
  if (p.pixel == 1) {
    const bool dense = p.row == p.width && p.vectors_row == p.width * V::size;
    const int64_t runs = dense ? 1 : p.rows, run = dense ? p.rows * p.width : p.width;
    for (int64_t h = 0; h < runs; ++h)
      for (int64_t i = 0; i < run; i += V::size) {
        const int64_t count = run - i < V::size ? run - i : V::size;
        V square[V::size];
#pragma GCC unroll 16
        for (int j = 0; j < V::size; ++j)
          square[j] = j < count ? V::load(from + h * p.vectors_row + (i + j) * V::size) : V(T(0));
        transpose<T>(square);
        S* at = to + h * p.row + i;
#pragma GCC unroll 16
        for (int c = 0; c < V::size; ++c)
          if (c < p.channels) store_lanes(square[c], at + c * p.channel, count);
      }
    return;
  }
  for (int64_t h = 0; h < p.rows; ++h)
    for (int64_t w = 0; w < p.width; ++w) {
      const V pixel = V::load(from + h * p.vectors_row + w * V::size);
      S* at = to + h * p.row + w * p.pixel;
      if (p.channel == 1) {
        store_lanes(pixel, at, p.channels);
      } else {
        T lanes[V::size];
        pixel.store(lanes);
        for (int64_t c = 0; c < p.channels; ++c) at[c * p.channel] = StoreAs<S, T>::from(lanes[c]);
      }
    }
}

// A pair and a real value are one complex point, two pairs are two.
template <int r>
constexpr int points = Points<r>::reals * Points<r>::reals +
                       3 * (Points<r>::n - Points<r>::reals) * (Points<r>::reals + (Points<r>::n - Points<r>::reals) / 2);

// In the order of to_points(): at infinity lies the last of the weights alone.
template <int r>
struct NeedsOf {
  WinogradNeeds of[points<r>];
};
template <int r>
constexpr NeedsOf<r> needs_of() {
  constexpr int n = Points<r>::n, reals = Points<r>::reals, infinite = Points<r>::infinite;
  NeedsOf<r> needs{};
  WinogradNeeds* at = needs.of;
  for (int i = 0; i < n; i += i < reals ? 1 : 2)
    for (int j = 0; j < n; j += j < reals ? 1 : 2) {
      const int products = i < reals && j < reals ? 1 : i < reals || j < reals ? 3 : 6;
      for (int p = 0; p < products; ++p)
        *at++ = i == infinite && j == infinite ? WinogradNeeds::both
                : i == infinite                ? WinogradNeeds::row
                : j == infinite                ? WinogradNeeds::column
                                               : WinogradNeeds::nothing;
    }
  return needs;
}
template <int r>
constexpr NeedsOf<r> needs = needs_of<r>();
template <int r>
constexpr WinogradTransforms transforms{points<r>,  needs<r>.of, weights<r>, image<r>, result<r>,
                                        {result_of_few<r, 3>, result_of_few<r, 4>}, gradient<r>, taps<r>};

// In the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define STORAGE(f) {nullptr, nullptr, nullptr, nullptr, nullptr, f<Half>, f<float>, nullptr, nullptr, f<BFloat16>}

}  // namespace

extern const WinogradKernels winograd_kernels;
const WinogradKernels winograd_kernels = {
    {transforms<2>, transforms<3>, transforms<4>, transforms<5>}, product, lanes, STORAGE(load_pixels),
    STORAGE(store_pixels)};
#else
// Sums that round twice per term are up to 5 times as far off as torch's.
extern const WinogradKernels winograd_kernels;
const WinogradKernels winograd_kernels = {};
#endif

}  // namespace tensorops::cpu::TENSOROPS_ISA
