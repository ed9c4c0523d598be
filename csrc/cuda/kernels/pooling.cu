// Pooling, one thread per element of the result, forwards and backwards: a gradient gathers from the windows that see its
// element, in ascending order, so nothing is added atomically.
#include "cuda/kernels/pooling.h"

#include "cuda/kernels/common.h"
#include "cuda/kernels/fault.h"

namespace tensorops::cuda {
namespace {

// A linear index over [image][y][x][channel].
struct Grid {
  int64_t channels, width, height, count;
  bool small;  // the dividers reach
  Divider by_channels, by_width, by_height;

  Grid(int64_t images, int64_t height, int64_t width, int64_t channels)
      : channels(channels), width(width), height(height), count(images * height * width * channels),
        small(count > 0 && count <= 0x7fffffff) {
    if (!small) return;
    by_channels = Divider(static_cast<uint32_t>(channels));
    by_width = Divider(static_cast<uint32_t>(width));
    by_height = Divider(static_cast<uint32_t>(height));
  }
};
struct Place {
  int64_t image;
  int y, x;
  int64_t channel;
};
TENSOROPS_DEVICE Place place_of(const Grid& grid, int64_t i) {
  if (grid.small) {
    uint32_t channel = static_cast<uint32_t>(i);
    uint32_t x = grid.by_channels.divide_leaving(channel);
    uint32_t y = grid.by_width.divide_leaving(x);
    const uint32_t image = grid.by_height.divide_leaving(y);
    return {image, static_cast<int>(y), static_cast<int>(x), channel};
  }
  const int64_t pixel = i / grid.channels, row = pixel / grid.width;
  return {row / grid.height, static_cast<int>(row % grid.height), static_cast<int>(pixel % grid.width), i % grid.channels};
}
TENSOROPS_DEVICE int64_t thread_index() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

// Where window o begins, and the first of its positions that is not in the padding before the input.
TENSOROPS_DEVICE int origin(const PoolSide& side, int o) { return o * side.stride - side.padding; }
TENSOROPS_DEVICE int first_inside(const PoolSide& side, int o) {
  const int begin = origin(side, o);
  return begin >= 0 ? 0 : (side.dilation - 1 - begin) / side.dilation;
}

// Calls f(window, position in it) for each window that sees element i, in ascending order.
template <class F>
TENSOROPS_DEVICE void for_windows(const PoolSide& side, int i, F f) {
  const int at = i + side.padding, span = (side.kernel - 1) * side.dilation;
  const int begin = at <= span ? 0 : (at - span + side.stride - 1) / side.stride;
  for (int o = begin; o < side.out && o * side.stride <= at; ++o) {
    const int distance = at - o * side.stride;
    if (distance % side.dilation == 0) f(o, distance / side.dilation);
  }
}

// What no element of storage type S is below.
template <class S, class C>
TENSOROPS_DEVICE C lowest() {
  if constexpr (is_floating<C>) return static_cast<C>(-__builtin_inf());
  else if constexpr (std::is_unsigned_v<S>) return 0;
  else return static_cast<C>(-static_cast<int64_t>((uint64_t(1) << (8 * sizeof(S) - 1)) - 1) - 1);
}

struct NoPosition {};

// The first of equals, and the last NaN, as in torch. A window may lie in the padding altogether.
template <class S, class Position>
__global__ void __launch_bounds__(kThreads)
    max_pool_kernel(const PoolShape shape, const Grid grid, const S* in, S* out, Position* positions) {
  using C = ComputeOf<S>;
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const S* image = in + p.image * shape.in_area() * shape.channels + p.channel;
  const int top = origin(shape.h, p.y), left = origin(shape.w, p.x);
  const int first_h = first_inside(shape.h, p.y), first_w = first_inside(shape.w, p.x);
  C best = lowest<S, C>();
  int best_h = first_h, best_w = first_w;
  for (int kh = first_h; kh < shape.h.kernel; ++kh) {
    const int y = top + kh * shape.h.dilation;
    if (y >= shape.h.in) break;
    const S* row = image + static_cast<int64_t>(y) * shape.w.in * shape.channels;
    for (int kw = first_w; kw < shape.w.kernel; ++kw) {
      const int x = left + kw * shape.w.dilation;
      if (x >= shape.w.in) break;
      const C value = load_as<C>(row[x * shape.channels]);
      if (value > best || value != value) {
        best = value;
        best_h = kh;
        best_w = kw;
      }
    }
  }
  out[i] = store_as<S>(best);
  if constexpr (std::is_same_v<Position, int64_t>)
    positions[i] = static_cast<int64_t>(top + best_h * shape.h.dilation) * shape.w.in + left + best_w * shape.w.dilation;
  else if constexpr (!std::is_same_v<Position, NoPosition>)
    positions[i] = static_cast<Position>(best_h * shape.w.kernel + best_w);
}

template <class S, class Position>
__global__ void __launch_bounds__(kThreads)
    max_pool_backward_kernel(const PoolShape shape, const Grid grid, const S* grad, const Position* positions, S* result) {
  using C = ComputeOf<S>;
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const int64_t image = p.image * shape.out_area() * shape.channels + p.channel;
  C sum = 0;
  for_windows(shape.h, p.y, [&](int oh, int kh) {
    for_windows(shape.w, p.x, [&](int ow, int kw) {
      const int64_t at = image + (static_cast<int64_t>(oh) * shape.w.out + ow) * shape.channels;
      if (static_cast<int>(positions[at]) == kh * shape.w.kernel + kw) sum += load_as<C>(grad[at]);
    });
  });
  result[i] = store_as<S>(sum);
}

TENSOROPS_DEVICE int64_t covered(const PoolSide& side, int o, bool with_padding) {
  const int begin = origin(side, o);
  const int end = begin + side.kernel < side.in + side.padding ? begin + side.kernel : side.in + side.padding;
  if (with_padding) return end - begin;
  return (end < side.in ? end : side.in) - (begin > 0 ? begin : 0);
}
TENSOROPS_DEVICE int64_t divisor_of(const PoolShape& shape, const PoolDivisor& divisor, int oh, int ow) {
  if (divisor.number != 0) return divisor.number;
  return covered(shape.h, oh, divisor.count_include_pad) * covered(shape.w, ow, divisor.count_include_pad);
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    mean_pool_kernel(const PoolShape shape, const Grid grid, const PoolDivisor divisor, const S* in, S* out) {
  using C = ComputeOf<S>;
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const S* image = in + p.image * shape.in_area() * shape.channels + p.channel;
  const int top = origin(shape.h, p.y), left = origin(shape.w, p.x);
  const int y_begin = top > 0 ? top : 0, y_end = top + shape.h.kernel < shape.h.in ? top + shape.h.kernel : shape.h.in;
  const int x_begin = left > 0 ? left : 0, x_end = left + shape.w.kernel < shape.w.in ? left + shape.w.kernel : shape.w.in;
  C sum = 0;
  for (int y = y_begin; y < y_end; ++y) {
    const S* row = image + static_cast<int64_t>(y) * shape.w.in * shape.channels;
    for (int x = x_begin; x < x_end; ++x) sum += load_as<C>(row[x * shape.channels]);
  }
  const int64_t by = divisor_of(shape, divisor, p.y, p.x);
  if constexpr (is_floating<C>) out[i] = store_as<S>(sum / static_cast<C>(by));
  else out[i] = store_as<S>(by == 0 ? C(0) : by == -1 ? C(0 - static_cast<uint64_t>(sum)) : C(sum / by));
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    mean_pool_backward_kernel(const PoolShape shape, const Grid grid, const PoolDivisor divisor, const S* grad, S* result) {
  using C = ComputeOf<S>;
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const int64_t image = p.image * shape.out_area() * shape.channels + p.channel;
  C sum = 0;
  for_windows(shape.h, p.y, [&](int oh, int) {
    for_windows(shape.w, p.x, [&](int ow, int) {
      const C g = load_as<C>(grad[image + (static_cast<int64_t>(oh) * shape.w.out + ow) * shape.channels]);
      sum += g / static_cast<C>(divisor_of(shape, divisor, oh, ow));
    });
  });
  result[i] = store_as<S>(sum);
}

template <class T, class Position>
__global__ void __launch_bounds__(kThreads)
    pick_kernel(const PoolShape shape, const Grid grid, const T* in, const Position* positions, T* out) {
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const auto k = static_cast<uint32_t>(positions[i]), width = static_cast<uint32_t>(shape.w.kernel);
  const int64_t y = origin(shape.h, p.y) + static_cast<int64_t>(k / width) * shape.h.dilation;
  const int64_t x = origin(shape.w, p.x) + static_cast<int64_t>(k % width) * shape.w.dilation;
  const bool inside = y >= 0 && y < shape.h.in && x >= 0 && x < shape.w.in;
  const int64_t image = p.image * shape.in_area();
  out[i] = inside ? in[(image + y * shape.w.in + x) * shape.channels + p.channel] : T(0);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    plane_gather_kernel(const PoolShape shape, const Grid grid, const T* in, const int64_t* index, T* out) {
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const int64_t at = index[i];
  const bool inside = static_cast<uint64_t>(at) < static_cast<uint64_t>(shape.in_area());
  out[i] = inside ? in[(p.image * shape.in_area() + at) * shape.channels + p.channel] : T(0);
}

// Unpooling by two passes: which source owns each element of the result, then one write per element.
__global__ void __launch_bounds__(kThreads)
    unpool_owner_kernel(const PoolShape shape, const Grid grid, const int64_t* index, int* owner, int* fault) {
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const int64_t at = index[i];
  if (static_cast<uint64_t>(at) >= static_cast<uint64_t>(shape.in_area())) {
    *fault = kFaultIndex;
    return;
  }
  atomicMax(&owner[(p.image * shape.in_area() + at) * shape.channels + p.channel], p.y * shape.w.out + p.x);
}
template <class T>
__global__ void __launch_bounds__(kThreads)
    unpool_write_kernel(const PoolShape shape, const Grid grid, const T* in, const int* owner, T* out) {
  const int64_t i = thread_index();
  if (i >= grid.count) return;
  const Place p = place_of(grid, i);
  const int from = owner[i];
  out[i] = from < 0 ? T(0) : in[(p.image * shape.out_area() + from) * shape.channels + p.channel];
}

// One block per plane. In each round every element of the result takes the next of its sources in ascending order: as many
// rounds as there are sources of one element at most.
template <class S>
__global__ void __launch_bounds__(kThreads)
    plane_scatter_add_kernel(const PoolShape shape, const S* grad, const int64_t* index, char* workspace, S* result) {
  using C = ComputeOf<S>;
  const int64_t plane = blockIdx.x, image = plane / shape.channels, channel = plane % shape.channels;
  const int64_t size = shape.in_area(), sources = shape.out_area(), planes = shape.images * shape.channels;
  C* sums = reinterpret_cast<C*>(workspace) + plane * size;
  int* last = reinterpret_cast<int*>(reinterpret_cast<C*>(workspace) + planes * size) + plane * size;
  int* next = last + planes * size;
  const auto source = [&](int64_t p) { return (image * sources + p) * shape.channels + channel; };
  for (int64_t at = threadIdx.x; at < size; at += kThreads) {
    sums[at] = 0;
    last[at] = -1;
    next[at] = INT32_MAX;
  }
  __syncthreads();
  for (;;) {
    int pending = 0;
    for (int64_t p = threadIdx.x; p < sources; p += kThreads) {
      const int64_t at = index[source(p)];
      if (static_cast<uint64_t>(at) >= static_cast<uint64_t>(size) || p <= last[at]) continue;
      atomicMin(&next[at], static_cast<int>(p));
      pending = 1;
    }
    if (!__syncthreads_or(pending)) break;
    for (int64_t p = threadIdx.x; p < sources; p += kThreads) {
      const int64_t at = index[source(p)];
      if (static_cast<uint64_t>(at) >= static_cast<uint64_t>(size) || next[at] != p) continue;
      sums[at] += load_as<C>(grad[source(p)]);
      last[at] = static_cast<int>(p);
      next[at] = INT32_MAX;  // no other thread waits for this value: each looks for its own p
    }
    __syncthreads();
  }
  for (int64_t at = threadIdx.x; at < size; at += kThreads)
    result[(image * size + at) * shape.channels + channel] = store_as<S>(sums[at]);
}

Grid grid_of_inputs(const PoolShape& s) { return {s.images, s.h.in, s.w.in, s.channels}; }
Grid grid_of_outputs(const PoolShape& s) { return {s.images, s.h.out, s.w.out, s.channels}; }

template <class F>
bool with_float(DType dtype, F f) {
  switch (dtype) {
    case DType::f32: return f(float{}), true;
    case DType::f64: return f(double{}), true;
    case DType::f16: return f(Half{}), true;
    case DType::bf16: return f(BFloat16{}), true;
    default: return false;
  }
}
template <class F>
bool with_number(DType dtype, F f) {
  switch (dtype) {
    case DType::u8: return f(uint8_t{}), true;
    case DType::i8: return f(int8_t{}), true;
    case DType::i16: return f(int16_t{}), true;
    case DType::i32: return f(int32_t{}), true;
    case DType::i64: return f(int64_t{}), true;
    default: return with_float(dtype, f);
  }
}
template <class F>
void with_size(int64_t element_size, F f) {
  switch (element_size) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

}  // namespace

bool launch_max_pool(DType dtype, const PoolShape& shape, const void* in, void* out, PoolPosition kind, void* position,
                     cudaStream_t stream) {
  const Grid grid = grid_of_outputs(shape);
  const unsigned blocks = blocks_for(grid.count, kThreads);
  return with_number(dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(in);
    S* to = static_cast<S*>(out);
    switch (kind) {
      case PoolPosition::none: {
        max_pool_kernel<S, NoPosition><<<blocks, kThreads, 0, stream>>>(shape, grid, from, to, nullptr);
        break;
      }
      case PoolPosition::u8: {
        auto* at = static_cast<uint8_t*>(position);
        max_pool_kernel<S, uint8_t><<<blocks, kThreads, 0, stream>>>(shape, grid, from, to, at);
        break;
      }
      case PoolPosition::i32: {
        auto* at = static_cast<int32_t*>(position);
        max_pool_kernel<S, int32_t><<<blocks, kThreads, 0, stream>>>(shape, grid, from, to, at);
        break;
      }
      case PoolPosition::index: {
        auto* at = static_cast<int64_t*>(position);
        max_pool_kernel<S, int64_t><<<blocks, kThreads, 0, stream>>>(shape, grid, from, to, at);
        break;
      }
    }
  });
}

bool launch_max_pool_backward(DType dtype, const PoolShape& shape, const void* grad, PoolPosition kind, const void* position,
                              void* result, cudaStream_t stream) {
  const Grid grid = grid_of_inputs(shape);
  const unsigned blocks = blocks_for(grid.count, kThreads);
  return with_float(dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(grad);
    S* to = static_cast<S*>(result);
    if (kind == PoolPosition::u8) {
      const auto* at = static_cast<const uint8_t*>(position);
      max_pool_backward_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, from, at, to);
    } else {
      const auto* at = static_cast<const int32_t*>(position);
      max_pool_backward_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, from, at, to);
    }
  });
}

bool launch_mean_pool(DType dtype, const PoolShape& shape, PoolDivisor divisor, const void* in, void* out,
                      cudaStream_t stream) {
  const Grid grid = grid_of_outputs(shape);
  const unsigned blocks = blocks_for(grid.count, kThreads);
  const auto launch = [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(in);
    S* to = static_cast<S*>(out);
    mean_pool_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, divisor, from, to);
  };
  if (dtype == DType::i64) return launch(int64_t{}), true;
  return with_float(dtype, launch);
}

