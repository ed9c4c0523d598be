// Elementwise on the CPU: checks, allocates, walks the operands block by block and threads.
#include "ops/elementwise.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <cstring>

#include "cpu/dtype.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "ops/arity.h"
#include "ops/dtypes.h"
#include "ops/layout.h"
#include "ops/loop.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t kBlockBytes = 4096;  // staged at a time; four buffers fill half of a 32 KB L1

bool divides_integers(Elementwise op, Compute compute) {
  if (compute != Compute::i32 && compute != Compute::i64) return false;
  return op == Elementwise::_div_floor || op == Elementwise::_div_trunc || op == Elementwise::floor_divide ||
         op == Elementwise::fmod || op == Elementwise::remainder;
}

bool has_zero(const void* run, Compute compute, int64_t n) {
  bool found = false;
  if (compute == Compute::i32)
    for (int64_t i = 0; i < n; ++i) found |= static_cast<const int32_t*>(run)[i] == 0;
  else
    for (int64_t i = 0; i < n; ++i) found |= static_cast<const int64_t*>(run)[i] == 0;
  return found;
}

// A kernel, and the dtypes that it reads and writes.
struct Chosen {
  ElementwiseKernel kernel = nullptr;
  DType in[3], out;
};

DType dtype_of_compute(Compute compute) {
  constexpr DType dtypes[] = {DType::f32, DType::f64, DType::i32, DType::i64};
  return dtypes[static_cast<int>(compute)];
}

// The op's kernels from the most direct on: on operands of the common dtype as they are stored, with what is always bool as
// such (a predicate's results, the condition of where), and on the compute type alone. The last one has a kernel wherever the op
// is defined.
std::array<Chosen, 3> kernels_of(const ElementwiseRow& row, DType common) {
  const OpKernels& kernels = TENSOROPS_KERNELS(elementwise_kernels).op[static_cast<int>(row.op)];
  const Compute compute = compute_type(common);
  const auto with_bool = [&](ElementwiseKernel kernel, DType type) {
    return Chosen{kernel, {row.op == Elementwise::where ? DType::boolean : type, type, type},
                  row.domain == Domain::PREDICATE ? DType::boolean : type};
  };
  const DType computed = dtype_of_compute(compute);
  return {{with_bool(common == DType::bf16 ? kernels.of_bf16 : common == DType::f16 ? kernels.of_f16 : nullptr, common),
           with_bool(kernels.with_bool[static_cast<int>(compute)], computed),
           {kernels.of[static_cast<int>(compute)], {computed, computed, computed}, computed}}};
}

// Calls the kernel; results that go past the caches do so from the first whole cache line on.
void call(const Chosen& chosen, const ElementwiseParams& params, ElementwiseRun run, int64_t n) {
  const int64_t size = element_size(chosen.out), at = reinterpret_cast<intptr_t>(run.out);
  if (run.rows > 1) {
    run.streams &= at % kStreamed == 0 && run.out_step % kStreamed == 0;
  } else if (run.streams && at % kStreamed != 0) {
    const int64_t head = at % size != 0 ? n : std::min(n, (kStreamed - at % kStreamed) / size);
    run.streams = false;
    chosen.kernel(params, run, head);
    run.streams = true;
    run.out = static_cast<char*>(run.out) + head * size;
    for (int i = 0; i < kMaxOperands - 1; ++i)
      if (run.in[i] != nullptr && !run.repeats[i])
        run.in[i] = static_cast<const char*>(run.in[i]) + head * element_size(chosen.in[i]);
    n -= head;
  }
  chosen.kernel(params, run, n);
}

// What a transcendental costs next to an addition, for the choice of threads.
int64_t cost_of(const ElementwiseRow& row) { return row.domain == Domain::FLOATING || row.domain == Domain::ACTIVATION ? 4 : 1; }

