// One tiled matrix product for matmul and convolution: C[m][n] = sum_k A[m][k] B[k][n], where A and B are any two functors
// that fetch an element (a strided matrix, or the input of a convolution seen as one). A block computes one tile:
//
//   stage a slab of A and B in shared memory  ->  multiply from shared memory into registers  ->  hand each element of
//   the tile to the epilogue.  The next slab is fetched into registers while the current one is being multiplied.
//
// A source has `Element`, `bool k_fast` (neighbouring k are neighbours in memory), `void batch(int64_t)` and
// `Element at(int64_t i, int64_t k)`, called only inside the matrix; i is the row of A or the column of B.
// The order of summation over k depends on the shape alone.
#pragma once

#include "cuda/kernels/common.h"
#include "cuda/kernels/mma.h"

namespace tensorops::cuda {
namespace {

constexpr int kGemmThreads = 256;
constexpr int kPart = 64;  // of k, where it is summed in parts

// Multiplication on the ordinary cores, in T: f32 without tf32, f64.
template <class T, int Rows, int Columns, int Depth, int ThreadRows, int ThreadColumns>
struct Simt {
  using Staged = T;
  using Accumulator = T;
  static constexpr int kRows = Rows, kColumns = Columns, kDepth = Depth;
  static constexpr int kAcross = Columns / ThreadColumns;
  static_assert(Rows / ThreadRows * kAcross == kGemmThreads);
  // [k][i], so that a thread's rows and columns are neighbours; padded against bank conflicts while staging.
  T a[Depth][Rows + 4];
  T b[Depth][Columns + 4];

  TENSOROPS_DEVICE void put_a(int i, int k, T x) { a[k][i] = x; }
  TENSOROPS_DEVICE void put_b(int i, int k, T x) { b[k][i] = x; }
  template <class S>
  static TENSOROPS_DEVICE T stage(S x) { return load_as<T>(x); }

  // k is summed in parts: one chain of additions loses more bits the longer it is.
  struct Registers {
    T c[ThreadRows][ThreadColumns] = {};
    T finished[ThreadRows][ThreadColumns] = {};
  };
  static TENSOROPS_DEVICE void finish_part(Registers& r) {
#pragma unroll
    for (int i = 0; i < ThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < ThreadColumns; ++j) r.finished[i][j] += r.c[i][j], r.c[i][j] = 0;
  }
  TENSOROPS_DEVICE void multiply(Registers& r) const {
    const int row = threadIdx.x / kAcross * ThreadRows, column = threadIdx.x % kAcross * ThreadColumns;
#pragma unroll
    for (int k = 0; k < Depth; ++k) {
      T x[ThreadRows], y[ThreadColumns];
#pragma unroll
      for (int i = 0; i < ThreadRows; ++i) x[i] = a[k][row + i];
#pragma unroll
      for (int j = 0; j < ThreadColumns; ++j) y[j] = b[k][column + j];
#pragma unroll
      for (int i = 0; i < ThreadRows; ++i)
#pragma unroll
        for (int j = 0; j < ThreadColumns; ++j) r.c[i][j] += x[i] * y[j];
    }
  }
  // f(row, column, value) for every element that this thread holds.
  template <class F>
  static TENSOROPS_DEVICE void for_each(const Registers& r, F f) {
    const int row = threadIdx.x / kAcross * ThreadRows, column = threadIdx.x % kAcross * ThreadColumns;
#pragma unroll
    for (int i = 0; i < ThreadRows; ++i)
#pragma unroll
      for (int j = 0; j < ThreadColumns; ++j) f(row + i, column + j, r.finished[i][j] + r.c[i][j]);
  }
};

// Multiplication on tensor cores: E is Half, BFloat16 or TF32. Eight warps, two rows of four; each has 64 x 32 of C.
template <class E>
struct TensorCore {
  using Staged = std::conditional_t<std::is_same_v<E, TF32>, uint32_t, E>;
  using Accumulator = float;
  static constexpr int kRows = 128, kColumns = 128, kDepth = 32;
  static constexpr int kTiles = 4;  // 16-row tiles and 8-column tiles of a warp
  // [i][k], so that a fragment register is one 32-bit word; a row is 4 words (mod 32) longer than a multiple of the banks,
  // so that the 32 lanes of a fragment load hit 32 banks.
  static constexpr int kPitch = kDepth + 16 / static_cast<int>(sizeof(Staged));
  alignas(16) Staged a[kRows][kPitch];
  alignas(16) Staged b[kColumns][kPitch];

