// Convolution on the CPU: three passes over one inner kernel (kernels/convolution.h), a product of tiles that reads the
// image through tables of offsets.
//
// Workspace, beside the result: the weights once more, packed; what a thread works on of the image, with its zero
// border and in the compute type (kStaged, or one image where that is larger; nothing when there is no border and no
// conversion); for the weight gradient, sums of at most kSums or one weight tensor.
#include "cpu/convolution.h"

#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {

namespace conv {

void pack_weights(const DataPass& pass, const Kernels& kernels, const Layout& layout, int64_t group, int64_t first,
                  int64_t columns, int64_t width, int64_t channel, int64_t channels, bool channels_inside, char* to) {
  const auto element = static_cast<int64_t>(pass.weight.element_size());
  const char* from = static_cast<const char*>(pass.weight.const_data_ptr()) +
                     (group * pass.weight_group + first * pass.weight_outer + channel * pass.weight_inner) * element;
  const auto pack = [&](int64_t at, int64_t step, int64_t k) {
    kernels.pack(from + at * element, pass.weight_outer, step, columns, k, static_cast<int>(width), to);
    to += k * width * kernels.width;
  };
  // The weights at `at` beside those of the next channel, if there is one.
  const auto pack_pairs = [&](int64_t at, bool next, int64_t step, int64_t k) {
    const char* const here = from + at * element;
    kernels.pairs->pack(here, next ? here + pass.weight_inner * element : nullptr, pass.weight_outer, step, columns, k,
                        static_cast<int>(width), to);
    to += k * width * kernels.width;
  };
  const auto taps = static_cast<int64_t>(pass.taps.size());
  if (taps == 0) return;
  if (channels_inside) {
    for (const Tap& tap : pass.taps) {
      if (layout.pairs == Pairs::channels) pack_pairs(tap.weight, true, 2 * pass.weight_inner, divide_up(channels, 2));
      else pack(tap.weight, pass.weight_inner, channels);
    }
    return;
  }
  const int64_t spacing = taps > 1 ? pass.taps[1].weight - pass.taps[0].weight : 1;
  bool even = true;
  for (int64_t t = 0; t < taps; ++t) even &= pass.taps[t].weight == pass.taps[0].weight + t * spacing;
  if (layout.pairs == Pairs::channels) {
    for (int64_t c = 0; c < channels; c += 2) {
      const int64_t at = c * pass.weight_inner;
      const bool next = c + 1 < channels;
      if (even) {
        pack_pairs(at + pass.taps[0].weight, next, spacing, taps);
      } else {
        for (const Tap& tap : pass.taps) pack_pairs(at + tap.weight, next, 1, 1);
      }
    }
    return;
  }
  if (even && pass.weight_inner == taps * spacing) return pack(pass.taps[0].weight, spacing, channels * taps);
  for (int64_t c = 0; c < channels; ++c) {
    if (even) {
      pack(c * pass.weight_inner + pass.taps[0].weight, spacing, taps);
    } else {
      for (const Tap& tap : pass.taps) pack(c * pass.weight_inner + tap.weight, 1, 1);
    }
  }
}

void store_weight_rows(const char* from, int64_t row, int64_t outer, int64_t columns, int64_t first, int64_t count,
                       const Kernels& kernels, char* turned, const Tensor& result) {
  const GemmPack transpose = TENSOROPS_KERNELS(gemm_kernels).pack[static_cast<int>(kernels.compute_dtype())];
  const auto element = static_cast<int64_t>(result.element_size());
  const int64_t rows = result.numel() / result.size(0);
  char* to = static_cast<char*>(result.data_ptr()) + (outer * rows + first) * element;
  transpose(from, row, 1, count, columns, kWeightRows, turned);
  for (int64_t column = 0; column < columns; ++column, to += rows * element)
    kernels.store(turned + column * kWeightRows * kernels.width, to, element, count);
}

}  // namespace conv

namespace {

using namespace conv;
using ops::OptionalTensor;

constexpr int64_t kStaged = 1 << 20;   // bytes of bordered images per thread
constexpr int64_t kSums = 16 << 20;    // bytes of partial weight gradients
constexpr int64_t kBlockPixels = 256;  // pixels that one task takes through one panel of weights
constexpr int64_t kRowsTogether = 8;   // rows of pixels whose sums are kept apart from the total
constexpr int64_t kFar = 16 << 20;     // bytes read and written that a core's share of the last cache does not hold
constexpr int64_t kPanelsTogether = 64 << 10;  // bytes of weights that come from the second cache for every tile
constexpr int64_t kMostRows = 32;      // of any ConvTileSize

struct Border {
  int64_t top = 0, left = 0, bottom = 0, right = 0;
  bool any() const { return top > 0 || left > 0 || bottom > 0 || right > 0; }
};

// A batch of images as the inner kernel wants them: in the compute type or in pairs, with a border of zeros. Images that
// already are so are used where they lie; the others are copied, a few at a time.
class Images {
 public:
  // `spread`: pixels whose distance would bring a tile's rows into the same few sets of the first cache are set further apart.
  // `turn`: images whose channels are planes are copied with adjacent channels.
  Images(const Tensor& t, const Border& border, const Kernels& kernels, const Layout& layout, bool spread, bool turn)
      : source_(t),
        border_(border),
        kernels_(kernels),
        layout_(layout),
        element_(static_cast<int64_t>(t.element_size())),
        channels_(layout.pairs == Pairs::channels ? t.size(1) / layout.inner * layout.elements : t.size(1)) {
    height_ = t.size(2) + border.top + border.bottom;
    width_ = t.size(3) + border.left + border.right;
    // Adjacent channels are pairs as they lie, but for an odd number of them.
    channels_last_ = t.stride(1) == 1 && channels_ > 1 && t.stride(3) != 1 &&
                     (layout.pairs != Pairs::channels || layout.inner % 2 == 0);
    turned_ = turn && !channels_last_ && channels_ > 1 && t.stride(3) == 1 && layout.pairs == Pairs::none;
    channels_last_ |= turned_;
    const bool conflict = spread && channels_last_ && channels_ * kernels.width % kCacheWay == 0;
    in_place_ = !border.any() && is_compute_type(kernels.dtype, kernels.compute) && !conflict && !turned_;
    if (in_place_) {
      image_ = t.stride(0), channel = t.stride(1), row = t.stride(2), pixel = t.stride(3);
      return;
    }
    channel = channels_last_ ? 1 : height_ * width_;
    pixel = !channels_last_ ? 1 : conflict ? channels_ + kCacheLine / kernels.width : channels_;
    row = width_ * pixel;
    image_ = channels_last_ ? height_ * row : channels_ * channel;
  }

  bool in_place() const { return in_place_; }
  // Bytes of a copy of one image.
  int64_t bytes() const { return image_ * kernels_.width; }
  // Work items that a copy of one image is made of, and one such item.
  int64_t items() const { return channels_last_ ? height_ : channels_; }
  int64_t item_cost() const { return channels_last_ ? row : channel; }
  void copy(int64_t n, int64_t item, char* image) const {
    if (channels_last_)
      copy_row(n, item, image + item * row * kernels_.width);
    else
      copy_channel(n, item, image + item * channel * kernels_.width);
  }
  const char* original(int64_t n) const {
    return static_cast<const char*>(source_.const_data_ptr()) + n * source_.stride(0) * element_;
  }

  // Strides in elements (pairs, where channels are paired), of the originals or of the copies.
  int64_t channel, row, pixel;

 private:
  const char* at(int64_t n, int64_t c, int64_t h) const {
    return original(n) + (c * source_.stride(1) + h * source_.stride(2)) * element_;
  }
  void copy_channel(int64_t n, int64_t c, char* to) const {
    const int64_t line = width_ * kernels_.width, left = border_.left * kernels_.width;
    const int64_t right = border_.right * kernels_.width, w = source_.size(3);
    std::memset(to, 0, border_.top * line);
    to += border_.top * line;
    if (layout_.pairs != Pairs::none) {
      const bool images = layout_.pairs == Pairs::images;
      const int64_t inside = c % layout_.elements * 2, first = c / layout_.elements * layout_.inner + inside;
      const bool second = images ? n + 1 < source_.size(0) : inside + 1 < layout_.inner;
      for (int64_t h = 0; h < source_.size(2); ++h, to += line) {
        std::memset(to, 0, left);
        kernels_.pairs->pair_rows(at(n, first, h), !second ? nullptr : images ? at(n + 1, first, h) : at(n, first + 1, h),
                                  source_.stride(3), w, to + left);
        std::memset(to + line - right, 0, right);
      }
      std::memset(to, 0, border_.bottom * line);
      return;
    }
    if (source_.stride(3) == 1) {
      kernels_.border(at(n, c, 0), source_.stride(2), source_.size(2), w, border_.left, border_.right, to, width_);
      std::memset(to + source_.size(2) * line, 0, border_.bottom * line);
      return;
    }
    for (int64_t h = 0; h < source_.size(2); ++h, to += line) {
      std::memset(to, 0, left);
      kernels_.load(at(n, c, h), source_.stride(3) * element_, to + left, w);
      std::memset(to + line - right, 0, right);
    }
    std::memset(to, 0, border_.bottom * line);
  }
  void copy_row(int64_t n, int64_t item, char* to) const {
    const int64_t h = item - border_.top, channels = source_.size(1);
    if (h < 0 || h >= source_.size(2)) {
      std::memset(to, 0, row * kernels_.width);
      return;
    }
    const int64_t left = border_.left * pixel * kernels_.width, right = border_.right * pixel * kernels_.width;
    const char* from = at(n, 0, h);
    std::memset(to, 0, left);
    if (turned_) {
      kernels_.pack(from, source_.stride(1), 1, channels, source_.size(3), static_cast<int>(pixel), to + left);
    } else if (layout_.pairs == Pairs::images) {
      const bool second = n + 1 < source_.size(0);
      const bool dense = source_.stride(3) == channels;
      const int64_t runs = dense ? 1 : source_.size(3), run = dense ? source_.size(3) * channels : channels;
      for (int64_t i = 0; i < runs; ++i) {
        const int64_t skip = i * source_.stride(3) * element_;
        kernels_.pairs->pair_rows(from + skip, second ? at(n + 1, 0, h) + skip : nullptr, 1, run,
                                  to + left + i * run * kernels_.width);
      }
    } else if (layout_.pairs == Pairs::channels) {
      const int64_t bytes = channels * element_;
      if (source_.stride(3) == channels && pixel == channels_) {
        std::memcpy(to + left, from, source_.size(3) * bytes);
      } else {
        for (int64_t w = 0; w < source_.size(3); ++w)
          std::memcpy(to + left + w * pixel * kernels_.width, from + w * source_.stride(3) * element_, bytes);
      }
    } else if (source_.stride(3) == channels && pixel == channels_) {
      kernels_.load(from, element_, to + left, source_.size(3) * channels);
    } else {
      for (int64_t w = 0; w < source_.size(3); ++w)
        kernels_.load(from + w * source_.stride(3) * element_, element_, to + left + w * pixel * kernels_.width,
                      channels);
    }
    std::memset(to + row * kernels_.width - right, 0, right);
  }

