// The micro-kernels, the packing and the skinny kernels of matrix multiplication, once per instruction set.
#include "cpu/kernels/gemm.h"

#include "cpu/kernels/gemm_tile.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// ---- Packing ---------------------------------------------------------------------------------------------------------

// A step of a panel may be shorter than the vectors that are stored: what is too much falls on the steps after it, which are
// written later, or is cut off at the end of the panel.

// Panels whose lanes are adjacent: some side by side, so that memory is read in runs longer than a panel is wide.
template <class S, class T>
TENSOROPS_INLINE void pack_adjacent(const S* from, int64_t step_stride, int64_t lanes, int64_t k, int width, T* to) {
  using V = Vec<T>;
  if (width == V::size && lanes <= width) {  // the few columns of a small matrix
    for (int64_t p = 0; p < k; ++p) store_vector<T>(load_lanes<T>(from + p * step_stride, lanes), to + p * width);
    return;
  }
  constexpr int64_t kTogether = 4, kAhead = 8, kLine = 64 / sizeof(S);
  const int64_t run = kTogether * width, last_vector = (width - 1) / V::size * V::size;
  for (; lanes > 0; lanes -= run, from += run, to += run * k) {
    const int64_t taken = lanes < run ? lanes : run;
    // Steps of which whole vectors can be read and written.
    const bool whole = lanes >= run - width + last_vector + V::size;
    const int64_t whole_steps = whole ? k - (last_vector + V::size - 1) / width : 0;
    const S* row = from;
    for (int64_t p = 0; p < k; ++p, row += step_stride) {
      // Steps further apart than they are long are a pattern that the hardware does not see. To the second cache: more lines
      // can be on their way there than to the first.
      for (int64_t lane = 0; lane < taken; lane += kLine) __builtin_prefetch(row + kAhead * step_stride + lane, 0, 2);
      T* step = to + p * width;
      if (p < whole_steps) {
        for (int64_t first = 0; first < run; first += width, step += width * k)
          for (int l = 0; l < width; l += V::size) store_vector<T>(load_vector<T>(row + first + l), step + l);
      } else {
        for (int64_t first = 0; first < taken; first += width, step += width * k)
          for (int l = 0; l < width; l += V::size)
            store_lanes<T>(load_lanes<T>(row + first + l, lanes - first - l), step + l, (k - p) * width - l);
      }
    }
  }
}

// Panels whose steps are adjacent: squares of one vector by one vector, transposed in registers.
template <class S, class T>
TENSOROPS_INLINE void pack_transposed(const S* from, int64_t lane_stride, int64_t lanes, int64_t k, int width, T* to) {
  using V = Vec<T>;
  constexpr int64_t kAhead = 256 / sizeof(S);  // as many lanes are too many streams for the hardware to follow
  for (; lanes > 0; lanes -= width, from += width * lane_stride, to += width * k)
    for (int l = (width - 1) / V::size * V::size; l >= 0; l -= V::size) {
      // A lane that does not exist repeats the last one that does: nobody uses it.
      const int64_t last = lanes - 1;
      int64_t lane[V::size];
      for (int i = 0; i < V::size; ++i) lane[i] = (l + i < last ? l + i : last) * lane_stride;
      V rows[V::size];
      int64_t p = 0;
      for (; p + V::size <= k && (k - p - V::size + 1) * width >= l + V::size; p += V::size) {
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i) rows[i] = load_vector<T>(from + lane[i] + p);
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i) __builtin_prefetch(from + lane[i] + p + kAhead, 0, 2);
        transpose<T>(rows);
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i) store_vector<T>(rows[i], to + (p + i) * width + l);
      }
      for (; p < k; p += V::size) {
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i) rows[i] = load_lanes<T>(from + lane[i] + p, k - p);
        transpose<T>(rows);
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i)
          if (p + i < k) store_lanes<T>(rows[i], to + (p + i) * width + l, (k - p - i) * width - l);
      }
    }
}

