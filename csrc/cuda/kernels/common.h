// What every CUDA kernel file starts from: element types, 16-byte access, index arithmetic, reductions. No torch here.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "ops/dtype.h"

#define TENSOROPS_DEVICE __device__ __forceinline__

namespace tensorops::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;  // per block, where a kernel has no reason of its own
constexpr int64_t kMaxBlocks = 0x7fffffff;

template <class T>
constexpr __host__ __device__ T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Blocks for `items` at `per_block` each: never none, never more than a grid can have. A kernel whose work may exceed
// kMaxBlocks blocks strides by gridDim.x.
inline unsigned blocks_for(int64_t items, int64_t per_block) {
  const int64_t blocks = ceil_div(items, per_block);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks);
}

// ---- element types -------------------------------------------------------------------------------------------------

using BFloat16 = __nv_bfloat16;
using Half = __half;
struct Bool { uint8_t value; };

template <DType>
struct Storage;
template <> struct Storage<DType::u8> { using type = uint8_t; };
template <> struct Storage<DType::i8> { using type = int8_t; };
template <> struct Storage<DType::i16> { using type = int16_t; };
template <> struct Storage<DType::i32> { using type = int32_t; };
template <> struct Storage<DType::i64> { using type = int64_t; };
template <> struct Storage<DType::f16> { using type = Half; };
template <> struct Storage<DType::f32> { using type = float; };
template <> struct Storage<DType::f64> { using type = double; };
template <> struct Storage<DType::boolean> { using type = Bool; };
template <> struct Storage<DType::bf16> { using type = BFloat16; };

template <class S>
constexpr bool is_floating = std::is_same_v<S, float> || std::is_same_v<S, double> || std::is_same_v<S, Half> ||
                             std::is_same_v<S, BFloat16>;

// What elements of S are computed in: bf16 and f16 in f32, small integers and bool in i32.
template <class S>
using ComputeOf = std::conditional_t<
    std::is_same_v<S, double>, double,
    std::conditional_t<is_floating<S>, float, std::conditional_t<std::is_same_v<S, int64_t>, int64_t, int32_t>>>;

// One element from storage to a compute type and back, with C's conversions and round to nearest even.
template <class C, class S>
TENSOROPS_DEVICE C load_as(S x) {
  if constexpr (std::is_same_v<S, Half>) return static_cast<C>(__half2float(x));
  else if constexpr (std::is_same_v<S, BFloat16>) return static_cast<C>(__bfloat162float(x));
  else if constexpr (std::is_same_v<S, Bool>) return static_cast<C>(x.value != 0);
  else return static_cast<C>(x);
}
template <class S, class C>
TENSOROPS_DEVICE S store_as(C x) {
  if constexpr (std::is_same_v<S, Half>) return __float2half_rn(static_cast<float>(x));
  else if constexpr (std::is_same_v<S, BFloat16>) return __float2bfloat16_rn(static_cast<float>(x));
  else if constexpr (std::is_same_v<S, Bool>) return {static_cast<uint8_t>(x != C(0))};
  else return static_cast<S>(x);
}

// Calls f(S{}) with the storage type of a dtype known at run time, on the side that f is of.
#pragma nv_exec_check_disable
template <class F>
__host__ __device__ __forceinline__ void with_storage(DType dtype, F f) {
  switch (dtype) {
    case DType::u8: return f(uint8_t{});
    case DType::i8: return f(int8_t{});
    case DType::i16: return f(int16_t{});
    case DType::i32: return f(int32_t{});
    case DType::i64: return f(int64_t{});
    case DType::f16: return f(Half{});
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    case DType::boolean: return f(Bool{});
    case DType::bf16: return f(BFloat16{});
    default: return;
  }
}

// ---- memory --------------------------------------------------------------------------------------------------------

constexpr int kVectorBytes = 16;  // the widest load and store of one thread

