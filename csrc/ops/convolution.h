// Convolution: typed callers, and the shape rules that every room shares.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>
#include <c10/util/SmallVector.h>

#include <array>
#include <string_view>

#include "ops/handle.h"
#include "ops/layout.h"

namespace tensorops {

// Stride, dilation and groups of a 2-d convolution. Padding is {top, left, bottom, right}: 'same' with an even kernel
// pads one more at the end.
template <class Int>
struct ConvParams {
  std::array<Int, 2> stride;
  std::array<Int, 4> padding;
  std::array<Int, 2> dilation;
  Int groups;
};

namespace ops {

using OptionalTensor = std::optional<at::Tensor>;

inline const Op<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, c10::SymIntArrayRef,
                           c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymInt)>
    conv2d{"conv2d"};
inline const Op<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, c10::SymIntArrayRef,
                           std::string_view, c10::SymIntArrayRef, c10::SymInt)>
    conv2d_padding{"conv2d", "padding"};

// What both overloads come down to: batched input, padding as in ConvParams.
inline const Op<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, c10::SymIntArrayRef,
                           c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymInt)>
    _conv2d{"_conv2d"};
// Its derivatives; `padding` as in ConvParams.
inline const Op<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef, c10::SymIntArrayRef,
                           c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymInt)>
    conv2d_input_gradient{"conv2d_input_gradient"};
inline const Op<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef, c10::SymIntArrayRef,
                           c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymInt)>
    conv2d_weight_gradient{"conv2d_weight_gradient"};
inline const Op<at::Tensor(const at::Tensor&)> conv2d_bias_gradient{"conv2d_bias_gradient"};

}  // namespace ops

// Reads the argument lists of _conv2d and its derivatives.
template <class Int>
ConvParams<Int> conv_params(c10::ArrayRef<Int> stride, c10::ArrayRef<Int> padding, c10::ArrayRef<Int> dilation, Int groups) {
  TORCH_CHECK(stride.size() == 2 && padding.size() == 4 && dilation.size() == 2,
              "conv2d: expected 2 strides, 4 paddings (top, left, bottom, right) and 2 dilations, but got stride=", stride,
              ", padding=", padding, ", dilation=", dilation);
  return {{stride[0], stride[1]},
          {padding[0], padding[1], padding[2], padding[3]},
          {dilation[0], dilation[1]},
          std::move(groups)};
}

template <class Int>
void check_conv_params(const ConvParams<Int>& p) {
  for (const Int& v : p.padding) TORCH_CHECK(v >= 0, "negative padding is not supported");
  for (const Int& v : p.stride) TORCH_CHECK(v > 0, "non-positive stride is not supported");
  for (const Int& v : p.dilation)
    TORCH_CHECK(v > 0, "dilation should be greater than zero, but got [", p.dilation[0], ", ", p.dilation[1], "]");
  TORCH_CHECK(p.groups > 0, "non-positive groups is not supported");
}

inline void check_conv_dtypes(const at::Tensor& input, const at::Tensor& weight, const at::Tensor* bias) {
  TORCH_CHECK(input.scalar_type() == weight.scalar_type(), "Input type (", input.scalar_type(), ") and weight type (",
              weight.scalar_type(), ") should be the same");
  TORCH_CHECK(bias == nullptr || input.scalar_type() == bias->scalar_type(), "Input type (", input.scalar_type(),
              ") and bias type (", bias != nullptr ? bias->scalar_type() : input.scalar_type(), ") should be the same");
  TORCH_CHECK_NOT_IMPLEMENTED(input.scalar_type() != c10::kBool, "\"conv2d\" not implemented for 'Bool'");
  TORCH_CHECK(input.device() == weight.device() && (bias == nullptr || input.device() == bias->device()),
              "Expected all tensors to be on the same device, but conv2d got input on ", input.device(), ", weight on ",
              weight.device(), bias != nullptr ? " and bias on " : "",
              bias != nullptr ? bias->device().str() : std::string());
}

