// The tile product of convolution and its packing, for products of bf16 by VDPBF16PS.
#include "cpu/kernels/convolution.h"

#include "cpu/kernels/avx512_bf16/pack.h"
#include "cpu/kernels/conv_tile.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

void pack(const void* first, const void* second, int64_t lane_stride, int64_t step_stride, int64_t lanes, int64_t steps,
          int width, void* to) {
  pack_panel(static_cast<const BFloat16*>(first), static_cast<const BFloat16*>(second), lane_stride, step_stride, lanes,
             steps, width, static_cast<Bf16Pair*>(to));
}

void pair_rows(const void* first, const void* second, int64_t stride, int64_t n, void* to) {
  const BFloat16* x = static_cast<const BFloat16*>(first);
  const BFloat16* y = static_cast<const BFloat16*>(second);
  Bf16Pair* out = static_cast<Bf16Pair*>(to);
  if (stride == 1) {
    for (int64_t i = 0; i < n; i += Pairs::size) {
      const int64_t lanes = n - i < Pairs::size ? n - i : Pairs::size;
      store_lanes(interleave(x + i, y == nullptr ? nullptr : y + i, lanes), out + i, lanes);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = pair_of(x[i * stride], y == nullptr ? BFloat16{0} : y[i * stride]);
}

}  // namespace

extern const ConvBf16Kernels conv_bf16_kernels;
const ConvBf16Kernels conv_bf16_kernels = {tile<Bf16Pair, float>, pack, pair_rows};

}  // namespace tensorops::cpu::TENSOROPS_ISA
