// Matrix products by the shape of what is summed: one term or none, elementwise; few rows or columns, at the speed of
// memory; all others, in the tiles of gemm_tile.h. Sums are cut among blocks where there are too few results to go round.
#include "cuda/kernels/gemm.h"

#include "cuda/kernels/gemm_tile.h"
#include "cuda/kernels/layout.h"
#include "cuda/kernels/math.h"

namespace tensorops::cuda {
namespace {

constexpr int kNarrow = 8;              // columns up to which a product is one of rows with vectors
constexpr int64_t kTermsPerLane = 8;    // a lane with less to sum is not worth its merge
constexpr int64_t kNarrowBlocks = 256;  // blocks wanted, the same on every device, as they group the sums
constexpr int64_t kNarrowPart = 8192;   // terms at least, of a sum that is cut among them
constexpr int64_t kTiles = 128;         // the same for tiles
constexpr int64_t kTilePart = 512;

// ---- operands and results --------------------------------------------------------------------------------------------

// One operand as gemm_tile.h wants it. For A, i is the row; for B, the column.
template <class T>
struct StridedSource {
  using Element = T;
  using Row = int64_t;
  using Column = int64_t;
  const T* data;
  int64_t i_stride, k_stride, batch_stride;
  bool k_fast;
  int64_t offset = 0;

  TENSOROPS_DEVICE void batch(int64_t b) { offset = b * batch_stride; }
  TENSOROPS_DEVICE Row row(int64_t i) const { return i * i_stride; }
  TENSOROPS_DEVICE Column column(int64_t k) const { return k * k_stride; }
  TENSOROPS_DEVICE T at(Row row, Column column) const { return data[offset + row + column]; }
};

// The matrices of a batch side by side along k: the product of two such is the sum of the batch's products.
template <class T>
struct StackedSource {
  using Element = T;
  using Row = int64_t;
  using Column = int64_t;
  StridedSource<T> one;
  Split depth;
  bool k_fast;

