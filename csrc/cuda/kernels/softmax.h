// Launchers of softmax and its gradient.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/kernels/lines.h"

namespace tensorops::cuda {

enum class Softmax : int { softmax, log_softmax, softmax_backward, log_softmax_backward, count_ };
// Operands: the input or the incoming gradient; the forward's result, for a gradient; what is written, of a floating dtype.
void launch_softmax(Softmax op, const Lines& lines, cudaStream_t stream);

}  // namespace tensorops::cuda