// Whether the results are written past the caches.
bool goes_past_caches(const Loop& loop) {
  int64_t bytes = 0;
  for (int i = 0; i < loop.count; ++i) {
    if (i > 0 && loop.operands[i].data == loop.operands[0].data) return false;
    bytes += loop.numel * (loop.operands[i].strides[0] == 0 ? 0 : element_size(loop.operands[i].dtype));
  }
  return bytes >= kPastCaches;
}

// The loop in pieces where an input is turned: it lies closer together along another dimension than along the results'
// innermost. A tile covers a part of both, and the input is transposed into a buffer first, so that each of its cache lines
// is read once and whole.
class Tiles {
 public:
  static constexpr int64_t kBufferBytes = 128 << 10;  // of one input; all of them stay in the second cache

  explicit Tiles(const Loop& loop) : loop_(loop) {
    int64_t size = 1;  // of the largest element turned
    for (int i = 1; i < loop.count; ++i) {
      const Operand& o = loop.operands[i];
      if (dim_ == 0) dim_ = closest(o);
      turned_[i] = dim_ != 0 && o.strides[dim_] > 0 && o.strides[dim_] < o.strides[0];
      if (turned_[i]) size = std::max(size, element_size(o.dtype));
      turned_count_ += turned_[i];
    }
    if (turned_count_ == 0) return;
    // A few cache lines of each row of the input, for the prefetcher's sake, by as long a row of results as the buffer holds.
    const int64_t elements = kBufferBytes / size, across = loop.sizes[dim_], along = loop.sizes[0];
    across_ = std::min(across, std::max(kRowBytes / size, elements / along));
    const int64_t pieces = divide_up(along, elements / across_);
    along_ = std::min(along, divide_up(divide_up(along, pieces), kStreamed) * kStreamed);
    pieces_along_ = divide_up(along, along_);
    pieces_across_ = divide_up(across, across_);
    count_ = pieces_along_ * pieces_across_;
    for (size_t dim = 1; dim < loop.sizes.size(); ++dim)
      if (dim != dim_) count_ *= loop.sizes[dim];
  }

  // 0: no input is turned.
  int64_t count() const { return count_; }
  int64_t elements() const { return along_ * across_; }
  int64_t bytes() const { return turned_count_ * kBufferBytes; }

  // The tile as a loop of its own.
  Loop tile(int64_t index, char* buffer) const {
    int64_t at[2] = {index % pieces_along_ * along_, index / pieces_along_ % pieces_across_ * across_};
    Loop tile;
    tile.sizes = {std::min(along_, loop_.sizes[0] - at[0]), std::min(across_, loop_.sizes[dim_] - at[1])};
    tile.numel = tile.sizes[0] * tile.sizes[1];
    tile.count = loop_.count;
    for (int i = 0; i < loop_.count; ++i) {
      const Operand& o = loop_.operands[i];
      const int64_t along = o.strides[0], across = o.strides[dim_], size = element_size(o.dtype);
      char* data = o.data + at[0] * along + at[1] * across;
      int64_t rest = index / (pieces_along_ * pieces_across_);
      for (size_t dim = 1; dim < loop_.sizes.size(); ++dim) {
        if (dim == dim_) continue;
        data += rest % loop_.sizes[dim] * o.strides[dim];
        rest /= loop_.sizes[dim];
      }
      tile.operands[i] = {data, o.dtype, {along, across}};
      if (!turned_[i]) continue;
      tile.operands[i] = {buffer, o.dtype, {size, size * tile.sizes[0]}};
      const TileStrides of_tile = {size, size * tile.sizes[0]};
      transposer(o.dtype)(data, {along, across}, buffer, of_tile, tile.sizes[0], tile.sizes[1]);
      buffer += kBufferBytes;
    }
    coalesce(tile);
    return tile;
  }

 private:
  static constexpr int64_t kRowBytes = 256;
  // The dimension along which the operand lies closest together.
  size_t closest(const Operand& o) const {
    size_t found = 0;
    for (size_t dim = 1; o.strides[0] > 0 && dim < loop_.sizes.size(); ++dim)
      if (o.strides[dim] > 0 && o.strides[dim] < o.strides[found]) found = dim;
    return found;
  }

