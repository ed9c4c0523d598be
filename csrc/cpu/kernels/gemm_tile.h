// The micro-kernel of matrix multiplication and its epilogue: what every set of kernels shares.
//
// Operands are made of steps along k. A step is one element of the type that is summed, T, or two bf16 side by side
// (avx512_bf16/): then an operand's element type E is Bf16Pair, and T float.
#pragma once

#include "cpu/kernels/convert.h"
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/multiply_add.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

#define TENSOROPS_FORMULA TENSOROPS_INLINE
#include "ops/elementwise_formulas.h"

// The tile: as many accumulators as the register file holds next to one row of B and a broadcast element of A.
#if defined(__AVX512F__)
constexpr int kRows = 14;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
constexpr int kVectors = 2;
constexpr int kIntegerRows = 4;  // integers are served, not tuned: a smaller tile keeps the binary small
constexpr int64_t kFetchedDepth = 16;  // of sums that take longer to make than to fetch the result's lines

template <class T>
constexpr int rows_of = is_floating<T> ? kRows : kIntegerRows;
template <class T>
constexpr int columns_of = kVectors * Vec<T>::size;

template <class T>
struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = DType::f32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::f64; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::i32; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::i64; };

template <class T>
TENSOROPS_INLINE T scalar_of(const GemmScalar& s) {
  if constexpr (is_floating<T>) return static_cast<T>(s.real);
  else return static_cast<T>(s.integer);
}

template <class T>
TENSOROPS_INLINE Vec<T> activate(Vec<T> x, GemmActivation activation) {
  if constexpr (is_floating<T>) {
    switch (activation) {
      case GemmActivation::relu: return maximum(x, 0);
      case GemmActivation::gelu: return gelu(x);
      case GemmActivation::gelu_tanh: return gelu_tanh(x);
      case GemmActivation::sigmoid: return sigmoid(x);
      case GemmActivation::tanh: return tanh(x);
      case GemmActivation::silu: return x * sigmoid(x);
      default: return x;
    }
  }
  return x;
}

// f(a value of the storage type) for one of the dtypes whose compute type is T.
template <class T, class F>
TENSOROPS_INLINE void for_storage(DType type, F f) {
  if constexpr (__is_same(T, float)) {
    if (type == DType::bf16) return f(BFloat16{});
    if (type == DType::f16) return f(Half{});
  }
  if constexpr (__is_same(T, int32_t)) {
    if (type == DType::u8) return f(uint8_t{});
    if (type == DType::i8) return f(int8_t{});
    if (type == DType::i16) return f(int16_t{});
    if (type == DType::boolean) return f(Bool{});
  }
  f(T{});
}
template <class T>
void load_any(DType type, const void* from, int64_t index, int64_t stride, T* to, int64_t n) {
  for_storage<T>(type, [&]<class S>(S) {
    load_run<S, T>(static_cast<const S*>(from) + index, stride * int64_t(sizeof(S)), to, n);
  });
}
template <class T>
void store_any(DType type, const T* from, void* to, int64_t index, int64_t stride, int64_t n) {
  for_storage<T>(type, [&]<class S>(S) {
    store_run<S, T>(from, static_cast<S*>(to) + index, stride * int64_t(sizeof(S)), n);
  });
}

// The epilogue of tile.rows rows from `row` on, of columns [column, column + columns), whose sums lie in memory, row by row;
// `columns` may be anything. Takes each element through the same operations as the micro-kernel does in registers.
constexpr int64_t kStaged = 256;
template <class T>
__attribute__((noinline)) void finish_any(const GemmTile& tile, const GemmEpilogue& e, const T* sums, int64_t sums_row,
                                          int64_t row, int64_t column, int64_t columns) {
  using V = Vec<T>;
  const V alpha = scalar_of<T>(e.alpha), beta = scalar_of<T>(e.beta);
  alignas(64) T source[kStaged], result[kStaged];
  for (int64_t i = 0; i < tile.rows; ++i) {
    for (int64_t begin = 0; begin < columns; begin += kStaged) {
      const int64_t n = columns - begin < kStaged ? columns - begin : kStaged;
      const int64_t first = column + begin;
      if (tile.source != nullptr)
        load_any<T>(e.source_type, tile.source, (row + i) * e.source_row + first * e.source_column, e.source_column, source, n);
      for (int64_t j = 0; j < n; j += V::size) {
        const int64_t lanes = n - j < V::size ? n - j : V::size;
        V x = alpha * load_lanes<T>(sums + i * sums_row + begin + j, lanes);
        if (tile.source != nullptr) x = fma(beta, load_lanes<T>(source + j, lanes), x);
        activate(x, e.activation).store(result + j);
      }
      store_any<T>(e.c_type, result, tile.c, (row + i) * e.c_row + first * e.c_column, e.c_column, n);
    }
  }
}

