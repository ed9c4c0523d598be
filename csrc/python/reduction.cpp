#include "python/families.h"

namespace tensorops::python {

void bind_reduction(PyObject* module) {}

}  // namespace tensorops::python
