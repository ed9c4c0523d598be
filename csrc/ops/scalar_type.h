// From torch's dtypes to the kernels'.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include "ops/dtype.h"

namespace tensorops {

inline DType dtype_of(c10::ScalarType type) {
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
    default: TORCH_CHECK_NOT_IMPLEMENTED(false, "tensorops has no kernel for dtype ", type);
  }
}

}  // namespace tensorops
