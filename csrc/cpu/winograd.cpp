// Winograd's convolution on the CPU (kernels/winograd.h): rows of tiles are taken a block at a time, small enough for its
// points to stay in the second cache between the transforms and the products.
//
// Workspace: the weights at all points; per thread, a block's points of the image and of the result (kBlockBytes, or those of
// one row of tiles); for the weight gradient, sums at all points (kSumsBytes, or one part of them).
#include <torch/library.h>

#include <atomic>
#include <cstring>

#include "cpu/convolution.h"
#include "cpu/kernels/winograd.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu::conv {
namespace {

constexpr int64_t kBlockBytes = 512 << 10;
constexpr int64_t kSumsBytes = 8 << 20;
constexpr int64_t kRangeBytes = 1 << 20;    // of sums that a task of the weight gradient adds to
constexpr int64_t kChannelsTogether = 16;   // of weights, in one task
constexpr int64_t kLine = 64;               // bytes by which points are set apart, lest all fall into one set of the first cache
constexpr int64_t kFewestChannels = 8;      // with fewer, torch's sums are so short that their error is below half of ours
constexpr int64_t kBlocks = 8;              // at least, where there are rows of tiles enough

// What the transforms for one size of kernel need to know.
struct Method {
  Method(int64_t taps, const Kernels& kernels)
      : table(TENSOROPS_KERNELS(winograd_kernels)),
        transforms(table.transforms[taps == 5]),
        load(table.load[static_cast<int>(kernels.dtype)]),
        store(table.store[static_cast<int>(kernels.dtype)]),
        taps(taps),
        across(taps + 1),
        points(across * across),
        // Rounding errors of long chains are what the transforms magnify.
        chain(taps == 5 ? 16 : 64),
        most_channels(taps == 5 ? 96 : INT64_MAX),
        fewest_tiles(taps == 5 ? 256 : 0),
        width(kernels.width),
        vector(kernels.size.vector) {}

  int64_t channel_blocks(int64_t channels) const { return divide_up(channels, vector); }
  // Elements of `count` vectors at one point, of which the next is not in the same set of the cache.
  int64_t point(int64_t count) const { return count * vector + kLine / width; }

  const WinogradKernels& table;
  const WinogradTransforms& transforms;
  void (*const load)(const WinogradPixels&);
  void (*const store)(const WinogradPixels&);
  const int64_t taps, across, points, chain;
  // Within these the error stays below twice torch's: more channels add up to more rounding here, few tiles to less there.
  const int64_t most_channels, fewest_tiles;
  const int64_t width, vector;
};

// Rows of tiles, those of all images one after another, in blocks of about the same size.
class TileRows {
 public:
  TileRows(int64_t batch, int64_t height, int64_t width, int64_t bytes_of_tile)
      : per_image(divide_up(height, 2)), across(divide_up(width, 2)), count(batch * per_image) {
    const int64_t affordable = std::max<int64_t>(1, kBlockBytes / (bytes_of_tile * across));
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
  const int64_t overlap = gradient ? 0 : m.taps - 1, across = 2 * rows.across + overlap;
  const auto kernel = gradient ? m.transforms.gradient : m.transforms.image;
  rows.images(begin, end, [&](int64_t n, int64_t first, int64_t count, int64_t tiles) {
    for (int64_t c = 0; c < tile; c += m.vector) {
      source.load(m, n, channel + c, std::clamp<int64_t>(channels - c, 0, m.vector), 2 * first, 2 * count + overlap, across, band);
      WinogradTiles t;
      t.tiles = rows.across;
      t.pixels_row = across * m.vector;
      t.point = point, t.tile = tile;
      for (int64_t row = 0; row < count; ++row) {
        t.pixels = band + 2 * row * across * m.vector * m.width;
        t.points = points + ((tiles + row * rows.across) * tile + c) * m.width;
        kernel(t);
      }
    }
  });
}
int64_t band_bytes(const Method& m, const TileRows& rows) {
  return (2 * std::min(rows.most_rows(), rows.per_image) + m.taps - 1) * (2 * rows.across + m.taps - 1) * m.vector * m.width;
}

// All rows by all panels of one point, of which set(panel, product) gives b.
template <class F>
void multiply(const Method& m, const WinogradProduct& whole, int64_t rows, int64_t most_rows, const Panels& panels,
              const F& set) {
  const int64_t tiles = divide_up(rows, most_rows);
  WinogradProduct p = whole;
  for (int64_t panel = 0; panel < panels.count; ++panel) {
    set(panel, p);
    p.columns = panels.columns_of(panel);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = rows * t / tiles;
      p.rows = rows * (t + 1) / tiles - first;
      p.a = static_cast<const char*>(whole.a) + first * p.a_row * m.width;
      p.c = static_cast<char*>(whole.c) + (first * p.c_row + panels.begin(panel)) * m.width;
      m.table.product(p);
    }
  }
}

// A pass whose taps are a square without gaps, in the order of its rows. Returns 0 where they are none that there is a
// transform for.
int64_t order_taps(DataPass& pass) {
  const int64_t taps = pass.taps.size() == 9 ? 3 : pass.taps.size() == 25 ? 5 : 0;
  if (taps == 0 || pass.step_h != 1 || pass.step_w != 1) return 0;
  std::sort(pass.taps.begin(), pass.taps.end(), [](const Tap& a, const Tap& b) { return a.h != b.h ? a.h < b.h : a.w < b.w; });
  for (int64_t t = 0; t < taps * taps; ++t)
    if (pass.taps[t].h != pass.taps[0].h + t / taps || pass.taps[t].w != pass.taps[0].w + t % taps) return 0;
  return taps;
}

// Pairs of bf16 are multiplied twice as fast, which is all that there is to gain.
bool has_method(const Kernels& kernels) {
  return kernels.pairs == nullptr && kernels.compute == Compute::f32 && TENSOROPS_KERNELS(winograd_kernels).product != nullptr;
}

// Where half of all taps find nothing but the border, torch's sums have as few terms, while the transforms round as ever.
bool mostly_border(const Tensor& image, int64_t height, int64_t width) {
  const int64_t reached = image.size(2) * image.size(3), all = height * width;
  return 2 * reached < all;
}

// Whether it takes less time than the direct way, both counted in multiply-adds of vectors. What the transforms take was
// measured: of a vector's worth of one tile of the image and of the result, and of one vector of weights.
struct Costs {
  double image, result, weights;
};
bool pays(const Method& m, const Costs& costs, int64_t batch, int64_t height, int64_t width, int64_t inner, int64_t outer) {
  constexpr double kProducts = 0.8, kDirect = 0.85, kWorthwhile = 0.9;  // shares of the peak, and of the direct way's time
  const auto pixels = static_cast<double>(batch * height * width);
  const auto tiles = static_cast<double>(batch * divide_up(height, 2) * divide_up(width, 2));
  const auto in = static_cast<double>(m.channel_blocks(inner)), out = static_cast<double>(m.channel_blocks(outer));
  const double products = static_cast<double>(inner) * out;
  const double winograd = tiles * (static_cast<double>(m.points) * products / kProducts + in * costs.image + out * costs.result) +
                          products * costs.weights;
  return winograd < kWorthwhile * pixels * static_cast<double>(m.taps * m.taps) * products / kDirect;
}

}  // namespace

