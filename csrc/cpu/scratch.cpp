#include "cpu/scratch.h"

#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "cpu/allocator.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t kKept = int64_t(48) << 20;  // bytes that an idle thread may hold
constexpr int64_t kStep = 4096;
// From here on buffers are of whole huge pages: what small pages a long-lived process gets lies scattered, and the panels that
// a product goes through again and again then drive each other out of the L2 cache.
constexpr int64_t kLarge = 128 << 10;

struct Buffer {
  void* data;
  int64_t bytes;
};

// Freed with its thread; a Scratch that outlives the pool's destructor (there is none in practice) frees its own.
struct Pool {
  std::vector<Buffer> buffers;
  int64_t total = 0;
  ~Pool() {
    for (const Buffer& b : buffers) std::free(b.data);
  }
};
thread_local Pool pool;

}  // namespace

Scratch::Scratch(int64_t bytes) {
  const int64_t step = bytes >= kLarge ? static_cast<int64_t>(kHugePage) : kStep;
  bytes = (std::max<int64_t>(bytes, 1) + step - 1) / step * step;
  // The smallest kept buffer that is large enough.
  auto best = pool.buffers.end();
  for (auto it = pool.buffers.begin(); it != pool.buffers.end(); ++it)
    if (it->bytes >= bytes && (best == pool.buffers.end() || it->bytes < best->bytes)) best = it;
  if (best != pool.buffers.end()) {
    data_ = best->data;
    bytes_ = best->bytes;
    pool.total -= bytes_;
    *best = pool.buffers.back();
    pool.buffers.pop_back();
    return;
  }
  bytes_ = bytes;
  data_ = std::aligned_alloc(static_cast<size_t>(step), static_cast<size_t>(bytes));
  TORCH_CHECK_WITH(OutOfMemoryError, data_ != nullptr, "tensorops: could not allocate ", bytes, " bytes of working memory");
  if (step > kStep) madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // best effort
}

Scratch::~Scratch() {
  // Make room by letting go of smaller buffers: the newest demand is the best guess at the next one.
  while (pool.total + bytes_ > kKept && !pool.buffers.empty()) {
    const auto smallest = std::min_element(pool.buffers.begin(), pool.buffers.end(),
                                           [](const Buffer& a, const Buffer& b) { return a.bytes < b.bytes; });
    if (smallest->bytes > bytes_) break;
    std::free(smallest->data);
    pool.total -= smallest->bytes;
    *smallest = pool.buffers.back();
    pool.buffers.pop_back();
  }
  if (pool.total + bytes_ > kKept) {
    std::free(data_);
    return;
  }
  pool.buffers.push_back({data_, bytes_});
  pool.total += bytes_;
}

}  // namespace tensorops::cpu
