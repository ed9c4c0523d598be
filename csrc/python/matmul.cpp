#include "python/families.h"

namespace tensorops::python {

void bind_matmul(PyObject* module) {}

}  // namespace tensorops::python
