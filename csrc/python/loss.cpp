#include "python/families.h"

namespace tensorops::python {

void bind_loss(PyObject* module) {}

}  // namespace tensorops::python
