#include "cuda/kernels/gemm.h"

#include "cuda/kernels/gemm_tile.h"
#include "cuda/kernels/math.h"

namespace tensorops::cuda {
namespace {

// One operand as gemm_tile.h wants it. For A, i is the row; for B, the column.
template <class T>
struct StridedSource {
  using Element = T;
  const T* data;
  int64_t i_stride, k_stride, batch_stride;
  bool k_fast;
  int64_t offset = 0;

  TENSOROPS_DEVICE void batch(int64_t b) { offset = b * batch_stride; }
  TENSOROPS_DEVICE T at(int64_t i, int64_t k) const { return data[offset + i * i_stride + k * k_stride]; }
};

template <class T>
StridedSource<T> source_of(const GemmOperand& o, int64_t i_stride, int64_t k_stride) {
  const auto magnitude = [](int64_t stride) { return stride < 0 ? -stride : stride; };
  return {static_cast<const T*>(o.data), i_stride, k_stride, o.batch, magnitude(k_stride) <= magnitude(i_stride)};
}

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
  const T* bias;
  int64_t c_row, c_column, c_batch, source_row, source_column, source_batch;
  Accumulator alpha, beta;
  GemmActivation activation;
  int64_t c_offset = 0, source_offset = 0;

  TENSOROPS_DEVICE void batch(int64_t b) {
    c_offset = b * c_batch;
    source_offset = b * source_batch;
  }
  TENSOROPS_DEVICE void operator()(int64_t i, int64_t j, Accumulator value) const {
    value *= alpha;
    if (source != nullptr) value += beta * load_as<Accumulator>(source[source_offset + i * source_row + j * source_column]);
    if (bias != nullptr) value += load_as<Accumulator>(bias[j]);
    if constexpr (Activated) value = activate(Value<Accumulator>(value), activation).v;
    c[c_offset + i * c_row + j * c_column] = store_as<T>(value);
  }
};

template <class T, class Tile, bool Activated>
void launch_with(const GemmProblem& p, cudaStream_t stream) {
  using Accumulator = typename Tile::Accumulator;
  const LinearEpilogue<T, Accumulator, Activated> epilogue{static_cast<T*>(p.c),
                                                static_cast<const T*>(p.source.data),
                                                static_cast<const T*>(p.bias),
                                                p.c_row,
                                                p.c_column,
                                                p.c_batch,
                                                p.source.row,
                                                p.source.column,
                                                p.source.batch,
                                                static_cast<Accumulator>(p.alpha),
                                                static_cast<Accumulator>(p.beta),
                                                p.activation};
  launch_gemm<Tile>(source_of<T>(p.a, p.a.row, p.a.column), source_of<T>(p.b, p.b.column, p.b.row), epilogue,
                    {p.m, p.n, p.k, p.batches, p.k}, stream);
}

template <class T, class Tile>
void launch(const GemmProblem& p, cudaStream_t stream) {
  if (p.activation == GemmActivation::none) launch_with<T, Tile, false>(p, stream);
  else launch_with<T, Tile, true>(p, stream);
}

}  // namespace

void launch_gemm(const GemmProblem& p, cudaStream_t stream) {
  switch (p.dtype) {
    case DType::f32:
      if (p.allow_tf32) return launch<float, TensorCore<TF32>>(p, stream);
      return launch<float, Simt<float, 128, 128, 8, 8, 8>>(p, stream);
    case DType::f64: return launch<double, Simt<double, 64, 64, 16, 4, 4>>(p, stream);
    case DType::f16: return launch<Half, TensorCore<Half>>(p, stream);
    case DType::bf16: return launch<BFloat16, TensorCore<BFloat16>>(p, stream);
    default: return;
  }
}

}  // namespace tensorops::cuda
