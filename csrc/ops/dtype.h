// Element types as the torch-free kernels of every room name them.
#pragma once

#include <cstdint>

namespace tensorops {

enum class DType : int { u8, i8, i16, i32, i64, f16, f32, f64, boolean, bf16, count };

inline int64_t element_size(DType t) {
  constexpr int64_t sizes[] = {1, 1, 2, 4, 8, 2, 4, 8, 1, 2};
  return sizes[static_cast<int>(t)];
}

// What formulas are computed in: bf16 and f16 in f32, small integers and bool in i32.
enum class Compute : int { f32, f64, i32, i64, count };

inline Compute compute_type(DType t) {
  switch (t) {
    case DType::f16:
    case DType::bf16:
    case DType::f32: return Compute::f32;
    case DType::f64: return Compute::f64;
    case DType::i64: return Compute::i64;
    default: return Compute::i32;
  }
}
inline bool is_compute_type(DType t, Compute c) {
  constexpr DType same[] = {DType::f32, DType::f64, DType::i32, DType::i64};
  return same[static_cast<int>(c)] == t;
}

}  // namespace tensorops