  const Tensor& source_;
  const Border border_;
  const Kernels& kernels_;
  const Layout layout_;
  const int64_t element_, channels_;
  int64_t height_, width_, image_;
  bool in_place_, channels_last_, turned_;
};

Border border_of(const DataPass& pass) {
  Border border;
  for (const Tap& tap : pass.taps) {
    border.top = std::max(border.top, -tap.h);
    border.left = std::max(border.left, -tap.w);
    border.bottom = std::max(border.bottom, (pass.height - 1) * pass.step_h + tap.h - (pass.source.size(2) - 1));
    border.right = std::max(border.right, (pass.width - 1) * pass.step_w + tap.w - (pass.source.size(3) - 1));
  }
  return border;
}

// Rows of pixels, or single pixels, in the order of the result; the tables of offsets that a tile needs.
class DataTiles {
 public:
  DataTiles(const DataPass& pass, const Border& border, const Images& images, const Kernels& kernels, const Layout& layout,
            bool channels_inside)
      : pass_(pass),
        images_(images),
        kernels_(kernels),
        tile_kernel_(layout.pairs == Pairs::channels ? kernels.pairs->tile : kernels.tile) {
    const int64_t pixels = pass.height * pass.width, most = kernels.size.rows;
    const int64_t row_tile = pass.width / divide_up(pass.width, most);
    // Tiles of adjacent pixels stay inside a row of the image; where rows are too short for that, tiles cross them. Inside
    // a row they can leave out the taps that find nothing but the border there, which is worth somewhat shorter tiles.
    const bool skips = row_tile * 2 >= most && reached_rows() < 0.97 * static_cast<double>(pass.height * taps());
    adjacent_ = images.pixel * pass.step_w == 1 && (skips || row_tile * 3 >= most * 2);
    in_rows_ = adjacent_ || skips;
    per_block_ = in_rows_ ? std::max<int64_t>(1, kBlockPixels / pass.width) * pass.width : kBlockPixels;
    blocks = divide_up(pixels, per_block_);
    out_adjacent_ = pass.pixel_stride == 1 && (in_rows_ || pass.row_stride == pass.width);
    if (in_rows_) {
      from_row_.resize(pass.width), to_row_.resize(pass.width);
      offsets(0, pass.width, from_row_.data(), to_row_.data());
    }

    std::vector<std::vector<bool>> seen;
    for (int64_t i = 0; i < pass.height; ++i) {
      std::vector<bool> reached(taps(), true);
      for (int64_t t = 0; skips && t < taps(); ++t) reached[t] = reaches(i, pass.taps[t]);
      if (seen.empty() || seen.back() != reached) {
        first_row_.push_back(i);
        seen.push_back(reached);
      }
    }
    for (const auto& reached : seen) {
      std::vector<ConvStep> table;
      table.reserve(layout.elements * taps());
      const auto add = [&](int64_t t, int64_t c) {
        if (!reached[t]) return;
        const Tap& tap = pass.taps[t];
        table.push_back({(tap.h + border.top) * images.row + (tap.w + border.left) * images.pixel + c * images.channel,
                         channels_inside ? t * layout.elements + c : c * taps() + t});
      };
      if (channels_inside) {
        for (int64_t t = 0; t < taps(); ++t)
          for (int64_t c = 0; c < layout.elements; ++c) add(t, c);
      } else {
        for (int64_t c = 0; c < layout.elements; ++c)
          for (int64_t t = 0; t < taps(); ++t) add(t, c);
      }
      steps_.push_back(std::move(table));
    }
  }

  int64_t block_pixels() const { return std::min(per_block_, pass_.height * pass_.width); }

  // One block of pixels; `tile` says all but the rows and the steps.
  void run(int64_t block, ConvTile tile) const {
    const bool single = adjacent_ && tile.columns <= kernels_.size.vector;
    const int64_t most = single ? kernels_.size.single_rows : kernels_.size.rows;
    const int64_t begin = block * per_block_, end = std::min(begin + per_block_, pass_.height * pass_.width);
    const int64_t span = in_rows_ ? pass_.width : end - begin;
    const int64_t tiles = divide_up(span, most), rows = span / tiles, higher = span % tiles;
    tile.adjacent = adjacent_;
    tile.out_adjacent = out_adjacent_;
    const char* const x = static_cast<const char*>(tile.x);
    char* const out = static_cast<char*>(tile.out);
    int64_t from[kBlockPixels], to[kBlockPixels];
    if (!in_rows_) offsets(begin, end, from, to);
    for (int64_t start = begin; start < end; start += span) {
      const int64_t i = start / pass_.width;
      const auto alike = std::upper_bound(first_row_.begin(), first_row_.end(), i) - first_row_.begin() - 1;
      tile.steps = steps_[alike].data();
      tile.k = static_cast<int64_t>(steps_[alike].size());
      if (in_rows_) {
        // As in the first row, moved.
        tile.rows = from_row_.data(), tile.out_rows = to_row_.data();
        tile.x = x + i * pass_.step_h * images_.row * kernels_.width;
        tile.out = out + i * pass_.row_stride * static_cast<int64_t>(pass_.result.element_size());
      } else {
        tile.rows = from, tile.out_rows = to;
      }
      for (int64_t t = 0; t < tiles; ++t, tile.rows += tile.row_count, tile.out_rows += tile.row_count) {
        tile.row_count = rows + (t < higher);
        tile_kernel_(tile);
      }
    }
  }

  int64_t blocks;

 private:
  int64_t taps() const { return static_cast<int64_t>(pass_.taps.size()); }
  // Whether a tap finds the image, not its border, from row i of the result.
  bool reaches(int64_t i, const Tap& tap) const {
    const int64_t h = i * pass_.step_h + tap.h;
    return h >= 0 && h < pass_.source.size(2);
  }
  // Where pixels [begin, end) are found and where they go, in elements.
  void offsets(int64_t begin, int64_t end, int64_t* from, int64_t* to) const {
    const int64_t pixel = pass_.step_w * images_.pixel;
    int64_t i = begin / pass_.width, j = begin % pass_.width;
    for (int64_t p = begin; p < end; ++i, j = 0) {
      int64_t at = i * pass_.step_h * images_.row + j * pixel, out = i * pass_.row_stride + j * pass_.pixel_stride;
      for (const int64_t last = std::min(end, p + pass_.width - j); p < last; ++p, at += pixel, out += pass_.pixel_stride)
        *from++ = at, *to++ = out;
    }
  }
  // Pairs of a row of the result and a tap that reaches the image from there.
  double reached_rows() const {
    int64_t count = 0;
    for (int64_t i = 0; i < pass_.height; ++i)
      for (const Tap& tap : pass_.taps) count += reaches(i, tap);
    return static_cast<double>(count);
  }

  const DataPass& pass_;
  const Images& images_;
  const Kernels& kernels_;
  void (*const tile_kernel_)(const ConvTile&);
  bool adjacent_, in_rows_, out_adjacent_;
  int64_t per_block_;
  std::vector<int64_t> from_row_, to_row_;  // offsets of the first row
  // Runs of the result's rows from which the same taps reach the image: where each begins, and its steps.
  std::vector<int64_t> first_row_;
  std::vector<std::vector<ConvStep>> steps_;
};

// A few planes of one image with a border of zeros, in the compute type; for a step of s across, each row's columns are
// dealt out to s sub-rows, so that what neighbouring output pixels read is adjacent.
class Planes {
 public:
  Planes(const Tensor& t, const Border& border, int64_t step, const Kernels& kernels)
      : source_(static_cast<const char*>(t.const_data_ptr())),
        element_(static_cast<int64_t>(t.element_size())),
        image_stride_(t.stride(0) * element_),
        channel_stride_(t.stride(1) * element_),
        row_stride_(t.stride(2)),
        pixel_stride_(t.stride(3)),
        height_(t.size(2)),
        inside_(t.size(3)),
        border_(border),
        step_(step),
        kernels_(kernels),
        split_(TENSOROPS_KERNELS(conv_kernels).split[static_cast<int>(kernels.compute)]),
        as_it_is_(pixel_stride_ == 1 && is_compute_type(kernels.dtype, kernels.compute)),
        part_(divide_up(inside_ + border.left + border.right, step)) {
    row = step * part_;
  }

  // Elements that `rows` rows take, with room for a vector read past the end.
  int64_t elements(int64_t rows) const { return rows * row + kernels_.size.vector; }
  // Where column w of the bordered image is.
  int64_t column(int64_t w) const { return w % step_ * part_ + w / step_; }

