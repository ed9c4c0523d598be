// The strided kernel of every row for one compute type. Each elementwise_strided_<type>.cu includes it once.
#pragma once

#include "cuda/kernels/elementwise_rows.h"

namespace tensorops::cuda {
namespace {

constexpr int kPerThread = 4;  // elements whose loads are in flight together

template <class C, int Operands>
struct StridedArguments {
  DType common;
  int dims;
  uint32_t n;
  Divider sizes[kMaxDims];
  uint32_t strides[kMaxDims][Operands];  // in bytes; the output first
  char* data[Operands];                  // null: the operand is constant[i - 1]
  DType dtype[Operands];
  C constant[3];
  C scalars[3];
};

// What is of another dtype goes through the common one, as in torch: uint8 5 < int32 300 compares 5 with 44.
template <class C>
TENSOROPS_DEVICE void round_to(DType common, C (&x)[kPerThread]) {
  with_storage(common, [&](auto storage) {
    using S = decltype(storage);
    if constexpr (std::is_same_v<ComputeOf<S>, C> && !std::is_same_v<S, C>) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) x[j] = load_as<C>(store_as<S>(x[j]));
    }
  });
}

template <class C>
TENSOROPS_DEVICE void gather(const char* data, DType dtype, DType common, C constant, const uint32_t (&offset)[kPerThread],
                             C (&to)[kPerThread]) {
  if (data == nullptr) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) to[j] = constant;
    return;
  }
  with_storage(dtype, [&](auto storage) {
    using S = decltype(storage);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) to[j] = load_as<C>(*reinterpret_cast<const S*>(data + offset[j]));
  });
  if (dtype != common) round_to(common, to);
}

template <class C>
TENSOROPS_DEVICE void scatter(const C (&from)[kPerThread], char* data, DType dtype, const uint32_t (&offset)[kPerThread],
                              uint32_t first, uint32_t n) {
  with_storage(dtype, [&](auto storage) {
    using S = decltype(storage);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j)
      if (first + j * kThreads < n) *reinterpret_cast<S*>(data + offset[j]) = store_as<S>(from[j]);
  });
}

template <class Row, class C, int Inputs>
__global__ void __launch_bounds__(kThreads) strided_kernel(const StridedArguments<C, Inputs + 1> arguments) {
  const uint32_t first = blockIdx.x * (kThreads * kPerThread) + threadIdx.x;
  uint32_t offset[Inputs + 1][kPerThread] = {};
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    uint32_t rest = first + j * kThreads;
    if (rest >= arguments.n) rest = 0;  // loads what exists and stores nothing
#pragma unroll
    for (int dim = 0; dim < kMaxDims; ++dim) {
      if (dim == arguments.dims) break;
      uint32_t index = rest;
      if (dim + 1 < arguments.dims) rest = arguments.sizes[dim].divide_leaving(index);
#pragma unroll
      for (int i = 0; i <= Inputs; ++i) offset[i][j] += index * arguments.strides[dim][i];
    }
  }
  C x[Inputs][kPerThread], y[kPerThread];
#pragma unroll
  for (int i = 0; i < Inputs; ++i)
    gather(arguments.data[i + 1], arguments.dtype[i + 1], arguments.common, arguments.constant[i], offset[i + 1], x[i]);
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) y[j] = evaluate<Row, Inputs>(x, j, arguments.scalars);
  if (arguments.dtype[0] != arguments.common && Row::domain != Domain::PREDICATE) round_to(arguments.common, y);
  scatter(y, arguments.data[0], arguments.dtype[0], offset[0], first, arguments.n);
}

template <class Row, class C, int Inputs>
void launch_strided(const StridedElementwise& call, cudaStream_t stream) {
  StridedArguments<C, Inputs + 1> arguments;
  arguments.common = call.common;
  arguments.dims = call.dims;
  arguments.n = 1;
  for (int dim = 0; dim < call.dims; ++dim) {
    const auto size = static_cast<uint32_t>(call.sizes[dim]);
    arguments.n *= size;
    arguments.sizes[dim] = Divider(size);
    arguments.strides[dim][0] = static_cast<uint32_t>(call.out_strides[dim]);
    for (int i = 0; i < Inputs; ++i) arguments.strides[dim][i + 1] = static_cast<uint32_t>(call.in_strides[i][dim]);
  }
  arguments.data[0] = static_cast<char*>(call.out);
  arguments.dtype[0] = call.out_dtype;
  for (int i = 0; i < Inputs; ++i) {
    arguments.data[i + 1] = static_cast<char*>(const_cast<void*>(call.in[i]));
    arguments.dtype[i + 1] = call.in_dtype[i];
  }
  for (int i = 0; i < 3; ++i) {
    arguments.constant[i] = constant_as<C>(call.constant[i]);
    arguments.scalars[i] = constant_as<C>(call.scalars[i]);
  }
  strided_kernel<Row, C, Inputs>
      <<<blocks_for(arguments.n, kThreads * kPerThread), kThreads, 0, stream>>>(arguments);
}

template <class Row, class C, int Inputs>
constexpr StridedLauncher strided_launcher() {
  if constexpr (is_defined<Row, C>) return launch_strided<Row, C, Inputs>;
  else return nullptr;
}

}  // namespace
}  // namespace tensorops::cuda
