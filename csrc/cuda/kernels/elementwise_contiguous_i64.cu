#include "cuda/kernels/elementwise_contiguous.h"

namespace tensorops::cuda {

#define TENSOROPS_ROW(row, inputs) contiguous_launcher<row, int64_t, inputs>(),
const ContiguousLauncher elementwise_contiguous_i64[kElementwiseCount] = {TENSOROPS_ALL_ROWS};

}  // namespace tensorops::cuda
