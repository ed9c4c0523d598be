// What the ways to convolve on the CPU share: the passes, the panels of weights, the kernels for a dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/dtype.h"
#include "cpu/kernels/convolution.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/gemm.h"
#include "cpu/parallel.h"
#include "ops/convolution.h"

namespace tensorops::cpu::conv {

using at::Tensor;
using Params = ConvParams<int64_t>;

// The kernels for one compute type.
struct Kernels {
  explicit Kernels(c10::ScalarType type)
      : dtype(dtype_of(type)),
        compute(compute_type(dtype)),
        width(compute == Compute::f64 || compute == Compute::i64 ? 8 : 4),
        size(TENSOROPS_KERNELS(conv_kernels).size[static_cast<int>(compute)]),
        tile(TENSOROPS_KERNELS(conv_kernels).tile[static_cast<int>(compute)]),
        load(TENSOROPS_KERNELS(elementwise_kernels).load[static_cast<int>(dtype)][static_cast<int>(compute)]),
        store(TENSOROPS_KERNELS(elementwise_kernels).store[static_cast<int>(compute)][static_cast<int>(dtype)]),
        pack(TENSOROPS_KERNELS(gemm_kernels).pack[static_cast<int>(dtype)]),
        border(TENSOROPS_KERNELS(conv_kernels).border[static_cast<int>(dtype)]),
        pairs(dtype == DType::bf16 ? TENSOROPS_BF16_KERNELS(conv_bf16_kernels) : nullptr) {}

  DType compute_dtype() const {
    constexpr DType types[] = {DType::f32, DType::f64, DType::i32, DType::i64};
    return types[static_cast<int>(compute)];
  }

  // A tile of narrow registers: of a line of adjacent pixels it reads a part at a time, and comes back to it for the rest.
  bool low_tile() const { return size.rows <= 6; }

  DType dtype;
  Compute compute;
  int64_t width;  // bytes of a compute element
  ConvTileSize size;
  void (*tile)(const ConvTile&);
  LoadKernel load;
  StoreKernel store;
  GemmPack pack;
  std::remove_extent_t<decltype(ConvKernels::border)> border;
  const ConvBf16Kernels* pairs;  // null: products in the compute type
};

// What a product takes for elements: numbers in the compute type, or pairs of bf16, which are as wide, from neighbouring
// channels or from neighbouring images. The last of an odd number stands beside a zero.
enum class Pairs { none, channels, images };

struct Layout {
  Pairs pairs = Pairs::none;
  int64_t inner = 1;     // channels of one group
  int64_t elements = 1;  // that they become

  static Layout of_channels(int64_t inner, const Kernels& kernels) {
    if (kernels.pairs == nullptr || inner <= 1) return {Pairs::none, inner, inner};
    return {Pairs::channels, inner, divide_up(inner, 2)};
  }
  static Layout of_images(int64_t batch, const Kernels& kernels) {
    return {kernels.pairs == nullptr || batch <= 1 ? Pairs::none : Pairs::images, 1, 1};
  }
};

// Columns of a product cut into panels of one or two vectors.
struct Panels {
  Panels(int64_t columns, const ConvTileSize& size)
      : columns(columns), count(divide_up(columns, size.columns)), size(size) {}
  int64_t begin(int64_t panel) const { return panel * size.columns; }
  int64_t columns_of(int64_t panel) const { return std::min<int64_t>(size.columns, columns - begin(panel)); }
  int64_t width_of(int64_t panel) const { return columns_of(panel) > size.vector ? size.columns : size.vector; }
  // All panels of one k row, in elements.
  int64_t total() const { return (count - 1) * size.columns + width_of(count - 1); }

