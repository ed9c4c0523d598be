// The reduction kernels. Each reduction_<dtype>.cu includes this once and fills its table.
#pragma once

#include "cuda/kernels/layout.h"
#include "cuda/kernels/reduction_reducers.h"

namespace tensorops::cuda {
namespace {

constexpr int kUnroll = 4;  // elements whose loads are in flight together

struct ReduceArguments {
  const char* data;
  DType dtype;
  Axes kept, reduced;
  int64_t out_strides[kMaxAxes];
  int64_t columns, rows;
  ReduceParams params;
  int outputs;
  char* out[2];
  DType out_dtype[2];
  int component[2];
  bool across, vector;
  int lanes;
  int64_t splits, chunk;
  void* workspace;
};

template <class R>
TENSOROPS_DEVICE void write_results(const ReduceArguments& a, int64_t column, const typename R::State& state) {
  const auto results = R::finish(state, a.rows, a.params);
  int64_t at = 0;
  for_axes(a.kept, column, [&](int axis, int64_t index) { at += index * a.out_strides[axis]; });
  const auto store_result = [&](int i, auto value) {
    with_storage(a.out_dtype[i], [&](auto storage) {
      using S = decltype(storage);
      reinterpret_cast<S*>(a.out[i])[at] = store_as<S>(value);
    });
  };
  for (int i = 0; i < a.outputs; ++i) {
    if constexpr (results.count == 2) {
      if (a.component[i] == 1) {
        store_result(i, results.second);
        continue;
      }
    }
    store_result(i, results.first);
  }
}

// gridDim.x: columns, blocks of kThreads / lanes; gridDim.y: splits.
template <class R, class Load>
__global__ void __launch_bounds__(kThreads) reduce_kernel(const ReduceArguments a) {
  using C = typename Load::C;
  const int columns_per_block = kThreads / a.lanes, thread = threadIdx.x;
  const int lane = a.across ? thread / columns_per_block : thread % a.lanes;
  const int slot = a.across ? thread % columns_per_block : thread / a.lanes;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * columns_per_block + slot;
  typename R::State state = R::identity();
  if (column < a.columns) {
    const char* data = a.data + offset_of(a.kept, column);
    const int64_t begin = blockIdx.y * a.chunk, end = begin + a.chunk < a.rows ? begin + a.chunk : a.rows;
    const auto load = [&](int64_t row) { return Load::load(data + offset_of(a.reduced, row), a.dtype); };
    const auto absorb_one = [&](int64_t row) {
      const C x[1] = {load(row)};
      R::absorb(state, x, row, 1, a.params);
    };
    if constexpr (Load::pack > 0) {
      if (a.vector) {
        int64_t row = begin + lane * Load::pack;
        const int64_t step = static_cast<int64_t>(a.lanes) * Load::pack;
        for (; row + Load::pack <= end; row += step) {
          C x[Load::pack];
          Load::load_pack(data + offset_of(a.reduced, row), x);
          R::absorb(state, x, row, 1, a.params);
        }
        for (; row < end; ++row) absorb_one(row);
      }
    }
    if (Load::pack == 0 || !a.vector) {
      int64_t row = begin + lane;
      const int64_t step = a.lanes;
      for (; row + (kUnroll - 1) * step < end; row += kUnroll * step) {
        C x[kUnroll];
#pragma unroll
        for (int i = 0; i < kUnroll; ++i) x[i] = load(row + i * step);
        R::absorb(state, x, row, step, a.params);
      }
      for (; row < end; row += step) absorb_one(row);
    }
  }
  if (a.lanes > 1) state = merge_lanes<R>(state, lane, a.lanes, a.across ? columns_per_block : 1);
  if (lane != 0 || column >= a.columns) return;
  if (a.splits > 1) static_cast<typename R::State*>(a.workspace)[blockIdx.y * a.columns + column] = state;
  else write_results<R>(a, column, state);
}

// The states of the splits, `lanes` threads per column.
template <class R>
__global__ void __launch_bounds__(kThreads) merge_splits_kernel(const ReduceArguments a, int lanes) {
  const int columns_per_block = kThreads / lanes, thread = threadIdx.x;
  const int lane = thread / columns_per_block;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * columns_per_block + thread % columns_per_block;
  const auto* states = static_cast<const typename R::State*>(a.workspace);
  typename R::State state = R::identity();
  if (column < a.columns)
    for (int64_t split = lane; split < a.splits; split += lanes)
      state = R::merge(state, states[split * a.columns + column]);
  if (lanes > 1) state = merge_lanes<R>(state, lane, lanes, columns_per_block);
  if (lane == 0 && column < a.columns) write_results<R>(a, column, state);
}

inline Axes axes_of(const ReduceAxes& from) {
  Axes axes;
  axes.count = from.count;
  int64_t elements = 1;
  for (int i = 0; i < from.count; ++i) {
    axes.sizes[i] = from.sizes[i];
    axes.strides[i] = from.strides[i];
    elements *= from.sizes[i];
  }
  axes.small = elements > 0 && elements <= 0x7fffffff;
  for (int i = 0; axes.small && i < from.count; ++i) axes.dividers[i] = Divider(static_cast<uint32_t>(from.sizes[i]));
  return axes;
}

template <class Reducers, class Load>
void launch_reduce(const ReduceCall& call, cudaStream_t stream) {
  using R = typename Reducers::template Of<typename Load::C>;
  static_assert(sizeof(typename R::State) <= 24, "reduce_workspace_bytes counts on it");
  ReduceArguments a;
  a.data = static_cast<const char*>(call.data);
  a.dtype = call.dtype;
  a.kept = axes_of(call.kept);
  a.reduced = axes_of(call.reduced);
  for (int i = 0; i < call.kept.count; ++i) a.out_strides[i] = call.kept.out_strides[i];
  a.columns = call.columns;
  a.rows = call.rows;
  a.params = call.params;
  a.outputs = call.outputs;
  for (int i = 0; i < call.outputs; ++i) {
    a.out[i] = static_cast<char*>(call.out[i]);
    a.out_dtype[i] = call.out_dtype[i];
    a.component[i] = call.component[i];
  }
  a.across = call.across;
  a.vector = call.vector;
  a.lanes = call.lanes;
  a.splits = call.splits;
  a.chunk = call.chunk;
  a.workspace = call.workspace;
  const dim3 grid(blocks_for(call.columns, kThreads / call.lanes), static_cast<unsigned>(call.splits));
  reduce_kernel<R, Load><<<grid, kThreads, 0, stream>>>(a);
  if (call.splits > 1) {
    int lanes = 1;
    while (lanes < kThreads && lanes < call.splits) lanes *= 2;
    merge_splits_kernel<R><<<blocks_for(call.columns, kThreads / lanes), kThreads, 0, stream>>>(a, lanes);
  }
}

enum Types { FLOATING, NUMERIC, ANY };

template <class Reducers, class Load, Types types>
constexpr ReduceLauncher reduce_launcher() {
  using C = typename Load::C;
  if constexpr (is_floating<C> || types == ANY || (types == NUMERIC && std::is_same_v<C, int64_t>))
    return launch_reduce<Reducers, Load>;
  else return nullptr;
}

#define TENSOROPS_REDUCE_LAUNCHER(name, reducers, types) reduce_launcher<reducers, Load, types>(),

}  // namespace
}  // namespace tensorops::cuda
