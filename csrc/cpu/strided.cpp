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
  Phases(const Tensor& input, int64_t kernel, const Params& p) : inner(input.size(1)), kernel(kernel) {
    last = input.stride(1) == 1 && input.stride(3) == inner;
    for (int d = 0; d < 2; ++d) {
      padding[d] = p.padding[d];
      first[d] = -((padding[d] + 1) / 2);
      taps[d] = ((kernel - 1 - padding[d]) >> 1) - first[d] + 1;
    }
  }
  // Whether `image` can be arranged, and how many taps there are across a phase's kernel.
  static int64_t across(const Tensor& image, const Tensor& weight, const Params& p, const Kernels& kernels) {
    const int64_t kernel = weight.size(2);
    if (p.groups != 1 || kernel < 5 || weight.size(3) != kernel || kernels.dtype != DType::f32) return 0;
    for (int d = 0; d < 2; ++d)
      if (p.stride[d] != 2 || p.dilation[d] != 1) return 0;
    const Phases phases(image, kernel, p);
    const bool rows = image.stride(3) == 1 || phases.last;
    return rows && phases.taps[0] == phases.taps[1] ? phases.taps[0] : 0;
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

  // f(channel, row, column, element of the kernel's own (channel, row, column) or -1) for all taps of one filter.
  template <class F>
  void each_tap(const Tensor& weight, const F& f) const {
    for (int64_t odd_row = 0; odd_row < 2; ++odd_row)
      for (int64_t odd_column = 0; odd_column < 2; ++odd_column)
        for (int64_t c = 0; c < inner; ++c)
          for (int64_t h = 0; h < taps[0]; ++h)
            for (int64_t w = 0; w < taps[1]; ++w) {
              const int64_t y = 2 * (first[0] + h) + odd_row + padding[0], x = 2 * (first[1] + w) + odd_column + padding[1];
              const bool exists = 0 <= y && y < kernel && 0 <= x && x < kernel;
              f(channel(odd_row, odd_column, c), h, w,
                exists ? c * weight.stride(1) + y * weight.stride(2) + x * weight.stride(3) : -1);
            }
  }

  int64_t inner, kernel, padding[2], first[2], taps[2];
  bool last;
};

}  // namespace

bool strided(const Tensor& input, const Tensor& weight, const Tensor& bias, const Params& p, const Kernels& kernels,
             const Tensor& result) {
  const int64_t across = Phases::across(input, weight, p, kernels), kernel = weight.size(2), outer = weight.size(0);
  if (across == 0 || few_channels(outer, kernels)) return false;
  const int64_t terms = weight.size(1) * kernel * kernel;
  if (!winograd_pays({across, input.size(0), result.size(2), result.size(3), 4 * input.size(1), outer, terms}, kernels))
    return false;
  const Phases phases(input, kernel, p);
  const Tensor weights = empty({outer, phases.channels(), across, across}, weight.scalar_type());
  const float* const from = weight.const_data_ptr<float>();
  float* const to = weights.data_ptr<float>();
  parallel(outer, phases.channels() * across * across, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o)
      phases.each_tap(weight, [&](int64_t channel, int64_t h, int64_t w, int64_t element) {
        to[((o * phases.channels() + channel) * across + h) * across + w] = element < 0 ? 0 : from[o * weight.stride(0) + element];
      });
  });
  DataPass pass{phases.arranged(input),
                1,
                phases.channels(),
                outer,
                {},
                1,
                1,
                weights,
                weights.numel(),
                weights.stride(0),
                weights.stride(1),
                bias,
                result,
                result.size(2),
                result.size(3),
                result.stride(2),
                result.stride(3),
                0};
  for (int64_t h = 0; h < across; ++h)
    for (int64_t w = 0; w < across; ++w) pass.taps.push_back({phases.first[0] + h, phases.first[1] + w, h * across + w});
  return winograd(pass, kernels, terms);
}

bool strided_weight_gradient(const Tensor& grad, const Tensor& input, const Params& p, const Kernels& kernels,
                             const Tensor& result) {
  const int64_t across = Phases::across(input, result, p, kernels), kernel = result.size(2), outer = result.size(0);
  if (across == 0 || few_channels(outer, kernels)) return false;
  const int64_t terms = result.size(1) * kernel * kernel;
  if (!winograd_gradient_pays({across, grad.size(0), grad.size(2), grad.size(3), 4 * input.size(1), outer, terms}, kernels))
    return false;
  const Phases phases(input, kernel, p);
  Params step_1 = p;
  for (int d = 0; d < 2; ++d) step_1.stride[d] = 1, step_1.padding[d] = -phases.first[d];
  const Tensor sums = empty({outer, phases.channels(), across, across}, result.scalar_type());
  if (!winograd_weight_gradient(grad, phases.arranged(input), step_1, kernels, sums, terms)) return false;
  const float* const from = sums.const_data_ptr<float>();
  float* const to = result.data_ptr<float>();
  parallel(outer, phases.channels() * across * across, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o)
      phases.each_tap(result, [&](int64_t channel, int64_t h, int64_t w, int64_t element) {
        if (element >= 0) to[o * result.stride(0) + element] = from[((o * phases.channels() + channel) * across + h) * across + w];
      });
  });
  return true;
}

}  // namespace tensorops::cpu::conv
