// Winograd's convolution on the CPU (kernels/winograd.h): rows of tiles are taken a block at a time, small enough for its
// points to stay in the second cache between the transforms and the products; or, where tiles are few and weights many, panels
// of weights are.
//
// Workspace: the weights at all points; per thread, a block's points of the image and of the result (kBlockBytes, or those of
// one row of tiles; of few channels the image's alone, kFewBytes). By panels: some rows of tiles of the image at all points; per
// thread, points of kChannelsOfPanel channels of a panel's weights, and those of its result (kPanelBytes, or those of one row of
// tiles). For the weight gradient, sums at all points (kSumsBytes, or one part of them).
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cpu/convolution.h"
#include "cpu/kernels/winograd.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu::conv {
namespace {

constexpr int64_t kTile = kWinogradTile;
constexpr int64_t kChain = 32;              // rounding errors of long chains are what the transforms magnify
constexpr int64_t kBlockBytes = 512 << 10;
constexpr int64_t kFewBytes = 64 << 10;     // of few channels, whose products are not stored
constexpr int64_t kPanelBytes = 1 << 20;    // of the result, by panels
constexpr int64_t kSumsBytes = 8 << 20;
constexpr int64_t kRangeBytes = 1 << 20;    // of sums that a task of the weight gradient adds to
constexpr int64_t kTilesBytes = 256 << 10;  // of an image's tiles that one works on, where these are few
constexpr int64_t kFewTiles = 64;
constexpr int64_t kChannelsTogether = 16;   // of weights, in one task
constexpr int64_t kChannelsOfPanel = 64;    // of weights that are at all points at a time where a task takes a whole panel
constexpr int64_t kPanels = 8;              // at least, for panels to be worked on by themselves
constexpr int64_t kFewestChannels = 3, kFewestTerms = 27;  // with fewer, torch's short sums have less than half of our error
constexpr int64_t kBlocks = 8;              // at least, where there are rows of tiles enough
constexpr int64_t kTilesOfPart = 256;       // of the weight gradient
constexpr int64_t kFewestParts = 4, kMostParts = 16;

// What the transforms for one size of kernel need to know.
struct Method {
  Method(const WinogradSize& size, const Kernels& kernels)
      : table(TENSOROPS_KERNELS(winograd_kernels)),
        transforms(table.transforms[size.taps - 2]),
        load(table.load[static_cast<int>(kernels.dtype)]),
        store(table.store[static_cast<int>(kernels.dtype)]),
        taps(size.taps),
        points(transforms.points),
        phase(size.phases == Phases::of_odd_kernel ? size.inner / 4 : 0),
        width(kernels.width),
        vector(kernels.size.vector) {}

  int64_t channel_blocks(int64_t channels) const { return divide_up(channels, vector); }
  // Elements of `count` vectors at one point: a line more, lest all points fall into one set of the first cache.
  int64_t point(int64_t count) const { return count * vector + kCacheLine / width; }
  // Of channels [first, last), those whose weights at a point are not all zeros.
  std::pair<int64_t, int64_t> channels_at(int64_t point, int64_t first, int64_t last) const {
    if (phase == 0) return {first, last};
    constexpr int64_t kPhases[][2] = {{0, 4}, {0, 2}, {1, 3}, {1, 2}};  // by WinogradNeeds
    const auto [from, until] = kPhases[static_cast<int>(transforms.needs[point])];
    return {std::clamp(from * phase, first, last), std::clamp(until * phase, first, last)};
  }

  const WinogradKernels& table;
  const WinogradTransforms& transforms;
  void (*const load)(const WinogradPixels&);
  void (*const store)(const WinogradPixels&);
  const int64_t taps, points;
  const int64_t phase;  // channels of each phase of an odd kernel, or 0
  const int64_t width, vector;
};

// Rows of tiles, those of all images one after another, in blocks of about the same size.
class TileRows {
 public:
  TileRows(int64_t batch, int64_t height, int64_t width, int64_t bytes_of_tile, int64_t bytes_of_block = kBlockBytes)
      : per_image(divide_up(height, kTile)), across(divide_up(width, kTile)), count(batch * per_image) {
    const int64_t affordable = std::max<int64_t>(1, bytes_of_block / (bytes_of_tile * across));
    blocks = divide_up(count, std::min(affordable, divide_up(count, kBlocks)));
  }
  int64_t begin(int64_t block) const { return count * block / blocks; }
  int64_t most_rows() const { return divide_up(count, blocks); }
  int64_t most_tiles() const { return most_rows() * across; }

  // f(image, first row of tiles in it, rows, tiles of the block before them) for the images that rows [begin, end) are from.
  template <class F>
  void images(int64_t begin, int64_t end, const F& f) const {
    for (int64_t row = begin; row < end;) {
      const int64_t n = row / per_image, first = row % per_image, rows = std::min(end - row, per_image - first);
      f(n, first, rows, (row - begin) * across);
      row += rows;
    }
  }

  int64_t per_image, across, count, blocks;
};

// A tensor's pixels from (top, left), which may lie outside it, as vectors of channels.
struct Source {
  const Tensor& tensor;
  int64_t top, left;

