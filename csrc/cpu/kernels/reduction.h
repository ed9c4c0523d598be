// Inner reduction kernels. A reducer keeps a state of one or two (var: mean and squared deviation; argmax: value and index)
// accumulators of type A: double for floating inputs, int64 for the others. States of parts of the data are merged, so the
// caller may cut the data as it likes, as long as it cuts by size alone.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace tensorops::cpu {

// One row per reducer: name, class in reduction.cpp, compute types it exists for.
#define TENSOROPS_REDUCER_TABLE(REDUCER)                \
  REDUCER(sum, Sum, NUMERIC)                            \
  REDUCER(sum_of_short, SumOfShort, SHORT)              \
  REDUCER(count, Count, ANY)                            \
  REDUCER(norm_1, Norm1, FLOATING)                      \
  REDUCER(norm_2, Norm2, FLOATING)                      \
  REDUCER(norm_p, NormP, FLOATING)                      \
  REDUCER(prod, Product, NUMERIC)                       \
  REDUCER(max, Max, ANY)                                \
  REDUCER(min, Min, ANY)                                \
  REDUCER(any, Any, ANY)                                \
  REDUCER(all, All, ANY)                                \
  REDUCER(norm_inf, MaxMagnitude, FLOATING)             \
  REDUCER(norm_neg_inf, MinMagnitude, FLOATING)         \
  REDUCER(minmax, MinMax, ANY)                          \
  REDUCER(argmax, ArgExtremum<Greater>, ANY)            \
  REDUCER(argmin, ArgExtremum<Less>, ANY)               \
  REDUCER(var, Variance<double>, FLOATING)              \
  REDUCER(var_of_short, Variance<float>, SHORT)         \
  REDUCER(logsumexp, LogSumExp, FLOATING)

enum class Reducer : int {
#define REDUCER(name, ...) name,
  TENSOROPS_REDUCER_TABLE(REDUCER)
#undef REDUCER
  count_
};
constexpr int kReducerCount = static_cast<int>(Reducer::count_);
constexpr int kMaxStates = 2;

struct ReduceParams {
  double p = 2;           // norm_p: the exponent
  double divisor = 1;     // sum: divides the result (mean)
  double correction = 1;  // var
  bool root = false;      // var: std instead
};

// States are stored component by component, `pitch` elements apart.
struct States {
  void* data;
  int64_t pitch;
};

// Reduces each of `runs` runs of n contiguous elements, `stride` bytes apart, into a fresh state of its column. `first` is the
// index of a run's first element for argmax and argmin.
using ReduceRunsKernel = void (*)(const ReduceParams&, const void* x, int64_t stride, int64_t runs, int64_t n, int64_t first,
                                  States states);
// Accumulates rows [first, first + rows), `row_stride` bytes apart, into the states of `columns` contiguous columns, which
// hold `before` rows already (none: they are initialised).
using ReduceRowsKernel = void (*)(const ReduceParams&, const void* x, int64_t row_stride, int64_t rows, int64_t columns,
                                  int64_t first, int64_t before, States states);
// Merges states over n_from elements into states over n_into; both may be zero.
using MergeStatesKernel = void (*)(States into, int64_t n_into, States from, int64_t n_from, int64_t columns);
// Turns the states over n elements into results of type A, in place.
using FinishStatesKernel = void (*)(const ReduceParams&, States states, int64_t n, int64_t columns);

struct ReduceKernels {
  ReduceRunsKernel runs = nullptr;  // null where the reducer does not exist for the compute type
  ReduceRowsKernel rows = nullptr;
  MergeStatesKernel merge = nullptr;
  FinishStatesKernel finish = nullptr;
  int64_t short_run = 0;  // elements: shorter runs are faster many side by side, by `rows`
};

// What reads the elements as they are stored.
struct StoredKernels {
  ReduceRunsKernel runs = nullptr;
  ReduceRowsKernel rows = nullptr;
};

// Of rows of `columns` elements, `row` elements apart, at most kProductRows: out = factors[column] times the product of the
// column's other elements, `out` being laid out alike.
constexpr int64_t kProductRows = 64;
using ProductGradientKernel = void (*)(const void* x, int64_t row, int64_t rows, int64_t columns, const double* factors, void* out);

struct ReductionKernels {
  ReduceKernels kernels[kReducerCount][static_cast<int>(Compute::count)];  // of elements of the compute type
  // Of f16 and bf16, for the states of f32, by reducer, or null; of bool, for those of sum_of_short.
  StoredKernels f16[kReducerCount], bf16[kReducerCount], sum_of_bool;
  ProductGradientKernel product_gradient[static_cast<int>(DType::count)];  // null for integers
};

TENSOROPS_DECLARE_KERNELS(ReductionKernels, reduction_kernels)

}  // namespace tensorops::cpu
