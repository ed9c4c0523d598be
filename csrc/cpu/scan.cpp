// Scans on the CPU: elements are staged in double or int64 in the L1 cache, so one kernel serves all dtypes and directions.
#include "ops/scan.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <memory>

#include "cpu/kernels/scan.h"
#include "cpu/lines.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t kStage = 1024;    // elements staged at a time, along a line or across lines
constexpr int64_t kBlock = 65536;   // a longer line is cut into blocks of this size, for threads
constexpr int64_t kShortLine = 32;  // shorter lines are scanned many side by side
constexpr int64_t kSquare = 4;      // a line of fewer elements is turned one by one, which is no gain
constexpr int64_t kRowsAhead = 4;   // elements of lines side by side are fetched so long before their turn

class Scanner {
 public:
  // `coefficient` is null for all but the linear scan.
  Scanner(Scan scan, const at::Tensor& input, const at::Tensor* coefficient, const at::Tensor& result, int64_t dim, bool reverse)
      : scan_(scan),
        lines_({&input, coefficient != nullptr ? coefficient : &input, &result}, dim),
        has_coefficient_(coefficient != nullptr),
        reverse_(reverse),
        compute_(c10::isFloatingType(result.scalar_type()) ? Compute::f64 : Compute::i64) {
    if (reverse) lines_.reverse();
    const ScanKernels& kernels = TENSOROPS_KERNELS(scan_kernels);
    const int type = compute_ == Compute::f64 ? 0 : 1;
    run_ = kernels.run[static_cast<int>(scan)][type];
    step_ = kernels.step[static_cast<int>(scan)][type];
    for (int k = 0; k < 2; ++k) load_[k] = loader(lines_.operands[k].dtype, compute_);
    store_ = storer(compute_, lines_.operands[2].dtype);
    const auto &x = lines_.operands[0], &y = lines_.operands[2];
    const int64_t size = element_size(y.dtype);
    if (reads_as_it_writes() && x.step == size && y.step == size)
      along_ = kernels.along[static_cast<int>(scan)][y.dtype == DType::f64];
    if (reads_as_it_writes() && x.step == -size && y.step == -size && scan == Scan::sum)
      along_ = kernels.reverse_along[y.dtype == DType::f64];
    streams_ = 2 * lines_.count * lines_.length * size >= kPastCaches && x.data != y.data && starts_line(y.data);
  }

  void run() const {
    const bool side_by_side = lines_.count >= 8 && (!lines_.contiguous_lines() || lines_.length < kShortLine);
    if (side_by_side) return scan_side_by_side();
    if (lines_.length > kBlock && !has_coefficient_) return scan_blocks();
    parallel(lines_.count, 2 * lines_.length, [&](int64_t begin, int64_t end) {
      for_lines(begin, end, [&](const char* x, const char* a, char* y) {
        Element h = identity();
        scan_piece(x, a, y, 0, lines_.length, h);
      });
    });
  }

 private:
  union Element {
    double real;
    int64_t integer;
  };
  static_assert(sizeof(Element) == 8);

  Element identity() const {
    Element h;
    const int value = scan_ == Scan::prod ? 1 : 0;
    if (compute_ == Compute::f64) h.real = value;
    else h.integer = value;
    return h;
  }
  // a then b.
  Element combined(Element a, Element b) const {
    run_(&b, nullptr, 1, &a);
    return a;
  }

  template <class F>
  void for_lines(int64_t begin, int64_t end, const F& f) const {
    for_pieces(lines_.axes, begin, end, [&](const int64_t (&offset)[3], int64_t n) {
      for (int64_t i = 0; i < n; ++i)
        f(lines_.operands[0].data + offset[0] + i * inner_stride(lines_.axes, 0),
          lines_.operands[1].data + offset[1] + i * inner_stride(lines_.axes, 1),
          lines_.operands[2].data + offset[2] + i * inner_stride(lines_.axes, 2));
    });
  }

  // The coefficient that leads to element k is its own, in reverse its predecessor's on the way; to the first one none leads.
  const char* coefficient(const char* a, int64_t k) const { return a + (reverse_ ? k - 1 : k) * lines_.operands[1].step; }

