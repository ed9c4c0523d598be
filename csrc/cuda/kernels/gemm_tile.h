// One tiled matrix product for matmul and convolution: C[m][n] = sum_k A[m][k] B[k][n], where A and B are any two functors
// that fetch an element (a strided matrix, or the input of a convolution seen as one). A block computes one tile:
//
//   stage a slab of A and B in shared memory  ->  multiply from shared memory into registers  ->  hand each element of
//   the tile to the epilogue.  The next slab is fetched into registers while the current one is being multiplied.
//
// A source has `bool k_fast` (neighbouring k are neighbours in memory) and `void batch(int64_t)`. Where its elements lie is said in
// two parts, `Row row(i)`, i being the row of A or the column of B, and `Column column(k)`, of which `at(row, column)` makes an
// element; all of them are called only inside the matrix. The parts are made once, those of i for the block and those of k for
// the slab, and kept in shared memory: in registers, where the compiler would keep those of each thread's elements, they have no
// room. An epilogue has `batch` and `row(i)` likewise, and takes (row, j, value).
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
  // f(i, put) for every row that this thread holds elements of; put(g): g(column, value) for these.
  template <class F>
  static TENSOROPS_DEVICE void for_each(const Registers& r, F f) {
    const int row = threadIdx.x / kAcross * ThreadRows, column = threadIdx.x % kAcross * ThreadColumns;
#pragma unroll
    for (int i = 0; i < ThreadRows; ++i)
      f(row + i, [&](auto put) {
#pragma unroll
        for (int j = 0; j < ThreadColumns; ++j) put(column + j, r.finished[i][j] + r.c[i][j]);
      });
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
      for (int half = 0; half < 2; ++half)
        f(row + 16 * i + g + 8 * half, [&](auto put) {
#pragma unroll
          for (int j = 0; j < kTiles; ++j) {
            put(column + 8 * j + 2 * t, r.c[i][j][2 * half]);
            put(column + 8 * j + 2 * t + 1, r.c[i][j][2 * half + 1]);
          }
        });
  }

 private:
  static TENSOROPS_DEVICE uint32_t word(const Staged* p) { return *reinterpret_cast<const uint32_t*>(p); }
};

// Where the elements of a block's operand lie: a row for every i and, for a slab and the next, a column for every k.
template <class Source, int Extent, int Depth>
struct Places {
  typename Source::Row rows[Extent];
  typename Source::Column columns[2][Depth];

  // Rows behind the last one are its like: no result is made of them.
  TENSOROPS_DEVICE void put_rows(const Source& source, int64_t first_i, int64_t extent) {
    for (int i = threadIdx.x; i < Extent; i += kGemmThreads)
      rows[i] = source.row(first_i + i < extent ? first_i + i : extent - 1);
  }
  // By the threads from `by` on.
  TENSOROPS_DEVICE void put_columns(const Source& source, int by, int64_t first_k, int64_t end_k) {
    const int k = static_cast<int>(threadIdx.x) - by;
    if (k >= 0 && k < Depth && first_k + k < end_k) columns[first_k / Depth % 2][k] = source.column(first_k + k);
  }
};

// A slab of one operand on its way to shared memory: each thread carries kCount elements.
template <class Tile, class Source, int Extent>
struct Slab {
  static constexpr int kDepth = Tile::kDepth, kCount = Extent * kDepth / kGemmThreads;
  using Staged = typename Tile::Staged;
  Staged values[kCount];

  // Which element the thread's e-th is. Neighbouring threads take neighbours in memory.
  static TENSOROPS_DEVICE void place(int e, bool k_fast, int& i, int& k) {
    const int index = static_cast<int>(threadIdx.x) + e * kGemmThreads;
    i = k_fast ? index / kDepth : index % Extent;
    k = k_fast ? index % kDepth : index / Extent;
  }
  TENSOROPS_DEVICE void fetch(const Source& source, const Places<Source, Extent, kDepth>& places, int64_t first_k, int64_t end_k) {
    const auto& columns = places.columns[first_k / kDepth % 2];
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      int i, k;
      place(e, source.k_fast, i, k);
      values[e] = first_k + k < end_k ? Tile::stage(source.at(places.rows[i], columns[k])) : Staged{};
    }
  }
};

