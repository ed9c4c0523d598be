#include "python/bind.h"

// python_arg_parser.h formats messages with fmt, whose compiled half torch keeps to itself.
#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY 1
#endif
#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/utils/wrap_outputs.h>
#include <torch/csrc/utils/python_arg_parser.h>

#include "python/fallback.h"

namespace tensorops::python {

#define TENSOROPS_READ(type, held, expression) \
  held Read<type>::from(torch::PythonArgs& r, int i) { return r.expression; }
TENSOROPS_READERS(TENSOROPS_READ)
#undef TENSOROPS_READ

PyObject* wrap_result(const at::Tensor& result) { return torch::autograd::utils::wrap(result); }
PyObject* wrap_result(const std::tuple<at::Tensor, at::Tensor>& results) { return torch::autograd::utils::wrap(results); }

Overload either(Overload plain, Overload with_out) {
  plain.call = [a = std::move(plain.call), b = std::move(with_out.call)](torch::PythonArgs& r) {
    const int last = static_cast<int>(r.signature.params.size()) - 1;
    return r.isNone(last) ? a(r) : b(r);
  };
  return plain;
}

void set_dict(PyObject* module, const char* name, const std::vector<std::pair<const char*, const char*>>& items) {
  pybind11::dict dict;
  for (const auto& [key, value] : items) dict[key] = value;
  pybind11::reinterpret_borrow<pybind11::module_>(module).attr(name) = dict;
}

namespace {

constexpr int kMaxArguments = 24;

// Everything one bound function needs; lives as long as the process.
struct Entry {
  std::string name;
  std::string torch_path;
  std::string structseq;
  std::vector<Overload> overloads;
  std::unique_ptr<torch::PythonArgParser> parser;
  PyMethodDef method;
  PyObject* function = nullptr;
  PyObject* result_type = nullptr;  // of that name, once it was needed
};

// The __self__ of a bound function: it carries the Entry to the one C entry point, and makes the function picklable.
struct EntryObject {
  PyObject_HEAD
  Entry* entry;
};

Entry& entry_of(PyObject* self) { return *reinterpret_cast<EntryObject*>(self)->entry; }

PyObject* entry_getattro(PyObject* self, PyObject* name) {
  if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, entry_of(self).name.c_str()) == 0)
    return Py_NewRef(entry_of(self).function);
  return PyObject_GenericGetAttr(self, name);
}

PyObject* entry_reduce(PyObject* self, PyObject*) {
  PyObject* module = PyImport_ImportModule("tensorops._C");
  if (module == nullptr) return nullptr;
  PyObject* lookup = PyObject_GetAttrString(module, "_entry");
  Py_DECREF(module);
  if (lookup == nullptr) return nullptr;
  return Py_BuildValue("(N(s))", lookup, entry_of(self).name.c_str());
}

