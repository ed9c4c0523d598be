// Inner kernels of scans: cumsum, cumprod and the linear recurrence that their derivatives are. Everything is computed in
// double or int64, on staged runs.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

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

struct ScanKernels {
  // By Scan; [0] in double, [1] in int64.
  ScanRunKernel run[static_cast<int>(Scan::count_)][2];
  ScanStepKernel step[static_cast<int>(Scan::count_)][2];
  ScanAlongKernel along[2][2];       // sum, prod; f32, f64
  ScanAlongKernel reverse_along[2];  // sum; f32, f64
  ScanThroughKernel through[2][2];
  ScanLinesKernel lines[2][2];
  void (*end_stream)();
};

TENSOROPS_DECLARE_KERNELS(ScanKernels, scan_kernels)

}  // namespace tensorops::cpu