  // Rows [begin, begin + rows) of the bordered image; `line` has room for line_bytes().
  void copy(int64_t n, int64_t c, int64_t begin, int64_t rows, char* to, char* line) const {
    const int64_t width = kernels_.width;
    const int64_t first = std::clamp<int64_t>(begin - border_.top, 0, height_);
    const int64_t last = std::clamp<int64_t>(begin - border_.top + rows, 0, height_);
    const int64_t above = std::clamp<int64_t>(border_.top - begin, 0, rows), below = rows - above - (last - first);
    const char* from = source_ + n * image_stride_ + c * channel_stride_ + first * row_stride_ * element_;
    std::memset(to, 0, above * row * width);
    to += above * row * width;
    if (step_ == 1 && pixel_stride_ == 1) {
      kernels_.border(from, row_stride_, last - first, inside_, border_.left, border_.right, to, row);
      to += (last - first) * row * width;
    } else {
      for (int64_t h = first; h < last; ++h, from += row_stride_ * element_, to += row * width) {
        if (!as_it_is_) kernels_.load(from, pixel_stride_ * element_, line, inside_);
        split_(as_it_is_ ? from : line, inside_, border_.left, step_, to, part_);
      }
    }
    std::memset(to, 0, (below * row + kernels_.size.vector) * width);
  }
  int64_t line_bytes() const { return as_it_is_ ? 0 : inside_ * kernels_.width; }

  int64_t row;  // elements from one row to the next

 private:
  const char* const source_;
  const int64_t element_, image_stride_, channel_stride_;  // the latter in bytes
  const int64_t row_stride_, pixel_stride_, height_, inside_;
  const Border border_;
  const int64_t step_;
  const Kernels& kernels_;
  void (*const split_)(const void*, int64_t, int64_t, int64_t, void*, int64_t);
  const bool as_it_is_;  // a row needs no conversion
  const int64_t part_;
};

// Passes with few output channels per group would leave most lanes of a tile empty; their vectors run along the pixels
// of a row instead.
bool few_channels(int64_t channels, const Kernels& kernels) { return 2 * channels <= kernels.size.vector; }

constexpr int64_t kPlaneBytes =
    256 << 10;  // of bordered rows that a task works on, or one row's taps where that is more

// Each group: its weights, which pack(group, where they go) puts there, then its biases, zeros where there are none.
template <class F>
void pack_groups(const DataPass& pass, const Kernels& kernels, int64_t group_weights, int64_t group_biases, char* to,
                 F pack) {
  const int64_t width = kernels.width, group_bytes = (group_weights + group_biases) * width;
  parallel(pass.groups, (group_weights + group_biases) * 4, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      char* const at = to + group * group_bytes;
      pack(group, at);
      char* const bias = at + group_weights * width;
      std::memset(bias, 0, group_biases * width);
      if (!pass.bias.defined()) continue;
      const int64_t stride = pass.bias.stride(0) * static_cast<int64_t>(pass.bias.element_size());
      kernels.load(static_cast<const char*>(pass.bias.const_data_ptr()) + group * pass.outer * stride, stride, bias,
                   pass.outer);
    }
  });
}

// With its taps in the order in which they read the image; the input gradient's come from behind.
DataPass sorted(DataPass pass) {
  std::sort(pass.taps.begin(), pass.taps.end(),
            [](const Tap& a, const Tap& b) { return std::pair(a.h, a.w) < std::pair(b.h, b.w); });
  return pass;
}

// A run of the result's rows from which the same taps reach the image.
struct AlikeRows {
  int64_t first, rows, tap, taps;
};

// Of sorted taps, those that reach the image follow one another.
std::vector<AlikeRows> alike_rows(const DataPass& pass) {
  std::vector<AlikeRows> runs;
  const auto taps = static_cast<int64_t>(pass.taps.size());
  for (int64_t i = 0; i < pass.height; ++i) {
    int64_t first = 0, count = 0;
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t h = i * pass.step_h + pass.taps[t].h;
      if (h < 0 || h >= pass.source.size(2)) continue;
      if (count++ == 0) first = t;
    }
    if (!runs.empty() && runs.back().tap == first && runs.back().taps == count) ++runs.back().rows;
    else runs.push_back({i, 1, first, count});
  }
  return runs;
}

// How many rows a kernel has, if its taps are rows right below each other of the same columns; else 0.
int64_t stacked_rows(const std::vector<Tap>& taps) {
  size_t columns = 0;
  while (columns < taps.size() && taps[columns].h == taps[0].h) ++columns;
  for (size_t t = columns; t < taps.size(); ++t)
    if (taps[t].h != taps[t - columns].h + 1 || taps[t].w != taps[t - columns].w) return 0;
  return columns == 0 ? 0 : static_cast<int64_t>(taps.size() / columns);
}

// Of `lanes` lanes that read a row of an image from column w on, those that find it.
uint16_t lanes_inside(int64_t w, int64_t lanes, int64_t width) {
  const int64_t first = std::clamp<int64_t>(-w, 0, lanes), last = std::clamp<int64_t>(width - w, first, lanes);
  return static_cast<uint16_t>((1u << last) - (1u << first));
}

// A pass over planes, in blocks of the rows of one image and group.
class PlanePass {
 public:
  PlanePass(const DataPass& pass, const Kernels& kernels)
      : pass_(sorted(pass)),
        kernels_(kernels),
        border_(border_of(pass_)),
        planes_(pass_.source, border_, pass_.step_w, kernels),
        width_(kernels.width),
        taps_(static_cast<int64_t>(pass_.taps.size())),
        k_(pass_.inner * taps_),
        tap_rows_(pass_.inner == 1 && pass_.outer == 1 ? stacked_rows(pass_.taps) : 0),
        runs_(alike_rows(pass_)),
        element_(static_cast<int64_t>(pass_.result.element_size())),
        source_(static_cast<const char*>(pass_.source.const_data_ptr())),
        source_image_(pass_.source.stride(0)),
        source_channel_(pass_.source.stride(1)),
        source_height_(pass_.source.size(2)),
        result_(static_cast<char*>(pass_.result.data_ptr()) + pass_.offset * element_),
        out_image_(pass_.result.stride(0)),
        out_channel_(pass_.result.stride(1)),
        group_weights_(pass_.outer * k_),
        group_bytes_((group_weights_ + pass_.outer) * width_),
        weights_(pass_.groups * group_bytes_) {
    const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
    const auto compute = static_cast<int>(kernels.compute);
    const bool plain = is_compute_type(kernels.dtype, kernels.compute);
    plane_kernel_ = table.plane[compute], stencil_ = table.stencil[compute];
    // Read where it lies: taps beside the image are masked off, those above and below it left out.
    const int masked_vectors = table.masked_vectors[compute];
    const bool readable = masked_vectors > 0 && plain && pass_.source.stride(3) == 1;
    const bool every_other = pass_.step_h == 2 && pass_.step_w == 2 && tap_rows_ == 3 && readable;
    stacked_ = stencil_ != nullptr && (tap_rows_ == 3 || tap_rows_ == 5 || tap_rows_ == 7) && taps_ <= kStencilTaps &&
               (pass_.step_h == 1 || every_other);
    in_place_ = readable && (stacked_ ? pass_.step_w == 1 || every_other
                                      : pass_.step_w == 1 && divide_up(pass_.width, kernels.size.vector) <= masked_vectors &&
                                            (pass_.inner == 1 || (runs_.size() == 1 && runs_[0].taps == taps_)));
    direct_ = pass_.pixel_stride == 1 && plain;
    for (const Tap& tap : pass_.taps) reach_ = std::max(reach_, tap.h + border_.top + 1);
    pack();
  }

  // Rows of a block whose bordered rows stay in the cache.
  int64_t block() const {
    const int64_t affordable = kPlaneBytes / (std::max<int64_t>(1, pass_.inner) * planes_.row * width_);
    return std::clamp<int64_t>((affordable - reach_) / pass_.step_h + 1, std::min<int64_t>(8, pass_.height), pass_.height);
  }
  int64_t height() const { return pass_.height; }
  // Next to an addition.
  int64_t row_cost() const { return pass_.width * k_ * pass_.outer / 4; }

  // Fixes the most rows of a block.
  void set_block(int64_t rows) {
    block_ = rows;
    plane_ = planes_.elements((rows - 1) * pass_.step_h + reach_);
    const int64_t x_channel = in_place_ ? pass_.source.stride(1) : plane_;
    for (int64_t c = 0; c < pass_.inner; ++c)
      for (const Tap& tap : pass_.taps)
        steps_.push_back(c * x_channel + (in_place_ ? tap.h * pass_.source.stride(2) + tap.w
                                                    : (tap.h + border_.top) * planes_.row +
                                                          planes_.column(tap.w + border_.left)));
    if (!in_place_) return;
    const int64_t lanes = kernels_.size.vector;
    for (int64_t j = 0; j < divide_up(pass_.width, lanes) * lanes * pass_.step_w; j += lanes)
      for (int64_t p = 0; p < k_; ++p)
        masks_.push_back(lanes_inside(j + pass_.taps[p % taps_].w, lanes, pass_.source.size(3)));
  }

  // What a thread works in, and what its blocks have in common.
  class Worker {
   public:
    explicit Worker(const PlanePass& part)
        : part_(part),
          copies_(part.in_place_ ? 0 : part.pass_.inner * part.plane_ * part.width_),
          line_(part.planes_.line_bytes()),
          sums_(part.direct_ ? 0 : part.pass_.outer * part.block_ * part.pass_.width * part.width_) {
      const DataPass& pass = part.pass_;
      common_.x_row = pass.step_h * (part.in_place_ ? pass.source.stride(2) : part.planes_.row);
      common_.steps = part.steps_.data();
      common_.masks = part.in_place_ ? part.masks_.data() : nullptr;
      common_.masks_vector = common_.weight_row = common_.k = part.k_;
      common_.step = static_cast<int>(pass.step_w);
      common_.width = pass.width;
      common_.channels = pass.outer;
      common_.out_row = part.direct_ ? pass.row_stride : pass.width;
      common_.tap_rows = static_cast<int>(part.tap_rows_);
    }