  // Rows [begin, begin + rows) of `across` pixels, zeros where the tensor has none.
  void load(const Method& m, int64_t n, int64_t channel, int64_t channels, int64_t begin, int64_t rows, int64_t across,
            char* to) const {
    const int64_t bytes = m.vector * m.width, line = across * bytes;
    const int64_t first = std::clamp<int64_t>(begin + top, 0, tensor.size(2));
    const int64_t last = std::clamp<int64_t>(begin + top + rows, first, tensor.size(2));
    const int64_t from = std::clamp<int64_t>(left, 0, tensor.size(3));
    const int64_t until = std::clamp<int64_t>(left + across, from, tensor.size(3));
    if (first == last || from == until) {
      std::memset(to, 0, rows * line);
      return;
    }
    const int64_t above = first - begin - top, before = from - left;
    std::memset(to, 0, above * line);
    char* const inside = to + above * line;
    for (int64_t h = 0; h < last - first; ++h) {
      std::memset(inside + h * line, 0, before * bytes);
      std::memset(inside + h * line + (until - left) * bytes, 0, line - (until - left) * bytes);
    }
    std::memset(inside + (last - first) * line, 0, (rows - above - (last - first)) * line);
    WinogradPixels p;
    // Read only: load() shares its parameters with store().
    p.tensor = const_cast<char*>(static_cast<const char*>(tensor.const_data_ptr())) +
               (n * tensor.stride(0) + channel * tensor.stride(1) + first * tensor.stride(2) + from * tensor.stride(3)) *
                   static_cast<int64_t>(tensor.element_size());
    p.channel = tensor.stride(1), p.row = tensor.stride(2), p.pixel = tensor.stride(3);
    p.channels = channels;
    p.rows = last - first, p.width = until - from;
    p.vectors = inside + before * bytes;
    p.vectors_row = across * m.vector;
    m.load(p);
  }
};

// Points of `channels` channels of the image, or of the result's gradient, from `channel` on, and of as many more as fill up
// `tile`, for rows of tiles [begin, end).
void transform(const Method& m, bool gradient, const TileRows& rows, const Source& source, int64_t begin, int64_t end,
               int64_t channel, int64_t channels, char* band, char* points, int64_t point, int64_t tile) {
  const int64_t overlap = gradient ? 0 : m.taps - 1, across = kTile * rows.across + overlap;
  const auto kernel = gradient ? m.transforms.gradient : m.transforms.image;
  rows.images(begin, end, [&](int64_t n, int64_t first, int64_t count, int64_t tiles) {
    for (int64_t c = 0; c < tile; c += m.vector) {
      source.load(m, n, channel + c, std::clamp<int64_t>(channels - c, 0, m.vector), kTile * first, kTile * count + overlap, across,
                  band);
      WinogradTiles t;
      t.tiles = rows.across;
      t.pixels_row = across * m.vector;
      t.point = point, t.tile = tile;
      for (int64_t row = 0; row < count; ++row) {
        t.pixels = band + kTile * row * across * m.vector * m.width;
        t.points = points + ((tiles + row * rows.across) * tile + c) * m.width;
        kernel(t);
      }
    }
  });
}
int64_t band_bytes(const Method& m, const TileRows& rows) {
  return (kTile * std::min(rows.most_rows(), rows.per_image) + m.taps - 1) * (kTile * rows.across + m.taps - 1) * m.vector *
         m.width;
}

// With few channels most lanes of their vectors would be empty: tiles are in the lanes instead. Points of rows of tiles
// [begin, end) go to [point][channel][tile], so many elements for each point and channel; or, where `point` is 1, to
// [channel][tile][point], where what one tile needs lies together. `band` has room for lanes_bytes().
constexpr int64_t kMostLanes = 16;
bool tiles_in_lanes(const Method& m, int64_t channels) {
  return channels >= kWinogradFewest && channels <= kWinogradFew && m.phase == 0;
}
int64_t band_row(const Method& m, const TileRows& rows) { return kTile * rows.across + m.taps - 1 + m.vector; }
int64_t lanes_bytes(const Method& m, const TileRows& rows) {
  const int64_t size = m.taps + kTile - 1;
  return (rows.most_rows() * size * band_row(m, rows) + (size * size + m.points) * m.vector) * m.width;
}
int64_t points_row(const Method& m) { return divide_up(m.points, m.vector) * m.vector; }
void transform_lanes(const Method& m, const Kernels& kernels, const TileRows& rows, const Source& source, int64_t begin,
                     int64_t end, int64_t channel, int64_t channels, char* band, char* points, int64_t point,
                     int64_t channel_stride) {
  const Tensor& image = source.tensor;
  const int64_t size = m.taps + kTile - 1, row = band_row(m, rows), element = static_cast<int64_t>(image.element_size());
  const int64_t line = row * m.width, height = image.size(2);
  const int64_t from = std::clamp<int64_t>(source.left, 0, image.size(3));
  const int64_t until = std::clamp<int64_t>(source.left + kTile * rows.across + m.taps - 1, from, image.size(3));
  char* const vectors = band + rows.most_rows() * size * line;
  char* const turned = vectors + size * size * m.vector * m.width;
  const GemmPack turn = TENSOROPS_KERNELS(gemm_kernels).pack[static_cast<int>(kernels.compute_dtype())];
  WinogradLanes lanes;
  lanes.row = row, lanes.size = size, lanes.vectors = vectors;
  WinogradTiles t;
  t.tiles = 1;
  t.pixels = vectors, t.pixels_row = size * m.vector;
  const bool turns = point == 1;
  t.point = turns ? m.vector : point;
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = r / rows.per_image, top = kTile * (r % rows.per_image) + source.top;
      char* to = band + (r - begin) * size * line;
      for (int64_t h = top; h < top + size; ++h, to += line) {
        if (h < 0 || h >= height) {
          std::memset(to, 0, line);
          continue;
        }
        std::memset(to, 0, (from - source.left) * m.width);
        kernels.load(static_cast<const char*>(image.const_data_ptr()) +
                         (n * image.stride(0) + (channel + c) * image.stride(1) + h * image.stride(2) + from * image.stride(3)) *
                             element,
                     image.stride(3) * element, to + (from - source.left) * m.width, until - from);
        std::memset(to + (until - source.left) * m.width, 0, line - (until - source.left) * m.width);
      }
    }
    const int64_t last = (end - begin) * rows.across - 1;
    for (int64_t first = 0; first <= last; first += m.vector) {
      const void* at[kMostLanes];
      for (int64_t l = 0; l < m.vector; ++l) {
        const int64_t tile = std::min(first + l, last);
        at[l] = band + (tile / rows.across * size * row + tile % rows.across * kTile) * m.width;
      }
      lanes.rows = at;
      m.table.lanes(lanes);
      t.points = turns ? turned : points + (c * channel_stride + first) * m.width;
      m.transforms.image(t);
      if (!turns) continue;
      turn(turned, m.vector, 1, m.points, m.vector, static_cast<int>(points_row(m)),
           points + (c * channel_stride + first * points_row(m)) * m.width);
    }
  }
}