// The problem: extents, and the part of k that one blockIdx.z sums (all of it unless the product is split).
struct GemmShape {
  int64_t m, n, k, batches, k_per_split;
};

// What a block keeps in shared memory.
template <class Tile, class A, class B>
struct GemmShared {
  Tile tiles[2];  // one is read while the other is written
  Places<A, Tile::kRows, Tile::kDepth> a;
  Places<B, Tile::kColumns, Tile::kDepth> b;
};

template <class Tile, class A, class B, class Epilogue>
__global__ void __launch_bounds__(kGemmThreads) gemm_kernel(A a, B b, Epilogue epilogue, GemmShape shape) {
  extern __shared__ __align__(16) unsigned char raw[];
  auto& shared = *reinterpret_cast<GemmShared<Tile, A, B>*>(raw);
  const int64_t tiles_n = ceil_div<int64_t>(shape.n, Tile::kColumns);
  const int64_t first_m = blockIdx.x / tiles_n * Tile::kRows, first_n = blockIdx.x % tiles_n * Tile::kColumns;
  const int64_t begin_k = blockIdx.z * shape.k_per_split;
  const int64_t end_k = begin_k + shape.k_per_split < shape.k ? begin_k + shape.k_per_split : shape.k;
  const auto put_columns = [&](int64_t k) {
    shared.a.put_columns(a, 0, k, end_k);
    shared.b.put_columns(b, kGemmThreads / 2, k, end_k);
  };
  shared.a.put_rows(a, first_m, shape.m);
  shared.b.put_rows(b, first_n, shape.n);

  for (int64_t batch = blockIdx.y; batch < shape.batches; batch += gridDim.y) {
    a.batch(batch);
    b.batch(batch);
    typename Tile::Registers registers;
    Slab<Tile, A, Tile::kRows> slab_a;
    Slab<Tile, B, Tile::kColumns> slab_b;
    const auto fetch = [&](int64_t k) {
      slab_a.fetch(a, shared.a, k, end_k);
      slab_b.fetch(b, shared.b, k, end_k);
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
      __syncthreads();  // the previous batch may still be reading
      put_columns(begin_k);
      put_columns(begin_k + Tile::kDepth);
      __syncthreads();
      fetch(begin_k);
      store(shared.tiles[0]);
      __syncthreads();
    }
    for (int64_t k = begin_k; k < end_k; k += Tile::kDepth) {
      const bool more = k + Tile::kDepth < end_k;
      if (more) fetch(k + Tile::kDepth);
      put_columns(k + 2 * Tile::kDepth);  // in the place of this slab's, which has been fetched
      shared.tiles[current].multiply(registers);
      if ((k - begin_k) % kPart == kPart - Tile::kDepth) Tile::finish_part(registers);
      if (more) store(shared.tiles[1 - current]);
      __syncthreads();
      current = 1 - current;
    }
    epilogue.batch(batch);
    Tile::for_each(registers, [&](int i, auto values) {
      if (first_m + i >= shape.m) return;
      const auto row = epilogue.row(first_m + i);
      values([&](int j, typename Tile::Accumulator value) {
        if (first_n + j < shape.n) epilogue(row, first_n + j, value);
      });
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
  constexpr int kShared = sizeof(GemmShared<Tile, A, B>);
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
  TENSOROPS_DEVICE Accumulator* row(int64_t i) const { return partial + ((blockIdx.z * batches + at_batch) * m + i) * n; }
  TENSOROPS_DEVICE void operator()(Accumulator* row, int64_t j, Accumulator value) const { row[j] = value; }
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
    epilogue(epilogue.row(i), j, sum);
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
