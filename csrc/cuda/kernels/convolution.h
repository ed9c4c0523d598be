// 2-d convolution on the GPU, on raw pointers. Tensors are N x C x H x W with any strides; weights come packed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/dtype.h"

namespace tensorops::cuda {

struct ConvTensor {
  const void* data;
  int64_t stride[4];  // batch, channel, row, column, in elements
};

struct ConvProblem {
  DType dtype;
  int64_t batch, groups;
  int64_t in_channels, out_channels;  // per group
  int64_t in_size[2], out_size[2], kernel[2];
  int64_t stride[2], padding[2], dilation[2];  // padding before the first element
  bool channels_fast;  // k runs over (kernel, channel) instead of (channel, kernel): channels are neighbours in memory
  bool allow_tf32;
};

// Forward. weight: [group][out channel][k], k over the group's input channels and the kernel.
void launch_conv_forward(const ConvProblem& p, const ConvTensor& input, const void* weight, const void* bias,
                         const ConvTensor& output, cudaStream_t stream);

// Gradient of the input. weight: [group][in channel][k], k over the group's output channels and the kernel.
void launch_conv_input_gradient(const ConvProblem& p, const ConvTensor& grad, const void* weight,
                                const ConvTensor& input_gradient, cudaStream_t stream);

// Gradient of the weight, written as [group][out channel][in channel][kernel row][kernel column] without gaps.
// The sum over all output positions is cut into conv_weight_splits(p) parts of a size that depends on the shape alone;
// `partial` has room for each of them in the accumulation type (f64 for f64, else f32).
int64_t conv_weight_splits(const ConvProblem& p);
void launch_conv_weight_gradient(const ConvProblem& p, const ConvTensor& grad, const ConvTensor& input, void* partial,
                                 void* weight_gradient, cudaStream_t stream);

}  // namespace tensorops::cuda
