// The reduction family: typed callers, and the rules that every room shares: which dimensions go, what dtype comes out.
#pragma once

#include <ATen/WrapDimUtilsMulti.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>
#include <c10/util/SmallVector.h>

#include <bitset>
#include <optional>
#include <tuple>

#include "ops/handle.h"

namespace tensorops {

// The dtype of a reduction's result:
//   WIDE      the input's, but int64 for integers and bool
//   FLOAT     the input's, which must be floating
//   FLOATING  the input's, but the default float dtype for integers and bool
//   SAME      the input's
//   BOOL      bool, but uint8 for uint8
//   INDEX     int64
enum class Result { WIDE, FLOAT, FLOATING, SAME, BOOL, INDEX };
#define TENSOROPS_REDUCTION_TABLE(REDUCTION) \
  REDUCTION(sum, WIDE)                       \
  REDUCTION(prod, WIDE)                      \
  REDUCTION(mean, FLOAT)                     \
  REDUCTION(norm, FLOAT)                     \
  REDUCTION(var, FLOAT)                      \
  REDUCTION(std, FLOAT)                      \
  REDUCTION(var_mean, FLOAT)                 \
  REDUCTION(std_mean, FLOAT)                 \
  REDUCTION(logsumexp, FLOATING)             \
  REDUCTION(amax, SAME)                      \
  REDUCTION(amin, SAME)                      \
  REDUCTION(aminmax, SAME)                   \
  REDUCTION(max, SAME)                       \
  REDUCTION(min, SAME)                       \
  REDUCTION(any, BOOL)                       \
  REDUCTION(all, BOOL)                       \
  REDUCTION(count_nonzero, INDEX)            \
  REDUCTION(argmax, INDEX)                   \
  REDUCTION(argmin, INDEX)

enum class Reduction : int {
#define REDUCTION(name, ...) name,
  TENSOROPS_REDUCTION_TABLE(REDUCTION)
#undef REDUCTION
  count_
};
const char* reduction_name(Reduction op);

// The arguments of a call, whatever the op.
struct ReductionArguments {
  at::OptionalIntArrayRef dim;
  bool keepdim = false;
  std::optional<c10::ScalarType> dtype;  // what to compute in: the caller's wish, or the dtype of out=
  std::optional<c10::Scalar> scalar;  // norm: p; var, std: correction
};

// A call once its arguments have been checked.
struct ReductionPlan {
  Reduction op;
  std::bitset<at::dim_bitset_size> reduced;  // which dimensions of the input go
  bool keepdim;
  c10::ScalarType computed;  // what the elements are converted to
  int count;                 // of results
  c10::ScalarType results[2];
  double p = 2, correction = 1;
};
ReductionPlan plan_reduction(Reduction op, const at::Tensor& input, const ReductionArguments& arguments);
// Refuses an out= tensor of a dtype that result i may not be stored as; the rule differs from op to op, as in torch.
void check_reduction_out(const ReductionPlan& plan, int i, const at::Tensor& out);

// _select and _select_backward: `part` has one element along dim, at int64 `indices` of its shape, of a tensor whose other
// sizes are the same.
void check_selection(const char* name, at::IntArrayRef whole, at::IntArrayRef part, const at::Tensor& indices, int64_t dim);
// The dimensions of _prod_gradient, counted from the front: `grad` has size 1 along them, and else the input's sizes and dtype.
c10::SmallVector<int64_t, 6> check_prod_gradient(const at::Tensor& grad, const at::Tensor& input, at::IntArrayRef dims);
// norm by name is a matrix norm, over two dimensions at most.
inline void check_matrix_norm(at::OptionalIntArrayRef dim) {
  TORCH_CHECK(!dim || dim->size() <= 2, "linalg.matrix_norm: dim must be a 2-tuple. Got ", *dim);
}

template <class Int>
c10::SmallVector<Int, 6> reduced_sizes(const ReductionPlan& plan, c10::ArrayRef<Int> sizes) {
  c10::SmallVector<Int, 6> result;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!plan.reduced[i]) result.push_back(sizes[i]);
    else if (plan.keepdim) result.push_back(Int(1));
  }
  return result;
}