// The products at one point with all panels, of which set(panel) gives b. To copy what has just been written in other pieces
// would stall, so it is the same product for all points.
template <class F>
void multiply(const Method& m, WinogradProduct& p, const Panels& panels, const F& set) {
  char* const c = static_cast<char*>(p.c);
  for (int64_t panel = 0; panel < panels.count; ++panel) {
    set(panel);
    p.columns = panels.columns_of(panel);
    p.c = c + panels.begin(panel) * m.width;
    m.table.product(p);
  }
}

// A pass whose taps are a square without gaps, in the order of its rows. Returns 0 where they are none that there is a
// transform for.
int64_t order_taps(DataPass& pass) {
  const size_t count = pass.taps.size();
  const int64_t taps = count == 4 ? 2 : count == 9 ? 3 : count == 16 ? 4 : count == 25 ? 5 : 0;
  if (taps == 0 || pass.step_h != 1 || pass.step_w != 1) return 0;
  std::sort(pass.taps.begin(), pass.taps.end(), [](const Tap& a, const Tap& b) { return a.h != b.h ? a.h < b.h : a.w < b.w; });
  for (int64_t t = 0; t < taps * taps; ++t)
    if (pass.taps[t].h != pass.taps[0].h + t / taps || pass.taps[t].w != pass.taps[0].w + t % taps) return 0;
  return taps;
}

// TENSOROPS_WINOGRAD: 0 for never, "always" for tests, which try it at sizes where it does not pay.
bool is_wished(const char* wish) {
  const char* const value = std::getenv("TENSOROPS_WINOGRAD");
  return value != nullptr && std::strcmp(value, wish) == 0;
}
bool has_method(const Kernels& kernels) {
  static const bool never = is_wished("0");
  return !never && kernels.compute == Compute::f32 && TENSOROPS_KERNELS(winograd_kernels).product != nullptr;
}

// Whether it takes less time than the direct way, both counted in multiply-adds of vectors. What the transforms take was
// measured: of a vector's worth of one tile of the image and of the result, and of one vector of weights.
struct Costs {
  double image, result, weights;
};
// `share`: of the peak, that the direct way reaches, which pairs of bf16 double.
bool pays(const WinogradSize& size, const Kernels& kernels, const Costs& costs, double share) {
  const Method m(size, kernels);
  constexpr double kProducts = 0.9, kWorthwhile = 0.95;  // shares of the peak, and of the direct way's time
  int64_t at_points = 0;  // channels, of all points together
  for (int64_t point = 0; point < m.points; ++point) {
    const auto [from, until] = m.channels_at(point, 0, size.inner);
    at_points += until - from;
  }
  const auto pixels = static_cast<double>(size.batch * size.height * size.width);
  const auto tiles = static_cast<double>(size.batch * divide_up(size.height, kTile) * divide_up(size.width, kTile));
  const auto in = static_cast<double>(m.channel_blocks(size.inner)), out = static_cast<double>(m.channel_blocks(size.outer));
  const double winograd = tiles * (static_cast<double>(at_points) * out / kProducts + in * costs.image + out * costs.result) +
                          static_cast<double>(size.inner) * out * costs.weights;
  const double direct = pixels * static_cast<double>(size.terms()) * out / (kernels.pairs == nullptr ? share : 2 * share);
  static const bool always = is_wished("always");
  return always || winograd < kWorthwhile * direct;
}

// A pass in the direction of the data.
class Forward {
 public:
  Forward(const DataPass& pass, const Kernels& kernels, const Method& m)
      : pass_(pass),
        kernels_(kernels),
        m_(m),
        panels_(pass.outer, kernels.size),
        width_(m.width),
        few_(tiles_in_lanes(m, pass.inner)),
        channels_(few_ ? pass.inner : m.channel_blocks(pass.inner) * m.vector),
        outer_(panels_.total()),
        source_{pass.source, pass.taps[0].h, pass.taps[0].w},
        rows_(pass.source.size(0), pass.height, pass.width, m.points * (channels_ + (few_ ? 0 : outer_)) * m.width,
              few_ ? kFewBytes : kBlockBytes) {
    tap_ = pass.taps[1].weight - pass.taps[0].weight;
    bool even = true;
    for (size_t t = 0; t < pass.taps.size(); ++t)
      even &= pass.taps[t].weight == pass.taps[0].weight + static_cast<int64_t>(t) * tap_;
    in_place_ = even && pass.weight_outer == 1 && kernels.dtype == kernels.compute_dtype();
  }

  // Whether all of the result is finite.
  bool run() {
    const Scratch bias(outer_ * width_);
    for (int64_t group = 0; group < pass_.groups; ++group) {
      std::memset(bias.data(), 0, outer_ * width_);
      if (pass_.bias.defined()) {
        const int64_t stride = pass_.bias.stride(0) * static_cast<int64_t>(pass_.bias.element_size());
        kernels_.load(static_cast<const char*>(pass_.bias.const_data_ptr()) + group * pass_.outer * stride, stride, bias.data(),
                      pass_.outer);
      }
      // What is read again and again is all weights for each block of tiles, or all tiles for each panel of weights.
      if (few_) run_few(group, bias.data());
      else if (rows_.most_tiles() < kernels_.size.columns && panels_.count >= kPanels) run_panels(group, bias.data());
      else run_blocks(group, bias.data());
    }
    return finite_;
  }

