// The micro-kernel and the packing for products of bf16 by VDPBF16PS.
#include "cpu/kernels/gemm.h"

#include "cpu/kernels/avx512_bf16/pack.h"
#include "cpu/kernels/gemm_tile.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

void micro(const GemmTile& tile, const GemmEpilogue& e) {
  if (tile.a_row == 1) for_columns<Bf16Pair, float, true>(tile, e);
  else for_columns<Bf16Pair, float, false>(tile, e);
}

void pack(const void* from, int64_t lane_stride, int64_t step_stride, int64_t lanes, int64_t k, int width, void* to) {
  const BFloat16* source = static_cast<const BFloat16*>(from);
  Bf16Pair* panel = static_cast<Bf16Pair*>(to);
  for (; lanes > 0; lanes -= width, source += width * lane_stride) {
    const int64_t present = lanes < width ? lanes : width;
    pack_panel(source, source + step_stride, lane_stride, 2 * step_stride, present, k / 2, width, panel);
    panel += width * (k / 2);
    if (k % 2 == 0) continue;
    pack_panel(source + (k - 1) * step_stride, nullptr, lane_stride, 0, present, 1, width, panel);
    panel += width;
  }
}

}  // namespace

extern const GemmBf16Kernels gemm_bf16_kernels;
const GemmBf16Kernels gemm_bf16_kernels = {{rows_of<float>, columns_of<float>, Vec<float>::size}, micro, pack};

}  // namespace tensorops::cpu::TENSOROPS_ISA
