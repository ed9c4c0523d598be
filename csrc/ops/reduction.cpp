// Reductions: schemas, the checks and dtypes that all rooms share, Meta kernels, and the overloads made of other ops.
#include "ops/reduction.h"

#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DefaultDtype.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/elementwise.h"
#include "ops/reduction_forms.h"
#include "ops/scan.h"

namespace tensorops {
namespace {

Result result_rule(Reduction op) {
  constexpr Result rules[] = {
#define REDUCTION(name, rule) Result::rule,
      TENSOROPS_REDUCTION_TABLE(REDUCTION)
#undef REDUCTION
  };
  return rules[static_cast<int>(op)];
}

// Extrema of nothing do not exist: the first dimension without elements is named.
void check_not_empty(const ReductionPlan& plan, const at::Tensor& input, bool has_dim) {
  const char* name = reduction_name(plan.op);
  const bool empty = std::any_of(input.sym_sizes().begin(), input.sym_sizes().end(),
                                 [](const c10::SymInt& size) { return size == 0; });
  if (!empty) return;
  if (plan.op == Reduction::argmax || plan.op == Reduction::argmin)
    TORCH_CHECK_INDEX(has_dim, name, "(): Expected reduction dim to be specified for input.numel() == 0.");
  TORCH_CHECK(has_dim, name, "(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the 'dim' argument.");
  for (int64_t i = 0; i < input.dim(); ++i)
    TORCH_CHECK_INDEX(!plan.reduced[i] || input.sym_size(i) != 0, name, "(): Expected reduction dim ", i, " to have non-zero size.");
}

void check_norm(const ReductionPlan& plan, const at::Tensor& input, std::optional<c10::ScalarType> dtype) {
  const auto type = input.scalar_type();
  TORCH_CHECK(c10::isFloatingType(type), "norm: Expected a floating point tensor as input. Got ", type);
  if (dtype) {
    TORCH_CHECK(c10::isFloatingType(*dtype), "norm: dtype should be floating point, but got ", *dtype);
    TORCH_CHECK(c10::promoteTypes(type, *dtype) == *dtype, "norm: the dtype of the input (", type,
                ") should be convertible without narrowing to the specified dtype (", *dtype, ")");
  }
  if (plan.p >= 0 && plan.p != std::numeric_limits<double>::infinity()) return;
  for (int64_t i = 0; i < input.dim(); ++i)
    TORCH_CHECK(!plan.reduced[i] || input.sym_size(i) != 0, "norm: cannot compute the ", plan.p, " norm over dimension ", i,
                ", which is empty: the operation does not have an identity");
}

}  // namespace

const char* reduction_name(Reduction op) {
  constexpr const char* names[] = {
#define REDUCTION(name, ...) #name,
      TENSOROPS_REDUCTION_TABLE(REDUCTION)
#undef REDUCTION
  };
  return names[static_cast<int>(op)];
}

ReductionPlan plan_reduction(Reduction op, const at::Tensor& input, const ReductionArguments& arguments) {
  const char* name = reduction_name(op);
  const auto type = input.scalar_type();
  TORCH_CHECK_NOT_IMPLEMENTED(!c10::isComplexType(type), "tensorops::", name, ": complex tensors are not covered, got ", type);
  ReductionPlan plan;
  plan.op = op;
  plan.keepdim = arguments.keepdim;
  // No dimensions mean all of them, except in any and all, where an empty list reduces nothing.
  const bool has_dim = arguments.dim.has_value() && !arguments.dim->empty();
  if (has_dim) plan.reduced = at::dim_list_to_bitset(*arguments.dim, input.dim());
  else if (!arguments.dim.has_value() || (op != Reduction::any && op != Reduction::all))
    plan.reduced = std::bitset<at::dim_bitset_size>().set() >> (at::dim_bitset_size - input.dim());

  const bool integral = c10::isIntegralType(type, /*includeBool=*/true);
  c10::ScalarType result = type, computed = type;
  switch (result_rule(op)) {
    case Result::WIDE:
      result = computed = arguments.dtype.value_or(integral ? c10::kLong : type);
      break;
    case Result::FLOAT:
      if (op == Reduction::mean) {
        result = computed = arguments.dtype.value_or(type);
        TORCH_CHECK(c10::isFloatingType(result), "mean(): could not infer output dtype. ", arguments.dtype ? "Optional" : "Input",
                    " dtype must be either a floating point or complex dtype. Got: ", result);
      } else if (op == Reduction::norm) {
        result = computed = arguments.dtype.value_or(type);
      } else {
        TORCH_CHECK(!integral, "std and var only support floating point and complex dtypes");
      }
      break;
    case Result::FLOATING:
      if (integral) result = computed = c10::get_default_dtype_as_scalartype();
      if (arguments.dtype && c10::isFloatingType(*arguments.dtype)) computed = c10::promoteTypes(result, *arguments.dtype);
      break;
    case Result::SAME:
      break;
    case Result::BOOL:
      result = type == c10::kByte ? c10::kByte : c10::kBool;
      break;
    case Result::INDEX:
      result = c10::kLong;
      TORCH_CHECK(op == Reduction::count_nonzero || type != c10::kBool, name, "(): does not support bool input");
      break;
  }
  plan.computed = computed;
  plan.results[0] = plan.results[1] = result;
  plan.count = 1;
  switch (op) {
    case Reduction::max:
    case Reduction::min:
      plan.results[1] = c10::kLong;
      [[fallthrough]];
    case Reduction::aminmax:
      plan.count = 2;
      [[fallthrough]];
    case Reduction::amax:
    case Reduction::amin:
    case Reduction::argmax:
    case Reduction::argmin:
      check_not_empty(plan, input, has_dim);
      break;
    case Reduction::var_mean:
    case Reduction::std_mean:
      plan.count = 2;
      [[fallthrough]];
    case Reduction::var:
    case Reduction::std:
      if (arguments.scalar) plan.correction = arguments.scalar->toDouble();
      break;
    case Reduction::norm:
      if (arguments.scalar) plan.p = arguments.scalar->toDouble();
      check_norm(plan, input, arguments.dtype);
      break;
    default:
      break;
  }
  return plan;
}

namespace ops {
namespace {

// For the ops that take one dimension or none.
std::optional<int64_t> only_dim(const ReductionArguments& a) {
  return a.dim && a.dim->size() == 1 ? std::make_optional(a.dim->front()) : std::nullopt;
}

}  // namespace

TwoTensors reduce(Reduction op, const Tensor& input, const ReductionArguments& a) {
  const std::optional<int64_t> one_dim = only_dim(a);
  switch (op) {
    case Reduction::sum: return {sum_dims(input, a.dim, a.keepdim, a.dtype), {}};
    case Reduction::prod: return {prod(input, a.dim, a.keepdim, a.dtype), {}};
    case Reduction::mean: return {mean(input, a.dim, a.keepdim, a.dtype), {}};
    case Reduction::norm: return {norm(input, a.scalar, a.dim, a.keepdim, a.dtype), {}};
    case Reduction::var: return {var(input, a.dim, a.scalar, a.keepdim), {}};
    case Reduction::std: return {std(input, a.dim, a.scalar, a.keepdim), {}};
    case Reduction::var_mean: return var_mean(input, a.dim, a.scalar, a.keepdim);
    case Reduction::std_mean: return std_mean(input, a.dim, a.scalar, a.keepdim);
    case Reduction::logsumexp: return {logsumexp(input, a.dim, a.keepdim), {}};
    case Reduction::amax: return {amax(input, a.dim, a.keepdim), {}};
    case Reduction::amin: return {amin(input, a.dim, a.keepdim), {}};
    case Reduction::any: return {any(input, a.dim, a.keepdim), {}};
    case Reduction::all: return {all(input, a.dim, a.keepdim), {}};
    case Reduction::count_nonzero: return {count_nonzero(input, a.dim), {}};
    case Reduction::aminmax: return aminmax(input, one_dim, a.keepdim);
    case Reduction::max: return max_dim(input, *one_dim, a.keepdim);
    case Reduction::min: return min_dim(input, *one_dim, a.keepdim);
    case Reduction::argmax: return {argmax(input, one_dim, a.keepdim), {}};
    case Reduction::argmin: return {argmin(input, one_dim, a.keepdim), {}};
    default: TORCH_INTERNAL_ASSERT(false, "not a reduction");
  }
}

void reduce_out(Reduction op, const Tensor& input, const ReductionArguments& a, Tensor& out, Tensor* second) {
  const std::optional<int64_t> one_dim = only_dim(a);
  switch (op) {
    case Reduction::sum: sum_out(input, a.dim, a.keepdim, a.dtype, out); break;
    case Reduction::prod: prod_out(input, a.dim, a.keepdim, a.dtype, out); break;
    case Reduction::mean: mean_out(input, a.dim, a.keepdim, a.dtype, out); break;
    case Reduction::norm: norm_out(input, a.scalar, a.dim, a.keepdim, a.dtype, out); break;
    case Reduction::var: var_out(input, a.dim, a.scalar, a.keepdim, out); break;
    case Reduction::std: std_out(input, a.dim, a.scalar, a.keepdim, out); break;
    case Reduction::logsumexp: logsumexp_out(input, a.dim, a.keepdim, out); break;
    case Reduction::amax: amax_out(input, a.dim, a.keepdim, out); break;
    case Reduction::amin: amin_out(input, a.dim, a.keepdim, out); break;
    case Reduction::any: any_out(input, a.dim, a.keepdim, out); break;
    case Reduction::all: all_out(input, a.dim, a.keepdim, out); break;
    case Reduction::aminmax: aminmax_out(input, one_dim, a.keepdim, out, *second); break;
    case Reduction::max: max_dim_out(input, *one_dim, a.keepdim, out, *second); break;
    case Reduction::min: min_dim_out(input, *one_dim, a.keepdim, out, *second); break;
    case Reduction::argmax: argmax_out(input, one_dim, a.keepdim, out); break;
    case Reduction::argmin: argmin_out(input, one_dim, a.keepdim, out); break;
    default: TORCH_INTERNAL_ASSERT(false, reduction_name(op), " has no out= form");
  }
}

// The gradient of element k is g times the product of the others, P_{k-1} * S_k, where P is the cumulative product and
// S_k = g * x_{k+1} * ... * x_n the recurrence S_k = x_{k+1} * S_{k+1} from the right. Nothing is divided, so zeros are no case
// of their own.
Tensor prod_gradient_by_scans(const Tensor& grad, const Tensor& input, at::IntArrayRef given) {
  const auto dims = check_prod_gradient(grad, input, given);
  const auto count = static_cast<int64_t>(dims.size());
  if (count == 0) return grad.clone();
  c10::SmallVector<int64_t, 6> last(count);
  for (int64_t i = 0; i < count; ++i) last[i] = input.dim() - count + i;
  // The reduced dimensions as one line, the last.
  const Tensor moved = input.movedim(dims, last);
  const auto as_lines = [&](const Tensor& t) { return count == 1 ? t : t.flatten(-count, -1); };
  const Tensor lines = as_lines(moved);
  const c10::SymInt n = lines.sym_size(-1);
  if (n == 0) return at::zeros_like(input);
  const Tensor right = linear_scan(pad_last(as_lines(grad.movedim(dims, last)), n - 1), lines, -1, /*reverse=*/true);
  const Tensor left = shift(cumprod(lines, -1, std::nullopt), -1, 1);
  return ops::mul(right, left).view_symint(moved.sym_sizes()).movedim(last, dims).contiguous();
}

}  // namespace ops

void check_reduction_out(const ReductionPlan& plan, int i, const at::Tensor& out) {
  const char* name = reduction_name(plan.op);
  const auto expected = plan.results[i], got = out.scalar_type();
  switch (plan.op) {
    case Reduction::var:
    case Reduction::std:
      TORCH_CHECK(c10::canCast(expected, got), name, "(): result type ", expected, " can't be cast to the desired output type ", got);
      break;
    case Reduction::logsumexp:
      TORCH_CHECK(c10::isFloatingType(got), "logsumexp(): Expected floating point type for result tensor, but got: ", got);
      break;
    case Reduction::any:
    case Reduction::all:
      TORCH_CHECK(got == c10::kBool || got == c10::kByte, name, " only supports bool tensor for result, got: ", got);
      break;
    default:
      TORCH_CHECK(expected == got, name, "(): Expected out tensor to have dtype ", expected, ", but got ", got, " instead");
  }
}

void check_selection(const char* name, at::IntArrayRef whole, at::IntArrayRef part, const at::Tensor& indices, int64_t dim) {
  TORCH_CHECK(indices.scalar_type() == c10::kLong, name, ": indices must be int64, got ", indices.scalar_type());
  TORCH_CHECK(part == indices.sizes(), name, ": shapes ", part, " and ", indices.sizes(), " of values and indices differ");
  TORCH_CHECK(part[dim] == 1, name, ": values must have size 1 along dimension ", dim, ", got ", part);
  bool same = whole.size() == part.size();
  for (int64_t i = 0; same && i < static_cast<int64_t>(whole.size()); ++i) same = i == dim || whole[i] == part[i];
  TORCH_CHECK(same, name, ": shapes ", whole, " and ", part, " of input and indices differ");
}

c10::SmallVector<int64_t, 6> check_prod_gradient(const at::Tensor& grad, const at::Tensor& input, at::IntArrayRef dims) {
  auto expected = input.sym_sizes().vec();
  c10::SmallVector<int64_t, 6> wrapped;
  for (int64_t dim : dims) {
    dim = at::maybe_wrap_dim(dim, input.dim(), /*wrap_scalar=*/false);
    const bool is_new = std::find(wrapped.begin(), wrapped.end(), dim) == wrapped.end();
    TORCH_CHECK(is_new, "_prod_gradient: dim ", dim, " appears multiple times");
    wrapped.push_back(dim);
    expected[dim] = 1;
  }
  const auto type = input.scalar_type();
  TORCH_CHECK(c10::isFloatingType(type), "_prod_gradient: expected a floating point input, got ", type);
  TORCH_CHECK(grad.sym_sizes() == c10::SymIntArrayRef(expected) && grad.scalar_type() == type,
              "_prod_gradient: expected a gradient of shape ", c10::SymIntArrayRef(expected), " and dtype ", type, ", got ",
              grad.sym_sizes(), " and ", grad.scalar_type());
  return wrapped;
}

namespace {

void define(torch::Library& library, const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); }

}  // namespace

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  // name(parameters) and name.out(parameters, *, Tensor(a!) out)
  const auto both = [&](const std::string& name, const std::string& parameters, const std::string& keywords) {
    define(library, name + "(" + parameters + (keywords.empty() ? "" : ", *, " + keywords) + ") -> Tensor");
    define(library, name + ".out(" + parameters + ", *, " + (keywords.empty() ? "" : keywords + ", ") + "Tensor(a!) out) -> Tensor(a!)");
  };
  for (const char* name : {"sum", "mean", "prod"}) both(name, "Tensor input, int[1]? dim=None, bool keepdim=False", "ScalarType? dtype=None");
  for (const char* name : {"amax", "amin", "any", "all"}) both(name, "Tensor input, int[1]? dim=None, bool keepdim=False", "");
  both("logsumexp", "Tensor input, int[1]? dim, bool keepdim=False", "");
  for (const char* name : {"argmax", "argmin"}) both(name, "Tensor input, int? dim=None, bool keepdim=False", "");
  define(library, "count_nonzero(Tensor input, int[1]? dim=None) -> Tensor");
  for (const std::string name : {"var", "std"}) {
    both(name, "Tensor input, int[1]? dim=None", "Scalar? correction=None, bool keepdim=False");
    define(library, name + ".dim(Tensor input, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor");
    define(library, name + ".unbiased(Tensor input, bool unbiased) -> Tensor");
    define(library, name + "_mean(Tensor input, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor, Tensor)");
    define(library, name + "_mean.dim(Tensor input, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)");
    define(library, name + "_mean.unbiased(Tensor input, bool unbiased) -> (Tensor, Tensor)");
  }
  define(library, "norm.scalar(Tensor input, Scalar? p, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor");
  define(library, "norm.out(Tensor input, Scalar? p, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None, Tensor(a!) out) -> Tensor(a!)");
  define(library, "norm(Tensor input, str p=\"fro\", int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor");
  for (const std::string name : {"max", "min"}) {
    define(library, name + ".dim(Tensor input, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)");
    define(library, name + ".dim_out(Tensor input, int dim, bool keepdim=False, *, Tensor(a!) values, Tensor(b!) indices) -> (Tensor(a!) values, Tensor(b!) indices)");
    define(library, name + "(Tensor input) -> Tensor");
    define(library, name + ".other(Tensor input, Tensor other) -> Tensor");
  }
  define(library, "_select_backward(Tensor grad, Tensor indices, int dim, SymInt size) -> Tensor");
  define(library, "_select(Tensor input, Tensor indices, int dim) -> Tensor");
  define(library, "_prod_gradient(Tensor grad, Tensor input, int[] dims) -> Tensor");
  define(library, "aminmax(Tensor input, *, int? dim=None, bool keepdim=False) -> (Tensor min, Tensor max)");
  define(library, "aminmax.out(Tensor input, *, int? dim=None, bool keepdim=False, Tensor(a!) min, Tensor(b!) max) -> (Tensor(a!) min, Tensor(b!) max)");
}

