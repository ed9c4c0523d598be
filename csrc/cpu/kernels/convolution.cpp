// The tile product of convolution, once per instruction set.
#include "cpu/kernels/convolution.h"

#include "cpu/kernels/conv_tile.h"
#include "cpu/kernels/convert.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// Loads once what several multiply-adds use: GCC would make it a memory operand of each.
template <class T>
TENSOROPS_INLINE Vec<T> in_register(Vec<T> x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x.v));
#elif defined(__x86_64__)
  asm("" : "+x"(x.v));
#endif
  return x;
}

// The lanes of a vector that a mask names, the others zero.
#if defined(__AVX2__) && !defined(__AVX512F__)
typedef __m256i LaneMask;
template <class T>
TENSOROPS_INLINE LaneMask lane_mask(uint16_t mask) {
  LaneMask lanes;
  if constexpr (sizeof(T) == 4) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    lanes = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask), bits), bits);
  } else {
    const __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8);
    lanes = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(mask), bits), bits);
  }
  asm("" : "+x"(lanes));  // GCC would make it anew for every load
  return lanes;
}
#else
typedef uint16_t LaneMask;
template <class T>
TENSOROPS_INLINE LaneMask lane_mask(uint16_t mask) {
  return mask;
}
#endif
template <class T>
TENSOROPS_INLINE Vec<T> load_masked(const T* p, LaneMask mask) {
  [[maybe_unused]] typedef typename Native<T>::type V;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return Vec<T>((V)_mm512_maskz_loadu_epi32(__mmask16(mask), p));
  else return Vec<T>((V)_mm512_maskz_loadu_epi64(__mmask8(mask), p));
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return Vec<T>((V)_mm256_maskload_epi32((const int*)p, mask));
  else return Vec<T>((V)_mm256_maskload_epi64((const long long*)p, mask));
#else
  return Vec<T>::load(p);
#endif
}
template <class T>
constexpr bool takes_masks = kVectorBytes >= 32 && is_floating<T>;
// Under AVX2 a mask is a register and a few instructions for each tap, and the copy of long rows reads them in the order of
// memory: of several channels only that of short ones takes longer (csrc/README.md).
template <class T>
constexpr int masked_vectors = !takes_masks<T> ? 0 : kVectorBytes == 64 ? 1 << 30 : 2;

// Every other element of two vectors, from number `First` on.
template <int First, class T>
TENSOROPS_INLINE Vec<T> every_other(Vec<T> a, Vec<T> b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // Halves of the registers are taken one by one, then put in order: GCC would take both vectors apart.
  if constexpr (__is_same(T, float)) {
    const __m256 halves = _mm256_shuffle_ps((__m256)a.v, (__m256)b.v, First == 0 ? 0x88 : 0xdd);
    return Vec<T>((typename Native<T>::type)_mm256_permute4x64_epi64((__m256i)halves, 0xd8));
  }
  if constexpr (__is_same(T, double)) {
    const __m256d halves = _mm256_shuffle_pd((__m256d)a.v, (__m256d)b.v, First == 0 ? 0x0 : 0xf);
    return Vec<T>((typename Native<T>::type)_mm256_permute4x64_epi64((__m256i)halves, 0xd8));
  }
#endif
  typename Native<typename MaskInt<T>::type>::type index;
  for (int l = 0; l < Vec<T>::size; ++l) index[l] = 2 * l + First;
  return Vec<T>(__builtin_shuffle(a.v, b.v, index));
}

// Where one vector of pixels finds the image at one tap, S columns apart.
template <class T, int S>
struct TapLanes {
  LaneMask mask[S];
  // `masks`: of the S vectors it lies in, `apart` elements from one to the next.
  TENSOROPS_INLINE TapLanes(const uint16_t* masks, int64_t apart) {
    for (int s = 0; s < S; ++s) mask[s] = lane_mask<T>(masks[s * apart]);
  }
  TENSOROPS_INLINE Vec<T> load(const T* at) const {
    if constexpr (S == 1) return load_masked(at, mask[0]);
    else return every_other<0>(load_masked(at, mask[0]), load_masked(at + Vec<T>::size, mask[1]));
  }
};

// O channels by R rows by N vectors.
template <class T, int O, int R, int N, bool Masked>
void plane_tile(const ConvPlane& p, int64_t o, int64_t i, int64_t j) {
  using V = Vec<T>;
  const T* const x = static_cast<const T*>(p.x) + i * p.x_row + j;
  const T* const weight = static_cast<const T*>(p.weight) + o * p.weight_row;
  const int64_t x_row = p.x_row;
  V total[O][R][N];
#pragma GCC unroll 4
  for (int c = 0; c < O; ++c)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v)
        total[c][r][v] = p.bias != nullptr ? V(static_cast<const T*>(p.bias)[o + c]) : V(T(0));
  for (int64_t done = 0; done < p.k; done += kConvChain) {
    const int64_t end = p.k - done < kConvChain ? p.k : done + kConvChain;
    V sum[O][R][N];
#pragma GCC unroll 4
    for (int c = 0; c < O; ++c)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) sum[c][r][v] = V(T(0));
    for (int64_t k = done; k < end; ++k) {
      const T* at = x + p.steps[k];
      V w[O];
#pragma GCC unroll 4
      for (int c = 0; c < O; ++c) w[c] = weight[c * p.weight_row + k];
      [[maybe_unused]] LaneMask mask[N];
      if constexpr (Masked)
        for (int v = 0; v < N; ++v) mask[v] = lane_mask<T>(p.masks[(j / V::size + v) * p.masks_vector + k]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r, at += x_row)
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) {
          V value;
          if constexpr (Masked) value = load_masked(at + v * V::size, mask[v]);
          else value = V::load(at + v * V::size);
#pragma GCC unroll 4
          for (int c = 0; c < O; ++c) sum[c][r][v] = fma(value, w[c], sum[c][r][v]);
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < O; ++c)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) total[c][r][v] = total[c][r][v] + sum[c][r][v];
  }
