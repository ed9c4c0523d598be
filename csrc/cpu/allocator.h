// The caching allocator behind large CPU outputs. Of the 18 ms that torch takes for abs on 16M floats, 15 are page faults
// on the fresh output; a block that has been used before has none.
#pragma once

#include <c10/core/Allocator.h>

#include <cstdint>

namespace tensorops::cpu {

constexpr size_t kHugePage = size_t(2) << 20;

// For an output of `bytes`: ours from kLargeBlock on, torch's own below.
c10::Allocator* allocator_for(size_t bytes);

// Returns every cached block to the operating system.
void empty_cache();

struct MemoryStats {
  int64_t allocated;       // bytes in live blocks
  int64_t peak_allocated;  // the most there have been
  int64_t cached;          // bytes in free blocks kept for reuse
  int64_t limit;           // the most that may be kept; 0 when the cache is off
  int64_t hits, misses;    // large allocations served from the cache, and from the operating system
};
MemoryStats memory_stats();

}  // namespace tensorops::cpu
