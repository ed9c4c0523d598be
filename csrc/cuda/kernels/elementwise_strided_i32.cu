#include "cuda/kernels/elementwise_strided.h"

namespace tensorops::cuda {

#define TENSOROPS_ROW(row, inputs) strided_launcher<row, int32_t, inputs>(),
const StridedLauncher elementwise_strided_i32[kElementwiseCount] = {TENSOROPS_ALL_ROWS};

}  // namespace tensorops::cuda
