// Pooling: schemas, shape rules and Meta kernels.
#include "ops/pooling.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace tensorops {
namespace {

// One or two numbers; `otherwise` where there are none.
std::array<int64_t, 2> pair(const char* op, const char* argument, c10::IntArrayRef values, const int64_t* otherwise) {
  TORCH_CHECK(values.size() == 1 || values.size() == 2 || (values.empty() && otherwise != nullptr), op, ": ", argument,
              " must ", otherwise != nullptr ? "either be omitted," : "either be", " a single int, or a tuple of two ints");
  for (int64_t value : values)
    TORCH_CHECK(value <= std::numeric_limits<int32_t>::max(), op, ": ", argument, " is too large: ", value);
  if (values.empty()) return {otherwise[0], otherwise[1]};
  return {values[0], values.back()};
}

void check_axis(const char* op, const PoolAxis& axis) {
  TORCH_CHECK(axis.kernel > 0, op, ": kernel size should be greater than zero, but got ", axis.kernel);
  TORCH_CHECK(axis.stride != 0, op, ": stride should not be zero");
  TORCH_CHECK(axis.stride > 0, op, ": stride should be greater than zero, but got ", axis.stride);
  TORCH_CHECK(axis.dilation > 0, op, ": dilation should be greater than zero, but got ", axis.dilation);
  TORCH_CHECK(axis.padding >= 0, op, ": pad must be non-negative, but got pad: ", axis.padding);
  TORCH_CHECK(axis.padding <= axis.kernel / 2, op, ": pad should be at most half of kernel size, but got pad=",
              axis.padding, " and kernel_size=", axis.kernel);
}

template <class Int>
c10::ArrayRef<Int> sizes_of(const at::Tensor& t) {
  if constexpr (std::is_same_v<Int, int64_t>) return t.sizes();
  else return t.sym_sizes();
}

// How many windows fit; with ceil_mode one more may start inside the input or its left padding. Less than 1 if none.
template <class Int>
Int pooled_size(const Int& input, const PoolAxis& axis, bool ceil_mode) {
  const Int room = input + (2 * axis.padding - axis.span() + (ceil_mode ? axis.stride - 1 : 0));
  if (room < 0) return Int(0);
  Int count = room / axis.stride + 1;
  if (ceil_mode && (count - 1) * axis.stride >= input + axis.padding) count = count - 1;
  return count;
}

}  // namespace

PoolWindow::PoolWindow(const char* op, c10::IntArrayRef kernel_size, c10::IntArrayRef stride, c10::IntArrayRef padding,
                       c10::IntArrayRef dilation) {
  const auto k = pair(op, "kernel_size", kernel_size, nullptr), s = pair(op, "stride", stride, k.data()),
             p = pair(op, "padding", padding, nullptr), d = pair(op, "dilation", dilation, nullptr);
  h = {k[0], s[0], p[0], d[0]};
  w = {k[1], s[1], p[1], d[1]};
  check_axis(op, h);
  check_axis(op, w);
  TORCH_CHECK(positions() <= std::numeric_limits<int32_t>::max(), op, ": kernel_size is too large: ", kernel_size);
}

template <class Int>
c10::SmallVector<Int, 4> pooled_sizes(const char* op, const at::Tensor& input, const PoolWindow& window,
                                      bool ceil_mode) {
  const auto in = sizes_of<Int>(input);
  const size_t n = in.size();
  TORCH_CHECK_INDEX(n >= 3 || std::string_view(op) != "avg_pool2d", "avg_pool2d: expected a 3D or 4D input, but got ", in);
  bool filled = n == 3 || n == 4;
  for (size_t i = n == 4 ? 1 : 0; filled && i < n; ++i) filled = in[i] != 0;
  TORCH_CHECK(filled, op, ": expected a 3D or 4D input in which only the batch may be empty, but got ", in);
  c10::SmallVector<Int, 4> out(in.begin(), in.end());
  out[n - 2] = pooled_size(in[n - 2], window.h, ceil_mode);
  out[n - 1] = pooled_size(in[n - 1], window.w, ceil_mode);
  TORCH_CHECK(out[n - 2] >= 1 && out[n - 1] >= 1, op, ": Given input size: ", in, ". Calculated output size: ",
              c10::ArrayRef<Int>(out), ". Output size is too small");
  return out;
}
template c10::SmallVector<int64_t, 4> pooled_sizes(const char*, const at::Tensor&, const PoolWindow&, bool);
template c10::SmallVector<c10::SymInt, 4> pooled_sizes(const char*, const at::Tensor&, const PoolWindow&, bool);

