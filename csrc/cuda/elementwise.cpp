// Elementwise on CUDA: checks, allocates, picks the contiguous or the strided kernel.
#include "ops/elementwise.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "cuda/kernels/elementwise.h"
#include "cuda/launch.h"
#include "ops/arity.h"
#include "ops/dtypes.h"
#include "ops/layout.h"
#include "ops/loop.h"

namespace tensorops::cuda {
namespace {

bool is_host_scalar(const at::Tensor& t) { return t.dim() == 0 && t.is_cpu(); }

// The output's device, or that of the first input which is no scalar from the host.
c10::Device device_of(const Inputs& inputs, const at::Tensor* out) {
  if (out != nullptr && out->is_cuda()) return out->device();
  for (int i = 0; i < inputs.count; ++i)
    if (inputs[i].is_cuda()) return inputs[i].device();
  TORCH_INTERNAL_ASSERT(false, "a CUDA kernel was called without a CUDA tensor");
}

// Host scalars (Python numbers among them) go with any device, as in torch; all else must be on one.
c10::Device check_devices(const Inputs& inputs, const at::Tensor* out) {
  const c10::Device device = device_of(inputs, out);
  const auto check = [&](const at::Tensor& t) {
    TORCH_CHECK(t.device() == device, "Expected all tensors to be on the same device, but found at least two devices, ",
                device, " and ", t.device(), "!");
  };
  for (int i = 0; i < inputs.count; ++i)
    if (!is_host_scalar(inputs[i])) check(inputs[i]);
  if (out != nullptr) check(*out);
  return device;
}

// Calls f with the C++ type of a dtype.
template <class F>
Constant with_host_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::u8: return f(uint8_t{});
    case DType::i8: return f(int8_t{});
    case DType::i16: return f(int16_t{});
    case DType::i32: return f(int32_t{});
    case DType::i64: return f(int64_t{});
    case DType::f16: return f(c10::Half{});
    case DType::f32: return f(float{});
    case DType::boolean: return f(bool{});
    case DType::bf16: return f(c10::BFloat16{});
    default: return f(double{});
  }
}
template <class T>
Constant constant_of(T value) {
  if constexpr (std::is_integral_v<T>) return {static_cast<double>(value), static_cast<int64_t>(value)};
  else return {static_cast<double>(value), 0};
}
Constant host_value(const at::Tensor& t) {
  return with_host_type(dtype_of(t.scalar_type()),
                        [&]<class T>(T) { return constant_of(*static_cast<const T*>(t.const_data_ptr())); });
}
Constant rounded_to(DType dtype, const Constant& x) {
  return with_host_type(dtype, [&]<class T>(T) {
    if constexpr (std::is_integral_v<T>) return constant_of(static_cast<T>(x.integer));
    else return constant_of(static_cast<T>(x.real));
  });
}

// Whether a scalar from the host is computed with as it is. torch's CUDA kernels take it unrounded in more ops than its CPU
// kernels do.
bool keeps_host_precision(const ElementwiseRow& row, const Inputs& inputs, int i) {
  switch (row.op) {
    case Elementwise::add:
    case Elementwise::sub:
    case Elementwise::mul: return true;
    case Elementwise::_div_floor:
    case Elementwise::_div_trunc:
    case Elementwise::floor_divide: return i == 1;
    default: return keeps_precision(row, inputs, i);
  }
}

const ContiguousLauncher* contiguous_table(DType dtype) {
  switch (dtype) {
    case DType::f32: return elementwise_contiguous_f32;
    case DType::f64: return elementwise_contiguous_f64;
    case DType::f16: return elementwise_contiguous_f16;
    case DType::bf16: return elementwise_contiguous_bf16;
    case DType::i32: return elementwise_contiguous_i32;
    case DType::i64: return elementwise_contiguous_i64;
    default: return nullptr;
  }
}

StridedLauncher strided_launcher(Elementwise op, Compute compute) {
  const StridedLauncher* const tables[] = {elementwise_strided_f32, elementwise_strided_f64, elementwise_strided_i32,
                                           elementwise_strided_i64};
  return tables[static_cast<int>(compute)][static_cast<int>(op)];
}

// Whether the operands are one contiguous run each, in the dtypes the contiguous kernel has and aligned for its vectors.
bool is_contiguous_run(const Loop& loop, Elementwise op, DType common, DType result) {
  if (loop.sizes.size() != 1) return false;
  const int64_t per_vector = 16 / element_size(common);
  for (int i = 0; i < loop.count; ++i) {
    const Operand& operand = loop.operands[i];
    if (operand.data == nullptr) continue;
    const DType natural = i == 0 ? result : op == Elementwise::where && i == 1 ? DType::boolean : common;
    const int64_t width = element_size(operand.dtype);
    if (operand.dtype != natural || operand.strides[0] != width) return false;
    if (reinterpret_cast<uintptr_t>(operand.data) % (width * per_vector) != 0) return false;
  }
  return true;
}