bool launch_mean_pool_backward(DType dtype, const PoolShape& shape, PoolDivisor divisor, const void* grad, void* result,
                               cudaStream_t stream) {
  const Grid grid = grid_of_inputs(shape);
  const unsigned blocks = blocks_for(grid.count, kThreads);
  return with_float(dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(grad);
    S* to = static_cast<S*>(result);
    mean_pool_backward_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, divisor, from, to);
  });
}

void launch_pool_pick(int64_t element_size, const PoolShape& shape, const void* in, PoolPosition kind, const void* position,
                      void* out, cudaStream_t stream) {
  const Grid grid = grid_of_outputs(shape);
  const unsigned blocks = blocks_for(grid.count, kThreads);
  with_size(element_size, [&](auto storage) {
    using T = decltype(storage);
    const T* from = static_cast<const T*>(in);
    T* to = static_cast<T*>(out);
    if (kind == PoolPosition::u8) {
      const auto* at = static_cast<const uint8_t*>(position);
      pick_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, from, at, to);
    } else {
      const auto* at = static_cast<const int32_t*>(position);
      pick_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, from, at, to);
    }
  });
}

void launch_plane_gather(int64_t element_size, const PoolShape& shape, const void* in, const int64_t* index, void* out,
                         cudaStream_t stream) {
  const Grid grid = grid_of_outputs(shape);
  const unsigned blocks = blocks_for(grid.count, kThreads);
  with_size(element_size, [&](auto storage) {
    using T = decltype(storage);
    const T* from = static_cast<const T*>(in);
    T* to = static_cast<T*>(out);
    plane_gather_kernel<<<blocks, kThreads, 0, stream>>>(shape, grid, from, index, to);
  });
}