 private:
  // Elements of one point of the weights of `channels` channels, [channel][the panel's width], and bytes of all points.
  int64_t weights_point(int64_t channels, int64_t panel_width) const { return channels * panel_width + kCacheLine / width_; }
  int64_t weights_bytes(int64_t channels) const { return m_.points * weights_point(channels, kernels_.size.columns) * width_; }
  int64_t packed_bytes(int64_t channels) const { return channels * m_.taps * m_.taps * kernels_.size.columns * width_; }

  // Channels [channel, channel + count) of a panel's weights at all points, which are `point` apart; `packed` has room for so
  // many.
  void weights(int64_t group, int64_t panel, int64_t channel, int64_t count, char* packed, char* points, int64_t point) const {
    const int64_t panel_width = panels_.width_of(panel), first = panels_.begin(panel);
    if (in_place_ && panels_.columns_of(panel) == panel_width) {
      const int64_t at = group * pass_.weight_group + first + channel * pass_.weight_inner + pass_.taps[0].weight;
      m_.transforms.weights(static_cast<const char*>(pass_.weight.const_data_ptr()) + at * width_, count, pass_.weight_inner,
                            tap_, panel_width, points, point);
      return;
    }
    const bool channels_inside = pass_.weight_inner == 1;  // in the order in which they lie
    pack_weights(pass_, kernels_, {Pairs::none, pass_.inner, pass_.inner}, group, first, panels_.columns_of(panel), panel_width,
                 channel, count, channels_inside, packed);
    m_.transforms.weights(packed, count, (channels_inside ? 1 : m_.taps * m_.taps) * panel_width,
                          (channels_inside ? count : 1) * panel_width, panel_width, points, point);
  }

  // Image by weights.
  WinogradProduct product() const {
    WinogradProduct p;
    p.a_row = channels_, p.a_step = 1;
    p.chain = kChain;
    return p;
  }

  // Room for the pixels of one image's rows of tiles, `rows` of them at most.
  int64_t pixels_bytes(int64_t rows) const {
    return kTile * std::min(rows, rows_.per_image) * pass_.width * m_.vector * width_;
  }
  // Out channels [first, first + count) of rows of tiles [begin, end), from their points, of which tiles are `tile` apart.
  void store(int64_t group, int64_t begin, int64_t end, int64_t first, int64_t count, const char* bias, char* points,
             int64_t point, int64_t tile, char* pixels) {
    const int64_t vector = m_.vector, row_bytes = pass_.width * vector * width_;
    rows_.images(begin, end, [&](int64_t n, int64_t first_row, int64_t row_count, int64_t tiles) {
      const int64_t top = kTile * first_row, height = std::min(kTile * row_count, pass_.height - top);
      for (int64_t o = 0; o < count; o += vector) {
        WinogradTiles t;
        t.tiles = rows_.across;
        t.pixels_row = pass_.width * vector;
        t.point = point, t.tile = tile;
        t.width = pass_.width;
        t.bias = bias + (first + o) * width_;
        bool all = true;
        for (int64_t row = 0; row < row_count; ++row) {
          t.pixels = pixels + kTile * row * row_bytes;
          t.points = points + ((tiles + row * rows_.across) * tile + o) * width_;
          t.rows = std::min(kTile, height - kTile * row);
          all &= m_.transforms.result(t);
        }
        if (!all) finite_ = false;
        put(group, n, top, height, first + o, std::min(vector, count - o), pixels);
      }
    });
  }
  // `count` channels from `channel` on of an image's rows [top, top + height) from vectors of pixels.
  void put(int64_t group, int64_t n, int64_t top, int64_t height, int64_t channel, int64_t count, char* pixels) const {
    WinogradPixels out;
    out.tensor = static_cast<char*>(pass_.result.data_ptr()) +
                 (pass_.offset + n * pass_.result.stride(0) + (group * pass_.outer + channel) * pass_.result.stride(1) +
                  top * pass_.row_stride) *
                     static_cast<int64_t>(pass_.result.element_size());
    out.channel = pass_.result.stride(1), out.row = pass_.row_stride, out.pixel = pass_.pixel_stride;
    out.channels = count;
    out.rows = height, out.width = pass_.width;
    out.vectors = pixels, out.vectors_row = pass_.width * m_.vector;
    m_.store(out);
  }

  // All weights at all points, panel by panel.
  void all_weights(int64_t group, char* to) const {
    const int64_t panel_bytes = weights_bytes(pass_.inner), pieces = divide_up(pass_.inner, kChannelsTogether);
    parallel(panels_.count * pieces, kChannelsTogether * kernels_.size.columns * m_.points * 4, [&](int64_t begin, int64_t end) {
      const Scratch packed(packed_bytes(kChannelsTogether));
      for (int64_t item = begin; item < end; ++item) {
        const int64_t panel = item / pieces, channel = item % pieces * kChannelsTogether;
        const int64_t panel_width = panels_.width_of(panel);
        weights(group, panel, channel, std::min(kChannelsTogether, pass_.inner - channel), packed.data(),
                to + panel * panel_bytes + channel * panel_width * width_, weights_point(pass_.inner, panel_width));
      }
    });
  }