template <class Int>
c10::SmallVector<Int, 4> plane_sizes(const char* op, const at::Tensor& like, c10::ArrayRef<Int> height_and_width) {
  TORCH_CHECK(like.dim() == 3 || like.dim() == 4, op, ": expected a 3D or 4D tensor, but got one with ", like.dim(),
              " dimensions");
  TORCH_CHECK(height_and_width.size() == 2, op, ": expected two elements (height, width), but got ",
              height_and_width.size());
  TORCH_CHECK(height_and_width[0] >= 0 && height_and_width[1] >= 0, op, ": sizes must be non-negative, but got ",
              height_and_width);
  const auto sizes = sizes_of<Int>(like);
  c10::SmallVector<Int, 4> result(sizes.begin(), sizes.end() - 2);
  result.append({height_and_width[0], height_and_width[1]});
  return result;
}
template c10::SmallVector<int64_t, 4> plane_sizes(const char*, const at::Tensor&, c10::ArrayRef<int64_t>);
template c10::SmallVector<c10::SymInt, 4> plane_sizes(const char*, const at::Tensor&, c10::ArrayRef<c10::SymInt>);

// Whether two tensors of three or four dimensions have the same planes, whatever their height and width.
static bool same_planes(const at::Tensor& a, const at::Tensor& b) {
  return a.sym_sizes().slice(0, a.dim() - 2) == b.sym_sizes().slice(0, b.dim() - 2);
}

void check_divisor(std::optional<int64_t> divisor_override) {
  TORCH_CHECK(!divisor_override || *divisor_override != 0, "avg_pool2d: divisor must be not zero");
}

bool prepare_pool_out(const char* op, const at::Tensor& input, c10::SymIntArrayRef sizes, const at::Tensor& out) {
  TORCH_CHECK(out.scalar_type() == input.scalar_type(), op, ": Expected out tensor to have dtype ", input.scalar_type(),
              ", but got ", out.scalar_type(), " instead");
  TORCH_CHECK(out.device() == input.device(), op, ": Expected out tensor to have device ", input.device(), ", but got ",
              out.device(), " instead");
  at::assert_no_internal_overlap(out);
  if (at::native::resize_output_symint(out, sizes)) {
    c10::TensorImpl* impl = out.unsafeGetTensorImpl();
    if (impl->has_symbolic_sizes_strides()) impl->empty_tensor_restride_symint(pool_format(input));
    else impl->empty_tensor_restride(pool_format(input));
  }
  return out.is_contiguous(pool_format(input)) && at::get_overlap_status(out, input) == at::MemOverlapStatus::No;
}

static void check_indices(const char* op, const at::Tensor& input, const at::Tensor& indices) {
  TORCH_CHECK(indices.scalar_type() == c10::kLong, op, ": elements in indices should be type int64 but got: ",
              indices.scalar_type());
  TORCH_CHECK(input.dim() == 3 || input.dim() == 4, op, ": input should be a 3D or 4D tensor, but got one with ",
              input.dim(), " dimensions");
  TORCH_CHECK(input.dim() == indices.dim(), op, ": expected input and indices with the same number of dimensions, but got ",
              input.dim(), " and ", indices.dim());
}

