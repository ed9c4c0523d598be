// What the kernels that multiply tiles fetch of the memory that is read next.
#pragma once

#include <cstdint>

namespace tensorops::cpu {

// Rows that lie apart, fetched line by line while tiles are multiplied: so many lines every so many steps, of convolution at every
// chain of steps. Unlike `Ahead` (lanes.h), which lives as long as one call of a kernel, it goes from one tile to the next.
struct FetchAhead {
  const char* row = nullptr;
  int64_t rows = 0, stride = 0, bytes = 0;  // of one row, and from one to the next, in bytes
  int64_t lines = 0, steps = 0;
  int64_t byte = 0;  // of the row, that is next
};

}  // namespace tensorops::cpu