  // Few channels: no products are stored, for it takes longer to come back to them than to make them.
  void run_few(int64_t group, const char* bias) {
    const int64_t panel_bytes = weights_bytes(pass_.inner);
    const Scratch weights(panels_.count * panel_bytes);
    all_weights(group, weights.data());
    const int64_t lanes = divide_up(rows_.most_tiles(), m_.vector) * m_.vector;  // of tiles, filled up
    const int64_t tile = points_row(m_), image_channel = lanes * tile + kCacheLine / width_;
    const auto result_of_few = m_.transforms.result_of_few[pass_.inner - kWinogradFewest];
    // A vector's worth of out channels from `channel` on of one row of tiles, by way of `pixels`.
    const auto make = [&](int64_t row, int64_t channel, const char* image, char* pixels) {
      const int64_t panel = channel / kernels_.size.columns, panel_width = panels_.width_of(panel);
      WinogradFactors factors;
      factors.image = image, factors.image_tile = tile, factors.image_channel = image_channel;
      factors.weights = weights.data() + panel * panel_bytes + (channel - panels_.begin(panel)) * width_;
      factors.weights_point = weights_point(pass_.inner, panel_width), factors.weights_channel = panel_width;
      const int64_t top = kTile * (row % rows_.per_image);
      WinogradTiles t;
      t.tiles = rows_.across, t.width = pass_.width, t.rows = std::min(kTile, pass_.height - top);
      t.pixels = pixels, t.pixels_row = pass_.width * m_.vector;
      t.bias = bias + channel * width_;
      if (!result_of_few(t, factors)) finite_ = false;
      put(group, row / rows_.per_image, top, t.rows, channel, std::min(m_.vector, pass_.outer - channel), pixels);
    };
    // Weights stay in the first cache where the order of the result's memory allows it.
    const bool last = pass_.result.stride(1) == 1;
    parallel(rows_.blocks, rows_.most_tiles() * m_.points * channels_ * outer_ / 4, [&](int64_t begin_block, int64_t end_block) {
      const Scratch band(lanes_bytes(m_, rows_)), image(pass_.inner * image_channel * width_), pixels(pixels_bytes(1));
      for (int64_t block = begin_block; block < end_block; ++block) {
        const int64_t begin = rows_.begin(block), end = rows_.begin(block + 1), vectors = divide_up(pass_.outer, m_.vector);
        transform_lanes(m_, kernels_, rows_, source_, begin, end, group * pass_.inner, pass_.inner, band.data(), image.data(), 1,
                        image_channel);
        for (int64_t item = 0; item < vectors * (end - begin); ++item) {
          const int64_t row = last ? item / vectors : item % (end - begin), v = last ? item % vectors : item / (end - begin);
          make(begin + row, v * m_.vector, image.data() + row * rows_.across * tile * width_, pixels.data());
        }
      }
    });
  }

  // All weights at all points first, then block after block of tiles.
  void run_blocks(int64_t group, const char* bias) {
    const int64_t panel_bytes = weights_bytes(pass_.inner);
    const Scratch weights(panels_.count * panel_bytes);
    all_weights(group, weights.data());
    const auto weights_of = [&](int64_t panel) { return weights.data() + panel * panel_bytes; };
    const auto point_of = [&](int64_t panel) { return weights_point(pass_.inner, panels_.width_of(panel)); };
    const int64_t image_point = m_.point(rows_.most_tiles() * channels_ / m_.vector);
    const int64_t result_point = m_.point(rows_.most_tiles() * outer_ / m_.vector);
    parallel(rows_.blocks, rows_.most_tiles() * m_.points * channels_ * outer_ / 4, [&](int64_t begin_block, int64_t end_block) {
      const Scratch band(band_bytes(m_, rows_)), image(m_.points * image_point * width_);
      const Scratch result(m_.points * result_point * width_), pixels(pixels_bytes(rows_.most_rows()));
      for (int64_t block = begin_block; block < end_block; ++block) {
        const int64_t begin = rows_.begin(block), end = rows_.begin(block + 1);
        transform(m_, false, rows_, source_, begin, end, group * pass_.inner, pass_.inner, band.data(), image.data(), image_point,
                  channels_);
        WinogradProduct p = product();
        p.c_row = outer_;
        p.rows = (end - begin) * rows_.across;
        for (int64_t point = 0; point < m_.points; ++point) {
          const auto [from, until] = m_.channels_at(point, 0, pass_.inner);
          p.a = image.data() + (point * image_point + from) * width_;
          p.c = result.data() + point * result_point * width_;
          p.k = until - from;
          multiply(m_, p, panels_, [&, from = from](int64_t panel) {
            p.b_step = panels_.width_of(panel);
            p.b = weights_of(panel) + (point * point_of(panel) + from * p.b_step) * width_;
          });
        }
        store(group, begin, end, 0, pass_.outer, bias, result.data(), result_point, outer_, pixels.data());
      }
    });
  }

