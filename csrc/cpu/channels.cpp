// Depthwise convolution on the CPU with adjacent channels: vectors run along these, and images are read where they lie.
//
// Workspace: the weights once more; for the weight gradient, sums of at most kWeightSums or one weight tensor.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/convolution.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu::conv {
namespace {

constexpr int64_t kRowsTogether = 8;  // rows of pixels whose sums are kept apart from the total

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

}  // namespace

bool by_channels(const Tensor& a, const Tensor& b, int64_t inner, int64_t outer, const Kernels& kernels) {
  return inner == 1 && outer == 1 && a.size(1) >= 4 && a.stride(1) == 1 && b.stride(1) == 1 &&
         TENSOROPS_KERNELS(conv_kernels).channels[static_cast<int>(kernels.dtype)] != nullptr;
}

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

// Images in parts cut by size alone, added in order.
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
  const int64_t parts = std::clamp<int64_t>(kWeightSums / sums_bytes, 1, std::min<int64_t>(batch, 16));
  const Scratch sums(parts * sums_bytes);
  const bool far = 2 * (input.numel() + grad.numel()) * element >= kFar;  // read against the order of memory
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
              if (far) {
                c.ahead_rows = p.stride[0];
                c.ahead_row = input.stride(2);
                c.grad_row = grad.stride(2);
              }
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

}  // namespace tensorops::cpu::conv
