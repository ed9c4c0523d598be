// The micro-kernels, the packing and the skinny kernels of matrix multiplication, once per instruction set.
#include "cpu/kernels/gemm.h"

#include "cpu/kernels/convert.h"
#include "cpu/kernels/lanes.h"
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

// The epilogue of columns [column, column + columns) of a tile whose sums lie in memory, row by row; `columns` may be
// anything. Takes each element through the same operations as finish_in_registers.
constexpr int64_t kStaged = 256;
template <class T>
__attribute__((noinline)) void finish(const GemmTile& tile, const GemmEpilogue& e, const T* sums, int64_t sums_row,
                                      int64_t column, int64_t columns) {
  using V = Vec<T>;
  const V alpha = scalar_of<T>(e.alpha), beta = scalar_of<T>(e.beta);
  alignas(64) T source[kStaged], result[kStaged];
  for (int64_t i = 0; i < tile.rows; ++i) {
    for (int64_t begin = 0; begin < columns; begin += kStaged) {
      const int64_t n = columns - begin < kStaged ? columns - begin : kStaged;
      const int64_t first = column + begin;
      if (tile.source != nullptr)
        load_any<T>(e.source_type, tile.source, i * e.source_row + first * e.source_column, e.source_column, source, n);
      for (int64_t j = 0; j < n; j += V::size) {
        const int64_t lanes = n - j < V::size ? n - j : V::size;
        V x = alpha * load_lanes<T>(sums + i * sums_row + begin + j, lanes);
        if (tile.source != nullptr) x = fma(beta, load_lanes<T>(source + j, lanes), x);
        activate(x, e.activation).store(result + j);
      }
      store_any<T>(e.c_type, result, tile.c, i * e.c_row + first * e.c_column, e.c_column, n);
    }
  }
}

// ---- The micro-kernel ------------------------------------------------------------------------------------------------

// R rows by N vectors of C in registers. Rows of an unpacked A are addressed three to a pointer, which base + stride * 1|2
// covers, so that the pointers fit the general registers.
template <class T, int R, int N, bool Packed>
void micro_kernel(const GemmTile& tile, const GemmEpilogue& e) {
  using V = Vec<T>;
  V sum[R][N];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) sum[i][v] = V(T(0));

  const T* b = static_cast<const T*>(tile.b);
  const int64_t b_step = tile.b_step;
  if constexpr (Packed) {
    const T* a = static_cast<const T*>(tile.a);
    for (int64_t p = tile.k; p > 0; --p, a += rows_of<T>, b += b_step) {
      V row[N];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) row[v] = V::load(b + v * V::size);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const V x = a[i];
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) sum[i][v] = fma(x, row[v], sum[i][v]);
      }
    }
  } else {
    constexpr int kPointers = (R + 2) / 3;
    const int64_t a_row = tile.a_row, a_step = tile.a_step;
    const T* a[kPointers];
    for (int i = 0; i < kPointers; ++i) a[i] = static_cast<const T*>(tile.a) + 3 * i * a_row;
    for (int64_t p = tile.k; p > 0; --p, b += b_step) {
      V row[N];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) row[v] = V::load(b + v * V::size);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const V x = a[i / 3][(i % 3) * a_row];
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) sum[i][v] = fma(x, row[v], sum[i][v]);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kPointers; ++i) a[i] += a_step;
    }
  }

  // Adjacent columns of the compute type leave from the registers; everything else is finished in the L1 cache.
  const bool plain = e.c_type == DTypeOf<T>::value && e.c_column == 1 && e.activation == GemmActivation::none &&
                     (tile.source == nullptr || (e.source_type == DTypeOf<T>::value && e.source_column == 1));
  if (plain) {
    const V alpha = scalar_of<T>(e.alpha), beta = scalar_of<T>(e.beta);
    T* c = static_cast<T*>(tile.c);
    const T* source = static_cast<const T*>(tile.source);
    const int64_t last = tile.columns - (N - 1) * V::size;  // lanes of the last vector
    const auto leave = [&](auto load_last, auto store_last) TENSOROPS_LAMBDA_INLINE {
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) {
          V x = alpha * sum[i][v];
          if (source != nullptr) {
            const T* from = source + i * e.source_row + v * V::size;
            x = fma(beta, v + 1 < N ? V::load(from) : load_last(from), x);
          }
          T* to = c + i * e.c_row + v * V::size;
          if (v + 1 < N) x.store(to);
          else store_last(x, to);
        }
    };
    if (last == V::size)
      leave([](const T* from) TENSOROPS_LAMBDA_INLINE { return V::load(from); },
            [](V x, T* to) TENSOROPS_LAMBDA_INLINE { x.store(to); });
    else
      leave([&](const T* from) TENSOROPS_LAMBDA_INLINE { return load_part<T>(from, last); },
            [&](V x, T* to) TENSOROPS_LAMBDA_INLINE { store_part(x, to, last); });
    return;
  }
  alignas(64) T staged[R * N * V::size];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) sum[i][v].store(staged + (i * N + v) * V::size);
  finish<T>(tile, e, staged, N * V::size, 0, tile.columns);
}