namespace ops {

using at::Tensor;
using Dims = at::OptionalIntArrayRef;
using TwoTensors = std::tuple<Tensor, Tensor>;
using TwoOut = std::tuple<Tensor&, Tensor&>;
using Dtype = std::optional<c10::ScalarType>;
using Number = std::optional<c10::Scalar>;

inline const Op<Tensor(const Tensor&, Dims, bool, Dtype)> sum_dims{"sum"}, mean{"mean"}, prod{"prod"};
inline const Op<Tensor&(const Tensor&, Dims, bool, Dtype, Tensor&)> sum_out{"sum", "out"}, mean_out{"mean", "out"},
    prod_out{"prod", "out"};
inline const Op<Tensor(const Tensor&, Dims, bool)> amax{"amax"}, amin{"amin"}, any{"any"}, all{"all"},
    logsumexp{"logsumexp"};
inline const Op<Tensor&(const Tensor&, Dims, bool, Tensor&)> amax_out{"amax", "out"}, amin_out{"amin", "out"},
    any_out{"any", "out"}, all_out{"all", "out"}, logsumexp_out{"logsumexp", "out"};
inline const Op<Tensor(const Tensor&, Dims)> count_nonzero{"count_nonzero"};
inline const Op<Tensor(const Tensor&, Dims, const Number&, bool)> var{"var"}, std{"std"};
inline const Op<Tensor&(const Tensor&, Dims, const Number&, bool, Tensor&)> var_out{"var", "out"}, std_out{"std", "out"};
inline const Op<TwoTensors(const Tensor&, Dims, const Number&, bool)> var_mean{"var_mean"}, std_mean{"std_mean"};
inline const Op<Tensor(const Tensor&, const Number&, Dims, bool, Dtype)> norm{"norm", "scalar"};
inline const Op<Tensor&(const Tensor&, const Number&, Dims, bool, Dtype, Tensor&)> norm_out{"norm", "out"};
inline const Op<Tensor(const Tensor&, std::optional<int64_t>, bool)> argmax{"argmax"}, argmin{"argmin"};
inline const Op<Tensor&(const Tensor&, std::optional<int64_t>, bool, Tensor&)> argmax_out{"argmax", "out"},
    argmin_out{"argmin", "out"};
inline const Op<TwoTensors(const Tensor&, int64_t, bool)> max_dim{"max", "dim"}, min_dim{"min", "dim"};
inline const Op<TwoOut(const Tensor&, int64_t, bool, Tensor&, Tensor&)> max_dim_out{"max", "dim_out"},
    min_dim_out{"min", "dim_out"};
inline const Op<TwoTensors(const Tensor&, std::optional<int64_t>, bool)> aminmax{"aminmax"};
inline const Op<TwoOut(const Tensor&, std::optional<int64_t>, bool, Tensor&, Tensor&)> aminmax_out{"aminmax", "out"};

// The gradient of max.dim and its like: `grad` at `indices` of a new tensor of zeros with `size` elements along dim, where grad
// and indices have one; and the way back.
inline const Op<Tensor(const Tensor&, const Tensor&, int64_t, c10::SymInt)> select_backward{"_select_backward"};
inline const Op<Tensor(const Tensor&, const Tensor&, int64_t)> select{"_select"};

// The gradient of prod over `dims`, along which grad has size 1: of each element grad times the product of the others.
inline const Op<Tensor(const Tensor&, const Tensor&, at::IntArrayRef)> prod_gradient{"_prod_gradient"};
// The same as a composition of differentiable ops.
Tensor prod_gradient_by_scans(const Tensor& grad, const Tensor& input, at::IntArrayRef dims);

// Calls an op by its enumerator; the second tensor is undefined where there is one result.
TwoTensors reduce(Reduction op, const Tensor& input, const ReductionArguments& arguments);
void reduce_out(Reduction op, const Tensor& input, const ReductionArguments& arguments, Tensor& out, Tensor* second);

inline Tensor sum(const Tensor& input, Dims dim = std::nullopt, bool keepdim = false, Dtype dtype = std::nullopt) {
  return sum_dims(input, dim, keepdim, dtype);
}

}  // namespace ops
}  // namespace tensorops
