// Pooling on CUDA: checks, allocates, launches.
#include "ops/pooling.h"

#include <torch/library.h>

#include <limits>

#include "cuda/kernels/pooling.h"
#include "cuda/launch.h"

namespace tensorops::cuda {
namespace {

using at::Tensor;
using Ints = c10::IntArrayRef;
using SymInts = c10::SymIntArrayRef;

// `input` and `output` name the tensors on the two sides of the window, whichever way the data goes.
PoolShape shape_of(const char* op, const Tensor& input, const Tensor& output, c10::MemoryFormat format,
                   const PoolWindow* window = nullptr) {
  const auto side = [&](int64_t dim, const PoolAxis* axis) {
    const int64_t in = input.size(dim), out = output.size(dim);
    constexpr int64_t most = int64_t(1) << 30;
    TORCH_CHECK_NOT_IMPLEMENTED(in < most && out < most && (axis == nullptr || (axis->span() < most && axis->stride < most)),
                                op, ": sizes from 2^30 are not covered on CUDA, got input ", input.sizes(), " and output ",
                                output.sizes());
    if (axis == nullptr) return PoolSide{int(in), int(out), 1, 1, 0, 1};
    return PoolSide{int(in), int(out), int(axis->kernel), int(axis->stride), int(axis->padding), int(axis->dilation)};
  };
  const bool channels_last = format == c10::MemoryFormat::ChannelsLast;
  PoolShape shape;
  shape.channels = channels_last ? input.size(1) : 1;
  shape.images = input.dim() == 3 || channels_last ? input.size(0) : input.size(0) * input.size(1);
  shape.h = side(-2, window ? &window->h : nullptr);
  shape.w = side(-1, window ? &window->w : nullptr);
  return shape;
}

// A plane whose places an int must count.
void check_area(const char* op, int64_t area) {
  TORCH_CHECK_NOT_IMPLEMENTED(area <= std::numeric_limits<int32_t>::max(), op, ": planes of more than 2^31 - 1 elements are "
                              "not covered on CUDA");
}

PoolPosition position_kind(const Tensor& position) {
  return position.scalar_type() == c10::kByte ? PoolPosition::u8 : PoolPosition::i32;
}

Tensor empty_like(const Tensor& like, Ints sizes, c10::ScalarType dtype, c10::MemoryFormat format) {
  return empty(sizes, dtype, like.device(), format);
}

void check_covered(bool covered, const char* op, const Tensor& input) {
  TORCH_CHECK_NOT_IMPLEMENTED(covered, "\"", op, "\" not implemented for '", input.scalar_type(), "'");
  check_launch();
}

// ---- max_pool2d

// `remembered` is the dtype of the second result, if there is one.
std::tuple<Tensor, Tensor> max_pool(const Tensor& input_, const PoolWindow& window, bool ceil_mode, PoolPosition kind,
                                    c10::ScalarType remembered) {
  const Guard guard(input_.device());
  const auto format = pool_format(input_);
  const auto sizes = pooled_sizes<int64_t>("max_pool2d", input_, window, ceil_mode);
  const Tensor input = input_.contiguous(format), output = empty_like(input, sizes, input.scalar_type(), format);
  const Tensor position = kind == PoolPosition::none ? Tensor() : empty_like(input, sizes, remembered, format);
  if (output.numel() == 0) return {output, position};
  check_covered(launch_max_pool(dtype_of(input.scalar_type()), shape_of("max_pool2d", input, output, format, &window),
                                input.const_data_ptr(), output.data_ptr(), kind,
                                position.defined() ? position.data_ptr() : nullptr, stream()),
                "max_pool2d", input);
  return {output, position};
}

Tensor max_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  return std::get<0>(max_pool(input, window, ceil_mode, PoolPosition::none, c10::kByte));
}

std::tuple<Tensor, Tensor> max_pool2d_with_position(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                    Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  const auto dtype = position_dtype(window);
  return max_pool(input, window, ceil_mode, dtype == c10::kByte ? PoolPosition::u8 : PoolPosition::i32, dtype);
}

std::tuple<Tensor, Tensor> max_pool2d_with_indices(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                   Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  return max_pool(input, window, ceil_mode, PoolPosition::index, c10::kLong);
}

Tensor max_pool2d_backward(const Tensor& grad_, const Tensor& position_, SymInts input_size, Ints kernel_size, Ints stride,
                           Ints padding, Ints dilation) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  check_max_pool2d_backward(grad_, position_, window);
  check_same_device({&grad_, &position_});
  const Guard guard(grad_.device());
  const auto format = pool_format(position_);
  const Tensor grad = grad_.contiguous(format), position = position_.contiguous(format);
  const auto sizes = plane_sizes("max_pool2d", position, C10_AS_INTARRAYREF_SLOW(input_size));
  const Tensor result = empty_like(grad, sizes, grad.scalar_type(), format);
  if (result.numel() == 0) return result;
  check_covered(launch_max_pool_backward(dtype_of(grad.scalar_type()), shape_of("max_pool2d", result, grad, format, &window),
                                         grad.const_data_ptr(), position_kind(position), position.const_data_ptr(),
                                         result.data_ptr(), stream()),
                "max_pool2d_backward", grad);
  return result;
}

