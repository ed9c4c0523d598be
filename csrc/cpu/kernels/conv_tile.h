// The tile product of convolution: what every set of kernels shares. As in gemm_tile.h, operands have elements of type E:
// the type that is summed, T, or Bf16Pair.
#pragma once

#include "cpu/kernels/convert.h"
#include "cpu/kernels/convolution.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/multiply_add.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 14, kSingleRows = 28;
#elif defined(__AVX2__)
constexpr int kRows = 6, kSingleRows = 12;
#else
constexpr int kRows = 4, kSingleRows = 8;
#endif
constexpr int kIntegerRows = 4;  // integers are served, not tuned
constexpr int kVectors = 2;
// Products of bf16 are of fewer digits than their sums.
template <class E, class T>
constexpr int64_t chain_of = __is_same(E, T) ? kConvChain : kConvPairsChain;

template <class T>
constexpr int rows_of = is_floating<T> ? kRows : kIntegerRows;
template <class T>
constexpr int single_rows_of = is_floating<T> ? kSingleRows : kIntegerRows;

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};

// n adjacent sums to n places, `stride` elements apart, of the output's dtype.
template <class T>
TENSOROPS_INLINE void store_as(DType type, const T* from, void* to, int64_t index, int64_t stride, int64_t n) {
#define STORE(dtype)                                                                           \
  case DType::dtype: {                                                                         \
    using S = Storage<DType::dtype>::type;                                                     \
    return store_run<S, T>(from, static_cast<S*>(to) + index, stride * int64_t(sizeof(S)), n); \
  }
  if constexpr (__is_same(T, float)) {
    switch (type) {
      STORE(bf16)
      STORE(f16)
      default:
        break;
    }
  }
  if constexpr (__is_same(T, int32_t)) {
    switch (type) {
      STORE(u8)
      STORE(i8)
      STORE(i16)
      default:
        break;
    }
  }
#undef STORE
  store_run<T, T>(from, static_cast<T*>(to) + index, stride * int64_t(sizeof(T)), n);
}

// The first n lanes to places `step` elements apart.
template <class T, class S>
TENSOROPS_INLINE void store_apart(Vec<T> x, S* to, int64_t step, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (__is_same(T, float) && __is_same(S, float)) {
    if (step == 2) {  // two vectors of which every other lane is stored
      const auto lanes = static_cast<uint32_t>((uint64_t(1) << (2 * n)) - 1) & 0x55555555u;
      const __m512i low = _mm512_setr_epi32(0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0);
      _mm512_mask_storeu_ps(to, __mmask16(lanes), _mm512_permutexvar_ps(low, (__m512)x.v));
      const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
      if (n > 8) _mm512_mask_storeu_ps(to + 16, __mmask16(lanes >> 16), _mm512_permutexvar_ps(high, (__m512)x.v));
      return;
    }
  }
#endif
  alignas(64) T run[Vec<T>::size];
  x.store(run);
  store_run<S, T>(run, to, step * int64_t(sizeof(S)), n);
}

// Rows `out_step` apart: transposed a square at a time, so that what lies close together is stored one after the other.
template <class T, class S>
TENSOROPS_INLINE void scatter_columns(const ConvTile& tile, int64_t column, int64_t columns, const T* sums, int64_t width) {
  constexpr int V = Vec<T>::size;
  S* const out = static_cast<S*>(tile.out) + tile.out_rows[0] + column * tile.out_column;
  for (int64_t j = 0; j < columns; j += V) {
    const int64_t last = columns - j;
    for (int64_t r = 0; r < tile.row_count; r += V) {
      const int64_t rows = tile.row_count - r < V ? tile.row_count - r : V;
      Vec<T> square[V];
#pragma GCC unroll 16
      for (int i = 0; i < V; ++i) square[i] = i < rows ? Vec<T>::load(sums + (r + i) * width + j) : Vec<T>(T(0));
      transpose<T>(square);
      S* const to = out + r * tile.out_step + j * tile.out_column;
      if (tile.out_step == 1) {
#pragma GCC unroll 16
        for (int i = 0; i < V; ++i)
          if (i < last) store_lanes(square[i], to + i * tile.out_column, rows);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < V; ++i)
          if (i < last) store_apart(square[i], to + i * tile.out_column, tile.out_step, rows);
      }
    }
  }
}

// Sums of columns from `column` on that lie in memory as [rows][width] go where they belong.
template <class T>
__attribute__((noinline)) void scatter(const ConvTile& tile, int64_t column, const T* sums, int64_t width) {
  const int64_t left = tile.columns - column, all = left < width ? left : width;
  if (tile.out_step > 0 && tile.out_step < tile.out_column) {  // rows are closer to each other than columns
    if (tile.out_type == DTypeOf<T>::value) return scatter_columns<T, T>(tile, column, all, sums, width);
    if constexpr (__is_same(T, float)) {
      if (tile.out_type == DType::bf16) return scatter_columns<T, BFloat16>(tile, column, all, sums, width);
      if (tile.out_type == DType::f16) return scatter_columns<T, Half>(tile, column, all, sums, width);
    }
  }
  for (int64_t r = 0; r < tile.row_count; ++r)
    store_as<T>(tile.out_type, sums + r * width, tile.out, tile.out_rows[r] + column * tile.out_column, tile.out_column, all);
}

