// The ops that torch spells differently from the table's rows: div's rounding modes, gelu's approximations, clamp's
// optional bounds, prelu's weight shape; and the overloads that take a number in a tensor's place.
#include <ATen/native/TypeProperties.h>
#include <torch/library.h>

#include <cmath>

#include "ops/arity.h"
#include "ops/elementwise.h"

namespace tensorops {
namespace ops {

Elementwise division(std::optional<std::string_view> rounding_mode) {
  if (!rounding_mode) return Elementwise::_div_true;
  if (*rounding_mode == "trunc") return Elementwise::_div_trunc;
  if (*rounding_mode == "floor") return Elementwise::_div_floor;
  TORCH_CHECK(false, "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '", *rounding_mode, "'");
}

bool takes_first_number(const ElementwiseRow& row) {
  switch (row.op) {
    case Elementwise::add:
    case Elementwise::sub:
    case Elementwise::mul:
    case Elementwise::floor_divide:
    case Elementwise::pow:
    case Elementwise::remainder:
      return true;
    default:
      return false;
  }
}
bool takes_second_number(const ElementwiseRow& row) {
  switch (row.op) {
    case Elementwise::fmod:
    case Elementwise::eq:
    case Elementwise::ne:
    case Elementwise::lt:
    case Elementwise::le:
    case Elementwise::gt:
    case Elementwise::ge:
      return true;
    default:
      return takes_first_number(row);
  }
}

Rounding rounding(int64_t decimals) {
  const double power = std::pow(10.0, std::abs(static_cast<double>(decimals)));
  return {decimals < 0 ? Elementwise::_round_tens : Elementwise::_round_decimals, {{power}, 1}};
}
at::Tensor round_decimals(const at::Tensor& input, int64_t decimals) {
  const Rounding r = rounding(decimals);
  return elementwise(r.op, {{&input}, 1}, r.scale);
}

Elementwise gelu_row(std::string_view approximate) {
  if (approximate == "none") return Elementwise::_gelu_erf;
  if (approximate == "tanh") return Elementwise::_gelu_tanh;
  TORCH_CHECK(false, "approximate argument must be either none or tanh.");
}

at::Tensor gelu(const at::Tensor& input, std::string_view approximate) { return elementwise(gelu_row(approximate), input); }

template <class T>
std::pair<int64_t, int64_t> integer_range() {
  return {std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
}
std::pair<int64_t, int64_t> integer_range(c10::ScalarType type) {
  switch (type) {
    case c10::kBool: return {0, 1};
    case c10::kByte: return integer_range<uint8_t>();
    case c10::kChar: return integer_range<int8_t>();
    case c10::kShort: return integer_range<int16_t>();
    case c10::kInt: return integer_range<int32_t>();
    default: return integer_range<int64_t>();
  }
}

Clamp clamp_arguments(const at::Tensor& input, const std::optional<c10::Scalar>& min, const std::optional<c10::Scalar>& max) {
  TORCH_CHECK(min || max, "torch.clamp: At least one of 'min' or 'max' must not be None");
  at::native::ResultTypeState state = at::native::update_result_type_state(input, {});
  if (min) state = at::native::update_result_type_state(*min, state);
  if (max) state = at::native::update_result_type_state(*max, state);
  const c10::ScalarType type = at::native::result_type(state);
  Clamp clamp{input.scalar_type() == type ? input : input.to(type), {{}, 2}};
  if (c10::isFloatingType(type)) {
    const double infinity = std::numeric_limits<double>::infinity();
    clamp.bounds.values[0] = min.value_or(-infinity);
    clamp.bounds.values[1] = max.value_or(infinity);
  } else {
    const auto [lowest, highest] = integer_range(type);
    clamp.bounds.values[0] = min.value_or(lowest);
    clamp.bounds.values[1] = max.value_or(highest);
  }
  return clamp;
}

at::Tensor clamp(const at::Tensor& input, const std::optional<c10::Scalar>& min, const std::optional<c10::Scalar>& max) {
  const Clamp c = clamp_arguments(input, min, max);
  return elementwise(Elementwise::_clamp, {{&c.input}, 1}, c.bounds);
}

at::Tensor clamp_tensor(const at::Tensor& input, const std::optional<at::Tensor>& min, const std::optional<at::Tensor>& max) {
  TORCH_CHECK(min || max, "torch.clamp: At least one of 'min' or 'max' must not be None");
  if (min && max) return elementwise(Elementwise::_clamp_between, input, *min, *max);
  return min ? elementwise(Elementwise::_clamp_min, input, *min) : elementwise(Elementwise::_clamp_max, input, *max);
}

at::Tensor prelu(const at::Tensor& input, const at::Tensor& weight) {
  TORCH_CHECK(weight.dim() <= 1, "prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = ", weight.dim());
  if (weight.sym_numel() == 1) return elementwise(Elementwise::_prelu, input, weight.reshape_symint(std::vector<c10::SymInt>(static_cast<size_t>(input.dim()), 1)));
  TORCH_CHECK(input.dim() > 0, "Not allow zero-dim input tensor.");
  const auto channels = input.dim() > 1 ? input.sym_size(1) : c10::SymInt(1);
  TORCH_CHECK(channels == weight.sym_numel(), "Mismatch of parameter numbers and input channel size. Found parameter numbers = ",
              weight.sym_numel(), " and channel size = ", channels, ".");
  std::vector<c10::SymInt> shape(static_cast<size_t>(input.dim()), 1);
  shape[input.dim() > 1 ? 1 : 0] = weight.sym_numel();
  return elementwise(Elementwise::_prelu, input, weight.reshape_symint(shape));
}

}  // namespace ops

namespace {

using Number = const c10::Scalar&;

at::Tensor div(const at::Tensor& input, const at::Tensor& other, std::optional<std::string_view> mode) {
  return ops::elementwise(ops::division(mode), input, other);
}
at::Tensor div_scalar(const at::Tensor& input, Number other, std::optional<std::string_view> mode) {
  return ops::elementwise(ops::division(mode), input, ops::wrapped_number(other));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };
  define("div(Tensor input, Tensor other, *, str? rounding_mode=None) -> Tensor");
  define("div.Scalar(Tensor input, Scalar other, *, str? rounding_mode=None) -> Tensor");
  define("div.Scalar_Tensor(Scalar input, Tensor other, *, str? rounding_mode=None) -> Tensor");
  define("gelu(Tensor input, *, str approximate='none') -> Tensor");
  define("clamp(Tensor input, Scalar? min=None, Scalar? max=None) -> Tensor");
  define("clamp.Tensor(Tensor input, Tensor? min=None, Tensor? max=None) -> Tensor");
  define("prelu(Tensor input, Tensor weight) -> Tensor");
  define("round.decimals(Tensor input, *, int decimals) -> Tensor");
  define("where.ScalarSelf(Tensor condition, Scalar input, Tensor other) -> Tensor");
  define("where.ScalarOther(Tensor condition, Tensor input, Scalar other) -> Tensor");
  define("where.Scalar(Tensor condition, Scalar input, Scalar other) -> Tensor");
  define("lerp.Scalar(Tensor input, Tensor end, Scalar weight) -> Tensor");
  for (const ElementwiseRow& row : elementwise_rows()) {
    const std::string name = row.name, scalars = row.scalar_schema;
    const std::string second = row.op == Elementwise::pow ? "exponent" : "other";
    if (ops::takes_second_number(row)) define(name + ".Scalar(Tensor input, Scalar " + second + scalars + ") -> Tensor");
    if (ops::takes_first_number(row)) define(name + ".Scalar_Tensor(Scalar input, Tensor " + second + scalars + ") -> Tensor");
  }
}

TORCH_LIBRARY_IMPL(tensorops, CompositeImplicitAutograd, library) {
  library.impl("div", div);
  library.impl("div.Scalar", div_scalar);
  library.impl("div.Scalar_Tensor", [](Number a, const at::Tensor& b, std::optional<std::string_view> mode) {
    return ops::elementwise(ops::division(mode), ops::wrapped_number(a), b);
  });
  library.impl("gelu", ops::gelu);
  library.impl("clamp", ops::clamp);
  library.impl("clamp.Tensor", ops::clamp_tensor);
  library.impl("prelu", ops::prelu);
  library.impl("round.decimals", ops::round_decimals);
  library.impl("where.ScalarSelf", [](const at::Tensor& c, Number a, const at::Tensor& b) {
    return ops::elementwise(Elementwise::where, c, ops::wrapped_number(a), b);
  });
  library.impl("where.ScalarOther", [](const at::Tensor& c, const at::Tensor& a, Number b) {
    return ops::elementwise(Elementwise::where, c, a, ops::wrapped_number(b));
  });
  library.impl("where.Scalar", [](const at::Tensor& c, Number a, Number b) {
    return ops::elementwise(Elementwise::where, c, ops::wrapped_number(a), ops::wrapped_number(b));
  });
  library.impl("lerp.Scalar", [](const at::Tensor& a, const at::Tensor& b, Number w) {
    return ops::elementwise(Elementwise::lerp, a, b, ops::wrapped_number(w));
  });
  for (const ElementwiseRow& row : elementwise_rows()) {
    const Elementwise op = row.op;
    const std::string second = std::string(row.name) + ".Scalar", first = second + "_Tensor";
    const bool first_number = ops::takes_first_number(row), second_number = ops::takes_second_number(row);
    if (row.scalars == 0) {
      if (second_number)
        library.impl(second.c_str(), [op](const at::Tensor& a, Number b) { return ops::elementwise(op, a, ops::wrapped_number(b)); });
      if (first_number)
        library.impl(first.c_str(), [op](Number a, const at::Tensor& b) { return ops::elementwise(op, ops::wrapped_number(a), b); });
    } else {
      if (second_number)
        library.impl(second.c_str(), [op](const at::Tensor& a, Number b, Number alpha) {
          const at::Tensor number = ops::wrapped_number(b);
          return ops::elementwise(op, {{&a, &number}, 2}, {{alpha}, 1});
        });
      if (first_number)
        library.impl(first.c_str(), [op](Number a, const at::Tensor& b, Number alpha) {
          const at::Tensor number = ops::wrapped_number(a);
          return ops::elementwise(op, {{&number, &b}, 2}, {{alpha}, 1});
        });
    }
  }
}

}  // namespace tensorops
