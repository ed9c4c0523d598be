// Convolution on the CPU: three passes over one inner kernel (kernels/convolution.h), a product of tiles that reads the
// image through tables of offsets. Other ways, each where it is faster, have a file each and are declared in convolution.h:
// winograd, strided, pointwise, planes, channels.
//
// Workspace, beside the result: the weights once more, packed; what a thread works on of the image, with its zero
// border and in the compute type (kStaged, or one image where that is larger; nothing when there is no border and no
// conversion); for the weight gradient, sums of at most kWeightSums or one weight tensor.
#include "cpu/convolution.h"

#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {

namespace conv {

DataPass forward_pass(const Tensor& input, const Tensor& weight, const Tensor& bias, const Params& p, const Tensor& result) {
  DataPass pass{input,
                p.groups,
                weight.size(1),
                weight.size(0) / p.groups,
                {},
                p.stride[0],
                p.stride[1],
                weight,
                weight.size(0) / p.groups * weight.stride(0),
                weight.stride(0),
                weight.stride(1),
                bias,
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
  return pass;
}

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
  if (taps == 1) return pack(pass.taps[0].weight, pass.weight_inner, channels);
  if (even && pass.weight_inner == taps * spacing) return pack(pass.taps[0].weight, spacing, channels * taps);
  // Channels of an input gradient's weights lie some lines here and some there, on another page each.
  constexpr int64_t kAhead = 4;
  const int64_t line = kCacheLine / element, run = std::min(columns * std::abs(pass.weight_outer), 4096 / element);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t at = 0; at < run; at += line)
      __builtin_prefetch(from + ((c + kAhead) * pass.weight_inner + at) * element, 0, 2);
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

DataPass sorted(DataPass pass) {
  std::sort(pass.taps.begin(), pass.taps.end(),
            [](const Tap& a, const Tap& b) { return std::pair(a.h, a.w) < std::pair(b.h, b.w); });
  return pass;
}

}  // namespace conv

namespace {

using namespace conv;
using ops::OptionalTensor;

constexpr int64_t kStaged = 1 << 20;   // bytes of bordered images per thread
constexpr int64_t kBlockPixels = 256;  // pixels that one task takes through one panel of weights
constexpr int64_t kPanelsTogether = 64 << 10;  // bytes of weights that come from the second cache for every tile
constexpr int64_t kFetchedImages = 1 << 20;  // bytes of images that the caches hardly hold
constexpr int64_t kMostRows = 32;      // of any ConvTileSize

// A batch of images as the inner kernel wants them: in the compute type or in pairs, with a border of zeros. Images that
// already are so are used where they lie; the others are copied, a few at a time.
class Images {
 public:
  // `spread`: pixels whose distance would bring a tile's rows into the same few sets of the first cache are set further apart.
  // `turn`: images whose channels are planes are copied with adjacent channels.
  // `bare`: images with adjacent channels need no border.
  Images(const Tensor& t, const Border& border, const Kernels& kernels, const Layout& layout, bool spread, bool turn, bool bare)
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
    const int64_t together = layout.pairs == Pairs::none ? 1 : 2;  // elements of the image that one of a product is made of
    const bool as_wanted = layout.pairs == Pairs::none ? is_compute_type(kernels.dtype, kernels.compute)
                                                       : layout.pairs == Pairs::channels && channels_last_ &&
                                                             t.stride(2) % together == 0 && t.stride(3) % together == 0;
    in_place_ = as_wanted && !conflict && !turned_ && (!border.any() || (bare && channels_last_));
    if (in_place_) {
      channel = t.stride(1), row = t.stride(2) / together, pixel = t.stride(3) / together;
      image_ = t.stride(0) / together;
      return;
    }
    channel = channels_last_ ? 1 : height_ * width_;
    pixel = !channels_last_ ? 1 : conflict ? channels_ + kCacheLine / kernels.width : channels_;
    row = width_ * pixel;
    image_ = channels_last_ ? height_ * row : channels_ * channel;
  }

