#include <string>

#include "ops/elementwise.h"
#include "ops/arity.h"
#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {

void bind_elementwise(PyObject* module) {}

}  // namespace tensorops::python
