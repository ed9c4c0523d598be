// Each family binds its functions into the module.
#pragma once

#include <torch/csrc/python_headers.h>

namespace tensorops::python {

void bind_elementwise(PyObject* module);
void bind_matmul(PyObject* module);
void bind_convolution(PyObject* module);
void bind_pooling(PyObject* module);
void bind_reduction(PyObject* module);
void bind_loss(PyObject* module);

}  // namespace tensorops::python
