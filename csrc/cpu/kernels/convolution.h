// Inner kernels of convolution: a tile of a matrix product whose left operand is addressed through two tables of
// offsets, so that nothing is unfolded (no im2col). Forward, input gradient and weight gradient are all this one
// product:
//
//   out[r, j] = init[r, j] + sum over p of x[rows[r] + steps[p].x] * b[steps[p].b, j]
//
//   forward          r: output pixels        p: (channel, tap)          b: weights
//   input gradient   r: input pixels         p: (out channel, tap)      b: weights
//   weight gradient  r: (channel, tap)       p: output pixels           b: output gradient
//
// Each element is chains of 64 multiply-adds in the order of p, added up: the rounding error grows with the square root
// of 64 + k / 64, not of k, and the way work is cut into tiles never shows in a result. Chains of pairs of bf16 are longer.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/ahead.h"
#include "cpu/kernels/dtype.h"

namespace tensorops::cpu {

// Of numbers and of pairs of bf16.
constexpr int64_t kConvChain = 64, kConvPairsChain = 4 * kConvChain;

struct ConvStep {
  int64_t x;  // element offset
  int64_t b;  // row
};

struct ConvTile {
  const void* x = nullptr;         // of the compute type
  const int64_t* rows = nullptr;   // element offsets
  int64_t row_count = 0;           // 1 to ConvTileSize::rows (single_rows where it applies)
  bool adjacent = false;           // rows[r] == rows[0] + r
  const ConvStep* steps = nullptr;
  int64_t k = 0;               // of them
  const void* b = nullptr;     // panels of columns, each with rows of one or two vectors of the compute type
  int64_t b_column = 0;        // elements of b for each column, all rows of all panels alike
  int64_t columns = 0;         // in panels of ConvTileSize::columns; the last one's rows are one vector if that is enough,
                               // any numbers past `columns`
  const void* init = nullptr;  // compute type, as wide as b's rows; null for zeros
  int64_t init_row = 0;        // 0 to give all rows the same (a bias)
  void* out = nullptr;
  DType out_type = DType::f32;
  const int64_t* out_rows = nullptr;  // element offsets
  int64_t out_step = 0;               // out_rows[r] == out_rows[0] + r * out_step, or 0: they lie anywhere
  int64_t out_column = 1;
  FetchAhead* ahead = nullptr;  // once in every chain
};

struct ConvTileSize {
  int rows;         // of a tile wider than one vector, or of any tile that is not adjacent
  int single_rows;  // of an adjacent tile one vector wide
  int columns, vector;
};

// Few output channels (depthwise above all): vectors run along pixels instead. A rectangle of a few output channels:
//
//   out[c, i, j] = bias[c] + sum over p of weight[c * weight_row + p] * x[i * x_row + steps[p] + j * step]
//
// x may be read up to one vector past the last column; but with masks, it is read where these have ones alone.
struct ConvPlane {
  const void* x = nullptr;  // this and the rest of the compute type
  int64_t x_row = 0;
  const int64_t* steps = nullptr;
  // Null, or masks[v * masks_vector + p]: the lanes of vector v of what a row of pixels reads, `step` columns apart, that find
  // the image at tap p; the others are zeros.
  const uint16_t* masks = nullptr;
  int64_t masks_vector = 0;
  int step = 1;  // or 2, of rows as well: for the stencil kernel with masks and 3 rows of taps
  const void* weight = nullptr;
  int64_t weight_row = 0;
  int64_t k = 0;
  const void* bias = nullptr;  // or null
  void* out = nullptr;
  int64_t out_channel = 0, out_row = 0;
  int64_t channels = 0;
  int64_t height = 0, width = 0;
  // For the stencil kernel: taps in rows x_row / step apart, and the rows of x, as the first tap finds them, that are image;
  // looked at where there are masks.
  int tap_rows = 0;
  int64_t x_begin = 0, x_end = 0;
};
constexpr int64_t kStencilTaps = 64;

// Few terms to a sum: vectors run along pixels too, of many output channels, whose weights are broadcast. A tile of
// ConvTile's kind would be transposed for as long as it is summed. For each vector v of pixels:
//
//   out[c * out_channel + v.out + l] = bias[c] + sum over p of weight[c / panel][p][c % panel] * x[v.x + steps[p] + l]
//
// in panels of ConvKernels::pixel_channels[p.panel] channels, the last of which is filled with zeros. x is read as far as whole
// vectors reach.
struct ConvVector {
  int64_t x, out;  // element offsets
  int64_t lanes;   // that exist
};

constexpr int kPixelPanels = 3;  // sizes of them, the largest first

struct ConvPixels {
  const void* x = nullptr;  // this and the rest of the compute type
  const ConvVector* vectors = nullptr;
  int64_t vector_count = 0;
  const int64_t* steps = nullptr;
  int64_t k = 0;
  int panel = 0;
  const void* weight = nullptr;
  int64_t weight_panel = 0;    // elements from one panel to the next
  const void* bias = nullptr;  // of whole panels
  void* out = nullptr;
  int64_t out_channel = 0;
  int64_t channels = 0;
};

constexpr int kMaskedTaps = 3;

// What weight gradients over rows of adjacent pixels have in common: taps of an image, and a gradient.
struct ConvRowsGradient {
  const void* x = nullptr;
  int64_t x_row = 0;
  const int64_t* steps = nullptr;
  int64_t k = 0;
  const void* grad = nullptr;
  int64_t grad_row = 0;
  int64_t height = 0, width = 0;
  void* sums = nullptr;
};

// Of a depthwise convolution: sums[p] += sum over i, j of grad[i, j] * x[i * x_row + steps[p] + j * step].
struct ConvPlaneGradient : ConvRowsGradient {
  // For the kernel with masks, of rows of kMaskedTaps: x is the image itself, and what lies beside it is not read.
  const uint16_t* masks = nullptr;                 // [vector of what a row reads][tap of a row]: the lanes that find the image
  int step = 1;                                    // columns from one pixel to the next: 1 or 2
  int64_t image_row = 0;                           // x_row is a multiple of it
  const int64_t *begin = nullptr, *end = nullptr;  // by row of taps, the rows of the gradient from which it does
};

// Of one channel of the image and several of the gradient: for each lane l of a vector, sums[(o * k + p) * lanes + l] += sum over i
// and the j that l meets of grad[o * grad_channel + i * grad_row + j] * x[i * x_row + steps[p] + j].
struct ConvPixelsGradient : ConvRowsGradient {
  int64_t grad_channel = 0, channels = 0;
};

// Depthwise with adjacent channels: vectors run along those, and images are read where they lie. For a run of pixels
// that the same taps reach, each as many channels:
//
//   out[j, c] = bias[c] + sum over p of weight[weight_rows[p] * channels + c] * x[steps[p] + j * x_pixel + c]
struct ConvChannels {
  const void* x = nullptr;  // storage dtype
  int64_t x_pixel = 0;
  const int64_t* steps = nullptr;
  const int64_t* weight_rows = nullptr;
  int64_t k = 0;
  const void* weight = nullptr;  // this and the bias, which may be null, of the compute type
  const void* bias = nullptr;
  void* out = nullptr;  // storage dtype
  int64_t out_pixel = 0;
  int64_t pixels = 0, channels = 0;
  // Rows of the image that are read next, fetched meanwhile.
  const void* ahead = nullptr;
  int64_t ahead_stride = 0, ahead_row = 0, ahead_rows = 0;  // the first two in bytes
};

// And its weight gradient: sums[weight_rows[p] * sums_row + c] += sum over j of grad[j * grad_pixel + c] * x[...].
struct ConvChannelsGradient {
  const void* x = nullptr;  // this and grad of the storage dtype
  int64_t x_pixel = 0;
  const int64_t* steps = nullptr;
  const int64_t* weight_rows = nullptr;
  int64_t k = 0;
  const void* grad = nullptr;
  int64_t grad_pixel = 0;
  int64_t pixels = 0, channels = 0;
  // Rows of x below the last tap's, `ahead_row` elements apart, that are fetched meanwhile, and if any grad's next row.
  int64_t ahead_rows = 0, ahead_row = 0, grad_row = 0;
  void* sums = nullptr;  // compute type
  int64_t sums_row = 0;
};

struct ConvKernels {
  ConvTileSize size[static_cast<int>(Compute::count)];
  void (*tile[static_cast<int>(Compute::count)])(const ConvTile&);
  void (*plane[static_cast<int>(Compute::count)])(const ConvPlane&);
  // Vectors of a row up to which it is to be given masks: a copy of the image with its border costs more. None: not at all.
  int masked_vectors[static_cast<int>(Compute::count)];
  // The same of one channel with 3, 5 or 7 rows of taps, at most kStencilTaps in all: a row of the image that is in
  // registers goes into the sums of all rows that it belongs to. To be given masks whatever a row's length, if at all. Null for
  // integers.
  void (*stencil[static_cast<int>(Compute::count)])(const ConvPlane&);
  int pixel_channels[kPixelPanels];
  void (*pixels[static_cast<int>(Compute::count)])(const ConvPixels&);  // null for integers
  void (*pixels_gradient[static_cast<int>(Compute::count)])(const ConvPixelsGradient&);  // null for integers
  void (*plane_gradient[static_cast<int>(Compute::count)])(const ConvPlaneGradient&);
  void (*masked_plane_gradient[static_cast<int>(Compute::count)])(const ConvPlaneGradient&);  // null where masks are not taken
  // By storage dtype; null for integers.
  void (*channels[static_cast<int>(DType::count)])(const ConvChannels&);
  void (*channels_gradient[static_cast<int>(DType::count)])(const ConvChannelsGradient&);
  // Rows of n adjacent elements, from a storage dtype to its compute type, between `left` and `right` zeros.
  void (*border[static_cast<int>(DType::count)])(const void* from, int64_t from_row, int64_t rows, int64_t n,
                                                 int64_t left, int64_t right, void* to, int64_t to_row);
  // A row of n elements of the compute type between `left` zeros and as many as it takes, dealt out to `step` rows of `length`
  // elements: to[i % step * distance + i / step] is element i.
  void (*split[static_cast<int>(Compute::count)])(const void* row, int64_t n, int64_t left, int64_t step, void* to,
                                                  int64_t length, int64_t distance);
  // Of the compute type: *sum (f64 for f32) += the sum of n adjacent elements; sums[i] += each of `count` rows' element
  // i < n.
  void (*sum_run[static_cast<int>(Compute::count)])(const void* from, int64_t n, void* sum);
  void (*add_rows[static_cast<int>(Compute::count)])(const void* from, int64_t row_stride, int64_t count, int64_t n,
                                                     void* sums);
};

TENSOROPS_DECLARE_KERNELS(ConvKernels, conv_kernels)

// Products of bf16 by the instruction that adds two of them to a sum in f32: x and b have pairs of bf16 for elements, all
// else, the size of a tile too, is as for f32 under AVX-512. A null `second` is zeros.
struct ConvBf16Kernels {
  void (*tile)(const ConvTile&);
  // One panel: to[p * width + l] is element l * lane_stride + p * step_stride of `first` and of `second`, side by side.
  void (*pack)(const void* first, const void* second, int64_t lane_stride, int64_t step_stride, int64_t lanes,
               int64_t steps, int width, void* to);
  // n adjacent pairs of the elements, `stride` apart, of two rows.
  void (*pair_rows)(const void* first, const void* second, int64_t stride, int64_t n, void* to);
};

TENSOROPS_DECLARE_BF16_KERNELS(ConvBf16Kernels, conv_bf16_kernels)

}  // namespace tensorops::cpu