// N neighbours, moved as one access. The address must be a multiple of the whole size.
template <class S, int N>
struct alignas(sizeof(S) * N) Pack {
  S at[N];
};
template <class S, int N>
TENSOROPS_DEVICE Pack<S, N> load_pack(const S* p) {
  return *reinterpret_cast<const Pack<S, N>*>(p);
}
template <class S, int N>
TENSOROPS_DEVICE void store_pack(S* p, const Pack<S, N>& pack) {
  *reinterpret_cast<Pack<S, N>*>(p) = pack;
}
inline bool is_aligned(const void* p, int64_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

// ---- index arithmetic ----------------------------------------------------------------------------------------------

// Division by a number known on the host: a multiplication and a shift (Granlund and Montgomery 1994, figure 4.1).
// Exact for 0 <= n < 2^31 and 1 <= divisor < 2^31.
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;
  Divider() = default;
  explicit Divider(uint32_t d) : divisor(d) {
    while ((uint64_t(1) << shift) < d) ++shift;
    multiplier = static_cast<uint32_t>((uint64_t(1) << 32) * ((uint64_t(1) << shift) - d) / d + 1);
  }
  TENSOROPS_DEVICE uint32_t divide(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
  // Returns the quotient and leaves the remainder in n.
  TENSOROPS_DEVICE uint32_t divide_leaving(uint32_t& n) const {
    const uint32_t quotient = divide(n);
    n -= quotient * divisor;
    return quotient;
  }
};

// Quotient and remainder by a number known on the host: by multiplication while 32 bits suffice.
struct Split {
  int64_t divisor;
  Divider divider;
  bool wide;
  Split(int64_t d, bool is_wide) : divisor(d), divider(is_wide ? 1u : static_cast<uint32_t>(d)), wide(is_wide) {}
  // Returns n / divisor and leaves the remainder in n.
  TENSOROPS_DEVICE int64_t operator()(int64_t& n) const {
    if (wide) {
      const int64_t quotient = n / divisor;
      n -= quotient * divisor;
      return quotient;
    }
    uint32_t rest = static_cast<uint32_t>(n);
    const uint32_t quotient = divider.divide_leaving(rest);
    n = rest;
    return quotient;
  }
  // Where 32 bits suffice for certain.
  TENSOROPS_DEVICE int32_t operator()(int32_t& n) const {
    uint32_t rest = static_cast<uint32_t>(n);
    const auto quotient = static_cast<int32_t>(divider.divide_leaving(rest));
    n = static_cast<int32_t>(rest);
    return quotient;
  }
};

// ---- reductions ----------------------------------------------------------------------------------------------------
// Always the same tree for the same block size: bitwise reproducible, no atomics.

template <class T>
TENSOROPS_DEVICE T shuffle_down(T x, int delta) {
  static_assert(sizeof(T) % 4 == 0, "a shuffle moves 32-bit words");
  union {
    T value;
    uint32_t words[sizeof(T) / 4];
  } u;
  u.value = x;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 4); ++i) u.words[i] = __shfl_down_sync(0xffffffffu, u.words[i], delta);
  return u.value;
}

// Combines the lanes of a full warp, in any order that suits; the result is in lane 0.
template <class T, class F>
TENSOROPS_DEVICE T warp_reduce(T x, F combine) {
#pragma unroll
  for (int delta = kWarp / 2; delta > 0; delta /= 2) x = combine(x, shuffle_down(x, delta));
  return x;
}

// Combines over a block of Threads (a multiple of 32); every thread gets the result. All threads must call it.
template <int Threads, class T, class F>
TENSOROPS_DEVICE T block_reduce(T x, T identity, F combine) {
  static_assert(Threads % kWarp == 0 && Threads <= 1024);
  constexpr int kWarps = Threads / kWarp;
  alignas(16) __shared__ unsigned char raw[(kWarps + 1) * sizeof(T)];
  T* partial = reinterpret_cast<T*>(raw);
  x = warp_reduce(x, combine);
  __syncthreads();  // an earlier call may still be reading
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    T y = threadIdx.x < kWarps ? partial[threadIdx.x] : identity;
    y = warp_reduce(y, combine);
    if (threadIdx.x == 0) partial[kWarps] = y;
  }
  __syncthreads();
  return partial[kWarps];
}

}  // namespace tensorops::cuda
