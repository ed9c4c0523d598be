// Inner kernels of softmax and log_softmax and their gradients, in f32 or f64.
#pragma once

#include <cstdint>

#include "cpu/capability.h"

namespace tensorops::cpu {

enum class Softmax : int { softmax, log_softmax, softmax_backward, log_softmax_backward, count_ };

// Lines of n adjacent elements. Forward: y from x. Backward: y from the incoming gradient x and the forward's result r.
// y may be x.
struct SoftmaxLines {
  const void *x, *r;
  void* y;
  int64_t n, count;
  int64_t x_line, r_line, y_line;  // bytes from a line to the next
  void* terms;   // for softmax: n elements of the compute type; null where y, of that type, takes them
  bool streams;  // y begins at a whole cache line, and whole vectors are written past the caches
  bool fetches;  // the x of the next line is fetched meanwhile
};
using SoftmaxRunKernel = void (*)(const SoftmaxLines& lines);
// What is made of `rows` elements of lines side by side: all of it, or, where other calls have the lines' other rows, sums and
// later, from what all sums were merged to, results.
enum class SoftmaxPart : int { whole, sums, results };
constexpr int64_t kColumnState = 3;  // doubles that hold what is known of a line: its sum, its maximum, its finished sum
struct SoftmaxColumns {
  const void* x;
  int64_t x_stride;  // of a row, in elements
  const void* r;
  int64_t r_stride;
  void* y;
  int64_t y_stride;
  int64_t rows, columns;
  double* scratch;  // kColumnState * columns
  void* terms;      // for softmax: rows * columns elements of the compute type, or null
  bool streams;     // every row of y begins at a whole cache line
  SoftmaxPart part;
};
using SoftmaxColumnsKernel = void (*)(const SoftmaxColumns& columns);
// The sums of blocks of rows, one block's scratch after another's, to the lines' in that of the first.
using SoftmaxMergeKernel = void (*)(double* scratch, int64_t blocks, int64_t columns);

struct SoftmaxKernels {
  SoftmaxRunKernel run[static_cast<int>(Softmax::count_)][2];  // f32, f64
  SoftmaxColumnsKernel columns[static_cast<int>(Softmax::count_)][2];
  SoftmaxMergeKernel merge_columns[static_cast<int>(Softmax::count_)][2];
  // Of lines stored as bf16 or f16, computed in f32.
  SoftmaxRunKernel run_of_bf16[static_cast<int>(Softmax::count_)], run_of_f16[static_cast<int>(Softmax::count_)];
  SoftmaxColumnsKernel columns_of_bf16[static_cast<int>(Softmax::count_)], columns_of_f16[static_cast<int>(Softmax::count_)];
  void (*end_stream)();
};

TENSOROPS_DECLARE_KERNELS(SoftmaxKernels, softmax_kernels)

}  // namespace tensorops::cpu
