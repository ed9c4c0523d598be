// Inner pooling kernels. In channels_last memory they work on runs: the channels of a pixel side by side, each seen through the
// same taps, where taps[t][i] is what tap t of the window shows to output i. In contiguous memory they work on planes, whose
// windows share what the columns of windows hold in a row: forwards a row is looked at once, by columns, and an output then by
// rows; backwards a row of the input gathers from the rows of windows that see it. Tiles, windows that lie side by side without
// gaps, share nothing and need no staging. Scatters, by which windows give their gradients to the elements under them, and windows
// by themselves are for planes whose rows have few windows, or windows of many positions.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace tensorops::cpu {

// Elements that a kernel may touch behind the end of a staged row: a vector of the smallest compute type.
constexpr int64_t kPoolSlack = 16;
// Vectors that a gather works on together; so many may it read behind the end of a staged row, beside what its taps name.
constexpr int64_t kPoolTogether = 4;

// Positions of a window up to which an element gathers its maxima's gradients from the windows that see it: beyond, it is less to
// scatter them.
constexpr int64_t kPoolGathered = 16;

// What all runs have: `rows` of n outputs, tap_step elements apart in the taps and out_step in the results.
struct PoolRun {
  const void* const* taps;
  int64_t count;
  void* out;
  int64_t n, rows, tap_step, out_step;
  const void* ahead = nullptr;  // with each row so many cache lines more of what later runs read are fetched from there
  int64_t ahead_lines = 0;
  bool streams = false;  // gradients: whole vectors, which are then aligned, are written past the caches, and end_stream is due
};

// The maximum and its position in the window; the first of equals, and the last NaN, as in torch.
struct MaxPoolRun : PoolRun {
  const int32_t* ids;  // tap t's position in the window
  int32_t first;       // where outputs start to look: their windows' first position inside the image
  void* position;
};
// The sum over the taps divided by `divisor`, of the compute type.
struct MeanPoolRun : PoolRun {
  const void* divisor;
};
// The sum of those taps whose position is theirs: the gradient of the maximum, seen from an input element.
struct MaxPoolBackwardRun : PoolRun {
  const void* const* positions;
  const int32_t* ids;
};
// Windows over a plane.
struct PoolGeometry {
  int64_t height, width, out_height, out_width;
  int64_t top, left, row_step, column_step;  // where the first window begins, and from window to window
};

// The way back of windows, each added to a plane: `planes` of them one after another, zeroed first. Of the `pitch` channels
// that a pixel has, `channels` are looked at; contiguous planes have one.
struct PoolScatter : PoolGeometry {
  const void* gradient;
  void* sums;
  int64_t planes, channels, pitch;
  int64_t span_height, span_width;  // of a window
};
// Gradient i is added to what its position names. Positions that no window has, or that lie outside the plane, name nothing.
struct MaxPoolScatter : PoolScatter {
  const void* position;
  int64_t positions;  // in a window; where position k is in it, and how far in the plane from its first
  const int64_t *row, *column, *offset;
};
// Gradient i divided by divisor i, of the compute type, is added to all of its window that lies inside the plane.
struct MeanPoolScatter : PoolScatter {
  const void* divisor;
};
// Rows of windows of two columns that tile a plane, whole windows all of them: nothing has to be staged.
struct PoolTiles {
  const void* in;
  int64_t rows;  // of a window
  int64_t out_height, out_width, width;
  int64_t readable, room;  // elements of the plane without a fault, and of the results that are this caller's to write
  double divisor;          // of averages
  void *out, *position;
};
// Their way back: each element has one window.
struct PoolTilesBackward {
  const void *gradient, *position;
  int64_t rows;  // of a window
  int64_t out_height, out_width, width;
  int64_t readable;        // elements of the gradient without a fault
  int64_t elements, room;  // of the result: to be written, zeros behind the windows, and that are this caller's to write
  double divisor;          // of averages
  void* out;
};
// The sum of taps, which lie in the tensor, times their scales.
struct MeanPoolBackwardRun : PoolRun {
  const double* scales;
};