// Checks input and weight as torch does and returns the output's sizes.
template <class Int>
Dims<Int> conv_output_sizes(c10::ArrayRef<Int> input, c10::ArrayRef<Int> weight, const c10::ArrayRef<Int>* bias,
                            const ConvParams<Int>& p) {
  check_conv_params(p);
  TORCH_CHECK(weight.size() == input.size(), "Expected ", weight.size(), "-dimensional input for ", weight.size(),
              "-dimensional weight", weight, ", but got ", input.size(), "-dimensional input of size ", input, " instead");
  TORCH_CHECK(input.size() == 4, "Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: ", input);
  TORCH_CHECK(weight[0] >= p.groups, "Given groups=", p.groups, ", expected weight to be at least ", p.groups,
              " at dimension 0, but got weight of size ", weight, " instead");
  TORCH_CHECK(weight[0] % p.groups == 0, "Given groups=", p.groups, ", expected weight to be divisible by ", p.groups,
              " at dimension 0, but got weight of size [", weight, "] instead");
  TORCH_CHECK(input[1] == weight[1] * p.groups, "Given groups=", p.groups, ", weight of size ", weight, ", expected input",
              input, " to have ", weight[1] * p.groups, " channels, but got ", input[1], " channels instead");
  TORCH_CHECK(bias == nullptr || (bias->size() == 1 && (*bias)[0] == weight[0]), "Given weight of size ", weight,
              ", expected bias to be 1-dimensional with ", weight[0], " elements, but got bias of size ",
              bias != nullptr ? *bias : c10::ArrayRef<Int>(), " instead");
  TORCH_CHECK(weight[2] > 0 && weight[3] > 0, "kernel size should be greater than zero, but got kernel_height: ", weight[2],
              " kernel_width: ", weight[3]);
  Dims<Int> output{input[0], weight[0], Int(0), Int(0)};
  for (int d = 0; d < 2; ++d) {
    const Int padded = input[2 + d] + p.padding[d] + p.padding[2 + d];
    const Int kernel = p.dilation[d] * (weight[2 + d] - 1) + 1;
    if (!(padded >= kernel)) {
      TORCH_CHECK(false, "Calculated padded input size per channel: (", input[2] + p.padding[0] + p.padding[2], " x ",
                  input[3] + p.padding[1] + p.padding[3], "). Kernel size: (", p.dilation[0] * (weight[2] - 1) + 1, " x ",
                  p.dilation[1] * (weight[3] - 1) + 1, "). Kernel size can't be greater than actual input size");
    }
    output[2 + d] = (padded - kernel) / p.stride[d] + 1;
  }
  TORCH_CHECK(input[0] == 0 || input[1] == 0 || (input[2] > 0 && input[3] > 0),
              "Only zero batch or zero channel inputs are supported, but got input shape: ", input);
  // As torch has it: no input channels, no output channels.
  if (input[1] == 0) output[1] = Int(0);
  return output;
}

// Checks a derivative's arguments: `grad` must have the sizes that the convolution's output has.
template <class Int>
void check_conv_gradient(const char* name, c10::ArrayRef<Int> grad, c10::ArrayRef<Int> input, c10::ArrayRef<Int> weight,
                         const ConvParams<Int>& p) {
  const auto expected = conv_output_sizes<Int>(input, weight, nullptr, p);
  TORCH_CHECK(grad == c10::ArrayRef<Int>(expected), name, ": expected grad of size ", c10::ArrayRef<Int>(expected),
              " for input of size ", input, " and weight of size ", weight, ", but got ", grad);
}

inline void check_conv_bias_gradient(const at::Tensor& grad) {
  TORCH_CHECK(grad.dim() == 4, "conv2d_bias_gradient: expected a 4-dimensional grad, but got size ", grad.sym_sizes());
}

// channels_last in either operand gives channels_last out (measured for every dtype that torch has).
inline c10::MemoryFormat conv_memory_format(const at::Tensor& a, const at::Tensor& b) {
  const bool last = a.suggest_memory_format() == c10::MemoryFormat::ChannelsLast ||
                    b.suggest_memory_format() == c10::MemoryFormat::ChannelsLast;
  return last ? c10::MemoryFormat::ChannelsLast : c10::MemoryFormat::Contiguous;
}

}  // namespace tensorops
