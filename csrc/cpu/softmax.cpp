// Softmax on the CPU: lines one by one where they are contiguous, else many side by side; other dtypes and strides are staged
// in cache.
#include "ops/softmax.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include "cpu/kernels/softmax.h"
#include "cpu/lines.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t kLongLine = 65536;  // elements of a line beyond the second cache
constexpr int64_t kTile = 65536;      // elements of lines side by side that stay in the L2 cache
constexpr int64_t kMaxColumns = 1024;
constexpr int64_t kKeptBytes = 1 << 20;  // terms of lines side by side that are sooner read than computed again
constexpr int64_t kFetchedBytes = 64 << 10;  // of a line that is fetched while the one before is in the second cache
constexpr int64_t kRowBytes = 1024;   // of longer lines side by side: long enough that most of a page's memory is read at once
constexpr int64_t kPanelBytes = 4 << 20;  // of a panel that a thread still finds in the last cache
constexpr int64_t kBlockRowBytes = 8192;  // where lines are cut into blocks: pages as a whole, and states that stay in the L1 cache
constexpr int64_t kBlockRows = 64, kBlocks = 32;  // at least so many rows a block, at most so many blocks
constexpr int64_t kPieces = 8;        // for several threads
constexpr int64_t kCost = 8;          // of an element, next to an addition

class Lineup {
 public:
  Lineup(Softmax op, const at::Tensor& x, const at::Tensor& result, const at::Tensor& y, int64_t dim)
      : lines_({&x, &result, &y}, dim),
        keeps_terms_(op == Softmax::softmax),
        backward_(op == Softmax::softmax_backward || op == Softmax::log_softmax_backward),
        compute_(y.scalar_type() == c10::kDouble ? Compute::f64 : Compute::f32),
        width_(compute_ == Compute::f64 ? 8 : 4) {
    const SoftmaxKernels& kernels = TENSOROPS_KERNELS(softmax_kernels);
    const int type = compute_ == Compute::f32 ? 0 : 1;
    run_ = kernels.run[static_cast<int>(op)][type];
    columns_ = kernels.columns[static_cast<int>(op)][type];
    merge_ = kernels.merge_columns[static_cast<int>(op)][type];
    for (int k = 0; k < 2; ++k) load_[k] = loader(lines_.operands[k].dtype, compute_);
    store_ = storer(compute_, lines_.operands[2].dtype);
    const DType dtype = lines_.operands[2].dtype;
    SoftmaxRunKernel run_of_short = nullptr;
    if (dtype == DType::bf16) {
      run_of_short = kernels.run_of_bf16[static_cast<int>(op)];
      columns_as_stored_ = kernels.columns_of_bf16[static_cast<int>(op)];
    } else if (dtype == DType::f16) {
      run_of_short = kernels.run_of_f16[static_cast<int>(op)];
      columns_as_stored_ = kernels.columns_of_f16[static_cast<int>(op)];
    } else if (is_compute_type(dtype, compute_)) {
      columns_as_stored_ = columns_;
    }
    as_stored_ = run_of_short != nullptr;
    for (const auto& operand : lines_.operands)
      as_stored_ = as_stored_ && operand.dtype == dtype && (operand.step == element_size(dtype) || lines_.length == 1);
    if (as_stored_) run_ = run_of_short;
  }

  void run() const {
    const bool direct = side_by_side(0) && side_by_side(1) && side_by_side(2) && lines_.axes[0].size >= 16;
    // In units of what 16 lanes of one vector take, measured. Across lines that are not stored so it is twice that, as they are
    // turned, and lanes beside the last line idle. Along a line the sum is waited for, and what is made of it; a part of a
    // vector of 16-bit elements is read one by one.
    const auto vectors = [](int64_t n) { return (n + 15) / 16; };
    const int64_t wait = (backward_ ? 0 : keeps_terms_ ? 2 : 4) + (as_stored_ && lines_.length % 8 != 0 ? 4 : 0);
    const bool is_short = 2 * lines_.length * vectors(lines_.count) < lines_.count * (vectors(lines_.length) + wait);
    const bool across = lines_.count > 1 && (!lines_.contiguous_lines() || is_short) && (direct || lines_.length <= kTile / 16);
    if (across && direct && outgrows_caches()) compute_in_blocks();
    else if (across) compute_side_by_side(direct);
    else compute_one_by_one();
  }

