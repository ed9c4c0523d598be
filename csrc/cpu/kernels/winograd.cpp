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

// The transforms in one dimension. With M(x) the product of x - p over the finite points p, the row of B' for p holds the
// coefficients of M(x) / (x - p), that of G the powers of p divided by M'(p), and that of A those powers; at infinity they are
// M's coefficients and the highest power alone. Points come in pairs +-p, whose rows differ in the sign of the odd powers.
template <int r>
struct Points;

template <>
struct Points<3> {  // 0, 1, -1, infinity
  static constexpr int n = 4;
  template <class V>
  static TENSOROPS_INLINE void image(const V* d, V* v) {
    v[0] = d[0] - d[2];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  template <class V>
  static TENSOROPS_INLINE void result(const V* m, V* y) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = m[3] + (m[1] - m[2]);
  }
  template <class V>
  static TENSOROPS_INLINE void weights(const V* g, V* u) {
    const V even = 0.5 * (g[0] + g[2]), odd = 0.5 * g[1];
    u[0] = g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g[2];
  }
  template <class V>
  static TENSOROPS_INLINE void gradient(const V* g, V* z) {
    const V even = 0.5 * g[0], odd = 0.5 * g[1];
    z[0] = g[0];
    z[1] = even + odd;
    z[2] = even - odd;
    z[3] = g[1];
  }
  template <class V>
  static TENSOROPS_INLINE void taps(const V* m, V* y) {
    const V even = m[1] + m[2];
    y[0] = m[0] + even;
    y[1] = m[1] - m[2];
    y[2] = m[3] + even;
  }
};

template <>
struct Points<5> {  // 0, a, -a, b, -b, infinity
  static constexpr int n = 6;
  static constexpr double a = 2.0 / 3, b = 1 / a, a2 = a * a, b2 = b * b;
  static constexpr double at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));  // 1 / M'
  template <class V>
  static TENSOROPS_INLINE void image(const V* d, V* v) {
    const V even_a = fma(V(-b2), d[2], d[4]), odd_a = fma(V(-b2), d[1], d[3]);
    const V even_b = fma(V(-a2), d[2], d[4]), odd_b = fma(V(-a2), d[1], d[3]);
    v[0] = fma(V(-(a2 + b2)), d[2], d[0] + d[4]);
    v[1] = fma(V(a), odd_a, even_a);
    v[2] = fma(V(-a), odd_a, even_a);
    v[3] = fma(V(b), odd_b, even_b);
    v[4] = fma(V(-b), odd_b, even_b);
    v[5] = fma(V(-(a2 + b2)), d[3], d[1] + d[5]);
  }
  template <class V>
  static TENSOROPS_INLINE void result(const V* m, V* y) {
    y[0] = m[0] + ((m[1] + m[2]) + (m[3] + m[4]));
    y[1] = fma(V(a), m[1] - m[2], fma(V(b), m[3] - m[4], m[5]));
  }
  template <class V>
  static TENSOROPS_INLINE void weights(const V* g, V* u) {
    const V even_a = at_a * (g[0] + a2 * g[2] + a2 * a2 * g[4]), odd_a = at_a * a * (g[1] + a2 * g[3]);
    const V even_b = at_b * (g[0] + b2 * g[2] + b2 * b2 * g[4]), odd_b = at_b * b * (g[1] + b2 * g[3]);
    u[0] = g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[4];
  }
  template <class V>
  static TENSOROPS_INLINE void gradient(const V* g, V* z) {
    const V even_a = at_a * g[0], even_b = at_b * g[0];
    z[0] = g[0];
    z[1] = fma(V(at_a * a), g[1], even_a);
    z[2] = fma(V(-at_a * a), g[1], even_a);
    z[3] = fma(V(at_b * b), g[1], even_b);
    z[4] = fma(V(-at_b * b), g[1], even_b);
    z[5] = g[1];
  }
  template <class V>
  static TENSOROPS_INLINE void taps(const V* m, V* y) {
    const V even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + (even_a + even_b);
    y[1] = a * odd_a + b * odd_b;
    y[2] = a2 * even_a + b2 * even_b;
    y[3] = a * a2 * odd_a + b * b2 * odd_b;
    y[4] = m[5] + (a2 * a2 * even_a + b2 * b2 * even_b);
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

constexpr int kTilesTogether = 8;  // whose columns lie in the first cache between the two dimensions

template <int r>
void image(const WinogradTiles& t) {
  constexpr int n = Points<r>::n, kept = n - 2;
  V columns[n][2 * kTilesTogether + kept];
  const T* x = static_cast<const T*>(t.pixels);
  T* to = static_cast<T*>(t.points);
  for (int64_t first = 0; first < t.tiles; first += kTilesTogether) {
    const int64_t tiles = t.tiles - first < kTilesTogether ? t.tiles - first : kTilesTogether;
    if (first > 0)  // the tiles' overlap with those before
      for (int i = 0; i < n; ++i)
        for (int w = 0; w < kept; ++w) columns[i][w] = columns[i][2 * kTilesTogether + w];
    for (int64_t w = first > 0 ? kept : 0; w < 2 * tiles + kept; ++w) {
      V d[n], v[n];
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) d[i] = V::load(x + i * t.pixels_row + (2 * first + w) * V::size);
      Points<r>::image(d, v);
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) columns[i][w] = v[i];
    }
    for (int64_t j = 0; j < tiles; ++j, to += t.tile) {
      T* at = to;
      for (int i = 0; i < n; ++i) {
        V v[n];
        Points<r>::image(&columns[i][2 * j], v);
#pragma GCC unroll 8
        for (int s = 0; s < n; ++s, at += t.point) v[s].store(at);
      }
    }
  }
}

