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

struct ScanKernels {
  // By Scan; [0] in double, [1] in int64.
  ScanRunKernel run[static_cast<int>(Scan::count_)][2];
  ScanStepKernel step[static_cast<int>(Scan::count_)][2];
};

TENSOROPS_DECLARE_KERNELS(ScanKernels, scan_kernels)

}  // namespace tensorops::cpu
