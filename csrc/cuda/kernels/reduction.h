// Launchers of the reductions: every output (column) is one reducer's state over `rows` elements.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/kernels/lines.h"
#include "ops/dtype.h"

namespace tensorops::cuda {

// One row per reducer: name, class in reduction_reducers.h, compute types it exists for.
#define TENSOROPS_CUDA_REDUCER_TABLE(REDUCER)   \
  REDUCER(sum, Additive<Identity>, NUMERIC)     \
  REDUCER(count, Additive<NonZero>, ANY)        \
  REDUCER(norm_1, Additive<Magnitude>, FLOATING) \
  REDUCER(norm_2, Additive<Square>, FLOATING)   \
  REDUCER(norm_p, Additive<Power>, FLOATING)    \
  REDUCER(prod, Product, NUMERIC)               \
  REDUCER(max, Max, ANY)                        \
  REDUCER(min, Min, ANY)                        \
  REDUCER(any, Any, ANY)                        \
  REDUCER(all, All, ANY)                        \
  REDUCER(norm_inf, MaxMagnitude, FLOATING)     \
  REDUCER(norm_neg_inf, MinMagnitude, FLOATING) \
  REDUCER(minmax, MinMax, ANY)                  \
  REDUCER(argmax, ArgExtremum<Greater>, ANY)    \
  REDUCER(argmin, ArgExtremum<Less>, ANY)       \
  REDUCER(var, Variance, FLOATING)              \
  REDUCER(logsumexp, LogSumExp, FLOATING)

enum class Reducer : int {
#define REDUCER(name, ...) name,
  TENSOROPS_CUDA_REDUCER_TABLE(REDUCER)
#undef REDUCER
  count_
};
constexpr int kReducerCount = static_cast<int>(Reducer::count_);

struct ReduceParams {
  double p = 2;           // norm_p: the exponent
  double divisor = 1;     // sum: divides the result (mean)
  double correction = 1;  // var
  bool root = false;      // var: std instead
};

// Dimensions, innermost first. For the kept ones also the strides of the results, in elements.
struct ReduceAxes {
  int count = 0;
  int64_t sizes[kMaxAxes];
  int64_t strides[kMaxAxes];  // in bytes
  int64_t out_strides[kMaxAxes];
};

struct ReduceCall {
  const void* data;
  DType dtype;
  ReduceAxes kept, reduced;
  int64_t columns, rows;
  ReduceParams params;
  // The results: which component of the finished state goes where, as what.
  int outputs = 0;
  void* out[2];
  DType out_dtype[2];
  int component[2];
  // The geometry: chosen by sizes and strides alone, so that results are the same everywhere. A block's kThreads are `lanes` per column; neighbouring threads are lanes of one
  // column, or the same lane of neighbouring columns (across). Rows are cut into `splits` of `chunk` rows, whose states meet in
  // the workspace.
  bool across = false;
  bool vector = false;  // 16-byte loads along the rows
  int lanes = 1;        // a power of two, at most kThreads
  int64_t splits = 1, chunk = 0;
  void* workspace = nullptr;
};

// Bytes that `splits` > 1 needs as a workspace.
inline int64_t reduce_workspace_bytes(const ReduceCall& call) {
  constexpr int64_t kMaxStateBytes = 24;
  return call.splits > 1 ? call.splits * call.columns * kMaxStateBytes : 0;
}

// Null where the reducer does not exist for the compute type. `typed` launchers read one storage type, `mixed` ones any.
using ReduceLauncher = void (*)(const ReduceCall&, cudaStream_t);
extern const ReduceLauncher reduce_typed_f32[kReducerCount];
extern const ReduceLauncher reduce_typed_f64[kReducerCount];
extern const ReduceLauncher reduce_typed_f16[kReducerCount];
extern const ReduceLauncher reduce_typed_bf16[kReducerCount];
extern const ReduceLauncher reduce_mixed_f32[kReducerCount];
extern const ReduceLauncher reduce_mixed_f64[kReducerCount];
extern const ReduceLauncher reduce_mixed_i32[kReducerCount];
extern const ReduceLauncher reduce_mixed_i64[kReducerCount];

}  // namespace tensorops::cuda
