#include "python/families.h"

namespace tensorops::python {

void bind_convolution(PyObject* module) {}

}  // namespace tensorops::python
