#include "ops/reduction.h"

#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {

void bind_reduction(PyObject* module) {
  bind(module, "sum",
       {overload("sum(Tensor input, *, ScalarType dtype=None)",
                 +[](const at::Tensor& input, ops::Dtype dtype) { return ops::sum_dims(input, {}, false, dtype); }),
        overload("sum(Tensor input, IntArrayRef[1]? dim, bool keepdim=False, *, ScalarType dtype=None, Tensor out=None)",
                 ops::sum_dims, ops::sum_out)});
}

}  // namespace tensorops::python