  // Some rows of tiles at all points first, then panel after panel of weights, from the weights to the result in a thread's own
  // cache: rows whose part of a panel's result stays there.
  void run_panels(int64_t group, const char* bias) {
    const int64_t row_bytes = m_.points * rows_.across * kernels_.size.columns * width_;
    const int64_t parts = divide_up(rows_.count, std::max<int64_t>(1, kPanelBytes / row_bytes));
    for (int64_t part = 0; part < parts; ++part)
      run_panels(group, bias, rows_.count * part / parts, rows_.count * (part + 1) / parts);
  }
  void run_panels(int64_t group, const char* bias, int64_t first_row, int64_t last_row) {
    const int64_t rows = last_row - first_row, tiles = rows * rows_.across;
    const int64_t image_point = m_.point(tiles * channels_ / m_.vector);
    const Scratch image(m_.points * image_point * width_);
    parallel(rows, rows_.across * m_.points * channels_, [&](int64_t begin, int64_t end) {
      const Scratch band(band_bytes(m_, rows_));
      for (int64_t row = begin; row < end; ++row)
        transform(m_, false, rows_, source_, first_row + row, first_row + row + 1, group * pass_.inner, pass_.inner, band.data(),
                  image.data() + row * rows_.across * channels_ * width_, image_point, channels_);
    });
    parallel(panels_.count, tiles * m_.points * channels_ * kernels_.size.columns / 4, [&](int64_t begin, int64_t end) {
      const Scratch points(weights_bytes(kChannelsOfPanel)), packed(packed_bytes(kChannelsOfPanel));
      const Scratch pixels(pixels_bytes(rows));
      const Scratch result(m_.points * m_.point(tiles * kernels_.size.columns / m_.vector) * width_);
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t panel_width = panels_.width_of(panel), columns = panels_.columns_of(panel);
        const int64_t result_point = m_.point(tiles * panel_width / m_.vector);
        const int64_t point_of_weights = weights_point(kChannelsOfPanel, panel_width);
        for (int64_t channel = 0; channel < pass_.inner; channel += kChannelsOfPanel) {
          const int64_t count = std::min(kChannelsOfPanel, pass_.inner - channel);
          weights(group, panel, channel, count, packed.data(), points.data(), point_of_weights);
          WinogradProduct p = product();
          p.b_step = p.c_row = panel_width;
          p.rows = tiles, p.columns = columns;
          for (int64_t point = 0; point < m_.points; ++point) {
            const auto [from, until] = m_.channels_at(point, channel, channel + count);
            if (from == until) continue;
            p.a = image.data() + (point * image_point + from) * width_;
            p.b = points.data() + (point * point_of_weights + (from - channel) * panel_width) * width_;
            p.c = result.data() + point * result_point * width_;
            p.k = until - from;
            p.accumulate = from > m_.channels_at(point, 0, pass_.inner).first;
            m_.table.product(p);
          }
        }
        store(group, first_row, last_row, panels_.begin(panel), columns, bias, result.data(), result_point, panel_width,
              pixels.data());
      }
    });
  }

  const DataPass& pass_;
  const Kernels& kernels_;
  const Method& m_;
  const Panels panels_;
  const int64_t width_;
  const bool few_;  // channels: tiles are in the lanes of their points
  const int64_t channels_, outer_;  // of all channels, in and out, filled up to whole vectors (but for few)
  const Source source_;
  const TileRows rows_;
  int64_t tap_;    // elements from one tap's weights to the next one's
  bool in_place_;  // the transform takes weights as they lie
  std::atomic<bool> finite_{true};
};

// The weight gradient: sums over tiles, point by point. The work is cut by size alone.
class Gradient {
 public:
  Gradient(const Tensor& grad, const Tensor& input, const Params& params, const Kernels& kernels, const Method& m,
           const Tensor& result)
      : kernels_(kernels),
        m_(m),
        result_(result),
        groups_(params.groups),
        inner_(result.size(1)),
        all_outer_(result.size(0) / params.groups),
        panels_(all_outer_, kernels.size),
        width_(m.width),
        vector_(m.vector),
        outer_(panels_.total()),
        channels_inside_(result.stride(1) == 1 && inner_ > 1),
        together_(channels_inside_ ? kWeightRows : kChannelsTogether),
        few_(tiles_in_lanes(m, inner_)),
        images_{input, -params.padding[0], -params.padding[1]},
        grads_{grad, 0, 0} {}

  // Whether all of the result is finite.
  bool run() {
    const int64_t batch = grads_.tensor.size(0), height = grads_.tensor.size(2), across = grads_.tensor.size(3);
    // Channels of a range, whose sums stay in the caches.
    const int64_t affordable = std::max<int64_t>(1, kRangeBytes / (m_.points * outer_ * vector_ * width_));
    const int64_t ranges = divide_up(m_.channel_blocks(inner_), affordable);
    const int64_t range = few_ ? inner_ : divide_up(m_.channel_blocks(inner_), ranges) * vector_;
    // Each block passes over the sums once.
    const TileRows rows(batch, height, across, m_.points * (range + outer_) * width_,
                        std::max(kBlockBytes, 2 * m_.points * range * outer_ * width_));
    // Or of fewer, which stay there for all tiles.
    const int64_t tiles = rows.count * rows.across;
    const int64_t few = std::max<int64_t>(1, kTilesBytes / (m_.points * tiles * vector_ * width_)) * vector_;
    const bool few_tiles = !few_ && tiles <= kFewTiles && m_.points * tiles * outer_ * width_ <= kSumsBytes;
    for (int64_t group = 0; group < groups_; ++group) {
      if (few_tiles) run_panels(group, rows, few);
      else run_blocks(group, rows, range, ranges);
    }
    return finite_;
  }

 private:
  // An image's tiles, `range` channels of them side by side, by those of the gradient.
  WinogradProduct product(int64_t range, int64_t tiles) const {
    WinogradProduct p;
    p.a_row = 1, p.a_step = range;
    p.k = tiles, p.chain = kChain;
    return p;
  }
  // Zeros for the sums of all but channels [from, until), of which there are none.
  void clear_others(char* sums, int64_t row, int64_t from, int64_t until, int64_t channels) const {
    std::memset(sums, 0, from * row * width_);
    std::memset(sums + until * row * width_, 0, (channels - until) * row * width_);
  }
  // What a thread needs to store the taps of `together_` channels.
  struct Room {
    explicit Room(const Gradient& g)
        : taps(g.together_ * g.m_.taps * g.m_.taps * g.kernels_.size.columns * g.width_),
          turned(kWeightRows * g.kernels_.size.columns * g.width_) {}
    const Scratch taps, turned;
  };
  // The taps of channels [first, first + count) and a panel of out channels, to the result. Of their sums, channels are `row`
  // apart and points `point`.
  void store_taps(int64_t group, int64_t panel, int64_t first, int64_t count, const char* sums, int64_t row, int64_t point,
                  const Room& room) {
    const int64_t taps = m_.taps * m_.taps, panel_width = panels_.width_of(panel);
    bool all = true;
    for (int64_t c = 0; c < count; ++c)
      for (int64_t o = 0; o < panel_width; o += vector_)
        all &= m_.transforms.taps(sums + (c * row + o) * width_, point,
                                  room.taps.data() + ((channels_inside_ ? c : c * taps) * panel_width + o) * width_,
                                  (channels_inside_ ? count : 1) * panel_width);
    if (!all) finite_ = false;
    // In the order of the result's memory: rows of every tap, or all of them.
    const int64_t runs = channels_inside_ ? taps : 1, run = channels_inside_ ? count : count * taps;
    for (int64_t i = 0; i < runs; ++i)
      for (int64_t at = 0; at < run; at += kWeightRows)
        store_weight_rows(room.taps.data() + (i * run + at) * panel_width * width_, panel_width,
                          group * all_outer_ + panels_.begin(panel), panels_.columns_of(panel),
                          (channels_inside_ ? i * inner_ + first : first * taps) + at, std::min(kWeightRows, run - at), kernels_,
                          room.turned.data(), result_);
  }