  const Loop& loop_;
  size_t dim_ = 0;  // cut along with dimension 0
  bool turned_[kMaxOperands] = {};
  int turned_count_ = 0;
  int64_t along_ = 0, across_ = 0, pieces_along_ = 0, pieces_across_ = 0;  // in dimension 0 and dim_
  int64_t count_ = 0;
};

// Runs the kernel over elements [begin, end) of the loop's linear order.
class Walker {
 public:
  Walker(const Loop& loop, const ElementwiseRow& row, DType common, const Inputs& inputs, const ElementwiseParams& params,
         bool streams)
      : loop_(loop),
        kernels_(TENSOROPS_KERNELS(elementwise_kernels)),
        common_(common),
        compute_(compute_type(common)),
        params_(params),
        checks_divisor_(divides_integers(row.op, compute_)),
        width_(compute_ == Compute::f64 || compute_ == Compute::i64 ? 8 : 4),
        block_(kBlockBytes / width_) {
    for (int i = 0; i < loop.count; ++i) {
      dense_[i] = is_dense(i);
      periodic_[i] = is_periodic(i);
    }
    for (int i = 0; i < inputs.count; ++i)
      rounds_[i + 1] = differs(i + 1) && !keeps_precision(row, inputs, i);
    rounds_[0] = differs(0) && row.domain != Domain::PREDICATE;
    const bool short_rows = loop.sizes[0] < block_ / 4 && loop.sizes.size() > 1;
    // Short rows: as one long row where no input need be staged, else many rows in a call, else staged across their ends.
    for (const Chosen& candidate : kernels_of(row, common)) {
      if (candidate.kernel == nullptr) continue;
      chosen_ = candidate;
      across_rows_ = short_rows;
      if (across_rows_ && takes_operands(candidate) && takes_rows()) break;
      across_rows_ = false;
      if (takes_operands(candidate) && (!short_rows || (takes_rows() && rows_pay(row)))) break;
      across_rows_ = short_rows;
      if (across_rows_ && takes_operands(candidate)) break;
    }
    streams_ = streams && direct(0);
    all_direct_ = !checks_divisor_;
    for (int i = 0; i < loop.count; ++i) all_direct_ &= direct(i);
  }

