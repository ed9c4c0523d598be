// Convolution as a matrix product whose operands are fetched element by element from where they lie (implicit GEMM), and
// a direct form for groups with few channels, depthwise among them, whose product would leave a tile almost empty.
#include "cuda/kernels/convolution.h"

#include "cuda/kernels/gemm_tile.h"

namespace tensorops::cuda {
namespace {

// Up to this many channels of a group on the narrow side, the direct kernels run.
constexpr int64_t kFewChannels = 4;

// A position in the batch of images, and a tap of the kernel with its channel.
struct Pixel {
  int64_t image, row, column;
};
struct Tap {
  int64_t channel, row, column;
};

struct PixelIndex {
  Split columns, rows;
  TENSOROPS_DEVICE Pixel operator()(int64_t i) const {
    const int64_t above = columns(i);
    int64_t row = above;
    const int64_t image = rows(row);
    return {image, row, i};
  }
};
struct TapIndex {
  Split kernel_columns, kernel_rows, channels;
  bool channels_fast;
  TENSOROPS_DEVICE Tap operator()(int64_t k) const {
    Tap tap;
    if (channels_fast) {
      int64_t rest = channels(k);
      tap.channel = k;
      tap.row = kernel_columns(rest);
      tap.column = rest;
    } else {
      int64_t rest = kernel_columns(k);
      tap.column = k;
      tap.channel = kernel_rows(rest);
      tap.row = rest;
    }
    return tap;
  }
};

struct Geometry {
  int64_t stride[2], padding[2], dilation[2];
  Split strides[2];
};

template <class T>
struct Image {
  T* data;
  int64_t stride[4];
  int64_t size[2];
  int64_t channels;  // per group
  TENSOROPS_DEVICE int64_t of_group(int64_t group) const { return group * channels * stride[1]; }
  TENSOROPS_DEVICE int64_t of_pixel(const Pixel& p) const {
    return p.image * stride[0] + p.row * stride[2] + p.column * stride[3];
  }
};

// One of the two parts of where an element lies: offsets from the image's first one add up, and so do rows and columns.
template <class Coordinate>
struct Place {
  int64_t offset;
  Coordinate row, column;
};

// A of the forward product, the input seen from the output's pixels, and, Transposed, of the input gradient, the output's gradient
// seen from the input's: pixels by taps.
template <class T, bool Transposed, class Coordinate>
struct PatchSource {
  using Row = Place<Coordinate>;
  using Column = Place<Coordinate>;
  Image<const T> image;
  Geometry geometry;
  PixelIndex pixels;
  TapIndex taps;
  bool k_fast;
  int64_t group = 0;

