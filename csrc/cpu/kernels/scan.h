// Inner kernels of scans: cumsum, cumprod and the linear recurrence that their derivatives are. Everything is computed in
// double or int64, on staged runs.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace tensorops::cpu {

// sum: h += x.  prod: h *= x.  linear: h = x + a * h.
enum class Scan : int { sum, prod, linear, count_ };

// Scans x in place, starting from h; returns through h. `a` is read by linear only.
using ScanRunKernel = void (*)(void* x, const void* a, int64_t n, void* h);
// One step of n scans side by side: h takes in x.
using ScanStepKernel = void (*)(const void* x, const void* a, int64_t n, void* h);

// The same from where the elements lie to where the results go, of sum and prod in f32 or f64. With `streams` whole vectors go past
// the caches, y being at the start of a cache line. In reverse x and y are the last elements in memory, which are the first to be
// read, and y is at the end of a cache line.
using ScanAlongKernel = void (*)(const void* x, void* y, int64_t n, void* h, bool streams);
// y = h after h took in x. With `ahead`, which is where a later step's x will be, its lines are fetched.
using ScanThroughKernel = void (*)(const void* x, void* y, int64_t n, void* h, const void* ahead, bool streams);

// Lines side by side: elements from one to the next of a line, and from line to line.
struct ScanLines {
  void* data;
  int64_t step, pitch;
};
// The same for `count` lines of n elements.
using ScanLinesKernel = void (*)(const ScanLines& x, const ScanLines& y, int64_t n, int64_t count);

// A step of n gradients of cumprod side by side, from the end: the gradient of element k is P_{k-1} S_k, where S_k = g_k +
// x_{k+1} S_{k+1}. With x S of the element behind, or zeros, in `carried`, which takes in this element's: out = before * (grad +
// carried), where `before` is the product up to the element before, or null for 1. Lines `ahead` elements back are fetched.
using CumprodGradientKernel = void (*)(const void* grad, const void* x, const void* before, void* out, int64_t n, double* carried,
                                       int64_t ahead);
// What it makes of `carried` alone, which starts as zeros, and the product of x.
using CumprodCarryKernel = void (*)(const void* grad, const void* x, int64_t n, double* carried, double* product);

struct ScanKernels {
  // By Scan; [0] in double, [1] in int64.
  ScanRunKernel run[static_cast<int>(Scan::count_)][2];
  ScanStepKernel step[static_cast<int>(Scan::count_)][2];
  ScanAlongKernel along[2][2];       // sum, prod; f32, f64
  ScanAlongKernel reverse_along[2];  // sum; f32, f64
  ScanThroughKernel through[2][2];
  ScanLinesKernel lines[2][2];
  CumprodGradientKernel cumprod_gradient[static_cast<int>(DType::count)];  // null for integers
  CumprodCarryKernel cumprod_carry[static_cast<int>(DType::count)];
  void (*end_stream)();
};

TENSOROPS_DECLARE_KERNELS(ScanKernels, scan_kernels)

}  // namespace tensorops::cpu
