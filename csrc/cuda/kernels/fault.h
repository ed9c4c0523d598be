// What a kernel writes to the fault word (launch.h) when it meets what it must not use.
#pragma once

namespace tensorops::cuda {

constexpr int kFaultIndex = 1;        // a label or index out of bounds
constexpr int kFaultProbability = 2;  // not between 0 and 1

}  // namespace tensorops::cuda