  // Returns false when an integer divisor was zero.
  bool run(int64_t begin, int64_t end) const {
    alignas(64) char buffers[kMaxOperands][kBlockBytes];
    c10::SmallVector<int64_t, 6> index(loop_.sizes.size());
    int64_t rest = begin;
    for (size_t dim = 0; dim < loop_.sizes.size(); ++dim) {
      index[dim] = rest % loop_.sizes[dim];
      rest /= loop_.sizes[dim];
    }
    const char* repeated[kMaxOperands] = {};  // the element, or row, in a buffer
    // Rows as they are, many at once; or staged, short ones across their ends.
    const bool staged = across_rows_ || !takes_rows();
    // A block that begins within a row reads the rest of it, and as many elements as its own, of a row that repeats.
    const int64_t block = across_rows_ ? block_ - loop_.sizes[0] : block_;
    const int64_t whole_rows = block - block % loop_.sizes[0];
    bool ok = true;
    for (int64_t at = begin; at < end;) {
      int64_t n = end - at;
      ElementwiseRun run = {};
      if (!staged && index[0] == 0 && n >= 2 * loop_.sizes[0] && loop_.sizes.size() > 1)
        run.rows = std::min({loop_.sizes[1] - index[1], n / loop_.sizes[0], block_});
      if (!across_rows_) n = std::min(n, loop_.sizes[0] - index[0]);
      if (staged) n = std::min(n, block);
      // Where nothing is staged, blocks of whole rows are the rows of one call.
      const bool blocks = across_rows_ && all_direct_ && index[0] == 0 && n >= whole_rows;
      if (blocks) {
        n = whole_rows;
        run.rows = (end - at) / n;
      }
      for (int i = 1; i < loop_.count; ++i) {
        run.repeats[i - 1] = repeats(i);
        if (blocks) run.in_step[i - 1] = periodic_[i] ? 0 : n * element_size(chosen_.in[i - 1]);
        else if (run.rows > 1) run.in_step[i - 1] = loop_.operands[i].strides[1];
        if (across_rows_ && periodic_[i]) {
          if (repeated[i] == nullptr) repeat_row(i, buffers[i]);
          repeated[i] = buffers[i];
          run.in[i - 1] = buffers[i] + index[0] * element_size(chosen_.in[i - 1]);
        } else if (direct(i) || (repeats(i) && is_read_as_stored(i))) {
          run.in[i - 1] = address(i, index);
        } else if (repeats(i) && run.rows > 1) {
          load(i, address(i, index), loop_.operands[i].strides[1], buffers[i], run.rows);
          repeated[i] = nullptr;
          run.in[i - 1] = buffers[i];
          run.in_step[i - 1] = width_;
        } else if (repeats(i)) {
          const char* element = address(i, index);
          if (repeated[i] != element) load(i, element, 0, buffers[i], 1);
          repeated[i] = element;
          run.in[i - 1] = buffers[i];
        } else {
          run.in[i - 1] = gather(i, index, n, buffers[i]);
        }
      }
      if (checks_divisor_) ok &= !has_zero(run.in[1], compute_, run.repeats[1] ? 1 : n);
      run.out = direct(0) ? address(0, index) : buffers[0];
      if (blocks) run.out_step = n * element_size(chosen_.out);
      else if (run.rows > 1) run.out_step = loop_.operands[0].strides[1];
      run.streams = streams_;
      call(chosen_, params_, run, n);
      if (!direct(0)) scatter(index, n, buffers[0]);
      advance(index, n * run.rows);
      at += n * run.rows;
    }
    return ok;
  }

