// The reductions' Python signatures, as torch has them.
#include "ops/reduction.h"

#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>

#include <string>

#include "ops/elementwise.h"
#include "ops/scan.h"
#include "ops/softmax.h"
#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {
namespace {

using at::Tensor;
using ops::Dims;
using ops::Dtype;
using Optional = std::optional<int64_t>;

template <const auto& op>
Tensor of_all(const Tensor& input) { return op(input, {}, false); }
template <const auto& op>
Tensor& of_all_out(const Tensor& input, Tensor& out) { return op(input, {}, false, out); }
// max and min of all go into whatever their dtype casts to, unlike amax and amin.
template <const auto& op_out>
Tensor& extremum_out(const Tensor& input, Tensor& out) {
  const auto from = input.scalar_type(), to = out.scalar_type();
  if (from == to) return op_out(input, {}, false, out);
  TORCH_CHECK(c10::canCast(from, to), "result type ", from, " can't be cast to the desired output type ", to);
  Tensor value = at::empty({}, input.options());
  op_out(input, {}, false, value);
  at::native::resize_output(out, {});
  return out.copy_(value);
}
template <const auto& op>
Tensor of_all_typed(const Tensor& input, Dtype dtype) { return op(input, {}, false, dtype); }
template <const auto& op>
Tensor& of_all_typed_out(const Tensor& input, Dtype dtype, Tensor& out) { return op(input, {}, false, dtype, out); }

c10::Scalar correction_of(bool unbiased) { return unbiased ? 1 : 0; }

template <const auto& op>
auto unbiased_of_all(const Tensor& input, bool unbiased) { return op(input, {}, correction_of(unbiased), false); }
template <const auto& op>
auto unbiased_of(const Tensor& input, Dims dim, bool unbiased, bool keepdim) {
  return op(input, dim, correction_of(unbiased), keepdim);
}
template <const auto& op>
Tensor& unbiased_out(const Tensor& input, Dims dim, bool unbiased, bool keepdim, Tensor& out) {
  return op(input, dim, correction_of(unbiased), keepdim, out);
}

template <Elementwise op>
Tensor of_two(const Tensor& input, const Tensor& other) { return ops::elementwise(op, input, other); }
template <Elementwise op>
Tensor& of_two_out(const Tensor& input, const Tensor& other, Tensor& out) {
  return ops::elementwise_out(op, {{&input, &other}, 2}, {}, out);
}

template <const auto& op>
ops::TwoTensors along_out(const Tensor& input, int64_t dim, bool keepdim, const TensorPair& out) {
  Tensor values = out[0], indices = out[1];
  op(input, dim, keepdim, values, indices);
  return {values, indices};
}
ops::TwoTensors aminmax_out(const Tensor& input, Optional dim, bool keepdim, const TensorPair& out) {
  Tensor min = out[0], max = out[1];
  ops::aminmax_out(input, dim, keepdim, min, max);
  return {min, max};
}

template <const auto& op, const auto& op_out>
void bind_along(PyObject* module, const std::string& name, std::vector<Overload> overloads) {
  const std::string signature = name + "(Tensor input, int64_t dim, bool keepdim=False, *, TensorList[2] out=None)";
  overloads.push_back(either(overload(signature, op), overload(signature, along_out<op_out>)));
  python::bind(module, name.c_str(), std::move(overloads), "", name);  // not std::bind
}

template <const auto& op, const auto& op_out>
void bind_typed(PyObject* module, const std::string& name) {
  const std::string all = "(Tensor input, *, ScalarType? dtype=None", some = "(Tensor input, IntArrayRef[1]? dim, bool keepdim=False, *, ScalarType? dtype=None, Tensor out=None)";
  std::vector<Overload> overloads;
  // sum() over all has no out= in torch.
  if (name == "sum") overloads.push_back(overload(name + all + ")", of_all_typed<op>));
  else overloads.push_back(overload(name + all + ", Tensor out=None)", of_all_typed<op>, of_all_typed_out<op_out>));
  overloads.push_back(overload(name + some, op, op_out));
  bind(module, name.c_str(), std::move(overloads));
}

template <const auto& op, const auto& op_out>
void bind_predicate(PyObject* module, const std::string& name) {
  bind(module, name.c_str(),
       {overload(name + "(Tensor input, *, Tensor out=None)", of_all<op>, of_all_out<op_out>),
        overload(name + "(Tensor input, IntArrayRef[1]? dim=None, bool keepdim=False, *, Tensor out=None)", op, op_out)});
}

template <const auto& op, const auto& op_out>
void bind_deviation(PyObject* module, const std::string& name) {
  bind(module, name.c_str(),
       {overload(name + "(Tensor input, IntArrayRef[1]? dim, bool unbiased=True, bool keepdim=False, *, Tensor out=None)",
                 unbiased_of<op>, unbiased_out<op_out>),
        overload(name + "(Tensor input, IntArrayRef[1]? dim=None, *, Scalar? correction=None, bool keepdim=False, Tensor out=None)",
                 op, op_out),
        overload(name + "(Tensor input, bool unbiased=True)", unbiased_of_all<op>)});
}
template <const auto& op>
void bind_deviation_and_mean(PyObject* module, const std::string& name) {
  bind(module, name.c_str(),
       {overload(name + "(Tensor input, IntArrayRef[1]? dim, bool unbiased=True, bool keepdim=False)", unbiased_of<op>),
        overload(name + "(Tensor input, IntArrayRef[1]? dim=None, *, Scalar? correction=None, bool keepdim=False)", op),
        overload(name + "(Tensor input, bool unbiased=True)", unbiased_of_all<op>)});
}

template <const auto& op, const auto& op_out>
Overload plain(const std::string& name, const char* parameters) {
  return overload(name + "(" + parameters + ", *, Tensor out=None)", op, op_out);
}

Tensor prod_along(const Tensor& input, int64_t dim, bool keepdim, Dtype dtype) { return ops::prod(input, dim, keepdim, dtype); }
Tensor& prod_along_out(const Tensor& input, int64_t dim, bool keepdim, Dtype dtype, Tensor& out) {
  return ops::prod_out(input, dim, keepdim, dtype, out);
}

// torch.norm is a Python function with its own argument order. Matrix norms by name other than Frobenius' are torch's.
Tensor named_norm(const Tensor& input, std::string_view p, Dims dim, bool keepdim, Dtype dtype) {
  if (p != "fro") throw NotCovered();
  check_matrix_norm(dim);
  return ops::norm(input, c10::Scalar(2), dim, keepdim, dtype);
}
Tensor& named_norm_out(const Tensor& input, std::string_view p, Dims dim, bool keepdim, Tensor& out, Dtype dtype) {
  if (p != "fro") throw NotCovered();
  check_matrix_norm(dim);
  return ops::norm_out(input, c10::Scalar(2), dim, keepdim, dtype, out);
}
Tensor norm_in_order(const Tensor& input, const std::optional<c10::Scalar>& p, Dims dim, bool keepdim, Tensor out, Dtype dtype) {
  return out.defined() ? ops::norm_out(input, p, dim, keepdim, dtype, out) : ops::norm(input, p, dim, keepdim, dtype);
}
Tensor named_norm_in_order(const Tensor& input, std::string_view p, Dims dim, bool keepdim, Tensor out, Dtype dtype) {
  return out.defined() ? named_norm_out(input, p, dim, keepdim, out, dtype) : named_norm(input, p, dim, keepdim, dtype);
}

}  // namespace