    // Rows [first, first + height) of the result.
    void run(int64_t n, int64_t group, int64_t first, int64_t height) const {
      const DataPass& pass = part_.pass_;
      const int64_t element = part_.element_, width = part_.width_;
      const char* const weight = part_.weights_.data() + group * part_.group_bytes_;
      char* const out = part_.result_ + (n * part_.out_image_ + group * pass.outer * part_.out_channel_ +
                                         first * pass.row_stride) * element;
      ConvPlane p = common_;
      p.weight = weight;
      p.bias = weight + part_.group_weights_ * width;
      p.height = height;
      p.out = part_.direct_ ? out : sums_.data();
      p.out_channel = part_.direct_ ? part_.out_channel_ : height * pass.width;
      if (part_.in_place_) {
        const char* const image =
            part_.source_ + (n * part_.source_image_ + group * pass.inner * part_.source_channel_) * element;
        if (part_.stacked_) {
          p.x = image + first * p.x_row * element;
          p.x_begin = -(first * pass.step_h + pass.taps[0].h);
          p.x_end = p.x_begin + part_.source_height_;
          part_.stencil_(p);
        } else {
          run_alike(p, image, first);
        }
      } else {
        for (int64_t c = 0; c < pass.inner; ++c)
          part_.planes_.copy(n, group * pass.inner + c, first * pass.step_h, (height - 1) * pass.step_h + part_.reach_,
                             copies_.data() + c * part_.plane_ * width, line_.data());
        p.x = copies_.data();
        (part_.stacked_ ? part_.stencil_ : part_.plane_kernel_)(p);
      }
      if (part_.direct_) return;
      for (int64_t o = 0; o < pass.outer; ++o)
        for (int64_t i = 0; i < height; ++i)
          part_.kernels_.store(sums_.data() + (o * height + i) * pass.width * width,
                               out + (o * part_.out_channel_ + i * pass.row_stride) * element, pass.pixel_stride * element,
                               pass.width);
    }

   private:
    void run_alike(const ConvPlane& block, const char* image, int64_t first) const {
      for (const AlikeRows& run : part_.runs_) {
        const int64_t top = std::max(run.first, first), bottom = std::min(run.first + run.rows, first + block.height);
        if (top >= bottom) continue;
        ConvPlane p = block;
        p.x = image + top * p.x_row * part_.element_;
        p.steps += run.tap;
        p.masks += run.tap;
        p.weight = static_cast<const char*>(block.weight) + run.tap * part_.width_;
        p.k = part_.pass_.inner * run.taps;
        p.height = bottom - top;
        p.out = static_cast<char*>(block.out) + (top - first) * p.out_row * part_.width_;
        part_.plane_kernel_(p);
      }
    }

    const PlanePass& part_;
    const Scratch copies_, line_, sums_;
    ConvPlane common_;
  };

 private:
  void pack() {
    const auto weight_element = static_cast<int64_t>(pass_.weight.element_size());
    pack_groups(pass_, kernels_, group_weights_, pass_.outer, weights_.data(), [&](int64_t group, char* to) {
      for (int64_t o = 0; o < pass_.outer; ++o)
        for (int64_t c = 0; c < pass_.inner; ++c)
          for (const Tap& tap : pass_.taps) {
            const int64_t at = group * pass_.weight_group + o * pass_.weight_outer + c * pass_.weight_inner + tap.weight;
            kernels_.load(static_cast<const char*>(pass_.weight.const_data_ptr()) + at * weight_element, weight_element, to, 1);
            to += width_;
          }
    });
  }

  const DataPass pass_;
  const Kernels& kernels_;
  const Border border_;
  const Planes planes_;
  const int64_t width_, taps_, k_, tap_rows_;
  const std::vector<AlikeRows> runs_;
  const int64_t element_;
  const char* const source_;
  const int64_t source_image_, source_channel_, source_height_;
  char* const result_;
  const int64_t out_image_, out_channel_;
  const int64_t group_weights_, group_bytes_;
  const Scratch weights_;
  void (*plane_kernel_)(const ConvPlane&);
  void (*stencil_)(const ConvPlane&);
  bool stacked_, in_place_, direct_;
  int64_t reach_ = 0;  // bordered rows that a row of the result reads
  int64_t block_ = 0;
  int64_t plane_ = 0;  // elements from one channel's copy to the next
  std::vector<int64_t> steps_;
  std::vector<uint16_t> masks_;
};

// Passes that write the phases of one result: together, while a block of it is in the cache.
void run_planes(const std::vector<DataPass>& passes, const Kernels& kernels) {
  std::deque<PlanePass> parts;
  int64_t blocks = 1, cost = 0;
  for (const DataPass& pass : passes) {
    const PlanePass& part = parts.emplace_back(pass, kernels);
    blocks = std::max(blocks, divide_up(part.height(), part.block()));
  }
  for (PlanePass& part : parts) {
    part.set_block(divide_up(part.height(), blocks));
    cost += divide_up(part.height(), blocks) * part.row_cost();
  }
  const int64_t groups = passes[0].groups;
  parallel(passes[0].source.size(0) * groups * blocks, cost, [&](int64_t begin, int64_t end) {
    std::deque<PlanePass::Worker> workers(parts.begin(), parts.end());
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task % blocks, group = task / blocks % groups, n = task / (blocks * groups);
      for (size_t i = 0; i < parts.size(); ++i) {
        const int64_t first = parts[i].height() * block / blocks, last = parts[i].height() * (block + 1) / blocks;
        if (first < last) workers[i].run(n, group, first, last - first);
      }
    }
  });
}

// A 1x1 convolution of whole planes: the image is one row of pixels, read where it lies.
bool one_row(const DataPass& pass, const Kernels& kernels) {
  return is_compute_type(kernels.dtype, kernels.compute) && pass.taps.size() == 1 && pass.taps[0].h == 0 &&
         pass.taps[0].w == 0 && pass.step_h == 1 && pass.step_w == 1 && pass.source.size(2) == pass.height &&
         pass.source.size(3) == pass.width && pass.source.stride(2) == pass.width && pass.row_stride == pass.width &&
         pass.height * pass.width >= kernels.size.vector;
}

// Sums of few terms over images whose channels are planes: the transposed store of a tile of pixels by channels would
// take about as long as kTransposed terms. More than that must not be lost on the lanes of a row's last vector.
constexpr int64_t kFewTerms = 256, kTransposed = 16;

bool few_terms(const DataPass& pass, const Kernels& kernels) {
  const int64_t k = pass.inner * static_cast<int64_t>(pass.taps.size());
  const int64_t across = one_row(pass, kernels) ? pass.height * pass.width : pass.width;
  const int64_t lost = divide_up(across, kernels.size.vector) * kernels.size.vector - across;
  return 0 < k && k <= kFewTerms && k * lost <= kTransposed * across && kernels.pairs == nullptr &&
         pass.pixel_stride == 1 && pass.source.stride(3) == 1 &&
         TENSOROPS_KERNELS(conv_kernels).pixels[static_cast<int>(kernels.compute)] != nullptr;
}

void run_pixels(const DataPass& pass, const Kernels& kernels) {
  const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
  const Border border = border_of(pass);
  const Planes planes(pass.source, border, pass.step_w, kernels);
  const int64_t width = kernels.width, lanes = kernels.size.vector, panel = table.pixel_channels;
  const auto taps = static_cast<int64_t>(pass.taps.size()), k = pass.inner * taps;
  const bool plain = is_compute_type(kernels.dtype, kernels.compute);
  const bool in_place = one_row(pass, kernels);
  const int64_t pixels = pass.height * pass.width;
  // Of one row, what a task takes through all channels.
  const int64_t piece = std::clamp<int64_t>(kPlaneBytes / (pass.inner * width), 256, 1024);
  const int64_t height = in_place ? 1 : pass.height, across = in_place ? pixels : pass.width;
  int64_t reach = 0;
  for (const Tap& tap : pass.taps) reach = std::max(reach, tap.h + border.top + 1);
  // Output rows of a block, and the bordered rows they read.
  const int64_t affordable = kPlaneBytes / (pass.inner * planes.row * width);
  const int64_t block = std::clamp<int64_t>((affordable - reach) / pass.step_h + 1, std::min<int64_t>(8, height), height);
  const int64_t rows = (block - 1) * pass.step_h + reach, plane = in_place ? pass.source.stride(1) : planes.elements(rows);
  const int64_t blocks = in_place ? divide_up(pixels, piece) : divide_up(height, block);

  std::vector<int64_t> steps;
  for (int64_t c = 0; c < pass.inner; ++c)
    for (const Tap& tap : pass.taps)
      steps.push_back(c * plane + (in_place ? 0 : (tap.h + border.top) * planes.row + planes.column(tap.w + border.left)));

  const Layout layout{Pairs::none, pass.inner, pass.inner};
  const int64_t padded = divide_up(pass.outer, panel) * panel;
  const int64_t group_weights = padded * k, group_bytes = (group_weights + padded) * width;
  const Scratch weights(pass.groups * group_bytes);
  pack_groups(pass, kernels, group_weights, padded, weights.data(), [&](int64_t group, char* to) {
    for (int64_t first = 0; first < pass.outer; first += panel)
      pack_weights(pass, kernels, layout, group, first, std::min(panel, pass.outer - first), panel, 0, pass.inner, false,
                   to + first * k * width);
  });

  const auto element = static_cast<int64_t>(pass.result.element_size());
  const auto pixels_kernel = table.pixels[static_cast<int>(kernels.compute)];
  const char* const source = static_cast<const char*>(pass.source.const_data_ptr());
  char* const result = static_cast<char*>(pass.result.data_ptr()) + pass.offset * element;
  const int64_t source_image = pass.source.stride(0), source_channel = pass.source.stride(1);
  const int64_t out_image = pass.result.stride(0), out_channel = pass.result.stride(1);
  const int64_t tasks = pass.source.size(0) * pass.groups * blocks;
  parallel(tasks, (in_place ? std::min(pixels, piece) : block * across) * k * pass.outer / 4,
           [&](int64_t begin, int64_t end) {
    const Scratch copies(in_place ? 0 : pass.inner * plane * width), line(planes.line_bytes());
    const Scratch sums(plain ? 0 : pass.outer * block * across * width);
    std::vector<ConvVector> vectors;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % blocks, group = task / blocks % pass.groups, n = task / (blocks * pass.groups);
      char* const out = result + (n * out_image + group * pass.outer * out_channel) * element;
      ConvPixels p;
      vectors.clear();
      if (in_place) {
        const int64_t first = divide_up(pixels, lanes) * part / blocks * lanes;
        const int64_t last = std::min(divide_up(pixels, lanes) * (part + 1) / blocks * lanes, pixels);
        for (int64_t j = first; j < last; j += lanes) {
          // The last vector of all reaches back to be full.
          const int64_t at = std::min(j, pixels - lanes);
          vectors.push_back({at, at, lanes});
        }
        p.x = source + (n * source_image + group * pass.inner * source_channel) * element;
        p.out = out;
        p.out_channel = out_channel;
      } else {
        const int64_t first = part * block, here = std::min(block, height - first);
        for (int64_t c = 0; c < pass.inner; ++c)
          planes.copy(n, group * pass.inner + c, first * pass.step_h, (here - 1) * pass.step_h + reach,
                      copies.data() + c * plane * width, line.data());
        const int64_t out_row = plain ? pass.row_stride : across;
        for (int64_t i = 0; i < here; ++i)
          for (int64_t j = 0; j < across; j += lanes)
            vectors.push_back({i * pass.step_h * planes.row + j, i * out_row + j, std::min(lanes, across - j)});
        p.x = copies.data();
        p.out = plain ? out + first * pass.row_stride * element : sums.data();
        p.out_channel = plain ? out_channel : here * across;
      }
      p.vectors = vectors.data();
      p.vector_count = static_cast<int64_t>(vectors.size());
      p.steps = steps.data();
      p.k = k;
      p.weight = weights.data() + group * group_bytes;
      p.bias = static_cast<const char*>(p.weight) + group_weights * width;
      p.channels = pass.outer;
      pixels_kernel(p);
      if (!plain) {
        const int64_t first = part * block, here = std::min(block, height - first);
        for (int64_t o = 0; o < pass.outer; ++o)
          for (int64_t i = 0; i < here; ++i)
            kernels.store(sums.data() + (o * here + i) * across * width,
                          out + (o * out_channel + (first + i) * pass.row_stride) * element, element, across);
      }
    }
  });
}

