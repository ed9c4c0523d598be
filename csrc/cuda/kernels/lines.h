// Operands seen as lines along one dimension, for launchers that work on whole lines: softmax, scans, losses over classes.
#pragma once

#include <cstdint>

#include "ops/dtype.h"

namespace tensorops::cuda {

constexpr int kMaxAxes = 16;   // dimensions besides the lines' own
constexpr int kLineOperands = 3;

struct Lines {
  int64_t count, length;
  int axes = 0;  // innermost first
  int64_t sizes[kMaxAxes];
  struct {
    char* data = nullptr;  // null: there is no such operand
    DType dtype = DType::f32;
    int64_t step = 0;      // bytes from one element of a line to the next
    int64_t strides[kMaxAxes] = {};
  } operands[kLineOperands];
  // `lanes` threads of a block work on one line; across: neighbouring threads are the same lane of neighbouring lines.
  bool across = false;
  bool vector = false;  // every operand's lines can be read 16 bytes at a time
  bool uniform = false;  // all operands have one floating dtype
  int lanes = 1;
};

}  // namespace tensorops::cuda
