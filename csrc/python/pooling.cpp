#include "python/families.h"

namespace tensorops::python {

void bind_pooling(PyObject* module) {}

}  // namespace tensorops::python