// Depthwise with adjacent channels.
bool by_channels(const Tensor& a, const Tensor& b, int64_t inner, int64_t outer, const Kernels& kernels) {
  return inner == 1 && outer == 1 && a.size(1) >= 4 && a.stride(1) == 1 && b.stride(1) == 1 &&
         TENSOROPS_KERNELS(conv_kernels).channels[static_cast<int>(kernels.dtype)] != nullptr;
}

// The taps that reach inside an image from a run of pixels of one row, and where they read: f(first pixel, pixels,
// taps).
class TapRuns {
 public:
  TapRuns(const std::vector<Tap>& taps, int64_t step_h, int64_t step_w, const Tensor& image, int64_t width)
      : taps_(taps), step_h_(step_h), height_(image.size(2)), row_(image.stride(2)), pixel_(image.stride(3)) {
    for (int64_t j = 0; j < width;) {
      // All pixels up to `next` are reached by the same columns of taps.
      Run run{j, width, {}};
      for (size_t t = 0; t < taps.size(); ++t) {
        const int64_t w = j * step_w + taps[t].w;
        // The pixel at which this tap next crosses an edge of the image.
        const int64_t edge = w < 0 ? 0 : image.size(3);
        if (w < image.size(3)) run.next = std::min(run.next, j + divide_up(edge - w, step_w));
        if (w >= 0 && w < image.size(3)) run.taps.push_back(static_cast<int64_t>(t));
      }
      j = run.next;
      for (int64_t& t : run.taps) columns_.push_back((run.first * step_w + taps[t].w) * pixel_);
      runs_.push_back(std::move(run));
    }
  }

  template <class F>
  void row(int64_t i, F f) {
    const int64_t* column = columns_.data();
    for (const Run& run : runs_) {
      steps_.clear();
      rows_.clear();
      for (const int64_t t : run.taps) {
        const int64_t h = i * step_h_ + taps_[t].h, at = *column++;
        if (h < 0 || h >= height_) continue;
        steps_.push_back(h * row_ + at);
        rows_.push_back(t);
      }
      f(run.first, run.next - run.first, steps_, rows_);
    }
  }

 private:
  struct Run {
    int64_t first, next;
    std::vector<int64_t> taps;
  };
  const std::vector<Tap>& taps_;
  const int64_t step_h_, height_, row_, pixel_;
  std::vector<Run> runs_;
  std::vector<int64_t> columns_;  // where each tap of each run reads in a row
  std::vector<int64_t> steps_, rows_;
};

void run_channels(const DataPass& unsorted, const Kernels& kernels) {
  const DataPass pass = sorted(unsorted);
  const auto kernel = TENSOROPS_KERNELS(conv_kernels).channels[static_cast<int>(kernels.dtype)];
  const auto element = static_cast<int64_t>(pass.result.element_size());
  const auto taps = static_cast<int64_t>(pass.taps.size());
  const int64_t channels = pass.groups, width = kernels.width;
  const Scratch weights((taps + 1) * channels * width);
  for (int64_t t = 0; t < taps; ++t)
    kernels.load(static_cast<const char*>(pass.weight.const_data_ptr()) + pass.taps[t].weight * element,
                 pass.weight_group * element, weights.data() + t * channels * width, channels);
  char* const bias = weights.data() + taps * channels * width;
  if (pass.bias.defined()) kernels.load(pass.bias.const_data_ptr(), pass.bias.stride(0) * element, bias, channels);
  const bool far = (pass.source.numel() + pass.result.numel()) * element >= kFar;
  parallel(pass.source.size(0) * pass.height, pass.width * channels * taps / 4, [&](int64_t begin, int64_t end) {
    TapRuns runs(pass.taps, pass.step_h, pass.step_w, pass.source, pass.width);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t n = item / pass.height, i = item % pass.height;
      runs.row(i, [&](int64_t j, int64_t pixels, const auto& steps, const auto& rows) {
        ConvChannels c;
        c.x = static_cast<const char*>(pass.source.const_data_ptr()) + n * pass.source.stride(0) * element;
        c.x_pixel = pass.step_w * pass.source.stride(3);
        c.steps = steps.data();
        c.weight_rows = rows.data();
        c.k = static_cast<int64_t>(steps.size());
        c.weight = weights.data();
        c.bias = pass.bias.defined() ? bias : nullptr;
        c.out = static_cast<char*>(pass.result.data_ptr()) +
                (pass.offset + n * pass.result.stride(0) + i * pass.row_stride + j * pass.pixel_stride) * element;
        c.out_pixel = pass.pixel_stride;
        c.pixels = pixels;
        c.channels = channels;
        if (far && 2 * pixels > pass.width) {
          const int64_t next = i * pass.step_h + pass.taps.back().h + 1;
          c.ahead_rows = std::min(pass.step_h, pass.source.size(2) - next);
          c.ahead_stride = pass.source.stride(2) * element;
          c.ahead_row = pass.source.size(3) * pass.source.stride(3) * element;
          if (c.ahead_rows > 0) c.ahead = static_cast<const char*>(c.x) + next * c.ahead_stride;
        }
        kernel(c);
      });
    }
  });
}

void run_pass(const DataPass& pass, const Kernels& kernels) {
  if (winograd(pass, kernels) || pointwise(pass, kernels)) return;
  if (few_terms(pass, kernels)) return run_pixels(pass, kernels);
  const Border border = border_of(pass);
  const Layout layout = Layout::of_channels(pass.inner, kernels);
  const Panels panels(pass.outer, kernels.size);
  // Of every other pixel a row of a low tile finds a part of a line in each plane, of adjacent channels whole lines.
  const Images images(pass.source, border, kernels, layout, /*spread=*/panels.count >= 4,
                      /*turn=*/kernels.low_tile() && pass.step_w > 1);
  const auto taps = static_cast<int64_t>(pass.taps.size());
  const int64_t k = layout.elements * taps, width = kernels.width;

  const bool channels_inside = images.channel == 1 && pass.inner > 1 && (layout.pairs == Pairs::none || pass.inner % 2 == 0);
  // Each group: its panels one after another, then its bias.
  const int64_t group_bytes = panels.total() * (k + 1) * width;
  const Scratch packed(pass.groups * group_bytes);
  const auto bias_at = [&](int64_t group) { return packed.data() + group * group_bytes + panels.total() * k * width; };
  parallel(pass.groups * panels.count, k * kernels.size.columns, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t group = item / panels.count, panel = item % panels.count, first = panels.begin(panel);
      const int64_t columns = panels.columns_of(panel);
      pack_weights(pass, kernels, layout, group, first, columns, panels.width_of(panel), 0, pass.inner, channels_inside,
                   packed.data() + group * group_bytes + first * k * width);
      if (!pass.bias.defined()) continue;
      const auto element = static_cast<int64_t>(pass.bias.element_size());
      char* const bias = bias_at(group) + first * width;
      std::memset(bias, 0, panels.width_of(panel) * width);
      kernels.load(static_cast<const char*>(pass.bias.const_data_ptr()) +
                       (group * pass.outer + first) * pass.bias.stride(0) * element,
                   pass.bias.stride(0) * element, bias, columns);
    }
  });

  const DataTiles tiles(pass, border, images, kernels, layout, channels_inside);
  const int64_t batch = pass.source.size(0);
  const int64_t chunk = images.in_place()
                            ? batch
                            : std::min(batch, at::get_num_threads() *
                                                  std::max<int64_t>(1, kStaged / std::max<int64_t>(1, images.bytes())));
  const Scratch staged(images.in_place() ? 0 : chunk * images.bytes());
  const auto element = static_cast<int64_t>(pass.result.element_size());
  char* const out = static_cast<char*>(pass.result.data_ptr()) + pass.offset * element;
  const int64_t out_image = pass.result.stride(0), out_channel = pass.result.stride(1);
  // Panels that stay in the caches are taken together: results are then written in the order of memory.
  const int64_t together = panels.total() * k * width <= kPanelsTogether ? panels.count : 1;
  const int64_t turns = divide_up(panels.count, together);
  const int64_t per_image = pass.groups * tiles.blocks;

  for (int64_t from = 0; from < batch; from += chunk) {
    const int64_t count = std::min(chunk, batch - from);
    if (!images.in_place())
      parallel(count * images.items(), images.item_cost(), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t n = item / images.items();
          images.copy(from + n, item % images.items(), staged.data() + n * images.bytes());
        }
      });
    // The larger of weights and images is passed over once, the smaller one stays in the caches meanwhile. A thread that goes
    // through all images with its share of the weights has packed most of these itself.
    const int64_t pieces = count * per_image;
    const bool images_inside = group_bytes * pass.groups > count * images.bytes();
    parallel(pieces * turns, tiles.block_pixels() * k * 4 * together, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t first = (images_inside ? item / pieces : item % turns) * together;
        const int64_t piece = images_inside ? item % pieces : item / turns;
        const int64_t block = piece % tiles.blocks, group = piece / tiles.blocks % pass.groups, n = piece / per_image;
        const int64_t column = panels.begin(first);
        ConvTile tile;
        tile.x = (images.in_place() ? images.original(from + n) : staged.data() + n * images.bytes()) +
                 group * layout.elements * images.channel * width;
        tile.b = packed.data() + group * group_bytes + column * k * width;
        tile.b_column = k;
        tile.columns = together == 1 ? panels.columns_of(first) : pass.outer;
        tile.init = pass.bias.defined() ? bias_at(group) + column * width : nullptr;
        tile.out = out + ((from + n) * out_image + (group * pass.outer + column) * out_channel) * element;
        tile.out_type = kernels.dtype;
        tile.out_column = out_channel;
        tiles.run(block, tile);
      }
    });
  }
}

