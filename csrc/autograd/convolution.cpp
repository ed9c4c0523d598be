// The three convolutions are one trilinear form in output gradient, input and weight, so each one's derivatives are the
// other two.
#include "ops/convolution.h"

#include <torch/library.h>

#include "autograd/node.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using c10::SymInt;
using SymInts = c10::SymIntArrayRef;
using ops::OptionalTensor;

// The arguments that all of them share, owned by a backward function.
struct Params {
  std::vector<SymInt> stride, padding, dilation;
  SymInt groups;
  Params(SymInts s, SymInts p, SymInts d, SymInt g) : stride(s.vec()), padding(p.vec()), dilation(d.vec()), groups(std::move(g)) {}

  Tensor conv2d(const Tensor& input, const Tensor& weight) const {
    return ops::_conv2d(input, weight, std::nullopt, stride, padding, dilation, groups);
  }
  Tensor input_gradient(const Tensor& grad, const Tensor& weight, SymInts size) const {
    return ops::conv2d_input_gradient(grad, weight, size, stride, padding, dilation, groups);
  }
  Tensor weight_gradient(const Tensor& grad, const Tensor& input, SymInts size) const {
    return ops::conv2d_weight_gradient(grad, input, size, stride, padding, dilation, groups);
  }
};

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, SymInts stride, SymInts padding,
              SymInts dilation, SymInt groups) {
  const Tensor absent;
  const Tensor& b = bias ? *bias : absent;
  Graph graph("Conv2dBackward", {&input, &weight, &b});
  Tensor output =
      Graph::forward([&] { return ops::_conv2d(input, weight, bias, stride, padding, dilation, groups); });
  if (graph.recording())
    graph.record({&output}, {&input, &weight}, [params = Params(stride, padding, dilation, groups)](Backward& back) {
      const Tensor &grad = back.gradient(), &input = back.saved(0), &weight = back.saved(1);
      if (back.needs(0)) back.result(0, params.input_gradient(grad, weight, input.sym_sizes()));
      if (back.needs(1)) back.result(1, params.weight_gradient(grad, input, weight.sym_sizes()));
      if (back.needs(2)) back.result(2, ops::conv2d_bias_gradient(grad));
    });
  return output;
}

Tensor conv2d_input_gradient(const Tensor& grad, const Tensor& weight, SymInts input_size, SymInts stride, SymInts padding,
                             SymInts dilation, SymInt groups) {
  Graph graph("Conv2dInputGradientBackward", {&grad, &weight});
  Tensor result = Graph::forward(
      [&] { return ops::conv2d_input_gradient(grad, weight, input_size, stride, padding, dilation, groups); });
  if (graph.recording())
    graph.record({&result}, {&grad, &weight}, [params = Params(stride, padding, dilation, groups)](Backward& back) {
      const Tensor &outer = back.gradient(), &grad = back.saved(0), &weight = back.saved(1);
      if (back.needs(0)) back.result(0, params.conv2d(outer, weight));
      if (back.needs(1)) back.result(1, params.weight_gradient(grad, outer, weight.sym_sizes()));
    });
  return result;
}

Tensor conv2d_weight_gradient(const Tensor& grad, const Tensor& input, SymInts weight_size, SymInts stride, SymInts padding,
                              SymInts dilation, SymInt groups) {
  Graph graph("Conv2dWeightGradientBackward", {&grad, &input});
  Tensor result = Graph::forward(
      [&] { return ops::conv2d_weight_gradient(grad, input, weight_size, stride, padding, dilation, groups); });
  if (graph.recording())
    graph.record({&result}, {&grad, &input}, [params = Params(stride, padding, dilation, groups)](Backward& back) {
      const Tensor &outer = back.gradient(), &grad = back.saved(0), &input = back.saved(1);
      if (back.needs(0)) back.result(0, params.conv2d(input, outer));
      if (back.needs(1)) back.result(1, params.input_gradient(grad, outer, input.sym_sizes()));
    });
  return result;
}

Tensor conv2d_bias_gradient(const Tensor& grad) {
  Graph graph("Conv2dBiasGradientBackward", {&grad});
  Tensor result = Graph::forward([&] { return ops::conv2d_bias_gradient(grad); });
  if (graph.recording())
    graph.record({&result}, {}, [size = grad.sym_sizes().vec()](Backward& back) {
      back.result(0, back.gradient().view_symint({1, size[1], 1, 1}).expand_symint(size));
    });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  library.impl("_conv2d", conv2d);
  library.impl("conv2d_input_gradient", conv2d_input_gradient);
  library.impl("conv2d_weight_gradient", conv2d_weight_gradient);
  library.impl("conv2d_bias_gradient", conv2d_bias_gradient);
}

}  // namespace tensorops::autograd
