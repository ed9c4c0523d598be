// Reductions on the CPU: brings any layout into the form of one of the two inner loops, cuts the work by size, and merges the
// parts in a fixed tree, so that results do not depend on the number of threads.
#include "ops/reduction.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/DimVector.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <cstring>
#include <memory>

#include "cpu/axes.h"
#include "cpu/dtype.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/reduction.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "ops/reduction_forms.h"
#include "ops/stable_sort.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t kRunBlock = 16384;    // elements of one run reduced to one state
constexpr int64_t kPanelBlock = 131072;  // elements of one panel of columns reduced to one row of states
constexpr int64_t kPanel = 2048;        // columns whose states stay in the L1 cache
constexpr int64_t kStage = 2048;        // elements gathered or converted at a time
constexpr int64_t kFewColumns = 16;     // fewer columns than this are reduced one by one
constexpr int64_t kNarrow = 64;         // a dense matrix of fewer columns is reduced several rows at a time
constexpr int64_t kWide = 256;          // as one row of about this many
constexpr int64_t kShortStagedRun = 128;  // bytes of the compute type, of a run that is converted or read as a narrower dtype
constexpr int64_t kLongPiece = 512;     // contiguous pieces at least this long are not staged

// Operand 0 is the input, in bytes. Operand 1 of a kept axis is the result, in elements; of a reduced axis it is the index
// among the reduced elements that argmax counts.
using ReduceAxes = Axes<2>;

struct Output {
  char* data = nullptr;
  StoreKernel store = nullptr;
  int64_t size = 0;    // of an element
  int64_t state = 0;   // which component of the finished states
};

class Reduce {
 public:
  Reduce(Reducer reducer, const ReduceParams& params, const at::Tensor& input, const ReductionPlan& plan, Compute compute)
      : params_(params),
        kernels_(TENSOROPS_KERNELS(reduction_kernels).kernels[static_cast<int>(reducer)][static_cast<int>(compute)]),
        stored_(kernels_of_stored(reducer, dtype_of(input.scalar_type()), compute)),
        compute_(compute),
        width_(compute == Compute::f64 || compute == Compute::i64 ? 8 : 4),
        states_(reducer == Reducer::minmax || reducer == Reducer::argmax || reducer == Reducer::argmin ||
                        reducer == Reducer::var || reducer == Reducer::var_of_short || reducer == Reducer::logsumexp
                    ? 2
                    : 1),
        dtype_(dtype_of(input.scalar_type())),
        data_(static_cast<const char*>(input.const_data_ptr())) {
    load_ = TENSOROPS_KERNELS(elementwise_kernels).load[static_cast<int>(dtype_)][static_cast<int>(compute)];
    short_run_ = is_compute_type(dtype_, compute) ? kernels_.short_run : std::max(kernels_.short_run, kShortStagedRun / width_);
    cost_ = reducer == Reducer::logsumexp || reducer == Reducer::norm_p ? 8 : 1;
    const int64_t size = element_size(dtype_);
    int64_t out_stride = 1, index_stride = 1;
    for (int64_t i = input.dim() - 1; i >= 0; --i) {
      const int64_t n = input.size(i);
      int64_t& step = plan.reduced[i] ? index_stride : out_stride;
      if (n != 1) (plan.reduced[i] ? reduced_ : kept_).push_back({n, {input.stride(i) * size, step}});
      step *= n;
    }
    const auto by_stride = [](const Axis<2>& a, const Axis<2>& b) { return a.stride[0] < b.stride[0]; };
    stable_sort(kept_.begin(), kept_.end(), by_stride);
    const bool keeps_order = reducer == Reducer::argmax || reducer == Reducer::argmin;
    if (!keeps_order) {
      stable_sort(reduced_.begin(), reduced_.end(), by_stride);
      int64_t step = 1;
      for (Axis<2>& axis : reduced_) {
        axis.stride[1] = step;
        step *= axis.size;
      }
    }
    coalesce(kept_);
    coalesce(reduced_);
    columns_ = count(kept_);
    rows_ = count(reduced_);
    element_ = size;
    folds_ = !keeps_order && rows_ > 1 && kept_.size() == 1 && reduced_.size() == 1 && columns_ < kNarrow && kept_[0].stride[0] == size &&
             reduced_[0].stride[0] == columns_ * size;
  }