// Panels whose steps are adjacent from behind, the taps of an input gradient: the same squares, stored in the other order.
template <class S, class T>
TENSOROPS_INLINE void pack_reversed(const S* from, int64_t lane_stride, int64_t lanes, int64_t k, int width, T* to) {
  using V = Vec<T>;
  for (; lanes > 0; lanes -= width, from += width * lane_stride, to += width * k)
    for (int l = 0; l < width; l += V::size) {
      const int64_t last = lanes - 1, part = width - l < V::size ? width - l : V::size;
      for (int64_t p = 0; p < k; p += V::size) {
        V rows[V::size];
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i)
          rows[i] = load_lanes<T>(from + (l + i < last ? l + i : last) * lane_stride - (k - 1) + p, k - p);
        transpose<T>(rows);
#pragma GCC unroll 16
        for (int i = 0; i < V::size; ++i)
          if (p + i < k) store_lanes<T>(rows[i], to + (k - 1 - p - i) * width + l, part);
      }
    }
}

template <class S, class T>
void pack(const void* source, int64_t lane_stride, int64_t step_stride, int64_t lanes, int64_t k, int width, void* panels) {
  const S* from = static_cast<const S*>(source);
  T* to = static_cast<T*>(panels);
  if (lane_stride == 1) return pack_adjacent<S, T>(from, step_stride, lanes, k, width, to);
  if (step_stride == 1) return pack_transposed<S, T>(from, lane_stride, lanes, k, width, to);
  if (step_stride == -1) return pack_reversed<S, T>(from, lane_stride, lanes, k, width, to);
  for (; lanes > 0; lanes -= width, from += width * lane_stride)
    for (int64_t p = 0; p < k; ++p, to += width) {
      for (int64_t l = 0; l < width; ++l) to[l] = l < lanes ? load_as<T>(from[l * lane_stride + p * step_stride]) : T(0);
    }
}

// ---- Skinny kernels --------------------------------------------------------------------------------------------------

// R rows by J columns of dot products; U accumulators each, so that the FMA latency is covered.
template <class S, class T, int R, int J, int U>
TENSOROPS_INLINE void dot_tile(const GemmTile& tile, int64_t column, T* sums, int64_t sums_row) {
  using V = Vec<T>;
  const S* a = static_cast<const S*>(tile.a);
  const S* b = static_cast<const S*>(tile.b) + column * tile.b_column;
  V sum[R][J][U];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < J; ++j)
      for (int u = 0; u < U; ++u) sum[i][j][u] = V(T(0));
  int64_t p = 0;
  for (; p + U * V::size <= tile.k; p += U * V::size)
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      V x[R];
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) x[i] = load_vector<T>(a + i * tile.a_row + p + u * V::size);
#pragma GCC unroll 8
      for (int j = 0; j < J; ++j) {
        const V y = load_vector<T>(b + j * tile.b_column + p + u * V::size);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) sum[i][j][u] = fma(x[i], y, sum[i][j][u]);
      }
    }
  for (; p < tile.k; p += V::size) {
    const int64_t lanes = tile.k - p < V::size ? tile.k - p : V::size;
    for (int j = 0; j < J; ++j) {
      const V y = load_lanes<T>(b + j * tile.b_column + p, lanes);
      for (int i = 0; i < R; ++i) sum[i][j][0] = fma(load_lanes<T>(a + i * tile.a_row + p, lanes), y, sum[i][j][0]);
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < J; ++j) {
      V total = sum[i][j][0];
      for (int u = 1; u < U; ++u) total = total + sum[i][j][u];
      sums[i * sums_row + j] = sum_lanes(total);
    }
}

// A single f32 dot product is summed in f64: one number has no neighbours to share the cost of memory with, and its error
// is all there is to see.
template <class S>
TENSOROPS_INLINE float dot_in_double(const GemmTile& tile) {
  const S* a = static_cast<const S*>(tile.a);
  const S* b = static_cast<const S*>(tile.b);
  constexpr int n = Vec<float>::size;
  Vec<double> low[2] = {0.0, 0.0}, high[2] = {0.0, 0.0};
  const auto add = [&](int u, Vec<float> x, Vec<float> y) TENSOROPS_LAMBDA_INLINE {
    const Halves wide_x = widen(x), wide_y = widen(y);
    low[u] = fma(wide_x.low, wide_y.low, low[u]);
    high[u] = fma(wide_x.high, wide_y.high, high[u]);
  };
  int64_t p = 0;
  for (; p + 2 * n <= tile.k; p += 2 * n) {
    add(0, load_vector<float>(a + p), load_vector<float>(b + p));
    add(1, load_vector<float>(a + p + n), load_vector<float>(b + p + n));
  }
  for (; p < tile.k; p += n) add(0, load_lanes<float>(a + p, tile.k - p), load_lanes<float>(b + p, tile.k - p));
  return static_cast<float>(sum_lanes((low[0] + low[1]) + (high[0] + high[1])));
}

