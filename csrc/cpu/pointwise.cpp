// Convolution with a kernel of one tap and no border on the CPU: a matrix product of the weights and the pixels, which gemm()
// multiplies where they lie. With a step, the pixels that are read are collected first.
//
// Workspace, beside that of gemm(): where pixels are collected, kCollected bytes of them or one image for each thread; for the
// weight gradient, for each thread the images and gradients that kDeep pixels are made of, and kParts - 1 small results.
#include <cstring>

#include "cpu/convolution.h"
#include "cpu/gemm.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu::conv {
namespace {

constexpr int64_t kCollected = 4 << 20;
// Pixels that a product over pixels runs over at least, where it costs more to come back to the sums than to collect them from
// several images.
constexpr int64_t kDeep = 1024;
constexpr int64_t kRowsAhead = 4;
// Of a weight gradient whose result has up to so many elements.
constexpr int64_t kSmallResult = 64 << 10, kParts = 8;
// With fewer terms to a sum a product is little more than writing its result, which other ways do faster, the more so where
// channels are adjacent.
constexpr int64_t kFewestTerms = 16, kFewestTermsLast = 32;

// Pixels of a batch of images: `height` by `width` of them, strides in elements.
struct Pixels {
  int64_t channels, height, width, image, channel, row, pixel;

  bool last() const { return channel == 1 && channels > 1; }
  int64_t count() const { return height * width; }
  int64_t elements() const { return channels * count(); }
  // Whether those of an image lie evenly spaced.
  bool even() const { return height == 1 || row == width * pixel; }
  bool all_even() const { return even() && image == count() * pixel; }
  // The same pixels of `images` images as a dense matrix: channels by (image, pixel), or (image, pixel) by channels if these
  // are adjacent.
  Pixels dense(int64_t images) const {
    if (last()) return {channels, height, width, elements(), 1, width * channels, channels};
    return {channels, height, width, count(), images * count(), width, 1};
  }

  // f(element of `from`, stride, element of `to`, stride, how many) for runs of the same pixels.
  template <class F>
  static void pairs(const Pixels& from, const Pixels& to, int64_t images, const F& f) {
    if (from.last()) {
      parallel(images * from.height, from.width * from.channels, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t n = i / from.height, h = i % from.height;
          for (int64_t w = 0; w < from.width; ++w)
            f(n * from.image + h * from.row + w * from.pixel, 1, n * to.image + h * to.row + w * to.pixel, 1, from.channels);
        }
      });
      return;
    }
    const bool even = from.even() && to.even();
    const int64_t rows = even ? 1 : from.height, run = even ? from.count() : from.width;
    parallel(from.channels * images, from.count(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t c = i / images, n = i % images;
        for (int64_t h = 0; h < rows; ++h)
          f(n * from.image + c * from.channel + h * from.row, from.pixel, n * to.image + c * to.channel + h * to.row, to.pixel,
            run);
      }
    });
  }
};

void copy(const char* from, const Pixels& from_pixels, char* to, const Pixels& to_pixels, int64_t images,
          const Kernels& kernels) {
  const int64_t size = kernels.width;
  Pixels::pairs(from_pixels, to_pixels, images, [&](int64_t at, int64_t stride, int64_t to_at, int64_t to_stride, int64_t n) {
    const char* const source = from + at * size;
    char* const target = to + to_at * size;
    if (stride != 1) return kernels.load(source, stride * size, target, n);
    if (to_stride != 1) {
      // A row is too short for the hardware to see the next one coming.
      for (int64_t byte = 0; byte < n * to_stride * size; byte += kCacheLine)
        __builtin_prefetch(target + kRowsAhead * to_pixels.row * size + byte, 1);
      kernels.store(source, target, to_stride * size, n);
    }
    else std::memcpy(target, source, static_cast<size_t>(n * size));
  });
}

bool serves(const Kernels& kernels) {
  return is_compute_type(kernels.dtype, kernels.compute) &&
         (kernels.compute == Compute::f32 || kernels.compute == Compute::f64);
}

Gemm product(const Kernels& kernels) {
  Gemm g;
  g.type = g.epilogue.c_type = g.epilogue.source_type = kernels.dtype;
  return g;
}

}  // namespace