 private:
  bool native(int k) const { return is_compute_type(lines_.operands[k].dtype, compute_) || (k == 1 && !backward_); }
  // Whether the kernel takes neighbouring lines as they lie, next to each other, element by element.
  bool side_by_side(int k) const {
    if (k == 1 && !backward_) return true;
    const DType dtype = lines_.operands[2].dtype;
    return columns_as_stored_ != nullptr && lines_.operands[k].dtype == dtype && !lines_.axes.empty() &&
           lines_.axes[0].stride[k] == element_size(dtype);
  }

  void compute_one_by_one() const {
    const int64_t n = lines_.length;
    bool staged[3];
    for (int k = 0; k < 3; ++k) {
      const bool strided = n > 1 && lines_.operands[k].step != width_ && !(k == 1 && !backward_);
      staged[k] = !as_stored_ && (!native(k) || strided);
    }
    // A long line's terms are kept in its result, if that can hold them.
    const bool terms_in_result = keeps_terms_ && n > kLongLine && !as_stored_;
    const bool streams = !staged[2] && !terms_in_result && past_caches() && starts_lines(inner_stride(lines_.axes, 2));
    parallel(lines_.count, n * kCost, [&](int64_t begin, int64_t end) {
      const Scratch terms(keeps_terms_ && !terms_in_result ? n * width_ : 0);
      const Scratch buffers[2] = {Scratch(staged[0] || staged[2] ? n * width_ : 0), Scratch(staged[1] ? n * width_ : 0)};
      for_pieces(lines_.axes, begin, end, [&](const int64_t (&offset)[3], int64_t count) {
        const auto& [x, r, y] = lines_.operands;
        SoftmaxLines lines{x.data + offset[0], r.data + offset[1], y.data + offset[2], n, count, inner_stride(lines_.axes, 0),
                           inner_stride(lines_.axes, 1), inner_stride(lines_.axes, 2), terms_in_result ? nullptr : terms.data(),
                           streams, n * element_size(x.dtype) <= kFetchedBytes};
        if (!staged[0] && !staged[1] && !staged[2]) return run_(lines);
        lines.count = 1;
        for (int64_t i = 0; i < count; ++i) {
          char* at[3];
          for (int k = 0; k < 3; ++k) at[k] = lines_.operands[k].data + offset[k] + i * inner_stride(lines_.axes, k);
          for (int k = 0; k < 2; ++k)
            if (staged[k]) load_[k](at[k], lines_.operands[k].step, buffers[k].data(), n);
          lines.x = staged[0] ? buffers[0].data() : at[0];
          lines.r = staged[1] ? buffers[1].data() : at[1];
          lines.y = staged[2] ? buffers[0].data() : at[2];
          run_(lines);
          if (staged[2]) store_(lines.y, at[2], lines_.operands[2].step, n);
        }
      });
      if (streams) TENSOROPS_KERNELS(softmax_kernels).end_stream();
    });
  }

