// Launchers of the pooling kernels. Tensors are `images` of height * width pixels of `channels` neighbouring elements: in
// channels_last memory the channels of a batch item, in contiguous memory one channel of one plane.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/dtype.h"

namespace tensorops::cuda {

struct PoolSide {
  int in, out, kernel, stride, padding, dilation;
};
struct PoolShape {
  int64_t images, channels;
  PoolSide h, w;
  constexpr int64_t in_area() const { return int64_t(h.in) * w.in; }
  constexpr int64_t out_area() const { return int64_t(h.out) * w.out; }
};

// What max pooling remembers of each maximum: nothing, its position in the window, or its flat index in the plane.
enum class PoolPosition : int { none, u8, i32, index };

// The divisor of a mean: a number, or how many elements the window covers, with or without the padding.
struct PoolDivisor {
  int64_t number = 0;  // 0: the window's
  bool count_include_pad = true;
};

// Each returns false where there is no kernel for the dtype.
bool launch_max_pool(DType, const PoolShape&, const void* in, void* out, PoolPosition, void* position, cudaStream_t);
bool launch_max_pool_backward(DType, const PoolShape&, const void* grad, PoolPosition, const void* position, void* result,
                              cudaStream_t);
bool launch_mean_pool(DType, const PoolShape&, PoolDivisor, const void* in, void* out, cudaStream_t);
bool launch_mean_pool_backward(DType, const PoolShape&, PoolDivisor, const void* grad, void* result, cudaStream_t);

// Moving elements of a size by position or by flat index in the plane; outside the plane is zero.
void launch_pool_pick(int64_t element_size, const PoolShape&, const void* in, PoolPosition, const void* position, void* out,
                      cudaStream_t);
void launch_plane_gather(int64_t element_size, const PoolShape&, const void* in, const int64_t* index, void* out,
                         cudaStream_t);
// in is read at out's pixels and written to in's: the last of those with the same index wins. `owner` holds one int per
// element of the result. An index outside the plane writes nothing and sets *fault.
void launch_max_unpool(int64_t element_size, const PoolShape&, const void* in, const int64_t* index, int* owner, void* out,
                       int* fault, cudaStream_t);
// Sums in ascending order of the source. The workspace has plane_scatter_bytes(dtype) for each element of the result.
int64_t plane_scatter_bytes(DType);
bool launch_plane_scatter_add(DType, const PoolShape&, const void* grad, const int64_t* index, void* workspace, void* result,
                              cudaStream_t);

}  // namespace tensorops::cuda