void check_max_unpool2d(const at::Tensor& input, const at::Tensor& indices) {
  check_indices("max_unpool2d", input, indices);
  TORCH_CHECK(input.sym_sizes() == indices.sym_sizes(), "max_unpool2d: expected shape of indices to be same as that of the "
              "input tensor (", input.sym_sizes(), ") but got indices tensor with shape: ", indices.sym_sizes());
  for (int64_t i = 1; i < input.dim(); ++i)
    TORCH_CHECK(input.sym_size(i) != 0, "max_unpool2d: expected input to have non-zero size for non-batch dimensions, but "
                "got ", input.sym_sizes(), " with dimension ", i, " being empty.");
}

void check_max_pool2d_backward(const at::Tensor& grad, const at::Tensor& position, const PoolWindow& window) {
  TORCH_CHECK(grad.sym_sizes() == position.sym_sizes(), "_max_pool2d_backward: grad has shape ", grad.sym_sizes(),
              ", position ", position.sym_sizes());
  TORCH_CHECK(position.scalar_type() == position_dtype(window), "_max_pool2d_backward: position must be ",
              position_dtype(window), ", got ", position.scalar_type());
}

void check_max_pool2d_pick(const at::Tensor& input, const at::Tensor& position, const PoolWindow& window) {
  const auto in = input.sym_sizes(), at = position.sym_sizes();
  TORCH_CHECK((in.size() == 3 || in.size() == 4) && in.size() == at.size() && same_planes(input, position),
              "_max_pool2d_pick: input has shape ", in, ", position ", at);
  TORCH_CHECK(position.scalar_type() == position_dtype(window), "_max_pool2d_pick: position must be ",
              position_dtype(window), ", got ", position.scalar_type());
}

void check_plane_gather(const at::Tensor& input, const at::Tensor& indices) {
  check_indices("_plane_gather", input, indices);
  TORCH_CHECK(same_planes(input, indices), "_plane_gather: input has shape ",
              input.sym_sizes(), ", indices ", indices.sym_sizes());
}

void check_plane_scatter_add(const at::Tensor& grad, const at::Tensor& indices) {
  check_indices("_plane_scatter_add", grad, indices);
  TORCH_CHECK(grad.sym_sizes() == indices.sym_sizes(), "_plane_scatter_add: grad has shape ", grad.sym_sizes(),
              ", indices ", indices.sym_sizes());
}

namespace {

using at::Tensor;
using Ints = c10::IntArrayRef;
using SymInts = c10::SymIntArrayRef;

Tensor empty(SymInts sizes, const Tensor& like, const Tensor& format_of) {
  return at::empty_symint(sizes, like.options(), pool_format(format_of));
}

Tensor pooled(const char* op, const Tensor& input, const PoolWindow& window, bool ceil_mode,
              std::optional<c10::ScalarType> dtype = {}) {
  return at::empty_symint(pooled_sizes<c10::SymInt>(op, input, window, ceil_mode),
                          input.options().dtype(dtype.value_or(input.scalar_type())), pool_format(input));
}

namespace meta {

Tensor max_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation, bool ceil_mode) {
  return pooled("max_pool2d", input, {"max_pool2d", kernel_size, stride, padding, dilation}, ceil_mode);
}

std::tuple<Tensor, Tensor> max_pool2d_with_indices(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                   Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  return {pooled("max_pool2d", input, window, ceil_mode), pooled("max_pool2d", input, window, ceil_mode, c10::kLong)};
}

std::tuple<Tensor, Tensor> max_pool2d_with_position(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                    Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  return {pooled("max_pool2d", input, window, ceil_mode),
          pooled("max_pool2d", input, window, ceil_mode, position_dtype(window))};
}

Tensor max_pool2d_backward(const Tensor& grad, const Tensor& position, SymInts input_size, Ints kernel_size, Ints stride,
                           Ints padding, Ints dilation) {
  check_max_pool2d_backward(grad, position, {"max_pool2d", kernel_size, stride, padding, dilation});
  return empty(plane_sizes("max_pool2d", position, input_size), grad, position);
}

Tensor max_pool2d_pick(const Tensor& input, const Tensor& position, Ints kernel_size, Ints stride, Ints padding,
                       Ints dilation) {
  check_max_pool2d_pick(input, position, {"max_pool2d", kernel_size, stride, padding, dilation});
  return empty(position.sym_sizes(), input, position);
}

Tensor max_unpool2d(const Tensor& input, const Tensor& indices, SymInts output_size) {
  check_max_unpool2d(input, indices);
  return empty(plane_sizes("max_unpool2d", input, output_size), input, input);
}

Tensor plane_scatter_add(const Tensor& grad, const Tensor& indices, SymInts output_size) {
  check_plane_scatter_add(grad, indices);
  return empty(plane_sizes("_plane_scatter_add", indices, output_size), grad, indices);
}

Tensor plane_gather(const Tensor& input, const Tensor& indices) {
  check_plane_gather(input, indices);
  return empty(indices.sym_sizes(), input, indices);
}

Tensor avg_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                  bool count_include_pad, std::optional<int64_t> divisor_override) {
  check_divisor(divisor_override);
  return pooled("avg_pool2d", input, {"avg_pool2d", kernel_size, stride, padding}, ceil_mode);
}