  // Elements [begin, end) of a line, with h the state before them; y is null when only the state after them is wanted.
  void scan_piece(const char* x, const char* a, char* y, int64_t begin, int64_t end, Element& h) const {
    if (along_ != nullptr && y != nullptr) {
      const int64_t size = lines_.operands[2].step;
      char* const to = y + begin * size;
      const bool streams = streams_ && starts_line(to);
      along_(x + begin * size, to, end - begin, &h, streams);
      if (streams) TENSOROPS_KERNELS(scan_kernels).end_stream();
      return;
    }
    alignas(64) Element values[kStage], coefficients[kStage];
    for (int64_t at = begin; at < end; at += kStage) {
      const int64_t n = std::min(kStage, end - at);
      load_[0](x + at * lines_.operands[0].step, lines_.operands[0].step, values, n);
      if (has_coefficient_) {
        const int64_t skip = at == 0 ? 1 : 0;
        coefficients[0] = Element{.integer = 0};
        if (n > skip) load_[1](coefficient(a, at + skip), lines_.operands[1].step, coefficients + skip, n - skip);
      }
      run_(values, coefficients, n, &h);
      if (y != nullptr) store_(values, y + at * lines_.operands[2].step, lines_.operands[2].step, n);
    }
  }

  // Twice over the line: the blocks' own totals, then every block from the total before it.
  void scan_blocks() const {
    const int64_t blocks = divide_up(lines_.length, kBlock), n = lines_.count;
    const std::unique_ptr<Element[]> states(new Element[n * blocks]);
    const auto each = [&](auto work) {
      parallel(n * blocks, 2 * kBlock, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t block = task % blocks, first = block * kBlock;
          for_lines(task / blocks, task / blocks + 1, [&](const char* x, const char* a, char* y) {
            work(x, a, y, first, std::min(lines_.length, first + kBlock), states[task]);
          });
        }
      });
    };
    each([&](const char* x, const char* a, char*, int64_t begin, int64_t end, Element& state) {
      state = identity();
      if (end < lines_.length) scan_piece(x, a, nullptr, begin, end, state);
    });
    for (int64_t line = 0; line < n; ++line) {
      Element before = identity();
      for (int64_t block = 0; block < blocks; ++block) {
        const Element own = states[line * blocks + block];
        states[line * blocks + block] = before;
        before = combined(before, own);
      }
    }
    each([&](const char* x, const char* a, char* y, int64_t begin, int64_t end, Element& state) {
      scan_piece(x, a, y, begin, end, state);
    });
  }

  void scan_side_by_side() const {
    // Panels narrow enough that the threads all have one, by size alone.
    const int64_t width = std::clamp<int64_t>((lines_.count / 8 + 63) / 64 * 64, 64, kStage);
    const int64_t panels = divide_up(lines_.count, width);
    const ScanThroughKernel through = kernel_without_staging();
    if (through != nullptr && are_neighbours()) return scan_neighbours(through, width, panels);
    if (through != nullptr && lines_.length < kShortLine && lines_.contiguous_lines()) return scan_short_lines();
    if (!has_coefficient_ && lines_.length < kShortLine && lines_.length >= kSquare && lines_.contiguous_lines())
      return scan_turned();
    parallel(panels, 2 * width * lines_.length, [&](int64_t begin, int64_t end) {
      alignas(64) Element states[kStage], values[kStage], coefficients[kStage];
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * width, n = std::min(width, lines_.count - first);
        std::fill(states, states + n, identity());
        for (int64_t k = 0; k < lines_.length; ++k) {
          int64_t done = 0;
          for_pieces(lines_.axes, first, first + n, [&](const int64_t (&offset)[3], int64_t m) {
            load_[0](lines_.operands[0].data + offset[0] + k * lines_.operands[0].step, inner_stride(lines_.axes, 0), values + done, m);
            if (has_coefficient_ && k > 0)
              load_[1](coefficient(lines_.operands[1].data + offset[1], k), inner_stride(lines_.axes, 1), coefficients + done, m);
            done += m;
          });
          if (has_coefficient_ && k == 0) std::fill(coefficients, coefficients + n, Element{.integer = 0});
          step_(values, coefficients, n, states);
          done = 0;
          for_pieces(lines_.axes, first, first + n, [&](const int64_t (&offset)[3], int64_t m) {
            store_(states + done, lines_.operands[2].data + offset[2] + k * lines_.operands[2].step, inner_stride(lines_.axes, 2), m);
            done += m;
          });
        }
      }
    });
  }

  // Whether a run of results that goes on from this element fills whole cache lines.
  bool starts_line(const char* y) const {
    const auto& operand = lines_.operands[2];
    return (reinterpret_cast<intptr_t>(y) + (operand.step < 0 ? element_size(operand.dtype) : 0)) % kStreamed == 0;
  }
  // Whether one kernel can read elements and write results.
  bool reads_as_it_writes() const {
    const DType dtype = lines_.operands[2].dtype;
    return !has_coefficient_ && lines_.operands[0].dtype == dtype && (dtype == DType::f32 || dtype == DType::f64);
  }
  ScanThroughKernel kernel_without_staging() const {
    if (!reads_as_it_writes()) return nullptr;
    return TENSOROPS_KERNELS(scan_kernels).through[static_cast<int>(scan_)][lines_.operands[2].dtype == DType::f64];
  }
  // Whether elements and results of neighbouring lines are next to each other.
  bool are_neighbours() const {
    const int64_t size = element_size(lines_.operands[2].dtype);
    return inner_stride(lines_.axes, 0) == size && inner_stride(lines_.axes, 2) == size;
  }
  // Lines that lie one after another, as tiles in which they are neighbours.
  void scan_turned() const {
    static_assert(kTileColumns <= kStage);
    const int64_t n = lines_.length, sizes[2] = {element_size(lines_.operands[0].dtype), element_size(lines_.operands[2].dtype)};
    const int64_t width = std::clamp<int64_t>(std::min(kTileElements / n, lines_.count / 8) / 16 * 16, 16, kTileColumns);
    parallel(divide_up(lines_.count, width), 2 * width * n, [&](int64_t begin, int64_t end) {
      alignas(64) Element states[kStage], values[kStage];
      const Scratch memory(n * width * (sizes[0] + sizes[1]));
      char *const x = memory.data(), *const y = x + n * width * sizes[0];
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * width, m = std::min(width, lines_.count - first);
        lines_.move_tile(0, x, first, m, /*back=*/false);
        std::fill(states, states + m, identity());
        for (int64_t k = 0; k < n; ++k) {
          load_[0](x + k * m * sizes[0], sizes[0], values, m);
          step_(values, nullptr, m, states);
          store_(states, y + k * m * sizes[1], sizes[1], m);
        }
        lines_.move_tile(2, y, first, m, /*back=*/true);
      }
    });
  }
  // Lines that lie one after another, where one kernel can read elements and write results.
  void scan_short_lines() const {
    const auto &x = lines_.operands[0], &y = lines_.operands[2];
    const int64_t size = element_size(y.dtype);
    const ScanLinesKernel kernel = TENSOROPS_KERNELS(scan_kernels).lines[static_cast<int>(scan_)][y.dtype == DType::f64];
    parallel(lines_.count, 2 * lines_.length, [&](int64_t begin, int64_t end) {
      for_pieces(lines_.axes, begin, end, [&](const int64_t (&offset)[3], int64_t n) {
        kernel({x.data + offset[0], x.step / size, inner_stride(lines_.axes, 0) / size},
               {y.data + offset[2], y.step / size, inner_stride(lines_.axes, 2) / size}, lines_.length, n);
      });
    });
  }
  void scan_neighbours(ScanThroughKernel through, int64_t width, int64_t panels) const {
    const auto &x = lines_.operands[0], &y = lines_.operands[2];
    const int64_t run = lines_.axes[0].size;
    bool streams = streams_ && y.step % kStreamed == 0 && (lines_.axes.size() == 1 || run % width == 0);
    for (size_t axis = 1; axis < lines_.axes.size(); ++axis) streams &= lines_.axes[axis].stride[2] % kStreamed == 0;
    parallel(panels, 2 * width * lines_.length, [&](int64_t begin, int64_t end) {
      alignas(64) Element states[kStage];
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * width;
        for_pieces(lines_.axes, first, std::min(first + width, lines_.count), [&](const int64_t (&offset)[3], int64_t n) {
          std::fill(states, states + n, identity());
          for (int64_t k = 0; k < lines_.length; ++k) {
            const char* const from = x.data + offset[0] + k * x.step;
            through(from, y.data + offset[2] + k * y.step, n, states,
                    k + kRowsAhead < lines_.length ? from + kRowsAhead * x.step : nullptr, streams);
          }
        });
      }
      if (streams) TENSOROPS_KERNELS(scan_kernels).end_stream();
    });
  }

  const Scan scan_;
  Lines<3> lines_;
  const bool has_coefficient_, reverse_;
  const Compute compute_;
  ScanRunKernel run_;
  ScanStepKernel step_;
  ScanAlongKernel along_ = nullptr;  // of lines whose elements and results are contiguous
  bool streams_;                     // results leave nothing of themselves in the caches, and begin at the start of a line
  LoadKernel load_[2];
  StoreKernel store_;
};

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

