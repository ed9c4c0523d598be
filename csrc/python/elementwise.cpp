// The elementwise functions' Python signatures, made from the table's rows.
#include <string>
#include <unordered_set>

#include "ops/arity.h"
#include "ops/elementwise.h"
#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {
namespace {

using at::Tensor;
using c10::Scalar;

std::string torch_path(const std::string& name) {
  static const std::unordered_set<std::string> in_functional = {
      "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish",
      "hardsigmoid", "logsigmoid", "tanhshrink", "elu_", "leaky_relu_", "hardtanh_"};
  return (in_functional.count(name) ? "torch.nn.functional." : "torch.") + name;
}

// Whether torch's function has out=.
bool has_out(const std::string& name) {
  static const std::unordered_set<std::string> without = {"relu",  "selu",  "softsign", "tanhshrink",
                                                          "isnan", "isinf", "isfinite"};
  return without.count(name) == 0;
}

std::string with_out(const std::string& parameters) {
  return "(" + parameters + (parameters.find('*') == std::string::npos ? ", *" : "") + ", Tensor out=None)";
}

template <class R, class... A, class F>
Overload overload_from(std::string signature, F f) {
  return overload_of<R, A...>(std::move(signature), std::make_shared<F>(std::move(f)));
}

// A row called with its tensors and scalars; one instance per number of either.
template <class T, class S>
struct RowCalls;
template <size_t... T, size_t... S>
struct RowCalls<std::index_sequence<T...>, std::index_sequence<S...>> {
  static Overload functional(const std::string& name, const std::string& parameters, Elementwise op) {
    const bool out = has_out(name);
    const std::string signature = name + (out ? with_out(parameters) : "(" + parameters + ")");
    Overload plain = overload_from<Tensor, Repeat<const Tensor&, T>..., Repeat<const Scalar&, S>...>(
        signature, [op](Repeat<const Tensor&, T>... t, Repeat<const Scalar&, S>... s) {
          return ops::elementwise(op, {{&t...}, sizeof...(T)}, {{s...}, sizeof...(S)});
        });
    if (!out) return plain;
    return either(std::move(plain),
                  overload_from<Tensor&, Repeat<const Tensor&, T>..., Repeat<const Scalar&, S>..., Tensor&>(
                      signature, [op](Repeat<const Tensor&, T>... t, Repeat<const Scalar&, S>... s, Tensor& out) -> Tensor& {
                        return ops::elementwise_out(op, {{&t...}, sizeof...(T)}, {{s...}, sizeof...(S)}, out);
                      }));
  }
  static Overload inplace(const std::string& name, const std::string& parameters, Elementwise op) {
    return overload_from<Tensor&, Repeat<const Tensor&, T>..., Repeat<const Scalar&, S>...>(
        name + "_(" + parameters + ")",
        [op](Repeat<const Tensor&, T>... t, Repeat<const Scalar&, S>... s) -> Tensor& {
          return ops::elementwise_inplace(op, {{&t...}, sizeof...(T)}, {{s...}, sizeof...(S)});
        });
  }
};

// add, sub, addcmul and addcdiv called with tensors alone: their scalar is 1, and the parser can be skipped.
void add_plain_lane(Overload& o, const ElementwiseRow& row, bool inplace) {
  if (row.scalars != 1 || row.tensors < 2) return;
  o.plain_tensors = row.tensors;
  o.call_plain = [op = row.op, count = row.tensors, inplace](const Tensor* const* t) {
    const Inputs inputs{{t[0], t[1], count > 2 ? t[2] : nullptr}, count};
    for (int i = 0; i < count; ++i) require_covered(*t[i]);
    return wrap_result(without_gil([&]() -> Tensor {
      return inplace ? ops::elementwise_inplace(op, inputs, {{1}, 1}) : ops::elementwise(op, inputs, {{1}, 1});
    }));
  };
}

// A row without scalars, called with numbers in some tensors' places: P is const Tensor& or const Number&.
const Tensor& tensor_of(const Tensor& t) { return t; }
const Tensor& tensor_of(const Number& n) { return n.tensor; }
template <class... P>
Overload with_numbers(const std::string& name, const std::string& parameters, Elementwise op, bool has_out = true) {
  const std::string signature = name + (has_out ? with_out(parameters) : "(" + parameters + ")");
  Overload plain = overload_from<Tensor, P...>(
      signature, [op](P... p) { return ops::elementwise(op, {{&tensor_of(p)...}, sizeof...(P)}, {}); });
  if (!has_out) return plain;
  return either(std::move(plain), overload_from<Tensor&, P..., Tensor&>(signature, [op](P... p, Tensor& out) -> Tensor& {
                  return ops::elementwise_out(op, {{&tensor_of(p)...}, sizeof...(P)}, {}, out);
                }));
}
template <class... P>
Overload with_numbers_inplace(const std::string& name, const std::string& parameters, Elementwise op) {
  return overload_from<Tensor&, P...>(name + "_(" + parameters + ")", [op](P... p) -> Tensor& {
    return ops::elementwise_inplace(op, {{&tensor_of(p)...}, sizeof...(P)}, {});
  });
}

// The call form that torch deprecates: the scalar, positional, between the first tensor and the others.
template <class... T>
Overload deprecated(const std::string& name, const std::string& parameters, Elementwise op) {
  const std::string signature = name + with_out(parameters) + "|deprecated";
  return either(overload_from<Tensor, const Tensor&, const Scalar&, T...>(
                    signature,
                    [op](const Tensor& a, const Scalar& s, T... t) {
                      return ops::elementwise(op, {{&a, &t...}, 1 + sizeof...(T)}, {{s}, 1});
                    }),
                overload_from<Tensor&, const Tensor&, const Scalar&, T..., Tensor&>(
                    signature, [op](const Tensor& a, const Scalar& s, T... t, Tensor& out) -> Tensor& {
                      return ops::elementwise_out(op, {{&a, &t...}, 1 + sizeof...(T)}, {{s}, 1}, out);
                    }));
}
template <class... T>
Overload deprecated_inplace(const std::string& name, const std::string& parameters, Elementwise op) {
  return overload_from<Tensor&, const Tensor&, const Scalar&, T...>(
      name + "_(" + parameters + ")|deprecated", [op](const Tensor& a, const Scalar& s, T... t) -> Tensor& {
        return ops::elementwise_inplace(op, {{&a, &t...}, 1 + sizeof...(T)}, {{s}, 1});
      });
}

Tensor& round_decimals_out(const Tensor& input, int64_t decimals, Tensor& out) {
  const ops::Rounding r = ops::rounding(decimals);
  return ops::elementwise_out(r.op, {{&input}, 1}, r.scale, out);
}
Tensor& round_decimals_inplace(const Tensor& input, int64_t decimals) {
  const ops::Rounding r = ops::rounding(decimals);
  return ops::elementwise_inplace(r.op, {{&input}, 1}, r.scale);
}

// torch.where(condition) alone is nonzero: torch's.
Tensor nonzero_of(const Tensor&) { throw NotCovered(); }

void bind_row(PyObject* module, const ElementwiseRow& row) {
  const std::string name = row.name;
  const Elementwise op = row.op;
  const std::string second = op == Elementwise::pow ? "exponent" : "other";
  std::string tensors = row.tensors == 1 ? "Tensor input" : "Tensor input, Tensor " + second;
  std::vector<Overload> others, inplace_others;
  if (op == Elementwise::where) {
    tensors = "Tensor condition, Tensor input, Tensor other";
    others = {with_numbers<const Tensor&, const Number&, const Tensor&>(name, "Tensor condition, Scalar input, Tensor other", op, false),
              with_numbers<const Tensor&, const Tensor&, const Number&>(name, "Tensor condition, Tensor input, Scalar other", op, false),
              with_numbers<const Tensor&, const Number&, const Number&>(name, "Tensor condition, Scalar input, Scalar other", op, false),
              overload("where(Tensor condition)", nonzero_of)};
  } else if (op == Elementwise::lerp) {
    tensors = "Tensor input, Tensor end, Tensor weight";
    const std::string numbers = "Tensor input, Tensor end, Scalar weight";
    others = {with_numbers<const Tensor&, const Tensor&, const Number&>(name, numbers, op)};
    inplace_others = {with_numbers_inplace<const Tensor&, const Tensor&, const Number&>(name, numbers, op)};
  } else if (row.tensors == 3) {
    tensors = "Tensor input, Tensor tensor1, Tensor tensor2";
    const std::string old = "Tensor input, Scalar value, Tensor tensor1, Tensor tensor2";
    others = {deprecated<const Tensor&, const Tensor&>(name, old, op)};
    inplace_others = {deprecated_inplace<const Tensor&, const Tensor&>(name, old, op)};
  } else if (row.tensors == 2 && row.scalars == 1) {
    const std::string old = "Tensor input, Scalar alpha, Tensor other";
    others = {deprecated<const Tensor&>(name, old, op)};
    inplace_others = {deprecated_inplace<const Tensor&>(name, old, op)};
  } else if (op == Elementwise::round) {
    others = {overload("round(Tensor input, *, int64_t decimals, Tensor out=None)", ops::round_decimals, round_decimals_out)};
    inplace_others = {overload("round_(Tensor input, *, int64_t decimals)", round_decimals_inplace)};
  } else if (row.tensors == 2 && op != Elementwise::mul && op != Elementwise::floor_divide) {
    // Of those two, and of add and sub, torch's parser takes numbers for any tensor.
    const std::string number_first = "Scalar input, Tensor " + second, number_second = "Tensor input, Scalar " + second;
    if (ops::takes_second_number(row)) {
      others.push_back(with_numbers<const Tensor&, const Number&>(name, number_second, op));
      inplace_others = {with_numbers_inplace<const Tensor&, const Number&>(name, number_second, op)};
    }
    if (ops::takes_first_number(row))
      others.push_back(with_numbers<const Number&, const Tensor&>(name, number_first, op, op != Elementwise::remainder));
  }
  for_arity(row, [&](auto tensor_count, auto scalar_count) {
    using Calls = RowCalls<decltype(tensor_count), decltype(scalar_count)>;
    std::vector<Overload> overloads = {Calls::functional(name, tensors + row.scalar_schema, op)};
    add_plain_lane(overloads[0], row, /*inplace=*/false);
    overloads.insert(overloads.end(), others.begin(), others.end());
    bind(module, row.name, std::move(overloads), torch_path(name));
    if (!has_inplace(row)) return;
    overloads = {Calls::inplace(name, tensors + row.scalar_schema, op)};
    add_plain_lane(overloads[0], row, /*inplace=*/true);
    overloads.insert(overloads.end(), inplace_others.begin(), inplace_others.end());
    bind(module, (name + "_").c_str(), std::move(overloads), torch_path(name + "_"));
  });
}

using Mode = std::optional<std::string_view>;
using Bound = const std::optional<Scalar>&;
using TensorBound = const std::optional<Tensor>&;

Tensor div(const Tensor& a, const Tensor& b) { return ops::div(a, b); }
Tensor& div_out(const Tensor& a, const Tensor& b, Tensor& out) {
  return ops::elementwise_out(Elementwise::_div_true, {{&a, &b}, 2}, {}, out);
}
Tensor& div_inplace(const Tensor& a, const Tensor& b) {
  return ops::elementwise_inplace(Elementwise::_div_true, {{&a, &b}, 2}, {});
}
Tensor div_mode(const Tensor& a, const Tensor& b, Mode mode) { return ops::elementwise(ops::division(mode), a, b); }
Tensor& div_mode_out(const Tensor& a, const Tensor& b, Mode mode, Tensor& out) {
  return ops::elementwise_out(ops::division(mode), {{&a, &b}, 2}, {}, out);
}
Tensor& div_mode_inplace(const Tensor& a, const Tensor& b, Mode mode) {
  return ops::elementwise_inplace(ops::division(mode), {{&a, &b}, 2}, {});
}
Tensor& clamp_out(const Tensor& input, Bound min, Bound max, Tensor& out) {
  const ops::Clamp c = ops::clamp_arguments(input, min, max);
  return ops::elementwise_out(Elementwise::_clamp, {{&c.input}, 1}, c.bounds, out);
}
Tensor& clamp_inplace(const Tensor& input, Bound min, Bound max) {
  const ops::Clamp c = ops::clamp_arguments(input, min, max);
  TORCH_CHECK(c.input.is_same(input), "result type ", c.input.scalar_type(), " can't be cast to the desired output type ",
              input.scalar_type());
  return ops::elementwise_inplace(Elementwise::_clamp, {{&c.input}, 1}, c.bounds);
}
Tensor& clamp_tensor_out(const Tensor& a, TensorBound min, TensorBound max, Tensor& out) {
  if (min && max) return ops::elementwise_out(Elementwise::_clamp_between, {{&a, &*min, &*max}, 3}, {}, out);
  TORCH_CHECK(min || max, "torch.clamp: At least one of 'min' or 'max' must not be None");
  return min ? ops::elementwise_out(Elementwise::_clamp_min, {{&a, &*min}, 2}, {}, out)
             : ops::elementwise_out(Elementwise::_clamp_max, {{&a, &*max}, 2}, {}, out);
}
Tensor& clamp_tensor_inplace(const Tensor& a, TensorBound min, TensorBound max) {
  if (min && max) return ops::elementwise_inplace(Elementwise::_clamp_between, {{&a, &*min, &*max}, 3}, {});
  TORCH_CHECK(min || max, "torch.clamp: At least one of 'min' or 'max' must not be None");
  return min ? ops::elementwise_inplace(Elementwise::_clamp_min, {{&a, &*min}, 2}, {})
             : ops::elementwise_inplace(Elementwise::_clamp_max, {{&a, &*max}, 2}, {});
}
// On the CPU torch's result is contiguous whatever the input's layout.
Tensor contiguous_on_cpu(const Tensor& a) { return a.is_cpu() ? a.contiguous() : a; }
Tensor logsigmoid(const Tensor& a) { return ops::elementwise(Elementwise::logsigmoid, contiguous_on_cpu(a)); }
Tensor& logsigmoid_out(const Tensor& a, Tensor& out) {
  const Tensor input = contiguous_on_cpu(a);
  return ops::elementwise_out(Elementwise::logsigmoid, {{&input}, 1}, {}, out);
}
Tensor& gelu_out(const Tensor& a, std::string_view approximate, Tensor& out) {
  return ops::elementwise_out(ops::gelu_row(approximate), {{&a}, 1}, {}, out);
}

}  // namespace