Tensor max_pool2d_pick(const Tensor& input_, const Tensor& position_, Ints kernel_size, Ints stride, Ints padding,
                       Ints dilation) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  check_max_pool2d_pick(input_, position_, window);
  check_same_device({&input_, &position_});
  const Guard guard(input_.device());
  const auto format = pool_format(position_);
  const Tensor input = input_.contiguous(format), position = position_.contiguous(format);
  const Tensor result = empty_like(input, position.sizes(), input.scalar_type(), format);
  if (result.numel() == 0) return result;
  launch_pool_pick(input.element_size(), shape_of("max_pool2d", input, result, format, &window), input.const_data_ptr(),
                   position_kind(position), position.const_data_ptr(), result.data_ptr(), stream());
  check_launch();
  return result;
}

// ---- By flat index

Tensor max_unpool2d(const Tensor& input_, const Tensor& indices_, SymInts output_size) {
  raise_fault();
  check_max_unpool2d(input_, indices_);
  check_same_device({&input_, &indices_});
  TORCH_CHECK_NOT_IMPLEMENTED(c10::isFloatingType(input_.scalar_type()), "\"max_unpool2d\" not implemented for '",
                              input_.scalar_type(), "'");
  const Guard guard(input_.device());
  const auto format = pool_format(input_);
  const auto sizes = plane_sizes("max_unpool2d", input_, C10_AS_INTARRAYREF_SLOW(output_size));
  const Tensor input = input_.contiguous(format), indices = indices_.contiguous(format);
  const Tensor output = empty_like(input, sizes, input.scalar_type(), format);
  const PoolShape shape = shape_of("max_unpool2d", output, input, format);
  check_area("max_unpool2d", shape.out_area());
  const Tensor owner = empty_like(input, output.numel(), c10::kInt, c10::MemoryFormat::Contiguous);
  launch_max_unpool(input.element_size(), shape, input.const_data_ptr(), indices.const_data_ptr<int64_t>(),
                    owner.data_ptr<int>(), output.data_ptr(), fault_word(), stream());
  check_launch_with_indices();
  return output;
}

Tensor plane_gather(const Tensor& input_, const Tensor& indices_) {
  check_plane_gather(input_, indices_);
  check_same_device({&input_, &indices_});
  const Guard guard(input_.device());
  const auto format = pool_format(indices_);
  const Tensor input = input_.contiguous(format), indices = indices_.contiguous(format);
  const Tensor result = empty_like(input, indices.sizes(), input.scalar_type(), format);
  if (result.numel() == 0) return result;
  launch_plane_gather(input.element_size(), shape_of("_plane_gather", input, result, format), input.const_data_ptr(),
                      indices.const_data_ptr<int64_t>(), result.data_ptr(), stream());
  check_launch();
  return result;
}