// The common case of it: adjacent columns, nothing but factors, and a source that is adjacent as well or one number to a row.
template <class C, class S, class T>
__attribute__((noinline)) void finish_adjacent(const GemmTile& tile, const GemmEpilogue& e, const T* sums,
                                               int64_t sums_row, int64_t row, int64_t column, int64_t columns) {
  using V = Vec<T>;
  const V alpha = scalar_of<T>(e.alpha), beta = scalar_of<T>(e.beta);
  for (int64_t i = 0; i < tile.rows; ++i) {
    const S* source = static_cast<const S*>(tile.source) + (row + i) * e.source_row + column * e.source_column;
    C* c = static_cast<C*>(tile.c) + (row + i) * e.c_row + column;
    const V per_row = tile.source != nullptr && e.source_column == 0 ? load_as<T>(*source) : T(0);
    for (int64_t j = 0; j < columns; j += V::size) {
      const int64_t lanes = columns - j;
      V x = alpha * load_lanes<T>(sums + i * sums_row + j, lanes);
      if (tile.source != nullptr) x = fma(beta, e.source_column == 0 ? per_row : load_lanes<T>(source + j, lanes), x);
      store_lanes(x, c + j, lanes);
    }
  }
}

template <class T>
TENSOROPS_INLINE void finish(const GemmTile& tile, const GemmEpilogue& e, const T* sums, int64_t sums_row, int64_t row,
                             int64_t column, int64_t columns) {
  if constexpr (is_floating<T>) {
    const bool sums_type = tile.source == nullptr || e.source_type == DTypeOf<T>::value;
    if (e.c_column == 1 && e.activation == GemmActivation::none &&
        (tile.source == nullptr ||
         ((e.source_column == 0 || e.source_column == 1) && (sums_type || e.source_type == e.c_type)))) {
      return for_storage<T>(e.c_type, [&]<class C>(C) TENSOROPS_LAMBDA_INLINE {
        if (sums_type) finish_adjacent<C, T>(tile, e, sums, sums_row, row, column, columns);
        else finish_adjacent<C, C>(tile, e, sums, sums_row, row, column, columns);
      });
    }
  }
  finish_any<T>(tile, e, sums, sums_row, row, column, columns);
}

// Sums that alpha is in already, and maybe the source.
template <class T>
__attribute__((noinline)) void finish_scaled(const GemmTile& tile, const GemmEpilogue& e, const T* sums, int64_t sums_row,
                                             int64_t row, int64_t column, int64_t columns, bool has_source) {
  GemmTile rest = tile;
  GemmEpilogue epilogue = e;
  if (has_source) rest.source = nullptr;
  epilogue.alpha = {};
  finish<T>(rest, epilogue, sums, sums_row, row, column, columns);
}

// ---- The micro-kernel ------------------------------------------------------------------------------------------------

