// Registers a kernel that is generic over the elementwise rows: one template instance per number of tensors and scalars,
// shared by all rows with that signature, instead of one per row.
#pragma once

#include <torch/library.h>

#include "ops/elementwise.h"

namespace tensorops {

template <class T, size_t>
using Repeat = T;

template <class Make>
void for_arity(const ElementwiseRow& row, Make make) {
  const auto with_tensors = [&](auto tensors) {
    switch (row.scalars) {
      case 0: return make(tensors, std::make_index_sequence<0>());
      case 1: return make(tensors, std::make_index_sequence<1>());
      case 2: return make(tensors, std::make_index_sequence<2>());
      default: return make(tensors, std::make_index_sequence<3>());
    }
  };
  switch (row.tensors) {
    case 1: return with_tensors(std::make_index_sequence<1>());
    case 2: return with_tensors(std::make_index_sequence<2>());
    default: return with_tensors(std::make_index_sequence<3>());
  }
}

template <class T, class S>
struct ElementwiseSignature;
template <size_t First, size_t... T, size_t... S>
struct ElementwiseSignature<std::index_sequence<First, T...>, std::index_sequence<S...>> {
  using Functional = at::Tensor(const at::Tensor&, Repeat<const at::Tensor&, T>..., Repeat<const c10::Scalar&, S>...);
  using Inplace = at::Tensor&(at::Tensor&, Repeat<const at::Tensor&, T>..., Repeat<const c10::Scalar&, S>...);
  using Out =
      at::Tensor&(const at::Tensor&, Repeat<const at::Tensor&, T>..., Repeat<const c10::Scalar&, S>..., at::Tensor&);

  // f(op, inputs, scalars) -> Tensor
  template <class F>
  static auto functional(Elementwise op, F f) {
    return [op, f](const at::Tensor& a, Repeat<const at::Tensor&, T>... t, Repeat<const c10::Scalar&, S>... s) -> at::Tensor {
      return f(op, Inputs{{&a, &t...}, 1 + sizeof...(T)}, Scalars{{s...}, sizeof...(S)});
    };
  }
  // f(op, inputs, scalars, out), with out also the first input
  template <class F>
  static auto inplace(Elementwise op, F f) {
    return [op, f](at::Tensor& a, Repeat<const at::Tensor&, T>... t, Repeat<const c10::Scalar&, S>... s) -> at::Tensor& {
      f(op, Inputs{{&a, &t...}, 1 + sizeof...(T)}, Scalars{{s...}, sizeof...(S)}, a);
      return a;
    };
  }
  // f(op, inputs, scalars, out)
  template <class F>
  static auto out(Elementwise op, F f) {
    return [op, f](const at::Tensor& a, Repeat<const at::Tensor&, T>... t, Repeat<const c10::Scalar&, S>... s,
                   at::Tensor& out) -> at::Tensor& {
      f(op, Inputs{{&a, &t...}, 1 + sizeof...(T)}, Scalars{{s...}, sizeof...(S)}, out);
      return out;
    };
  }
};

// Whether torch has name_ and name.out for this row.
inline bool has_inplace(const ElementwiseRow& row) {
  const bool test = row.op == Elementwise::isnan || row.op == Elementwise::isinf || row.op == Elementwise::isfinite;
  return !row.backward && !test && row.op != Elementwise::where;
}

// Registers the three forms of every row under the library's dispatch key; the functional form of the rows for which
// `passes` holds has nothing to do there.
template <class F, class I, class O>
void impl_elementwise(torch::Library& library, F functional, I inplace, O out, bool (*passes)(const ElementwiseRow&) = nullptr) {
  for (const ElementwiseRow& row : elementwise_rows()) {
    if (!is_registered(row)) continue;
    for_arity(row, [&](auto tensors, auto scalars) {
      using Signature = ElementwiseSignature<decltype(tensors), decltype(scalars)>;
      const std::string name = row.name;
      if (passes != nullptr && passes(row)) library.impl(name.c_str(), torch::CppFunction::makeFallthrough());
      else library.impl(name.c_str(), Signature::functional(row.op, functional));
      if (has_inplace(row)) library.impl((name + "_").c_str(), Signature::inplace(row.op, inplace));
      library.impl((name + ".out").c_str(), Signature::out(row.op, out));
    });
  }
}

}  // namespace tensorops
