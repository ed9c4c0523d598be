#include "cuda/kernels/elementwise_contiguous.h"

namespace tensorops::cuda {

#define TENSOROPS_ROW(row, inputs) contiguous_launcher<row, Half, inputs>(),
const ContiguousLauncher elementwise_contiguous_f16[kElementwiseCount] = {TENSOROPS_ALL_ROWS};

}  // namespace tensorops::cuda
