// Inner pooling kernels. As a rule they work on runs: n outputs side by side, each seen through the same taps, where
// taps[t][i] is what tap t of the window shows to output i. In channels_last memory a run is the channels of one pixel
// and the taps point into the tensor. In contiguous memory a run is a row of outputs and the taps point into staged
// rows: padded, converted to the compute type, and split by column modulo stride, so that taps are contiguous there too.
// Windows that move by 1 or 2 and lie inside slide over the rows themselves; backwards, a row of the input gathers.
// Beside runs there are whole planes: tiles, windows that lie side by side without gaps, and scatters, by which windows
// give their gradients to the elements under them.
#pragma once

#include <cstdint>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace tensorops::cpu {

// Elements that a kernel may touch behind the end of a staged row: a vector of the smallest compute type.
constexpr int64_t kPoolSlack = 16;

// Positions of a window up to which an element gathers its maxima's gradients from the windows that see it: beyond, it is less to
// scatter them.
constexpr int64_t kPoolGathered = 16;
// Vectors that a gather works on together; so many may it read behind the end of a staged row, beside what its taps name.
constexpr int64_t kPoolTogether = 4;

// What all runs have: `rows` of n outputs, tap_step elements apart in the taps and out_step in the results. What else
// belongs to an output of a row (its first position, its divisor) is the same in all rows. Elements [0, room) of a row's
// results may be overwritten, n <= room: what lies behind n is written later. Staged taps may be read up to kPoolSlack
// beyond n, the others up to n.
struct PoolRun {
  const void* const* taps;
  int64_t count;
  void* out;
  int64_t n, room;
  int64_t rows = 1, tap_step = 0, out_step = 0;
};

// The maximum and its position in the window; the first of equals, and the last NaN, as in torch.
struct MaxPoolRun : PoolRun {
  const int32_t* ids;    // tap t's position in the window
  const int32_t* first;  // where each output starts to look: its window's first position inside the image,
  bool shared_first;     // the same for the whole run if this is set
  void* position;
};
// The sum over the taps divided by `divisor`, which is of the compute type: one per output, or one for the run.
struct MeanPoolRun : PoolRun {
  const void* divisor;
  bool shared_divisor;
};
// The sum of those taps whose position is theirs: the gradient of the maximum, seen from an input element.
struct MaxPoolBackwardRun : PoolRun {
  const void* const* positions;
  const int32_t* ids;
};
// The way back of windows, each added to a plane: `planes` of them one after another, zeroed first. Of the `pitch` channels
// that a pixel has, `channels` are looked at; contiguous planes have one.
struct PoolScatter {
  const void* gradient;
  void* sums;
  int64_t planes, channels, pitch;
  int64_t out_height, out_width, height, width;
  int64_t top, left, row_step, column_step;  // where the first window begins, and from window to window
  int64_t span_height, span_width;           // of a window
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

// The way back into contiguous memory, for a row of `width` elements: element step * q + p of phase p adds up what window columns
// q + offset[t] hold, for its taps t in [begin[p], begin[p + 1]), in `rows` rows of windows. That is what has position
// ids[r] + column[t] in staged rows, with zeros around; or, for averages, all in rows of the tensor, divided by those of divisors,
// of the compute type and kPoolSlack longer.
struct PoolGather {
  const void *const *gradients, *const *positions, *const *divisors;
  const int32_t* ids;
  int64_t rows;
  const int64_t *begin, *offset;
  const int32_t* column;
  int64_t windows, step, width, room;  // windows of a row
  void* summed;  // where averages add up rows: a staged row of zeros
  void* out;
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

// A row of n outputs, one step of 1 or 2 elements after the other, whose windows lie inside the input but for rows of them that all
// miss. What is described is the first; `readable` elements from its first on can be read without a fault, and elements [0, room)
// of the results be overwritten, n <= room.
struct PoolSlideRun : PoolWindowRun {
  int64_t step, n, readable, room;
};

// A row of `width` elements, `readable` of them without a fault, into `phases` rows of `columns` elements, `pitch` apart:
// staged[r * pitch + j] = row[j * stride + r - padding], and outside the row zero or the dtype's lowest value.
struct PoolStage {
  const void* row;
  int64_t width, readable, padding, stride, phases, columns, pitch;
  bool lowest;
  void* staged;
};
enum class PoolPosition : int { none, u8, i32, count };
enum class PoolTaps : int { staged, direct, count };

struct PoolingKernels {
  static constexpr int kTaps = static_cast<int>(PoolTaps::count), kDTypes = static_cast<int>(DType::count);
  // Null where torch has no such pooling for the dtype.
  void (*max[kTaps][static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolRun&);
  void (*mean[kTaps][kDTypes])(const MeanPoolRun&);
  void (*max_tiles[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolTiles&);
  void (*mean_tiles[kDTypes])(const PoolTiles&);
  void (*max_window[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolWindowRun&);
  void (*mean_window[kDTypes])(const PoolWindowRun&);
  // Return how many outputs, from the first on, are done: those that are not would need elements that cannot be read.
  int64_t (*max_slide[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolSlideRun&);
  int64_t (*mean_slide[kDTypes])(const PoolSlideRun&);
  void (*max_backward[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolBackwardRun&);  // direct taps
  void (*max_scatter[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolScatter&);
  // Of windows that do not overlap: the sums, of one gradient each, are of the result's own dtype.
  void (*max_scatter_apart[static_cast<int>(PoolPosition::count)][kDTypes])(const MaxPoolScatter&);
  void (*mean_scatter[kDTypes])(const MeanPoolScatter&);
  // With no position, averages.
  void (*tiles_backward[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolTilesBackward&);
  // With no position, averages.
  void (*gather[static_cast<int>(PoolPosition::count)][kDTypes])(const PoolGather&);
  void (*mean_backward[kDTypes])(const MeanPoolBackwardRun&);
  void (*stage[kDTypes])(const PoolStage&);
  // n elements of the compute type as the dtype.
  void (*unstage[kDTypes])(const void* staged, int64_t n, void* out);
  // Adds grad[p][c] to sums[index[p][c]][c], for rows of `channels`; an index outside [0, size) is padding.
  void (*scatter_add[kDTypes])(const void* grad, const int64_t* index, int64_t n, int64_t channels, int64_t size,
                               void* sums);
};

TENSOROPS_DECLARE_KERNELS(PoolingKernels, pooling_kernels)

}  // namespace tensorops::cpu
