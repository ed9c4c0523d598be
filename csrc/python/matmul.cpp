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
    bind(module, row.name, std::move(functional));
    bind(module, (name + "_").c_str(), {overload(name + "_" + parameters + ")", row.inplace)},
         "torch.Tensor." + name + "_");
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
