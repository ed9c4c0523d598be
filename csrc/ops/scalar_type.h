// From torch's dtypes to the kernels'.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <optional>

#include "ops/dtype.h"

namespace tensorops {

// None for what no kernel covers: complex, quantized, float8, the wider unsigned integers.
inline std::optional<DType> covered_dtype(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Byte: return DType::u8;
    case c10::ScalarType::Char: return DType::i8;
    case c10::ScalarType::Short: return DType::i16;
    case c10::ScalarType::Int: return DType::i32;
    case c10::ScalarType::Long: return DType::i64;
    case c10::ScalarType::Half: return DType::f16;
    case c10::ScalarType::Float: return DType::f32;
    case c10::ScalarType::Double: return DType::f64;
    case c10::ScalarType::Bool: return DType::boolean;
    case c10::ScalarType::BFloat16: return DType::bf16;
    default: return std::nullopt;
  }
}

inline DType dtype_of(c10::ScalarType type) {
  const auto dtype = covered_dtype(type);
  TORCH_CHECK_NOT_IMPLEMENTED(dtype, "tensorops has no kernel for dtype ", type);
  return *dtype;
}

// A number as torch converts it to an integer dtype: a negative one wraps in an unsigned type, what does not fit is an error.
inline int64_t integer_of(const c10::Scalar& value, DType dtype) {
  switch (dtype) {
    case DType::u8: return value.to<uint8_t>();
    case DType::i8: return value.to<int8_t>();
    case DType::i16: return value.to<int16_t>();
    case DType::i32: return value.to<int32_t>();
    case DType::boolean: return value.to<bool>();
    default: return value.to<int64_t>();
  }
}

// Tensor::to, without a call of it where there is nothing to do.
inline at::Tensor as(const at::Tensor& t, c10::ScalarType type) { return t.scalar_type() == type ? t : t.to(type); }

// alpha and beta of an elementwise op are of the kind of its result.
inline void check_factor(const char* op, const char* argument, c10::ScalarType result, const c10::Scalar& factor) {
  TORCH_CHECK(!factor.isBoolean() || result == c10::kBool, op, ": Boolean ", argument, " only supported for Boolean results.");
  TORCH_CHECK(!c10::isIntegralType(result, /*includeBool=*/true) || !factor.isFloatingPoint(), op,
              ": For integral input tensors, argument ", argument, " must not be a floating point number.");
}

}  // namespace tensorops