#pragma GCC unroll 4
  for (int c = 0; c < O; ++c) {
    T* out = static_cast<T*>(p.out) + (o + c) * p.out_channel + i * p.out_row + j;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r, out += p.out_row)
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v)
        if (j + v * V::size < p.width) store_lanes(total[c][r][v], out + v * V::size, p.width - j - v * V::size);
  }
}

template <class T, int O, int N, bool Masked, int R>
TENSOROPS_INLINE void plane_for_rows(const ConvPlane& p, int64_t o, int64_t i, int64_t j, int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return plane_for_rows<T, O, N, Masked, R - 1>(p, o, i, j, rows);
  }
  plane_tile<T, O, R, N, Masked>(p, o, i, j);
}

// Rows in tiles of nearly equal height, so that none is too low to cover the latency of its multiply-adds.
template <class T, int O, bool Masked>
TENSOROPS_INLINE void plane_channels(const ConvPlane& p, int64_t o) {
  constexpr int kSums = kVectorBytes == 64 && is_floating<T> ? 24 : 8;
  constexpr int V = Vec<T>::size;
  const auto column = [&]<int N>(int64_t j) TENSOROPS_LAMBDA_INLINE {
    constexpr int kTall = kSums / (O * N) < 8 ? kSums / (O * N) : 8;
    const int64_t tiles = (p.height + kTall - 1) / kTall;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t i = p.height * t / tiles;
      plane_for_rows<T, O, N, Masked, kTall>(p, o, i, j, p.height * (t + 1) / tiles - i);
    }
  };
  int64_t j = 0;
  for (; j + V < p.width; j += 2 * V) column.template operator()<2>(j);
  if (j < p.width) column.template operator()<1>(j);
}

template <class T, bool Masked>
TENSOROPS_INLINE void plane_masked(const ConvPlane& p) {
  int64_t o = 0;
  for (; o + 3 <= p.channels; o += 3) plane_channels<T, 3, Masked>(p, o);
  for (; o < p.channels; ++o) plane_channels<T, 1, Masked>(p, o);
}

template <class T>
void plane(const ConvPlane& p) {
  if (takes_masks<T> && p.masks != nullptr) plane_masked<T, takes_masks<T>>(p);
  else plane_masked<T, false>(p);
}

// K rows of taps, R rows by one vector, S rows and columns of x apart. Bounded: some of the rows of x may lie above or below the
// image.
template <class T, int K, int R, int S, bool Masked, bool Bounded>
TENSOROPS_INLINE void stencil_sums(const ConvPlane& p, int64_t i, int64_t j, Vec<T> (&sum)[R]) {
  using V = Vec<T>;
  const int64_t row = p.x_row / S, columns = p.k / K;
  const T* const x = static_cast<const T*>(p.x) + i * p.x_row + j * S;
  const T* const weight = static_cast<const T*>(p.weight);
  for (int64_t column = 0; column < columns; ++column) {
    V w[K];
#pragma GCC unroll 7
    for (int t = 0; t < K; ++t) w[t] = weight[t * columns + column];
    const T* at = x + p.steps[column];
    const auto add = [&](auto load) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 17
      for (int h = 0; h < S * (R - 1) + K; ++h, at += row) {
        if (Bounded && (S * i + h < p.x_begin || S * i + h >= p.x_end)) continue;
        const V value = load(at);
#pragma GCC unroll 7
        for (int t = 0; t < K; ++t)
          if (h >= t && (h - t) % S == 0 && (h - t) / S < R) sum[(h - t) / S] = fma(value, w[t], sum[(h - t) / S]);
      }
    };
    if constexpr (Masked) {
      const TapLanes<T, S> lanes(p.masks + j / V::size * S * p.masks_vector + column, p.masks_vector);
      add([&](const T* from) TENSOROPS_LAMBDA_INLINE { return lanes.load(from); });
    } else {
      add([](const T* from) TENSOROPS_LAMBDA_INLINE { return in_register(V::load(from)); });
    }
  }
}

template <class T, int K, int R, int S, bool Masked>
void stencil_tile(const ConvPlane& p, int64_t i, int64_t j) {
  using V = Vec<T>;
  V sum[R];
  const V first = p.bias != nullptr ? V(*static_cast<const T*>(p.bias)) : V(T(0));
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sum[r] = first;
  // The rows below, or those of the next plane, are on their way: a copy would read them in the order of memory.
  constexpr int64_t kLine = 64 / sizeof(T);
  if (Masked && S * j % kLine == 0) {
    const T* const below = static_cast<const T*>(p.x) + (i + R) * p.x_row + (K - S) * (p.x_row / S) + S * j;
#pragma GCC unroll 16
    for (int r = 0; r < S * R; ++r) fetch_lines<S * V::size>(below + r * (p.x_row / S));
  }
  if (Masked && (S * i < p.x_begin || S * (i + R - 1) + K > p.x_end)) stencil_sums<T, K, R, S, Masked, true>(p, i, j, sum);
  else stencil_sums<T, K, R, S, Masked, false>(p, i, j, sum);
  T* out = static_cast<T*>(p.out) + i * p.out_row + j;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r, out += p.out_row) store_lanes(sum[r], out, p.width - j);
}