// Passes that write the phases of one result, of which there is at least one pixel each.
void run(const std::vector<DataPass>& passes, const Kernels& kernels) {
  const DataPass& any = passes[0];
  const bool channels = by_channels(any.source, any.result, any.inner, any.outer, kernels);
  if (!channels && few_channels(any.outer, kernels)) return run_planes(passes, kernels);
  for (const DataPass& pass : passes) {
    if (channels) run_channels(pass, kernels);
    else run_pass(pass, kernels);
  }
}

Tensor conv2d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, c10::IntArrayRef stride,
              c10::IntArrayRef padding, c10::IntArrayRef dilation, int64_t groups) {
  const Params p = conv_params<int64_t>(stride, padding, dilation, groups);
  const Tensor b = bias ? *bias : Tensor();
  const auto bias_size = b.defined() ? b.sizes() : c10::IntArrayRef();
  const auto sizes = conv_output_sizes<int64_t>(input.sizes(), weight.sizes(), b.defined() ? &bias_size : nullptr, p);
  check_conv_dtypes(input, weight, b.defined() ? &b : nullptr);
  const Tensor result = empty(sizes, input.scalar_type(), conv_memory_format(input, weight));
  if (result.numel() == 0) return result;

  DataPass pass{input,
                groups,
                weight.size(1),
                weight.size(0) / groups,
                {},
                p.stride[0],
                p.stride[1],
                weight,
                weight.size(0) / groups * weight.stride(0),
                weight.stride(0),
                weight.stride(1),
                b,
                result,
                result.size(2),
                result.size(3),
                result.stride(2),
                result.stride(3),
                0};
  for (int64_t h = 0; h < weight.size(2); ++h)
    for (int64_t w = 0; w < weight.size(3); ++w)
      pass.taps.push_back({h * p.dilation[0] - p.padding[0], w * p.dilation[1] - p.padding[1],
                           h * weight.stride(2) + w * weight.stride(3)});
  run({pass}, Kernels(input.scalar_type()));
  return result;
}

// Where input row i of a phase (i0 + stride * i) was read by tap `kernel`: at output row i + shift, if at all.
bool phase_shift(int64_t phase, int64_t kernel, int64_t padding, int64_t stride, int64_t dilation, int64_t* shift) {
  const int64_t distance = phase + padding - kernel * dilation;
  if ((distance % stride + stride) % stride != 0) return false;
  *shift = distance / stride;
  return true;
}

// Input pixels fall into stride * stride phases; each phase is a convolution of the output's gradient, with step one
// and the taps that reach it.
Tensor conv2d_input_gradient(const Tensor& grad, const Tensor& weight, c10::IntArrayRef input_size,
                             c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation,
                             int64_t groups) {
  const Params p = conv_params<int64_t>(stride, padding, dilation, groups);
  check_conv_gradient<int64_t>("conv2d_input_gradient", grad.sizes(), input_size, weight.sizes(), p);
  check_conv_dtypes(grad, weight, nullptr);
  const Tensor result = empty(input_size, grad.scalar_type(), conv_memory_format(grad, weight));
  if (result.numel() == 0) return result;

  std::vector<DataPass> phases;
  const int64_t outer = weight.size(0) / groups;
  for (int64_t y = 0; y < std::min(p.stride[0], result.size(2)); ++y)
    for (int64_t x = 0; x < std::min(p.stride[1], result.size(3)); ++x) {
      DataPass pass{grad,
                    groups,
                    outer,
                    weight.size(1),
                    {},
                    1,
                    1,
                    weight,
                    outer * weight.stride(0),
                    weight.stride(1),
                    weight.stride(0),
                    Tensor(),
                    result,
                    divide_up(result.size(2) - y, p.stride[0]),
                    divide_up(result.size(3) - x, p.stride[1]),
                    result.stride(2) * p.stride[0],
                    result.stride(3) * p.stride[1],
                    y * result.stride(2) + x * result.stride(3)};
      for (int64_t h = 0; h < weight.size(2); ++h)
        for (int64_t w = 0; w < weight.size(3); ++w) {
          Tap tap{0, 0, h * weight.stride(2) + w * weight.stride(3)};
          if (phase_shift(y, h, p.padding[0], p.stride[0], p.dilation[0], &tap.h) &&
              phase_shift(x, w, p.padding[1], p.stride[1], p.dilation[1], &tap.w))
            pass.taps.push_back(tap);
        }
      phases.push_back(std::move(pass));
    }
  run(phases, Kernels(grad.scalar_type()));
  return result;
}

// One channel in, one channel out: for each pair, the images in order.
void plane_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                           const Border& border, const Kernels& kernels) {
  const Planes planes(input, border, p.stride[1], kernels);
  const int64_t width = kernels.width, outer = result.size(0) / p.groups, taps = result.size(2) * result.size(3);
  const int64_t height = grad.size(2), across = grad.size(3);
  const int64_t rows = (height - 1) * p.stride[0] + (result.size(2) - 1) * p.dilation[0] + 1;
  const auto element = static_cast<int64_t>(grad.element_size());
  const bool plain = is_compute_type(kernels.dtype, kernels.compute), direct = grad.stride(3) == 1 && plain;
  const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
  const auto masked_kernel = table.masked_plane_gradient[static_cast<int>(kernels.compute)];
  const int64_t tap_rows = result.size(2), tap_columns = result.size(3);
  // Read where it lies: taps beside the image are masked off, those above and below it left out.
  const bool in_place = masked_kernel != nullptr && plain && p.stride[1] <= 2 && tap_columns == kMaskedTaps &&
                        input.stride(3) == 1 && input.stride(2) > 0;
  const auto kernel = in_place ? masked_kernel : table.plane_gradient[static_cast<int>(kernels.compute)];
  std::vector<int64_t> steps, tap_begin, tap_end;
  for (int64_t h = 0; h < tap_rows; ++h) {
    const int64_t below = h * p.dilation[0] - p.padding[0];
    for (int64_t w = 0; w < tap_columns; ++w)
      steps.push_back(in_place ? below * input.stride(2) + w * p.dilation[1] - p.padding[1]
                               : h * p.dilation[0] * planes.row + planes.column(w * p.dilation[1]));
    tap_begin.push_back(std::clamp<int64_t>(divide_up(-below, p.stride[0]), 0, height));
    tap_end.push_back(std::clamp<int64_t>(divide_up(input.size(2) - below, p.stride[0]), tap_begin.back(), height));
  }
  std::vector<uint16_t> masks;
  const int64_t lanes = kernels.size.vector, read = (across - 1) * p.stride[1] + 1;  // columns that a tap reads in a row
  for (int64_t j = 0; in_place && j < divide_up(across, lanes) * lanes * p.stride[1]; j += lanes)
    for (int64_t w = 0; w < tap_columns; ++w)
      masks.push_back(lanes_inside(j + w * p.dilation[1] - p.padding[1], std::clamp<int64_t>(read - j, 0, lanes), input.size(3)));
  const char* const image = static_cast<const char*>(input.const_data_ptr());
  const char* const grads = static_cast<const char*>(grad.const_data_ptr());
  const int64_t image_stride = input.stride(0), channel_stride = input.stride(1);
  const int64_t grad_image = grad.stride(0), grad_channel = grad.stride(1);
  parallel(p.groups, grad.size(0) * outer * height * across * taps / 4, [&](int64_t begin, int64_t end) {
    const Scratch x(in_place ? 0 : planes.elements(rows) * width), line(planes.line_bytes()), sums(outer * taps * width);
    const Scratch converted(direct ? 0 : height * across * width);
    ConvPlaneGradient gradient;
    gradient.x_row = p.stride[0] * (in_place ? input.stride(2) : planes.row);
    gradient.steps = steps.data();
    gradient.k = taps;
    gradient.grad_row = direct ? grad.stride(2) : across;
    gradient.height = height;
    gradient.width = across;
    gradient.masks = masks.data();
    gradient.step = static_cast<int>(p.stride[1]);
    gradient.image_row = in_place ? input.stride(2) : 0;
    gradient.begin = tap_begin.data();
    gradient.end = tap_end.data();
    for (int64_t group = begin; group < end; ++group) {
      std::memset(sums.data(), 0, outer * taps * width);
      for (int64_t n = 0; n < grad.size(0); ++n) {
        if (!in_place) planes.copy(n, group, 0, rows, x.data(), line.data());
        gradient.x = in_place ? image + (n * image_stride + group * channel_stride) * element : x.data();
        for (int64_t o = 0; o < outer; ++o) {
          const char* from = grads + (n * grad_image + (group * outer + o) * grad_channel) * element;
          if (!direct)
            for (int64_t i = 0; i < height; ++i)
              kernels.load(from + i * grad.stride(2) * element, grad.stride(3) * element,
                           converted.data() + i * across * width, across);
          gradient.grad = direct ? from : converted.data();
          gradient.sums = sums.data() + o * taps * width;
          kernel(gradient);
        }
      }
      for (int64_t o = 0; o < outer; ++o)
        for (int64_t h = 0; h < result.size(2); ++h)
          kernels.store(sums.data() + (o * taps + h * result.size(3)) * width,
                        static_cast<char*>(result.data_ptr()) +
                            ((group * outer + o) * result.stride(0) + h * result.stride(2)) * element,
                        result.stride(3) * element, result.size(3));
    }
  });
}