  void add_output(const at::Tensor& out, int64_t state) {
    const DType dtype = dtype_of(out.scalar_type());
    const Compute accumulator = compute_ == Compute::f32 || compute_ == Compute::f64 ? Compute::f64 : Compute::i64;
    outputs_[outputs_count_++] = {static_cast<char*>(out.data_ptr()),
                                  TENSOROPS_KERNELS(elementwise_kernels).store[static_cast<int>(accumulator)][static_cast<int>(dtype)],
                                  element_size(dtype), state};
  }

  void run() const {
    if (columns_ == 0) return;
    if (folds_) reduce_folded();
    else if (along_runs()) reduce_runs();
    else reduce_columns();
  }

 private:
  static StoredKernels kernels_of_stored(Reducer reducer, DType dtype, Compute compute) {
    const ReductionKernels& table = TENSOROPS_KERNELS(reduction_kernels);
    const ReduceKernels& kernels = table.kernels[static_cast<int>(reducer)][static_cast<int>(compute)];
    if (is_compute_type(dtype, compute)) return {kernels.runs, kernels.rows};
    if (compute != Compute::f32) return {};
    if (dtype == DType::f16) return table.f16[static_cast<int>(reducer)];
    if (dtype == DType::bf16) return table.bf16[static_cast<int>(reducer)];
    return reducer == Reducer::sum_of_short ? table.sum_of_bool : StoredKernels{};
  }

  bool along_runs() const {
    if (rows_ == 0 || reduced_.empty()) return false;
    if (columns_ < kFewColumns) return columns_ == 1 || rows_ >= short_run_;
    return reduced_[0].stride[0] <= kept_[0].stride[0] && reduced_[0].size >= short_run_;
  }

  States at_column(const States& states, int64_t c) const {
    return {static_cast<char*>(states.data) + c * 8, states.pitch};
  }

  // Finishes the states of columns [begin, begin + n) and writes the results.
  void finish(const States& states, int64_t begin, int64_t n) const {
    kernels_.finish(params_, states, rows_, n);
    for (int i = 0; i < outputs_count_; ++i) {
      const Output& o = outputs_[i];
      const char* from = static_cast<const char*>(states.data) + o.state * states.pitch * 8;
      for_pieces(kept_, begin, begin + n, [&](const int64_t (&offset)[2], int64_t m) {
        o.store(from, o.data + offset[1] * o.size, inner_stride(kept_, 1) * o.size, m);
        from += m * 8;
      });
    }
  }