// sum += a @ b, R rows by N vectors in registers, over k steps. Rows of A that are not adjacent are addressed three to a
// pointer, which base + stride * 1|2 covers, so that the pointers fit the general registers.
template <class E, class T, int R, int N, bool Adjacent>
TENSOROPS_INLINE void multiply(const E* a, int64_t a_row, int64_t a_step, const E* b, int64_t b_step, int64_t k,
                               Vec<T> (&sum)[R][N]) {
  using Operand = Vec<E>;
  constexpr int kPointers = (R + 2) / 3;
  [[maybe_unused]] const E* at[kPointers];
  if constexpr (!Adjacent)
    for (int i = 0; i < kPointers; ++i) at[i] = a + 3 * i * a_row;
  for (; k > 0; --k, b += b_step) {
    Operand row[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) row[v] = Operand::load(b + v * Operand::size);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Operand x = Adjacent ? a[i] : at[i / 3][(i % 3) * a_row];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[i][v] = multiply_add(x, row[v], sum[i][v]);
    }
    if constexpr (Adjacent) {
      a += a_step;
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < kPointers; ++i) at[i] += a_step;
    }
  }
}

// `count` tiles: side by side from a column on, where lanes may be missing of the last, or one below the other.
template <class E, class T, int R, int N, bool Adjacent>
void micro_kernel(const GemmTile& tile, const GemmEpilogue& e, int64_t column, int64_t count) {
  using V = Vec<T>;
  constexpr int64_t kWidth = N * V::size;
  const bool plain_source = tile.source == nullptr || (e.source_type == DTypeOf<T>::value && e.source_column == 1);
  // Adjacent columns of the compute type leave from the registers; everything else is finished in the L1 cache.
  const bool plain = plain_source && e.c_type == DTypeOf<T>::value && e.c_column == 1 && e.activation == GemmActivation::none;
  const int64_t out_row = tile.last ? e.c_row : tile.sums_row;
  const bool single = tile.first && tile.last && tile.k <= tile.chain;
  // The chains before this one, in memory: registers are for the sums.
  alignas(64) T room[R * kWidth];
  T* const kept = opaque(static_cast<T*>(room));
  const auto fetch = [&](const T* rows, int64_t row) TENSOROPS_LAMBDA_INLINE {
    for (int i = 0; i < R; ++i) fetch_lines<kWidth, 1>(rows + i * row);
  };
  const bool down = tile.row_panels > 1;
  const int64_t right = down ? 0 : kWidth, a_next = down ? tile.a_panel : 0, b_next = down ? 0 : tile.b_panel;
  const E *a = static_cast<const E*>(tile.a), *b = static_cast<const E*>(tile.b) + column / columns_of<T> * tile.b_panel;
  for (int64_t row = 0; count > 0; --count, row += down ? R : 0, column += right, a += a_next, b += b_next) {
    const int64_t columns = tile.columns - column < kWidth ? tile.columns - column : kWidth;
    const int64_t last = columns - (N - 1) * V::size;  // lanes of the last vector
    T* out = static_cast<T*>(!tile.last ? tile.sums : plain ? tile.c : nullptr);
    if (out != nullptr) out += row * out_row + column;
    const T* before = static_cast<const T*>(tile.first ? nullptr : tile.sums);
    int64_t before_row = tile.sums_row;
    if (before != nullptr) {
      before += row * before_row + column;
      fetch(before, before_row);
    }

    V sum[R][N];
    for (int64_t done = 0;;) {
      out = opaque(out), before = opaque(before);  // GCC would keep the addresses of all rows for the next chain
      const int64_t length = tile.k - done < tile.chain ? tile.k - done : tile.chain;
      // Lines of the result are on their way while the sums are made.
      if (done + length >= tile.k && out != nullptr && out != before && length >= kFetchedDepth) fetch(out, out_row);
      for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v] = V(T(0)); });
      // A few lines at a time: more would keep loads waiting.
      for (const int64_t end = done + length; done < end;) {
        int64_t steps = end - done;
        if (tile.ahead != nullptr) {
          if (steps > tile.ahead->steps) steps = tile.ahead->steps;
          fetch_ahead(*tile.ahead);
        }
        multiply<E, T, R, N, Adjacent>(a + done * tile.a_step, tile.a_row, tile.a_step, b + done * tile.b_step, tile.b_step, steps,
                                       sum);
        done += steps;
      }
      if (single && out == nullptr) break;

      out = opaque(out), before = opaque(before);
      const V alpha = scalar_of<T>(e.alpha), beta = scalar_of<T>(e.beta);
      const auto leave = [&](auto load_last, auto store_last) TENSOROPS_LAMBDA_INLINE {
        const auto load = [&](const T* row, int v) TENSOROPS_LAMBDA_INLINE {
          return v + 1 < N ? V::load(row + v * V::size) : load_last(row + v * V::size);
        };
        if (before != nullptr) {
          for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE {
            sum[i][v] = fma(alpha, sum[i][v], load(before + i * before_row, v));
          });
        } else {
          for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v] = alpha * sum[i][v]; });
          if (plain_source && tile.source != nullptr) {
            const T* const source = static_cast<const T*>(tile.source) + row * e.source_row + column;
            for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE {
              sum[i][v] = fma(beta, load(source + i * e.source_row, v), sum[i][v]);
            });
          }
        }
        if (done < tile.k || out == nullptr) return;
        for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE {
          T* const to = out + i * out_row + v * V::size;
          if (v + 1 < N) sum[i][v].store(to);
          else store_last(sum[i][v], to);
        });
      };
      if (last == V::size)
        leave([](const T* from) TENSOROPS_LAMBDA_INLINE { return V::load(from); },
              [](V x, T* to) TENSOROPS_LAMBDA_INLINE { x.store(to); });
      else
        leave([&](const T* from) TENSOROPS_LAMBDA_INLINE { return load_part<T>(from, last); },
              [&](V x, T* to) TENSOROPS_LAMBDA_INLINE { store_part(x, to, last); });
      if (done >= tile.k) break;
      for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v].store(kept + i * kWidth + v * V::size); });
      before = kept, before_row = kWidth;
    }
    if (out != nullptr) continue;
