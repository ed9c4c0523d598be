// What a CUDA kernel of this room does around its launchers: the device, the stream, outputs, and the check afterwards.
//
//   const Guard guard(input.device());
//   at::Tensor out = empty(sizes, input.scalar_type(), input.device());
//   if (out.numel() > 0) {
//     launch_something(..., stream());
//     check_launch();
//   }
//
// No host synchronisation and no allocation outside torch's caching allocator: every call can be captured in a graph.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <new>

#include "cuda/kernels/fault.h"
#include "ops/scalar_type.h"

namespace tensorops::cuda {

// Makes the tensor's device current; does nothing for an absent one.
using Guard = c10::cuda::OptionalCUDAGuard;

inline cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
inline void check_launch() { C10_CUDA_KERNEL_LAUNCH_CHECK(); }

// A kernel cannot raise, and waiting for it on every call would cost more than the call. A kernel that meets a bad label or
// index reads and writes nothing there, and sets this word, in host memory that every device sees; the next call that takes
// indices raises. With CUDA_LAUNCH_BLOCKING set the call itself does.
inline int* fault_word() {
  static int* const word = [] {
    void* memory = nullptr;
    C10_CUDA_CHECK(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocPortable | cudaHostAllocMapped));
    return new (memory) int(0);
  }();
  return word;
}
inline void report_fault(const char* who, const char* hint) {
  const int fault = *static_cast<volatile int*>(fault_word());
  *fault_word() = 0;
  TORCH_CHECK(fault != kFaultProbability, "tensorops: ", who, "an input or target of binary_cross_entropy that is not between "
              "0 and 1", hint);
  TORCH_CHECK_INDEX(false, "tensorops: ", who, "a label or index that is out of bounds", hint);
}
inline void raise_fault() {
  volatile int* const word = fault_word();
  if (*word == 0) return;
  report_fault("an earlier call on a GPU met ", "; run with CUDA_LAUNCH_BLOCKING=1 to see which");
}
inline void check_launch_with_indices() {
  check_launch();
  static const bool blocking = [] {
    const char* value = std::getenv("CUDA_LAUNCH_BLOCKING");
    return value != nullptr && std::atoi(value) != 0;
  }();
  if (!blocking) return;
  C10_CUDA_CHECK(cudaStreamSynchronize(stream()));
  if (*static_cast<volatile int*>(fault_word()) != 0) report_fault("met ", "");
}

inline at::Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType dtype,
                                c10::Device device) {
  return at::Tensor(at::detail::empty_strided_cuda(sizes, strides, dtype, device));
}
inline at::Tensor empty(c10::IntArrayRef sizes, c10::ScalarType dtype, c10::Device device,
                        c10::MemoryFormat format = c10::MemoryFormat::Contiguous) {
  return at::Tensor(at::detail::empty_cuda(sizes, dtype, device, format));
}

// Every defined tensor must be on the first one's device; torch's own words otherwise.
inline void check_same_device(std::initializer_list<const at::Tensor*> tensors) {
  const at::Tensor& first = **tensors.begin();
  for (const at::Tensor* t : tensors)
    TORCH_CHECK(!t->defined() || t->device() == first.device(),
                "Expected all tensors to be on the same device, but found at least two devices, ", first.device(), " and ",
                t->device(), "!");
}

// Whether 32-bit arithmetic reaches every element of the tensor.
inline bool fits_32bit(const at::Tensor& t) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  if (t.numel() == 0) return true;
  if (t.numel() > most) return false;
  int64_t last = 0;
  for (int64_t dim = 0; dim < t.dim(); ++dim) last += (t.size(dim) - 1) * t.stride(dim);
  return last <= most;
}

}  // namespace tensorops::cuda