void scan_into(Scan scan, const Tensor& input, const Tensor* coefficient, const Tensor& result, int64_t dim, bool reverse) {
  TORCH_CHECK_NOT_IMPLEMENTED(!c10::isComplexType(result.scalar_type()), "cumsum, cumprod: complex tensors are not covered");
  if (result.numel() == 0) return;
  if (result.scalar_type() == c10::kBool) {
    // As in torch: no scan in bool, but a single number is its own.
    TORCH_CHECK_NOT_IMPLEMENTED(input.dim() == 0, "\"", scan == Scan::sum ? "cumsum" : "cumprod", "\" not implemented for 'Bool'");
    result.copy_(input);
    return;
  }
  Scanner(scan, input, coefficient, result, dim, reverse).run();
}

template <Scan scan>
Tensor functional(const Tensor& input, int64_t dim, Dtype dtype) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Tensor result = empty(input.sizes(), scan_dtype(input, dtype));
  scan_into(scan, input, nullptr, result, dim, false);
  return result;
}

template <Scan scan>
Tensor& out_variant(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  TORCH_CHECK(!dtype || *dtype == out.scalar_type(), "Expected out tensor to have dtype ", dtype.value_or(out.scalar_type()),
              ", but got ", out.scalar_type(), " instead");
  at::native::resize_output(out, input.sizes());
  at::assert_no_internal_overlap(out);
  at::assert_no_partial_overlap(out, input);
  // In place every element is read before it is written; under other strides that would not hold.
  if (out.is_alias_of(input) && !out.is_same(input)) out.copy_(functional<scan>(input, dim, out.scalar_type()));
  else scan_into(scan, input, nullptr, out, dim, false);
  return out;
}

