// A stable sort of the few dimensions that a tensor has: std::stable_sort allocates a buffer even for one.
#pragma once

#include <utility>

namespace tensorops {

template <class Iterator, class Less>
void stable_sort(Iterator begin, Iterator end, Less less) {
  for (Iterator i = begin; i != end; ++i)
    for (Iterator j = i; j != begin && less(*j, *(j - 1)); --j) std::swap(*j, *(j - 1));
}

}  // namespace tensorops