  bool in_place() const { return in_place_; }
  // Bytes of one image, or of a copy of it.
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

// One axis of the result, cut where the rows of taps change that find the image there, not its border.
struct Reach {
  Reach(int64_t size, int64_t step, int64_t image, const std::vector<Tap>& taps, int64_t Tap::* offset) {
    std::vector<bool> before, reached(taps.size());
    for (int64_t i = 0; i < size; ++i) {
      for (size_t t = 0; t < taps.size(); ++t) {
        const int64_t at = i * step + taps[t].*offset;
        reached[t] = at >= 0 && at < image;
      }
      if (i > 0 && reached == before) continue;
      cuts.push_back(i);
      runs.push_back(reached);
      before = reached;
    }
    cuts.push_back(size);
  }
  // All of it in one run, from which all taps are taken to reach something.
  Reach(int64_t size, const std::vector<Tap>& taps) : cuts{0, size}, runs{std::vector<bool>(taps.size(), true)} {}

  int64_t longest() const {
    int64_t most = 0;
    for (size_t r = 0; r < runs.size(); ++r) most = std::max(most, cuts[r + 1] - cuts[r]);
    return most;
  }
  // Pairs of a row and a tap that reaches the image from there.
  int64_t pairs() const {
    int64_t count = 0;
    for (size_t r = 0; r < runs.size(); ++r)
      count += (cuts[r + 1] - cuts[r]) * std::count(runs[r].begin(), runs[r].end(), true);
    return count;
  }

  std::vector<int64_t> cuts;             // where each run begins, and the end
  std::vector<std::vector<bool>> runs;  // of each run, by tap
};

// Both axes.
struct Reaches {
  explicit Reaches(const DataPass& pass)
      : down(pass.height, pass.step_h, pass.source.size(2), pass.taps, &Tap::h),
        across(pass.width, pass.step_w, pass.source.size(3), pass.taps, &Tap::w) {}

  // Whether most pixels reach the image with all taps, and the others are of few kinds: then each kind can be made by itself, with
  // the taps that it has.
  bool few_kinds() const {
    constexpr size_t kKinds = 25;  // those of a kernel of 5 by 5
    return down.runs.size() * across.runs.size() <= kKinds &&
           2 * down.longest() * across.longest() >= down.cuts.back() * across.cuts.back();
  }

  const Reach down, across;
};

// Rows of pixels, or single pixels, in the order of the result; the tables of offsets that a tile needs.
class DataTiles {
 public:
  DataTiles(const DataPass& pass, const Border& border, const Reaches& reaches, const Images& images, const Kernels& kernels,
            const Layout& layout, bool channels_inside)
      : pass_(pass),
        images_(images),
        kernels_(kernels),
        tile_kernel_(layout.pairs == Pairs::channels ? kernels.pairs->tile : kernels.tile) {
    const int64_t pixels = pass.height * pass.width, most = kernels.size.rows;
    const bool bare = images.in_place() && border.any();
    const int64_t row_tile = pass.width / divide_up(pass.width, most);
    // Tiles of adjacent pixels stay inside a row of the image; where rows are too short for that, tiles cross them. Inside
    // a row they can leave out the taps that find nothing but the border there, which is worth somewhat shorter tiles.
    const bool skips = !bare && row_tile * 2 >= most &&
                       static_cast<double>(reaches.down.pairs()) < 0.97 * static_cast<double>(pass.height * taps());
    // Where rows of pixels follow one another without a gap, tiles may cross them all the same.
    const bool adjacent = images.pixel * pass.step_w == 1, gapless = adjacent && images.row * pass.step_h == pass.width;
    in_rows_ = skips || (adjacent && !gapless && row_tile * 3 >= most * 2);
    adjacent_ = gapless || (adjacent && in_rows_);
    // Blocks of one size, as far as may be: a small last one would leave a thread without work.
    const int64_t unit = in_rows_ ? pass.width : most, largest = std::max<int64_t>(1, kBlockPixels / unit) * unit;
    per_block_ = divide_up(divide_up(pixels, divide_up(pixels, largest)), unit) * unit;
    blocks = divide_up(pixels, per_block_);
    out_step_ = in_rows_ || (!bare && pass.row_stride == pass.width * pass.pixel_stride) ? pass.pixel_stride : 0;

    const Reach down = skips || bare ? reaches.down : Reach(pass.height, pass.taps);
    const Reach across = bare ? reaches.across : Reach(pass.width, pass.taps);
    const Border zeros = bare ? Border() : border;
    for (size_t r = 0; r < down.runs.size(); ++r)
      for (size_t c = 0; c < across.runs.size(); ++c) {
        Region region{down.cuts[r], across.cuts[c], down.cuts[r + 1] - down.cuts[r], across.cuts[c + 1] - across.cuts[c], {}};
        const auto add = [&](int64_t t, int64_t channel) {
          if (!down.runs[r][t] || !across.runs[c][t]) return;
          const Tap& tap = pass.taps[t];
          region.steps.push_back(
              {(tap.h + zeros.top) * images.row + (tap.w + zeros.left) * images.pixel + channel * images.channel,
               channels_inside ? t * layout.elements + channel : channel * taps() + t});
        };
        if (channels_inside) {
          for (int64_t t = 0; t < taps(); ++t)
            for (int64_t channel = 0; channel < layout.elements; ++channel) add(t, channel);
        } else {
          for (int64_t channel = 0; channel < layout.elements; ++channel)
            for (int64_t t = 0; t < taps(); ++t) add(t, channel);
        }
        regions_.push_back(std::move(region));
      }
    if (in_rows_) {
      from_row_.resize(pass.width), to_row_.resize(pass.width);
      offsets(regions_[0], 0, pass.width, from_row_.data(), to_row_.data());
    }
  }