// The same with adjacent channels: images in parts cut by size alone, added in order.
void channels_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                              const Kernels& kernels) {
  const auto& table = TENSOROPS_KERNELS(conv_kernels);
  const auto kernel = table.channels_gradient[static_cast<int>(kernels.dtype)];
  const auto add_rows = table.add_rows[static_cast<int>(kernels.compute)];
  std::vector<Tap> taps;
  for (int64_t h = 0; h < result.size(2); ++h)
    for (int64_t w = 0; w < result.size(3); ++w)
      taps.push_back({h * p.dilation[0] - p.padding[0], w * p.dilation[1] - p.padding[1],
                      h * result.stride(2) + w * result.stride(3)});
  const auto element = static_cast<int64_t>(grad.element_size());
  const int64_t channels = p.groups, width = kernels.width, batch = grad.size(0);
  const auto count = static_cast<int64_t>(taps.size());
  const int64_t sums_bytes = count * channels * width;
  const int64_t parts = std::clamp<int64_t>(kSums / sums_bytes, 1, std::min<int64_t>(batch, 16));
  const Scratch sums(parts * sums_bytes);
  parallel(parts, grad.numel() * count / parts, [&](int64_t begin, int64_t end) {
    TapRuns runs(taps, p.stride[0], p.stride[1], input, grad.size(3));
    const Scratch rows_sum(sums_bytes);
    for (int64_t part = begin; part < end; ++part) {
      char* const total = sums.data() + part * sums_bytes;
      std::memset(total, 0, sums_bytes);
      for (int64_t n = batch * part / parts; n < batch * (part + 1) / parts; ++n)
        for (int64_t first = 0; first < grad.size(2); first += kRowsTogether) {
          std::memset(rows_sum.data(), 0, sums_bytes);
          for (int64_t i = first; i < std::min(first + kRowsTogether, grad.size(2)); ++i)
            runs.row(i, [&](int64_t j, int64_t pixels, const auto& steps, const auto& rows) {
              ConvChannelsGradient c;
              c.x = static_cast<const char*>(input.const_data_ptr()) + n * input.stride(0) * element;
              c.x_pixel = p.stride[1] * input.stride(3);
              c.steps = steps.data();
              c.weight_rows = rows.data();
              c.k = static_cast<int64_t>(steps.size());
              c.grad = static_cast<const char*>(grad.const_data_ptr()) +
                       (n * grad.stride(0) + i * grad.stride(2) + j * grad.stride(3)) * element;
              c.grad_pixel = grad.stride(3);
              c.pixels = pixels;
              c.channels = channels;
              c.sums = rows_sum.data();
              c.sums_row = channels;
              kernel(c);
            });
          add_rows(rows_sum.data(), 0, 1, count * channels, total);
        }
    }
  });
  for (int64_t part = 1; part < parts; ++part)
    add_rows(sums.data() + part * sums_bytes, 0, 1, count * channels, sums.data());
  for (int64_t t = 0; t < count; ++t)
    kernels.store(sums.data() + t * channels * width, static_cast<char*>(result.data_ptr()) + taps[t].weight * element,
                  result.stride(0) * element, channels);
}