void bind_reduction(PyObject* module) {
  bind_typed<ops::sum_dims, ops::sum_out>(module, "sum");
  bind_typed<ops::mean, ops::mean_out>(module, "mean");
  bind(module, "prod",
       {overload("prod(Tensor input, *, ScalarType? dtype=None)", of_all_typed<ops::prod>),
        overload("prod(Tensor input, int64_t dim, bool keepdim=False, *, ScalarType? dtype=None, Tensor out=None)", prod_along,
                 prod_along_out)});
  bind_deviation<ops::var, ops::var_out>(module, "var");
  bind_deviation<ops::std, ops::std_out>(module, "std");
  bind_deviation_and_mean<ops::var_mean>(module, "var_mean");
  bind_deviation_and_mean<ops::std_mean>(module, "std_mean");
  bind_along<ops::max_dim, ops::max_dim_out>(
      module, "max",
      {overload("max(Tensor input, *, Tensor out=None)", of_all<ops::amax>, extremum_out<ops::amax_out>),
       overload("max(Tensor input, Tensor other, *, Tensor out=None)", of_two<Elementwise::maximum>, of_two_out<Elementwise::maximum>)});
  bind_along<ops::min_dim, ops::min_dim_out>(
      module, "min",
      {overload("min(Tensor input, *, Tensor out=None)", of_all<ops::amin>, extremum_out<ops::amin_out>),
       overload("min(Tensor input, Tensor other, *, Tensor out=None)", of_two<Elementwise::minimum>, of_two_out<Elementwise::minimum>)});
  const char* dims = "Tensor input, IntArrayRef[1] dim=None, bool keepdim=False";
  bind(module, "amax", {plain<ops::amax, ops::amax_out>("amax", dims)});
  bind(module, "amin", {plain<ops::amin, ops::amin_out>("amin", dims)});
  bind(module, "logsumexp", {plain<ops::logsumexp, ops::logsumexp_out>("logsumexp", "Tensor input, IntArrayRef[1] dim, bool keepdim=False")});
  const char* one_dim = "Tensor input, int64_t? dim=None, bool keepdim=False";
  bind(module, "argmax", {plain<ops::argmax, ops::argmax_out>("argmax", one_dim)});
  bind(module, "argmin", {plain<ops::argmin, ops::argmin_out>("argmin", one_dim)});
  const std::string aminmax = "aminmax(Tensor input, *, int64_t? dim=None, bool keepdim=False, TensorList[2] out=None)";
  bind(module, "aminmax", {either(overload(aminmax, ops::aminmax), overload(aminmax, aminmax_out))}, "", "aminmax");
  bind_predicate<ops::any, ops::any_out>(module, "any");
  bind_predicate<ops::all, ops::all_out>(module, "all");
  bind(module, "count_nonzero", {overload("count_nonzero(Tensor input, IntArrayRef[1]? dim=None)", ops::count_nonzero)});
  bind(module, "norm",
       {overload("norm(Tensor input, c10::string_view p=\"fro\", IntArrayRef[1]? dim=None, bool keepdim=False, Tensor out=None, ScalarType? dtype=None)",
                 named_norm_in_order),
        overload("norm(Tensor input, Scalar? p, IntArrayRef[1]? dim=None, bool keepdim=False, Tensor out=None, ScalarType? dtype=None)",
                 norm_in_order)});
  for (const std::string name : {"cumsum", "cumprod"}) {
    const std::string signature = name + "(Tensor input, int64_t dim, *, ScalarType? dtype=None, Tensor out=None)";
    bind(module, name.c_str(), {name == "cumsum" ? overload(signature, ops::cumsum, ops::cumsum_out)
                                                 : overload(signature, ops::cumprod, ops::cumprod_out)});
    const std::string inplace = name + "_(Tensor input, int64_t dim, *, ScalarType? dtype=None)";
    bind(module, (name + "_").c_str(), {overload(inplace, name == "cumsum" ? ops::cumsum_ : ops::cumprod_)});
  }
  for (const std::string name : {"softmax", "log_softmax"}) {
    const std::string signature = name + "(Tensor input, int64_t dim, ScalarType? dtype=None, *, Tensor out=None)";
    bind(module, name.c_str(), {name == "softmax" ? overload(signature, ops::softmax, ops::softmax_out)
                                                  : overload(signature, ops::log_softmax, ops::log_softmax_out)});
  }
}

}  // namespace tensorops::python
