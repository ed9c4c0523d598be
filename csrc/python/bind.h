// How a Python call becomes a call of an op. Torch's own PythonArgParser reads the arguments, so names, defaults,
// conversions, error messages and __torch_function__ are torch's; a call with nothing but plain tensors skips it.
//
//   bind(module, "mm", {overload("mm(Tensor input, Tensor mat2, *, Tensor out=None)", ops::mm, ops::mm_out)});
//
// The parameter types of the C++ function say how each argument is read. An argument that no kernel of ours covers
// (complex, sparse, quantized, another device) sends the call to the torch function at `torch_path`; it is counted.
#pragma once

// Torch's parser and pybind11 are bind.cpp's alone: a family's file that includes them takes twice as long to compile.
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/python_headers.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/elementwise.h"
#include "ops/handle.h"
#include "ops/scalar_type.h"

namespace torch {
struct PythonArgs;
}

namespace tensorops::python {

// Thrown through by readers to leave the fast lane for torch's op.
struct NotCovered {};

using ops::wrapped_number;

// One Python signature and what runs it.
struct Overload {
  std::string signature;
  std::function<PyObject*(torch::PythonArgs&)> call;
  // Set when all parameters before the keyword-only ones are required tensors: the parser can be skipped.
  int plain_tensors = 0;
  std::function<PyObject*(const at::Tensor* const*)> call_plain;
};

// torch_path: the torch function that stands in for what we do not cover, "torch.mm" by default.
// structseq: name in torch.return_types of the result's type, or empty.
void bind(PyObject* module, const char* name, std::vector<Overload> overloads, std::string torch_path = "",
          std::string structseq = "");

// module.name = {key: value, …}
void set_dict(PyObject* module, const char* name, const std::vector<std::pair<const char*, const char*>>& items);

// Refuses what our kernels do not cover.
inline void require_covered(const at::Tensor& t) {
  if (!t.defined()) return;
  const auto device = t.device().type();
  const bool covered = t.layout() == c10::kStrided && covered_dtype(t.scalar_type()) &&
                       !t.is_nested() && !t.is_conj() && !t.is_neg() &&
                       (device == c10::kCPU || device == c10::kCUDA || device == c10::kMeta);
  if (!covered) throw NotCovered();
}
inline void require_covered(const std::optional<at::Tensor>& t) {
  if (t) require_covered(*t);
}
inline void require_covered(std::optional<c10::ScalarType> dtype) {
  if (dtype && !covered_dtype(*dtype)) throw NotCovered();
}
inline void require_covered(const c10::Scalar& s) {
  if (s.isComplex()) throw NotCovered();
}
template <class T>
void require_covered(const T&) {}

// A Python number where the op has a tensor: `Scalar other` in the signature, a wrapped 0-dim tensor in the call.
struct Number {
  at::Tensor tensor;
};
inline void require_covered(const Number& n) { require_covered(n.tensor); }

// Read<T>::from reads parameter i as a T, or as something that converts to T and owns what T borrows.
template <class T>
struct Read;
// The C++ parameter, what is held while the op runs, how torch's parser reads it. The parser's readers are long inline functions:
// they are compiled once, in bind.cpp.
#define TENSOROPS_READERS(_)                                                                       \
  _(at::Tensor, at::Tensor, tensor(i))                                                             \
  _(std::optional<at::Tensor>, std::optional<at::Tensor>, optionalTensor(i))                       \
  _(c10::Scalar, c10::Scalar, scalar(i))                                                           \
  _(std::optional<c10::Scalar>, std::optional<c10::Scalar>, scalarOptional(i))                     \
  _(int64_t, int64_t, toInt64(i))                                                                  \
  _(c10::SymInt, c10::SymInt, toSymInt(i))                                                         \
  _(std::optional<int64_t>, std::optional<int64_t>, toInt64Optional(i))                            \
  _(double, double, toDouble(i))                                                                   \
  _(std::optional<double>, std::optional<double>, toDoubleOptional(i))                             \
  _(bool, bool, toBool(i))                                                                         \
  _(c10::IntArrayRef, std::vector<int64_t>, intlist(i))                                            \
  _(c10::SymIntArrayRef, std::vector<c10::SymInt>, symintlist(i))                                  \
  _(at::OptionalIntArrayRef, c10::OptionalArray<int64_t>, intlistOptional(i))                      \
  _(std::optional<c10::ScalarType>, std::optional<c10::ScalarType>, scalartypeOptional(i))         \
  _(std::string_view, std::string_view, stringView(i))                                             \
  _(std::optional<std::string_view>, std::optional<std::string_view>, stringViewOptional(i))       \
  _(TensorPair, TensorPair, tensorlist_n<2>(i))
// Two output tensors: `TensorList[2] out`.
using TensorPair = std::array<at::Tensor, 2>;
#define TENSOROPS_READ(type, held, expression)        \
  template <>                                         \
  struct Read<type> {                                 \
    static held from(torch::PythonArgs& r, int i);    \
  };
TENSOROPS_READERS(TENSOROPS_READ)
#undef TENSOROPS_READ
template <>
struct Read<Number> {
  static Number from(torch::PythonArgs& r, int i) { return {wrapped_number(Read<c10::Scalar>::from(r, i))}; }
};

template <class T>
using Bare = std::remove_cv_t<std::remove_reference_t<T>>;

// What follows its construction runs without the interpreter's lock.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};
template <class F>
auto without_gil(F f) {
  const WithoutGil released;
  return f();
}

PyObject* wrap_result(const at::Tensor& result);
PyObject* wrap_result(const std::tuple<at::Tensor, at::Tensor>& results);

template <class R, class... A, class F, size_t... I>
PyObject* call_parsed(torch::PythonArgs& r, const F& f, std::index_sequence<I...>) {
  auto arguments = std::make_tuple(Read<Bare<A>>::from(r, static_cast<int>(I))...);
  (require_covered(std::get<I>(arguments)), ...);
  return wrap_result(without_gil([&] { return f(static_cast<A>(std::get<I>(arguments))...); }));
}

template <class R, class... A>
constexpr bool kAllTensors = (std::is_same_v<A, const at::Tensor&> && ...);

template <class R, class... A, class F, size_t... I>
PyObject* call_plain(const at::Tensor* const* t, const F& f, std::index_sequence<I...>) {
  (require_covered(*t[I]), ...);
  return wrap_result(without_gil([&]() -> R { return f(*t[I]...); }));
}

// A signature without out=. `f` is an Op or any callable with the given C++ signature.
template <class R, class... A, class F>
Overload overload_of(std::string signature, F f) {
  Overload o;
  o.signature = std::move(signature);
  o.call = [f](torch::PythonArgs& r) {
    return call_parsed<R, A...>(r, *f, std::index_sequence_for<A...>());
  };
  if constexpr (kAllTensors<R, A...>) {
    o.plain_tensors = sizeof...(A);
    o.call_plain = [f](const at::Tensor* const* t) {
      return call_plain<R, A...>(t, *f, std::index_sequence_for<A...>());
    };
  }
  return o;
}

template <class R, class... A>
Overload overload(std::string signature, const Op<R(A...)>& op) {
  return overload_of<R, A...>(std::move(signature), &op);
}
template <class R, class... A>
Overload overload(std::string signature, R (*f)(A...)) {
  return overload_of<R, A...>(std::move(signature), std::make_shared<R (*)(A...)>(f));
}

// One signature that ends in `Tensor out=None`: `plain` without it, `with_out` with it as the last argument.
Overload either(Overload plain, Overload with_out);
template <class Functional, class Out>
Overload overload(const std::string& signature, const Functional& functional, const Out& out) {
  return either(overload(signature, functional), overload(signature, out));
}

}  // namespace tensorops::python