  TENSOROPS_DEVICE void put_a(int i, int k, Staged x) { a[i][k] = x; }
  TENSOROPS_DEVICE void put_b(int i, int k, Staged x) { b[i][k] = x; }
  template <class S>
  static TENSOROPS_DEVICE Staged stage(S x) {
    if constexpr (std::is_same_v<E, TF32>) return to_tf32(load_as<float>(x));
    else return x;
  }

  struct Registers {
    float c[kTiles][kTiles][4] = {};
  };
  static TENSOROPS_DEVICE void finish_part(Registers&) {}
  TENSOROPS_DEVICE void multiply(Registers& r) const {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const int row = warp / 4 * 64, column = warp % 4 * 32;
    constexpr int kStep = kMmaDepth<Staged>, kWord = 4 / static_cast<int>(sizeof(Staged)), kHalf = kStep / 2;
#pragma unroll
    for (int k = 0; k < kDepth; k += kStep) {
      uint32_t fa[kTiles][4], fb[kTiles][2];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int at = row + 16 * i + g;
        fa[i][0] = word(&a[at][k + kWord * t]);
        fa[i][1] = word(&a[at + 8][k + kWord * t]);
        fa[i][2] = word(&a[at][k + kHalf + kWord * t]);
        fa[i][3] = word(&a[at + 8][k + kHalf + kWord * t]);
      }
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const int at = column + 8 * j + g;
        fb[j][0] = word(&b[at][k + kWord * t]);
        fb[j][1] = word(&b[at][k + kHalf + kWord * t]);
      }
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
#pragma unroll
        for (int j = 0; j < kTiles; ++j) mma<E>(r.c[i][j], fa[i], fb[j]);
    }
  }
  template <class F>
  static TENSOROPS_DEVICE void for_each(const Registers& r, F f) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const int row = warp / 4 * 64, column = warp % 4 * 32;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        f(row + 16 * i + g, column + 8 * j + 2 * t, r.c[i][j][0]);
        f(row + 16 * i + g, column + 8 * j + 2 * t + 1, r.c[i][j][1]);
        f(row + 16 * i + g + 8, column + 8 * j + 2 * t, r.c[i][j][2]);
        f(row + 16 * i + g + 8, column + 8 * j + 2 * t + 1, r.c[i][j][3]);
      }
  }

 private:
  static TENSOROPS_DEVICE uint32_t word(const Staged* p) { return *reinterpret_cast<const uint32_t*>(p); }
};

// A slab of one operand on its way to shared memory: each thread carries kCount elements.
template <int Extent, int Depth, class Staged>
struct Slab {
  static constexpr int kCount = Extent * Depth / kGemmThreads;
  Staged values[kCount];

  // Which element the thread's e-th is. Neighbouring threads take neighbours in memory.
  static TENSOROPS_DEVICE void place(int e, bool k_fast, int& i, int& k) {
    const int index = static_cast<int>(threadIdx.x) + e * kGemmThreads;
    i = k_fast ? index / Depth : index % Extent;
    k = k_fast ? index % Depth : index / Extent;
  }
  template <class Tile, class Source>
  TENSOROPS_DEVICE void fetch(Source& source, int64_t first_i, int64_t extent, int64_t first_k, int64_t end_k) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      int i, k;
      place(e, source.k_fast, i, k);
      const bool inside = first_i + i < extent && first_k + k < end_k;
      values[e] = inside ? Tile::stage(source.at(first_i + i, first_k + k)) : Staged{};
    }
  }
};

// The problem: extents, and the part of k that one blockIdx.z sums (all of it unless the product is split).
struct GemmShape {
  int64_t m, n, k, batches, k_per_split;
};