  void compute_side_by_side(bool direct) const {
    const int64_t n = lines_.length;
    const int64_t run = direct ? lines_.axes[0].size : lines_.count, size = element_size(lines_.operands[2].dtype);
    // Wide enough for the memory, narrow enough for the cache and for several threads; by size alone.
    const int64_t wanted = direct ? std::max(kTile / n, kRowBytes / size) : (lines_.contiguous_lines() ? kTileElements : kTile) / n;
    const int64_t pieces = std::max<int64_t>(1, kPieces * run / lines_.count);
    const int64_t limit = std::clamp<int64_t>(std::min(wanted, run / pieces) / 16 * 16, 16, direct ? kMaxColumns : kTileColumns);
    const int64_t width = std::min(run, limit), per_run = divide_up(run, width), panels = lines_.count / run * per_run;
    const bool streams = direct && past_caches() && lines_.operands[2].step % kStreamed == 0 && starts_lines(width * size);
    parallel(panels, n * width * kCost, [&](int64_t begin, int64_t end) {
      const int64_t sums = kColumnState * width * int64_t(sizeof(double)), tile = direct ? 0 : n * width * width_;
      const bool converts = !native(0) || !native(1) || !native(2);
      const int64_t others = !direct && converts ? n * width * int64_t(sizeof(double)) : 0;
      const int64_t kept = keeps_terms_ && direct && n * width * width_ <= kKeptBytes ? n * width * width_ : 0;
      const Scratch memory(sums + 2 * tile + others + kept);
      double* const scratch = memory.data<double>();
      char* const tiles[2] = {memory.data() + sums, memory.data() + sums + tile};
      char* const other = memory.data() + sums + 2 * tile;  // a tile of another dtype
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel / per_run * run + panel % per_run * width;
        const int64_t m = std::min(width, run - panel % per_run * width);
        if (direct) {
          for_pieces(lines_.axes, first, first + m, [&](const int64_t (&offset)[3], int64_t) {
            const auto& [x, r, y] = lines_.operands;
            columns_as_stored_({x.data + offset[0], x.step / size, r.data + offset[1], r.step / size, y.data + offset[2],
                                y.step / size, n, m, scratch, kept > 0 ? memory.data() + sums : nullptr, streams,
                                SoftmaxPart::whole});
          });
          continue;
        }
        for (int k = 0; k < (backward_ ? 2 : 1); ++k) {
          lines_.move_tile(k, native(k) ? tiles[k] : other, first, m, /*back=*/false);
          if (!native(k)) load_[k](other, element_size(lines_.operands[k].dtype), tiles[k], n * m);
        }
        columns_({tiles[0], m, tiles[1], m, tiles[0], m, n, m, scratch, keeps_terms_ ? tiles[0] : nullptr, false,
                  SoftmaxPart::whole});
        if (!native(2)) store_(tiles[0], other, element_size(lines_.operands[2].dtype), n * m);
        lines_.move_tile(2, native(2) ? tiles[0] : other, first, m, /*back=*/true);
      }
      if (streams) TENSOROPS_KERNELS(softmax_kernels).end_stream();
    });
  }

  // Memory is read twice in its order: for the sums of blocks of rows, and then, what was read last first, for the results.
  void compute_in_blocks() const {
    const int64_t n = lines_.length, run = lines_.axes[0].size, size = element_size(lines_.operands[2].dtype);
    const int64_t width = std::min(run, kBlockRowBytes / size), panels = divide_up(run, width);
    const int64_t rows = std::max(kBlockRows, divide_up(n, kBlocks)), blocks = divide_up(n, rows);
    const int64_t state = kColumnState * width;  // doubles, of a block of a panel
    const bool streams = past_caches() && lines_.operands[2].step % kStreamed == 0 && starts_lines(width * size);
    const Scratch memory(panels * blocks * state * int64_t(sizeof(double)));
    double* const states = memory.data<double>();
    for (int64_t first = 0; first < lines_.count; first += run) {
      const auto work = [&](int64_t task, SoftmaxPart part) {
        const int64_t block = task / panels, panel = task % panels, row = block * rows, column = first + panel * width;
        for_pieces(lines_.axes, column, std::min(column + width, first + run), [&](const int64_t (&offset)[3], int64_t m) {
          const auto& [x, r, y] = lines_.operands;
          const int64_t of_sums = part == SoftmaxPart::sums ? block : 0;
          columns_as_stored_({x.data + offset[0] + row * x.step, x.step / size, r.data + offset[1] + row * r.step, r.step / size,
                              y.data + offset[2] + row * y.step, y.step / size, std::min(rows, n - row), m,
                              states + panel * blocks * state + of_sums * kColumnState * m, nullptr, streams, part});
        });
      };
      parallel(blocks * panels, rows * width * kCost, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) work(task, SoftmaxPart::sums);
      });
      parallel(panels, blocks * width * kCost, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel)
          merge_(states + panel * blocks * state, blocks, std::min(width, run - panel * width));
      });
      parallel(blocks * panels, rows * width * kCost, [&](int64_t begin, int64_t end) {
        for (int64_t task = end; task-- > begin;) work(task, SoftmaxPart::results);
        if (streams) TENSOROPS_KERNELS(softmax_kernels).end_stream();
      });
    }
  }
  // Whether panels of lines are out of the caches when their results are made.
  bool outgrows_caches() const {
    const int64_t row_bytes = std::min(lines_.axes[0].size * element_size(lines_.operands[2].dtype), kRowBytes);
    return lines_.length * row_bytes * (backward_ ? 2 : 1) > kPanelBytes;
  }
  bool past_caches() const {
    return lines_.length * lines_.count * element_size(lines_.operands[2].dtype) * (backward_ ? 3 : 2) >= kPastCaches;
  }
  // Whether all lines of the result, or rows of panels, which are so many bytes apart, begin at a whole cache line.
  bool starts_lines(int64_t bytes) const {
    const char* const y = lines_.operands[2].data;
    bool whole = reinterpret_cast<intptr_t>(y) % kStreamed == 0 && bytes % kStreamed == 0;
    for (size_t axis = 1; axis < lines_.axes.size(); ++axis) whole &= lines_.axes[axis].stride[2] % kStreamed == 0;
    return whole;
  }

  Lines<3> lines_;
  const bool keeps_terms_;  // of a line, from its sum to its result
  const bool backward_;
  const Compute compute_;
  const int64_t width_;
  SoftmaxRunKernel run_;
  bool as_stored_;  // the kernel of one line takes it as it is
  SoftmaxColumnsKernel columns_, columns_as_stored_ = nullptr;  // of the compute type, and of the result's dtype
  SoftmaxMergeKernel merge_;
  LoadKernel load_[2];
  StoreKernel store_;
};

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