bool pointwise(const DataPass& pass, const Kernels& kernels) {
  if (!serves(kernels) || pass.groups != 1 || pass.taps.size() != 1 || pass.taps[0].h != 0 || pass.taps[0].w != 0)
    return false;
  const int64_t size = kernels.width, batch = pass.source.size(0);
  const Tensor &source = pass.source, &result = pass.result;
  // Pixels of an input that the kernel, with a step, stops short of have a gradient of zero, which only a border gives.
  if ((pass.height - 1) * pass.step_h >= source.size(2) || (pass.width - 1) * pass.step_w >= source.size(3)) return false;
  const Pixels in{pass.inner, pass.height, pass.width, source.stride(0), source.stride(1), source.stride(2) * pass.step_h,
                  source.stride(3) * pass.step_w};
  const Pixels out{pass.outer, pass.height, pass.width, result.stride(0), result.stride(1), pass.row_stride, pass.pixel_stride};
  if (pass.inner < (out.last() ? kFewestTermsLast : kFewestTerms)) return false;
  // A high tile of convolution reads most of a line of pixels at a time, and is faster for having nothing to pack where those
  // are adjacent, or nothing to collect where channels are. But not where the pixels that it reads side by side share a set of
  // the cache.
  const bool even = in.even() && out.even(), conflict = in.pixel * size % kCacheWay == 0;
  if (!kernels.low_tile() && (out.last() ? !even && !conflict : even)) return false;
  const char* const from = static_cast<const char*>(source.const_data_ptr());
  char* const to = static_cast<char*>(result.data_ptr()) + pass.offset * size;

  // Pixels that are not evenly spaced are collected, or spread afterwards, some images at a time. Planes that are small beside
  // the columns of a tile are set side by side.
  const int64_t lost = divide_up(in.count(), kernels.size.columns) * kernels.size.columns - in.count();
  const bool joins = batch > 1 && !in.last() && !out.last() && 8 * lost > in.count();
  const bool collects = joins || !in.even(), spreads = joins || !out.even();
  const int64_t image_bytes = std::max(collects ? in.elements() : 0, spreads ? out.elements() : 0) * size;
  const int64_t least = std::min<int64_t>(batch, at::get_num_threads());
  const int64_t chunk = image_bytes == 0 ? batch : std::clamp(kCollected / image_bytes, least, batch);
  const Scratch collected(collects ? chunk * in.elements() * size : 0), sums(spreads ? chunk * out.elements() * size : 0);
  const auto packed = [&](const Pixels& pixels, int64_t images) {
    if (joins) return pixels.dense(images);
    Pixels apart = pixels.dense(1);
    apart.image = apart.elements();
    return apart;
  };

  Gemm g = product(kernels);
  g.k = pass.inner;
  const GemmOperand weights{static_cast<const char*>(pass.weight.const_data_ptr()) + pass.taps[0].weight * size,
                            pass.weight_outer, pass.weight_inner, 0};
  if (pass.bias.defined()) g.source = pass.bias.const_data_ptr();
  const int64_t bias = pass.bias.defined() ? pass.bias.stride(0) : 0;
  for (int64_t first = 0; first < batch; first += chunk) {
    const int64_t images = std::min(chunk, batch - first);
    const Pixels x = collects ? packed(in, images) : in, y = spreads ? packed(out, images) : out;
    // The pixels of all images are one matrix where they are evenly spaced.
    const bool together = images == 1 || (x.all_even() && y.all_even());
    const int64_t pixels = together ? images * x.count() : x.count();
    g.batch = together ? 1 : images;
    const char* const x_data = collects ? collected.data() : from + first * in.image * size;
    if (collects) copy(from + first * in.image * size, in, collected.data(), x, images, kernels);
    if (y.last()) {
      g.m = pixels, g.n = pass.outer;
      g.a = {x_data, x.pixel, x.channel, x.image};
      g.b = {weights.data, weights.column, weights.row, 0};
      g.epilogue.c_row = y.pixel, g.epilogue.c_column = 1;
      g.epilogue.source_row = 0, g.epilogue.source_column = bias;
    } else {
      g.m = pass.outer, g.n = pixels;
      g.a = weights;
      g.b = {x_data, x.channel, x.pixel, x.image};
      g.epilogue.c_row = y.channel, g.epilogue.c_column = y.pixel;
      g.epilogue.source_row = bias, g.epilogue.source_column = 0;
    }
    g.c = spreads ? sums.data() : to + first * out.image * size;
    g.c_batch = y.image;
    gemm(g);
    if (spreads) copy(sums.data(), y, to + first * out.image * size, out, images, kernels);
  }
  return true;
}