template <int r>
bool result(const WinogradTiles& t) {
  constexpr int n = Points<r>::n;
  const V bias = t.bias == nullptr ? V(T(0)) : V::load(static_cast<const T*>(t.bias));
  const T* from = static_cast<const T*>(t.points);
  T* to = static_cast<T*>(t.pixels);
  V finite(T(0));  // NaN from where something is not
  for (int64_t j = 0; j < t.tiles; ++j, from += t.tile, to += 2 * V::size) {
    V rows[2][n];
#pragma GCC unroll 8
    for (int s = 0; s < n; ++s) {
      V m[n], y[2];
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) m[i] = V::load(from + (i * n + s) * t.point);
      Points<r>::result(m, y);
      rows[0][s] = y[0];
      rows[1][s] = y[1];
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      V y[2];
      Points<r>::result(rows[h], y);
      finite = finite + ((y[0] - y[0]) + (y[1] - y[1]));
      if (h >= t.rows) continue;
      (y[0] + bias).store(to + h * t.pixels_row);
      if (2 * j + 1 < t.width) (y[1] + bias).store(to + h * t.pixels_row + V::size);
    }
  }
  return is_zero(finite);
}

template <int r>
void gradient(const WinogradTiles& t) {
  constexpr int n = Points<r>::n;
  const T* x = static_cast<const T*>(t.pixels);
  T* to = static_cast<T*>(t.points);
  for (int64_t j = 0; j < t.tiles; ++j, to += t.tile, x += 2 * V::size) {
    V columns[2][n];
#pragma GCC unroll 2
    for (int w = 0; w < 2; ++w) {
      const V g[2] = {V::load(x + w * V::size), V::load(x + t.pixels_row + w * V::size)};
      Points<r>::gradient(g, columns[w]);
    }
    T* at = to;
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      const V g[2] = {columns[0][i], columns[1][i]};
      V z[n];
      Points<r>::gradient(g, z);
#pragma GCC unroll 8
      for (int s = 0; s < n; ++s, at += t.point) z[s].store(at);
    }
  }
}

// Once per weight, not per pixel: in f64, so that what is rounded to T is right to the last place.
template <int r>
void weights(const void* packed, int64_t channels, int64_t channel, int64_t tap, int64_t width, void* points, int64_t point) {
  using D = Vec<double>;
  constexpr int n = Points<r>::n;
  constexpr int64_t kAhead = 8;
  for (int64_t c = 0; c < channels; ++c) {
    // Where they lie, weights are a line here and a line there.
    for (int t = 0; t < r * r; ++t) __builtin_prefetch(static_cast<const T*>(packed) + (c + kAhead) * channel + t * tap);
    for (int64_t lane = 0; lane < width; lane += D::size) {
      const T* from = static_cast<const T*>(packed) + c * channel + lane;
      D columns[r][n];
      for (int w = 0; w < r; ++w) {
        D g[r];
#pragma GCC unroll 8
        for (int h = 0; h < r; ++h) g[h] = load_vector<double>(from + (h * r + w) * tap);
        Points<r>::weights(g, columns[w]);
      }
      T* to = static_cast<T*>(points) + c * width + lane;
      for (int i = 0; i < n; ++i) {
        D g[r], u[n];
#pragma GCC unroll 8
        for (int w = 0; w < r; ++w) g[w] = columns[w][i];
        Points<r>::weights(g, u);
#pragma GCC unroll 8
        for (int s = 0; s < n; ++s, to += point) store_vector(u[s], to);
      }
    }
  }
}