  // The state of reduced elements [begin, end) of the column whose data starts at `column`.
  void run_state(const char* column, int64_t begin, int64_t end, const States& state) const {
    if (stored_.runs != nullptr && reduced_[0].stride[0] == element_ &&
        (reduced_[0].size >= kLongPiece || begin / reduced_[0].size == (end - 1) / reduced_[0].size)) {
      int64_t done = 0;
      for_pieces(reduced_, begin, end, [&](const int64_t (&offset)[2], int64_t n) {
        merge_run(stored_.runs, column + offset[0], n, begin + done, done, state);
        done += n;
      });
      return;
    }
    alignas(64) char buffer[kStage * 8];
    for (int64_t at = begin; at < end; at += kStage) {
      const int64_t n = std::min(kStage, end - at);
      char* to = buffer;
      for_pieces(reduced_, at, at + n, [&](const int64_t (&offset)[2], int64_t m) {
        load_(column + offset[0], reduced_[0].stride[0], to, m);
        to += m * width_;
      });
      merge_run(kernels_.runs, buffer, n, at, at - begin, state);
    }
  }
  void merge_run(ReduceRunsKernel runs, const void* x, int64_t n, int64_t first, int64_t before, const States& state) const {
    if (before == 0) return runs(params_, x, 0, 1, n, first, state);
    char own[kMaxStates * 8];
    const States piece = {own, 1};
    runs(params_, x, 0, 1, n, first, piece);
    kernels_.merge(state, before, piece, n, 1);
  }
  // The states of m columns, `stride` bytes apart.
  void run_states(const char* column, int64_t stride, int64_t m, const States& states) const {
    const bool adjacent = reduced_.size() == 1 && reduced_[0].stride[0] == element_;
    if (adjacent && stored_.runs != nullptr) return stored_.runs(params_, column, stride, m, rows_, 0, states);
    if (adjacent && rows_ <= kStage / 2) {
      alignas(64) char buffer[kStage * 8];
      const int64_t together = kStage / rows_;
      for (int64_t i = 0; i < m; i += together) {
        const int64_t count = std::min(together, m - i);
        if (stride == rows_ * element_) load_(column + i * stride, element_, buffer, count * rows_);
        else
          for (int64_t k = 0; k < count; ++k) load_(column + (i + k) * stride, element_, buffer + k * rows_ * width_, rows_);
        kernels_.runs(params_, buffer, rows_ * width_, count, rows_, 0, at_column(states, i));
      }
      return;
    }
    for (int64_t i = 0; i < m; ++i) run_state(column + i * stride, 0, rows_, at_column(states, i));
  }

