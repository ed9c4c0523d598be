// Type promotion: torch.result_type, and the table's domains on top of it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/native/TypeProperties.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/ScalarType.h>

#include <string>

#include "ops/elementwise.h"
#include "ops/scalar_type.h"

namespace tensorops {

struct ElementwiseTypes {
  c10::ScalarType common;  // what the formula's inputs are promoted to
  c10::ScalarType result;
};

// The name that a message gives an op: "_gelu_tanh" and "_prelu" are rows of gelu and prelu.
inline std::string public_name(const ElementwiseRow& row) {
  std::string name = row.name + (row.name[0] == '_');
  const bool variant = name.starts_with("gelu") || name.starts_with("div") || name.starts_with("round") || name.starts_with("clamp");
  return name.substr(0, variant ? name.find('_') : std::string::npos);
}

// What torch converts to a dtype must be in its range.
inline void check_fits(const c10::Scalar& number, c10::ScalarType type) {
  switch (type) {
    case c10::kByte: (void)number.to<uint8_t>(); break;
    case c10::kChar: (void)number.to<int8_t>(); break;
    case c10::kShort: (void)number.to<int16_t>(); break;
    case c10::kInt: (void)number.to<int32_t>(); break;
    case c10::kLong: (void)number.to<int64_t>(); break;
    case c10::kHalf: (void)number.to<c10::Half>(); break;
    case c10::kBFloat16: (void)number.to<c10::BFloat16>(); break;
    case c10::kFloat: (void)number.to<float>(); break;
    default: break;
  }
}

// What torch refuses though the formula has a meaning there: of bool, of integers, of mixed dtypes, of numbers out of range.
inline void check_operands(const ElementwiseRow& row, c10::ScalarType common, const Inputs& inputs, const Scalars& scalars) {
  constexpr const char* kInvert = " If you are trying to invert a mask, use the `~` or `logical_not()` operator instead.";
  const bool boolean = common == c10::kBool;
  switch (row.op) {
    case Elementwise::sub:
      for (int i = 0; i < inputs.count; ++i)
        TORCH_CHECK(inputs[i].scalar_type() != c10::kBool, "Subtraction, the `-` operator, with a bool tensor is not supported.",
                    kInvert);
      [[fallthrough]];
    case Elementwise::add:
      check_factor(row.name, "alpha", common, scalars.values[0]);
      break;
    case Elementwise::neg:
      TORCH_CHECK(!boolean, "Negation, the `-` operator, on a bool tensor is not supported.", kInvert);
      break;
    case Elementwise::relu:
      TORCH_CHECK(!boolean, "Boolean inputs not supported for relu");
      break;
    case Elementwise::relu6:
      TORCH_CHECK(!boolean, "Bool inputs not supported for hardtanh");
      break;
    case Elementwise::hardtanh:
      TORCH_CHECK(!boolean, "Bool inputs not supported for hardtanh");
      TORCH_CHECK(common != c10::kByte || (scalars.values[0].toDouble() >= 0 && scalars.values[1].toDouble() >= 0),
                  "cannot do hardtanh on an unsigned type with negative limits");
      break;
    case Elementwise::lerp:
      for (int i = 1; i < inputs.count; ++i)
        TORCH_CHECK(inputs[i].scalar_type() == inputs[0].scalar_type() || (i == 2 && inputs[i].dim() == 0), "lerp: expected dtype ",
                    inputs[0].scalar_type(), " for `", i == 1 ? "end" : "weight", "` but got dtype ", inputs[i].scalar_type());
      TORCH_CHECK_NOT_IMPLEMENTED(c10::isFloatingType(inputs[0].scalar_type()), "\"lerp\" not implemented for '",
                                  inputs[0].scalar_type(), "'");
      break;
    case Elementwise::addcdiv:
      TORCH_CHECK(!c10::isIntegralType(inputs[1].scalar_type(), true) || !c10::isIntegralType(inputs[2].scalar_type(), true),
                  "Integer division with addcdiv is not supported: tensor1 is of dtype ", inputs[1].scalar_type(),
                  ", tensor2 of dtype ", inputs[2].scalar_type());
      break;
    case Elementwise::where:  // in 16 bits torch's number becomes infinite
      for (int i = 1; i < inputs.count && common != c10::kHalf && common != c10::kBFloat16; ++i)
        if (const auto number = ops::number_of(inputs[i])) check_fits(*number, common);
      break;
    case Elementwise::pow:
      if (const auto exponent = ops::number_of(inputs[1])) {
        TORCH_CHECK(!c10::isIntegralType(common, true) || exponent->toLong() >= 0,
                    "pow: Integers to negative integer powers are not allowed.");
        if (common != c10::kFloat) check_fits(*exponent, common);
        break;
      }
      TORCH_CHECK_NOT_IMPLEMENTED(!boolean, "\"pow\" not implemented for 'Bool'");
      break;
    case Elementwise::abs:
    case Elementwise::ceil:
    case Elementwise::floor:
    case Elementwise::round:
    case Elementwise::trunc:
    case Elementwise::fmod:
    case Elementwise::remainder:
    case Elementwise::floor_divide:
    case Elementwise::_div_floor:
    case Elementwise::_div_trunc:
    case Elementwise::threshold:
    case Elementwise::addcmul:
      TORCH_CHECK_NOT_IMPLEMENTED(!boolean, "\"", public_name(row), "\" not implemented for 'Bool'");
      break;
    default:
      break;
  }
}

inline ElementwiseTypes elementwise_types(const ElementwiseRow& row, const Inputs& inputs, const Scalars& scalars) {
  const int first = row.op == Elementwise::where ? 1 : 0;
  c10::ScalarType common = inputs[first].scalar_type();
  bool alike = !inputs[first].unsafeGetTensorImpl()->is_wrapped_number();
  for (int i = first + 1; i < inputs.count; ++i) alike &= inputs[i].scalar_type() == common;
  if (!alike) {
    at::native::ResultTypeState state;
    for (int i = first; i < inputs.count; ++i) state = at::native::update_result_type_state(inputs[i], state);
    common = at::native::result_type(state);
  }
  const bool integral = c10::isIntegralType(common, /*includeBool=*/true);
  // torch's square is a power of the number 2, to which bool promotes.
  if (row.op == Elementwise::square && common == c10::kBool) common = c10::kLong;
  TORCH_CHECK_NOT_IMPLEMENTED(!c10::isComplexType(common), "tensorops::", row.name, ": complex tensors are not covered, got ",
                              common);
  if (row.domain == Domain::FLOATING && integral) common = c10::get_default_dtype_as_scalartype();
  check_operands(row, common, inputs, scalars);
  TORCH_CHECK_NOT_IMPLEMENTED(row.domain != Domain::ACTIVATION || !integral, "\"", public_name(row), "\" not implemented for '",
                              common, "'");
  if (row.op == Elementwise::where)
    TORCH_CHECK(inputs[0].scalar_type() == c10::kBool || inputs[0].scalar_type() == c10::kByte,
                "where expected condition to be a boolean tensor, but got a tensor with dtype ", inputs[0].scalar_type());
  return {common, row.domain == Domain::PREDICATE ? c10::kBool : common};
}

// Operands of another dtype are rounded to the common one before the op sees them, an int64 to a uint8 even, but for these,
// which torch reads in the precision that the op computes in.
inline bool keeps_precision(const ElementwiseRow& row, const Inputs& inputs, int i) {
  if (row.op == Elementwise::mul || row.op == Elementwise::_div_true) return i == 1 && inputs[i].dim() == 0;
  if (row.op == Elementwise::_div_gradient) return i == 2 && inputs[i].dim() == 0;
  if (row.op == Elementwise::pow) return i == 1 && inputs[i].unsafeGetTensorImpl()->is_wrapped_number();
  if (row.op == Elementwise::lerp) return i == 2 && inputs[i].unsafeGetTensorImpl()->is_wrapped_number();
  return row.op == Elementwise::where && i == 0;
}

// pow with a number that makes it a multiplication, a division or a root.
inline const ElementwiseRow* simple_power(const ElementwiseRow& row, const ElementwiseTypes& types, const Inputs& inputs) {
  if (row.op != Elementwise::pow || !inputs[1].unsafeGetTensorImpl()->is_wrapped_number()) return nullptr;
  const double exponent = inputs[1].item().toDouble();
  if (exponent == 2) return &row_of(Elementwise::square);
  if (exponent == 3) return &row_of(Elementwise::_cube);
  if (!c10::isFloatingType(types.common)) return nullptr;
  if (exponent == 0.5) return &row_of(Elementwise::sqrt);
  if (exponent == -0.5) return &row_of(Elementwise::rsqrt);
  if (exponent == -1) return &row_of(Elementwise::reciprocal);
  if (exponent == -2) return &row_of(Elementwise::_inverse_square);
  return nullptr;
}

// Whether the result may be cast to the dtype of out=: not where torch computes straight into it.
inline bool casts_result(const ElementwiseRow& row, const Inputs& inputs) {
  switch (row.op) {
    case Elementwise::abs:
    case Elementwise::neg:
    case Elementwise::sign:
    case Elementwise::ceil:
    case Elementwise::floor:
    case Elementwise::round:
    case Elementwise::_round_decimals:
    case Elementwise::_round_tens:
    case Elementwise::trunc:
    case Elementwise::frac:
    case Elementwise::_gelu_erf:
    case Elementwise::_gelu_tanh:
    case Elementwise::softplus:
    case Elementwise::logsigmoid:
    case Elementwise::_clamp:
    case Elementwise::where:
      return false;
    case Elementwise::lerp:
      return inputs[2].dim() == 0;
    default:
      return true;
  }
}

// out= and in-place writes must not lose more than a cast within the same kind would.
inline void check_result_cast(const ElementwiseRow& row, const ElementwiseTypes& types, const Inputs& inputs,
                              const at::Tensor& out) {
  TORCH_CHECK(out.scalar_type() == types.result || casts_result(row, inputs), public_name(row), ": found dtype ",
              out.scalar_type(), " of out= but expected ", types.result);
  TORCH_CHECK(c10::canCast(types.result, out.scalar_type()), "result type ", types.result,
              " can't be cast to the desired output type ", out.scalar_type());
}

}  // namespace tensorops