  int64_t block_pixels() const { return std::min(per_block_, pass_.height * pass_.width); }

  // One block of pixels; `tile` says all but the rows and the steps.
  void run(int64_t block, ConvTile tile) const {
    const bool single = adjacent_ && tile.columns <= kernels_.size.vector;
    const int64_t most = single ? kernels_.size.single_rows : kernels_.size.rows;
    tile.adjacent = adjacent_;
    tile.out_step = out_step_;
    const char* const x = static_cast<const char*>(tile.x);
    char* const out = static_cast<char*>(tile.out);
    int64_t begin = block * per_block_, end = begin + per_block_;
    for (const Region& region : regions_) {
      const int64_t pixels = region.height * region.width, last = std::min(end, pixels);
      if (begin < last) {
        const int64_t span = in_rows_ ? pass_.width : last - begin;
        const int64_t tiles = divide_up(span, most), rows = span / tiles, higher = span % tiles;
        tile.steps = region.steps.data();
        tile.k = static_cast<int64_t>(region.steps.size());
        int64_t from[kBlockPixels], to[kBlockPixels];
        if (!in_rows_) offsets(region, begin, last, from, to);
        for (int64_t start = begin; start < last; start += span) {
          if (in_rows_) {
            // As in the first row, moved.
            const int64_t i = region.top + start / pass_.width;
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
      begin = std::max<int64_t>(0, begin - pixels), end -= pixels;
      if (end <= 0) return;
    }
  }

  // What block `next` of an image reads and the one before it does not, in rows of the image: of `parts` parts one, to be fetched
  // by the tiles of a block that has so many columns.
  FetchAhead ahead(int64_t next, const char* image, int64_t part, int64_t parts, int64_t columns) const {
    const auto [low, high] = std::minmax_element(pass_.taps.begin(), pass_.taps.end(),
                                                 [](const Tap& a, const Tap& b) { return a.h < b.h; });
    const int64_t pixels = pass_.height * pass_.width, step = pass_.step_h, every = low->h == high->h ? step : 1;
    const auto end_of = [&](int64_t pixel) { return (pixel - 1) / pass_.width * step + high->h + 1; };
    const int64_t first = next * per_block_, height = pass_.source.size(2);
    const int64_t begin = std::max(first / pass_.width * step + low->h, first > 0 ? end_of(first) + every - 1 : 0);
    const int64_t top = std::clamp<int64_t>(begin, 0, height);
    const int64_t bottom = std::clamp<int64_t>(end_of(std::min(first + per_block_, pixels)), top, height);
    const int64_t rows = divide_up(bottom - top, every), from = rows * part / parts;
    FetchAhead ahead;
    ahead.rows = rows * (part + 1) / parts - from;
    ahead.stride = every * images_.row * kernels_.width;
    ahead.row = image + top * images_.row * kernels_.width + from * ahead.stride;
    ahead.bytes = pass_.source.size(3) * images_.pixel * kernels_.width;
    const int64_t chain = tile_kernel_ == kernels_.tile ? kConvChain : kConvPairsChain;
    size_t most_steps = 1;
    for (const Region& region : regions_) most_steps = std::max(most_steps, region.steps.size());
    const int64_t chains = divide_up(static_cast<int64_t>(most_steps), chain);
    const int64_t times = divide_up(per_block_, kernels_.size.rows) * divide_up(columns, kernels_.size.columns) * chains;
    ahead.lines = divide_up(ahead.rows * divide_up(ahead.bytes, kCacheLine), times);
    return ahead;
  }

  int64_t blocks;

 private:
  int64_t taps() const { return static_cast<int64_t>(pass_.taps.size()); }
  // Pixels of the result that the same taps reach the image from.
  struct Region {
    int64_t top, left, height, width;
    std::vector<ConvStep> steps;
  };
  // Where pixels [begin, end) of a region are found and where they go, in elements.
  void offsets(const Region& region, int64_t begin, int64_t end, int64_t* from, int64_t* to) const {
    const int64_t pixel = pass_.step_w * images_.pixel;
    int64_t i = region.top + begin / region.width, j = begin % region.width;
    for (int64_t p = begin; p < end; ++i, j = 0) {
      int64_t at = i * pass_.step_h * images_.row + (region.left + j) * pixel;
      int64_t out = i * pass_.row_stride + (region.left + j) * pass_.pixel_stride;
      for (const int64_t last = std::min(end, p + region.width - j); p < last; ++p, at += pixel, out += pass_.pixel_stride)
        *from++ = at, *to++ = out;
    }
  }

  const DataPass& pass_;
  const Images& images_;
  const Kernels& kernels_;
  void (*const tile_kernel_)(const ConvTile&);
  bool adjacent_, in_rows_;
  int64_t out_step_, per_block_;
  std::vector<int64_t> from_row_, to_row_;  // offsets of the first row
  std::vector<Region> regions_;
};

void run_pass(const DataPass& pass, const Kernels& kernels) {
  if (winograd(pass, kernels) || pointwise(pass, kernels)) return;
  if (few_terms(pass, kernels)) return run_pixels(pass, kernels);
  const Border border = border_of(pass);
  const Layout layout = Layout::of_channels(pass.inner, kernels);
  const Panels panels(pass.outer, kernels.size);
  const Reaches reaches(pass);
  // Of every other pixel a row of a low tile finds a part of a line in each plane, of adjacent channels whole lines.
  const Images images(pass.source, border, kernels, layout, /*spread=*/panels.count >= 4,
                      /*turn=*/kernels.low_tile() && pass.step_w > 1, /*bare=*/pass.result.stride(1) == 1 && reaches.few_kinds());
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

  const DataTiles tiles(pass, border, reaches, images, kernels, layout, channels_inside);
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
  // Pixels of adjacent channels lie too far apart for the hardware to see the next ones coming.
  const bool fetches = images.in_place() && images.channel == 1 && images.pixel * width >= kCacheLine &&
                       batch * images.bytes() > kFetchedImages;

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
        FetchAhead ahead;
        const int64_t next = images_inside ? (piece + 1) % pieces : piece + 1;
        if (fetches && next < pieces) {
          ahead = tiles.ahead(next % tiles.blocks, images.original(from + next / per_image), images_inside ? 0 : item % turns,
                              images_inside ? 1 : turns, tile.columns);
          tile.ahead = &ahead;
        }
        tiles.run(block, tile);
      }
    });
  }
}