  // Block after block of tiles, added to the sums of a range of channels. The rows of tiles are cut into parts as well, whose
  // sums are added in order.
  void run_blocks(int64_t group, const TileRows& rows, int64_t range, int64_t ranges) {
    const int64_t sums_point = m_.point(range * outer_ / vector_), sums_bytes = m_.points * sums_point * width_;
    const int64_t wanted = std::clamp<int64_t>(rows.count * rows.across / kTilesOfPart, kFewestParts, kMostParts);
    const int64_t parts =
        std::clamp<int64_t>(std::min(kSumsBytes / (sums_bytes * ranges), divide_up(wanted, ranges)), 1, rows.blocks);
    const int64_t lanes = divide_up(rows.most_tiles(), vector_) * vector_;  // of tiles, filled up
    const int64_t image_point = m_.point((few_ ? lanes : rows.most_tiles()) * range / vector_);
    const int64_t grad_point = m_.point(rows.most_tiles() * outer_ / vector_);
    const Scratch sums(parts * ranges * sums_bytes);
    parallel(parts * ranges, rows.count * rows.across * m_.points * range * outer_ / (4 * parts), [&](int64_t begin, int64_t end) {
      const Scratch band(std::max(band_bytes(m_, rows), few_ ? lanes_bytes(m_, rows) : 0));
      const Scratch image(m_.points * image_point * width_), tiles(m_.points * grad_point * width_);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / ranges, channel = task % ranges * range, channels = std::min(range, inner_ - channel);
        const int64_t first_block = rows.blocks * part / parts, last_block = rows.blocks * (part + 1) / parts;
        for (int64_t block = first_block; block < last_block; ++block) {
          const int64_t first = rows.begin(block), last = rows.begin(block + 1);
          if (few_)
            transform_lanes(m_, kernels_, rows, images_, first, last, group * inner_, inner_, band.data(), image.data(),
                            image_point, lanes);
          else
            transform(m_, false, rows, images_, first, last, group * inner_ + channel, channels, band.data(), image.data(),
                      image_point, range);
          transform(m_, true, rows, grads_, first, last, group * all_outer_, all_outer_, band.data(), tiles.data(), grad_point,
                    outer_);
          WinogradProduct p = product(range, (last - first) * rows.across);
          if (few_) p.a_row = lanes, p.a_step = 1;
          p.b_step = p.c_row = outer_;
          p.accumulate = block > first_block;
          for (int64_t point = 0; point < m_.points; ++point) {
            const auto [from, until] = m_.channels_at(point, channel, channel + channels);
            char* const c = sums.data() + task * sums_bytes + point * sums_point * width_;
            if (block == first_block) clear_others(c, outer_, from - channel, until - channel, channels);
            if (from == until) continue;
            p.a = image.data() + (point * image_point + (from - channel) * p.a_row) * width_;
            p.c = c + (from - channel) * outer_ * width_;
            p.rows = until - from;
            multiply(m_, p, panels_, [&](int64_t panel) {
              p.b = tiles.data() + (point * grad_point + panels_.begin(panel)) * width_;
            });
          }
        }
      }
    });
    const auto add_rows = TENSOROPS_KERNELS(conv_kernels).add_rows[static_cast<int>(kernels_.compute)];
    parallel(parts > 1 ? ranges * m_.points : 0, range * outer_ * parts, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        char* const first = sums.data() + item / m_.points * sums_bytes + item % m_.points * sums_point * width_;
        add_rows(first + ranges * sums_bytes, ranges * sums_bytes / width_, parts - 1, range * outer_, first);
      }
    });
    const int64_t pieces = divide_up(range, together_);
    parallel(ranges * panels_.count * pieces, together_ * kernels_.size.columns * m_.points * 4, [&](int64_t begin, int64_t end) {
      const Room room(*this);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t task = item / (panels_.count * pieces), panel = item / pieces % panels_.count;
        const int64_t c = item % pieces * together_, channel = task * range + c;
        store_taps(group, panel, channel, std::min({together_, range - c, inner_ - channel}),
                   sums.data() + task * sums_bytes + (c * outer_ + panels_.begin(panel)) * width_, outer_, sums_point, room);
      }
    });
  }

  // All tiles of the gradient at all points first, panel after panel; then range after range of channels, from the image to the
  // taps in a thread's own caches.
  void run_panels(int64_t group, const TileRows& rows, int64_t range) {
    const int64_t tiles = rows.count * rows.across, grad_point = m_.point(tiles * kernels_.size.columns / vector_);
    const int64_t panel_bytes = m_.points * grad_point * width_;
    const auto transform_all = [&](bool gradient, const Source& source, int64_t channel, int64_t channels, char* band,
                                   char* points, int64_t point, int64_t tile) {
      for (int64_t block = 0; block < rows.blocks; ++block)
        transform(m_, gradient, rows, source, rows.begin(block), rows.begin(block + 1), channel, channels, band,
                  points + rows.begin(block) * rows.across * tile * width_, point, tile);
    };
    const Scratch grad_tiles(panels_.count * panel_bytes);
    parallel(panels_.count, tiles * m_.points * kernels_.size.columns, [&](int64_t begin, int64_t end) {
      const Scratch band(band_bytes(m_, rows));
      for (int64_t panel = begin; panel < end; ++panel)
        transform_all(true, grads_, group * all_outer_ + panels_.begin(panel), panels_.columns_of(panel), band.data(),
                      grad_tiles.data() + panel * panel_bytes, grad_point, panels_.width_of(panel));
    });
    const int64_t image_point = m_.point(tiles * range / vector_), sums_point = m_.point(range * kernels_.size.columns / vector_);
    parallel(divide_up(inner_, range), tiles * m_.points * range * outer_ / 4, [&](int64_t begin, int64_t end) {
      const Scratch band(band_bytes(m_, rows)), image(m_.points * image_point * width_), sums(m_.points * sums_point * width_);
      const Room room(*this);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t channel = task * range, channels = std::min(range, inner_ - channel);
        transform_all(false, images_, group * inner_ + channel, channels, band.data(), image.data(), image_point, range);
        for (int64_t panel = 0; panel < panels_.count; ++panel) {
          const int64_t panel_width = panels_.width_of(panel);
          WinogradProduct p = product(range, tiles);
          p.b_step = p.c_row = panel_width;
          p.columns = panels_.columns_of(panel);
          for (int64_t point = 0; point < m_.points; ++point) {
            const auto [from, until] = m_.channels_at(point, channel, channel + channels);
            char* const c = sums.data() + point * sums_point * width_;
            clear_others(c, panel_width, from - channel, until - channel, channels);
            if (from == until) continue;
            p.a = image.data() + (point * image_point + from - channel) * width_;
            p.b = grad_tiles.data() + panel * panel_bytes + point * grad_point * width_;
            p.c = c + (from - channel) * panel_width * width_;
            p.rows = until - from;
            m_.table.product(p);
          }
          for (int64_t c = 0; c < channels; c += together_)
            store_taps(group, panel, channel + c, std::min(together_, channels - c), sums.data() + c * panel_width * width_,
                       panel_width, sums_point, room);
        }
      }
    });
  }

  const Kernels& kernels_;
  const Method& m_;
  const Tensor& result_;
  const int64_t groups_, inner_, all_outer_;
  const Panels panels_;
  const int64_t width_, vector_, outer_;  // outer: filled up to whole vectors
  const bool channels_inside_;
  const int64_t together_;  // channels whose taps are stored at a time: in rows of some lines
  const bool few_;          // channels: tiles are in the lanes of the image's points
  const Source images_, grads_;
  std::atomic<bool> finite_{true};
};

}  // namespace