#if defined(__AVX512BF16__)
    // Bare sums of pairs leave as bf16 by the CPU's own rounding: it flushes subnormals, which they are not.
    if (__is_same(E, Bf16Pair) && e.c_type == DType::bf16 && e.c_column == 1 && e.activation == GemmActivation::none &&
        tile.source == nullptr && e.alpha.real == 1) {
      BFloat16* c = static_cast<BFloat16*>(tile.c) + row * e.c_row + column;
      const auto mask = static_cast<__mmask16>((1u << last) - 1);
      for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE {
        _mm256_mask_storeu_epi16(c + i * e.c_row + v * V::size, v + 1 < N ? __mmask16(0xffff) : mask,
                                 (__m256i)_mm512_cvtneps_pbh((__m512)sum[i][v].v));
      });
      continue;
    }
#endif
    for_tile<R, N>([&](int i, int v) TENSOROPS_LAMBDA_INLINE { sum[i][v].store(kept + i * kWidth + v * V::size); });
    if (single) finish<T>(tile, e, kept, kWidth, row, column, columns);
    else finish_scaled<T>(tile, e, kept, kWidth, row, column, columns, plain_source);
  }
}

// The instance for the tiles' rows and vectors.
template <class E, class T, int N, bool Adjacent, int R = rows_of<T>>
TENSOROPS_INLINE void for_rows(const GemmTile& tile, const GemmEpilogue& e, int64_t column, int64_t count) {
  if constexpr (R > 1) {
    if (tile.rows < R) return for_rows<E, T, N, Adjacent, R - 1>(tile, e, column, count);
  }
  micro_kernel<E, T, R, N, Adjacent>(tile, e, column, count);
}
template <class E, class T, bool Adjacent>
TENSOROPS_INLINE void for_columns(const GemmTile& tile, const GemmEpilogue& e) {
  // The last tile is one of two vectors if it has lanes in the second.
  constexpr int64_t kWidth = columns_of<T>, kRest = Vec<T>::size;
  const int64_t wide = (tile.columns + kRest - 1) / kWidth;
  if (wide > 0) for_rows<E, T, 2, Adjacent>(tile, e, 0, wide * tile.row_panels);
  if (tile.columns > wide * kWidth) for_rows<E, T, 1, Adjacent>(tile, e, wide * kWidth, tile.row_panels);
}

}  // namespace
}  // namespace tensorops::cpu::TENSOROPS_ISA
