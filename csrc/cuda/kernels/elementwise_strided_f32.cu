#include "cuda/kernels/elementwise_strided.h"

namespace tensorops::cuda {

#define TENSOROPS_ROW(row, inputs) strided_launcher<row, float, inputs>(),
const StridedLauncher elementwise_strided_f32[kElementwiseCount] = {TENSOROPS_ALL_ROWS};

}  // namespace tensorops::cuda