// Calls f(loop) for pieces that 32-bit offsets and kMaxDims dimensions can address.
template <class F>
void for_each_piece(Loop loop, const F& f) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  bool fits = loop.numel <= most;
  for (int i = 0; i < loop.count; ++i) {
    int64_t last = 0;
    for (size_t dim = 0; dim < loop.sizes.size(); ++dim) last += (loop.sizes[dim] - 1) * loop.operands[i].strides[dim];
    fits &= last <= most;
  }
  if (fits && loop.sizes.size() <= kMaxDims) return f(loop);

  // A loop over the outermost dimension, or two halves of the one that reaches farthest.
  const bool outermost = loop.sizes.size() > kMaxDims;
  size_t cut = loop.sizes.size() - 1;
  if (!outermost) {
    int64_t farthest = -1;
    for (size_t dim = 0; dim < loop.sizes.size(); ++dim) {
      int64_t reach = loop.sizes[dim] - 1;
      for (int i = 0; i < loop.count; ++i)
        reach = std::max(reach, (loop.sizes[dim] - 1) * loop.operands[i].strides[dim]);
      if (reach > farthest) farthest = reach, cut = dim;
    }
  }
  const int64_t size = loop.sizes[cut];
  const int64_t step = outermost ? 1 : (size + 1) / 2;
  for (int64_t begin = 0; begin < size; begin += step) {
    Loop piece = loop;
    piece.sizes[cut] = std::min(step, size - begin);
    piece.numel = loop.numel / size * piece.sizes[cut];
    for (int i = 0; i < loop.count; ++i)
      if (piece.operands[i].data != nullptr) piece.operands[i].data += begin * loop.operands[i].strides[cut];
    if (outermost) {
      piece.sizes.pop_back();
      for (int i = 0; i < loop.count; ++i) piece.operands[i].strides.pop_back();
    }
    for_each_piece(piece, f);
  }
}

void compute_into(const ElementwiseRow& row, const ElementwiseTypes& types, const Inputs& inputs, const Scalars& scalars,
                  const at::Tensor& out) {
  if (out.numel() == 0) return;
  if (const ElementwiseRow* simple = simple_power(row, types, inputs))
    return compute_into(*simple, types, {{inputs.tensors[0]}, 1}, {}, out);
  const DType common = dtype_of(types.common);
  const Compute compute = compute_type(common);
  const StridedLauncher strided = strided_launcher(row.op, compute);
  TORCH_CHECK(strided != nullptr, "\"", row.name, "\" not implemented for '", types.common, "'");

  Loop loop = make_loop(out, inputs);
  const bool integers = compute == Compute::i32 || compute == Compute::i64;
  Constant constants[3], arguments[3];
  for (int i = 0; i < inputs.count; ++i) {
    if (!is_host_scalar(inputs[i])) continue;
    constants[i] = host_value(inputs[i]);
    if (integers || !keeps_host_precision(row, inputs, i)) constants[i] = rounded_to(common, constants[i]);
    loop.operands[i + 1].data = nullptr;
  }
  for (int i = 0; i < scalars.count; ++i)
    arguments[i] = {scalars.values[i].toDouble(), integers ? integer_of(scalars.values[i], common) : 0};

  const ContiguousLauncher* contiguous = contiguous_table(common);
  if (contiguous != nullptr && is_contiguous_run(loop, row.op, common, dtype_of(types.result))) {
    ContiguousElementwise call;
    call.out = loop.operands[0].data;
    call.n = loop.numel;
    for (int i = 0; i < 3; ++i) {
      if (i < inputs.count) call.in[i] = loop.operands[i + 1].data;
      call.constant[i] = constants[i];
      call.scalars[i] = arguments[i];
    }
    contiguous[static_cast<int>(row.op)](call, stream());
    check_launch();
    return;
  }

  for_each_piece(std::move(loop), [&](const Loop& piece) {
    StridedElementwise call;
    call.common = common;
    call.dims = static_cast<int>(piece.sizes.size());
    call.out = piece.operands[0].data;
    call.out_dtype = piece.operands[0].dtype;
    for (int i = 0; i < 3; ++i) {
      call.constant[i] = constants[i];
      call.scalars[i] = arguments[i];
      if (i >= inputs.count) continue;
      call.in[i] = piece.operands[i + 1].data;
      call.in_dtype[i] = piece.operands[i + 1].dtype;
    }
    for (int dim = 0; dim < call.dims; ++dim) {
      call.sizes[dim] = piece.sizes[dim];
      call.out_strides[dim] = piece.operands[0].strides[dim];
      for (int i = 0; i < inputs.count; ++i) call.in_strides[i][dim] = piece.operands[i + 1].strides[dim];
    }
    strided(call, stream());
    check_launch();
  });
}

void check_overlap(const Inputs& inputs, const at::Tensor& out) {
  at::assert_no_internal_overlap(out);
  for (int i = 0; i < inputs.count; ++i) at::assert_no_partial_overlap(out, inputs[i]);
}

at::Tensor functional(Elementwise op, const Inputs& inputs, const Scalars& scalars) {
  const ElementwiseRow& row = row_of(op);
  const c10::Device device = check_devices(inputs, nullptr);
  const auto types = elementwise_types(row, inputs, scalars);
  const auto sizes = broadcast_sizes<int64_t>(inputs);
  const Guard guard(device);
  at::Tensor out = empty_strided(sizes, result_strides<int64_t>(inputs, sizes), types.result, device);
  compute_into(row, types, inputs, scalars, out);
  return out;
}

void out_variant(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& out) {
  const ElementwiseRow& row = row_of(op);
  const Guard guard(check_devices(inputs, &out));
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
  const Guard guard(check_devices(inputs, &self));
  const auto types = elementwise_types(row, inputs, scalars);
  check_result_cast(row, types, inputs, self);
  const auto sizes = broadcast_sizes<int64_t>(inputs);
  TORCH_CHECK(self.sizes() == c10::IntArrayRef(sizes), "output with shape ", self.sizes(),
              " doesn't match the broadcast shape ", c10::IntArrayRef(sizes));
  check_overlap(inputs, self);
  compute_into(row, types, inputs, scalars, self);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) { impl_elementwise(library, functional, inplace, out_variant); }

}  // namespace tensorops::cuda