 private:
  // Whether operand i has to go through the common dtype on its way between memory and the compute type.
  bool differs(int i) const { return loop_.operands[i].dtype != common_ && !is_compute_type(common_, compute_); }
  void round_to_common(char* run, int64_t n) const {
    char rounded[kBlockBytes / 2];  // the common dtype is narrower than the compute type
    const int64_t size = element_size(common_);
    kernels_.store[static_cast<int>(compute_)][static_cast<int>(common_)](run, rounded, size, n);
    kernels_.load[static_cast<int>(common_)][static_cast<int>(compute_)](rounded, size, run, n);
  }
  // Operand i's elements lie one after another, from row to row as well.
  bool is_dense(int i) const {
    int64_t stride = element_size(loop_.operands[i].dtype);
    for (size_t dim = 0; dim < loop_.sizes.size(); stride *= loop_.sizes[dim++])
      if (loop_.operands[i].strides[dim] != stride) return false;
    return true;
  }
  // Operand i is the same in all rows, which are short ones.
  bool is_periodic(int i) const {
    bool repeats = i > 0 && loop_.sizes.size() > 1 && loop_.operands[i].strides[0] != 0;
    for (size_t dim = 1; dim < loop_.sizes.size(); ++dim) repeats &= loop_.operands[i].strides[dim] == 0;
    return repeats;
  }
  // The kernel reads or writes operand i where it lies, or rows of it in a buffer as they lie.
  bool direct(int i) const { return runs_of(i, i == 0 ? chosen_.out : chosen_.in[i - 1]) && !rounds_[i]; }
  // Input i is one element all along a row.
  bool repeats(int i) const { return !across_rows_ && loop_.operands[i].strides[0] == 0; }
  // A repeated element needs no conversion.
  bool is_read_as_stored(int i) const { return loop_.operands[i].dtype == dtype_of_compute(compute_) && !rounds_[i]; }
  // A run of elements of the loop is one of operand i's, of this dtype.
  bool runs_of(int i, DType dtype) const {
    const bool adjacent = loop_.operands[i].strides[0] == element_size(dtype);
    return loop_.operands[i].dtype == dtype && (across_rows_ ? dense_[i] || (periodic_[i] && adjacent) : adjacent);
  }
  // Whether the chosen kernel goes through rows without staging, or across their ends with no more than elements repeated.
  bool takes_rows() const {
    bool takes = direct(0) && !checks_divisor_;
    for (int i = 1; i < loop_.count; ++i) takes &= direct(i) || repeats(i) || fills(i);
    return takes;
  }
  // Whether input i is one element along each of some rows so short that to write it so many times is the quickest.
  bool fills(int i) const {
    return across_rows_ && loop_.operands[i].strides[0] == 0 && loop_.sizes[0] <= 4 && is_read_as_stored(i);
  }
  // A row that is no whole number of vectors ends in one that computes elements twice, which is dear where the op is, or in place,
  // and where it is shorter, in a part of one, which is dear in narrow dtypes (csrc/README.md).
  bool rows_pay(const ElementwiseRow& row) const {
    const int64_t n = loop_.sizes[0];
    if (n >= 64) return true;
    if (chosen_.out == DType::boolean) return n >= 32;
    bool in_place = false;
    for (int i = 1; i < loop_.count; ++i) in_place |= loop_.operands[i].data == loop_.operands[0].data;
    if (element_size(chosen_.out) < width_) return n % 8 == 0 || (n > 8 && !in_place);
    return cost_of(row) > 1 ? n % 8 == 0 || n > 16 : n > 2;
  }
  // What a kernel reads or writes in the compute type may be staged; other dtypes it wants as they are.
  bool takes_operands(const Chosen& kernel) const {
    bool takes = is_compute_type(kernel.out, compute_) || runs_of(0, kernel.out);
    for (int i = 1; takes && i < loop_.count; ++i)
      takes = is_compute_type(kernel.in[i - 1], compute_) || repeats(i) || runs_of(i, kernel.in[i - 1]);
    return takes;
  }
  char* address(int i, const c10::SmallVector<int64_t, 6>& index) const {
    char* p = loop_.operands[i].data;
    for (size_t dim = 0; dim < index.size(); ++dim) p += index[dim] * loop_.operands[i].strides[dim];
    return p;
  }
  void advance(c10::SmallVector<int64_t, 6>& index, int64_t n) const {
    index[0] += n;
    for (size_t dim = 0; dim + 1 < index.size() && index[dim] >= loop_.sizes[dim]; ++dim) {
      index[dim + 1] += index[dim] / loop_.sizes[dim];
      index[dim] %= loop_.sizes[dim];
    }
  }
  // Calls f(address, elements) for each row that the next n elements touch, or for all of them where rows follow each other.
  template <class F>
  void for_rows(int i, c10::SmallVector<int64_t, 6> index, int64_t n, F f) const {
    if (dense_[i]) return f(address(i, index), n);
    const auto& strides = loop_.operands[i].strides;
    while (n > 0) {
      int64_t m = std::min(n, loop_.sizes[0] - index[0]), done = m;
      char* row = address(i, index);
      f(row, m);
      row -= index[0] * strides[0];
      for (int64_t left = n > m ? loop_.sizes[1] - index[1] - 1 : 0; left > 0 && done < n; --left, done += m) {
        m = std::min(n - done, loop_.sizes[0]);
        f(row += strides[1], m);
      }
      advance(index, done);
      n -= done;
    }
  }
  const void* gather(int i, const c10::SmallVector<int64_t, 6>& index, int64_t n, char* buffer) const {
    if (fills(i)) {
      if (width_ == 4) fill<uint32_t>(i, index, n, buffer);
      else fill<uint64_t>(i, index, n, buffer);
      return buffer;
    }
    char* to = buffer;
    for_rows(i, index, n, [&](const char* from, int64_t m) {
      load(i, from, loop_.operands[i].strides[0], to, m);
      to += m * width_;
    });
    return buffer;
  }
  template <class Bits>
  void fill(int i, const c10::SmallVector<int64_t, 6>& index, int64_t n, char* buffer) const {
    Bits* to = reinterpret_cast<Bits*>(buffer);
    for_rows(i, index, n, [&](const char* from, int64_t m) {
      Bits element;
      std::memcpy(&element, from, sizeof(element));
      for (int64_t k = 0; k < m; ++k) to[k] = element;
      to += m;
    });
  }
  // Fills the buffer of operand i with its row again and again, in the dtype that the kernel reads.
  void repeat_row(int i, char* buffer) const {
    const int64_t n = loop_.sizes[0], bytes = n * element_size(chosen_.in[i - 1]);
    if (direct(i)) std::memcpy(buffer, loop_.operands[i].data, bytes);
    else load(i, loop_.operands[i].data, loop_.operands[i].strides[0], buffer, n);
    const int64_t whole = block_ * element_size(chosen_.in[i - 1]);
    for (int64_t done = bytes; done < whole; done += bytes) std::memcpy(buffer + done, buffer, std::min(bytes, whole - done));
  }
  void load(int i, const char* from, int64_t stride, char* to, int64_t n) const {
    kernels_.load[static_cast<int>(loop_.operands[i].dtype)][static_cast<int>(compute_)](from, stride, to, n);
    if (rounds_[i]) round_to_common(to, n);
  }
  void scatter(const c10::SmallVector<int64_t, 6>& index, int64_t n, char* buffer) const {
    const Operand& o = loop_.operands[0];
    if (rounds_[0]) round_to_common(buffer, n);
    const StoreKernel store = kernels_.store[static_cast<int>(compute_)][static_cast<int>(o.dtype)];
    for_rows(0, index, n, [&](char* to, int64_t m) {
      store(buffer, to, o.strides[0], m);
      buffer += m * width_;
    });
  }