  TENSOROPS_DEVICE void batch(int64_t) {}
  TENSOROPS_DEVICE Row row(int64_t i) const { return one.row(i); }
  TENSOROPS_DEVICE Column column(int64_t k) const {
    const int64_t matrix = depth(k);
    return matrix * one.batch_stride + one.column(k);
  }
  TENSOROPS_DEVICE T at(Row row, Column column) const { return one.at(row, column); }
};

template <class T>
StridedSource<T> source_of(const GemmOperand& o, int64_t i_stride, int64_t k_stride) {
  const auto magnitude = [](int64_t stride) { return stride < 0 ? -stride : stride; };
  return {static_cast<const T*>(o.data), i_stride, k_stride, o.batch, magnitude(k_stride) <= magnitude(i_stride)};
}
template <class T>
StridedSource<T> source_of_a(const GemmProblem& p) { return source_of<T>(p.a, p.a.row, p.a.column); }
template <class T>
StridedSource<T> source_of_b(const GemmProblem& p) { return source_of<T>(p.b, p.b.column, p.b.row); }

// Out of line: inlined into every element of a tile it would take the registers that the product needs.
template <class V>
__device__ __noinline__ V activate(V x, GemmActivation activation) {
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

template <class T, class Accumulator, bool Activated>
struct LinearEpilogue {
  T* c;
  const T* source;
  int64_t c_row, c_column, c_batch, source_row, source_column, source_batch;
  Accumulator alpha, beta;
  GemmActivation activation;
  int64_t c_offset = 0, source_offset = 0;

  TENSOROPS_DEVICE void batch(int64_t b) {
    c_offset = b * c_batch;
    source_offset = b * source_batch;
  }
  struct Row {
    T* c;
    const T* source;
  };
  TENSOROPS_DEVICE Row row(int64_t i) const {
    return {c + c_offset + i * c_row, source == nullptr ? nullptr : source + source_offset + i * source_row};
  }
  TENSOROPS_DEVICE void operator()(const Row& row, int64_t j, Accumulator value) const {
    value *= alpha;
    if (row.source != nullptr) value += beta * load_as<Accumulator>(row.source[j * source_column]);
    if constexpr (Activated) value = activate(Value<Accumulator>(value), activation).v;
    row.c[j * c_column] = store_as<T>(value);
  }
};

template <class Accumulator>
Accumulator factor(const GemmScalar& s) {
  if constexpr (std::is_integral_v<Accumulator>) return static_cast<Accumulator>(s.integer);
  else return static_cast<Accumulator>(s.real);
}
template <class T, class Accumulator, bool Activated>
LinearEpilogue<T, Accumulator, Activated> epilogue_of(const GemmProblem& p) {
  return {static_cast<T*>(p.c),
          static_cast<const T*>(p.source.data),
          p.c_row,
          p.c_column,
          p.c_batch,
          p.source.row,
          p.source.column,
          p.source.batch,
          factor<Accumulator>(p.alpha),
          factor<Accumulator>(p.beta),
          p.activation};
}

// ---- nothing to sum --------------------------------------------------------------------------------------------------

template <class A, class Epilogue>
__global__ void __launch_bounds__(kThreads)
    outer_kernel(A a, A b, Epilogue epilogue, int64_t elements, Split columns, Split rows, bool empty) {
  using Accumulator = ComputeOf<typename A::Element>;
  for (int64_t index = blockIdx.x * int64_t(kThreads) + threadIdx.x; index < elements; index += gridDim.x * int64_t(kThreads)) {
    int64_t j = index, i = columns(j);
    const int64_t batch = rows(i);
    a.batch(batch);
    b.batch(batch);
    epilogue.batch(batch);
    const auto of = [](const A& source, int64_t at) { return load_as<Accumulator>(source.at(source.row(at), source.column(0))); };
    epilogue(epilogue.row(i), j, empty ? Accumulator(0) : of(a, i) * of(b, j));
  }
}

template <class T>
void launch_outer(const GemmProblem& p, cudaStream_t stream) {
  const int64_t elements = p.batches * p.m * p.n;
  const bool wide = elements > 0x7fffffff;
  const auto launch = [&](const auto& epilogue) {
    outer_kernel<<<blocks_for(elements, kThreads), kThreads, 0, stream>>>(
        source_of_a<T>(p), source_of_b<T>(p), epilogue, elements, Split(p.n, wide), Split(p.m, wide), p.k == 0);
  };
  using Accumulator = ComputeOf<T>;
  if constexpr (is_floating<T>) {
    if (p.activation != GemmActivation::none) return launch(epilogue_of<T, Accumulator, true>(p));
  }
  launch(epilogue_of<T, Accumulator, false>(p));
}

// ---- few columns -----------------------------------------------------------------------------------------------------

// How a block's threads are laid out: `lanes` of them sum one row. across: neighbouring threads have neighbouring rows.
struct NarrowShape {
  int64_t m, n, k, batches, k_per_split;
  int lanes;
  bool across;
};

template <class Accumulator, int N>
struct Sums {
  struct State {
    Accumulator of[N];
  };
  static TENSOROPS_DEVICE State merge(State a, const State& b) {
#pragma unroll
    for (int j = 0; j < N; ++j) a.of[j] += b.of[j];
    return a;
  }
};

// blockIdx.x: rows; blockIdx.y: batches; blockIdx.z: parts of k.
template <class T, class Accumulator, int N, class Epilogue>
__global__ void __launch_bounds__(kThreads)
    narrow_kernel(StridedSource<T> a, StridedSource<T> b, Epilogue epilogue, NarrowShape shape) {
  const int rows = kThreads / shape.lanes, thread = threadIdx.x;
  const int lane = shape.across ? thread / rows : thread % shape.lanes;
  const int slot = shape.across ? thread % rows : thread / shape.lanes;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * rows + slot;
  const int64_t begin = blockIdx.z * shape.k_per_split;
  const int64_t end = begin + shape.k_per_split < shape.k ? begin + shape.k_per_split : shape.k;
  for (int64_t batch = blockIdx.y; batch < shape.batches; batch += gridDim.y) {
    a.batch(batch);
    b.batch(batch);
    typename Sums<Accumulator, N>::State sums = {};
    if (i < shape.m) {
#pragma unroll 4
      for (int64_t k = begin + lane; k < end; k += shape.lanes) {
        const Accumulator x = load_as<Accumulator>(a.at(a.row(i), a.column(k)));
#pragma unroll
        for (int j = 0; j < N; ++j)
          if (N == 1 || j < shape.n) sums.of[j] += x * load_as<Accumulator>(b.at(b.row(j), b.column(k)));
      }
    }
    __syncthreads();  // the merge of an earlier batch may still be reading
    sums = merge_lanes<Sums<Accumulator, N>>(sums, lane, shape.lanes, shape.across ? rows : 1);
    if (lane != 0 || i >= shape.m) continue;
    epilogue.batch(batch);
    const auto row = epilogue.row(i);
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (N == 1 || j < shape.n) epilogue(row, j, sums.of[j]);
  }
}

template <class T, class Accumulator, class Epilogue>
void launch_narrow(const GemmProblem& p, const NarrowShape& shape, const Epilogue& epilogue, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(p.m, kThreads / shape.lanes)),
                  static_cast<unsigned>(p.batches < 65535 ? p.batches : 65535),
                  static_cast<unsigned>(ceil_div(p.k, shape.k_per_split)));
  const auto kernel = p.n == 1 ? narrow_kernel<T, Accumulator, 1, Epilogue> : narrow_kernel<T, Accumulator, kNarrow, Epilogue>;
  kernel<<<grid, kThreads, 0, stream>>>(source_of_a<T>(p), source_of_b<T>(p), epilogue, shape);
}

// ---- choice ----------------------------------------------------------------------------------------------------------

enum class Path { outer, narrow, tiles };

// What is to be done, by sizes and strides alone: a result must not depend on the device it is computed on.
struct Plan {
  GemmProblem p;       // with the smaller side as columns where one is narrow
  Path path;
  int64_t terms;       // of each sum
  int64_t per_part, parts;
  NarrowShape narrow;
};

GemmProblem transposed(const GemmProblem& p) {
  GemmProblem t = p;
  const auto flip = [](const GemmOperand& o) { return GemmOperand{o.data, o.column, o.row, o.batch}; };
  t.m = p.n, t.n = p.m;
  t.a = flip(p.b), t.b = flip(p.a), t.source = flip(p.source);
  t.c_row = p.c_column, t.c_column = p.c_row;
  return t;
}

int tile_extent(DType dtype) { return dtype == DType::f64 ? 64 : 128; }

Plan plan_of(const GemmProblem& problem) {
  Plan plan{problem};
  GemmProblem& p = plan.p;
  plan.terms = p.sums_batches ? p.batches * p.k : p.k;
  // The stride of a dimension of size one may be anything.
  const auto normalize = [](int64_t size, int64_t& stride) {
    if (size == 1) stride = 0;
  };
  normalize(p.n, p.c_column);
  normalize(p.m, p.c_row);
  if (plan.terms == 0) p.alpha = {0, 0};  // the product is zero, not NaN for an infinite alpha
  if (plan.terms <= 1) {
    plan.path = Path::outer;
    if (p.sums_batches) p.batches = 1;
    p.k = plan.terms;
    if (p.c_column > p.c_row && p.m > 1) p = transposed(p);
    return plan;
  }
  if (!p.sums_batches && (p.m <= kNarrow || p.n <= kNarrow)) {
    plan.path = Path::narrow;
    if (p.m < p.n) p = transposed(p);
    NarrowShape& s = plan.narrow;
    s.m = p.m, s.n = p.n, s.k = p.k, s.batches = p.batches;
    s.across = p.m > 1 && !source_of_a<char>(p).k_fast;
    const int most = s.across ? kThreads / kWarp : kThreads;
    for (s.lanes = 1; s.lanes < most && s.lanes * kTermsPerLane < p.k;) s.lanes *= 2;
    const int64_t blocks = ceil_div<int64_t>(p.m, kThreads / s.lanes) * p.batches;
    const int64_t wanted = ceil_div(kNarrowBlocks, blocks), most_parts = ceil_div(p.k, kNarrowPart);
    plan.per_part = ceil_div(p.k, wanted < most_parts ? wanted : most_parts);
    s.k_per_split = plan.per_part;
  } else {
    plan.path = Path::tiles;
    const int extent = tile_extent(p.dtype);
    const int64_t matrices = p.sums_batches ? 1 : p.batches;
    const int64_t tiles = ceil_div<int64_t>(p.m, extent) * ceil_div<int64_t>(p.n, extent) * matrices;
    const int64_t wanted = ceil_div(kTiles, tiles), most_parts = ceil_div(plan.terms, kTilePart);
    const int64_t parts = wanted < most_parts ? wanted : most_parts;
    constexpr int64_t kSlab = 32;  // a multiple of every tile's depth
    plan.per_part = ceil_div(ceil_div(plan.terms, parts), kSlab) * kSlab;
  }
  plan.parts = ceil_div(plan.terms, plan.per_part);
  return plan;
}

// Whether sums go through the workspace; a stacked product always does, which leaves it one kernel.
bool is_staged(const Plan& plan) { return plan.path != Path::outer && (plan.parts > 1 || plan.p.sums_batches); }

template <class T, class Tile>
void launch(const Plan& plan, void* workspace, cudaStream_t stream) {
  using Accumulator = typename Tile::Accumulator;
  const GemmProblem& p = plan.p;
  const GemmShape shape{p.m, p.n, plan.terms, p.sums_batches ? 1 : p.batches, plan.per_part};
  const auto plain = epilogue_of<T, Accumulator, false>(p);
  const auto activated = epilogue_of<T, Accumulator, true>(p);
  if (!is_staged(plan)) {
    if (plan.path == Path::narrow) return launch_narrow<T, Accumulator>(p, plan.narrow, activated, stream);
    if (p.activation == GemmActivation::none) launch_gemm<Tile>(source_of_a<T>(p), source_of_b<T>(p), plain, shape, stream);
    else launch_gemm<Tile>(source_of_a<T>(p), source_of_b<T>(p), activated, shape, stream);
    return;
  }
  const PartialEpilogue<Accumulator> partial{static_cast<Accumulator*>(workspace), p.m, p.n, shape.batches};
  if (plan.path == Path::narrow) {
    launch_narrow<T, Accumulator>(p, plan.narrow, partial, stream);
  } else if (p.sums_batches) {
    const Split depth(p.k, plan.terms > 0x7fffffff);
    const auto stacked = [&](const StridedSource<T>& one) { return StackedSource<T>{one, depth, one.k_fast}; };
    launch_gemm<Tile>(stacked(source_of_a<T>(p)), stacked(source_of_b<T>(p)), partial, shape, stream);
  } else {
    launch_gemm<Tile>(source_of_a<T>(p), source_of_b<T>(p), partial, shape, stream);
  }
  sum_parts(partial, activated, plan.parts, stream);
}

}  // namespace

