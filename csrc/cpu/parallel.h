// Threads: torch's own pool, so that torch.set_num_threads is obeyed. How work is cut must not show in the results: it is cut
// by size, or where each result is computed alike whatever piece it falls into.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace tensorops::cpu {

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// f(begin, end) over pieces of [0, n). `cost` is the work of one item in units of a cheap elementwise operation; a range
// worth less than kGrain such units stays on the calling thread.
constexpr int64_t kGrain = 32768;
template <class F>
void parallel(int64_t n, int64_t cost, const F& f) {
  if (n <= 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cost));
  if (n <= grain) return f(0, n);  // what parallel_for comes to, without a look at the pool
  at::parallel_for(0, n, grain, f);
}

}  // namespace tensorops::cpu
