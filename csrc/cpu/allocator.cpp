#include "cpu/allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace tensorops::cpu {
namespace {

// Below this glibc's own reuse is as good, and a 2 MB granule would waste memory.
constexpr size_t kLargeBlock = size_t(1) << 20;

// A mapping and the part of it that starts on a huge page border.
struct Block {
  void* mapping;
  size_t mapped;
  void* data;
  size_t size;
};

// Sizes in steps of an eighth of their power of two: little is wasted, and similar tensors share blocks.
size_t size_class(size_t bytes) {
  size_t step = kHugePage;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

// TENSOROPS_CACHE_LIMIT in bytes, 0 for off; by default an eighth of the machine's memory.
size_t cache_limit() {
  if (const char* text = std::getenv("TENSOROPS_CACHE_LIMIT")) {
    size_t limit = 0;
    const char* end = text + std::strlen(text);
    const auto [read, error] = std::from_chars(text, end, limit);
    TORCH_CHECK(error == std::errc() && read == end, "TENSOROPS_CACHE_LIMIT must be a number of bytes, got '", text, "'");
    return limit;
  }
  return size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGE_SIZE)) / 8;
}

class CachingAllocator final : public c10::Allocator {
 public:
  CachingAllocator() : limit_(cache_limit()) {}

  c10::DataPtr allocate(size_t bytes) override {
    Block* block = take(size_class(bytes));
    return {block->data, block, &CachingAllocator::release, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }

  bool enabled() const { return limit_ > 0; }

  void empty() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [size, blocks] : free_)
      for (Block* block : blocks) unmap(block);
    free_.clear();
    stats_.cached = 0;
  }

  MemoryStats stats() {
    std::lock_guard<std::mutex> lock(mutex_);
    MemoryStats stats = stats_;
    stats.limit = static_cast<int64_t>(limit_);
    return stats;
  }

  std::mutex& mutex() { return mutex_; }

 private:
  Block* take(size_t size) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      account(size);
      const auto found = free_.find(size);
      if (found != free_.end() && !found->second.empty()) {
        Block* block = found->second.back();
        found->second.pop_back();
        stats_.cached -= static_cast<int64_t>(size);
        ++stats_.hits;
        return block;
      }
      ++stats_.misses;
    }
    Block* block = map(size);
    if (block == nullptr) {  // memory is short: give back what is kept, once
      empty();
      block = map(size);
    }
    if (block == nullptr) {
      std::lock_guard<std::mutex> lock(mutex_);
      stats_.allocated -= static_cast<int64_t>(size);
      TORCH_CHECK_WITH(OutOfMemoryError, false, "tensorops: not enough memory: you tried to allocate ", size, " bytes.");
    }
    return block;
  }

  void account(size_t size) {
    stats_.allocated += static_cast<int64_t>(size);
    stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
  }

  static Block* map(size_t size) {
    const size_t mapped = size + kHugePage;
    void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    const auto address = reinterpret_cast<uintptr_t>(mapping);
    void* data = reinterpret_cast<void*>((address + kHugePage - 1) / kHugePage * kHugePage);
#if defined(MADV_HUGEPAGE)
    madvise(data, size, MADV_HUGEPAGE);
#endif
    return new Block{mapping, mapped, data, size};
  }

  static void unmap(Block* block) {
    munmap(block->mapping, block->mapped);
    delete block;
  }

  static void release(void* context);

  void put(Block* block) {
    std::unique_lock<std::mutex> lock(mutex_);
    stats_.allocated -= static_cast<int64_t>(block->size);
    if (static_cast<size_t>(stats_.cached) + block->size > limit_) {
      lock.unlock();
      unmap(block);
      return;
    }
    stats_.cached += static_cast<int64_t>(block->size);
    free_[block->size].push_back(block);
  }

  const size_t limit_;
  std::mutex mutex_;
  std::map<size_t, std::vector<Block*>> free_;
  MemoryStats stats_{};
};

// Never destroyed: tensors may outlive every static object.
CachingAllocator& instance() {
  static CachingAllocator* const allocator = [] {
    auto* made = new CachingAllocator();
    // A child of fork gets the lock in a known state, whatever other threads were doing.
    pthread_atfork([] { instance().mutex().lock(); }, [] { instance().mutex().unlock(); },
                   [] { instance().mutex().unlock(); });
    return made;
  }();
  return *allocator;
}

void CachingAllocator::release(void* context) { instance().put(static_cast<Block*>(context)); }

}  // namespace

c10::Allocator* allocator_for(size_t bytes) {
  if (bytes >= kLargeBlock && instance().enabled()) return &instance();
  return c10::GetCPUAllocator();
}

void empty_cache() { instance().empty(); }
MemoryStats memory_stats() { return instance().stats(); }

}  // namespace tensorops::cpu
