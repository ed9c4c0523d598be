// Reductions on CUDA: brings any layout into columns of rows, chooses the geometry of the launch, allocates.
#include "ops/reduction.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "cuda/kernels/reduction.h"
#include "cuda/kernels/select.h"
#include "cuda/launch.h"
#include "cuda/lines.h"
#include "ops/reduction_forms.h"

namespace tensorops::cuda {
namespace {

constexpr int kBlockThreads = 256;      // kThreads of the kernels
constexpr int64_t kWarpColumns = 32;    // neighbouring columns that make one wide load
constexpr int64_t kLoadsPerLane = 8;    // a lane with less to do is not worth its merge
constexpr int64_t kBlocksWanted = 1024;  // enough for the largest GPU; the same everywhere, as it groups the sums

struct Axis {
  int64_t size, stride, out_stride;
};
using AxisList = c10::SmallVector<Axis, 6>;

void coalesce(AxisList& axes) {
  size_t kept = 0;
  for (const Axis& axis : axes) {
    if (kept > 0) {
      Axis& last = axes[kept - 1];
      if (axis.stride == last.stride * last.size && axis.out_stride == last.out_stride * last.size) {
        last.size *= axis.size;
        continue;
      }
    }
    axes[kept++] = axis;
  }
  axes.resize(kept);
}

ReduceAxes packed(const char* name, const AxisList& axes) {
  TORCH_CHECK_NOT_IMPLEMENTED(axes.size() <= kMaxAxes, name, ": more than ", kMaxAxes,
                              " dimensions that do not merge are not covered on CUDA");
  ReduceAxes result;
  for (const Axis& axis : axes) {
    result.sizes[result.count] = axis.size;
    result.strides[result.count] = axis.stride;
    result.out_strides[result.count++] = axis.out_stride;
  }
  return result;
}

// Fills in kept, reduced, columns and rows. The results are laid out contiguously, in the order of the kept dimensions.
void set_axes(ReduceCall& call, const ReductionPlan& plan, const at::Tensor& input, bool keeps_order) {
  AxisList kept, reduced;
  const int64_t width = element_size(call.dtype);
  int64_t out_stride = 1, index_stride = 1;
  call.columns = call.rows = 1;
  for (int64_t i = input.dim() - 1; i >= 0; --i) {
    const int64_t n = input.size(i);
    // A reduced axis' out_stride is its step in the logical order of reduced elements: what argmax counts.
    int64_t& step = plan.reduced[i] ? index_stride : out_stride;
    if (n != 1) (plan.reduced[i] ? reduced : kept).push_back({n, input.stride(i) * width, step});
    step *= n;
    (plan.reduced[i] ? call.rows : call.columns) *= n;
  }
  const auto by_stride = [](const Axis& a, const Axis& b) { return a.stride < b.stride; };
  std::stable_sort(kept.begin(), kept.end(), by_stride);
  if (!keeps_order) {
    std::stable_sort(reduced.begin(), reduced.end(), by_stride);
    int64_t step = 1;
    for (Axis& axis : reduced) {
      axis.out_stride = step;
      step *= axis.size;
    }
  }
  coalesce(kept);
  coalesce(reduced);
  call.kept = packed(reduction_name(plan.op), kept);
  call.reduced = packed(reduction_name(plan.op), reduced);
}

int64_t ceil_of(int64_t a, int64_t b) { return (a + b - 1) / b; }
int power_of_two(int64_t at_least, int64_t at_most) {
  int p = 1;
  while (p < at_least && p < at_most) p *= 2;
  return p;
}

// By sizes and strides alone: a result must not depend on the device it is computed on.
void set_geometry(ReduceCall& call, bool typed) {
  const ReduceAxes &kept = call.kept, &reduced = call.reduced;
  const int64_t width = element_size(call.dtype), pack = 16 / width;
  call.across = kept.count > 0 && reduced.count > 0 && kept.strides[0] < reduced.strides[0];
  call.vector = typed && !call.across && reduced.count > 0 && reduced.strides[0] == width &&
                (reduced.count == 1 || reduced.sizes[0] % pack == 0) && reinterpret_cast<uintptr_t>(call.data) % 16 == 0;
  for (int i = 0; i < kept.count; ++i) call.vector &= kept.strides[i] % 16 == 0;
  for (int i = 1; i < reduced.count; ++i) call.vector &= reduced.strides[i] % 16 == 0;

  const int64_t per_load = call.vector ? pack : 1;
  const int most = call.across ? kBlockThreads / power_of_two(call.columns, kWarpColumns) : kBlockThreads;
  call.lanes = power_of_two(ceil_of(call.rows, per_load * kLoadsPerLane), most);
  const int64_t blocks = ceil_of(call.columns, kBlockThreads / call.lanes);
  const int64_t loads = ceil_of(call.rows, call.lanes * per_load);
  const int64_t splits =
      std::clamp<int64_t>(std::min(kBlocksWanted / blocks, loads / kLoadsPerLane), 1, kBlocksWanted);
  call.chunk = ceil_of(ceil_of(call.rows, splits), call.lanes * per_load) * call.lanes * per_load;
  call.splits = std::max<int64_t>(1, call.chunk == 0 ? 1 : ceil_of(call.rows, call.chunk));
}

Reducer reducer_of(const ReductionPlan& plan) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  switch (plan.op) {
    case Reduction::sum: return plan.computed == c10::kBool ? Reducer::any : Reducer::sum;
    case Reduction::prod: return plan.computed == c10::kBool ? Reducer::all : Reducer::prod;
    case Reduction::mean: return Reducer::sum;
    case Reduction::norm:
      if (plan.p == 0) return Reducer::count;
      if (plan.p == 1) return Reducer::norm_1;
      if (plan.p == 2) return Reducer::norm_2;
      if (plan.p == infinity) return Reducer::norm_inf;
      if (plan.p == -infinity) return Reducer::norm_neg_inf;
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

const ReduceLauncher* typed_table(DType dtype, Compute compute) {
  if (compute_type(dtype) != compute) return nullptr;
  switch (dtype) {
    case DType::f32: return reduce_typed_f32;
    case DType::f64: return reduce_typed_f64;
    case DType::f16: return reduce_typed_f16;
    case DType::bf16: return reduce_typed_bf16;
    default: return nullptr;
  }
}

void reduce_into(const ReductionPlan& plan, const at::Tensor& input, const at::Tensor& first, const at::Tensor* second) {
  if (first.numel() == 0) return;
  const Reducer reducer = reducer_of(plan);
  const Compute compute = compute_of(plan, reducer, input.scalar_type());
  ReduceCall call;
  call.data = input.const_data_ptr();
  call.dtype = dtype_of(input.scalar_type());
  set_axes(call, plan, input, reducer == Reducer::argmax || reducer == Reducer::argmin);
  call.params.p = plan.p;
  call.params.correction = plan.correction;
  call.params.root = plan.op == Reduction::std || plan.op == Reduction::std_mean;
  if (plan.op == Reduction::mean) call.params.divisor = static_cast<double>(call.rows);
  const auto add_output = [&](const at::Tensor& out, int component) {
    call.out[call.outputs] = out.data_ptr();
    call.out_dtype[call.outputs] = dtype_of(out.scalar_type());
    call.component[call.outputs++] = component;
  };
  add_output(first, plan.op == Reduction::argmax || plan.op == Reduction::argmin ? 1 : 0);
  if (second != nullptr) add_output(*second, 1);

  const ReduceLauncher* typed = typed_table(call.dtype, compute);
  const ReduceLauncher* const mixed[] = {reduce_mixed_f32, reduce_mixed_f64, reduce_mixed_i32, reduce_mixed_i64};
  set_geometry(call, typed != nullptr);
  at::Tensor workspace;
  if (call.splits > 1) {
    workspace = empty({reduce_workspace_bytes(call)}, c10::kByte, input.device());
    call.workspace = workspace.data_ptr();
  }
  (typed != nullptr ? typed : mixed[static_cast<int>(compute)])[static_cast<int>(reducer)](call, stream());
  check_launch();
}

ops::TwoTensors functional(Reduction op, const at::Tensor& input, const ReductionArguments& arguments) {
  const ReductionPlan plan = plan_reduction(op, input, arguments);
  const auto sizes = reduced_sizes<int64_t>(plan, input.sizes());
  const Guard guard(input.device());
  const at::Tensor first = empty(sizes, plan.results[0], input.device());
  const at::Tensor second = plan.count == 2 ? empty(sizes, plan.results[1], input.device()) : at::Tensor();
  reduce_into(plan, input, first, plan.count == 2 ? &second : nullptr);
  return {first, second};
}

void out_variant(Reduction op, const at::Tensor& input, const ReductionArguments& arguments, at::Tensor& out,
                 at::Tensor* second) {
  ReductionPlan plan = plan_reduction(op, input, arguments);
  // torch computes a variance in the dtype of out=.
  if ((op == Reduction::var || op == Reduction::std) && out.scalar_type() == c10::kDouble) plan.computed = c10::kDouble;
  const auto sizes = reduced_sizes<int64_t>(plan, input.sizes());
  const Guard guard(input.device());
  at::Tensor targets[2] = {out, second != nullptr ? *second : at::Tensor()};
  at::Tensor results[2];
  check_same_device({&input, &targets[0], &targets[1]});
  for (int i = 0; i < plan.count; ++i) {
    check_reduction_out(plan, i, targets[i]);
    at::native::resize_output(targets[i], sizes);
    at::assert_no_internal_overlap(targets[i]);
    at::assert_no_overlap(targets[i], input);
    // The kernels write results in the order of a contiguous tensor.
    results[i] = targets[i].is_contiguous() ? targets[i] : empty(sizes, targets[i].scalar_type(), input.device());
  }
  reduce_into(plan, input, results[0], plan.count == 2 ? &results[1] : nullptr);
  for (int i = 0; i < plan.count; ++i)
    if (!results[i].is_same(targets[i])) targets[i].copy_(results[i]);
}

at::Tensor select_backward(const at::Tensor& grad, const at::Tensor& indices, int64_t dim, c10::SymInt size) {
  if (grad.dim() == 0) return grad.clone();
  raise_fault();
  dim = at::maybe_wrap_dim(dim, grad.dim());
  auto sizes = grad.sizes().vec();
  sizes[dim] = size.expect_int();
  check_selection("_select_backward", sizes, grad.sizes(), indices, dim);
  check_same_device({&grad, &indices});
  const Guard guard(grad.device());
  const at::Tensor result = empty(sizes, grad.scalar_type(), grad.device());
  result.zero_();
  if (result.numel() == 0) return result;
  launch_select(make_lines("_select_backward", result, {&result, &grad, &indices}, dim), /*put=*/true, fault_word(), stream());
  check_launch_with_indices();
  return result;
}

at::Tensor select_elements(const at::Tensor& input, const at::Tensor& indices, int64_t dim) {
  if (input.dim() == 0) return input.clone();
  raise_fault();
  dim = at::maybe_wrap_dim(dim, input.dim());
  check_selection("_select", input.sizes(), indices.sizes(), indices, dim);
  check_same_device({&input, &indices});
  const Guard guard(input.device());
  const at::Tensor result = empty(indices.sizes(), input.scalar_type(), input.device());
  if (result.numel() == 0) return result;
  launch_select(make_lines("_select", input, {&input, &result, &indices}, dim), /*put=*/false, fault_word(), stream());
  check_launch_with_indices();
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) {
  impl_reductions(library, functional, out_variant);
  library.impl("_select_backward", select_backward);
  library.impl("_select", select_elements);
  library.impl("_prod_gradient", ops::prod_gradient_by_scans);
}

}  // namespace tensorops::cuda