Tensor& avg_pool2d_out(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                       bool count_include_pad, std::optional<int64_t> divisor_override, Tensor& out) {
  check_divisor(divisor_override);
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  prepare_pool_out("avg_pool2d", input, pooled_sizes<c10::SymInt>("avg_pool2d", input, window, ceil_mode), out);
  return out;
}

Tensor avg_pool2d_backward(const Tensor& grad, SymInts input_size, Ints kernel_size, Ints stride, Ints padding,
                           bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override,
                           bool channels_last) {
  check_divisor(divisor_override);
  PoolWindow("avg_pool2d", kernel_size, stride, padding);
  return at::empty_symint(plane_sizes("avg_pool2d", grad, input_size), grad.options(), pool_format(channels_last));
}

}  // namespace meta
}  // namespace

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const std::string max_window = "int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1";
  const std::string mean_window = "int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, "
                                  "bool count_include_pad=True, int? divisor_override=None";
  for (const std::string& schema : {
           "max_pool2d(Tensor input, " + max_window + ", bool ceil_mode=False) -> Tensor",
           "max_pool2d_with_indices(Tensor input, " + max_window + ", bool ceil_mode=False) -> (Tensor, Tensor)",
           "_max_pool2d_with_position(Tensor input, " + max_window + ", bool ceil_mode=False) -> (Tensor, Tensor)",
           "_max_pool2d_backward(Tensor grad, Tensor position, SymInt[2] input_size, " + max_window + ") -> Tensor",
           "_max_pool2d_pick(Tensor input, Tensor position, " + max_window + ") -> Tensor",
           std::string("max_unpool2d(Tensor input, Tensor indices, SymInt[2] output_size) -> Tensor"),
           std::string("_plane_scatter_add(Tensor grad, Tensor indices, SymInt[2] output_size) -> Tensor"),
           std::string("_plane_gather(Tensor input, Tensor indices) -> Tensor"),
           "avg_pool2d(Tensor input, " + mean_window + ") -> Tensor",
           "avg_pool2d.out(Tensor input, " + mean_window + ", *, Tensor(a!) out) -> Tensor(a!)",
           "_avg_pool2d_backward(Tensor grad, SymInt[2] input_size, " + mean_window +
               ", bool channels_last=False) -> Tensor",
       })
    library.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  library.impl("max_pool2d", meta::max_pool2d);
  library.impl("max_pool2d_with_indices", meta::max_pool2d_with_indices);
  library.impl("_max_pool2d_with_position", meta::max_pool2d_with_position);
  library.impl("_max_pool2d_backward", meta::max_pool2d_backward);
  library.impl("_max_pool2d_pick", meta::max_pool2d_pick);
  library.impl("max_unpool2d", meta::max_unpool2d);
  library.impl("_plane_scatter_add", meta::plane_scatter_add);
  library.impl("_plane_gather", meta::plane_gather);
  library.impl("avg_pool2d", meta::avg_pool2d);
  library.impl("avg_pool2d.out", meta::avg_pool2d_out);
  library.impl("_avg_pool2d_backward", meta::avg_pool2d_backward);
}

}  // namespace tensorops
