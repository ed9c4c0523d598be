// What kernels over lines share.
#pragma once

#include "cuda/kernels/layout.h"

namespace tensorops::cuda {
namespace {

struct LineArguments {
  int64_t count, length;
  Axes axes;  // with the first operand's strides
  int64_t strides[kLineOperands][kMaxAxes];
  char* data[kLineOperands];
  DType dtype[kLineOperands];
  int64_t step[kLineOperands];
  bool across, vector;
  int lanes;
};

inline LineArguments arguments_of(const Lines& lines) {
  LineArguments a;
  a.count = lines.count;
  a.length = lines.length;
  a.axes.count = lines.axes;
  a.axes.small = lines.count > 0 && lines.count <= 0x7fffffff;
  for (int i = 0; i < lines.axes; ++i) {
    a.axes.sizes[i] = lines.sizes[i];
    if (a.axes.small) a.axes.dividers[i] = Divider(static_cast<uint32_t>(lines.sizes[i]));
    for (int k = 0; k < kLineOperands; ++k) a.strides[k][i] = lines.operands[k].strides[i];
  }
  for (int k = 0; k < kLineOperands; ++k) {
    a.data[k] = lines.operands[k].data;
    a.dtype[k] = lines.operands[k].dtype;
    a.step[k] = lines.operands[k].step;
  }
  a.across = lines.across;
  a.vector = lines.vector;
  a.lanes = lines.lanes;
  return a;
}
inline unsigned line_blocks(const Lines& lines) { return blocks_for(lines.count, kThreads / lines.lanes); }

// This thread's line and its part in it; the line may be past the last.
struct LinePlace {
  int64_t line;
  int lane, leader, apart;  // the line's lane 0, and how far its lanes are apart, in threads
  char* data[kLineOperands];
};
TENSOROPS_DEVICE LinePlace place_of(const LineArguments& a) {
  const int lines_per_block = kThreads / a.lanes, thread = threadIdx.x;
  LinePlace p;
  p.lane = a.across ? thread / lines_per_block : thread % a.lanes;
  const int slot = a.across ? thread % lines_per_block : thread / a.lanes;
  p.line = static_cast<int64_t>(blockIdx.x) * lines_per_block + slot;
  p.leader = a.across ? slot : slot * a.lanes;
  p.apart = a.across ? lines_per_block : 1;
  for (int k = 0; k < kLineOperands; ++k) p.data[k] = a.data[k];
  if (p.line >= a.count) return p;
  for_axes(a.axes, p.line, [&](int axis, int64_t index) {
    for (int k = 0; k < kLineOperands; ++k) p.data[k] += index * a.strides[k][axis];
  });
  return p;
}

// Merges the lanes' states and gives every lane the result. All threads of the block must call it.
template <class R>
TENSOROPS_DEVICE typename R::State share_lanes(const typename R::State& own, const LinePlace& p, int lanes) {
  if (lanes == 1) return own;
  __shared__ typename R::State states[kThreads];
  __syncthreads();  // an earlier call may still be reading
  states[threadIdx.x] = own;
  for (int half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (p.lane < half) states[threadIdx.x] = R::merge(states[threadIdx.x], states[threadIdx.x + half * p.apart]);
  }
  __syncthreads();
  return states[p.leader];
}

}  // namespace
}  // namespace tensorops::cuda
