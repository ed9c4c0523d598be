// The matmul family's Python signatures.
#include "ops/matmul.h"

#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {
namespace {

using at::Tensor;

Tensor linear_with_bias(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  return ops::linear(input, weight, bias);
}
// addmm(input, mat1, mat2) with tensors alone: beta and alpha are 1, and the parser can be skipped.
void add_plain_lane(Overload& o, const SumRow& row) {
  o.plain_tensors = 3;
  o.call_plain = [&row](const Tensor* const* t) {
    for (int i = 0; i < 3; ++i) require_covered(*t[i]);
    return wrap_result(without_gil([&] { return row.op(*t[0], *t[1], *t[2], 1, 1); }));
  };
}

// The call forms that torch deprecates: beta, and alpha if any, before the tensors they scale. In place, torch's are methods,
// whose tensor comes first, except for torch.addmv_.
template <class R, class... A, class F>
Overload deprecated(const std::string& signature, F f) {
  return overload_of<R, A...>(signature + "|deprecated", std::make_shared<F>(std::move(f)));
}
using Factor = const c10::Scalar&;
using In = const Tensor&;

void add_deprecated(std::vector<Overload>& overloads, const SumRow& row) {
  const std::string start = std::string(row.name) + "(Scalar beta, Tensor input, ", end = std::string(row.parameters) + ", *, Tensor out=None)";
  overloads.push_back(either(
      deprecated<Tensor, Factor, In, Factor, In, In>(start + "Scalar alpha, " + end, [&row](Factor beta, In input, Factor alpha, In a, In b) {
        return row.op(input, a, b, beta, alpha);
      }),
      deprecated<Tensor&, Factor, In, Factor, In, In, Tensor&>("", [&row](Factor beta, In input, Factor alpha, In a, In b, Tensor& out) -> Tensor& {
        return row.out(input, a, b, beta, alpha, out);
      })));
  overloads.push_back(either(
      deprecated<Tensor, Factor, In, In, In>(start + end, [&row](Factor beta, In input, In a, In b) { return row.op(input, a, b, beta, 1); }),
      deprecated<Tensor&, Factor, In, In, In, Tensor&>("", [&row](Factor beta, In input, In a, In b, Tensor& out) -> Tensor& {
        return row.out(input, a, b, beta, 1, out);
      })));
}

void add_deprecated_inplace(std::vector<Overload>& overloads, const SumRow& row) {
  const std::string name = std::string(row.name) + "_", end = std::string(row.parameters) + ")";
  if (name == "addmv_") {
    overloads.push_back(deprecated<Tensor&, Factor, Tensor&, Factor, In, In>(
        name + "(Scalar beta, Tensor input, Scalar alpha, " + end,
        [&row](Factor beta, Tensor& self, Factor alpha, In a, In b) -> Tensor& { return row.inplace(self, a, b, beta, alpha); }));
    overloads.push_back(deprecated<Tensor&, Factor, Tensor&, In, In>(
        name + "(Scalar beta, Tensor input, " + end,
        [&row](Factor beta, Tensor& self, In a, In b) -> Tensor& { return row.inplace(self, a, b, beta, 1); }));
  } else {
    overloads.push_back(deprecated<Tensor&, Tensor&, Factor, Factor, In, In>(
        name + "(Tensor input, Scalar beta, Scalar alpha, " + end,
        [&row](Tensor& self, Factor beta, Factor alpha, In a, In b) -> Tensor& { return row.inplace(self, a, b, beta, alpha); }));
    overloads.push_back(deprecated<Tensor&, Tensor&, Factor, In, In>(
        name + "(Tensor input, Scalar beta, " + end,
        [&row](Tensor& self, Factor beta, In a, In b) -> Tensor& { return row.inplace(self, a, b, beta, 1); }));
  }
}

}  // namespace

void bind_matmul(PyObject* module) {
  for (const ProductRow& row : kProducts)
    bind(module, row.name,
         {overload(std::string(row.name) + "(" + row.parameters + ", *, Tensor out=None)", row.op, row.out)});
  for (const SumRow& row : kSums) {
    const std::string name = row.name;
    const std::string parameters = "(Tensor input, " + std::string(row.parameters) + ", *, Scalar beta=1, Scalar alpha=1";
    std::vector<Overload> functional = {overload(name + parameters + ", Tensor out=None)", row.op, row.out)};
    add_plain_lane(functional[0], row);
    add_deprecated(functional, row);
    bind(module, row.name, std::move(functional));
    std::vector<Overload> inplace = {overload(name + "_" + parameters + ")", row.inplace)};
    add_deprecated_inplace(inplace, row);
    bind(module, (name + "_").c_str(), std::move(inplace), (name == "addmv" ? "torch." : "torch.Tensor.") + name + "_");
  }
  bind(module, "matmul", {overload("matmul(Tensor input, Tensor other, *, Tensor out=None)", ops::matmul, ops::matmul_out)});
  // Three plain tensors skip the parser; everything else is the second signature.
  bind(module, "linear",
       {overload("linear(Tensor input, Tensor weight, Tensor bias)", linear_with_bias),
        overload("linear(Tensor input, Tensor weight, Tensor? bias=None, *, Tensor out=None)", ops::linear, ops::linear_out)},
       "torch.nn.functional.linear");
  bind(module, "_linear_activation",
       {overload("_linear_activation(Tensor input, Tensor weight, Tensor? bias, std::string_view activation)",
                 ops::linear_activation)},
       "tensorops.nn.functional._linear_activation");
}

}  // namespace tensorops::python
