// Inner kernels of Winograd's convolution with square kernels of r = 2 to 5 taps and step 1 (Winograd 1980; Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308): results are made in tiles of 4 by 4 from n by n
// pixels of the image, n = r + 3, with P multiplications for each pair of channels where the sum over taps needs 16 * r * r.
//
//   forward          tile   = A' [ (G w G') * (B' image B) ] A       A: n x 4, G: n x r, B: n x n
//   weight gradient  w_grad = G' [ (A tile A') * (B' image B) ] G
//
// `*` multiplies element by element, over n * n points, and is summed over channels (over tiles for the weight gradient): a
// matrix product per point. The polynomials behind it are evaluated at 0 (but for even r), 1, -1, infinity and the other fourth
// (r = 2, 3) or sixth roots of 1. Complex points come with their conjugates, of which one suffices, and take three real products
// (Meng and Brothers, "Efficient Winograd Convolution via Integer Arithmetic", arXiv:1901.01965): P is 33, 46, 69 and 88. Roots of
// 1 magnify rounding errors by 2.3 per dimension, the best real points 3.8; sums are kept in short chains for the same reason.
//
// Images are seen in blocks of channels, a vector's worth each: a block of a pixel is a vector, so that no transform moves
// values across lanes. All sums are in f32: in f64 torch's own are so short that the direct way alone is as accurate. All
// strides count elements.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace tensorops::cpu {

constexpr int64_t kWinogradTile = 4;  // pixels of the result, in each dimension

// Pixels of one block of channels in a tensor, and the same pixels as vectors.
struct WinogradPixels {
  void* tensor = nullptr;  // storage dtype
  int64_t channel = 0, row = 0, pixel = 0;
  int64_t channels = 0;  // up to a vector's worth; the other lanes are zero, and are not stored
  int64_t rows = 0, width = 0;
  void* vectors = nullptr;  // pixel (h, w) at h * vectors_row + w * vector
  int64_t vectors_row = 0;
};

// A row of tiles of one block of channels: of the image or of the result, and at every point.
struct WinogradTiles {
  int64_t tiles = 0;
  void* pixels = nullptr;  // vectors: tile t begins at pixel kWinogradTile * t
  int64_t pixels_row = 0;
  void* points = nullptr;  // point p of tile t at p * point + t * tile
  int64_t point = 0, tile = 0;
  // Of results alone: how much of the last tiles there is, and what is added to them.
  int64_t rows = kWinogradTile, width = 0;
  const void* bias = nullptr;  // a vector, or null
};

// A vector's worth of tiles of one channel, which has few beside it: each `size` by `size` pixels from rows[lane], `row` elements
// from one row to the next, of which whole vectors are read. Tiles, not channels, lie side by side in
// vectors[(h * size + w) * vector + lane].
struct WinogradLanes {
  const void* const* rows = nullptr;
  int64_t row = 0, size = 0;
  void* vectors = nullptr;
};

// c[i, j] (+)= sum over p of a[i, p] * b[p, j], in chains of `chain` multiply-adds.
struct WinogradProduct {
  const void* a = nullptr;
  int64_t a_row = 0, a_step = 0;
  const void* b = nullptr;  // whole vectors, two of them where columns > vector
  int64_t b_step = 0;
  void* c = nullptr;  // whole vectors
  int64_t c_row = 0;
  int64_t rows = 0, columns = 0;  // columns up to two vectors
  int64_t k = 0, chain = 0;
  bool accumulate = false;
};

// Of kWinogradFewest to kWinogradFew channels, products that are made where they are needed, for one vector of out channels:
// sum over k of image[tile * image_tile + k * image_channel + point] * weights[point * weights_point + k * weights_channel + lane].
constexpr int kWinogradFewest = 3, kWinogradFew = 4;
struct WinogradFactors {
  const void* image = nullptr;
  int64_t image_tile = 0, image_channel = 0;
  const void* weights = nullptr;
  int64_t weights_point = 0, weights_channel = 0;
};

// What a kernel must not be zeros for its weights at a point not to be: its last row, its last column.
enum class WinogradNeeds : uint8_t { nothing, row, column, both };

struct WinogradTransforms {
  int64_t points;  // P
  const WinogradNeeds* needs;  // of each
  // G w G' of weights, `width` of them (one or two vectors) side by side and their channels and taps so many elements apart, to
  // `points` as [point][channel][width].
  void (*weights)(const void* packed, int64_t channels, int64_t channel, int64_t tap, int64_t width, void* points, int64_t point);
  void (*image)(const WinogradTiles&);  // B' image B
  bool (*result)(const WinogradTiles&);  // A' points A; whether all of it is finite (but for the bias)
  // The same of products of so many channels, from kWinogradFewest on.
  bool (*result_of_few[kWinogradFew - kWinogradFewest + 1])(const WinogradTiles&, const WinogradFactors&);
  void (*gradient)(const WinogradTiles&);  // A tile A'
  // G' points G of one vector of out channels: taps[tap * tap_stride + lane]. Point p at p * point. Whether all is finite.
  bool (*taps)(const void* points, int64_t point, void* taps, int64_t tap_stride);
};

// All null where the instruction set has no FMA.
struct WinogradKernels {
  WinogradTransforms transforms[4];  // r = 2, 3, 4, 5
  void (*product)(const WinogradProduct&);
  void (*lanes)(const WinogradLanes&);
  // By storage dtype, null where sums are not in f32: pixels from a tensor to vectors and back.
  void (*load[static_cast<int>(DType::count)])(const WinogradPixels&);
  void (*store[static_cast<int>(DType::count)])(const WinogradPixels&);
};

TENSOROPS_DECLARE_KERNELS(WinogradKernels, winograd_kernels)

}  // namespace tensorops::cpu