template <class T, int K, int S, bool Masked, int R>
TENSOROPS_INLINE void stencil_for_rows(const ConvPlane& p, int64_t i, int64_t j, int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return stencil_for_rows<T, K, S, Masked, R - 1>(p, i, j, rows);
  }
  stencil_tile<T, K, R, S, Masked>(p, i, j);
}

template <class T, int K, int S, bool Masked>
void stencil_rows(const ConvPlane& p) {
  constexpr int kTall = 8;
  const int64_t tiles = (p.height + kTall - 1) / kTall;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t i = p.height * t / tiles, rows = p.height * (t + 1) / tiles - i;
    for (int64_t j = 0; j < p.width; j += Vec<T>::size) stencil_for_rows<T, K, S, Masked, kTall>(p, i, j, rows);
  }
}

template <class T, bool Masked>
void stencil_masked(const ConvPlane& p) {
  if (Masked && p.step == 2) stencil_rows<T, 3, Masked ? 2 : 1, Masked>(p);
  else if (p.tap_rows == 3) stencil_rows<T, 3, 1, Masked>(p);
  else if (p.tap_rows == 5) stencil_rows<T, 5, 1, Masked>(p);
  else stencil_rows<T, 7, 1, Masked>(p);
}

template <class T>
void stencil(const ConvPlane& p) {
  if (takes_masks<T> && p.masks != nullptr) stencil_masked<T, takes_masks<T>>(p);
  else stencil_masked<T, false>(p);
}

// By size of panel: channels, and vectors of pixels whose sums fill the registers.
struct PixelTile {
  int channels, vectors;
};
#if defined(__AVX512F__)
constexpr PixelTile kPixelTiles[kPixelPanels] = {{8, 3}, {6, 4}, {4, 6}};
#elif defined(__AVX2__)
constexpr PixelTile kPixelTiles[kPixelPanels] = {{4, 3}, {3, 3}, {2, 4}};
#else
constexpr PixelTile kPixelTiles[kPixelPanels] = {{4, 2}, {3, 2}, {2, 3}};
#endif

constexpr int64_t kFetchedTerms = 16;  // sums of so many take longer to make than their lines to fetch

// A panel of O channels by N vectors of pixels, of which all `channels` there are are stored.
template <class T, int O, int N>
void pixels_tile(const ConvPixels& p, const ConvVector* vectors, const T* weight, const T* bias, T* out, int64_t channels) {
  using V = Vec<T>;
  const T* x[N];
  for (int v = 0; v < N; ++v) x[v] = static_cast<const T*>(p.x) + vectors[v].x;
  // Lines of the result are on their way while the sums are made.
  if (p.k >= kFetchedTerms)
    for (int c = 0; c < O && c < channels; ++c)
      for (int v = 0; v < N; ++v) __builtin_prefetch(out + c * p.out_channel + vectors[v].out, 1);
  V sum[O][N], total[O][N];
  for (int64_t done = 0;; done += kConvChain) {
#pragma GCC unroll 8
    for (int c = 0; c < O; ++c)
#pragma GCC unroll 6
      for (int v = 0; v < N; ++v) sum[c][v] = V(T(0));
    const int64_t end = p.k - done < kConvChain ? p.k : done + kConvChain;
    for (int64_t k = done; k < end; ++k, weight += O) {
      const int64_t step = p.steps[k];
      V value[N];
#pragma GCC unroll 6
      for (int v = 0; v < N; ++v) value[v] = V::load(x[v] + step);
#pragma GCC unroll 6
      for (int v = 0; v < N; ++v) __builtin_prefetch(x[v] + step + N * V::size);
#pragma GCC unroll 8
      for (int c = 0; c < O; ++c) {
        const V w = weight[c];
#pragma GCC unroll 6
        for (int v = 0; v < N; ++v) sum[c][v] = fma(value[v], w, sum[c][v]);
      }
    }
    if (done > 0) {
#pragma GCC unroll 8
      for (int c = 0; c < O; ++c)
#pragma GCC unroll 6
        for (int v = 0; v < N; ++v) sum[c][v] = sum[c][v] + total[c][v];
    }
    if (done + kConvChain >= p.k) break;
#pragma GCC unroll 8
    for (int c = 0; c < O; ++c)
#pragma GCC unroll 6
      for (int v = 0; v < N; ++v) total[c][v] = sum[c][v];
  }
#pragma GCC unroll 8
  for (int c = 0; c < O; ++c, out += p.out_channel) {
    if (c == channels) return;
    const V first = bias[c];
#pragma GCC unroll 6
    for (int v = 0; v < N; ++v) store_lanes(sum[c][v] + first, out + vectors[v].out, vectors[v].lanes);
  }
}