bool winograd(const DataPass& original, const Kernels& kernels) {
  if (!has_method(kernels)) return false;
  DataPass pass = original;
  const int64_t taps = order_taps(pass);
  if (taps == 0) return false;
  const Method m(taps, kernels);
  const int64_t batch = pass.source.size(0);
  if (pass.inner < kFewestChannels || pass.inner > m.most_channels) return false;
  if (mostly_border(pass.source, pass.height, pass.width)) return false;
  const Costs costs = taps == 5 ? Costs{290, 145, 600} : Costs{200, 90, 500};
  if (!pays(m, costs, batch, pass.height, pass.width, pass.inner, pass.outer)) return false;

  const Panels panels(pass.outer, kernels.size);
  const int64_t width = m.width, vector = m.vector, blocks_of_channels = m.channel_blocks(pass.inner);
  const int64_t channels = blocks_of_channels * vector, outer = panels.total();
  const Layout layout{Pairs::none, pass.inner, pass.inner};
  const bool channels_inside = pass.weight_inner == 1;  // in the order in which they lie
  std::atomic<bool> finite{true};
  for (int64_t group = 0; group < pass.groups; ++group) {
    // Weights: panel after panel, each [point][channel][its width].
    const auto weights_point = [&](int64_t panel) { return pass.inner * panels.width_of(panel) + kLine / width; };
    const int64_t panel_bytes = m.points * (pass.inner * kernels.size.columns + kLine / width) * width;
    const Scratch weights(panels.count * panel_bytes);
    const int64_t pieces = divide_up(pass.inner, kChannelsTogether);
    parallel(panels.count * pieces, kChannelsTogether * kernels.size.columns * m.points * 4, [&](int64_t begin, int64_t end) {
      const Scratch packed(kChannelsTogether * taps * taps * kernels.size.columns * width);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t panel = item / pieces, channel = item % pieces * kChannelsTogether;
        const int64_t count = std::min(kChannelsTogether, pass.inner - channel), panel_width = panels.width_of(panel);
        pack_weights(pass, kernels, layout, group, panels.begin(panel), panels.columns_of(panel), panel_width, channel, count,
                     channels_inside, packed.data());
        m.transforms.weights(packed.data(), count, (channels_inside ? 1 : taps * taps) * panel_width,
                             (channels_inside ? count : 1) * panel_width, panel_width,
                             weights.data() + panel * panel_bytes + channel * panel_width * width, weights_point(panel));
      }
    });
    const Scratch bias(outer * width);
    std::memset(bias.data(), 0, outer * width);
    if (pass.bias.defined()) {
      const int64_t stride = pass.bias.stride(0) * static_cast<int64_t>(pass.bias.element_size());
      kernels.load(static_cast<const char*>(pass.bias.const_data_ptr()) + group * pass.outer * stride, stride, bias.data(),
                   pass.outer);
    }

    const Source source{pass.source, pass.taps[0].h, pass.taps[0].w};
    const TileRows rows(batch, pass.height, pass.width, m.points * (channels + outer) * width);
    const int64_t image_point = m.point(rows.most_tiles() * blocks_of_channels);
    const int64_t result_point = m.point(rows.most_tiles() * outer / vector);
    const auto element = static_cast<int64_t>(pass.result.element_size());
    const int64_t pixel_bytes = vector * width;
    parallel(rows.blocks, rows.most_tiles() * m.points * channels * outer / 4, [&](int64_t begin_block, int64_t end_block) {
      const Scratch band(band_bytes(m, rows)), image(m.points * image_point * width), result(m.points * result_point * width);
      const Scratch pixels(2 * std::min(rows.most_rows(), rows.per_image) * pass.width * pixel_bytes);
      for (int64_t block = begin_block; block < end_block; ++block) {
        const int64_t begin = rows.begin(block), end = rows.begin(block + 1);
        transform(m, false, rows, source, begin, end, group * pass.inner, pass.inner, band.data(), image.data(), image_point,
                     channels);
        for (int64_t point = 0; point < m.points; ++point) {
          WinogradProduct p;
          p.a = image.data() + point * image_point * width, p.a_row = channels, p.a_step = 1;
          p.c = result.data() + point * result_point * width, p.c_row = outer;
          p.k = pass.inner, p.chain = m.chain;
          // Where short chains end often, half a high tile leaves registers for the totals; half a low one has too few sums.
          const int64_t most_rows =
              pass.inner > m.chain && m.chain < 64 && !kernels.low_tile() ? m.table.rows / 2 : m.table.rows;
          multiply(m, p, (end - begin) * rows.across, most_rows, panels, [&](int64_t panel, WinogradProduct& product) {
            product.b = weights.data() + panel * panel_bytes + point * weights_point(panel) * width;
            product.b_step = panels.width_of(panel);
          });
        }
        rows.images(begin, end, [&](int64_t n, int64_t first, int64_t count, int64_t tiles) {
          const int64_t top = 2 * first, height = std::min(2 * count, pass.height - top);
          for (int64_t o = 0; o < pass.outer; o += vector) {
            WinogradTiles t;
            t.tiles = rows.across;
            t.pixels_row = pass.width * vector;
            t.point = result_point, t.tile = outer;
            t.width = pass.width;
            t.bias = bias.data() + o * width;
            bool all = true;
            for (int64_t row = 0; row < count; ++row) {
              t.pixels = pixels.data() + 2 * row * pass.width * pixel_bytes;
              t.points = result.data() + ((tiles + row * rows.across) * outer + o) * width;
              t.rows = std::min<int64_t>(2, height - 2 * row);
              all &= m.transforms.result(t);
            }
            if (!all) finite = false;
            WinogradPixels out;
            out.tensor = static_cast<char*>(pass.result.data_ptr()) +
                         (pass.offset + n * pass.result.stride(0) + (group * pass.outer + o) * pass.result.stride(1) +
                          top * pass.row_stride) *
                             element;
            out.channel = pass.result.stride(1), out.row = pass.row_stride, out.pixel = pass.pixel_stride;
            out.channels = std::min(vector, pass.outer - o);
            out.rows = height, out.width = pass.width;
            out.vectors = pixels.data(), out.vectors_row = pass.width * vector;
            m.store(out);
          }
        });
      }
    });
  }
  return finite;
}