// The number of accumulators per element is fixed for R, so that an element's result does not depend on its neighbours.
template <class S, class T, int R>
void dot_rows(const GemmTile& tile, const GemmEpilogue& e) {
  constexpr int kColumns = R == 4 && kVectorBytes < 64 ? 2 : 4;
  constexpr int kChains = R == 1 ? 2 : 1;
  constexpr int64_t kBlock = 64;
  alignas(64) T sums[R * kBlock];
  for (int64_t begin = 0; begin < tile.columns; begin += kBlock) {
    const int64_t n = tile.columns - begin < kBlock ? tile.columns - begin : kBlock;
    int64_t j = 0;
    if (tile.columns == 1 && R == 1) {
      if constexpr (__is_same(T, float)) sums[0] = dot_in_double<S>(tile);
      else dot_tile<S, T, R, 1, 8>(tile, begin, sums, kBlock);
    } else {
      for (; j + kColumns <= n; j += kColumns) dot_tile<S, T, R, kColumns, kChains>(tile, begin + j, sums + j, kBlock);
      for (; j < n; ++j) dot_tile<S, T, R, 1, kChains>(tile, begin + j, sums + j, kBlock);
    }
    finish<T>(tile, e, sums, kBlock, 0, begin, n);
  }
}

template <class S, class T>
void dot(const GemmTile& tile, const GemmEpilogue& e) {
  switch (tile.rows) {
    case 1: return dot_rows<S, T, 1>(tile, e);
    case 2: return dot_rows<S, T, 2>(tile, e);
    case 3: return dot_rows<S, T, 3>(tile, e);
    default: return dot_rows<S, T, 4>(tile, e);
  }
}

// U rows of B at a time are summed in registers, then added to R rows of sums in the L1 cache: the error grows with k / U.
template <class S, class T, int R, int U>
TENSOROPS_INLINE void axpy_rows_of_b(const GemmTile& tile, int64_t p, const S* b, int64_t n, T* sums, int64_t sums_row) {
  using V = Vec<T>;
  const S* a = static_cast<const S*>(tile.a) + p * tile.a_step;
  V x[R][U];
  for (int i = 0; i < R; ++i)
    for (int u = 0; u < U; ++u) x[i][u] = load_as<T>(a[i * tile.a_row + u * tile.a_step]);
  const auto add = [&](int64_t j, auto load) TENSOROPS_LAMBDA_INLINE {
    V sum[R];
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      const V y = load(b + u * tile.b_step + j);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) sum[i] = u == 0 ? x[i][u] * y : fma(x[i][u], y, sum[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) (V::load(sums + i * sums_row + j) + sum[i]).store(sums + i * sums_row + j);
  };
  int64_t j = 0;
  for (; j + V::size <= n; j += V::size) add(j, [](const S* y) TENSOROPS_LAMBDA_INLINE { return load_vector<T>(y); });
  if (j < n) add(j, [&](const S* y) TENSOROPS_LAMBDA_INLINE { return load_lanes<T>(y, n - j); });
}

template <class S, class T, int R>
void axpy_rows(const GemmTile& tile, const GemmEpilogue& e) {
  constexpr int kSteps = R == 1 ? 8 : R == 2 || kVectorBytes == 64 ? 4 : 2;
  constexpr int64_t kBlock = 1024;  // the sums of four rows fill a third of the L1 cache in f32
  // A load that follows a store at the same distance from a multiple of 4 KB waits for it: the sums keep half of that away
  // from B, whose rows often are a multiple of it apart.
  constexpr int64_t kPage = 4096 / int64_t(sizeof(T));
  alignas(4096) T memory[R * kBlock + kPage];
  T* const sums = memory + (reinterpret_cast<uintptr_t>(tile.b) / sizeof(T) + kPage / 2) % kPage / Vec<T>::size * Vec<T>::size;
  for (int64_t begin = 0; begin < tile.columns; begin += kBlock) {
    const int64_t n = tile.columns - begin < kBlock ? tile.columns - begin : kBlock;
    for (int i = 0; i < R; ++i)
      for (int64_t j = 0; j < n; j += Vec<T>::size) Vec<T>(T(0)).store(sums + i * kBlock + j);
    const S* b = static_cast<const S*>(tile.b) + begin;
    int64_t p = 0;
    for (; p + kSteps <= tile.k; p += kSteps)
      axpy_rows_of_b<S, T, R, kSteps>(tile, p, b + p * tile.b_step, n, sums, kBlock);
    for (; p < tile.k; ++p) axpy_rows_of_b<S, T, R, 1>(tile, p, b + p * tile.b_step, n, sums, kBlock);
    finish<T>(tile, e, sums, kBlock, 0, begin, n);
  }
}