// The up to N vectors that a whole tile is too wide for.
template <class T, int O, int N>
TENSOROPS_INLINE void pixels_left(const ConvPixels& p, const ConvVector* vectors, int64_t count, const T* weight, const T* bias,
                                  T* out, int64_t channels) {
  if constexpr (N > 0) {
    if (count < N) return pixels_left<T, O, N - 1>(p, vectors, count, weight, bias, out, channels);
    pixels_tile<T, O, N>(p, vectors, weight, bias, out, channels);
  }
}

template <class T, int Panel>
void pixels_of_panel(const ConvPixels& p) {
  constexpr int O = kPixelTiles[Panel].channels, N = kPixelTiles[Panel].vectors;
  const T* weight = static_cast<const T*>(p.weight);
  const T* bias = static_cast<const T*>(p.bias);
  T* out = static_cast<T*>(p.out);
  for (int64_t c = 0; c < p.channels; c += O, weight += p.weight_panel, bias += O, out += O * p.out_channel) {
    int64_t v = 0;
    for (; v + N <= p.vector_count; v += N) pixels_tile<T, O, N>(p, p.vectors + v, weight, bias, out, p.channels - c);
    pixels_left<T, O, N - 1>(p, p.vectors + v, p.vector_count - v, weight, bias, out, p.channels - c);
  }
}
template <class T>
void pixels(const ConvPixels& p) {
  if (p.panel == 0) pixels_of_panel<T, 0>(p);
  else if (p.panel == 1) pixels_of_panel<T, 1>(p);
  else pixels_of_panel<T, 2>(p);
}

// O channels of the gradient by K taps. Chains of kConvChain pixels are added to the sums lane by lane.
template <class T, int O, int K>
void pixels_gradient_tile(const ConvPixelsGradient& p, int64_t channel, int64_t tap) {
  using V = Vec<T>;
  T* const sums = static_cast<T*>(p.sums);
  const int64_t across = (p.width + V::size - 1) / V::size, rows = across < kConvChain ? kConvChain / across : 1;
  const int64_t* const steps = p.steps + tap;
  for (int64_t begin = 0; begin < p.height; begin += rows) {
    const int64_t end = p.height - begin < rows ? p.height : begin + rows;
    const T* grad = static_cast<const T*>(p.grad) + channel * p.grad_channel + begin * p.grad_row;
    const T* x = static_cast<const T*>(p.x) + begin * p.x_row;
    V sum[K][O];
    for_tile<K, O>([&](int k, int o) TENSOROPS_LAMBDA_INLINE { sum[k][o] = V(T(0)); });
    const auto add = [&](auto load) TENSOROPS_LAMBDA_INLINE {
      V g[O];
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) g[o] = in_register(load(grad + o * p.grad_channel));
#pragma GCC unroll 6
      for (int k = 0; k < K; ++k) {
        const V value = in_register(load(x + steps[k]));
#pragma GCC unroll 4
        for (int o = 0; o < O; ++o) sum[k][o] = fma(value, g[o], sum[k][o]);
      }
    };
    for (int64_t i = begin; i < end; ++i, grad += p.grad_row, x += p.x_row) {
      int64_t j = 0;
      for (; j + V::size <= p.width; j += V::size) add([&](const T* from) TENSOROPS_LAMBDA_INLINE { return V::load(from + j); });
      // Both operands end with the row: what lies behind may be inf or NaN.
      if (j < p.width) add([&](const T* from) TENSOROPS_LAMBDA_INLINE { return load_lanes<T>(from + j, p.width - j); });
    }
    for_tile<K, O>([&](int k, int o) TENSOROPS_LAMBDA_INLINE {
      T* const at = sums + ((channel + o) * p.k + tap + k) * V::size;
      (V::load(at) + sum[k][o]).store(at);
    });
  }
}

template <class T, int O>
void pixels_gradient_channels(const ConvPixelsGradient& p, int64_t channel) {
  for (int64_t tap = 0, left; (left = p.k - tap) > 0;) {
    // Five by five without a remainder.
    if (left % 5 == 0) pixels_gradient_tile<T, O, 5>(p, channel, tap), tap += 5;
    else if (left >= 6) pixels_gradient_tile<T, O, 6>(p, channel, tap), tap += 6;
    else if (left >= 3) pixels_gradient_tile<T, O, 3>(p, channel, tap), tap += 3;
    else pixels_gradient_tile<T, O, 1>(p, channel, tap), ++tap;
  }
}

template <class T>
void pixels_gradient(const ConvPixelsGradient& p) {
#if defined(__AVX512F__)
  constexpr int O = 4;
#else
  constexpr int O = 2;
#endif
  int64_t channel = 0;
  for (; channel + O <= p.channels; channel += O) pixels_gradient_channels<T, O>(p, channel);
  if constexpr (O > 2)
    for (; channel + 2 <= p.channels; channel += 2) pixels_gradient_channels<T, 2>(p, channel);
  for (; channel < p.channels; ++channel) pixels_gradient_channels<T, 1>(p, channel);
}

