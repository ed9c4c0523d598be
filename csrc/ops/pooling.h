// Pooling over windows of two dimensions: typed callers, and the rules for shapes and layouts.
//
// max_pool2d has two ways to remember where a maximum was. Training needs no more than its position in the window,
// kernel_height * kernel_width possibilities and so one byte as a rule: _max_pool2d_with_position. Who asks for indices
// gets torch's, int64 and flat in the input plane: max_pool2d_with_indices.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <array>
#include <tuple>

#include "ops/handle.h"

namespace tensorops {

namespace ops {

using at::Tensor;
using Ints = c10::IntArrayRef;
using SymInts = c10::SymIntArrayRef;

inline const Op<Tensor(const Tensor&, Ints, Ints, Ints, Ints, bool)> max_pool2d{"max_pool2d"};
inline const Op<std::tuple<Tensor, Tensor>(const Tensor&, Ints, Ints, Ints, Ints, bool)> max_pool2d_with_indices{
    "max_pool2d_with_indices"};
inline const Op<Tensor(const Tensor&, const Tensor&, SymInts)> max_unpool2d{"max_unpool2d"};
inline const Op<Tensor(const Tensor&, Ints, Ints, Ints, bool, bool, std::optional<int64_t>)> avg_pool2d{"avg_pool2d"};
inline const Op<Tensor&(const Tensor&, Ints, Ints, Ints, bool, bool, std::optional<int64_t>, Tensor&)> avg_pool2d_out{
    "avg_pool2d", "out"};

// Sends a gradient back to where the maxima were, in an input of the given height and width; and picks the elements that
// are there. Each is the other's derivative.
inline const Op<std::tuple<Tensor, Tensor>(const Tensor&, Ints, Ints, Ints, Ints, bool)> max_pool2d_with_position{
    "_max_pool2d_with_position"};
inline const Op<Tensor(const Tensor&, const Tensor&, SymInts, Ints, Ints, Ints, Ints)> max_pool2d_backward{
    "_max_pool2d_backward"};
inline const Op<Tensor(const Tensor&, const Tensor&, Ints, Ints, Ints, Ints)> max_pool2d_pick{"_max_pool2d_pick"};
// The same by flat indices.
inline const Op<Tensor(const Tensor&, const Tensor&, SymInts)> plane_scatter_add{"_plane_scatter_add"};
inline const Op<Tensor(const Tensor&, const Tensor&)> plane_gather{"_plane_gather"};

// The last argument says in which memory format the input was, and the result is.
inline const Op<Tensor(const Tensor&, SymInts, Ints, Ints, Ints, bool, bool, std::optional<int64_t>, bool)>
    avg_pool2d_backward{"_avg_pool2d_backward"};

}  // namespace ops

// One dimension of a pooling window.
struct PoolAxis {
  int64_t kernel, stride, padding, dilation = 1;

  // Where window `o` begins, and the first of its positions that is not in the padding before the input.
  int64_t origin(int64_t o) const { return o * stride - padding; }
  int64_t first_inside(int64_t o) const { return origin(o) >= 0 ? 0 : (dilation - 1 - origin(o)) / dilation; }
  int64_t span() const { return (kernel - 1) * dilation + 1; }
};

// A window of two dimensions, read and checked as torch does.
struct PoolWindow {
  PoolAxis h, w;

  PoolWindow(const char* op, c10::IntArrayRef kernel_size, c10::IntArrayRef stride, c10::IntArrayRef padding,
             c10::IntArrayRef dilation = 1);
  int64_t positions() const { return h.kernel * w.kernel; }
};

// What holds a position in the window.
inline c10::ScalarType position_dtype(const PoolWindow& window) {
  return window.positions() <= 256 ? c10::kByte : c10::kInt;
}

// Results are channels_last where the input is; unbatched input is always taken as contiguous.
inline c10::MemoryFormat pool_format(const at::Tensor& input) {
  return input.dim() == 4 ? input.suggest_memory_format() : c10::MemoryFormat::Contiguous;
}
inline c10::MemoryFormat pool_format(bool channels_last) {
  return channels_last ? c10::MemoryFormat::ChannelsLast : c10::MemoryFormat::Contiguous;
}

// The sizes of the pooled input, for plain and symbolic integers.
template <class Int>
c10::SmallVector<Int, 4> pooled_sizes(const char* op, const at::Tensor& input, const PoolWindow& window,
                                      bool ceil_mode);
// `like` with its last two sizes replaced.
template <class Int>
c10::SmallVector<Int, 4> plane_sizes(const char* op, const at::Tensor& like, c10::ArrayRef<Int> height_and_width);

// The checks of the single ops, shared by all devices.
void check_max_unpool2d(const at::Tensor& input, const at::Tensor& indices);
void check_max_pool2d_backward(const at::Tensor& grad, const at::Tensor& position, const PoolWindow& window);
void check_max_pool2d_pick(const at::Tensor& input, const at::Tensor& position, const PoolWindow& window);
void check_plane_scatter_add(const at::Tensor& grad, const at::Tensor& indices);
void check_plane_gather(const at::Tensor& input, const at::Tensor& indices);
void check_divisor(std::optional<int64_t> divisor_override);

// Brings out= into shape as torch does; whether a kernel may write its memory, else it gets a copy.
bool prepare_pool_out(const char* op, const at::Tensor& input, c10::SymIntArrayRef sizes, const at::Tensor& out);

}  // namespace tensorops
