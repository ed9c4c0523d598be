// Convolution with step 2 on the CPU as one with step 1: the image's pixels, its border among them, fall into four phases, of
// even or odd rows and columns, and the kernel's taps with them. Phases are channels, and Winograd's way multiplies less. An odd
// kernel has fewer odd taps than even ones; what is lacking is zeros, most of whose products are left out.
//
// Workspace: the image and the weights so arranged.
#include <cstring>
#include <vector>

#include "cpu/convolution.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu::conv {
namespace {

constexpr int64_t kAhead = 4;  // channels
constexpr int64_t kPlaces[2][2] = {{1, 0}, {2, 3}};  // of the phases, as winograd() wants them: [odd row][odd column]

struct Arrangement {
  // `weight`, or its gradient, and `grad`, the result or its gradient, are looked at for their sizes.
  Arrangement(const Tensor& image, const Tensor& weight, const Tensor& grad, const Params& p)
      : inner(image.size(1)),
        kernel(weight.size(2)),
        last(image.stride(1) == 1 && image.stride(3) == inner),
        padding{p.padding[0], p.padding[1]},
        step_1(p) {
    bool steps = true;
    for (int d = 0; d < 2; ++d) {
      steps &= p.stride[d] == 2 && p.dilation[d] == 1;
      step_1.stride[d] = 1;
      step_1.padding[d] = 0;
    }
    const bool square = weight.size(3) == kernel && kernel >= 4;
    if (!steps || !square || p.groups != 1 || !(image.stride(3) == 1 || last)) return;
    if (mostly_border(image, 2 * grad.size(2), 2 * grad.size(3))) return;
    const int64_t taps = divide_up(kernel, 2);
    size = {taps, image.size(0), grad.size(2), grad.size(3), 4 * inner, weight.size(0),
            kernel % 2 == 0 ? Phases::of_even_kernel : Phases::of_odd_kernel};
    rows = size.height + taps - 1, columns = size.width + taps - 1;
  }

  // (batch, channels, rows, columns). Its memory runs over (batch, row, channel, column), or (batch, row, column, channel) where
  // the image's channels are adjacent.
  Tensor arranged(const Tensor& image) const {
    const int64_t channels = size.inner, height = image.size(2), width = image.size(3), line = channels * columns;
    const Tensor result = empty_strided({size.batch, channels, rows, columns},
                                        {rows * line, last ? 1 : columns, line, last ? channels : 1}, image.scalar_type());
    const auto split = TENSOROPS_KERNELS(conv_kernels).split[static_cast<int>(Compute::f32)];
    const float* const from = image.const_data_ptr<float>();
    float* const to = result.data_ptr<float>();
    parallel(size.batch * rows, line, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item)
        for (int64_t odd = 0; odd < 2; ++odd) {
          const int64_t n = item / rows, row = item % rows * 2 + odd - padding[0];
          const bool inside = 0 <= row && row < height;
          const float* const pixels = from + n * image.stride(0) + row * image.stride(2);
          float* const out = to + item * line;
          if (last) {
            const auto bytes = static_cast<size_t>(inner) * sizeof(float);
            for (int64_t x = 0; x < 2 * columns; ++x) {
              const int64_t w = x - padding[1];
              float* const here = out + x / 2 * channels + kPlaces[odd][x % 2] * inner;
              if (inside && 0 <= w && w < width) std::memcpy(here, pixels + w * inner, bytes);
              else std::memset(here, 0, bytes);
            }
          } else {
            const int64_t distance = (kPlaces[odd][1] - kPlaces[odd][0]) * inner * columns;
            const int64_t count = inside ? std::min(width, 2 * columns - padding[1]) : 0;
            for (int64_t c = 0; c < inner; ++c) {
              // Planes are too far apart for the hardware to see the next one coming.
              if (inside && c + kAhead < inner)
                for (int64_t w = 0; w < width; w += kCacheLine / 4) __builtin_prefetch(pixels + (c + kAhead) * image.stride(1) + w);
              split(pixels + c * image.stride(1), count, padding[1], 2, out + (kPlaces[odd][0] * inner + c) * columns, columns,
                    distance);
            }
          }
        }
    });
    return result;
  }

  // f(element of the phases' weights, which are dense, element of `weight` or -1) for all taps of all filters.
  template <class F>
  void each_tap(const Tensor& weight, const F& f) const {
    const int64_t taps = size.taps, all = taps * taps;
    std::vector<int64_t> places(4 * all);  // [phase][tap], in a filter of `weight`
    for (int64_t odd_row = 0; odd_row < 2; ++odd_row)
      for (int64_t odd_column = 0; odd_column < 2; ++odd_column)
        for (int64_t tap = 0; tap < all; ++tap) {
          const int64_t h = 2 * (tap / taps) + odd_row, w = 2 * (tap % taps) + odd_column;
          places[kPlaces[odd_row][odd_column] * all + tap] =
              h < kernel && w < kernel ? h * weight.stride(2) + w * weight.stride(3) : -1;
        }
    parallel(weight.size(0) * 4, inner * all, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t filter = item / 4 * weight.stride(0), *const here = places.data() + item % 4 * all;
        for (int64_t tap = 0; tap < all; ++tap)
          for (int64_t c = 0; c < inner; ++c)
            f((item * inner + c) * all + tap, here[tap] < 0 ? -1 : filter + c * weight.stride(1) + here[tap]);
      }
    });
  }

  const int64_t inner, kernel;
  const bool last;  // channels are adjacent
  const int64_t padding[2];
  Params step_1;        // of the convolution of phases
  WinogradSize size{};  // without taps where there is none
  int64_t rows = 0, columns = 0;  // of pixels of each phase that it reads
};