// K taps at once, so that each vector of the gradient is read once for all of them.
template <class T, int K>
TENSOROPS_INLINE void plane_taps(const ConvPlaneGradient& p, int64_t tap) {
  using V = Vec<T>;
  T* const sums = static_cast<T*>(p.sums) + tap;
  const int64_t across = (p.width + V::size - 1) / V::size;
  const int64_t rows = across < kConvChain ? kConvChain / across : 1;
  for (int64_t begin = 0; begin < p.height; begin += rows) {
    const int64_t end = p.height - begin < rows ? p.height : begin + rows;
    V sum[K];
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) sum[k] = V(T(0));
    for (int64_t i = begin; i < end; ++i) {
      const T* grad = static_cast<const T*>(p.grad) + i * p.grad_row;
      const T* x = static_cast<const T*>(p.x) + i * p.x_row;
      int64_t j = 0;
      for (; j + V::size <= p.width; j += V::size) {
        const V g = V::load(grad + j);
#pragma GCC unroll 16
        for (int k = 0; k < K; ++k) sum[k] = fma(V::load(x + p.steps[tap + k] + j), g, sum[k]);
      }
      if (j < p.width) {
        // Both operands end with the row: what lies behind may be inf or NaN.
        const V g = load_lanes<T>(grad + j, p.width - j);
#pragma GCC unroll 16
        for (int k = 0; k < K; ++k) sum[k] = fma(load_lanes<T>(x + p.steps[tap + k] + j, p.width - j), g, sum[k]);
      }
    }
#pragma GCC unroll 16
    for (int k = 0; k < K; ++k) sums[k] += sum_lanes(sum[k]);
  }
}

template <class T>
void plane_gradient(const ConvPlaneGradient& p) {
  int64_t tap = 0;
  for (; tap + 9 <= p.k; tap += 9) plane_taps<T, 9>(p, tap);
  for (; tap + 5 <= p.k; tap += 5) plane_taps<T, 5>(p, tap);
  for (; tap < p.k; ++tap) plane_taps<T, 1>(p, tap);
}

// H rows of taps at once, over a few rows of the gradient, whose pixels find the image S columns apart: masks are made once for
// each vector of these rows.
template <class T, int H, int S>
void masked_taps(const ConvPlaneGradient& p, int64_t row) {
  using V = Vec<T>;
  constexpr int W = kMaskedTaps;
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t across = (p.width + V::size - 1) / V::size, rows = across < kConvChain ? kConvChain / across : 1;
  T* const sums = static_cast<T*>(p.sums) + row * W;
  const int64_t* const steps = p.steps + row * W;
  const int64_t image_step = p.x_row / p.image_row;
  int64_t inner_begin = 0, inner_end = p.height;
  for (int h = 0; h < H; ++h) {
    if (p.begin[row + h] > inner_begin) inner_begin = p.begin[row + h];
    if (p.end[row + h] < inner_end) inner_end = p.end[row + h];
  }
  for (int64_t begin = 0; begin < p.height; begin += rows) {
    const int64_t end = p.height - begin < rows ? p.height : begin + rows;
    V sum[H][W];
    for_tile<H, W>([&](int h, int w) TENSOROPS_LAMBDA_INLINE { sum[h][w] = V(T(0)); });
    for (int64_t v = 0; v < across; ++v) {
      const int64_t j = v * V::size, left = p.width - j;
      const uint16_t* const masks = p.masks + v * S * W;
      const TapLanes<T, S> lanes[W] = {{masks, W}, {masks + 1, W}, {masks + 2, W}};
      const LaneMask inside = lane_mask<T>(uint16_t((1u << (left < V::size ? left : V::size)) - 1));
      const T* grad = static_cast<const T*>(p.grad) + begin * p.grad_row + j;
      const T* x = static_cast<const T*>(p.x) + begin * p.x_row + j * S;
      // The next rows are on their way.
      if (j % kLine == 0)
        for (int64_t i = 0; i < rows; ++i) __builtin_prefetch(grad + (i + rows) * p.grad_row);
      if (S * j % kLine == 0)
        for (int64_t r = 0; r < rows * image_step; ++r)
          fetch_lines<S * V::size>(x + rows * p.x_row + (r + H - image_step) * p.image_row);
      for (int64_t i = begin; i < end; ++i, grad += p.grad_row, x += p.x_row) {
        const V g = load_masked(grad, inside);
        const auto add = [&](int h) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 3
          for (int w = 0; w < W; ++w) sum[h][w] = fma(lanes[w].load(x + steps[h * W + w]), g, sum[h][w]);
        };
        if (i >= inner_begin && i < inner_end) {
#pragma GCC unroll 3
          for (int h = 0; h < H; ++h) add(h);
        } else {
#pragma GCC unroll 3
          for (int h = 0; h < H; ++h)
            if (i >= p.begin[row + h] && i < p.end[row + h]) add(h);
        }
      }
    }
    for_tile<H, W>([&](int h, int w) TENSOROPS_LAMBDA_INLINE { sums[h * W + w] += sum_lanes(sum[h][w]); });
  }
}

template <class T>
void masked_plane_gradient(const ConvPlaneGradient& p) {
  const int64_t rows = p.k / kMaskedTaps;
  int64_t row = 0;
  for (; row + 3 <= rows; row += 3) p.step == 1 ? masked_taps<T, 3, 1>(p, row) : masked_taps<T, 3, 2>(p, row);
  for (; row < rows; ++row) p.step == 1 ? masked_taps<T, 1, 1>(p, row) : masked_taps<T, 1, 2>(p, row);
}
template <class T>
constexpr auto masked_plane_gradient_of() -> void (*)(const ConvPlaneGradient&) {
  if constexpr (takes_masks<T>) return masked_plane_gradient<T>;
  else return nullptr;
}

