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
void transpose(const void* from, TileStrides of_from, void* to, TileStrides of_to, int64_t rows, int64_t columns) {
  constexpr int n = kBytes / sizeof(T);
  const char* in = static_cast<const char*>(from);
  char* out = static_cast<char*>(to);
  if (of_from.row == int64_t(sizeof(T)) && of_to.row == int64_t(sizeof(T))) {
    for (int64_t c = 0; c < columns; ++c) __builtin_memcpy(out + c * of_to.column, in + c * of_from.column, rows * sizeof(T));
    return;
  }
  if (rows < n || columns < n || of_from.column != int64_t(sizeof(T)) || of_to.row != int64_t(sizeof(T))) {
    const auto move = [&](int64_t r, int64_t c) TENSOROPS_LAMBDA_INLINE {
      __builtin_memcpy(out + r * of_to.row + c * of_to.column, in + r * of_from.row + c * of_from.column, sizeof(T));
    };
    if (rows > columns) {
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = 0; r < rows; ++r) move(r, c);
    } else {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) move(r, c);
    }
    return;
  }
  // The last squares cover some of those before once more.
  for (int64_t row = 0; row < rows; row += n) {
    const int64_t r = row + n <= rows ? row : rows - n;
    for (int64_t column = 0; column < columns; column += n) {
      const int64_t c = column + n <= columns ? column : columns - n;
      typename Short<T>::type square[n];
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) __builtin_memcpy(&square[i], in + (r + i) * of_from.row + c * int64_t(sizeof(T)), kBytes);
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) __builtin_memcpy(out + (c + i) * of_to.column + r * int64_t(sizeof(T)), &square[i], kBytes);
    }
  }
}

}  // namespace

extern const TransposeKernels transpose_kernels;
const TransposeKernels transpose_kernels = {{transpose<uint8_t>, transpose<uint16_t>, transpose<uint32_t>, transpose<uint64_t>}};

}  // namespace tensorops::cpu::TENSOROPS_ISA