  void reduce_runs() const {
    const int64_t blocks = divide_up(rows_, kRunBlock);
    if (blocks == 1) {
      constexpr int64_t kChunk = 256;
      parallel(columns_, rows_ * cost_, [&](int64_t begin, int64_t end) {
        alignas(64) char own[kMaxStates * kChunk * 8];
        const States states = {own, kChunk};
        for (int64_t at = begin; at < end; at += kChunk) {
          const int64_t n = std::min(kChunk, end - at);
          int64_t c = 0;
          for_pieces(kept_, at, at + n, [&](const int64_t (&offset)[2], int64_t m) {
            run_states(data_ + offset[0], inner_stride(kept_, 0), m, at_column(states, c));
            c += m;
          });
          finish(states, at, n);
        }
      });
      return;
    }
    const Table table(blocks, states_, columns_);
    parallel(columns_ * blocks, std::min(rows_, kRunBlock) * cost_, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t column = task / blocks, block = task % blocks;
        for_pieces(kept_, column, column + 1, [&](const int64_t (&offset)[2], int64_t) {
          run_state(data_ + offset[0], block * kRunBlock, std::min(rows_, (block + 1) * kRunBlock),
                    at_column(table.row(block), column));
        });
      }
    });
    merge_blocks(table, blocks, kRunBlock);
  }

  // States of [block][component][column].
  struct Table {
    Table(int64_t blocks, int64_t components, int64_t columns)
        : columns(columns), stride(components * columns * 8), data(new char[blocks * stride]) {}
    States row(int64_t block) const { return {data.get() + block * stride, columns}; }
    int64_t columns, stride;
    std::unique_ptr<char[]> data;
  };

  // A balanced tree over the blocks; its shape depends on their number alone.
  void merge_blocks(const Table& table, int64_t blocks, int64_t rows_per_block) const {
    const auto rows_in = [&](int64_t begin, int64_t end) {
      return std::min(rows_, end * rows_per_block) - begin * rows_per_block;
    };
    constexpr int64_t kChunk = 512;
    parallel(divide_up(columns_, kChunk), kChunk * blocks * cost_, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t c = chunk * kChunk, n = std::min(kChunk, columns_ - c);
        for (int64_t step = 1; step < blocks; step *= 2)
          for (int64_t block = 0; block + step < blocks; block += 2 * step)
            kernels_.merge(at_column(table.row(block), c), rows_in(block, block + step), at_column(table.row(block + step), c),
                           rows_in(block + step, std::min(blocks, block + 2 * step)), n);
        finish(at_column(table.row(0), c), c, n);
      }
    });
  }

  // Accumulates rows [begin, end) of columns [c, c + n) into states.
  void panel_state(int64_t c, int64_t n, int64_t begin, int64_t end, const States& states, bool direct) const {
    if (begin >= end) {
      kernels_.rows(params_, nullptr, 0, 0, n, 0, 0, states);
      return;
    }
    const int64_t row_stride = inner_stride(reduced_, 0);
    if (direct) {
      for_pieces(kept_, c, c + n, [&](const int64_t (&column)[2], int64_t) {
        int64_t done = 0;
        for_pieces(reduced_, begin, end, [&](const int64_t (&offset)[2], int64_t m) {
          stored_.rows(params_, data_ + column[0] + offset[0], row_stride, m, n, begin + done, done, states);
          done += m;
        });
      });
      return;
    }
    // Whole groups of 8 rows fit, as n <= kStage / 8.
    const int64_t tile = std::max<int64_t>(8, kStage / n / 8 * 8);
    const TransposeKernel transpose = transposer(dtype_);
    const bool converts = !is_compute_type(dtype_, compute_);
    alignas(64) char buffer[kStage * 8], stored[kStage * 8];
    char* const moved = converts ? stored : buffer;
    for (int64_t row = begin; row < end; row += tile) {
      const int64_t m = std::min(tile, end - row);
      char* to_row = moved;
      for_pieces(reduced_, row, row + m, [&](const int64_t (&offset)[2], int64_t pieces) {
        char* to = to_row;
        for_pieces(kept_, c, c + n, [&](const int64_t (&column)[2], int64_t k) {
          transpose(data_ + offset[0] + column[0], {inner_stride(kept_, 0), row_stride}, to, {element_, n * element_}, k, pieces);
          to += k * element_;
        });
        to_row += pieces * n * element_;
      });
      if (converts) load_(stored, element_, buffer, m * n);
      kernels_.rows(params_, buffer, n * width_, m, n, row, row - begin, states);
    }
  }

  void reduce_columns() const {
    // Straight from memory when rows of the panel are contiguous and long enough, and many in a row.
    const bool direct = stored_.rows != nullptr && !kept_.empty() && kept_[0].stride[0] == element_ && kept_[0].size >= 64 &&
                        (reduced_.size() <= 1 || reduced_[0].size >= 8);
    // Direct panels end with the innermost run.
    const int64_t run = direct ? kept_[0].size : columns_;
    const int64_t width = std::min(run, direct ? kPanel : kStage / 8);
    const int64_t per_run = divide_up(run, width), panels = columns_ / run * per_run;
    const int64_t block_rows = std::max<int64_t>(64, kPanelBlock / width / 8 * 8);
    const int64_t blocks = std::max<int64_t>(1, divide_up(rows_, block_rows));
    const Table table(blocks > 1 ? blocks : 0, states_, columns_);
    parallel(panels * blocks, std::min(rows_, block_rows) * width * cost_, [&](int64_t begin, int64_t end) {
      alignas(64) char own[kMaxStates * kPanel * 8];
      for (int64_t task = begin; task < end; ++task) {
        const int64_t panel = task % panels, block = task / panels;
        const int64_t c = panel / per_run * run + panel % per_run * width;
        const int64_t n = std::min(width, run - panel % per_run * width);
        const States states = blocks > 1 ? at_column(table.row(block), c) : States{own, kPanel};
        panel_state(c, n, block * block_rows, std::min(rows_, (block + 1) * block_rows), states, direct);
        if (blocks == 1) finish(states, c, n);
      }
    });
    if (blocks > 1) merge_blocks(table, blocks, block_rows);
  }

  // A dense matrix of few columns: several rows are taken as one wide row, whose parts are merged in the end.
  void reduce_folded() const {
    const int64_t fold = kWide / columns_, block_rows = kPanelBlock / columns_ / fold * fold;
    const int64_t blocks = divide_up(rows_, block_rows);
    const Table table(blocks, states_, columns_);
    parallel(blocks, std::min(rows_, block_rows) * columns_ * cost_, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block)
        folded_state(block * block_rows, std::min(rows_, (block + 1) * block_rows), fold, table.row(block));
    });
    merge_blocks(table, blocks, block_rows);
  }
  void folded_state(int64_t begin, int64_t end, int64_t fold, const States& result) const {
    const int64_t width = fold * columns_, whole = (end - begin) / fold, rest = (end - begin) % fold;
    alignas(64) char own[kMaxStates * kWide * 8];
    const States states = {own, kWide};
    dense_rows(data_ + begin * columns_ * element_, whole, width, 0, states);
    for (int64_t i = 1; whole > 0 && i < fold; ++i)
      kernels_.merge(states, i * whole, at_column(states, i * columns_), whole, columns_);
    dense_rows(data_ + (end - rest) * columns_ * element_, rest, columns_, whole * fold, states);
    for (int64_t k = 0; k < states_; ++k)
      std::memcpy(static_cast<char*>(result.data) + k * result.pitch * 8, own + k * kWide * 8, columns_ * 8);
  }
  // Accumulates rows that lie one after another, `before` rows being in the states already.
  void dense_rows(const char* from, int64_t rows, int64_t width, int64_t before, const States& states) const {
    if (stored_.rows != nullptr) return stored_.rows(params_, from, width * element_, rows, width, 0, before, states);
    alignas(64) char buffer[kStage * 8];
    const int64_t tile = kStage / width / 8 * 8;
    for (int64_t row = 0; row < rows; row += tile) {
      const int64_t n = std::min(tile, rows - row);
      load_(from + row * width * element_, element_, buffer, n * width);
      kernels_.rows(params_, buffer, width * width_, n, width, 0, before + row, states);
    }
  }

  const ReduceParams params_;
  const ReduceKernels kernels_;  // of elements that were brought into the compute type
  const StoredKernels stored_;   // of elements where they lie; null where all must be brought into it
  const Compute compute_;
  const int64_t width_, states_;
  const DType dtype_;  // of the input
  const char* data_;
  LoadKernel load_;
  int64_t cost_;
  int64_t short_run_;  // runs shorter than this are reduced many side by side
  ReduceAxes kept_, reduced_;  // innermost first
  int64_t columns_, rows_;
  int64_t element_;  // bytes
  bool folds_;
  Output outputs_[2];
  int outputs_count_ = 0;
};

