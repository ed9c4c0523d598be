#include "python/fallback.h"

#include <pybind11/pybind11.h>

namespace tensorops::python {

PyObject* call_torch(const std::string& name, const std::string& torch_path, PyObject* args, PyObject* kwargs) {
  namespace py = pybind11;
  py::object record = py::module_::import("tensorops._fallback").attr("call");
  py::dict keywords = kwargs == nullptr ? py::dict() : py::reinterpret_borrow<py::dict>(kwargs);
  return record(name, torch_path, py::reinterpret_borrow<py::tuple>(args), keywords).release().ptr();
}

}  // namespace tensorops::python