// Sums over pixels. The batch is cut into parts by size alone; each part's sums are a tile product whose rows are
// (channel, tap), whose columns are output channels and whose k runs over pixels; the parts are added in order.
Tensor conv2d_weight_gradient(const Tensor& grad, const Tensor& input, c10::IntArrayRef weight_size,
                              c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation,
                              int64_t groups) {
  const Params p = conv_params<int64_t>(stride, padding, dilation, groups);
  check_conv_gradient<int64_t>("conv2d_weight_gradient", grad.sizes(), input.sizes(), weight_size, p);
  check_conv_dtypes(grad, input, nullptr);
  const Tensor result = empty(weight_size, grad.scalar_type(), conv_memory_format(grad, input));
  if (result.numel() == 0) return result;
  if (grad.numel() == 0) {
    std::memset(result.data_ptr(), 0, result.nbytes());
    return result;
  }

  const Kernels kernels(grad.scalar_type());
  const int64_t width = kernels.width, batch = grad.size(0), height = grad.size(2), across = grad.size(3);
  const int64_t outer = grad.size(1) / groups, inner = weight_size[1], taps = weight_size[2] * weight_size[3];
  const int64_t rows = inner * taps, pixels = height * across;
  Border border;
  border.top = p.padding[0], border.left = p.padding[1];
  border.bottom = std::max<int64_t>(
      0, (height - 1) * p.stride[0] + (weight_size[2] - 1) * p.dilation[0] - border.top - (input.size(2) - 1));
  border.right = std::max<int64_t>(
      0, (across - 1) * p.stride[1] + (weight_size[3] - 1) * p.dilation[1] - border.left - (input.size(3) - 1));
  if (by_channels(grad, input, inner, outer, kernels)) {
    channels_weight_gradient(grad, input, result, p, kernels);
    return result;
  }
  if (inner == 1 && groups > 1 && few_channels(outer, kernels)) {
    plane_weight_gradient(grad, input, result, p, border, kernels);
    return result;
  }
  if (winograd_weight_gradient(grad, input, p, kernels, result) || pointwise_weight_gradient(grad, input, p, kernels, result))
    return result;
  const Layout layout = Layout::of_images(batch, kernels);
  const bool paired = layout.pairs == Pairs::images;
  const int64_t span = paired ? 2 : 1, units = divide_up(batch, span);  // images of an element; such groups of them
  const Images images(input, border, kernels, layout, /*spread=*/false, /*turn=*/false);
  const Panels panels(outer, kernels.size);

  // Rows are in the order of the result's memory; but where it pays, by rows of the kernel first, as all taps of such a row
  // leave out the same pixels: those from which they find only the border.
  const bool channels_inside = result.stride(1) == 1 && inner > 1;
  const auto reached = [&](int64_t tap_row) {
    const int64_t h = tap_row * p.dilation[0] - p.padding[0];
    const int64_t first = std::clamp<int64_t>(divide_up(std::max<int64_t>(0, -h), p.stride[0]), 0, height);
    return std::pair(first, std::clamp<int64_t>(divide_up(std::max<int64_t>(0, input.size(2) - h), p.stride[0]), first, height));
  };
  int64_t reaching = 0;
  for (int64_t tap_row = 0; tap_row < weight_size[2]; ++tap_row) reaching += reached(tap_row).second - reached(tap_row).first;
  const bool skips = inner * weight_size[3] >= 2 * kernels.size.rows &&
                     static_cast<double>(reaching) < 0.97 * static_cast<double>(height * weight_size[2]);
  const int64_t parts_of_kernel = skips ? weight_size[2] : 1, part_rows = rows / parts_of_kernel;
  std::vector<int64_t> row_offsets(rows), places(rows);  // places: of the rows in the result's order
  for (int64_t c = 0; c < inner; ++c)
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t kh = tap / weight_size[3], kw = tap % weight_size[3];
      const int64_t natural = channels_inside ? tap * inner + c : c * taps + tap;
      const int64_t place = skips && !channels_inside ? (kh * inner + c) * weight_size[3] + kw : natural;
      places[natural] = place;
      row_offsets[place] = c * images.channel + kh * p.dilation[0] * images.row + kw * p.dilation[1] * images.pixel;
    }

  const auto adjacent = [&](int64_t first, int64_t count) {
    for (int64_t r = 1; r < count; ++r)
      if (row_offsets[first + r] != row_offsets[first] + r) return false;
    return true;
  };
  const int64_t part_bytes = groups * rows * panels.total() * width;
  const int64_t parts =
      std::clamp<int64_t>(std::min(kSums / part_bytes, divide_up(16, groups * panels.count)), 1, units);
  const Scratch sums(parts * part_bytes);
  const auto sums_at = [&](int64_t part, int64_t group, int64_t panel) {
    return sums.data() + part * part_bytes + (group * panels.total() + panels.begin(panel)) * rows * width;
  };

  // Blocks of pixels whose packed gradient stays in the caches: a piece of an image, or several small images.
  const int64_t block = std::min(pixels, kBlockPixels);
  const int64_t together =
      std::clamp<int64_t>(std::min(kBlockPixels / pixels, images.in_place() ? batch : kStaged / images.bytes()), 1,
                          divide_up(units, parts));
  const int64_t image_step = images.in_place() ? input.stride(0) : images.bytes() / width;
  const auto element = static_cast<int64_t>(grad.element_size());
  const auto tile_kernel = paired ? kernels.pairs->tile : kernels.tile;
  const auto accumulate = [&](int64_t part, int64_t group, int64_t panel, char* staged, char* packed) {
    char* const sum = sums_at(part, group, panel);
    const int64_t panel_width = panels.width_of(panel);
    ConvStep steps[kBlockPixels], some[kBlockPixels];
    int64_t out_rows[kMostRows];
    for (int64_t r = 0; r < kMostRows; ++r) out_rows[r] = r * panel_width;
    ConvTile tile;
    tile.b = packed;
    tile.columns = panel_width;
    tile.out_type = kernels.compute_dtype();
    tile.out_rows = out_rows;
    tile.init_row = panel_width;
    bool fresh = true;
    const int64_t last = units * (part + 1) / parts;
    for (int64_t unit = units * part / parts; unit < last; unit += together) {
      const int64_t images_here = std::min(together, last - unit), n = unit * span;
      if (!images.in_place())
        for (int64_t item = 0; item < images_here * images.items(); ++item)
          images.copy(n + item / images.items() * span, item % images.items(),
                      staged + item / images.items() * images.bytes());
      tile.x = (images.in_place() ? images.original(n) : staged) + group * inner * images.channel * width;
      const char* from = static_cast<const char*>(grad.const_data_ptr()) +
                         (n * grad.stride(0) + (group * outer + panels.begin(panel)) * grad.stride(1)) * element;
      for (int64_t begin = 0; begin < pixels; begin += block) {
        // Runs of pixels inside a row: their steps, and their gradients packed.
        int64_t k = 0;
        int64_t pixel_rows[kBlockPixels];
        for (int64_t image = 0; image < images_here; ++image)
          for (int64_t at = begin; at < std::min(begin + block, pixels);) {
            const int64_t i = at / across, j = at % across;
            const int64_t run = std::min(std::min(begin + block, pixels) - at, across - j);
            for (int64_t t = 0; t < run; ++t) {
              steps[k + t] = {image * image_step + i * p.stride[0] * images.row + (j + t) * p.stride[1] * images.pixel, k + t};
              pixel_rows[k + t] = i;
            }
            const char* const here =
                from + (image * span * grad.stride(0) + i * grad.stride(2) + j * grad.stride(3)) * element;
            char* const to = packed + k * panel_width * width;
            const auto to_width = static_cast<int>(panel_width);
            if (paired)
              kernels.pairs->pack(here, n + image * span + 1 < batch ? here + grad.stride(0) * element : nullptr,
                                  grad.stride(1), grad.stride(3), panels.columns_of(panel), run, to_width, to);
            else
              kernels.pack(here, grad.stride(1), grad.stride(3), panels.columns_of(panel), run, to_width, to);
            k += run;
            at += run;
          }
        const int64_t tiles = divide_up(part_rows, kernels.size.rows);
        for (int64_t part_of_kernel = 0; part_of_kernel < parts_of_kernel; ++part_of_kernel) {
          tile.steps = steps;
          tile.k = k;
          if (skips) {
            const auto [begin_row, end_row] = reached(part_of_kernel);
            tile.steps = some;
            tile.k = 0;
            for (int64_t at = 0; at < k; ++at)
              if (pixel_rows[at] >= begin_row && pixel_rows[at] < end_row) some[tile.k++] = steps[at];
          }
          for (int64_t t = 0; t < tiles; ++t) {
            const int64_t before = part_rows * t / tiles, first = part_of_kernel * part_rows + before;
            tile.row_count = part_rows * (t + 1) / tiles - before;
            tile.rows = row_offsets.data() + first;
            tile.adjacent = adjacent(first, tile.row_count);
            tile.out = sum + first * panel_width * width;
            tile.init = fresh ? nullptr : tile.out;
            tile_kernel(tile);
          }
        }
        fresh = false;
      }
    }
  };
  parallel(parts * groups * panels.count, batch * pixels * rows * 4 / parts, [&](int64_t begin, int64_t end) {
    const Scratch staged(images.in_place() ? 0 : together * images.bytes());
    const Scratch packed(kBlockPixels * kernels.size.columns * width);
    for (int64_t task = begin; task < end; ++task)
      accumulate(task / (groups * panels.count), task / panels.count % groups, task % panels.count, staged.data(),
                 packed.data());
  });

  // Parts added, and (row, out channel) turned into (out channel, row).
  const auto compute = static_cast<int>(kernels.compute);
  const auto& elementwise = TENSOROPS_KERNELS(elementwise_kernels);
  const ElementwiseKernel add = elementwise.op[static_cast<int>(Elementwise::add)].of[compute];
  ElementwiseParams plain_sum;
  plain_sum.real[0] = 1, plain_sum.integer[0] = 1;
  const int64_t pieces = divide_up(rows, kWeightRows);
  parallel(groups * panels.count * pieces, kWeightRows * kernels.size.columns * parts, [&](int64_t begin, int64_t end) {
    const Scratch turned(kWeightRows * kernels.size.columns * width), ordered(kWeightRows * kernels.size.columns * width);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % pieces * kWeightRows, panel = item / pieces % panels.count;
      const int64_t group = item / (pieces * panels.count), count = std::min(kWeightRows, rows - first);
      const int64_t panel_width = panels.width_of(panel);
      const char* total = sums_at(0, group, panel) + first * panel_width * width;
      if (parts > 1 || skips) {
        for (int64_t r = 0; r < count; ++r) {
          const int64_t at = places[first + r] * panel_width * width;
          char* const row = ordered.data() + r * panel_width * width;
          std::memcpy(row, sums_at(0, group, panel) + at, panel_width * width);
          for (int64_t part = 1; part < parts; ++part) {
            add(plain_sum, {row, {row, sums_at(part, group, panel) + at}}, panel_width);
          }
        }
        total = ordered.data();
      }
      store_weight_rows(total, panel_width, group * outer + panels.begin(panel), panels.columns_of(panel), first, count, kernels,
                        turned.data(), result);
    }
  });
  return result;
}

// Sums over images and pixels, channel by channel: a block at a time, so that no chain of additions grows long.
Tensor conv2d_bias_gradient(const Tensor& grad) {
  check_conv_bias_gradient(grad);
  const Tensor result = empty({grad.size(1)}, grad.scalar_type());
  const Kernels kernels(grad.scalar_type());
  const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
  const auto sum_run = table.sum_run[static_cast<int>(kernels.compute)];
  const auto add_rows = table.add_rows[static_cast<int>(kernels.compute)];
  const auto element = static_cast<int64_t>(grad.element_size());
  const int64_t channels = grad.size(1), across = grad.size(3);
  const bool plain = is_compute_type(kernels.dtype, kernels.compute);
  const char* from = static_cast<const char*>(grad.const_data_ptr());
  const auto at = [&](int64_t n, int64_t c, int64_t h) {
    return from + (n * grad.stride(0) + c * grad.stride(1) + h * grad.stride(2)) * element;
  };
  constexpr int64_t kRun = 512;
  if (grad.stride(1) == 1 && grad.stride(3) != 1) {
    // Channels are adjacent: a panel of them at a time, a row of pixels at a time.
    parallel(divide_up(channels, 64), grad.numel() / std::max<int64_t>(1, channels) * 64,
             [&](int64_t begin, int64_t end) {
               alignas(64) char total[64 * 8], row[64 * 8], run[64 * 8];
               for (int64_t c = begin * 64; c < std::min(channels, end * 64); c += 64) {
                 const int64_t count = std::min<int64_t>(64, channels - c);
                 std::memset(total, 0, sizeof(total));
                 for (int64_t n = 0; n < grad.size(0); ++n)
                   for (int64_t h = 0; h < grad.size(2); ++h) {
                     std::memset(row, 0, sizeof(row));
                     if (plain) {
                       add_rows(at(n, c, h), grad.stride(3), across, count, row);
                     } else {
                       for (int64_t w = 0; w < across; ++w) {
                         kernels.load(at(n, c, h) + w * grad.stride(3) * element, element, run, count);
                         add_rows(run, 0, 1, count, row);
                       }
                     }
                     add_rows(row, 0, 1, count, total);
                   }
                 kernels.store(total, static_cast<char*>(result.data_ptr()) + c * element, element, count);
               }
             });
    return result;
  }
  const bool flat = grad.stride(2) == across * grad.stride(3);
  const int64_t lines = flat ? 1 : grad.size(2), line = flat ? grad.size(2) * across : across;
  parallel(channels, grad.numel() / std::max<int64_t>(1, channels), [&](int64_t begin, int64_t end) {
    alignas(64) char run[kRun * 8];
    for (int64_t c = begin; c < end; ++c) {
      alignas(8) char total[8] = {};
      for (int64_t n = 0; n < grad.size(0); ++n)
        for (int64_t h = 0; h < lines; ++h)
          for (int64_t w = 0; w < line; w += kRun) {
            const int64_t count = std::min(kRun, line - w);
            const void* values = at(n, c, h) + w * grad.stride(3) * element;
            if (!plain || grad.stride(3) != 1) {
              kernels.load(values, grad.stride(3) * element, run, count);
              values = run;
            }
            sum_run(values, count, total);
          }
      if (kernels.compute == Compute::f32) {
        // Kept in f64 until here.
        double sum;
        std::memcpy(&sum, total, sizeof(sum));
        const auto rounded = static_cast<float>(sum);
        std::memcpy(total, &rounded, sizeof(rounded));
      }
      kernels.store(total, static_cast<char*>(result.data_ptr()) + c * element, element, 1);
    }
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  library.impl("_conv2d", conv2d);
  library.impl("conv2d_input_gradient", conv2d_input_gradient);
  library.impl("conv2d_weight_gradient", conv2d_weight_gradient);
  library.impl("conv2d_bias_gradient", conv2d_bias_gradient);
}

}  // namespace tensorops::cpu