Reducer reducer_of(const ReductionPlan& plan) {
  switch (plan.op) {
    case Reduction::sum: return plan.computed == c10::kBool ? Reducer::any : Reducer::sum;
    case Reduction::prod: return plan.computed == c10::kBool ? Reducer::all : Reducer::prod;
    case Reduction::mean: return Reducer::sum;
    case Reduction::norm:
      if (plan.p == 0) return Reducer::count;
      if (plan.p == 1) return Reducer::norm_1;
      if (plan.p == 2) return Reducer::norm_2;
      if (plan.p == std::numeric_limits<double>::infinity()) return Reducer::norm_inf;
      if (plan.p == -std::numeric_limits<double>::infinity()) return Reducer::norm_neg_inf;
      return Reducer::norm_p;
    case Reduction::var:
    case Reduction::std:
    case Reduction::var_mean:
    case Reduction::std_mean: return Reducer::var;
    case Reduction::logsumexp: return Reducer::logsumexp;
    case Reduction::amax: return Reducer::max;
    case Reduction::amin: return Reducer::min;
    case Reduction::aminmax: return Reducer::minmax;
    case Reduction::max:
    case Reduction::argmax: return Reducer::argmax;
    case Reduction::min:
    case Reduction::argmin: return Reducer::argmin;
    case Reduction::any: return Reducer::any;
    case Reduction::all: return Reducer::all;
    default: return Reducer::count;
  }
}

