#include "cpu/kernels/transpose.h"

#include "cpu/kernels/vec.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

// Vectors of 16 bytes on every instruction set: a wider one would be shuffled across its lanes, at no gain.
constexpr int kBytes = 16;
template <class T>
struct Short { typedef T type __attribute__((vector_size(kBytes))); };

// A square of as many rows as a row has elements: each round interleaves row i with the one half of them further down.
template <class T>
TENSOROPS_INLINE void transpose_square(typename Short<T>::type* rows) {
  using V = typename Short<T>::type;
  constexpr int n = kBytes / sizeof(T);
  V low, high, next[n];
  for (int j = 0; j < n; ++j) {
    low[j] = static_cast<T>(j / 2 + j % 2 * n);
    high[j] = static_cast<T>(low[j] + n / 2);
  }
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + n / 2], low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + n / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
}

template <class T>
void transpose(const void* from, int64_t row, int64_t column, void* to, int64_t rows, int64_t columns) {
  constexpr int n = kBytes / sizeof(T);
  const char* in = static_cast<const char*>(from);
  T* out = static_cast<T*>(to);
  const auto one_by_one = [&](int64_t r, int64_t r_end, int64_t c_begin) TENSOROPS_LAMBDA_INLINE {
    for (; r < r_end; ++r)
      for (int64_t c = c_begin; c < columns; ++c) __builtin_memcpy(out + c * rows + r, in + r * row + c * column, sizeof(T));
  };
  const int64_t whole = column == int64_t(sizeof(T)) ? columns / n * n : 0;
  int64_t r = 0;
  for (; r + n <= rows; r += n) {
    for (int64_t c = 0; c < whole; c += n) {
      typename Short<T>::type square[n];
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) __builtin_memcpy(&square[i], in + (r + i) * row + c * int64_t(sizeof(T)), kBytes);
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) __builtin_memcpy(out + (c + i) * rows + r, &square[i], kBytes);
    }
    one_by_one(r, r + n, whole);
  }
  one_by_one(r, rows, 0);
}

}  // namespace

extern const TransposeKernels transpose_kernels;
const TransposeKernels transpose_kernels = {{transpose<uint8_t>, transpose<uint16_t>, transpose<uint32_t>, transpose<uint64_t>}};

}  // namespace tensorops::cpu::TENSOROPS_ISA
