// torch.nn.functional's max_unpool2d works out output_size in Python, and so does ours; the rest is bound as it is.
#include "ops/pooling.h"

#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {

void bind_pooling(PyObject* module) {
  bind(module, "max_pool2d",
       {overload("max_pool2d(Tensor input, IntArrayRef[2] kernel_size, IntArrayRef[2] stride=None, "
                 "IntArrayRef[2] padding=0, IntArrayRef[2] dilation=1, bool ceil_mode=False)",
                 ops::max_pool2d)});
  bind(module, "max_pool2d_with_indices",
       {overload("max_pool2d_with_indices(Tensor input, IntArrayRef[2] kernel_size, IntArrayRef[2] stride=None, "
                 "IntArrayRef[2] padding=0, IntArrayRef[2] dilation=1, bool ceil_mode=False)",
                 ops::max_pool2d_with_indices)},
       "torch.nn.functional.max_pool2d_with_indices");
  bind(module, "max_unpool2d",
       {overload("max_unpool2d(Tensor input, Tensor indices, SymIntArrayRef[2] output_size)", ops::max_unpool2d)},
       "torch._C._nn.max_unpool2d");
  bind(module, "avg_pool2d",
       {overload("avg_pool2d(Tensor input, IntArrayRef[2] kernel_size, IntArrayRef[2] stride=None, "
                 "IntArrayRef[2] padding=0, bool ceil_mode=False, bool count_include_pad=True, "
                 "int64_t? divisor_override=None, *, Tensor out=None)",
                 ops::avg_pool2d, ops::avg_pool2d_out)},
       "torch.nn.functional.avg_pool2d");
}

}  // namespace tensorops::python
