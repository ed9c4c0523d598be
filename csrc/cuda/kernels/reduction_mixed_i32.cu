#include "cuda/kernels/reduction_kernels.h"

namespace tensorops::cuda {

using Load = Mixed<int32_t>;
const ReduceLauncher reduce_mixed_i32[kReducerCount] = {TENSOROPS_CUDA_REDUCER_TABLE(TENSOROPS_REDUCE_LAUNCHER)};

}  // namespace tensorops::cuda