void compute_into(Softmax op, const Tensor& x, const Tensor& result, const Tensor& y, int64_t dim) {
  if (y.numel() > 0) Lineup(op, x, result, y, dim).run();
}

template <Softmax op, const auto& row>
Tensor forward(const Tensor& input, int64_t dim, Dtype dtype) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Tensor result = empty(input.sizes(), softmax_dtype(row.name(), input, dtype));
  compute_into(op, input, input, result, dim);
  return result;
}

template <Softmax op, const auto& row>
Tensor& out_variant(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const auto type = softmax_dtype(row.name(), input, dtype);
  TORCH_CHECK(type == out.scalar_type(), "Expected out tensor to have dtype ", type, ", but got ", out.scalar_type(), " instead");
  at::native::resize_output(out, input.sizes());
  at::assert_no_internal_overlap(out);
  at::assert_no_partial_overlap(out, input);
  if (out.is_alias_of(input)) out.copy_(forward<op, row>(input, dim, dtype));
  else compute_into(op, input, input, out, dim);
  return out;
}

template <Softmax op>
Tensor backward(const Tensor& grad, const Tensor& output, int64_t dim) {
  TORCH_CHECK(grad.sizes() == output.sizes(), "softmax backward: shapes ", grad.sizes(), " and ", output.sizes(), " of grad and output differ");
  dim = at::maybe_wrap_dim(dim, output.dim());
  const Tensor result = empty(output.sizes(), grad.scalar_type());
  compute_into(op, grad, output, result, dim);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  library.impl("softmax", forward<Softmax::softmax, ops::softmax>);
  library.impl("log_softmax", forward<Softmax::log_softmax, ops::log_softmax>);
  library.impl("softmax.out", out_variant<Softmax::softmax, ops::softmax>);
  library.impl("log_softmax.out", out_variant<Softmax::log_softmax, ops::log_softmax>);
  library.impl("_softmax_backward", backward<Softmax::softmax_backward>);
  library.impl("_log_softmax_backward", backward<Softmax::log_softmax_backward>);
}

}  // namespace tensorops::cpu
