// Pooling is linear in its input once it is settled which elements are the maxima, so each backward op's derivative is
// the forward one again, or its picking half.
#include "ops/pooling.h"

#include <torch/library.h>

#include "autograd/node.h"

namespace tensorops::autograd {
namespace {

using at::Tensor;
using Ints = c10::IntArrayRef;
using SymInts = c10::SymIntArrayRef;

std::vector<c10::SymInt> height_and_width(const Tensor& t) {
  return t.dim() < 2 ? std::vector<c10::SymInt>() : t.sym_sizes().slice(t.dim() - 2).vec();
}

// The arguments of a window, owned by a backward function.
struct MaxWindow {
  std::vector<int64_t> kernel_size, stride, padding, dilation;
  MaxWindow(Ints k, Ints s, Ints p, Ints d) : kernel_size(k.vec()), stride(s.vec()), padding(p.vec()), dilation(d.vec()) {}
};

std::tuple<Tensor, Tensor> max_pool2d_with_position(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                    Ints dilation, bool ceil_mode) {
  Graph graph("MaxPool2dBackward", {&input});
  auto result = Graph::forward(
      [&] { return ops::max_pool2d_with_position(input, kernel_size, stride, padding, dilation, ceil_mode); });
  auto& [output, position] = result;
  if (graph.recording())
    graph.record({&output}, {&position},
                 [w = MaxWindow(kernel_size, stride, padding, dilation), size = height_and_width(input)](Backward& b) {
                   b.result(0, ops::max_pool2d_backward(b.gradient(), b.saved(0), size, w.kernel_size, w.stride,
                                                        w.padding, w.dilation));
                 });
  return result;
}

Tensor max_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation, bool ceil_mode) {
  if (Graph("MaxPool2dBackward", {&input}).recording())
    return std::get<0>(max_pool2d_with_position(input, kernel_size, stride, padding, dilation, ceil_mode));
  return Graph::forward([&] { return ops::max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode); });
}

Tensor max_pool2d_backward(const Tensor& grad, const Tensor& position, SymInts input_size, Ints kernel_size, Ints stride,
                           Ints padding, Ints dilation) {
  Graph graph("MaxPool2dBackwardBackward", {&grad});
  Tensor result = Graph::forward([&] {
    return ops::max_pool2d_backward(grad, position, input_size, kernel_size, stride, padding, dilation);
  });
  if (graph.recording())
    graph.record({&result}, {&position}, [w = MaxWindow(kernel_size, stride, padding, dilation)](Backward& b) {
      b.result(0, ops::max_pool2d_pick(b.gradient(), b.saved(0), w.kernel_size, w.stride, w.padding, w.dilation));
    });
  return result;
}

Tensor max_pool2d_pick(const Tensor& input, const Tensor& position, Ints kernel_size, Ints stride, Ints padding,
                       Ints dilation) {
  Graph graph("MaxPool2dPickBackward", {&input});
  Tensor result =
      Graph::forward([&] { return ops::max_pool2d_pick(input, position, kernel_size, stride, padding, dilation); });
  if (graph.recording())
    graph.record({&result}, {&position},
                 [w = MaxWindow(kernel_size, stride, padding, dilation), size = height_and_width(input)](Backward& b) {
                   b.result(0, ops::max_pool2d_backward(b.gradient(), b.saved(0), size, w.kernel_size, w.stride,
                                                        w.padding, w.dilation));
                 });
  return result;
}

std::tuple<Tensor, Tensor> max_pool2d_with_indices(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                   Ints dilation, bool ceil_mode) {
  Graph graph("MaxPool2dWithIndicesBackward", {&input});
  auto result = Graph::forward(
      [&] { return ops::max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode); });
  auto& [output, indices] = result;
  if (graph.recording())
    graph.record({&output}, {&indices}, [size = height_and_width(input)](Backward& b) {
      b.result(0, ops::plane_scatter_add(b.gradient(), b.saved(0), size));
    });
  return result;
}