// P pixels by N vectors of channels, the last of them `lanes` wide.
template <class S, class T, int P, int N>
TENSOROPS_INLINE void channels_tile(const ConvChannels& a, int64_t j, int64_t c, int64_t lanes) {
  using V = Vec<T>;
  const S* const x = static_cast<const S*>(a.x) + j * a.x_pixel + c;
  const T* const weight = static_cast<const T*>(a.weight) + c;
  const T* const bias = static_cast<const T*>(a.bias) + c;
  const int64_t x_pixel = a.x_pixel;
  const auto width = [&](int v) TENSOROPS_LAMBDA_INLINE { return v + 1 < N ? int64_t(V::size) : lanes; };
  V sum[P][N];
#pragma GCC unroll 4
  for (int v = 0; v < N; ++v) {
    const V first = a.bias != nullptr ? load_lanes<T>(bias + v * V::size, width(v)) : V(T(0));
#pragma GCC unroll 4
    for (int i = 0; i < P; ++i) sum[i][v] = first;
  }
  for (int64_t p = 0; p < a.k; ++p) {
    const S* at = x + a.steps[p];
    const T* row = weight + a.weight_rows[p] * a.channels;
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      const V w = load_lanes<T>(row + v * V::size, width(v));
#pragma GCC unroll 4
      for (int i = 0; i < P; ++i)
        sum[i][v] = fma(load_lanes<T>(at + i * x_pixel + v * V::size, width(v)), w, sum[i][v]);
    }
  }
  S* out = static_cast<S*>(a.out) + j * a.out_pixel + c;
#pragma GCC unroll 4
  for (int i = 0; i < P; ++i, out += a.out_pixel)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      store_lanes(sum[i][v], out + v * V::size, width(v));
    }
}

// K taps beside each other, over and over: a vector of the image goes into the sums of all P pixels that it belongs to.
template <class S, class T, int K, int P>
TENSOROPS_INLINE void channels_stencil(const ConvChannels& a, int64_t j, int64_t c) {
  using V = Vec<T>;
  const S* const x = static_cast<const S*>(a.x) + j * a.x_pixel + c;
  const T* const weight = static_cast<const T*>(a.weight) + c;
  const int64_t x_pixel = a.x_pixel;
  V sum[P];
  const V first = a.bias != nullptr ? V::load(static_cast<const T*>(a.bias) + c) : V(T(0));
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i) sum[i] = first;
  for (int64_t p = 0; p < a.k; p += K) {
    const S* at = x + a.steps[p];
    V w[K];
#pragma GCC unroll 7
    for (int t = 0; t < K; ++t) w[t] = V::load(weight + a.weight_rows[p + t] * a.channels);
#pragma GCC unroll 14
    for (int i = 0; i < P + K - 1; ++i, at += x_pixel) {
      const V value = in_register(load_vector<T>(at));
#pragma GCC unroll 7
      for (int t = 0; t < K; ++t)
        if (i >= t && i - t < P) sum[i - t] = fma(value, w[t], sum[i - t]);
    }
  }
  S* out = static_cast<S*>(a.out) + j * a.out_pixel + c;
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i, out += a.out_pixel) store_vector(sum[i], out);
}

// Whether the taps are in groups of K beside each other.
template <int K, class Arguments>
TENSOROPS_INLINE bool beside(const Arguments& a) {
  if (a.k % K != 0) return false;
  for (int64_t p = 0; p < a.k; ++p)
    if (p % K != 0 && a.steps[p] != a.steps[p - 1] + a.x_pixel) return false;
  return true;
}

// Whole vectors of channels. fetch() follows each tile.
template <class S, class T, int K, class F>
TENSOROPS_INLINE void channels_beside(const ConvChannels& a, const F& fetch) {
  constexpr int V = Vec<T>::size;
  const auto pixels = [&]<int P>(int64_t j) TENSOROPS_LAMBDA_INLINE {
    for (int64_t c = 0; c + V <= a.channels; c += V) {
      channels_stencil<S, T, K, P>(a, j, c);
      fetch();
    }
  };
  int64_t j = 0;
  for (; j + 8 <= a.pixels; j += 8) pixels.template operator()<8>(j);
  for (; j + 4 <= a.pixels; j += 4) pixels.template operator()<4>(j);
  for (; j < a.pixels; ++j) pixels.template operator()<1>(j);
}

template <class S, class T>
void channels(const ConvChannels& a) {
  constexpr int V = Vec<T>::size;
  int64_t first = 0;
  // Tiles of 8 pixels by one vector or of 4 by two.
  const int64_t tiles = a.pixels * a.channels / (8 * V) + 1;
  const int64_t lines = a.ahead_rows * a.ahead_row / 64 / tiles + 1;
  Ahead ahead(a.ahead, a.ahead_stride, a.ahead_row);
  const auto fetch = [&]() TENSOROPS_LAMBDA_INLINE {
    if (a.ahead != nullptr) ahead.step(lines);
  };
  if (a.pixels >= 4) {
    const int64_t whole = a.channels / V * V;
    if (beside<3>(a)) channels_beside<S, T, 3>(a, fetch), first = whole;
    else if (beside<5>(a)) channels_beside<S, T, 5>(a, fetch), first = whole;
    else if (beside<7>(a)) channels_beside<S, T, 7>(a, fetch), first = whole;
  }
  // All channels of a few pixels, which is the order of memory.
  const auto pixels = [&]<int P>(int64_t j) TENSOROPS_LAMBDA_INLINE {
    int64_t c = first;
    for (; c + 2 * V <= a.channels; c += 2 * V) {
      channels_tile<S, T, P, 2>(a, j, c, V);
      fetch();
    }
    for (; c < a.channels; c += V) channels_tile<S, T, P, 1>(a, j, c, a.channels - c < V ? a.channels - c : V);
  };
  int64_t j = 0;
  for (; j + 4 <= a.pixels; j += 4) pixels.template operator()<4>(j);
  for (; j < a.pixels; ++j) pixels.template operator()<1>(j);
}

