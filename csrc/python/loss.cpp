// The functions of torch.nn.functional take `reduction` as a string and two legacy flags; Python resolves them, and what
// is bound here takes the number, as torch._C._nn does.
#include "ops/loss.h"

#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {

void bind_loss(PyObject* module) {
  bind(module, "nll_loss",
       {overload("nll_loss(Tensor input, Tensor target, Tensor? weight=None, int64_t reduction=1, "
                 "SymInt ignore_index=-100)",
                 ops::nll_loss)},
       "torch._C._nn.nll_loss_nd");
  bind(module, "cross_entropy",
       {overload("cross_entropy(Tensor input, Tensor target, Tensor? weight=None, int64_t reduction=1, "
                 "SymInt ignore_index=-100, double label_smoothing=0.0)",
                 ops::cross_entropy)},
       "torch._C._nn.cross_entropy_loss");
  bind(module, "mse_loss",
       {overload("mse_loss(Tensor input, Tensor target, int64_t reduction=1)", ops::mse_loss)}, "torch._C._nn.mse_loss");
  bind(module, "binary_cross_entropy",
       {overload("binary_cross_entropy(Tensor input, Tensor target, Tensor? weight=None, int64_t reduction=1)",
                 ops::binary_cross_entropy)},
       "torch._C._nn.binary_cross_entropy");
}

}  // namespace tensorops::python
