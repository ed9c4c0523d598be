// Dimensions of N operands walked together: sizes and strides, innermost first, and the walk over pieces of their linear order.
#pragma once

#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>

namespace tensorops::cpu {

template <int N>
struct Axis {
  int64_t size;
  int64_t stride[N];
};
template <int N>
using Axes = c10::SmallVector<Axis<N>, 6>;

// Merges neighbours that every operand walks in one stride.
template <int N>
void coalesce(Axes<N>& axes) {
  size_t kept = 0;
  for (const Axis<N>& axis : axes) {
    bool merges = kept > 0;
    for (int i = 0; merges && i < N; ++i) merges = axis.stride[i] == axes[kept - 1].stride[i] * axes[kept - 1].size;
    if (merges) axes[kept - 1].size *= axis.size;
    else axes[kept++] = axis;
  }
  axes.resize(kept);
}

template <int N>
int64_t count(const Axes<N>& axes) {
  int64_t n = 1;
  for (const Axis<N>& axis : axes) n *= axis.size;
  return n;
}

// The innermost stride of operand i; 0 where there is one element only.
template <int N>
int64_t inner_stride(const Axes<N>& axes, int i) { return axes.empty() ? 0 : axes[0].stride[i]; }

// Calls f(offsets, n) for the pieces of [begin, end) that lie within one run of the innermost axis.
template <int N, class F>
void for_pieces(const Axes<N>& axes, int64_t begin, int64_t end, const F& f) {
  int64_t offsets[N] = {};
  if (axes.empty()) {
    if (begin < end) f(offsets, int64_t(1));
    return;
  }
  const Axis<N>& inner = axes[0];
  int64_t row = axes.size() == 1 ? 0 : begin / inner.size, at = begin - row * inner.size;
  while (begin < end) {
    for (int k = 0; k < N; ++k) offsets[k] = at * inner.stride[k];
    int64_t rest = row;
    for (size_t i = 1; i < axes.size(); ++i) {
      const int64_t index = i + 1 == axes.size() ? rest : rest % axes[i].size;
      for (int k = 0; k < N; ++k) offsets[k] += index * axes[i].stride[k];
      rest /= axes[i].size;
    }
    const int64_t n = std::min(end - begin, inner.size - at);
    f(offsets, n);
    begin += n;
    at = 0;
    ++row;
  }
}

}  // namespace tensorops::cpu