Tensor plane_scatter_add(const Tensor& grad_, const Tensor& indices_, SymInts output_size) {
  check_plane_scatter_add(grad_, indices_);
  check_same_device({&grad_, &indices_});
  const Guard guard(grad_.device());
  const auto format = pool_format(indices_);
  const Tensor grad = grad_.contiguous(format), indices = indices_.contiguous(format);
  const auto sizes = plane_sizes("_plane_scatter_add", indices, C10_AS_INTARRAYREF_SLOW(output_size));
  const Tensor result = empty_like(grad, sizes, grad.scalar_type(), format);
  if (result.numel() == 0) return result;
  const PoolShape shape = shape_of("_plane_scatter_add", result, grad, format);
  check_area("_plane_scatter_add", shape.out_area());
  const DType dtype = dtype_of(grad.scalar_type());
  const Tensor workspace =
      empty_like(grad, result.numel() * plane_scatter_bytes(dtype), c10::kByte, c10::MemoryFormat::Contiguous);
  check_covered(launch_plane_scatter_add(dtype, shape, grad.const_data_ptr(), indices.const_data_ptr<int64_t>(),
                                         workspace.data_ptr(), result.data_ptr(), stream()),
                "_plane_scatter_add", grad);
  return result;
}

// ---- avg_pool2d

// `output` is contiguous in the input's format.
void avg_pool2d_into(const Tensor& input_, const PoolWindow& window, bool count_include_pad,
                     std::optional<int64_t> divisor_override, const Tensor& output) {
  if (output.numel() == 0) return;
  const auto format = pool_format(input_);
  const Tensor input = input_.contiguous(format);
  check_covered(launch_mean_pool(dtype_of(input.scalar_type()), shape_of("avg_pool2d", input, output, format, &window),
                                 {divisor_override.value_or(0), count_include_pad}, input.const_data_ptr(),
                                 output.data_ptr(), stream()),
                "avg_pool2d", input);
}

Tensor avg_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                  bool count_include_pad, std::optional<int64_t> divisor_override) {
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  check_divisor(divisor_override);
  const Guard guard(input.device());
  const auto sizes = pooled_sizes<int64_t>("avg_pool2d", input, window, ceil_mode);
  const Tensor output = empty_like(input, sizes, input.scalar_type(), pool_format(input));
  avg_pool2d_into(input, window, count_include_pad, divisor_override, output);
  return output;
}

Tensor& avg_pool2d_out(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                       bool count_include_pad, std::optional<int64_t> divisor_override, Tensor& out) {
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  check_divisor(divisor_override);
  const Guard guard(input.device());
  const auto sizes = pooled_sizes<int64_t>("avg_pool2d", input, window, ceil_mode);
  if (prepare_pool_out("avg_pool2d", input, c10::fromIntArrayRefSlow(sizes), out))
    avg_pool2d_into(input, window, count_include_pad, divisor_override, out);
  else
    out.copy_(cuda::avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override));
  return out;
}

Tensor avg_pool2d_backward(const Tensor& grad_, SymInts input_size, Ints kernel_size, Ints stride, Ints padding,
                           bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override,
                           bool channels_last) {
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  check_divisor(divisor_override);
  const Guard guard(grad_.device());
  const auto format = pool_format(channels_last);
  const Tensor grad = grad_.contiguous(format);
  const auto sizes = plane_sizes("avg_pool2d", grad, C10_AS_INTARRAYREF_SLOW(input_size));
  const Tensor result = empty_like(grad, sizes, grad.scalar_type(), format);
  if (result.numel() == 0) return result;
  check_covered(launch_mean_pool_backward(dtype_of(grad.scalar_type()),
                                          shape_of("avg_pool2d", result, grad, format, &window),
                                          {divisor_override.value_or(0), count_include_pad}, grad.const_data_ptr(),
                                          result.data_ptr(), stream()),
                "avg_pool2d_backward", grad);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) {
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

}  // namespace tensorops::cuda