// R rows of K taps at once, one vector of channels: the taps of a row beside each other, so that what one tap reads the tap
// before it reads from a register a pixel later; or, with K = 1, any.
template <class S, class T, int R, int K, bool Whole>
TENSOROPS_INLINE void channels_taps(const ConvChannelsGradient& a, int64_t tap, int64_t c) {
  using V = Vec<T>;
  const int64_t lanes = a.channels - c, x_pixel = a.x_pixel;
  const auto load = [&](const S* from) TENSOROPS_LAMBDA_INLINE {
    if constexpr (Whole) return load_vector<T>(from);
    else return load_lanes<T>(from, lanes);
  };
  const S* x[R];
  V sum[R][K], seen[R][K];
#pragma GCC unroll 9
  for (int r = 0; r < R; ++r) {
    x[r] = static_cast<const S*>(a.x) + a.steps[tap + r * K] + c;
#pragma GCC unroll 3
    for (int t = 0; t < K; ++t) sum[r][t] = V(T(0));
#pragma GCC unroll 2
    for (int t = 0; t < K - 1; ++t, x[r] += x_pixel) seen[r][t] = load(x[r]);
  }
  const S* grad = static_cast<const S*>(a.grad) + c;
  int64_t offset = 0;
  // seen[(t + First) % K] is what tap t reads.
  const auto pixel = [&]<int First>() TENSOROPS_LAMBDA_INLINE {
    const V g = in_register(load(grad));
    // In this order the hardware does not see them coming.
    if (a.ahead_rows > 0) {
      __builtin_prefetch(grad + a.grad_row);
      for (int64_t h = 1; h <= a.ahead_rows; ++h) __builtin_prefetch(x[R - 1] + offset + h * a.ahead_row);
    }
#pragma GCC unroll 9
    for (int r = 0; r < R; ++r) {
      seen[r][(K - 1 + First) % K] = load(x[r] + offset);
#pragma GCC unroll 3
      for (int t = 0; t < K; ++t) sum[r][t] = fma(seen[r][(t + First) % K], g, sum[r][t]);
    }
    grad += a.grad_pixel;
    offset += x_pixel;
  };
  int64_t j = 0;
  for (; j + K <= a.pixels; j += K) {
    pixel.template operator()<0>();
    if constexpr (K > 1) pixel.template operator()<1>();
    if constexpr (K > 2) pixel.template operator()<2>();
  }
  if (j < a.pixels) pixel.template operator()<0>();
  if constexpr (K > 2)
    if (j + 1 < a.pixels) pixel.template operator()<1>();
#pragma GCC unroll 9
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int t = 0; t < K; ++t) {
      T* to = static_cast<T*>(a.sums) + a.weight_rows[tap + r * K + t] * a.sums_row + c;
      if constexpr (Whole) (V::load(to) + sum[r][t]).store(to);
      else store_lanes(load_lanes<T>(to, lanes) + sum[r][t], to, lanes);
    }
}

template <class S, class T, bool Whole>
TENSOROPS_INLINE void channels_gradient_at(const ConvChannelsGradient& a, int64_t c, bool in_threes) {
  int64_t tap = 0;
#if defined(__AVX512F__)
  // Loads of whole lines are as many as multiply-adds otherwise. AVX2 has neither the registers nor the need.
  if (in_threes) {
    for (; tap + 9 <= a.k; tap += 9) channels_taps<S, T, 3, 3, Whole>(a, tap, c);
    for (; tap + 6 <= a.k; tap += 6) channels_taps<S, T, 2, 3, Whole>(a, tap, c);
  }
#endif
  for (; tap + 9 <= a.k; tap += 9) channels_taps<S, T, 9, 1, Whole>(a, tap, c);
  for (; tap + 6 <= a.k; tap += 6) channels_taps<S, T, 6, 1, Whole>(a, tap, c);
  for (; tap + 3 <= a.k; tap += 3) channels_taps<S, T, 3, 1, Whole>(a, tap, c);
  for (; tap < a.k; ++tap) channels_taps<S, T, 1, 1, Whole>(a, tap, c);
}

template <class S, class T>
void channels_gradient(const ConvChannelsGradient& a) {
  constexpr int V = Vec<T>::size;
  const bool in_threes = a.pixels >= 3 && beside<3>(a);
  int64_t c = 0;
  for (; c + V <= a.channels; c += V) channels_gradient_at<S, T, true>(a, c, in_threes);
  if (c < a.channels) channels_gradient_at<S, T, false>(a, c, in_threes);
}

