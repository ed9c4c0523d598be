// Convolution on CUDA: checks, packs the weight in the order in which the kernel sums, allocates, launches.
#include "ops/convolution.h"

#include <ATen/Context.h>
#include <torch/library.h>

#include "cuda/kernels/convolution.h"
#include "cuda/launch.h"
#include "ops/reduction.h"

namespace tensorops::cuda {
namespace {

using at::Tensor;
using c10::IntArrayRef;
using ops::OptionalTensor;

ConvTensor strided(const Tensor& t) {
  return {t.data_ptr(), {t.stride(0), t.stride(1), t.stride(2), t.stride(3)}};
}

// `image` is what the kernel reads through taps: its memory format decides in which order they are summed.
ConvProblem describe(IntArrayRef input, IntArrayRef weight, IntArrayRef output, const ConvParams<int64_t>& params,
                     const Tensor& image) {
  const c10::ScalarType type = image.scalar_type();
  TORCH_CHECK(c10::isFloatingType(type), "\"conv2d_cuda\" not implemented for '", type, "'");
  ConvProblem p;
  p.dtype = dtype_of(type);
  p.batch = input[0];
  p.groups = params.groups;
  p.in_channels = weight[1];
  p.out_channels = weight[0] / params.groups;
  for (int d = 0; d < 2; ++d) {
    p.in_size[d] = input[2 + d];
    p.out_size[d] = output[2 + d];
    p.kernel[d] = weight[2 + d];
    p.stride[d] = params.stride[d];
    p.padding[d] = params.padding[d];
    p.dilation[d] = params.dilation[d];
  }
  p.channels_fast = image.stride(1) == 1 && image.size(1) > 1;
  p.allow_tf32 = at::globalContext().allowTF32CuDNN();
  return p;
}

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
              IntArrayRef dilation, int64_t groups) {
  const auto params = conv_params<int64_t>(stride, padding, dilation, groups);
  const Tensor b = bias ? *bias : Tensor();
  const auto bias_size = b.defined() ? b.sizes() : IntArrayRef();
  const auto sizes = conv_output_sizes<int64_t>(input.sizes(), weight.sizes(), b.defined() ? &bias_size : nullptr, params);
  check_conv_dtypes(input, weight, b.defined() ? &b : nullptr);
  const Guard guard(input.device());
  const Tensor result = empty(sizes, input.scalar_type(), input.device(), conv_memory_format(input, weight));
  if (result.numel() == 0) return result;
  const ConvProblem p = describe(input.sizes(), weight.sizes(), sizes, params, input);
  const Tensor packed = (p.channels_fast ? weight.permute({0, 2, 3, 1}) : weight).contiguous();
  const Tensor dense_bias = b.defined() ? b.contiguous() : b;
  launch_conv_forward(p, strided(input), packed.const_data_ptr(),
                      dense_bias.defined() ? dense_bias.const_data_ptr() : nullptr, strided(result), stream());
  check_launch();
  return result;
}

Tensor conv2d_input_gradient(const Tensor& grad, const Tensor& weight, IntArrayRef input_size, IntArrayRef stride,
                             IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const auto params = conv_params<int64_t>(stride, padding, dilation, groups);
  check_conv_gradient<int64_t>("conv2d_input_gradient", grad.sizes(), input_size, weight.sizes(), params);
  check_conv_dtypes(grad, weight, nullptr);
  const Guard guard(grad.device());
  const Tensor result = empty(input_size, grad.scalar_type(), grad.device(), conv_memory_format(grad, weight));
  if (result.numel() == 0) return result;
  const ConvProblem p = describe(input_size, weight.sizes(), grad.sizes(), params, grad);
  // [group][in channel][k]: taps of the kernel and the group's output channels.
  const Tensor grouped = weight.unflatten(0, {groups, weight.size(0) / groups});
  const Tensor packed = grouped.permute(p.channels_fast ? IntArrayRef{0, 2, 3, 4, 1} : IntArrayRef{0, 2, 1, 3, 4}).contiguous();
  launch_conv_input_gradient(p, strided(grad), packed.const_data_ptr(), strided(result), stream());
  check_launch();
  return result;
}

Tensor conv2d_weight_gradient(const Tensor& grad, const Tensor& input, IntArrayRef weight_size, IntArrayRef stride,
                              IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const auto params = conv_params<int64_t>(stride, padding, dilation, groups);
  check_conv_gradient<int64_t>("conv2d_weight_gradient", grad.sizes(), input.sizes(), weight_size, params);
  check_conv_dtypes(grad, input, nullptr);
  const Guard guard(grad.device());
  const Tensor dense = empty(weight_size, grad.scalar_type(), grad.device());
  if (dense.numel() == 0) return empty(weight_size, grad.scalar_type(), grad.device(), conv_memory_format(grad, input));
  const ConvProblem p = describe(input.sizes(), weight_size, grad.sizes(), params, input);
  const auto accumulation = grad.scalar_type() == c10::kDouble ? c10::kDouble : c10::kFloat;
  const Tensor partial = empty({conv_weight_splits(p) * dense.numel()}, accumulation, grad.device());
  launch_conv_weight_gradient(p, strided(grad), strided(input), partial.mutable_data_ptr(), dense.mutable_data_ptr(), stream());
  check_launch();
  return dense.contiguous(conv_memory_format(grad, input));
}

Tensor conv2d_bias_gradient(const Tensor& grad) {
  check_conv_bias_gradient(grad);
  return ops::sum(grad, IntArrayRef{0, 2, 3}, /*keepdim=*/false, std::nullopt);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) {
  library.impl("_conv2d", conv2d);
  library.impl("conv2d_input_gradient", conv2d_input_gradient);
  library.impl("conv2d_weight_gradient", conv2d_weight_gradient);
  library.impl("conv2d_bias_gradient", conv2d_bias_gradient);
}

}  // namespace tensorops::cuda
