// Convolution on the CPU with few channels to a group, or few terms to a sum: vectors run along the pixels of a row. Depthwise
// above all.
//
// Workspace: the weights once more; for each thread the bordered rows of kPlaneBytes, or of a few rows where these are longer,
// unless images are read where they lie, and the sums of as many, unless they are of the result's dtype. For weight gradients of
// few channels a bordered plane, a vector for each weight of a channel of the image, and at most 16 times the weights in f64.
#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "cpu/convolution.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu::conv {
namespace {

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
        split_(as_it_is_ ? from : line, inside_, border_.left, step_, to, part_, part_);
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
  void (*const split_)(const void*, int64_t, int64_t, int64_t, void*, int64_t, int64_t);
  const bool as_it_is_;  // a row needs no conversion
  const int64_t part_;
};

constexpr int64_t kPlaneBytes =
    256 << 10;  // of bordered rows that a task works on, or one row's taps where that is more

// Each group: its weights, which pack(group, piece, where the group's go) puts there in so many pieces, then its biases, zeros
// where there are none.
template <class F>
void pack_groups(const DataPass& pass, const Kernels& kernels, int64_t group_weights, int64_t group_biases, char* to,
                 int64_t pieces, F pack) {
  const int64_t width = kernels.width, group_bytes = (group_weights + group_biases) * width;
  parallel(pass.groups * pieces, (group_weights + group_biases) * 4 / pieces, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t group = item / pieces, piece = item % pieces;
      char* const at = to + group * group_bytes;
      pack(group, piece, at);
      if (piece > 0) continue;
      char* const bias = at + group_weights * width;
      std::memset(bias, 0, group_biases * width);
      if (!pass.bias.defined()) continue;
      const int64_t stride = pass.bias.stride(0) * static_cast<int64_t>(pass.bias.element_size());
      kernels.load(static_cast<const char*>(pass.bias.const_data_ptr()) + group * pass.outer * stride, stride, bias,
                   pass.outer);
    }
  });
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
    pack_groups(pass_, kernels_, group_weights_, pass_.outer, weights_.data(), 1, [&](int64_t group, int64_t, char* to) {
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
constexpr double kWorthSkipping = 0.9;  // of rows of pixels and taps, those that find the image
constexpr int64_t kPanelsTogether = 8;  // of pixels' weights, to pack
// Weight gradients of so few terms, from rows of so many vectors: to pack the gradient for tiles takes longer than they save.
constexpr int64_t kFewRows = 32, kLongRow = 3;
constexpr int64_t kRowBytes = 16 << 10;  // of bordered rows that stay in the first cache for all channels of the gradient

}  // namespace

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

namespace {

// Whether the kernel with pixels in its lanes can do it.
bool pixels_adjacent(const DataPass& pass, const Kernels& kernels) {
  return !pass.taps.empty() && pass.inner > 0 && kernels.pairs == nullptr && pass.pixel_stride == 1 &&
         pass.source.stride(3) == 1 && TENSOROPS_KERNELS(conv_kernels).pixels[static_cast<int>(kernels.compute)] != nullptr;
}

// Lanes of a row's vectors, and those of them that hold no pixel.
struct RowLanes {
  int64_t all, lost;
};
RowLanes row_lanes(const DataPass& pass, const Kernels& kernels) {
  const int64_t across = one_row(pass, kernels) ? pass.height * pass.width : pass.width;
  const int64_t all = divide_up(across, kernels.size.vector) * kernels.size.vector;
  return {all, all - across};
}

// The size of panel that fills up the channels with the fewest zeros, and which it is.
struct PixelPanel {
  int64_t channels, padded;
  int size;
};
PixelPanel pixel_panel(int64_t channels) {
  PixelPanel best{};
  for (int size = 0; size < kPixelPanels; ++size) {
    const int64_t panel = TENSOROPS_KERNELS(conv_kernels).pixel_channels[size], padded = divide_up(channels, panel) * panel;
    if (size == 0 || padded < best.padded) best = {panel, padded, size};
  }
  return best;
}

}  // namespace

bool few_terms(const DataPass& pass, const Kernels& kernels) {
  const int64_t k = pass.inner * static_cast<int64_t>(pass.taps.size());
  const auto [all, lost] = row_lanes(pass, kernels);
  return k <= kFewTerms && k * lost <= kTransposed * (all - lost) && pixels_adjacent(pass, kernels);
}

bool fills_pixels(const DataPass& pass, const Kernels& kernels) {
  const auto [all, lost] = row_lanes(pass, kernels);
  return pass.inner > 1 && 2 * pass.outer * (all - lost) >= pixel_panel(pass.outer).padded * all &&
         pixels_adjacent(pass, kernels);
}

void run_pixels(const DataPass& original, const Kernels& kernels) {
  const DataPass pass = sorted(original);
  const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
  const Border border = border_of(pass);
  const Planes planes(pass.source, border, pass.step_w, kernels);
  const int64_t width = kernels.width, lanes = kernels.size.vector;
  const auto [panel, padded, panel_size] = pixel_panel(pass.outer);
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

  // Where it pays, sums run over rows of taps first, so that those that find nothing but the border can be left out.
  std::vector<AlikeRows> runs = alike_rows(pass);
  int64_t reaching = 0, tap_columns = 0;
  for (const AlikeRows& run : runs) reaching += run.rows * run.taps;
  while (tap_columns < taps && pass.taps[tap_columns].h == pass.taps[0].h) ++tap_columns;
  if (static_cast<double>(reaching) >= kWorthSkipping * static_cast<double>(pass.height * taps)) {
    tap_columns = taps;
    runs = {{0, pass.height, 0, taps}};
  }
  const auto tap_rows = [&](const auto& f) {
    for (auto first = pass.taps.begin(); first != pass.taps.end(); first += tap_columns) f(first, first + tap_columns);
  };
  std::vector<int64_t> steps;
  tap_rows([&](auto first, auto last) {
    for (int64_t c = 0; c < pass.inner; ++c)
      for (auto tap = first; tap != last; ++tap)
        steps.push_back(c * plane + (in_place ? 0 : (tap->h + border.top) * planes.row + planes.column(tap->w + border.left)));
  });

  const Layout layout{Pairs::none, pass.inner, pass.inner};
  const int64_t group_weights = padded * k, group_bytes = (group_weights + padded) * width;
  const Scratch weights(pass.groups * group_bytes);
  // Of one tap, some panels side by side: the weights of adjacent channels may lie together.
  const int64_t together = panel * (taps == 1 ? kPanelsTogether : 1);
  pack_groups(pass, kernels, group_weights, padded, weights.data(), divide_up(pass.outer, together),
              [&](int64_t group, int64_t piece, char* to) {
    const int64_t first = piece * together;
    to += first * k * width;
    DataPass some = pass;
    tap_rows([&](auto first_tap, auto last_tap) {
      some.taps.assign(first_tap, last_tap);
      pack_weights(some, kernels, layout, group, first, std::min(together, pass.outer - first), panel, 0, pass.inner, false, to);
      to += pass.inner * tap_columns * panel * width;
    });
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
      const char* const group_data = weights.data() + group * group_bytes;
      p.panel = panel_size;
      p.weight_panel = panel * k;
      p.bias = group_data + group_weights * width;
      p.channels = pass.outer;
      const auto run = [&](int64_t first_tap, int64_t tap_count) {
        p.steps = steps.data() + first_tap * pass.inner;
        p.k = tap_count * pass.inner;
        p.weight = group_data + first_tap * pass.inner * panel * width;
        p.vectors = vectors.data();
        p.vector_count = static_cast<int64_t>(vectors.size());
        pixels_kernel(p);
        vectors.clear();
      };
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
        run(0, taps);
      } else {
        const int64_t first = part * block, here = std::min(block, height - first);
        for (int64_t c = 0; c < pass.inner; ++c)
          planes.copy(n, group * pass.inner + c, first * pass.step_h, (here - 1) * pass.step_h + reach,
                      copies.data() + c * plane * width, line.data());
        const int64_t out_row = plain ? pass.row_stride : across;
        p.x = copies.data();
        p.out = plain ? out + first * pass.row_stride * element : sums.data();
        p.out_channel = plain ? out_channel : here * across;
        for (const AlikeRows& alike : runs) {
          const int64_t begin_row = std::max<int64_t>(alike.first - first, 0);
          const int64_t end_row = std::min(alike.first + alike.rows - first, here);
          for (int64_t i = begin_row; i < end_row; ++i)
            for (int64_t j = 0; j < across; j += lanes)
              vectors.push_back({i * pass.step_h * planes.row + j, i * out_row + j, std::min(lanes, across - j)});
          if (!vectors.empty()) run(alike.tap, alike.taps);
        }
      }
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

namespace {

// What the taps of a weight gradient read of bordered planes: the rows of a plane, and where each tap begins.
struct BorderedTaps {
  int64_t rows;
  std::vector<int64_t> steps;
};
BorderedTaps bordered_taps(const Planes& planes, const Tensor& grad, const Tensor& result, const Params& p) {
  BorderedTaps found{(grad.size(2) - 1) * p.stride[0] + (result.size(2) - 1) * p.dilation[0] + 1, {}};
  for (int64_t h = 0; h < result.size(2); ++h)
    for (int64_t w = 0; w < result.size(3); ++w)
      found.steps.push_back(h * p.dilation[0] * planes.row + planes.column(w * p.dilation[1]));
  return found;
}

}  // namespace

// One channel in, one channel out: for each pair, the images in order.
void plane_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                           const Border& border, const Kernels& kernels) {
  const Planes planes(input, border, p.stride[1], kernels);
  const int64_t width = kernels.width, outer = result.size(0) / p.groups, taps = result.size(2) * result.size(3);
  const int64_t height = grad.size(2), across = grad.size(3);
  BorderedTaps bordered = bordered_taps(planes, grad, result, p);
  const int64_t rows = bordered.rows;
  std::vector<int64_t>& steps = bordered.steps;
  const auto element = static_cast<int64_t>(grad.element_size());
  const bool plain = is_compute_type(kernels.dtype, kernels.compute), direct = grad.stride(3) == 1 && plain;
  const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
  const auto masked_kernel = table.masked_plane_gradient[static_cast<int>(kernels.compute)];
  const int64_t tap_rows = result.size(2), tap_columns = result.size(3);
  // Read where it lies: taps beside the image are masked off, those above and below it left out.
  const bool in_place = masked_kernel != nullptr && plain && p.stride[1] <= 2 && tap_columns == kMaskedTaps &&
                        input.stride(3) == 1 && input.stride(2) > 0;
  const auto kernel = in_place ? masked_kernel : table.plane_gradient[static_cast<int>(kernels.compute)];
  std::vector<int64_t> tap_begin, tap_end;
  for (int64_t h = 0; h < tap_rows; ++h) {
    const int64_t below = h * p.dilation[0] - p.padding[0];
    for (int64_t w = 0; in_place && w < tap_columns; ++w)
      steps[h * tap_columns + w] = below * input.stride(2) + w * p.dilation[1] - p.padding[1];
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

// Parts of the batch for each pair of a group and a channel of the image; the parts are added in order.
bool pixels_weight_gradient(const Tensor& grad, const Tensor& input, const Tensor& result, const Params& p,
                            const Border& border, const Kernels& kernels) {
  const ConvKernels& table = TENSOROPS_KERNELS(conv_kernels);
  const auto kernel = table.pixels_gradient[static_cast<int>(kernels.compute)];
  const int64_t outer = result.size(0) / p.groups, inner = result.size(1), taps = result.size(2) * result.size(3);
  const int64_t batch = grad.size(0), height = grad.size(2), across = grad.size(3), lanes = kernels.size.vector;
  const bool few = few_channels(outer, kernels) || (inner * taps <= kFewRows && across >= kLongRow * lanes);
  const bool filled = 4 * across >= 3 * divide_up(across, lanes) * lanes;
  if (!few || !filled || kernel == nullptr || !is_compute_type(kernels.dtype, kernels.compute) || grad.stride(3) != 1) return false;
  const Planes planes(input, border, p.stride[1], kernels);
  const int64_t width = kernels.width, sums = outer * taps;
  const BorderedTaps bordered = bordered_taps(planes, grad, result, p);
  const int64_t block = std::clamp<int64_t>(kRowBytes / (p.stride[0] * planes.row * width), 1, height);
  const int64_t pairs = p.groups * inner, parts = std::clamp<int64_t>(divide_up(16, pairs), 1, batch);
  const char* const grads = static_cast<const char*>(grad.const_data_ptr());
  const int64_t grad_image = grad.stride(0), grad_channel = grad.stride(1), grad_row = grad.stride(2);
  const auto total = table.sum_run[static_cast<int>(kernels.compute)];
  std::vector<double> totals(parts * pairs * sums);
  parallel(parts * pairs, divide_up(batch, parts) * height * across * sums / 4, [&](int64_t begin, int64_t end) {
    const Scratch x(planes.elements(bordered.rows) * width), line(planes.line_bytes()), vectors(sums * lanes * width);
    ConvPixelsGradient gradient;
    gradient.x_row = p.stride[0] * planes.row;
    gradient.steps = bordered.steps.data();
    gradient.k = taps;
    gradient.grad_row = grad_row;
    gradient.grad_channel = grad_channel;
    gradient.width = across;
    gradient.channels = outer;
    gradient.sums = vectors.data();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task / pairs, pair = task % pairs, group = pair / inner;
      std::memset(vectors.data(), 0, sums * lanes * width);
      for (int64_t n = batch * part / parts; n < batch * (part + 1) / parts; ++n) {
        planes.copy(n, pair, 0, bordered.rows, x.data(), line.data());
        for (int64_t first = 0; first < height; first += block) {
          gradient.x = x.data() + first * gradient.x_row * width;
          gradient.grad = grads + (n * grad_image + group * outer * grad_channel + first * grad_row) * width;
          gradient.height = std::min(block, height - first);
          kernel(gradient);
        }
      }
      for (int64_t i = 0; i < sums; ++i) total(vectors.data() + i * lanes * width, lanes, &totals[task * sums + i]);
    }
  });
  // From (channel of the image, out channel, tap).
  const auto place = [&](int64_t o, int64_t c, int64_t h, int64_t w) {
    return static_cast<char*>(result.data_ptr()) +
           (o * result.stride(0) + c * result.stride(1) + h * result.stride(2) + w * result.stride(3)) * width;
  };
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int64_t i = 0; i < sums; ++i) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += totals[(part * pairs + pair) * sums + i];
      const int64_t tap = i % taps;
      char* const to = place(pair / inner * outer + i / taps, pair % inner, tap / result.size(3), tap % result.size(3));
      if (kernels.compute == Compute::f64) std::memcpy(to, &sum, sizeof(sum));
      else *reinterpret_cast<float*>(to) = static_cast<float>(sum);
    }
  return true;
}

}  // namespace tensorops::cpu::conv