Tensor max_unpool2d(const Tensor& input, const Tensor& indices, SymInts output_size) {
  Graph graph("MaxUnpool2dBackward", {&input});
  Tensor output = Graph::forward([&] { return ops::max_unpool2d(input, indices, output_size); });
  if (graph.recording())
    graph.record({&output}, {&indices},
                 [](Backward& b) { b.result(0, ops::plane_gather(b.gradient(), b.saved(0))); });
  return output;
}

Tensor plane_scatter_add(const Tensor& grad, const Tensor& indices, SymInts output_size) {
  Graph graph("PlaneScatterAddBackward", {&grad});
  Tensor output = Graph::forward([&] { return ops::plane_scatter_add(grad, indices, output_size); });
  if (graph.recording())
    graph.record({&output}, {&indices},
                 [](Backward& b) { b.result(0, ops::plane_gather(b.gradient(), b.saved(0))); });
  return output;
}

Tensor plane_gather(const Tensor& input, const Tensor& indices) {
  Graph graph("PlaneGatherBackward", {&input});
  Tensor output = Graph::forward([&] { return ops::plane_gather(input, indices); });
  if (graph.recording())
    graph.record({&output}, {&indices}, [size = height_and_width(input)](Backward& b) {
      b.result(0, ops::plane_scatter_add(b.gradient(), b.saved(0), size));
    });
  return output;
}

Tensor avg_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                  bool count_include_pad, std::optional<int64_t> divisor_override) {
  Graph graph("AvgPool2dBackward", {&input});
  Tensor output = Graph::forward([&] {
    return ops::avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override);
  });
  if (graph.recording())
    graph.record({&output}, {}, [=, k = kernel_size.vec(), s = stride.vec(), p = padding.vec(),
                                 size = height_and_width(input),
                                 channels_last = pool_format(input) == c10::MemoryFormat::ChannelsLast](Backward& b) {
      b.result(0, ops::avg_pool2d_backward(b.gradient(), size, k, s, p, ceil_mode, count_include_pad, divisor_override,
                                           channels_last));
    });
  return output;
}

Tensor& avg_pool2d_out(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                       bool count_include_pad, std::optional<int64_t> divisor_override, Tensor& out) {
  Graph("AvgPool2dBackward", {&input}).refuse_out("avg_pool2d", out);
  Graph::forward([&] {
    ops::avg_pool2d_out(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, out);
  });
  Graph::after_inplace(out);
  return out;
}

Tensor avg_pool2d_backward(const Tensor& grad, SymInts input_size, Ints kernel_size, Ints stride, Ints padding,
                           bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override,
                           bool channels_last) {
  Graph graph("AvgPool2dBackwardBackward", {&grad});
  Tensor result = Graph::forward([&] {
    return ops::avg_pool2d_backward(grad, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad,
                                    divisor_override, channels_last);
  });
  if (graph.recording())
    graph.record({&result}, {}, [=, k = kernel_size.vec(), s = stride.vec(), p = padding.vec()](Backward& b) {
      b.result(0, ops::avg_pool2d(b.gradient(), k, s, p, ceil_mode, count_include_pad, divisor_override));
    });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  library.impl("max_pool2d", max_pool2d);
  library.impl("max_pool2d_with_indices", max_pool2d_with_indices);
  library.impl("_max_pool2d_with_position", max_pool2d_with_position);
  library.impl("_max_pool2d_backward", max_pool2d_backward);
  library.impl("_max_pool2d_pick", max_pool2d_pick);
  library.impl("max_unpool2d", max_unpool2d);
  library.impl("_plane_scatter_add", plane_scatter_add);
  library.impl("_plane_gather", plane_gather);
  library.impl("avg_pool2d", avg_pool2d);
  library.impl("avg_pool2d.out", avg_pool2d_out);
  library.impl("_avg_pool2d_backward", avg_pool2d_backward);
}

}  // namespace tensorops::autograd
