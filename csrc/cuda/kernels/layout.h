// Where elements lie: axes of a strided layout, and loads and stores of a dtype known at compile time or at run time. Shared by
// the kernels that work on columns and lines.
#pragma once

#include "cuda/kernels/common.h"
#include "cuda/kernels/lines.h"

namespace tensorops::cuda {
namespace {

struct Axes {
  int count;
  bool small;  // fewer than 2^31 elements: the dividers reach
  Divider dividers[kMaxAxes];
  int64_t sizes[kMaxAxes];
  int64_t strides[kMaxAxes];
};
// Splits a linear index; f(axis, index along it).
template <class F>
TENSOROPS_DEVICE void for_axes(const Axes& axes, int64_t rest, F f) {
  for (int i = 0; i + 1 < axes.count; ++i) {
    int64_t quotient, index;
    if (axes.small) {
      uint32_t n = static_cast<uint32_t>(rest);
      quotient = axes.dividers[i].divide_leaving(n);
      index = n;
    } else {
      quotient = rest / axes.sizes[i];
      index = rest - quotient * axes.sizes[i];
    }
    f(i, index);
    rest = quotient;
  }
  if (axes.count > 0) f(axes.count - 1, rest);
}
TENSOROPS_DEVICE int64_t offset_of(const Axes& axes, int64_t linear) {
  int64_t offset = 0;
  for_axes(axes, linear, [&](int axis, int64_t index) { offset += index * axes.strides[axis]; });
  return offset;
}

template <class V>
TENSOROPS_DEVICE void store_any(char* p, DType dtype, V value) {
  with_storage(dtype, [&](auto storage) {
    using S = decltype(storage);
    *reinterpret_cast<S*>(p) = store_as<S>(value);
  });
}

// How elements are read: one storage type, 16 bytes at a time where that is possible; or any dtype.
template <class S>
struct Typed {
  using C = ComputeOf<S>;
  static constexpr int pack = kVectorBytes / sizeof(S);
  static TENSOROPS_DEVICE C load(const char* p, DType) { return load_as<C>(*reinterpret_cast<const S*>(p)); }
  static TENSOROPS_DEVICE void load_pack(const char* p, C (&x)[pack]) {
    const Pack<S, pack> loaded = cuda::load_pack<S, pack>(reinterpret_cast<const S*>(p));
#pragma unroll
    for (int i = 0; i < pack; ++i) x[i] = load_as<C>(loaded.at[i]);
  }
  static TENSOROPS_DEVICE void store(char* p, DType, C x) { *reinterpret_cast<S*>(p) = store_as<S>(x); }
  static TENSOROPS_DEVICE void store_pack(char* p, const C (&x)[pack]) {
    Pack<S, pack> stored;
#pragma unroll
    for (int i = 0; i < pack; ++i) stored.at[i] = store_as<S>(x[i]);
    cuda::store_pack<S, pack>(reinterpret_cast<S*>(p), stored);
  }
};
template <class Compute>
struct Mixed {
  using C = Compute;
  static constexpr int pack = 0;
  static TENSOROPS_DEVICE C load(const char* p, DType dtype) {
    C x = 0;
    with_storage(dtype, [&](auto storage) { x = load_as<C>(*reinterpret_cast<const decltype(storage)*>(p)); });
    return x;
  }
  static TENSOROPS_DEVICE void store(char* p, DType dtype, C x) { store_any(p, dtype, x); }
};

// Merges the states of a column's lanes, which lie `step` threads apart; the result is in lane 0. All threads must call it.
template <class R>
TENSOROPS_DEVICE typename R::State merge_lanes(typename R::State state, int lane, int lanes, int step) {
  __shared__ typename R::State states[kThreads];
  states[threadIdx.x] = state;
  for (int half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) states[threadIdx.x] = R::merge(states[threadIdx.x], states[threadIdx.x + half * step]);
  }
  return states[threadIdx.x];
}

}  // namespace
}  // namespace tensorops::cuda
