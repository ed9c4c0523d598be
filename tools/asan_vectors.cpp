// What a build with AddressSanitizer calls before it reads or writes a vector: the runtime's own function is for any number of
// bytes and takes two thirds of the time of a test of convolutions. Linked into the extension, whose calls it takes; the runtime
// still reports.
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
void __asan_get_shadow_mapping(size_t* scale, size_t* offset);
void* __asan_region_is_poisoned(void* begin, size_t size);
void __asan_report_load_n(uintptr_t begin, uintptr_t size);
void __asan_report_store_n(uintptr_t begin, uintptr_t size);
}

#define TENSOROPS_PLAIN __attribute__((no_sanitize("address", "undefined")))

namespace {

struct Shadow {
  size_t scale, offset;
  TENSOROPS_PLAIN Shadow() { __asan_get_shadow_mapping(&scale, &offset); }
};
// Before all that may read or write a vector.
__attribute__((init_priority(101))) const Shadow shadow;

// A byte of the shadow stands for 8 bytes of memory, and is 0 where all of them may be touched: 64 bytes, which may begin within
// such a byte, have 9. Where one is not 0 the runtime decides.
TENSOROPS_PLAIN bool is_poisoned(void* begin, uintptr_t size) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = address >> shadow.scale, count = ((address + size - 1) >> shadow.scale) - first + 1;
  if (size >= 1 && count <= 9) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(first + shadow.offset);
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    if (count < 8) word <<= 64 - 8 * count;
    if (word == 0 && (count <= 8 || bytes[8] == 0)) return false;
  }
  return __asan_region_is_poisoned(begin, size) != nullptr;
}

}  // namespace

extern "C" {
__attribute__((visibility("hidden"))) TENSOROPS_PLAIN void __asan_loadN(void* begin, uintptr_t size) {
  if (is_poisoned(begin, size)) __asan_report_load_n(reinterpret_cast<uintptr_t>(begin), size);
}
__attribute__((visibility("hidden"))) TENSOROPS_PLAIN void __asan_storeN(void* begin, uintptr_t size) {
  if (is_poisoned(begin, size)) __asan_report_store_n(reinterpret_cast<uintptr_t>(begin), size);
}
}