  TENSOROPS_DEVICE void batch(int64_t g) { group = image.of_group(g); }
  TENSOROPS_DEVICE Row row(int64_t i) const {
    Pixel at = pixels(i);
    const Geometry& g = geometry;
    at.row = Transposed ? at.row + g.padding[0] : at.row * g.stride[0] - g.padding[0];
    at.column = Transposed ? at.column + g.padding[1] : at.column * g.stride[1] - g.padding[1];
    const int64_t offset = Transposed ? at.image * image.stride[0] : image.of_pixel(at);
    return {offset, static_cast<Coordinate>(at.row), static_cast<Coordinate>(at.column)};
  }
  TENSOROPS_DEVICE Column column(int64_t k) const {
    const Tap tap = taps(k);
    const int64_t down = tap.row * geometry.dilation[0], across = tap.column * geometry.dilation[1];
    const int64_t channel = tap.channel * image.stride[1];
    if (Transposed) return {channel, static_cast<Coordinate>(-down), static_cast<Coordinate>(-across)};
    return {channel + down * image.stride[2] + across * image.stride[3], static_cast<Coordinate>(down),
            static_cast<Coordinate>(across)};
  }
  TENSOROPS_DEVICE T at(const Row& pixel, const Column& tap) const {
    int64_t offset = group + pixel.offset + tap.offset;
    Coordinate row = pixel.row + tap.row, column = pixel.column + tap.column;
    bool inside = row >= 0 && column >= 0;
    if (Transposed && inside) {
      // The output pixel that sees this one through the tap, if there is one.
      Coordinate rest_down = row, rest_across = column;
      row = geometry.strides[0](rest_down);
      column = geometry.strides[1](rest_across);
      inside = rest_down == 0 && rest_across == 0;
      offset += row * image.stride[2] + column * image.stride[3];
    }
    inside = inside && row < static_cast<Coordinate>(image.size[0]) && column < static_cast<Coordinate>(image.size[1]);
    return inside ? image.data[offset] : store_as<T>(0.0f);
  }
};

// B of both: a packed matrix per group, one row of k per column of the product.
template <class T>
struct PackedSource {
  using Row = int64_t;
  using Column = int64_t;
  const T* data;
  int64_t columns, k;
  bool k_fast = true;
  int64_t offset = 0;
  TENSOROPS_DEVICE void batch(int64_t g) { offset = g * columns * k; }
  TENSOROPS_DEVICE Row row(int64_t j) const { return j * k; }
  TENSOROPS_DEVICE Column column(int64_t at_k) const { return at_k; }
  TENSOROPS_DEVICE T at(Row row, Column column) const { return data[offset + row + column]; }
};

template <class T>
struct ImageEpilogue {
  Image<T> image;
  PixelIndex pixels;
  const T* bias;
  int64_t first_channel = 0, group = 0;
  TENSOROPS_DEVICE void batch(int64_t g) {
    first_channel = g * image.channels;
    group = image.of_group(g);
  }
  TENSOROPS_DEVICE T* row(int64_t i) const { return image.data + group + image.of_pixel(pixels(i)); }
  template <class Accumulator>
  TENSOROPS_DEVICE void operator()(T* row, int64_t j, Accumulator value) const {
    if (bias != nullptr) value += load_as<Accumulator>(bias[first_channel + j]);
    row[j * image.stride[1]] = store_as<T>(value);
  }
};

// Weight gradient: A is output channels by output pixels, B input channels and kernel by output pixels.
template <class T>
struct GradSource {
  using Row = int64_t;
  using Column = int64_t;
  Image<const T> image;
  PixelIndex pixels;
  bool k_fast;
  int64_t group = 0;
  TENSOROPS_DEVICE void batch(int64_t g) { group = image.of_group(g); }
  TENSOROPS_DEVICE Row row(int64_t i) const { return i * image.stride[1]; }
  TENSOROPS_DEVICE Column column(int64_t k) const { return image.of_pixel(pixels(k)); }
  TENSOROPS_DEVICE T at(Row channel, Column pixel) const { return image.data[group + channel + pixel]; }
};
template <class T, class Coordinate>
struct InputSource {
  using Patches = PatchSource<T, false, Coordinate>;
  using Row = typename Patches::Column;
  using Column = typename Patches::Row;
  Patches patches;
  bool k_fast;
  TENSOROPS_DEVICE void batch(int64_t g) { patches.batch(g); }
  TENSOROPS_DEVICE Row row(int64_t j) const { return patches.column(j); }
  TENSOROPS_DEVICE Column column(int64_t k) const { return patches.row(k); }
  TENSOROPS_DEVICE T at(const Row& tap, const Column& pixel) const { return patches.at(pixel, tap); }
};
template <class T>
struct WeightEpilogue {
  T* out;
  int64_t rows, columns;
  int64_t group = 0;
  TENSOROPS_DEVICE void batch(int64_t g) { group = g; }
  TENSOROPS_DEVICE T* row(int64_t i) const { return out + (group * rows + i) * columns; }
  template <class Accumulator>
  TENSOROPS_DEVICE void operator()(T* row, int64_t j, Accumulator value) const { row[j] = store_as<T>(value); }
};

// ---- few channels: one thread per result ---------------------------------------------------------------------------

constexpr int64_t kTermsPerPart = 32;  // one chain of additions would lose more bits the longer it is

template <class T, class Accumulator, bool Transposed>
__global__ void __launch_bounds__(kThreads)
    direct_kernel(PatchSource<T, Transposed, int64_t> patches, PackedSource<T> weight, ImageEpilogue<T> epilogue,
                  int64_t pixels, int64_t groups, int64_t columns, int64_t k) {
  const int64_t total = pixels * groups * columns;
  for (int64_t index = blockIdx.x * int64_t(kThreads) + threadIdx.x; index < total; index += gridDim.x * int64_t(kThreads)) {
    const int64_t pixel = index % pixels, channel = index / pixels, group = channel / columns, j = channel % columns;
    patches.batch(group);
    weight.batch(group);
    epilogue.batch(group);
    const auto place = patches.row(pixel);
    const auto row = weight.row(j);
    Accumulator sum = 0;
    for (int64_t at = 0; at < k;) {
      Accumulator part = 0;
      for (const int64_t end = at + kTermsPerPart < k ? at + kTermsPerPart : k; at < end; ++at)
        part += load_as<Accumulator>(patches.at(place, patches.column(at))) *
                load_as<Accumulator>(weight.at(row, weight.column(at)));
      sum += part;
    }
    epilogue(epilogue.row(pixel), j, sum);
  }
}

// One block per element of the weight.
template <class T, class Accumulator>
__global__ void __launch_bounds__(kThreads)
    direct_weight_kernel(GradSource<T> grad, InputSource<T, int64_t> input, T* out, int64_t groups, int64_t rows,
                         int64_t columns, int64_t pixels) {
  for (int64_t index = blockIdx.x; index < groups * rows * columns; index += gridDim.x) {
    const int64_t j = index % columns, i = index / columns % rows, group = index / columns / rows;
    grad.batch(group);
    input.batch(group);
    const auto channel = grad.row(i);
    const auto tap = input.row(j);
    Accumulator sum = 0;
    for (int64_t pixel = threadIdx.x; pixel < pixels; pixel += kThreads)
      sum += load_as<Accumulator>(grad.at(channel, grad.column(pixel))) * load_as<Accumulator>(input.at(tap, input.column(pixel)));
    sum = block_reduce<kThreads>(sum, Accumulator(0), [](Accumulator a, Accumulator b) { return a + b; });
    if (threadIdx.x == 0) out[index] = store_as<T>(sum);
  }
}

// ---- choice ----------------------------------------------------------------------------------------------------------

// Whether 32 bits hold every row and column of both images, padding included: what the tiles take for granted.
bool has_small_coordinates(const ConvProblem& p) {
  const auto fits = [&](int d) { return p.in_size[d] + 2 * p.padding[d] <= 0x7fffffff; };
  return fits(0) && fits(1);
}
Geometry geometry_of(const ConvProblem& p) {
  const auto strides = [&](int d) { return Split(p.stride[d], !has_small_coordinates(p)); };
  return {{p.stride[0], p.stride[1]}, {p.padding[0], p.padding[1]}, {p.dilation[0], p.dilation[1]}, {strides(0), strides(1)}};
}
template <class T>
Image<T> image_of(const ConvTensor& t, const int64_t (&size)[2], int64_t channels) {
  return {static_cast<T*>(const_cast<void*>(t.data)),
          {t.stride[0], t.stride[1], t.stride[2], t.stride[3]},
          {size[0], size[1]},
          channels};
}
int64_t taps(const ConvProblem& p, int64_t channels) { return channels * p.kernel[0] * p.kernel[1]; }
int64_t pixels_of(const ConvProblem& p, const int64_t (&size)[2]) { return p.batch * size[0] * size[1]; }

// Whether indices of pixels or taps need 64 bits.
bool is_wide(const ConvProblem& p) {
  constexpr int64_t most = 0x7fffffff;
  return pixels_of(p, p.in_size) > most || pixels_of(p, p.out_size) > most || taps(p, p.in_channels) > most ||
         taps(p, p.out_channels) > most;
}
PixelIndex pixel_index(const ConvProblem& p, const int64_t (&size)[2]) {
  return {Split(size[1], is_wide(p)), Split(size[0], is_wide(p))};
}
TapIndex tap_index(const ConvProblem& p, int64_t channels, bool channels_fast) {
  return {Split(p.kernel[1], is_wide(p)), Split(p.kernel[0], is_wide(p)), Split(channels, is_wide(p)), channels_fast};
}

// Calls f with the storage type and its tile.
template <class F>
void with_type(const ConvProblem& p, F f) {
  struct F32 { using Tile = Simt<float, 128, 128, 8, 8, 8>; };
  struct F64 { using Tile = Simt<double, 64, 64, 16, 4, 4>; };
  struct TF { using Tile = TensorCore<TF32>; };
  struct F16 { using Tile = TensorCore<Half>; };
  struct BF16 { using Tile = TensorCore<BFloat16>; };
  switch (p.dtype) {
    case DType::f32: return p.allow_tf32 ? f(float{}, TF{}) : f(float{}, F32{});
    case DType::f64: return f(double{}, F64{});
    case DType::f16: return f(Half{}, F16{});
    case DType::bf16: return f(BFloat16{}, BF16{});
    default: return;
  }
}

// The product of patches and packed weights: forward, or the gradient of the input.
template <bool Transposed>
void launch_patches(const ConvProblem& p, const ConvTensor& from, const int64_t (&from_size)[2], int64_t from_channels,
                    const void* weight, const void* bias, const ConvTensor& to, const int64_t (&to_size)[2],
                    int64_t to_channels, cudaStream_t stream) {
  const int64_t m = pixels_of(p, to_size), k = taps(p, from_channels);
  if (m == 0 || to_channels == 0) return;
  with_type(p, [&](auto type, auto tile) {
    using T = decltype(type);
    using Tile = typename decltype(tile)::Tile;
    const auto patches = [&](auto coordinate) {
      return PatchSource<T, Transposed, decltype(coordinate)>{
          image_of<const T>(from, from_size, from_channels), geometry_of(p), pixel_index(p, to_size),
          tap_index(p, from_channels, p.channels_fast), p.channels_fast};
    };
    const PackedSource<T> packed{static_cast<const T*>(weight), to_channels, k};
    const ImageEpilogue<T> epilogue{image_of<T>(to, to_size, to_channels), pixel_index(p, to_size), static_cast<const T*>(bias)};
    if (to_channels <= kFewChannels || !has_small_coordinates(p)) {
      const unsigned blocks = blocks_for(m * p.groups * to_channels, kThreads);
      direct_kernel<T, typename Tile::Accumulator, Transposed>
          <<<blocks, kThreads, 0, stream>>>(patches(int64_t{}), packed, epilogue, m, p.groups, to_channels, k);
    } else {
      launch_gemm<Tile>(patches(int32_t{}), packed, epilogue, {m, to_channels, k, p.groups, k}, stream);
    }
  });
}

// Positions summed by one part of the weight gradient.
constexpr int64_t kPixelsPerPart = 4096;

bool is_direct_weight(const ConvProblem& p) {
  return (p.out_channels <= kFewChannels && p.in_channels <= kFewChannels) || !has_small_coordinates(p);
}

}  // namespace

void launch_conv_forward(const ConvProblem& p, const ConvTensor& input, const void* weight, const void* bias,
                         const ConvTensor& output, cudaStream_t stream) {
  launch_patches<false>(p, input, p.in_size, p.in_channels, weight, bias, output, p.out_size, p.out_channels, stream);
}

void launch_conv_input_gradient(const ConvProblem& p, const ConvTensor& grad, const void* weight,
                                const ConvTensor& input_gradient, cudaStream_t stream) {
  launch_patches<true>(p, grad, p.out_size, p.out_channels, weight, nullptr, input_gradient, p.in_size, p.in_channels,
                       stream);
}

int64_t conv_weight_splits(const ConvProblem& p) {
  const int64_t pixels = pixels_of(p, p.out_size);
  if (is_direct_weight(p) || pixels == 0) return 1;
  const int64_t parts = ceil_div(pixels, kPixelsPerPart) < 256 ? ceil_div(pixels, kPixelsPerPart) : 256;
  return ceil_div(pixels, ceil_div(pixels, parts));  // the last of evenly cut parts may have come to nothing
}

void launch_conv_weight_gradient(const ConvProblem& p, const ConvTensor& grad, const ConvTensor& input, void* partial,
                                 void* weight_gradient, cudaStream_t stream) {
  const int64_t pixels = pixels_of(p, p.out_size), rows = p.out_channels, columns = taps(p, p.in_channels);
  if (rows == 0 || columns == 0) return;
  with_type(p, [&](auto type, auto tile) {
    using T = decltype(type);
    using Tile = typename decltype(tile)::Tile;
    using Accumulator = typename Tile::Accumulator;
    const GradSource<T> grads{image_of<const T>(grad, p.out_size, p.out_channels), pixel_index(p, p.out_size), !p.channels_fast};
    const auto inputs = [&](auto coordinate) {
      return InputSource<T, decltype(coordinate)>{
          {image_of<const T>(input, p.in_size, p.in_channels), geometry_of(p), pixel_index(p, p.out_size),
           tap_index(p, p.in_channels, false), false},
          !p.channels_fast};
    };
    T* const out = static_cast<T*>(weight_gradient);
    if (is_direct_weight(p)) {
      direct_weight_kernel<T, Accumulator><<<blocks_for(p.groups * rows * columns, 1), kThreads, 0, stream>>>(
          grads, inputs(int64_t{}), out, p.groups, rows, columns, pixels);
      return;
    }
    const int64_t parts = conv_weight_splits(p);
    const PartialEpilogue<Accumulator> sums{static_cast<Accumulator*>(partial), rows, columns, p.groups};
    const int64_t per_part = pixels == 0 ? 1 : ceil_div(pixels, parts);
    launch_gemm<Tile>(grads, inputs(int32_t{}), sums, {rows, columns, pixels, p.groups, per_part}, stream);
    sum_parts(sums, WeightEpilogue<T>{out, rows, columns}, parts, stream);
  });
}

}  // namespace tensorops::cuda
