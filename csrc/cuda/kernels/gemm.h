// Matrix products on the GPU, on raw pointers.
#pragma once

#include <cuda_runtime_api.h>

#include "ops/gemm.h"

namespace tensorops::cuda {

// Floating dtypes are covered, and any dtype where there is nothing to sum: outer products, empty ones.
bool gemm_covers(const GemmProblem& problem);

// `workspace` has gemm_workspace_bytes(problem): the parts of sums over k that are cut among blocks, the same on every
// device. allow_tf32: f32 on tensor cores, with 10 bits of mantissa in the factors.
int64_t gemm_workspace_bytes(const GemmProblem& problem);
void launch_gemm(const GemmProblem& problem, bool allow_tf32, void* workspace, cudaStream_t stream);

}  // namespace tensorops::cuda