void bind_elementwise(PyObject* module) {
  // Name and domain of each row, for vmap rules and docstrings.
  constexpr const char* kDomains[] = {"FLOATING", "REAL", "ACTIVATION", "PREDICATE"};
  std::vector<std::pair<const char*, const char*>> domains;
  for (const ElementwiseRow& row : elementwise_rows())
    if (!row.backward || row.saved != Saved::none) domains.emplace_back(row.name, kDomains[static_cast<int>(row.domain)]);
  set_dict(module, "elementwise_ops", domains);

  for (const ElementwiseRow& row : elementwise_rows())
    if (!row.backward && row.name[0] != '_' && row.op != Elementwise::logsigmoid) bind_row(module, row);

  bind(module, "div",
       {overload("div(Tensor input, Tensor other, *, Tensor out=None)", div, div_out),
        overload("div(Tensor input, Tensor other, *, std::string_view? rounding_mode, Tensor out=None)", div_mode, div_mode_out)});
  bind(module, "div_",
       {overload("div_(Tensor input, Tensor other)", div_inplace),
        overload("div_(Tensor input, Tensor other, *, std::string_view? rounding_mode)", div_mode_inplace)},
       "torch.Tensor.div_");
  bind(module, "gelu",
       {overload("gelu(Tensor input, *, std::string_view approximate=\"none\", Tensor out=None)", ops::gelu, gelu_out)},
       torch_path("gelu"));
  bind(module, "clamp",
       {overload("clamp(Tensor input, Tensor? min=None, Tensor? max=None, *, Tensor out=None)", ops::clamp_tensor, clamp_tensor_out),
        overload("clamp(Tensor input, Scalar? min=None, Scalar? max=None, *, Tensor out=None)", ops::clamp, clamp_out)});
  bind(module, "clamp_",
       {overload("clamp_(Tensor input, Tensor? min=None, Tensor? max=None)", clamp_tensor_inplace),
        overload("clamp_(Tensor input, Scalar? min=None, Scalar? max=None)", clamp_inplace)});
  bind(module, "prelu", {overload("prelu(Tensor input, Tensor weight)", ops::prelu)});
  bind(module, "logsigmoid", {overload("logsigmoid(Tensor input, *, Tensor out=None)", logsigmoid, logsigmoid_out)},
       torch_path("logsigmoid"));
}

}  // namespace tensorops::python