bool gemm_covers(const GemmProblem& p) {
  const int64_t terms = p.sums_batches ? p.batches * p.k : p.k;
  return terms <= 1 || compute_type(p.dtype) == Compute::f32 || compute_type(p.dtype) == Compute::f64;
}

int64_t gemm_workspace_bytes(const GemmProblem& problem) {
  const Plan plan = plan_of(problem);
  if (!is_staged(plan)) return 0;
  const int64_t elements = plan.parts * (problem.sums_batches ? 1 : problem.batches) * problem.m * problem.n;
  return elements * (problem.dtype == DType::f64 ? 8 : 4);
}

void launch_gemm(const GemmProblem& problem, bool allow_tf32, void* workspace, cudaStream_t stream) {
  const Plan plan = plan_of(problem);
  if (plan.path == Path::outer)
    return with_storage(problem.dtype, [&](auto type) { launch_outer<decltype(type)>(plan.p, stream); });
  switch (problem.dtype) {
    case DType::f32:
      if (allow_tf32) return launch<float, TensorCore<TF32>>(plan, workspace, stream);
      return launch<float, Simt<float, 128, 128, 8, 8, 8>>(plan, workspace, stream);
    case DType::f64: return launch<double, Simt<double, 64, 64, 16, 4, 4>>(plan, workspace, stream);
    case DType::f16: return launch<Half, TensorCore<Half>>(plan, workspace, stream);
    case DType::bf16: return launch<BFloat16, TensorCore<BFloat16>>(plan, workspace, stream);
    default: return;
  }
}

}  // namespace tensorops::cuda
