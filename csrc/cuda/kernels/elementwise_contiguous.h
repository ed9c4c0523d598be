// The contiguous kernel of every row for one storage type. Each elementwise_contiguous_<dtype>.cu includes it once.
#pragma once

#include "cuda/kernels/elementwise_rows.h"

namespace tensorops::cuda {
namespace {

template <class C>
struct ContiguousArguments {
  void* out;
  const void* in[3];
  C constant[3];
  C scalars[3];
  int64_t n;
};

// Elements [begin, begin + N) of a run of S, of which only the first n exist.
template <class S, int N, class C>
TENSOROPS_DEVICE void load_run(const void* from, C constant, int64_t begin, int64_t n, C (&to)[N]) {
  const S* run = static_cast<const S*>(from);
  if (run == nullptr) {
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = constant;
  } else if (begin + N <= n) {
    const Pack<S, N> pack = load_pack<S, N>(run + begin);
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = load_as<C>(pack.at[j]);
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = begin + j < n ? load_as<C>(run[begin + j]) : C(0);
  }
}

template <class S, int N, class C>
TENSOROPS_DEVICE void store_run(const C (&from)[N], void* to, int64_t begin, int64_t n) {
  S* run = static_cast<S*>(to);
  if (begin + N <= n) {
    Pack<S, N> pack;
#pragma unroll
    for (int j = 0; j < N; ++j) pack.at[j] = store_as<S>(from[j]);
    store_pack<S, N>(run + begin, pack);
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (begin + j < n) run[begin + j] = store_as<S>(from[j]);
  }
}

template <class Row, class S, int Inputs>
__global__ void __launch_bounds__(kThreads) contiguous_kernel(const ContiguousArguments<ComputeOf<S>> arguments) {
  using C = ComputeOf<S>;
  using First = std::conditional_t<Row::op == Elementwise::where, Bool, S>;
  using Result = std::conditional_t<Row::domain == Domain::PREDICATE, Bool, S>;
  constexpr int N = kVectorBytes / sizeof(S);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (begin >= arguments.n) return;
  C x[Inputs][N], y[N];
  load_run<First>(arguments.in[0], arguments.constant[0], begin, arguments.n, x[0]);
  if constexpr (Inputs > 1) load_run<S>(arguments.in[1], arguments.constant[1], begin, arguments.n, x[1]);
  if constexpr (Inputs > 2) load_run<S>(arguments.in[2], arguments.constant[2], begin, arguments.n, x[2]);
#pragma unroll
  for (int j = 0; j < N; ++j) y[j] = evaluate<Row, Inputs>(x, j, arguments.scalars);
  store_run<Result>(y, arguments.out, begin, arguments.n);
}

template <class Row, class S, int Inputs>
void launch_contiguous(const ContiguousElementwise& call, cudaStream_t stream) {
  using C = ComputeOf<S>;
  ContiguousArguments<C> arguments;
  arguments.out = call.out;
  arguments.n = call.n;
  for (int i = 0; i < 3; ++i) {
    arguments.in[i] = call.in[i];
    arguments.constant[i] = constant_as<C>(call.constant[i]);
    arguments.scalars[i] = constant_as<C>(call.scalars[i]);
  }
  constexpr int N = kVectorBytes / sizeof(S);
  contiguous_kernel<Row, S, Inputs><<<blocks_for(call.n, kThreads * N), kThreads, 0, stream>>>(arguments);
}

template <class Row, class S, int Inputs>
constexpr ContiguousLauncher contiguous_launcher() {
  if constexpr (is_defined<Row, ComputeOf<S>>) return launch_contiguous<Row, S, Inputs>;
  else return nullptr;
}

}  // namespace

}  // namespace tensorops::cuda
