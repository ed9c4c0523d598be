// Elementwise on the CPU: checks, allocates, walks the operands block by block and threads.
#include "ops/elementwise.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <atomic>

#include "cpu/dtype.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
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

// Runs the kernel over elements [begin, end) of the loop's linear order.
class Walker {
 public:
  Walker(const Loop& loop, const ElementwiseRow& row, DType common, const Inputs& inputs, const ElementwiseParams& params)
      : loop_(loop),
        kernels_(TENSOROPS_KERNELS(elementwise_kernels)),
        common_(common),
        compute_(compute_type(common)),
        kernel_(kernels_.kernel[static_cast<int>(row.op)][static_cast<int>(compute_)]),
        params_(params),
        checks_divisor_(divides_integers(row.op, compute_)),
        width_(compute_ == Compute::f64 || compute_ == Compute::i64 ? 8 : 4),
        block_(kBlockBytes / width_) {
    for (int i = 0; i < inputs.count; ++i)
      rounds_[i + 1] = differs(i + 1) && !keeps_precision(row, inputs, i);
    rounds_[0] = differs(0) && row.domain != Domain::PREDICATE;
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
    bool staged = false;
    for (int i = 0; i < loop_.count; ++i) staged |= !direct(i);
    const char* repeated[kMaxOperands] = {};  // the element that fills a buffer
    // A short innermost dimension is staged across rows; a long one is cut at its end.
    const int64_t row = loop_.sizes[0];
    const bool across_rows = row < block_ / 4 && loop_.sizes.size() > 1;
    bool ok = true;
    for (int64_t at = begin; at < end;) {
      int64_t n = end - at;
      if (!across_rows) n = std::min(n, row - index[0]);
      if (staged || across_rows) n = std::min(n, block_);
      const void* in[kMaxOperands - 1] = {};
      for (int i = 1; i < loop_.count; ++i) {
        if (across_rows) {
          in[i - 1] = gather(i, index, n, buffers[i]);
        } else if (direct(i)) {
          in[i - 1] = address(i, index);
        } else if (loop_.operands[i].strides[0] == 0) {
          // One element all along the row: a buffer full of it serves every block.
          const char* element = address(i, index);
          if (repeated[i] != element) gather(i, index, std::min(block_, row), buffers[i], /*repeats=*/true);
          repeated[i] = element;
          in[i - 1] = buffers[i];
        } else {
          in[i - 1] = gather(i, index, n, buffers[i]);
        }
      }
      if (checks_divisor_) ok &= !has_zero(in[1], compute_, n);
      const bool writes_in_place = !across_rows && direct(0);
      void* out = writes_in_place ? address(0, index) : buffers[0];
      kernel_(params_, out, in, n);
      if (!writes_in_place) scatter(index, n, buffers[0]);
      advance(index, n);
      at += n;
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
  bool direct(int i) const {
    return loop_.operands[i].strides[0] == width_ && is_compute_type(loop_.operands[i].dtype, compute_) && !rounds_[i];
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
  // Calls f(address, elements) for each row that the next n elements touch.
  template <class F>
  void for_rows(int i, c10::SmallVector<int64_t, 6> index, int64_t n, F f) const {
    while (n > 0) {
      const int64_t m = std::min(n, loop_.sizes[0] - index[0]);
      f(address(i, index), m);
      advance(index, m);
      n -= m;
    }
  }
  // `repeats`: n times the first element.
  const void* gather(int i, const c10::SmallVector<int64_t, 6>& index, int64_t n, char* buffer, bool repeats = false) const {
    const Operand& o = loop_.operands[i];
    const LoadKernel load = kernels_.load[static_cast<int>(o.dtype)][static_cast<int>(compute_)];
    char* to = buffer;
    if (repeats) load(address(i, index), 0, to, n);
    else for_rows(i, index, n, [&](const char* from, int64_t m) {
      load(from, o.strides[0], to, m);
      to += m * width_;
    });
    if (rounds_[i]) round_to_common(buffer, n);
    return buffer;
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
  const ElementwiseKernel kernel_;
  const ElementwiseParams& params_;
  const bool checks_divisor_;
  const int64_t width_, block_;
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

// What a transcendental costs next to an addition, for the choice of threads.
int64_t cost_of(const ElementwiseRow& row) { return row.domain == Domain::FLOATING || row.domain == Domain::ACTIVATION ? 4 : 1; }

void compute_into(const ElementwiseRow& row, const ElementwiseTypes& types, const Inputs& inputs, const Scalars& scalars,
                  const at::Tensor& out) {
  if (out.numel() == 0) return;
  if (const ElementwiseRow* simple = simple_power(row, types, inputs))
    return compute_into(*simple, types, {{inputs.tensors[0]}, 1}, {}, out);
  const DType common = dtype_of(types.common);
  const Compute compute = compute_type(common);
  const ElementwiseParams params = params_of(scalars, common);
  const ElementwiseKernel kernel = TENSOROPS_KERNELS(elementwise_kernels).kernel[static_cast<int>(row.op)][static_cast<int>(compute)];
  TORCH_CHECK(kernel != nullptr, "\"", row.name, "\" not implemented for '", types.common, "'");

  // The whole tensor as one run: same dtype and layout everywhere, no staging and no loop nest.
  bool one_run = is_compute_type(dtype_of(out.scalar_type()), compute) && out.is_non_overlapping_and_dense() &&
                 !divides_integers(row.op, compute);
  for (int i = 0; one_run && i < inputs.count; ++i)
    one_run = inputs[i].scalar_type() == out.scalar_type() && inputs[i].sizes() == out.sizes() &&
              inputs[i].strides() == out.strides();
  if (one_run) {
    const int64_t width = static_cast<int64_t>(out.element_size());
    char* to = static_cast<char*>(out.data_ptr());
    const char* from[3] = {};
    for (int i = 0; i < inputs.count; ++i) from[i] = static_cast<const char*>(inputs[i].const_data_ptr());
    parallel(out.numel(), cost_of(row), [&](int64_t begin, int64_t end) {
      const void* in[3] = {from[0] + begin * width, from[1] + begin * width, from[2] + begin * width};
      kernel(params, to + begin * width, in, end - begin);
    });
    return;
  }

  const Loop loop = make_loop(out, inputs);
  const Walker walker(loop, row, common, inputs, params);
  std::atomic<bool> zero_divisor{false};
  parallel(loop.numel, cost_of(row), [&](int64_t begin, int64_t end) {
    if (!walker.run(begin, end)) zero_divisor = true;
  });
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
