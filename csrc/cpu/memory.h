// Where every CPU output comes from.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DispatchKeySet.h>

#include <cstring>

#include "cpu/allocator.h"
#include "cpu/parallel.h"

namespace tensorops::cpu {

inline at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType dtype) {
  constexpr c10::DispatchKeySet key(c10::DispatchKey::CPU);
  const size_t bytes = at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype));
  return at::Tensor(at::detail::empty_strided_generic(sizes, strides, allocator_for(bytes), key, dtype));
}

inline at::Tensor empty(c10::IntArrayRef sizes, c10::ScalarType dtype,
                        c10::MemoryFormat format = c10::MemoryFormat::Contiguous) {
  constexpr c10::DispatchKeySet key(c10::DispatchKey::CPU);
  const size_t bytes = at::detail::computeStorageNbytesContiguous(sizes, c10::elementSize(dtype));
  return at::Tensor(at::detail::empty_generic(sizes, allocator_for(bytes), key, dtype, format));
}

// All of a fresh output.
inline void fill_with_zeros(const at::Tensor& t) {
  parallel(static_cast<int64_t>(t.nbytes()), 1, [&](int64_t begin, int64_t end) {
    std::memset(static_cast<char*>(t.data_ptr()) + begin, 0, static_cast<size_t>(end - begin));
  });
}

}  // namespace tensorops::cpu