// What the elements are computed in: sums and products of integers in 64 bits.
Compute compute_of(const ReductionPlan& plan, Reducer reducer, c10::ScalarType input) {
  if (plan.computed == c10::kBool) return compute_type(dtype_of(input));  // any, all
  const Compute compute = compute_type(dtype_of(plan.computed));
  return compute == Compute::i32 && (reducer == Reducer::sum || reducer == Reducer::prod) ? Compute::i64 : compute;
}

void reduce_into(const ReductionPlan& plan, const at::Tensor& input, const at::Tensor& first, const at::Tensor* second) {
  if (first.numel() == 0) return;
  Reducer reducer = reducer_of(plan);
  Compute compute = compute_of(plan, reducer, input.scalar_type());
  const auto type = input.scalar_type(), result = plan.results[0];
  if ((type == c10::kHalf || type == c10::kBFloat16) && compute == Compute::f32) {
    if (reducer == Reducer::sum) reducer = Reducer::sum_of_short;
    if (reducer == Reducer::var) reducer = Reducer::var_of_short;
  }
  // Bools are counted in floating point, exactly: a group's count in f32, theirs in f64.
  const bool counts = (reducer == Reducer::sum || reducer == Reducer::count) && type == c10::kBool;
  if (counts && (result == c10::kLong || c10::isFloatingType(result))) {
    reducer = Reducer::sum_of_short;
    compute = Compute::f32;
  }
  int64_t reduced = 1;
  for (int64_t i = 0; i < input.dim(); ++i)
    if (plan.reduced[i]) reduced *= input.size(i);
  ReduceParams params;
  params.p = plan.p;
  params.correction = plan.correction;
  params.root = plan.op == Reduction::std || plan.op == Reduction::std_mean;
  if (plan.op == Reduction::mean) params.divisor = static_cast<double>(reduced);
  Reduce reduce(reducer, params, input, plan, compute);
  reduce.add_output(first, plan.op == Reduction::argmax || plan.op == Reduction::argmin ? 1 : 0);
  if (second != nullptr) reduce.add_output(*second, 1);
  reduce.run();
}

ops::TwoTensors functional(Reduction op, const at::Tensor& input, const ReductionArguments& arguments) {
  const ReductionPlan plan = plan_reduction(op, input, arguments);
  const auto sizes = reduced_sizes<int64_t>(plan, input.sizes());
  const at::Tensor first = empty(sizes, plan.results[0]);
  const at::Tensor second = plan.count == 2 ? empty(sizes, plan.results[1]) : at::Tensor();
  reduce_into(plan, input, first, plan.count == 2 ? &second : nullptr);
  return {first, second};
}

void out_variant(Reduction op, const at::Tensor& input, const ReductionArguments& arguments, at::Tensor& out, at::Tensor* second) {
  const ReductionPlan plan = plan_reduction(op, input, arguments);
  const auto sizes = reduced_sizes<int64_t>(plan, input.sizes());
  at::Tensor targets[2] = {out, second != nullptr ? *second : at::Tensor()};
  at::Tensor results[2];
  for (int i = 0; i < plan.count; ++i) {
    check_reduction_out(plan, i, targets[i]);
    at::native::resize_output(targets[i], sizes);
    at::assert_no_internal_overlap(targets[i]);
    at::assert_no_overlap(targets[i], input);
    // The engine writes results in the order of a contiguous tensor.
    results[i] = targets[i].is_contiguous() ? targets[i] : empty(sizes, targets[i].scalar_type());
  }
  reduce_into(plan, input, results[0], plan.count == 2 ? &results[1] : nullptr);
  for (int i = 0; i < plan.count; ++i)
    if (!results[i].is_same(targets[i])) targets[i].copy_(results[i]);
}