// Columns [column, end), R rows by N vectors in registers at a time.
template <class E, class T, int R, int N, bool Adjacent>
void tile_kernel(const ConvTile& tile, int64_t column, int64_t end) {
  using V = Vec<T>;
  using Operand = Vec<E>;
  constexpr int kWidth = N * V::size;
  constexpr int64_t kTileChain = chain_of<E, T>;
  const int64_t k = tile.k;
  const int64_t* const out_rows = tile.out_rows;
  const bool direct = tile.out_column == 1 && tile.out_type == DTypeOf<T>::value;
  const E* const first = static_cast<const E*>(tile.x) + tile.rows[0];
  [[maybe_unused]] const E* x[R];
  if constexpr (!Adjacent)
    for (int r = 0; r < R; ++r) x[r] = opaque(static_cast<const E*>(tile.x) + tile.rows[r]);
  V sum[R][N];
  // The chains before this one, in memory: registers are for the sums.
  alignas(64) T room[R * kWidth];
  T* const kept = opaque(static_cast<T*>(room));
  const auto in_kept = [&](int r, int v) TENSOROPS_LAMBDA_INLINE { return kept + r * kWidth + v * V::size; };
  for (; column < end; column += kWidth) {
    T* const out = direct ? static_cast<T*>(tile.out) + column : nullptr;
    // Lines of the result are on their way while the sums are made.
    if (direct)
      for (int r = 0; r < R; ++r) fetch_lines<kWidth, 1>(out + out_rows[r]);

    const E* const b = static_cast<const E*>(tile.b) + column * tile.b_column;
    const ConvStep* steps = tile.steps;
    for (int64_t done = 0;; done += kTileChain) {
      if (tile.ahead != nullptr) fetch_ahead(*tile.ahead);
      for_tile<R, N>([&](int r, int v) TENSOROPS_LAMBDA_INLINE { sum[r][v] = V(T(0)); });
      const int64_t count = k - done < kTileChain ? k - done : kTileChain;
      for (const ConvStep* const last = steps + count; steps != last; ++steps) {
        const int64_t step = steps->x;
        const E* const from = b + steps->b * kWidth;
        Operand row[N];
#pragma GCC unroll 2
        for (int v = 0; v < N; ++v) row[v] = Operand::load(from + v * V::size);
        [[maybe_unused]] const E* at = first + step;
        // The next tile of the row reads on from here; the planes are too far apart for the hardware to see it coming.
        if constexpr (Adjacent) __builtin_prefetch(at + 2 * R);
#pragma GCC unroll 32
        for (int r = 0; r < R; ++r) {
          const Operand value = Adjacent ? at[r] : x[r][step];
#pragma GCC unroll 2
          for (int v = 0; v < N; ++v) sum[r][v] = multiply_add(value, row[v], sum[r][v]);
        }
      }
      if (done > 0) {
        for_tile<R, N>([&](int r, int v) TENSOROPS_LAMBDA_INLINE { sum[r][v] = sum[r][v] + V::load(in_kept(r, v)); });
      }
      if (done + kTileChain >= k) break;
      for_tile<R, N>([&](int r, int v) TENSOROPS_LAMBDA_INLINE { sum[r][v].store(in_kept(r, v)); });
    }
    if (tile.init != nullptr) {
      const T* const init = static_cast<const T*>(tile.init) + column;
      const int64_t init_row = tile.init_row;
      for_tile<R, N>([&](int r, int v) TENSOROPS_LAMBDA_INLINE {
        sum[r][v] = sum[r][v] + V::load(init + r * init_row + v * V::size);
      });
    }

    if (direct && tile.columns - column >= kWidth) {
      for_tile<R, N>([&](int r, int v) TENSOROPS_LAMBDA_INLINE { sum[r][v].store(out + out_rows[r] + v * V::size); });
    } else {
      for_tile<R, N>([&](int r, int v) TENSOROPS_LAMBDA_INLINE { sum[r][v].store(in_kept(r, v)); });
      scatter<T>(tile, column, kept, kWidth);
    }
  }
}

template <class E, class T, int N, bool Adjacent, int R>
TENSOROPS_INLINE void for_rows(const ConvTile& tile, int64_t column, int64_t end) {
  if constexpr (R > 1) {
    if (tile.row_count < R) return for_rows<E, T, N, Adjacent, R - 1>(tile, column, end);
  }
  tile_kernel<E, T, R, N, Adjacent>(tile, column, end);
}

template <class E, class T>
void tile(const ConvTile& t) {
  constexpr int V = Vec<T>::size, kWidth = kVectors * V;
  // A last part of one vector is computed by itself.
  const int64_t wide = (t.columns + kWidth - V - 1) / kWidth * kWidth;
  if (wide > 0) {
    if (is_floating<T> && t.adjacent)
      for_rows<E, T, kVectors, is_floating<T>, rows_of<T>>(t, 0, wide);
    else
      for_rows<E, T, kVectors, false, rows_of<T>>(t, 0, wide);
  }
  if (wide >= t.columns) return;
  if (is_floating<T> && t.adjacent)
    for_rows<E, T, 1, is_floating<T>, single_rows_of<T>>(t, wide, t.columns);
  else
    for_rows<E, T, 1, false, rows_of<T>>(t, wide, t.columns);
}
template <class T>
constexpr ConvTileSize tile_size{rows_of<T>, single_rows_of<T>, kVectors * Vec<T>::size, Vec<T>::size};

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
