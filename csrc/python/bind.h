// How a Python call becomes a call of an op. Torch's own PythonArgParser reads the arguments, so names, defaults,
// conversions, error messages and __torch_function__ are torch's; a call with nothing but plain tensors skips it.
//
//   bind(module, "mm", {overload("mm(Tensor input, Tensor mat2, *, Tensor out=None)", ops::mm, ops::mm_out)});
//
// The parameter types of the C++ function say how each argument is read. An argument that no kernel of ours covers
// (complex, sparse, quantized, another device) sends the call to the torch function at `torch_path`; it is counted.
#pragma once

// python_arg_parser.h formats messages with fmt, whose compiled half torch keeps to itself.
#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY 1
#endif
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/utils/wrap_outputs.h>
#include <torch/csrc/utils/python_arg_parser.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/elementwise.h"
#include "ops/handle.h"
#include "ops/scalar_type.h"

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
#define TENSOROPS_READ(type, expression)                                       \
  template <>                                                                  \
  struct Read<type> {                                                          \
    static auto from(torch::PythonArgs& r, int i) { return r.expression; }     \
  };
TENSOROPS_READ(at::Tensor, tensor(i))
TENSOROPS_READ(std::optional<at::Tensor>, optionalTensor(i))
TENSOROPS_READ(c10::Scalar, scalar(i))
template <>
struct Read<Number> {
  static Number from(torch::PythonArgs& r, int i) { return {wrapped_number(r.scalar(i))}; }
};
TENSOROPS_READ(std::optional<c10::Scalar>, scalarOptional(i))
TENSOROPS_READ(int64_t, toInt64(i))
TENSOROPS_READ(c10::SymInt, toSymInt(i))
TENSOROPS_READ(std::optional<int64_t>, toInt64Optional(i))
TENSOROPS_READ(double, toDouble(i))
TENSOROPS_READ(std::optional<double>, toDoubleOptional(i))
TENSOROPS_READ(bool, toBool(i))
TENSOROPS_READ(c10::IntArrayRef, intlist(i))
TENSOROPS_READ(c10::SymIntArrayRef, symintlist(i))
TENSOROPS_READ(at::OptionalIntArrayRef, intlistOptional(i))
TENSOROPS_READ(std::optional<c10::ScalarType>, scalartypeOptional(i))
TENSOROPS_READ(std::string_view, stringView(i))
TENSOROPS_READ(std::optional<std::string_view>, stringViewOptional(i))
#undef TENSOROPS_READ
// Two output tensors: `TensorList[2] out`.
template <>
struct Read<std::array<at::Tensor, 2>> {
  static auto from(torch::PythonArgs& r, int i) { return r.tensorlist_n<2>(i); }
};

template <class T>
using Bare = std::remove_cv_t<std::remove_reference_t<T>>;

template <class F>
auto without_gil(F f) {
  pybind11::gil_scoped_release release;
  return f();
}

template <class R>
PyObject* wrap_result(R&& result) {
  return torch::autograd::utils::wrap(std::forward<R>(result));
}

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
inline Overload either(Overload plain, Overload with_out) {
  plain.call = [a = std::move(plain.call), b = std::move(with_out.call)](torch::PythonArgs& r) {
    const int last = static_cast<int>(r.signature.params.size()) - 1;
    return r.isNone(last) ? a(r) : b(r);
  };
  return plain;
}
template <class Functional, class Out>
Overload overload(const std::string& signature, const Functional& functional, const Out& out) {
  return either(overload(signature, functional), overload(signature, out));
}

}  // namespace tensorops::python