void launch_max_unpool(int64_t element_size, const PoolShape& shape, const void* in, const int64_t* index, int* owner,
                       void* out, int* fault, cudaStream_t stream) {
  const Grid sources = grid_of_outputs(shape), targets = grid_of_inputs(shape);
  cudaMemsetAsync(owner, 0xff, targets.count * sizeof(int), stream);  // -1: nobody's
  if (sources.count > 0) {
    unpool_owner_kernel<<<blocks_for(sources.count, kThreads), kThreads, 0, stream>>>(shape, sources, index, owner, fault);
  }
  const unsigned blocks = blocks_for(targets.count, kThreads);
  with_size(element_size, [&](auto storage) {
    using T = decltype(storage);
    const T* from = static_cast<const T*>(in);
    T* to = static_cast<T*>(out);
    unpool_write_kernel<<<blocks, kThreads, 0, stream>>>(shape, targets, from, owner, to);
  });
}

int64_t plane_scatter_bytes(DType dtype) { return 2 * sizeof(int) + (dtype == DType::f64 ? 8 : 4); }

bool launch_plane_scatter_add(DType dtype, const PoolShape& shape, const void* grad, const int64_t* index, void* workspace,
                              void* result, cudaStream_t stream) {
  const unsigned planes = blocks_for(shape.images * shape.channels, 1);
  return with_float(dtype, [&](auto storage) {
    using S = decltype(storage);
    const S* from = static_cast<const S*>(grad);
    S* to = static_cast<S*>(result);
    char* work = static_cast<char*>(workspace);
    plane_scatter_add_kernel<<<planes, kThreads, 0, stream>>>(shape, from, index, work, to);
  });
}

}  // namespace tensorops::cuda
