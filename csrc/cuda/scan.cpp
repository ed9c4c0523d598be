// Scans on CUDA.
#include "ops/scan.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include "cuda/kernels/scan.h"
#include "cuda/launch.h"
#include "cuda/lines.h"

namespace tensorops::cuda {
namespace {

using at::Tensor;
using Dtype = std::optional<c10::ScalarType>;

// A thread per line pays only where there are many lines or they are short.
constexpr int64_t kManyLines = 8192;
constexpr int64_t kShortLine = 64;

void scan_into(Scan scan, const Tensor& input, const Tensor* coefficient, const Tensor& result, int64_t dim, bool reverse) {
  TORCH_CHECK_NOT_IMPLEMENTED(!c10::isComplexType(result.scalar_type()), "cumsum, cumprod: complex tensors are not covered");
  if (result.numel() == 0) return;
  if (result.scalar_type() == c10::kBool) {
    // As in torch: no scan in bool, but a single number is its own.
    TORCH_CHECK_NOT_IMPLEMENTED(input.dim() == 0, "\"", scan == Scan::sum ? "cumsum" : "cumprod", "\" not implemented for 'Bool'");
    result.copy_(input);
    return;
  }
  Lines lines = make_lines("scan", result, {&input, coefficient, &result}, dim);
  lines.across = lines.length <= kShortLine || (lines.across && lines.count >= kManyLines);
  Tensor workspace;
  if (!lines.across && lines.length > kScanPiece)
    workspace = empty({scan_workspace_bytes(lines)}, c10::kByte, input.device());
  launch_scan(scan, lines, reverse, workspace.defined() ? workspace.data_ptr() : nullptr, stream());
  check_launch();
}

template <Scan scan>
Tensor functional(const Tensor& input, int64_t dim, Dtype dtype) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Guard guard(input.device());
  const Tensor result = empty(input.sizes(), scan_dtype(input, dtype), input.device());
  scan_into(scan, input, nullptr, result, dim, false);
  return result;
}

template <Scan scan>
Tensor& out_variant(const Tensor& input, int64_t dim, Dtype dtype, Tensor& out) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  check_same_device({&input, &out});
  const Guard guard(input.device());
  TORCH_CHECK(!dtype || *dtype == out.scalar_type(), "Expected out tensor to have dtype ", dtype.value_or(out.scalar_type()),
              ", but got ", out.scalar_type(), " instead");
  at::native::resize_output(out, input.sizes());
  at::assert_no_internal_overlap(out);
  at::assert_no_partial_overlap(out, input);
  // Threads look ahead of what has been written.
  if (out.is_alias_of(input)) out.copy_(functional<scan>(input, dim, out.scalar_type()));
  else scan_into(scan, input, nullptr, out, dim, false);
  return out;
}

template <Scan scan>
Tensor& inplace(Tensor& self, int64_t dim, Dtype dtype) {
  check_scan_inplace(self, dtype);
  return out_variant<scan>(self, dim, dtype, self);
}

Tensor reverse_cumsum(const Tensor& input, int64_t dim) {
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Guard guard(input.device());
  const Tensor result = empty(input.sizes(), input.scalar_type(), input.device());
  scan_into(Scan::sum, input, nullptr, result, dim, true);
  return result;
}

Tensor linear_scan(const Tensor& input, const Tensor& coefficient, int64_t dim, bool reverse) {
  TORCH_CHECK(input.sizes() == coefficient.sizes(), "_linear_scan: shapes ", input.sizes(), " and ", coefficient.sizes(),
              " of input and coefficient differ");
  check_same_device({&input, &coefficient});
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Guard guard(input.device());
  const Tensor result = empty(input.sizes(), input.scalar_type(), input.device());
  scan_into(Scan::linear, input, &coefficient, result, dim, reverse);
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) {
  library.impl("cumsum", functional<Scan::sum>);
  library.impl("cumprod", functional<Scan::prod>);
  library.impl("cumsum_", inplace<Scan::sum>);
  library.impl("cumprod_", inplace<Scan::prod>);
  library.impl("cumsum.out", out_variant<Scan::sum>);
  library.impl("cumprod.out", out_variant<Scan::prod>);
  library.impl("_reverse_cumsum", reverse_cumsum);
  library.impl("_linear_scan", linear_scan);
  library.impl("_cumprod_gradient", ops::cumprod_gradient_by_scan);
}

}  // namespace tensorops::cuda