  const Loop& loop_;
  const ElementwiseKernels& kernels_;
  const DType common_;
  const Compute compute_;
  Chosen chosen_;
  const ElementwiseParams& params_;
  const bool checks_divisor_;
  const int64_t width_, block_;
  bool across_rows_ = false;  // short rows are one run, or staged, many to a block
  bool streams_;
  bool all_direct_;
  bool dense_[kMaxOperands] = {}, periodic_[kMaxOperands] = {};
  bool rounds_[kMaxOperands] = {};
};

ElementwiseParams params_of(const Scalars& scalars, DType common) {
  ElementwiseParams params;
  const Compute compute = compute_type(common);
  const bool integers = compute == Compute::i32 || compute == Compute::i64;
  for (int i = 0; i < scalars.count; ++i) {
    params.real[i] = scalars.values[i].toDouble();
    if (integers) params.integer[i] = integer_of(scalars.values[i], common);
  }
  return params;
}

void compute_into(const ElementwiseRow& row, const ElementwiseTypes& types, const Inputs& inputs, const Scalars& scalars,
                  const at::Tensor& out) {
  if (out.numel() == 0) return;
  if (const ElementwiseRow* simple = simple_power(row, types, inputs))
    return compute_into(*simple, types, {{inputs.tensors[0]}, 1}, {}, out);
  const DType common = dtype_of(types.common);
  const Compute compute = compute_type(common);
  const ElementwiseParams params = params_of(scalars, common);
  const auto kernels = kernels_of(row, common);
  TORCH_CHECK(kernels.back().kernel != nullptr, "\"", row.name, "\" not implemented for '", types.common, "'");

  // The whole tensor as one run: same layout everywhere, dtypes that a kernel takes, no staging and no loop nest.
  bool one_run = out.is_non_overlapping_and_dense() && !divides_integers(row.op, compute);
  for (int i = 0; one_run && i < inputs.count; ++i)
    one_run = inputs[i].sizes() == out.sizes() && inputs[i].strides() == out.strides();
  for (const Chosen& chosen : kernels) {
    if (!one_run) break;
    bool takes = chosen.kernel != nullptr && chosen.in[2] == common && chosen.out == dtype_of(out.scalar_type());
    for (int i = 0; takes && i < inputs.count; ++i) takes = chosen.in[i] == dtype_of(inputs[i].scalar_type());
    if (!takes) continue;
    const int64_t to_size = element_size(chosen.out);
    int64_t bytes = out.numel() * to_size;
    char* to = static_cast<char*>(out.data_ptr());
    const char* from[3] = {};
    bool distinct = true;
    for (int i = 0; i < inputs.count; ++i) {
      from[i] = static_cast<const char*>(inputs[i].const_data_ptr());
      distinct &= from[i] != to;
      bytes += out.numel() * element_size(chosen.in[i]);
    }
    const bool streams = distinct && bytes >= kPastCaches;
    parallel(out.numel(), cost_of(row), [&](int64_t begin, int64_t end) {
      ElementwiseRun run = {to + begin * to_size, {}, {}, streams};
      for (int i = 0; i < inputs.count; ++i) run.in[i] = from[i] + begin * element_size(chosen.in[i]);
      call(chosen, params, run, end - begin);
      if (streams) TENSOROPS_KERNELS(elementwise_kernels).end_stream();
    });
    return;
  }

  const Loop loop = make_loop(out, inputs);
  const bool streams = goes_past_caches(loop);
  std::atomic<bool> zero_divisor{false};
  const auto run = [&](const Loop& part, int64_t begin, int64_t end) {
    if (!Walker(part, row, common, inputs, params, streams).run(begin, end)) zero_divisor = true;
  };
  const Tiles tiles(loop);
  if (tiles.count() > 0) {
    parallel(tiles.count(), cost_of(row) * tiles.elements(), [&](int64_t begin, int64_t end) {
      const Scratch buffer(tiles.bytes());
      for (int64_t t = begin; t < end; ++t) {
        const Loop tile = tiles.tile(t, buffer.data());
        run(tile, 0, tile.numel);
      }
      if (streams) TENSOROPS_KERNELS(elementwise_kernels).end_stream();
    });
  } else {
    parallel(loop.numel, cost_of(row), [&](int64_t begin, int64_t end) {
      run(loop, begin, end);
      if (streams) TENSOROPS_KERNELS(elementwise_kernels).end_stream();
    });
  }
  TORCH_CHECK(!zero_divisor, "ZeroDivisionError");
}

