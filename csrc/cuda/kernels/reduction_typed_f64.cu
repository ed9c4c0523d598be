#include "cuda/kernels/reduction_kernels.h"

namespace tensorops::cuda {

using Load = Typed<double>;
const ReduceLauncher reduce_typed_f64[kReducerCount] = {TENSOROPS_CUDA_REDUCER_TABLE(TENSOROPS_REDUCE_LAUNCHER)};

}  // namespace tensorops::cuda