template <Scan scan>
Tensor& inplace(Tensor& self, int64_t dim, Dtype dtype) {
  check_scan_inplace(self, dtype);
  return out_variant<scan>(self, dim, dtype, self);
}

Tensor reverse_cumsum(const Tensor& input, int64_t dim) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Tensor result = empty(input.sizes(), input.scalar_type());
  scan_into(Scan::sum, input, nullptr, result, dim, true);
  return result;
}

Tensor linear_scan(const Tensor& input, const Tensor& coefficient, int64_t dim, bool reverse) {
  TORCH_CHECK(input.sizes() == coefficient.sizes(), "_linear_scan: shapes ", input.sizes(), " and ", coefficient.sizes(),
              " of input and coefficient differ");
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Tensor result = empty(input.sizes(), input.scalar_type());
  scan_into(Scan::linear, input, &coefficient, result, dim, reverse);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  library.impl("cumsum", functional<Scan::sum>);
  library.impl("cumprod", functional<Scan::prod>);
  library.impl("cumsum_", inplace<Scan::sum>);
  library.impl("cumprod_", inplace<Scan::prod>);
  library.impl("cumsum.out", out_variant<Scan::sum>);
  library.impl("cumprod.out", out_variant<Scan::prod>);
  library.impl("_reverse_cumsum", reverse_cumsum);
  library.impl("_linear_scan", linear_scan);
}

}  // namespace tensorops::cpu
