// Elements picked along a dimension by index, and put back.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/kernels/lines.h"

namespace tensorops::cuda {

// Lines along that dimension of operand 0, the whole tensor; operand 1 is the picked elements, operand 2 their int64 indices.
// `put` writes the elements into the whole tensor, and nothing else of it. An index out of bounds is told in *fault (fault.h).
void launch_select(const Lines& lines, bool put, int* fault, cudaStream_t stream);

}  // namespace tensorops::cuda