void check_overlap(const Inputs& inputs, const at::Tensor& out) {
  at::assert_no_internal_overlap(out);
  for (int i = 0; i < inputs.count; ++i) at::assert_no_partial_overlap(out, inputs[i]);
}

at::Tensor functional(Elementwise op, const Inputs& inputs, const Scalars& scalars) {
  const ElementwiseRow& row = row_of(op);
  const auto types = elementwise_types(row, inputs, scalars);
  const auto sizes = broadcast_sizes<int64_t>(inputs);
  at::Tensor out = empty_strided(sizes, result_strides<int64_t>(inputs, sizes), types.result);
  compute_into(row, types, inputs, scalars, out);
  return out;
}

void out_variant(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& out) {
  const ElementwiseRow& row = row_of(op);
  const auto types = elementwise_types(row, inputs, scalars);
  check_result_cast(row, types, inputs, out);
  const auto sizes = broadcast_sizes<int64_t>(inputs);
  if (at::native::resize_output(out, sizes))
    out.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, result_strides<int64_t>(inputs, sizes));
  check_overlap(inputs, out);
  compute_into(row, types, inputs, scalars, out);
}

void inplace(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& self) {
  const ElementwiseRow& row = row_of(op);
  const auto types = elementwise_types(row, inputs, scalars);
  check_result_cast(row, types, inputs, self);
  const auto sizes = broadcast_sizes<int64_t>(inputs);
  TORCH_CHECK(self.sizes() == c10::IntArrayRef(sizes), "output with shape ", self.sizes(),
              " doesn't match the broadcast shape ", c10::IntArrayRef(sizes));
  check_overlap(inputs, self);
  compute_into(row, types, inputs, scalars, self);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) { impl_elementwise(library, functional, inplace, out_variant); }

}  // namespace tensorops::cpu