  int64_t columns, count;
  ConvTileSize size;
};

// A tap reads the image at (step * i + h, step * j + w) for pixel (i, j) of the result, with weights at `weight`.
struct Tap {
  int64_t h, w, weight;
};

// A convolution in the direction of the data: forward, or one phase of the input gradient.
struct DataPass {
  Tensor source;  // (batch, groups * inner, height, width)
  int64_t groups, inner, outer;
  std::vector<Tap> taps;
  int64_t step_h, step_w;
  Tensor weight;  // strides below, in elements
  int64_t weight_group, weight_outer, weight_inner;
  Tensor bias;    // (groups * outer) or undefined
  Tensor result;  // (batch, groups * outer, ., .), of which every result_step-th pixel from result_offset is written
  int64_t height, width;  // pixels written
  int64_t row_stride, pixel_stride, offset;
};

// The convolution itself.
DataPass forward_pass(const Tensor& input, const Tensor& weight, const Tensor& bias, const Params& p, const Tensor& result);

// Rows and columns of zeros around an image.
struct Border {
  int64_t top = 0, left = 0, bottom = 0, right = 0;
  bool any() const { return top > 0 || left > 0 || bottom > 0 || right > 0; }
};
Border border_of(const DataPass& pass);
// With its taps in the order in which they read the image; the input gradient's come from behind.
DataPass sorted(DataPass pass);

// Channels [channel, channel + channels) of the weights of one group and panel, as k rows of the panel's width. k runs over
// (channel, tap), or over (tap, channel) where the image's channels are adjacent.
void pack_weights(const DataPass& pass, const Kernels& kernels, const Layout& layout, int64_t group, int64_t first,
                  int64_t columns, int64_t width, int64_t channel, int64_t channels, bool channels_inside, char* to);

// Sums of a weight gradient, `row` elements from one (channel, tap) to the next in the order of the result's memory: `count`
// of them, from `first` on, for out channels [outer, outer + columns). `turned` has room for kWeightRows rows of them.
constexpr int64_t kWeightRows = 64;
void store_weight_rows(const char* from, int64_t row, int64_t outer, int64_t columns, int64_t first, int64_t count,
                       const Kernels& kernels, char* turned, const Tensor& result);

constexpr int64_t kWeightSums = 16 << 20;  // bytes of partial weight gradients

// Passes with few output channels per group would leave most lanes of a tile empty; their vectors run along the pixels
// of a row instead. Those that write the phases of one result are run together.
inline bool few_channels(int64_t channels, const Kernels& kernels) { return 2 * channels <= kernels.size.vector; }
void run_planes(const std::vector<DataPass>& passes, const Kernels& kernels);
// So do those of few terms to a sum, of many channels.
bool few_terms(const DataPass& pass, const Kernels& kernels);
// Whether few channels, of sums over several, fill at least half of the panels and lanes of the kernel with pixels in its lanes.
bool fills_pixels(const DataPass& pass, const Kernels& kernels);
void run_pixels(const DataPass& pass, const Kernels& kernels);
// Of one channel in and one out.
void plane_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                           const Border& border, const Kernels& kernels);
// Of few out channels, or few terms to a sum of the convolution; false, and nothing is done, where tiles are faster.
bool pixels_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                            const Border& border, const Kernels& kernels);

// Depthwise with adjacent channels, of image and result or its gradient.
bool by_channels(const Tensor& a, const Tensor& b, int64_t inner, int64_t outer, const Kernels& kernels);
void run_channels(const DataPass& pass, const Kernels& kernels);
void channels_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                              const Kernels& kernels);

// Winograd's way, for what it is open to and faster at. False, and nothing is done or what was done is not valid, where it is
// not, or where the result is not finite: an infinite pixel spoils its whole tile. The direct way is right for all.
//
// Channels may be four phases of as many: what the taps in odd columns of a kernel with step 2 find, those in even rows and
// columns, in odd rows, and in both, in this order. A kernel with an odd number of taps across has fewer odd ones than even ones;
// in the place of what is lacking are zeros.
enum class Phases { none, of_even_kernel, of_odd_kernel };
bool winograd(const DataPass& pass, const Kernels& kernels, Phases phases = Phases::none);
bool winograd_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                              const Tensor& result, Phases phases = Phases::none);
// Whether it is faster, for a square kernel of so many taps across.
struct WinogradSize {
  int64_t taps, batch, height, width, inner, outer;
  Phases phases = Phases::none;

  // Of a sum, as the direct way has them.
  int64_t terms() const {
    const int64_t odd = 2 * taps - 1;
    return phases == Phases::of_odd_kernel ? inner / 4 * odd * odd : inner * taps * taps;
  }
};
bool winograd_pays(const WinogradSize& size, const Kernels& kernels);
bool winograd_gradient_pays(const WinogradSize& size, const Kernels& kernels);

// Where half of all taps find nothing but the border, torch's sums have as few terms, while Winograd's transforms round as ever.
inline bool mostly_border(const Tensor& image, int64_t height, int64_t width) {
  return 2 * image.size(2) * image.size(3) < height * width;
}

// Kernels of 4 by 4 and more with step 2 as ones of half the size with step 1, if Winograd's way is faster for these. False as
// there.
bool strided(const Tensor& input, const Tensor& weight, const Tensor& bias, const Params& p, const Kernels& kernels,
             const Tensor& result);
bool strided_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                             const Tensor& result);

// A kernel of one tap as a matrix product; false, and nothing is done, where it is not one or the tiles of convolution are
// faster.
bool pointwise(const DataPass& pass, const Kernels& kernels);
bool pointwise_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                               const Tensor& result);

}  // namespace tensorops::cpu::conv