constexpr double kImageOfFew = 1.7;  // channels: of one at one point
bool winograd_pays(const WinogradSize& size, const Kernels& kernels) {
  if (!has_method(kernels) || size.taps < 2 || size.taps > 5 || size.inner < kFewestChannels || size.terms() < kFewestTerms)
    return false;
  constexpr Costs kCosts[] = {{400, 400, 150}, {600, 450, 250}, {750, 600, 450}, {900, 700, 600}};  // by taps
  Costs costs = kCosts[size.taps - 2];
  if (size.phases != Phases::none) costs.image += 700, costs.weights += 700;
  const Method m(size, kernels);
  if (tiles_in_lanes(m, size.inner)) {
    // Of a vector of them. Fewer registers do not hold what the result is made of.
    constexpr double kResultOfFew = 5.7, kLowResultOfFew = 9.5;
    costs.image = kImageOfFew * static_cast<double>(m.points * size.inner);
    costs.result = (kernels.low_tile() ? kLowResultOfFew : kResultOfFew) * static_cast<double>(m.points);
  }
  return pays(size, kernels, costs, 0.85);
}
bool winograd(const DataPass& original, const Kernels& kernels, Phases phases) {
  if (!has_method(kernels)) return false;
  DataPass pass = original;
  const int64_t taps = order_taps(pass);
  if (taps == 0 || mostly_border(pass.source, pass.height, pass.width)) return false;
  const WinogradSize size{taps, pass.source.size(0), pass.height, pass.width, pass.inner, pass.outer, phases};
  return winograd_pays(size, kernels) && Forward(pass, kernels, Method(size, kernels)).run();
}

bool winograd_gradient_pays(const WinogradSize& size, const Kernels& kernels) {
  if (!has_method(kernels) || size.taps < 2 || size.taps > 5) return false;
  const int64_t tiles = size.batch * divide_up(size.height, kTile) * divide_up(size.width, kTile);
  constexpr Costs kCosts[] = {{400, 350, 1000}, {600, 400, 1500}, {900, 600, 1500}, {1100, 700, 1500}};
  Costs costs = kCosts[size.taps - 2];
  if (size.taps < 4 && tiles <= kFewTiles) costs.weights = 500;
  else if (size.phases != Phases::none) costs.weights += 4000;  // the sums at all points are more than the caches hold
  if (size.phases != Phases::none) costs.image += 900;
  const Method m(size, kernels);
  if (tiles_in_lanes(m, size.inner)) {
    if (few_channels(size.outer, kernels)) return false;  // few of both: there is a faster way, with pixels in the lanes
    costs.image = kImageOfFew * static_cast<double>(m.points * size.inner);
  }
  return pays(size, kernels, costs, 0.66);
}
bool winograd_weight_gradient(const Tensor& grad, const Tensor& input, const Params& params, const Kernels& kernels,
                              const Tensor& result, Phases phases) {
  if (result.size(2) != result.size(3) || mostly_border(input, grad.size(2), grad.size(3))) return false;
  for (int d = 0; d < 2; ++d)
    if (params.stride[d] != 1 || params.dilation[d] != 1) return false;
  const WinogradSize size{result.size(2), grad.size(0), grad.size(2),  grad.size(3), result.size(1), result.size(0) / params.groups,
                          phases};
  return winograd_gradient_pays(size, kernels) && Gradient(grad, input, params, kernels, Method(size, kernels), result).run();
}

}  // namespace tensorops::cpu::conv
