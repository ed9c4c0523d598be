// Convolution: schemas, Meta kernels, and what turns torch's two signatures into the one op that has kernels.
#include "ops/convolution.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/squeeze.h>
#include <ATen/ops/unsqueeze.h>
#include <torch/library.h>

namespace tensorops {
namespace {

using at::Tensor;
using c10::SymInt;
using SymInts = c10::SymIntArrayRef;
using ops::OptionalTensor;

// A single number stands for both dimensions.
std::array<SymInt, 2> pair_of(const char* name, SymInts values) {
  TORCH_CHECK(values.size() == 1 || values.size() == 2, "expected ", name,
              " to be a single integer value or a list of 2 values to match the convolution dimensions, but got ", name, "=",
              values);
  return {values[0], values.back()};
}

const Tensor* defined(const OptionalTensor& t) { return t && t->defined() ? &*t : nullptr; }

Tensor batched_conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                      const ConvParams<SymInt>& params) {
  TORCH_CHECK(input.dim() == 3 || input.dim() == 4,
              "Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: ", input.sym_sizes());
  TORCH_CHECK(weight.dim() == 4, "Expected 4-dimensional weight for conv2d, but got weight of size ", weight.sym_sizes(),
              " for input of size ", input.sym_sizes());
  const auto run = [&](const Tensor& batch) {
    return ops::_conv2d(batch, weight, bias, params.stride, params.padding, params.dilation, params.groups);
  };
  return input.dim() == 4 ? run(input) : run(input.unsqueeze(0)).squeeze(0);
}

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, SymInts stride, SymInts padding,
              SymInts dilation, SymInt groups) {
  const auto pad = pair_of("padding", padding);
  return batched_conv2d(input, weight, bias,
                        {pair_of("stride", stride), {pad[0], pad[1], pad[0], pad[1]}, pair_of("dilation", dilation),
                         std::move(groups)});
}

Tensor conv2d_padding(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, SymInts stride,
                      std::string_view padding, SymInts dilation, SymInt groups) {
  ConvParams<SymInt> params{pair_of("stride", stride), {0, 0, 0, 0}, pair_of("dilation", dilation), std::move(groups)};
  if (padding == "same") {
    TORCH_CHECK(params.stride[0] == 1 && params.stride[1] == 1, "padding='same' is not supported for strided convolutions");
    TORCH_CHECK(weight.dim() == 4, "Expected 4-dimensional weight for conv2d, but got weight of size ", weight.sym_sizes());
    for (int d = 0; d < 2; ++d) {
      const SymInt total = params.dilation[d] * (weight.sym_size(2 + d) - 1);
      params.padding[d] = total / 2;
      params.padding[2 + d] = total - total / 2;
    }
    // A dilation that is not positive would give negative padding; its own check speaks first.
    for (const SymInt& v : params.dilation)
      TORCH_CHECK(v > 0, "dilation should be greater than zero, but got ", SymInts(params.dilation));
  } else {
    TORCH_CHECK(padding == "valid", "Invalid padding string: '", padding, "'");
  }
  return batched_conv2d(input, weight, bias, params);
}

Tensor empty_like_conv(SymInts sizes, const Tensor& like, c10::MemoryFormat format) {
  return at::empty_symint(sizes, like.options(), format);
}

Tensor meta_conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, SymInts stride, SymInts padding,
                   SymInts dilation, SymInt groups) {
  const auto params = conv_params<SymInt>(stride, padding, dilation, std::move(groups));
  const Tensor* b = defined(bias);
  const SymInts bias_size = b != nullptr ? b->sym_sizes() : SymInts();
  const auto sizes = conv_output_sizes<SymInt>(input.sym_sizes(), weight.sym_sizes(), b != nullptr ? &bias_size : nullptr, params);
  check_conv_dtypes(input, weight, b);
  return empty_like_conv(sizes, input, conv_memory_format(input, weight));
}

Tensor meta_input_gradient(const Tensor& grad, const Tensor& weight, SymInts input_size, SymInts stride, SymInts padding,
                           SymInts dilation, SymInt groups) {
  const auto params = conv_params<SymInt>(stride, padding, dilation, std::move(groups));
  check_conv_gradient<SymInt>("conv2d_input_gradient", grad.sym_sizes(), input_size, weight.sym_sizes(), params);
  check_conv_dtypes(grad, weight, nullptr);
  return empty_like_conv(input_size, grad, conv_memory_format(grad, weight));
}

Tensor meta_weight_gradient(const Tensor& grad, const Tensor& input, SymInts weight_size, SymInts stride, SymInts padding,
                            SymInts dilation, SymInt groups) {
  const auto params = conv_params<SymInt>(stride, padding, dilation, std::move(groups));
  check_conv_gradient<SymInt>("conv2d_weight_gradient", grad.sym_sizes(), input.sym_sizes(), weight_size, params);
  check_conv_dtypes(grad, input, nullptr);
  return empty_like_conv(weight_size, grad, conv_memory_format(grad, input));
}

Tensor meta_bias_gradient(const Tensor& grad) {
  check_conv_bias_gradient(grad);
  return at::empty_symint({grad.sym_size(1)}, grad.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };
  const std::string tensors = "(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, ";
  define("conv2d" + tensors + "SymInt[2] padding=0, SymInt[2] dilation=1, SymInt groups=1) -> Tensor");
  define("conv2d.padding" + tensors + "str padding=\"valid\", SymInt[2] dilation=1, SymInt groups=1) -> Tensor");
  const std::string params = "SymInt[2] stride, SymInt[4] padding, SymInt[2] dilation, SymInt groups) -> Tensor";
  define("_conv2d(Tensor input, Tensor weight, Tensor? bias, " + params);
  define("conv2d_input_gradient(Tensor grad, Tensor weight, SymInt[] input_size, " + params);
  define("conv2d_weight_gradient(Tensor grad, Tensor input, SymInt[] weight_size, " + params);
  define("conv2d_bias_gradient(Tensor grad) -> Tensor");
}

TORCH_LIBRARY_IMPL(tensorops, CompositeImplicitAutograd, library) {
  library.impl("conv2d", conv2d);
  library.impl("conv2d.padding", conv2d_padding);
}

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  library.impl("_conv2d", meta_conv2d);
  library.impl("conv2d_input_gradient", meta_input_gradient);
  library.impl("conv2d_weight_gradient", meta_weight_gradient);
  library.impl("conv2d_bias_gradient", meta_bias_gradient);
}

}  // namespace tensorops