// K rows of B, as few as the sums need no memory for: an outer product above all.
template <class S, class T, int K>
void axpy_thin(const GemmTile& tile, const GemmEpilogue& e) {
  using V = Vec<T>;
  const V alpha = scalar_of<T>(e.alpha);
  for_storage<T>(e.c_type, [&]<class C>(C) TENSOROPS_LAMBDA_INLINE {
    for (int64_t i = 0; i < tile.rows; ++i) {
      const S *const a = static_cast<const S*>(tile.a) + i * tile.a_row, *const b = static_cast<const S*>(tile.b);
      C* const c = static_cast<C*>(tile.c) + i * e.c_row;
      V x[K];
      for (int p = 0; p < K; ++p) x[p] = load_as<T>(a[p * tile.a_step]);
      const auto sum = [&](auto load) TENSOROPS_LAMBDA_INLINE {
        V total = x[0] * load(b);
#pragma GCC unroll 4
        for (int p = 1; p < K; ++p) total = fma(x[p], load(b + p * tile.b_step), total);
        return alpha * total;
      };
      int64_t j = 0;
      for (; j + V::size <= tile.columns; j += V::size)
        store_vector(sum([&](const S* y) TENSOROPS_LAMBDA_INLINE { return load_vector<T>(y + j); }), c + j);
      const int64_t left = tile.columns - j;
      if (left > 0) store_lanes(sum([&](const S* y) TENSOROPS_LAMBDA_INLINE { return load_lanes<T>(y + j, left); }), c + j, left);
    }
  });
}

template <class S, class T>
void axpy(const GemmTile& tile, const GemmEpilogue& e) {
  if (e.c_column == 1 && e.activation == GemmActivation::none && tile.source == nullptr) {
    switch (tile.k) {
      case 1: return axpy_thin<S, T, 1>(tile, e);
      case 2: return axpy_thin<S, T, 2>(tile, e);
      case 3: return axpy_thin<S, T, 3>(tile, e);
      case 4: return axpy_thin<S, T, 4>(tile, e);
      default: break;
    }
  }
  switch (tile.rows) {
    case 1: return axpy_rows<S, T, 1>(tile, e);
    case 2: return axpy_rows<S, T, 2>(tile, e);
    case 3: return axpy_rows<S, T, 3>(tile, e);
    default: return axpy_rows<S, T, 4>(tile, e);
  }
}

template <class T>
void micro(const GemmTile& tile, const GemmEpilogue& e) {
  if (tile.a_row == 1) for_columns<T, T, true>(tile, e);
  else for_columns<T, T, false>(tile, e);
}

#define SIZE(T) {rows_of<T>, columns_of<T>, Vec<T>::size}
// In the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define SKINNY(f)                                                                                        \
  {nullptr, nullptr, nullptr, nullptr, nullptr, f<Half, float>, f<float, float>, f<double, double>, nullptr, \
   f<BFloat16, float>}

}  // namespace

extern const GemmKernels gemm_kernels;
const GemmKernels gemm_kernels = {
    {SIZE(float), SIZE(double), SIZE(int32_t), SIZE(int64_t)},
    {micro<float>, micro<double>, micro<int32_t>, micro<int64_t>},
    {pack<uint8_t, int32_t>, pack<int8_t, int32_t>, pack<int16_t, int32_t>, pack<int32_t, int32_t>,
     pack<int64_t, int64_t>, pack<Half, float>, pack<float, float>, pack<double, double>, pack<Bool, int32_t>,
     pack<BFloat16, float>},
    SKINNY(dot),
    SKINNY(axpy),
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