// Rows [begin, end) of something in contiguous planes, counted over all planes, are made from staged rows: `pitch` values of the
// compute type and, with maxima, as many positions in integers as wide. Row y of a plane is staged in slot y modulo `slots`, a
// power of two, when it is first needed. held says which row, counted over all planes, a slot has; it begins with -1.
struct PoolStaged {
  int64_t begin, end;
  int64_t slots, pitch;
  int64_t* held;
  void* rows;
};

// Rows of outputs. What the columns of windows hold in a row of the input is staged: a maximum and the column it is in, or a sum.
struct PoolPlanes : PoolGeometry {
  const void* in;
  int64_t elements;  // of the input
  int64_t row_dilation, column_dilation;
  int64_t columns;                        // of a window
  // By row and by column of outputs, kPoolSlack more of these: the positions of a window from first on, before end, are inside.
  const int32_t *first_row, *end_row, *first_column, *end_column;
  int64_t whole_begin, whole_end;         // columns of outputs whose windows have all columns inside
  const void* divisors;                   // of averages, of the compute type: those of row oh from element divisor_start[oh] on,
  const int64_t* divisor_start;           // and kPoolSlack more
  void *out, *position;
  PoolStaged staged;
};

// A row of windows that sees a row of the input, and at which of its positions.
struct PoolSight {
  int64_t window, position;
};
// Rows of the input's gradient, the way back. Rows of windows are staged: the gradients, divided where they are averages', with
// `margin` zeros before and some behind them, and the positions. Row y of a plane is seen by sights [sights_begin[y],
// sights_begin[y + 1]); element step * q + p of a row, which is of phase p, by window columns q + offset[t] at their columns
// column[t], for its taps t in [taps_begin[p], taps_begin[p + 1]).
struct PoolGather : PoolGeometry {
  const void *gradient, *position;
  int64_t elements;  // of the gradient
  int64_t columns;  // of a window
  const int64_t* sights_begin;
  const PoolSight* sights;
  const int64_t *taps_begin, *offset;
  const int32_t* column;
  int64_t step, margin;
  const void* divisors;  // as above
  const int64_t* divisor_start;
  void* summed;  // for averages, which add up rows first: as a staged row
  void* out;
  PoolStaged staged;
};

// One output by itself, or some alike: its window's part inside the input. For rows of so few outputs that vectors along them are
// empty.
struct PoolWindowRun {
  const void* first;
  int64_t rows, columns, row_stride, column_stride;
  int32_t first_id, id_pitch;  // positions of the first element, and from row to row
  const void* divisor;         // of the mean, of the compute type
  void *out, *position;
  int64_t outputs = 1, apart = 0;  // as many, whose windows are so many elements apart
};

enum class PoolPosition : int { none, u8, i32, count };

struct PoolingKernels {
  static constexpr int kDTypes = static_cast<int>(DType::count);
  // Null where torch has no such pooling for the dtype.
  void (*max[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolRun&);
  void (*mean[kDTypes])(const MeanPoolRun&);
  void (*max_planes[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolPlanes&);
  void (*mean_planes[kDTypes])(const PoolPlanes&);
  void (*max_tiles[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolTiles&);
  void (*mean_tiles[kDTypes])(const PoolTiles&);
  void (*max_window[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolWindowRun&);
  void (*mean_window[kDTypes])(const PoolWindowRun&);
  void (*max_backward[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolBackwardRun&);
  void (*max_scatter[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolScatter&);
  // Of windows that do not overlap: the sums, of one gradient each, are of the result's own dtype.
  void (*max_scatter_apart[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolScatter&);
  void (*mean_scatter[kDTypes])(const MeanPoolScatter&);
  // With no position, averages.
  void (*tiles_backward[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolTilesBackward&);
  // With no position, averages.
  void (*gather[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolGather&);
  void (*mean_backward[kDTypes])(const MeanPoolBackwardRun&);
  void (*end_stream)();
  // n elements of the compute type as the dtype.
  void (*unstage[kDTypes])(const void* staged, int64_t n, void* out);
  // Adds grad[p][c] to sums[index[p][c]][c], for rows of `channels`; an index outside [0, size) is padding.
  void (*scatter_add[kDTypes])(const void* grad, const int64_t* index, int64_t n, int64_t channels, int64_t size,
                               void* sums);
};

TENSOROPS_DECLARE_KERNELS(PoolingKernels, pooling_kernels)

}  // namespace tensorops::cpu