// Sums in f32, of f32 as it lies.
bool serves(const Arrangement& arrangement, const Kernels& kernels) {
  return arrangement.size.taps > 0 && kernels.dtype == DType::f32 && !few_channels(arrangement.size.outer, kernels);
}

Tensor phase_weights(const Arrangement& arrangement, const Tensor& weight) {
  const WinogradSize& size = arrangement.size;
  return empty({size.outer, size.inner, size.taps, size.taps}, weight.scalar_type());
}

}  // namespace

bool strided(const Tensor& input, const Tensor& weight, const Tensor& bias, const Params& p, const Kernels& kernels,
             const Tensor& result) {
  const Arrangement arrangement(input, weight, result, p);
  if (!serves(arrangement, kernels) || !winograd_pays(arrangement.size, kernels)) return false;
  const Tensor weights = phase_weights(arrangement, weight);
  const float* const from = weight.const_data_ptr<float>();
  float* const to = weights.data_ptr<float>();
  arrangement.each_tap(weight, [&](int64_t tap, int64_t own) { to[tap] = own < 0 ? 0 : from[own]; });
  const DataPass pass = forward_pass(arrangement.arranged(input), weights, bias, arrangement.step_1, result);
  return winograd(pass, kernels, arrangement.size.phases);
}

bool strided_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                             const Tensor& result) {
  const Arrangement arrangement(input, result, grad, p);
  if (!serves(arrangement, kernels) || !winograd_gradient_pays(arrangement.size, kernels)) return false;
  const Tensor sums = phase_weights(arrangement, result);
  const Tensor image = arrangement.arranged(input);
  if (!winograd_weight_gradient(grad, image, arrangement.step_1, kernels, sums, arrangement.size.phases)) return false;
  const float* const from = sums.const_data_ptr<float>();
  float* const to = result.data_ptr<float>();
  arrangement.each_tap(result, [&](int64_t tap, int64_t own) {
    if (own >= 0) to[own] = from[tap];
  });
  return true;
}

}  // namespace tensorops::cpu::conv