PyMethodDef entry_methods[] = {{"__reduce__", entry_reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyType_Slot entry_slots[] = {{Py_tp_getattro, reinterpret_cast<void*>(entry_getattro)},
                             {Py_tp_methods, entry_methods},
                             {0, nullptr}};
PyType_Spec entry_spec = {"tensorops._C.Entry", sizeof(EntryObject), 0, Py_TPFLAGS_DEFAULT, entry_slots};

// The values of a plain tuple in the named type that torch returns.
PyObject* as_structseq(PyObject* tuple, Entry& entry) {
  pybind11::object owned = pybind11::reinterpret_steal<pybind11::object>(tuple);
  if (entry.result_type == nullptr)
    entry.result_type =
        pybind11::object(pybind11::module_::import("torch.return_types").attr(entry.structseq.c_str())).release().ptr();
  PyObject* named = PyStructSequence_New(reinterpret_cast<PyTypeObject*>(entry.result_type));
  for (Py_ssize_t i = 0; named != nullptr && i < PyTuple_GET_SIZE(tuple); ++i)
    PyStructSequence_SET_ITEM(named, i, Py_NewRef(PyTuple_GET_ITEM(tuple, i)));
  return named;
}

PyObject* parse_and_call(Entry& entry, PyObject* args, PyObject* kwargs) {
  torch::ParsedArgs<kMaxArguments> parsed;
  auto r = entry.parser->parse(args, kwargs, parsed);
  if (r.has_torch_function())
    return torch::handle_torch_function_no_python_arg_parser(r.overloaded_args, args, kwargs, entry.name.c_str(),
                                                             entry.function, "tensorops");
  return entry.overloads[r.idx].call(r);
}

PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  HANDLE_TH_ERRORS
  Entry& entry = entry_of(self);
  pybind11::tuple packed;
  pybind11::object keywords;
  try {
    PyObject* result = nullptr;
    if (names == nullptr && entry.overloads[0].plain_tensors == count && count > 0) {
      const at::Tensor* tensors[kMaxArguments];
      bool plain = true;
      for (Py_ssize_t i = 0; i < count && plain; ++i) {
        plain = THPVariable_CheckExact(args[i]);
        if (plain) tensors[i] = &THPVariable_Unpack(args[i]);
      }
      if (plain && !at::impl::torch_function_mode_enabled()) result = entry.overloads[0].call_plain(tensors);
    }
    if (result == nullptr) {
      packed = pybind11::tuple(count);
      for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(packed.ptr(), i, Py_NewRef(args[i]));
      if (names != nullptr) {
        pybind11::dict dict;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i)
          PyDict_SetItem(dict.ptr(), PyTuple_GET_ITEM(names, i), args[count + i]);
        keywords = std::move(dict);
      }
      result = parse_and_call(entry, packed.ptr(), keywords.ptr());
    }
    if (result != nullptr && !entry.structseq.empty() && PyTuple_CheckExact(result))
      return as_structseq(result, entry);
    return result;
  } catch (const NotCovered&) {
    if (!packed || packed.size() == 0) {
      packed = pybind11::tuple(count);
      for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(packed.ptr(), i, Py_NewRef(args[i]));
    }
    return call_torch(entry.name, entry.torch_path, packed.ptr(), keywords.ptr());
  }
  END_HANDLE_TH_ERRORS
}

std::vector<Entry*>& entries() {
  static std::vector<Entry*> all;
  return all;
}

}  // namespace

void bind(PyObject* module, const char* name, std::vector<Overload> overloads, std::string torch_path,
          std::string structseq) {
  static PyObject* type = PyType_FromSpec(&entry_spec);
  auto* entry = new Entry();
  entry->name = name;
  entry->torch_path = torch_path.empty() ? std::string("torch.") + name : std::move(torch_path);
  entry->structseq = std::move(structseq);
  entry->overloads = std::move(overloads);
  std::vector<std::string> signatures;
  for (const Overload& o : entry->overloads) signatures.push_back(o.signature);
  entry->parser = std::make_unique<torch::PythonArgParser>(signatures);
  // PyCFunction's cast: METH_FASTCALL | METH_KEYWORDS functions have four parameters.
  entry->method = {entry->name.c_str(), reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)),
                   METH_FASTCALL | METH_KEYWORDS, nullptr};
  auto* self = PyObject_New(EntryObject, reinterpret_cast<PyTypeObject*>(type));
  self->entry = entry;
  pybind11::str module_name("tensorops");
  entry->function = PyCFunction_NewEx(&entry->method, reinterpret_cast<PyObject*>(self), module_name.ptr());
  Py_DECREF(self);
  if (entry->function == nullptr || PyObject_SetAttrString(module, name, entry->function) != 0)
    throw pybind11::error_already_set();
  entries().push_back(entry);
}

pybind11::object entry_named(const std::string& name) {
  for (Entry* entry : entries())
    if (entry->name == name) {
      PyObject* self = PyCFunction_GET_SELF(entry->function);
      return pybind11::reinterpret_borrow<pybind11::object>(self);
    }
  throw pybind11::key_error(name);
}

pybind11::dict bound_functions() {
  pybind11::dict paths;
  for (Entry* entry : entries()) paths[entry->name.c_str()] = entry->torch_path;
  return paths;
}

pybind11::dict signatures() {
  pybind11::dict all;
  for (Entry* entry : entries()) {
    pybind11::list own;
    for (const Overload& o : entry->overloads) own.append(o.signature);
    all[entry->name.c_str()] = own;
  }
  return all;
}

}  // namespace tensorops::python