// Passes that write the phases of one result, of which there is at least one pixel each.
void run(const std::vector<DataPass>& passes, const Kernels& kernels) {
  const DataPass& any = passes[0];
  const bool channels = by_channels(any.source, any.result, any.inner, any.outer, kernels);
  if (!channels && few_channels(any.outer, kernels)) {
    if (passes.size() == 1 && fills_pixels(any, kernels)) return run_pixels(any, kernels);
    return run_planes(passes, kernels);
  }
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

  const Kernels kernels(input.scalar_type());
  if (!strided(input, weight, b, p, kernels, result)) run({forward_pass(input, weight, b, p, result)}, kernels);
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
  const int64_t down = std::min(p.stride[0], result.size(2)), across = std::min(p.stride[1], result.size(3)), all = down * across;
  for (int64_t y = 0; y < down; ++y)
    for (int64_t x = 0; x < across; ++x) {
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
      if (!pass.taps.empty()) phases.push_back(std::move(pass));
    }
  // Pixels that no tap reached.
  if (static_cast<int64_t>(phases.size()) < all) fill_with_zeros(result);
  if (!phases.empty()) run(phases, Kernels(grad.scalar_type()));
  return result;
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
    fill_with_zeros(result);
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
  if (winograd_weight_gradient(grad, input, p, kernels, result) ||
      strided_weight_gradient(grad, input, p, kernels, result) ||
      pointwise_weight_gradient(grad, input, p, kernels, result) ||
      pixels_weight_gradient(grad, input, result, p, border, kernels))
    return result;
  const Layout layout = Layout::of_images(batch, kernels);
  const bool paired = layout.pairs == Pairs::images;
  const int64_t span = paired ? 2 : 1, units = divide_up(batch, span);  // images of an element; such groups of them
  const Images images(input, border, kernels, layout, /*spread=*/false, /*turn=*/false, /*bare=*/false);
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
      std::clamp<int64_t>(std::min(kWeightSums / part_bytes, divide_up(16, groups * panels.count)), 1, units);
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
  const bool one_run = grad.stride(2) == across * grad.stride(3);
  const auto accumulate = [&](int64_t part, int64_t group, int64_t panel, char* staged, char* packed) {
    char* const sum = sums_at(part, group, panel);
    const int64_t panel_width = panels.width_of(panel);
    // Channels side by side are read where they lie, if pixels are whole panels apart.
    const bool lies_packed = grad.stride(1) == 1 && panels.columns_of(panel) == panel_width && grad.stride(0) % panel_width == 0 &&
                             grad.stride(2) % panel_width == 0 && grad.stride(3) % panel_width == 0 &&
                             is_compute_type(kernels.dtype, kernels.compute);
    const int64_t panels_apart = grad.stride(3) / panel_width;
    ConvStep steps[kBlockPixels], some[kBlockPixels];
    int64_t out_rows[kMostRows];
    for (int64_t r = 0; r < kMostRows; ++r) out_rows[r] = r * panel_width;
    ConvTile tile;
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
      tile.b = lies_packed ? from : packed;
      for (int64_t begin = 0; begin < pixels; begin += block) {
        // Runs of pixels inside a row: their steps, and their gradients packed, all rows at once where they are one run.
        int64_t k = 0;
        int64_t pixel_rows[kBlockPixels];
        const auto pack_run = [&](int64_t image, int64_t i, int64_t j, int64_t run, int64_t step) {
          const char* const here = from + (image * span * grad.stride(0) + i * grad.stride(2) + j * grad.stride(3)) * element;
          char* const to = packed + step * panel_width * width;
          const auto to_width = static_cast<int>(panel_width);
          if (paired)
            kernels.pairs->pack(here, n + image * span + 1 < batch ? here + grad.stride(0) * element : nullptr,
                                grad.stride(1), grad.stride(3), panels.columns_of(panel), run, to_width, to);
          else
            kernels.pack(here, grad.stride(1), grad.stride(3), panels.columns_of(panel), run, to_width, to);
        };
        const int64_t end = std::min(begin + block, pixels);
        for (int64_t image = 0; image < images_here; ++image) {
          if (!lies_packed && one_run) pack_run(image, begin / across, begin % across, end - begin, k);
          for (int64_t at = begin; at < end;) {
            const int64_t i = at / across, j = at % across, run = std::min(end - at, across - j);
            if (!lies_packed && !one_run) pack_run(image, i, j, run, k);
            const int64_t panels_before = (image * grad.stride(0) + i * grad.stride(2)) / panel_width;
            for (int64_t t = 0; t < run; ++t) {
              steps[k + t] = {image * image_step + i * p.stride[0] * images.row + (j + t) * p.stride[1] * images.pixel,
                              lies_packed ? panels_before + (j + t) * panels_apart : k + t};
              pixel_rows[k + t] = i;
            }
            k += run;
            at += run;
          }
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
