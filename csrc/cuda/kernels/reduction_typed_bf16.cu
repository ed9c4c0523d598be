#include "cuda/kernels/reduction_kernels.h"

namespace tensorops::cuda {

using Load = Typed<BFloat16>;
const ReduceLauncher reduce_typed_bf16[kReducerCount] = {TENSOROPS_CUDA_REDUCER_TABLE(TENSOROPS_REDUCE_LAUNCHER)};

}  // namespace tensorops::cuda
