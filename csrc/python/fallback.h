// Torch's own op, for the calls that no kernel of ours covers: counted, warned of once per op, refused in strict mode.
#pragma once

#include <torch/csrc/python_headers.h>

#include <string>

namespace tensorops::python {

// Calls the function at `torch_path`, say "torch.nn.functional.softplus".
PyObject* call_torch(const std::string& name, const std::string& torch_path, PyObject* args, PyObject* kwargs);

}  // namespace tensorops::python
