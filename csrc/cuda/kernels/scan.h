// Launchers of scans along lines: running sums, products, and the linear recurrence h_k = x_k + c_k * h_{k-1}.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/kernels/lines.h"

namespace tensorops::cuda {

enum class Scan : int { sum, prod, linear, count_ };

// Elements of a line that one block scans alone; a longer line is cut into pieces of this size.
constexpr int64_t kScanPiece = 16384;
// Bytes of workspace for `lines` when they are cut.
inline int64_t scan_workspace_bytes(const Lines& lines) {
  return lines.count * ((lines.length + kScanPiece - 1) / kScanPiece) * 24;
}
// Operands: the input; the coefficients, of the linear scan; the result. In reverse, lines begin at their far end. Floating
// results are summed in double, others in int64. The workspace is needed unless the geometry is across (a thread per line).
void launch_scan(Scan scan, const Lines& lines, bool reverse, void* workspace, cudaStream_t stream);

}  // namespace tensorops::cuda
