// Convolution with step 2 on the CPU as one with step 1: the image's pixels fall into four phases, of even or odd rows and
// columns, and the kernel's taps with them. Phases are channels, and Winograd's way multiplies less.
//
// Workspace: the image and the weights so arranged.
#include <cstring>

#include "cpu/convolution.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"

namespace tensorops::cpu::conv {
namespace {

struct Phases {
  Phases(const Tensor& image, const Tensor& weight, const Params& p)
      : inner(image.size(1)),
        kernel(weight.size(2)),
        last(image.stride(1) == 1 && image.stride(3) == inner),
        padding{p.padding[0], p.padding[1]},
        step_1(p) {
    int64_t across[2];
    for (int d = 0; d < 2; ++d) {
      step_1.stride[d] = 1;
      step_1.padding[d] = (padding[d] + 1) / 2;
      across[d] = ((kernel - 1 - padding[d]) >> 1) + step_1.padding[d] + 1;
    }
    const bool steps = p.stride[0] == 2 && p.stride[1] == 2 && p.dilation[0] == 1 && p.dilation[1] == 1;
    const bool square = weight.size(3) == kernel && kernel >= 5 && across[0] == across[1];
    if (steps && square && p.groups == 1 && (image.stride(3) == 1 || last)) taps = across[0];
  }
  // What the products are made of, for a result of `height` by `width` pixels.
  WinogradSize size(const Tensor& image, const Tensor& weight, int64_t height, int64_t width) const {
    return {taps, image.size(0), height, width, channels(), weight.size(0), inner * kernel * kernel};
  }

  int64_t channels() const { return 4 * inner; }
  int64_t channel(int64_t odd_row, int64_t odd_column, int64_t c) const {
    return last ? (2 * odd_row + odd_column) * inner + c : 2 * (odd_row * inner + c) + odd_column;
  }

  // (batch, channels, ceil(height / 2), ceil(width / 2)), zeros where there is no odd row or column. Its memory runs over
  // (batch, row, channel, column), or (batch, row, column, channel) where the image's channels are adjacent.
  Tensor arranged(const Tensor& image) const {
    const int64_t batch = image.size(0), height = image.size(2), width = image.size(3);
    const int64_t rows = divide_up(height, 2), columns = divide_up(width, 2), line = channels() * columns;
    const Tensor result = empty_strided({batch, channels(), rows, columns},
                                        {rows * line, last ? 1 : columns, line, last ? channels() : 1}, image.scalar_type());
    const auto split = TENSOROPS_KERNELS(conv_kernels).split[static_cast<int>(Compute::f32)];
    const float* const from = image.const_data_ptr<float>();
    float* const to = result.data_ptr<float>();
    parallel(batch * rows, line, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item)
        for (int64_t odd = 0; odd < 2; ++odd) {
          const int64_t n = item / rows, row = item % rows * 2 + odd;
          const float* const pixels = from + n * image.stride(0) + row * image.stride(2);
          float* const out = to + item * line;
          if (last) {
            const int64_t pair = 2 * inner;
            for (int64_t column = 0; column < columns; ++column) {
              float* const here = out + column * channels() + odd * pair;
              const int64_t there = row < height ? std::min(pair, (width - 2 * column) * inner) : 0;
              std::memcpy(here, pixels + column * pair, static_cast<size_t>(there) * sizeof(float));
              std::memset(here + there, 0, static_cast<size_t>(pair - there) * sizeof(float));
            }
          } else {
            for (int64_t c = 0; c < inner; ++c)
              split(pixels + c * image.stride(1), row < height ? width : 0, 0, 2, out + channel(odd, 0, c) * columns, columns);
          }
        }
    });
    return result;
  }

  // f(element of the phases' weights, which are dense, element of `weight` or -1) for all taps of all filters.
  template <class F>
  void each_tap(const Tensor& weight, const F& f) const {
    parallel(weight.size(0), channels() * taps * taps, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        for (int64_t odd_row = 0; odd_row < 2; ++odd_row)
          for (int64_t odd_column = 0; odd_column < 2; ++odd_column)
            for (int64_t c = 0; c < inner; ++c)
              for (int64_t h = 0; h < taps; ++h)
                for (int64_t w = 0; w < taps; ++w) {
                  const int64_t y = 2 * (h - step_1.padding[0]) + odd_row + padding[0];
                  const int64_t x = 2 * (w - step_1.padding[1]) + odd_column + padding[1];
                  const bool exists = 0 <= y && y < kernel && 0 <= x && x < kernel;
                  f(((o * channels() + channel(odd_row, odd_column, c)) * taps + h) * taps + w,
                    exists ? o * weight.stride(0) + c * weight.stride(1) + y * weight.stride(2) + x * weight.stride(3) : -1);
                }
    });
  }

  const int64_t inner, kernel;
  const bool last;  // channels are adjacent
  const int64_t padding[2];
  Params step_1;     // of the convolution of phases
  int64_t taps = 0;  // of its kernel, in each dimension; 0 where there is none
};

// Sums in f32, of f32 as it lies.
bool serves(const Phases& phases, int64_t outer, const Kernels& kernels) {
  return phases.taps > 0 && kernels.dtype == DType::f32 && !few_channels(outer, kernels);
}

}  // namespace

bool strided(const Tensor& input, const Tensor& weight, const Tensor& bias, const Params& p, const Kernels& kernels,
             const Tensor& result) {
  const Phases phases(input, weight, p);
  if (!serves(phases, weight.size(0), kernels)) return false;
  const WinogradSize size = phases.size(input, weight, result.size(2), result.size(3));
  if (!winograd_pays(size, kernels)) return false;
  const Tensor weights = empty({size.outer, size.inner, size.taps, size.taps}, weight.scalar_type());
  const float* const from = weight.const_data_ptr<float>();
  float* const to = weights.data_ptr<float>();
  phases.each_tap(weight, [&](int64_t tap, int64_t own) { to[tap] = own < 0 ? 0 : from[own]; });
  return winograd(forward_pass(phases.arranged(input), weights, bias, phases.step_1, result), kernels, size.terms);
}

bool strided_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                             const Tensor& result) {
  const Phases phases(input, result, p);
  if (!serves(phases, result.size(0), kernels)) return false;
  const WinogradSize size = phases.size(input, result, grad.size(2), grad.size(3));
  if (!winograd_gradient_pays(size, kernels)) return false;
  const Tensor sums = empty({size.outer, size.inner, size.taps, size.taps}, result.scalar_type());
  if (!winograd_weight_gradient(grad, phases.arranged(input), phases.step_1, kernels, sums, size.terms)) return false;
  const float* const from = sums.const_data_ptr<float>();
  float* const to = result.data_ptr<float>();
  phases.each_tap(result, [&](int64_t tap, int64_t own) {
    if (own >= 0) to[own] = from[tap];
  });
  return true;
}

}  // namespace tensorops::cpu::conv