template <int r>
bool taps(const void* points, int64_t point, void* taps, int64_t tap_stride) {
  using D = Vec<double>;
  constexpr int n = Points<r>::n;
  D finite(0.0);
  for (int64_t lane = 0; lane < V::size; lane += D::size) {
    const T* from = static_cast<const T*>(points) + lane;
    D columns[n][r];
    for (int s = 0; s < n; ++s) {
      D m[n];
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) m[i] = load_vector<double>(from + (i * n + s) * point);
      Points<r>::taps(m, columns[s]);
    }
    T* to = static_cast<T*>(taps) + lane;
    for (int h = 0; h < r; ++h) {
      D m[n], y[r];
#pragma GCC unroll 8
      for (int s = 0; s < n; ++s) m[s] = columns[s][h];
      Points<r>::taps(m, y);
#pragma GCC unroll 8
      for (int w = 0; w < r; ++w, to += tap_stride) {
        store_vector(y[w], to);
        finite = finite + (y[w] - y[w]);
      }
    }
  }
  return is_zero(finite);
}

template <int R, int N>
void product_of(const WinogradProduct& p) {
  V sum[R][N];
  // The chains before this one. In memory, unless there are registers for them beside the sums.
  constexpr bool kInRegisters = 2 * R * N + N + 1 <= (kVectorBytes == 64 ? 32 : 16);
  alignas(64) T room[R * N * V::size];
  T* const kept = kInRegisters ? static_cast<T*>(room) : opaque(static_cast<T*>(room));
  const auto in_kept = [&](int i, int v) TENSOROPS_LAMBDA_INLINE { return kept + (i * N + v) * V::size; };
  const T* a = static_cast<const T*>(p.a);
  const T* b = static_cast<const T*>(p.b);
  for (int64_t done = 0;; done += p.chain) {
    for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v] = V(T(0)); });
    multiply<T, T, R, N, false>(a + done * p.a_step, p.a_row, p.a_step, b + done * p.b_step, p.b_step,
                                p.k - done < p.chain ? p.k - done : p.chain, sum);
    if (done > 0) for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v] = sum[i][v] + V::load(in_kept(i, v)); });
    if (done + p.chain >= p.k) break;
    for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v].store(in_kept(i, v)); });
  }
  T* const c = static_cast<T*>(p.c);
  const int64_t c_row = p.c_row;
  const bool accumulate = p.accumulate;
  for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE {
    T* const to = c + i * c_row + v * V::size;
    (accumulate ? sum[i][v] + V::load(to) : sum[i][v]).store(to);
  });
}
template <int N, int R = rows_of<T>>
TENSOROPS_INLINE void product_of_rows(const WinogradProduct& p) {
  if constexpr (R > 1) {
    if (p.rows < R) return product_of_rows<N, R - 1>(p);
  }
  product_of<R, N>(p);
}
void product(const WinogradProduct& p) {
  if (p.columns > V::size) product_of_rows<2>(p);
  else product_of_rows<1>(p);
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

template <int r>
constexpr WinogradTransforms transforms{weights<r>, image<r>, result<r>, gradient<r>, taps<r>};

// In the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define STORAGE(f) {nullptr, nullptr, nullptr, nullptr, nullptr, f<Half>, f<float>, nullptr, nullptr, f<BFloat16>}

}  // namespace

extern const WinogradKernels winograd_kernels;
const WinogradKernels winograd_kernels = {
    rows_of<T>, {transforms<3>, transforms<5>}, product, STORAGE(load_pixels), STORAGE(store_pixels)};
#else
// Sums that round twice per term are up to 5 times as far off as torch's.
extern const WinogradKernels winograd_kernels;
const WinogradKernels winograd_kernels = {};
#endif

}  // namespace tensorops::cpu::TENSOROPS_ISA
