// Where every CPU output comes from.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

namespace tensorops::cpu {

inline at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType dtype) {
  return at::Tensor(at::detail::empty_strided_cpu(sizes, strides, dtype));
}
inline at::Tensor empty(c10::IntArrayRef sizes, c10::ScalarType dtype,
                        c10::MemoryFormat format = c10::MemoryFormat::Contiguous) {
  return at::Tensor(at::detail::empty_cpu(sizes, dtype, /*pin_memory=*/false, format));
}

}  // namespace tensorops::cpu
