// CUDA's execution model on one CPU thread, enough to run the kernels of csrc/cuda/kernels: a block's threads are fibers
// that take turns at barriers and warp shuffles. tools/emulate_cuda.py includes this header into every kernel file, in front
// of it. Wrong use of a barrier or shuffle (lanes missing, threads stuck) ends the process with a message.
//
// TENSOROPS_EMULATE_ORDER=forward|reverse chooses the order in which threads and blocks take turns: a missing barrier
// shows as a different result.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#undef __shared__
#define __shared__ static  // one block at a time: the block's threads share it; `extern` ones are rewritten
#undef __launch_bounds__
#define __launch_bounds__(...)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emulate {

// Saves the callee-saved registers on the current stack and goes on with another one.
extern "C" void tensorops_emulate_switch(void** from, void* to);
asm(R"(
  .weak tensorops_emulate_switch
  .type tensorops_emulate_switch, @function
tensorops_emulate_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");

enum class State { ready, at_warp, at_block, done };
struct Fiber {
  void* stack_pointer;
  State state;
  uint3 thread;
  alignas(16) unsigned char slot[32];  // what a warp collective offers
};

constexpr size_t kStack = 256 << 10;
inline std::vector<Fiber> fibers;
inline std::vector<unsigned char*> stacks;
inline std::vector<uint64_t> dynamic_shared;
inline void* scheduler;
inline Fiber* current;
inline const std::function<void()>* body;

[[noreturn]] inline void fail(const char* message) {
  std::fprintf(stderr, "emulated CUDA: %s (block %u, thread %u)\n", message, blockIdx.x, threadIdx.x);
  std::abort();
}

inline void wait(State state) {
  current->state = state;
  tensorops_emulate_switch(&current->stack_pointer, scheduler);
}

inline void entry() {
  (*body)();
  wait(State::done);
  fail("a finished thread went on");
}

// Lets the lanes of a warp go on once all of them wait; likewise the threads of a block.
inline bool release() {
  bool released = false;
  for (size_t w = 0; w < fibers.size(); w += 32) {
    const size_t end = std::min(w + 32, fibers.size());
    size_t waiting = 0;
    for (size_t i = w; i < end; ++i) waiting += fibers[i].state == State::at_warp;
    if (waiting == 0) continue;
    if (waiting == end - w) {
      for (size_t i = w; i < end; ++i) fibers[i].state = State::ready;
      released = true;
    }
  }
  if (released) return true;
  for (const Fiber& f : fibers)
    if (f.state == State::at_warp) fail("a warp collective that not all lanes reach");
  for (Fiber& f : fibers)
    if (f.state == State::at_block) f.state = State::ready, released = true;
  return released;
}

inline void launch(dim3 grid, dim3 block, size_t shared, const std::function<void()>& kernel) {
  static const char* order = std::getenv("TENSOROPS_EMULATE_ORDER");
  const bool reverse = order != nullptr && std::strcmp(order, "reverse") == 0;
  const size_t threads = size_t(block.x) * block.y * block.z, blocks = size_t(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || blocks == 0 || grid.y > 65535 || grid.z > 65535) fail("bad launch configuration");
  body = &kernel;
  gridDim = grid, blockDim = block;
  fibers.resize(threads);
  while (stacks.size() < threads) stacks.push_back(static_cast<unsigned char*>(std::aligned_alloc(64, kStack)));
  for (size_t b = 0; b < blocks; ++b) {
    const size_t at = reverse ? blocks - 1 - b : b;
    dynamic_shared.assign((shared + 15) / 16 * 2, ~uint64_t(0));  // NaNs: what is read must have been written
    blockIdx = {unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
    for (size_t t = 0; t < threads; ++t) {
      auto** top = reinterpret_cast<void**>(stacks[t] + kStack - 64);
      top[0] = reinterpret_cast<void*>(&entry);  // at a multiple of 16: `ret` leaves the stack as a call would
      fibers[t] = {top - 6, State::ready, {unsigned(t % block.x), unsigned(t / block.x % block.y), unsigned(t / block.x / block.y)}, {}};
    }
    size_t left = threads;
    while (left > 0) {
      bool ran = false;
      for (size_t i = 0; i < threads; ++i) {
        Fiber& f = fibers[reverse ? threads - 1 - i : i];
        if (f.state != State::ready) continue;
        current = &f;
        threadIdx = f.thread;
        tensorops_emulate_switch(&scheduler, f.stack_pointer);
        left -= f.state == State::done;
        ran = true;
      }
      if (!ran && !release()) fail("threads are stuck");
    }
  }
}

inline size_t lane_index() { return static_cast<size_t>(current - fibers.data()); }

// A warp collective: f(of_lane) sees what every lane of the warp brings, of_lane(i).
template <class T, class F>
void with_warp(const T& value, F f) {
  static_assert(sizeof(T) <= sizeof(Fiber::slot));
  std::memcpy(current->slot, &value, sizeof(T));
  const size_t first = lane_index() / 32 * 32;
  wait(State::at_warp);
  f([&](size_t lane) -> const T& { return *reinterpret_cast<const T*>(fibers[first + lane].slot); });
  wait(State::at_warp);
}

template <class T>
T exchange(unsigned mask, T value, size_t source) {
  if (mask != 0xffffffffu) fail("a collective with a partial mask is not emulated");
  T result;
  with_warp(value, [&](auto of_lane) { result = of_lane(source % 32); });
  return result;
}

}  // namespace emulate

inline void __syncthreads() { emulate::wait(emulate::State::at_block); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulate::wait(emulate::State::at_warp); }
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int = 32) {
  const size_t self = emulate::lane_index();
  return emulate::exchange(mask, value, self % 32 + delta < 32 ? self + delta : self);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int = 32) {
  const size_t self = emulate::lane_index();
  return emulate::exchange(mask, value, self % 32 >= delta ? self - delta : self);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int = 32) {
  return emulate::exchange(mask, value, emulate::lane_index() ^ static_cast<size_t>(lanes));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int = 32) {
  return emulate::exchange(mask, value, emulate::lane_index() / 32 * 32 + static_cast<size_t>(lane));
}
inline int __syncthreads_or(int value) {
  static int any;
  any = 0;
  __syncthreads();
  any |= value != 0;
  __syncthreads();
  const int result = any;
  __syncthreads();
  return result;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t(a) * b) >> 32); }

template <class T>
T atomicMax(T* p, T value) {
  const T old = *p;
  if (old < value) *p = value;
  return old;
}
template <class T>
T atomicMin(T* p, T value) {
  const T old = *p;
  if (value < old) *p = value;
  return old;
}
#define cudaFuncSetAttribute(...) static_cast<void>(0)
#define cudaMemsetAsync(p, value, bytes, stream) std::memset(p, value, bytes)
