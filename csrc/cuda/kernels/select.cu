#include "cuda/kernels/select.h"

#include "cuda/kernels/fault.h"
#include "cuda/kernels/line_kernels.h"

namespace tensorops::cuda {
namespace {

// A thread per line; the elements are moved as words of their size.
template <class Word>
__global__ void __launch_bounds__(kThreads) select_kernel(LineArguments a, bool put, int* fault) {
  const LinePlace p = place_of(a);
  if (p.line >= a.count) return;
  const int64_t index = *reinterpret_cast<const int64_t*>(p.data[2]);
  if (index < 0 || index >= a.length) {
    *fault = kFaultIndex;
    return;
  }
  Word* const whole = reinterpret_cast<Word*>(p.data[0] + index * a.step[0]);
  Word* const picked = reinterpret_cast<Word*>(p.data[1]);
  if (put) *whole = *picked;
  else *picked = *whole;
}

}  // namespace

void launch_select(const Lines& lines, bool put, int* fault, cudaStream_t stream) {
  if (lines.count == 0) return;
  LineArguments a = arguments_of(lines);
  a.lanes = 1;
  const auto launch = [&](auto word) {
    select_kernel<decltype(word)><<<blocks_for(lines.count, kThreads), kThreads, 0, stream>>>(a, put, fault);
  };
  switch (element_size(a.dtype[0])) {
    case 1: return launch(uint8_t{});
    case 2: return launch(uint16_t{});
    case 4: return launch(uint32_t{});
    default: return launch(uint64_t{});
  }
}

}  // namespace tensorops::cuda