// Sums over tiles, point by point. The work is cut by size alone: into ranges of channels, whose sums stay in the caches, and
// into parts of the rows of tiles, whose sums are added in order.
bool winograd_weight_gradient(const Tensor& grad, const Tensor& input, const Params& params, const Kernels& kernels,
                              const Tensor& result) {
  const int64_t taps = result.size(2), groups = params.groups, inner = result.size(1), all_outer = result.size(0) / groups;
  if (!has_method(kernels) || (taps != 3 && taps != 5) || result.size(3) != taps) return false;
  for (int d = 0; d < 2; ++d)
    if (params.stride[d] != 1 || params.dilation[d] != 1) return false;
  const Method m(taps, kernels);
  const Panels panels(all_outer, kernels.size);
  const Costs costs = taps == 5 ? Costs{290, 145, 2400} : Costs{200, 145, 1200};
  if (mostly_border(input, grad.size(2), grad.size(3))) return false;
  if (grad.size(0) * divide_up(grad.size(2), 2) * divide_up(grad.size(3), 2) < m.fewest_tiles) return false;
  if (!pays(m, costs, grad.size(0), grad.size(2), grad.size(3), inner, all_outer)) return false;

  const int64_t width = m.width, vector = m.vector, outer = panels.total();
  const Source images{input, -params.padding[0], -params.padding[1]}, grads{grad, 0, 0};
  // Channels of a range.
  const int64_t affordable = std::max<int64_t>(1, kRangeBytes / (m.points * outer * vector * width));
  const int64_t ranges = divide_up(m.channel_blocks(inner), affordable);
  const int64_t range = divide_up(m.channel_blocks(inner), ranges) * vector;
  const int64_t sums_point = m.point(range * outer / vector), sums_bytes = m.points * sums_point * width;
  const TileRows rows(grad.size(0), grad.size(2), grad.size(3), m.points * (range + outer) * width);
  const int64_t parts =
      std::clamp<int64_t>(std::min(kSumsBytes / (sums_bytes * ranges), divide_up(kBlocks, ranges)), 1, rows.blocks);
  const int64_t image_point = m.point(rows.most_tiles() * range / vector);
  const int64_t grad_point = m.point(rows.most_tiles() * outer / vector);
  const int64_t out_rows = inner * taps * taps;
  const bool channels_inside = result.stride(1) == 1 && inner > 1;
  const Scratch sums(parts * ranges * sums_bytes), totals(out_rows * outer * width);
  std::atomic<bool> finite{true};
  for (int64_t group = 0; group < groups; ++group) {
    parallel(parts * ranges, rows.count * rows.across * m.points * range * outer / (4 * parts), [&](int64_t begin, int64_t end) {
      const Scratch band(band_bytes(m, rows)), image(m.points * image_point * width), tiles(m.points * grad_point * width);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / ranges, channel = task % ranges * range, channels = std::min(range, inner - channel);
        const int64_t first_block = rows.blocks * part / parts, last_block = rows.blocks * (part + 1) / parts;
        for (int64_t block = first_block; block < last_block; ++block) {
          const int64_t first = rows.begin(block), last = rows.begin(block + 1);
          transform(m, false, rows, images, first, last, group * inner + channel, channels, band.data(), image.data(), image_point,
                       range);
          transform(m, true, rows, grads, first, last, group * all_outer, all_outer, band.data(), tiles.data(), grad_point, outer);
          for (int64_t point = 0; point < m.points; ++point) {
            WinogradProduct p;
            p.a = image.data() + point * image_point * width, p.a_row = 1, p.a_step = range;
            p.c = sums.data() + task * sums_bytes + point * sums_point * width, p.c_row = outer;
            p.k = (last - first) * rows.across, p.chain = m.chain;
            p.accumulate = block > first_block;
            multiply(m, p, channels, m.table.rows, panels, [&](int64_t panel, WinogradProduct& product) {
              product.b = tiles.data() + (point * grad_point + panels.begin(panel)) * width;
              product.b_step = outer;
            });
          }
        }
      }
    });
    // Parts added, points turned into taps.
    const auto add_rows = TENSOROPS_KERNELS(conv_kernels).add_rows[static_cast<int>(kernels.compute)];
    parallel(inner, outer * m.points * (parts + 4), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t at = c / range * sums_bytes + c % range * outer * width;
        for (int64_t part = 1; part < parts; ++part)
          for (int64_t point = 0; point < m.points; ++point)
            add_rows(sums.data() + part * ranges * sums_bytes + at + point * sums_point * width, 0, 1, outer,
                     sums.data() + at + point * sums_point * width);
        const int64_t row = channels_inside ? c : c * taps * taps, tap_stride = (channels_inside ? inner : 1) * outer;
        bool all = true;
        for (int64_t o = 0; o < outer; o += vector)
          all &= m.transforms.taps(sums.data() + at + o * width, sums_point, totals.data() + (row * outer + o) * width, tap_stride);
        if (!all) finite = false;
      }
    });
    const int64_t pieces = divide_up(out_rows, kWeightRows);
    parallel(panels.count * pieces, kWeightRows * kernels.size.columns, [&](int64_t begin, int64_t end) {
      const Scratch turned(kWeightRows * kernels.size.columns * width);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item % pieces * kWeightRows, panel = item / pieces;
        store_weight_rows(totals.data() + (first * outer + panels.begin(panel)) * width, outer,
                          group * all_outer + panels.begin(panel), panels.columns_of(panel), first,
                          std::min(kWeightRows, out_rows - first), kernels, turned.data(), result);
      }
    });
  }
  return finite;
}

}  // namespace tensorops::cpu::conv