template <class Tile, class A, class B, class Epilogue>
__global__ void __launch_bounds__(kGemmThreads) gemm_kernel(A a, B b, Epilogue epilogue, GemmShape shape) {
  using Staged = typename Tile::Staged;
  extern __shared__ __align__(16) unsigned char raw[];
  Tile* const tiles = reinterpret_cast<Tile*>(raw);  // two: one is read while the other is written
  const int64_t tiles_n = ceil_div<int64_t>(shape.n, Tile::kColumns);
  const int64_t first_m = blockIdx.x / tiles_n * Tile::kRows, first_n = blockIdx.x % tiles_n * Tile::kColumns;
  const int64_t begin_k = blockIdx.z * shape.k_per_split;
  const int64_t end_k = begin_k + shape.k_per_split < shape.k ? begin_k + shape.k_per_split : shape.k;

  for (int64_t batch = blockIdx.y; batch < shape.batches; batch += gridDim.y) {
    a.batch(batch);
    b.batch(batch);
    typename Tile::Registers registers;
    Slab<Tile::kRows, Tile::kDepth, Staged> slab_a;
    Slab<Tile::kColumns, Tile::kDepth, Staged> slab_b;
    const auto fetch = [&](int64_t k) {
      slab_a.template fetch<Tile>(a, first_m, shape.m, k, end_k);
      slab_b.template fetch<Tile>(b, first_n, shape.n, k, end_k);
    };
    const auto store = [&](Tile& tile) {
#pragma unroll
      for (int e = 0; e < slab_a.kCount; ++e) {
        int i, k;
        slab_a.place(e, a.k_fast, i, k);
        tile.put_a(i, k, slab_a.values[e]);
      }
#pragma unroll
      for (int e = 0; e < slab_b.kCount; ++e) {
        int i, k;
        slab_b.place(e, b.k_fast, i, k);
        tile.put_b(i, k, slab_b.values[e]);
      }
    };
    int current = 0;
    if (begin_k < end_k) {
      fetch(begin_k);
      __syncthreads();  // the previous batch may still be reading
      store(tiles[0]);
      __syncthreads();
    }
    for (int64_t k = begin_k; k < end_k; k += Tile::kDepth) {
      const bool more = k + Tile::kDepth < end_k;
      if (more) fetch(k + Tile::kDepth);
      tiles[current].multiply(registers);
      if ((k - begin_k) % kPart == kPart - Tile::kDepth) Tile::finish_part(registers);
      if (more) store(tiles[1 - current]);
      __syncthreads();
      current = 1 - current;
    }
    epilogue.batch(batch);
    Tile::for_each(registers, [&](int i, int j, typename Tile::Accumulator value) {
      if (first_m + i < shape.m && first_n + j < shape.n) epilogue(first_m + i, first_n + j, value);
    });
  }
}

// Launches over all tiles and batches; an empty C launches nothing, an empty k leaves zeros to the epilogue.
template <class Tile, class A, class B, class Epilogue>
void launch_gemm(const A& a, const B& b, const Epilogue& epilogue, GemmShape shape, cudaStream_t stream) {
  if (shape.m == 0 || shape.n == 0 || shape.batches == 0) return;
  const int64_t tiles = ceil_div<int64_t>(shape.m, Tile::kRows) * ceil_div<int64_t>(shape.n, Tile::kColumns);
  const int64_t splits = shape.k == 0 ? 1 : ceil_div(shape.k, shape.k_per_split);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(shape.batches < 65535 ? shape.batches : 65535),
                  static_cast<unsigned>(splits));
  constexpr int kShared = 2 * sizeof(Tile);
  const auto kernel = gemm_kernel<Tile, A, B, Epilogue>;
  if constexpr (kShared > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  kernel<<<grid, kGemmThreads, kShared, stream>>>(a, b, epilogue, shape);
}

// ---- split sums: each part of k leaves a matrix of its own, and a second pass adds them, first to last ------------------

template <class Accumulator>
struct PartialEpilogue {
  Accumulator* partial;
  int64_t m, n, batches;
  int64_t at_batch = 0;
  TENSOROPS_DEVICE void batch(int64_t b) { at_batch = b; }
  TENSOROPS_DEVICE void operator()(int64_t i, int64_t j, Accumulator value) const {
    partial[((blockIdx.z * batches + at_batch) * m + i) * n + j] = value;
  }
};

template <class Accumulator, class Epilogue>
__global__ void __launch_bounds__(kThreads) sum_parts_kernel(const Accumulator* partial, Epilogue epilogue, int64_t elements,
                                                             Split columns, Split rows, int64_t parts) {
  for (int64_t index = blockIdx.x * int64_t(kThreads) + threadIdx.x; index < elements; index += gridDim.x * int64_t(kThreads)) {
    Accumulator sum = 0;
#pragma unroll 8
    for (int64_t part = 0; part < parts; ++part) sum += partial[part * elements + index];
    int64_t j = index, i = columns(j);
    epilogue.batch(rows(i));
    epilogue(i, j, sum);
  }
}
template <class Accumulator, class Epilogue>
void sum_parts(const PartialEpilogue<Accumulator>& sums, const Epilogue& epilogue, int64_t parts, cudaStream_t stream) {
  const int64_t elements = sums.batches * sums.m * sums.n;
  const bool wide = elements > 0x7fffffff;
  sum_parts_kernel<<<blocks_for(elements, kThreads), kThreads, 0, stream>>>(
      sums.partial, epilogue, elements, Split(sums.n, wide), Split(sums.m, wide), parts);
}

}  // namespace
}  // namespace tensorops::cuda
