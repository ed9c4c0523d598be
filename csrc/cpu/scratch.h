// Working memory of a kernel: kept per thread and handed out again, so that no call pays for fresh pages.
#pragma once

#include <cstdint>

namespace tensorops::cpu {

// Addresses that many bytes apart fall into one set of the first cache, which holds 8 to 12 lines: rows that far apart are
// copied closer before they are gone through side by side.
constexpr int64_t kCacheWay = 4096;
constexpr int64_t kCacheLine = 64;  // bytes
// Bytes read and written that a core's share of the last cache does not hold: what is read next may then be fetched ahead, and
// results written past the caches.
constexpr int64_t kFar = 16 << 20;
// A call that moves so many bytes leaves nothing of its results in a last-level cache of 32 MB, common for one core complex,
// for whoever reads them from the start: they are written past the caches.
constexpr int64_t kPastCaches = int64_t(64) << 20;

class Scratch {
 public:
  explicit Scratch(int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Aligned to a cache line; the contents are whatever the last user left.
  template <class T = char>
  T* data() const { return static_cast<T*>(data_); }

 private:
  void* data_;
  int64_t bytes_;
};

}  // namespace tensorops::cpu