template <class S, class T>
void border(const void* from, int64_t from_row, int64_t rows, int64_t n, int64_t left, int64_t right, void* to,
            int64_t to_row) {
  const S* x = static_cast<const S*>(from);
  T* out = static_cast<T*>(to);
  for (int64_t h = 0; h < rows; ++h, x += from_row, out += to_row) {
    for (int64_t l = 0; l < left; ++l) out[l] = T(0);
    // Zeros follow the last elements of a row, and what comes after it is written later.
    const int64_t room = (rows - 1 - h) * to_row + n + right;
    for (int64_t j = 0; j < n; j += Vec<T>::size) store_lanes(load_lanes<T>(x + j, n - j), out + left + j, room - j);
    for (int64_t l = left + n; l < left + n + right; ++l) out[l] = T(0);
  }
}

template <class T>
void split(const void* row, int64_t n, int64_t left, int64_t step, void* to, int64_t length, int64_t distance) {
  using V = Vec<T>;
  const T* from = static_cast<const T*>(row);
  T* out = static_cast<T*>(to);
  // Where the first of every step-th element goes: the part, and how many zeros come before it.
  int64_t part = left % step, zeros = left / step, i = 0;
  if (step == 2) {
    T *const to_even = out + part * distance + zeros, *const to_odd = out + (1 - part) * distance + zeros + part;
    for (; i + 2 * V::size <= n; i += 2 * V::size) {
      const V a = V::load(from + i), b = V::load(from + i + V::size);
      every_other<0>(a, b).store(to_even + i / 2);
      every_other<1>(a, b).store(to_odd + i / 2);
    }
  }
  const int64_t done = i / step;
  for (int64_t first = 0; first < step; ++first) {
    T *const begin = out + part * distance, *const end = begin + length, *at = begin + zeros + done;
    for (T* zero = begin; zero < begin + zeros; ++zero) *zero = T(0);
    for (int64_t j = i + first; j < n; j += step) *at++ = from[j];
    for (; at < end; ++at) *at = T(0);
    if (++part == step) part = 0, ++zeros;
  }
}

template <class T>
struct TotalOf {
  using type = T;
};
template <>
struct TotalOf<float> {
  using type = double;
};
template <class T>
using Total = typename TotalOf<T>::type;

template <class T>
void sum_run(const void* from, int64_t n, void* sum) {
  using V = Vec<T>;
  const T* x = static_cast<const T*>(from);
  V lanes[4] = {V(T(0)), V(T(0)), V(T(0)), V(T(0))};
  int64_t i = 0;
  for (; i + 4 * V::size <= n; i += 4 * V::size)
    for (int v = 0; v < 4; ++v) lanes[v] = lanes[v] + V::load(x + i + v * V::size);
  for (int v = 0; i < n; i += V::size, v = (v + 1) % 4) lanes[v] = lanes[v] + load_lanes<T>(x + i, n - i);
  const V all = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  T each[V::size];
  all.store(each);
  Total<T> total = *static_cast<Total<T>*>(sum);
  for (int l = 0; l < V::size; ++l) total += each[l];
  *static_cast<Total<T>*>(sum) = total;
}

template <class T>
void add_rows(const void* from, int64_t row_stride, int64_t count, int64_t n, void* sums) {
  using V = Vec<T>;
  T* total = static_cast<T*>(sums);
  for (int64_t i = 0; i < n; i += V::size) {
    const T* x = static_cast<const T*>(from) + i;
    V sum = load_lanes<T>(total + i, n - i);
    for (int64_t r = 0; r < count; ++r, x += row_stride) sum = sum + load_lanes<T>(x, n - i);
    store_lanes(sum, total + i, n - i);
  }
}

// In the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define FLOATING(f)                                                      \
  {nullptr,        nullptr,         nullptr,           nullptr, nullptr, \
   f<Half, float>, f<float, float>, f<double, double>, nullptr, f<BFloat16, float>}

}  // namespace

extern const ConvKernels conv_kernels;
const ConvKernels conv_kernels = {
    {tile_size<float>, tile_size<double>, tile_size<int32_t>, tile_size<int64_t>},
    {tile<float, float>, tile<double, double>, tile<int32_t, int32_t>, tile<int64_t, int64_t>},
    {plane<float>, plane<double>, plane<int32_t>, plane<int64_t>},
    {masked_vectors<float>, masked_vectors<double>, masked_vectors<int32_t>, masked_vectors<int64_t>},
    {stencil<float>, stencil<double>, nullptr, nullptr},
    {kPixelTiles[0].channels, kPixelTiles[1].channels, kPixelTiles[2].channels},
    {pixels<float>, pixels<double>, nullptr, nullptr},
    {pixels_gradient<float>, pixels_gradient<double>, nullptr, nullptr},
    {plane_gradient<float>, plane_gradient<double>, plane_gradient<int32_t>, plane_gradient<int64_t>},
    {masked_plane_gradient_of<float>(), masked_plane_gradient_of<double>(), nullptr, nullptr},
    FLOATING(channels),
    FLOATING(channels_gradient),
    {border<uint8_t, int32_t>, border<int8_t, int32_t>, border<int16_t, int32_t>, border<int32_t, int32_t>,
     border<int64_t, int64_t>, border<Half, float>, border<float, float>, border<double, double>, nullptr,
     border<BFloat16, float>},
    {split<float>, split<double>, split<int32_t>, split<int64_t>},
    {sum_run<float>, sum_run<double>, sum_run<int32_t>, sum_run<int64_t>},
    {add_rows<float>, add_rows<double>, add_rows<int32_t>, add_rows<int64_t>},
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