// The instance for the tile's rows and vectors.
template <class T, int N, bool Packed, int R = rows_of<T>>
TENSOROPS_INLINE void for_rows(const GemmTile& tile, const GemmEpilogue& e) {
  if constexpr (R > 1) {
    if (tile.rows < R) return for_rows<T, N, Packed, R - 1>(tile, e);
  }
  micro_kernel<T, R, N, Packed>(tile, e);
}
template <class T>
void micro(const GemmTile& tile, const GemmEpilogue& e) {
  const bool packed = tile.a_row == 1 && tile.a_step == rows_of<T>;
  if (tile.columns > Vec<T>::size) {
    if (packed) for_rows<T, 2, true>(tile, e);
    else for_rows<T, 2, false>(tile, e);
  } else {
    if (packed) for_rows<T, 1, true>(tile, e);
    else for_rows<T, 1, false>(tile, e);
  }
}

// ---- Packing ---------------------------------------------------------------------------------------------------------

// One panel of `width` lanes, the first `lanes` of which exist.
template <class S, class T>
TENSOROPS_INLINE void pack_panel(const S* from, int64_t lane_stride, int64_t step_stride, int64_t lanes, int64_t k,
                                 int width, T* to) {
  using V = Vec<T>;
  if (lane_stride == 1) {
    for (int64_t p = 0; p < k; ++p, from += step_stride, to += width)
      for (int l = 0; l < width; l += V::size) {
        const int64_t present = lanes - l < V::size ? (lanes > l ? lanes - l : 0) : V::size;
        store_lanes<T>(load_lanes<T>(from + l, present), to + l, width - l);
      }
  } else if (step_stride == 1) {
    // Squares of one vector by one vector, transposed in registers.
    for (int l = 0; l < width; l += V::size) {
      const int64_t present = lanes - l < V::size ? (lanes > l ? lanes - l : 0) : V::size;
      for (int64_t p = 0; p < k; p += V::size) {
        const int64_t steps = k - p < V::size ? k - p : V::size;
        V rows[V::size];
        for (int i = 0; i < V::size; ++i)
          rows[i] = i < present ? load_lanes<T>(from + (l + i) * lane_stride + p, steps) : V(T(0));
        transpose<T>(rows);
        if (steps == V::size) {
#pragma GCC unroll 16
          for (int i = 0; i < V::size; ++i) store_lanes<T>(rows[i], to + (p + i) * width + l, width - l);
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < V::size; ++i)
            if (i < steps) store_lanes<T>(rows[i], to + (p + i) * width + l, width - l);
        }
      }
    }
  } else {
    for (int64_t p = 0; p < k; ++p, from += step_stride, to += width) {
      for (int64_t l = 0; l < lanes; ++l) to[l] = load_as<T>(from[l * lane_stride]);
      for (int64_t l = lanes; l < width; ++l) to[l] = T(0);
    }
  }
}

template <class S, class T>
void pack(const void* from, int64_t lane_stride, int64_t step_stride, int64_t lanes, int64_t k, int width, void* to) {
  const S* source = static_cast<const S*>(from);
  T* panel = static_cast<T*>(to);
  for (; lanes > 0; lanes -= width, source += width * lane_stride, panel += width * k)
    pack_panel<S, T>(source, lane_stride, step_stride, lanes < width ? lanes : width, k, width, panel);
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
    Vec<double> x_low, x_high, y_low, y_high;
    widen(x, x_low, x_high);
    widen(y, y_low, y_high);
    low[u] = fma(x_low, y_low, low[u]);
    high[u] = fma(x_high, y_high, high[u]);
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
    finish<T>(tile, e, sums, kBlock, begin, n);
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
  alignas(64) T sums[R * kBlock];
  for (int64_t begin = 0; begin < tile.columns; begin += kBlock) {
    const int64_t n = tile.columns - begin < kBlock ? tile.columns - begin : kBlock;
    for (int i = 0; i < R; ++i)
      for (int64_t j = 0; j < n; j += Vec<T>::size) Vec<T>(T(0)).store(sums + i * kBlock + j);
    const S* b = static_cast<const S*>(tile.b) + begin;
    int64_t p = 0;
    for (; p + kSteps <= tile.k; p += kSteps)
      axpy_rows_of_b<S, T, R, kSteps>(tile, p, b + p * tile.b_step, n, sums, kBlock);
    for (; p < tile.k; ++p) axpy_rows_of_b<S, T, R, 1>(tile, p, b + p * tile.b_step, n, sums, kBlock);
    finish<T>(tile, e, sums, kBlock, begin, n);
  }
}

template <class S, class T>
void axpy(const GemmTile& tile, const GemmEpilogue& e) {
  switch (tile.rows) {
    case 1: return axpy_rows<S, T, 1>(tile, e);
    case 2: return axpy_rows<S, T, 2>(tile, e);
    case 3: return axpy_rows<S, T, 3>(tile, e);
    default: return axpy_rows<S, T, 4>(tile, e);
  }
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