namespace {

using at::Tensor;
using ops::Dims;

c10::Scalar correction_of(bool unbiased) { return unbiased ? 1 : 0; }

template <const auto& op>
auto over_dim(const Tensor& input, Dims dim, bool unbiased, bool keepdim) {
  return op(input, dim, correction_of(unbiased), keepdim);
}
template <const auto& op>
auto over_all(const Tensor& input, bool unbiased) {
  return op(input, std::nullopt, correction_of(unbiased), false);
}
template <const auto& op>
Tensor extremum_of_all(const Tensor& input) { return op(input, std::nullopt, false); }
template <Elementwise op>
Tensor of_two(const Tensor& input, const Tensor& other) { return ops::elementwise(op, input, other); }

Tensor named_norm(const Tensor& input, c10::string_view p, Dims dim, bool keepdim, ops::Dtype dtype) {
  TORCH_CHECK(p == "fro", "norm: only p='fro' and numbers are covered, got p='", p, "'");
  check_matrix_norm(dim);
  return ops::norm(input, c10::Scalar(2), dim, keepdim, dtype);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CompositeImplicitAutograd, library) {
  library.impl("var.dim", over_dim<ops::var>);
  library.impl("std.dim", over_dim<ops::std>);
  library.impl("var_mean.dim", over_dim<ops::var_mean>);
  library.impl("std_mean.dim", over_dim<ops::std_mean>);
  library.impl("var.unbiased", over_all<ops::var>);
  library.impl("std.unbiased", over_all<ops::std>);
  library.impl("var_mean.unbiased", over_all<ops::var_mean>);
  library.impl("std_mean.unbiased", over_all<ops::std_mean>);
  library.impl("max", extremum_of_all<ops::amax>);
  library.impl("min", extremum_of_all<ops::amin>);
  library.impl("max.other", of_two<Elementwise::maximum>);
  library.impl("min.other", of_two<Elementwise::minimum>);
  library.impl("norm", named_norm);
}

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  impl_reductions(
      library,
      [](Reduction op, const Tensor& input, const ReductionArguments& arguments) -> ops::TwoTensors {
        const ReductionPlan plan = plan_reduction(op, input, arguments);
        const auto sizes = reduced_sizes<c10::SymInt>(plan, input.sym_sizes());
        const auto make = [&](int i) { return at::empty_symint(sizes, input.options().dtype(plan.results[i])); };
        return {make(0), plan.count == 2 ? make(1) : Tensor()};
      },
      [](Reduction op, const Tensor& input, const ReductionArguments& arguments, Tensor& out, Tensor* second) {
        const ReductionPlan plan = plan_reduction(op, input, arguments);
        const auto sizes = reduced_sizes<c10::SymInt>(plan, input.sym_sizes());
        const auto resize = [&](int i, const Tensor& result) {
          TORCH_CHECK(input.device() == result.device(), reduction_name(op), "(): input is on ", input.device(), ", out= on ",
                      result.device());
          check_reduction_out(plan, i, result);
          at::native::resize_output_symint(result, sizes);
        };
        resize(0, out);
        if (second != nullptr) resize(1, *second);
      });
  library.impl("_select_backward", [](const Tensor& grad, const Tensor&, int64_t dim, c10::SymInt size) -> Tensor {
    auto sizes = grad.sym_sizes().vec();
    if (!sizes.empty()) sizes[at::maybe_wrap_dim(dim, grad.dim())] = std::move(size);
    return at::empty_symint(sizes, grad.options());
  });
  library.impl("_select", [](const Tensor& input, const Tensor& indices, int64_t) -> Tensor {
    return at::empty_symint(indices.sym_sizes(), input.options());
  });
  library.impl("_prod_gradient", [](const Tensor& grad, const Tensor& input, at::IntArrayRef dims) -> Tensor {
    check_prod_gradient(grad, input, dims);
    return at::empty_symint(input.sym_sizes(), input.options());
  });
}

}  // namespace tensorops