bool pointwise_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                               const Tensor& result) {
  if (!serves(kernels) || p.groups != 1 || result.size(2) * result.size(3) != 1 || p.padding[0] != 0 || p.padding[1] != 0)
    return false;
  const int64_t size = kernels.width, batch = grad.size(0), height = grad.size(2), width = grad.size(3);
  const Pixels y{grad.size(1), height, width, grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  const Pixels x{input.size(1), height, width, input.stride(0), input.stride(1), input.stride(2) * p.stride[0],
                 input.stride(3) * p.stride[1]};
  const int64_t outer = result.size(0), inner = result.size(1);
  // A few images at a time, unless all lie in one piece.
  const bool whole = y.all_even() && x.all_even(), few_sums = outer * inner < (outer + inner) * y.count();
  const int64_t some = few_sums && y.even() && x.even() ? 1 : std::min(batch, divide_up(kDeep, y.count()));
  const int64_t chunk = whole ? batch : some, chunks = divide_up(batch, chunk);
  const auto in_place = [&](const Pixels& pixels) { return pixels.all_even() || (chunk == 1 && pixels.even()); };

  // Of planes, columns are packed. Few of them are the better ones to be: the result is turned over at the end.
  const bool turned = inner > outer && outer <= kUnpackedPanels * kernels.size.columns && !x.last() && !y.last();
  Gemm g = product(kernels);
  g.m = turned ? inner : outer, g.n = turned ? outer : inner;
  g.epilogue.c_row = g.epilogue.source_row = g.n;
  g.epilogue.c_column = g.epilogue.source_column = 1;
  // The sum over some of the chunks, to c.
  const auto sum = [&](int64_t first_chunk, int64_t last_chunk, void* c) {
    const Scratch grads(in_place(y) ? 0 : chunk * y.elements() * size), images(in_place(x) ? 0 : chunk * x.elements() * size);
    Gemm part = g;
    part.c = c;
    for (int64_t first = first_chunk * chunk; first < std::min(last_chunk * chunk, batch); first += chunk) {
      const int64_t together = std::min(chunk, batch - first);
      part.k = together * y.count();
      const auto channels_by_pixels = [&](const Tensor& t, const Pixels& pixels, char* room) -> GemmOperand {
        const char* const from = static_cast<const char*>(t.const_data_ptr()) + first * pixels.image * size;
        if (in_place(pixels)) return {from, pixels.channel, pixels.pixel, 0};
        const Pixels dense = pixels.dense(together);
        copy(from, pixels, room, dense, together, kernels);
        return {room, dense.channel, dense.pixel, 0};
      };
      part.a = channels_by_pixels(grad, y, grads.data());
      part.b = channels_by_pixels(input, x, images.data());
      if (turned) std::swap(part.a, part.b);
      std::swap(part.b.row, part.b.column);
      gemm(part);
      part.source = c;
    }
  };

  // A small result is summed in parts, as many as there are chunks for, and these in order: side by side, or one after the other
  // by all threads where there are more of those.
  const int64_t elements = g.m * g.n, parts = elements > kSmallResult ? 1 : std::min(chunks, kParts);
  const Scratch others((parts - 1 + turned) * elements * size);
  char* const to = static_cast<char*>(result.data_ptr());
  char* const total = turned ? others.data() + (parts - 1) * elements * size : to;
  const auto sum_parts = [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      sum(chunks * part / parts, chunks * (part + 1) / parts, part == 0 ? total : others.data() + (part - 1) * elements * size);
  };
  if (parts < at::get_num_threads()) sum_parts(0, parts);
  else parallel(parts, chunk * y.count() * elements, sum_parts);
  if (parts > 1) {
    const auto add_rows = TENSOROPS_KERNELS(conv_kernels).add_rows[static_cast<int>(kernels.compute)];
    add_rows(others.data(), elements, parts - 1, elements, total);
  }
  if (turned)
    parallel(outer, inner, [&](int64_t begin, int64_t end) {
      kernels.pack(total + begin * size, outer, 1, inner, end - begin, static_cast<int>(inner), to + begin * inner * size);
    });
  return true;
}

}  // namespace tensorops::cpu::conv