// Calls f(whole, part, index) for every element of the part: the start of its line in the whole tensor, its own
// address, and its index along the line.
template <class F>
void for_selected(const at::Tensor& whole, const at::Tensor& part, const at::Tensor& indices, int64_t dim, const F& f) {
  Axes<3> axes;
  for (int64_t i = part.dim() - 1; i >= 0; --i)
    if (i != dim && part.size(i) != 1)
      axes.push_back({part.size(i), {whole.stride(i) * static_cast<int64_t>(whole.element_size()),
                                     part.stride(i) * static_cast<int64_t>(part.element_size()),
                                     indices.stride(i) * int64_t(sizeof(int64_t))}});
  coalesce(axes);
  char* to = static_cast<char*>(const_cast<void*>(whole.const_data_ptr()));
  char* from = static_cast<char*>(const_cast<void*>(part.const_data_ptr()));
  const char* at = static_cast<const char*>(indices.const_data_ptr());
  parallel(count(axes), 4, [&](int64_t begin, int64_t end) {
    for_pieces(axes, begin, end, [&](const int64_t (&offset)[3], int64_t n) {
      for (int64_t i = 0; i < n; ++i)
        f(to + offset[0] + i * inner_stride(axes, 0), from + offset[1] + i * inner_stride(axes, 1),
          *reinterpret_cast<const int64_t*>(at + offset[2] + i * inner_stride(axes, 2)));
    });
  });
}

at::Tensor select_backward(const at::Tensor& grad, const at::Tensor& indices, int64_t dim, c10::SymInt symbolic_size) {
  const int64_t size = symbolic_size.expect_int();
  if (grad.dim() == 0) return grad.clone();
  dim = at::maybe_wrap_dim(dim, grad.dim());
  at::DimVector sizes(grad.sizes());
  sizes[dim] = size;
  check_selection("_select_backward", sizes, grad.sizes(), indices, dim);
  const at::Tensor result = empty(sizes, grad.scalar_type());
  if (result.numel() == 0) return result;
  char* zeros = static_cast<char*>(result.data_ptr());
  parallel(static_cast<int64_t>(result.nbytes()), 1, [&](int64_t begin, int64_t end) { std::memset(zeros + begin, 0, end - begin); });
  const int64_t step = result.stride(dim), bytes = static_cast<int64_t>(grad.element_size());
  for_selected(result, grad, indices, dim, [&](char* to, const char* from, int64_t index) {
    TORCH_CHECK_INDEX(index >= 0 && index < size, "_select_backward: index ", index, " is out of bounds for size ", size);
    std::memcpy(to + index * step * bytes, from, bytes);
  });
  return result;
}

at::Tensor select_elements(const at::Tensor& input, const at::Tensor& indices, int64_t dim) {
  if (input.dim() == 0) return input.clone();
  dim = at::maybe_wrap_dim(dim, input.dim());
  check_selection("_select", input.sizes(), indices.sizes(), indices, dim);
  const at::Tensor result = empty(indices.sizes(), input.scalar_type());
  if (result.numel() == 0) return result;
  const int64_t size = input.size(dim), step = input.stride(dim), bytes = static_cast<int64_t>(input.element_size());
  for_selected(input, result, indices, dim, [&](const char* from, char* to, int64_t index) {
    TORCH_CHECK_INDEX(index >= 0 && index < size, "_select: index ", index, " is out of bounds for size ", size);
    std::memcpy(to, from + index * step * bytes, bytes);
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  impl_reductions(library, functional, out_variant);
  library.impl("_select_backward", select_backward);
  library.impl("_select", select_elements);
}

}  // namespace tensorops::cpu
