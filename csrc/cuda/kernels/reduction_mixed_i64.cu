#include "cuda/kernels/reduction_kernels.h"

namespace tensorops::cuda {

using Load = Mixed<int64_t>;
const ReduceLauncher reduce_mixed_i64[kReducerCount] = {TENSOROPS_CUDA_REDUCER_TABLE(TENSOROPS_REDUCE_LAUNCHER)};

}  // namespace tensorops::cuda
