// Pooling on the CPU: walks runs or planes (see kernels/pooling.h) and threads over rows of them, or over planes.
// Every output is computed from the inputs under its window alone; on the way back an element's windows are added in their
// order, by one thread. So no result depends on how the work is shared out.
#include "ops/pooling.h"

#include <c10/util/SmallVector.h>
#include <torch/library.h>

#include <bit>
#include <cstring>
#include <vector>

#include "cpu/dtype.h"
#include "cpu/kernels/pooling.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {
namespace {

using at::Tensor;
using Ints = c10::IntArrayRef;

// The planes of a tensor as the loops see them: `images` of height * width pixels of `channels` neighbouring elements.
// Contiguous memory has one image per plane, of one channel.
struct Planes {
  int64_t images, channels, height, width;
  bool channels_last;

  Planes(const Tensor& t, c10::MemoryFormat format)
      : channels(1), height(t.size(-2)), width(t.size(-1)), channels_last(format == c10::MemoryFormat::ChannelsLast) {
    if (channels_last) channels = t.size(1);
    images = t.dim() == 3 ? t.size(0) : channels_last ? t.size(0) : t.size(0) * t.size(1);
  }
  int64_t area() const { return height * width; }
  int64_t row(int64_t image, int64_t y) const { return (image * height + y) * width * channels; }
  int64_t elements() const { return images * area() * channels; }
};

const char* bytes(const Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); }
char* mutable_bytes(const Tensor& t) { return static_cast<char*>(t.data_ptr()); }

int64_t compute_size(c10::ScalarType dtype) {
  const Compute compute = compute_type(dtype_of(dtype));
  return compute == Compute::f64 || compute == Compute::i64 ? 8 : 4;
}

template <class F>
void by_compute_type(c10::ScalarType dtype, F f) {
  switch (compute_type(dtype_of(dtype))) {
    case Compute::f64: return f(double());
    case Compute::i64: return f(int64_t());
    default: return f(float());
  }
}

template <class Kernel>
Kernel kernel_for(const char* op, Kernel const (&table)[PoolingKernels::kDTypes], c10::ScalarType dtype) {
  const Kernel kernel = table[static_cast<int>(dtype_of(dtype))];
  TORCH_CHECK_NOT_IMPLEMENTED(kernel != nullptr, "\"", op, "\" not implemented for '", dtype, "'");
  return kernel;
}

PoolPosition position_kind(const Tensor& position) {
  return position.scalar_type() == c10::kByte ? PoolPosition::u8 : PoolPosition::i32;
}

// Places for the staged rows of a task: of `needed` neighbouring ones, as a window reaches over, out of `height`. A row has
// `elements` of `size` bytes, and `kinds` times so many.
class Staged {
 public:
  Staged(int64_t height, int64_t needed, int64_t elements, int64_t size, int64_t kinds)
      : held_(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(1, std::min(height, needed)))), -1),
        pitch_(elements),
        rows_(static_cast<int64_t>(held_.size()) * kinds * pitch_ * size) {}
  PoolStaged rows(int64_t begin, int64_t end) {
    return {begin, end, static_cast<int64_t>(held_.size()), pitch_, held_.data(), rows_.data()};
  }

 private:
  std::vector<int64_t> held_;
  int64_t pitch_;
  Scratch rows_;
};

// The taps of one run.
class Taps {
 public:
  explicit Taps(const PoolWindow& window)
      : data_(window.positions()), positions_(window.positions()), ids_(window.positions()), scales_(window.positions()) {}

  void clear() { count_ = 0; }
  void add(const void* tap, int64_t id) {
    data_[count_] = tap;
    ids_[count_++] = static_cast<int32_t>(id);
  }
  void add(const void* tap, const void* position, int64_t id, double scale) {
    positions_[count_] = position;
    scales_[count_] = scale;
    add(tap, id);
  }
  template <class Run>
  void set(Run& run) const {
    run.taps = data_.data();
    run.count = count_;
    if constexpr (requires { run.ids; }) run.ids = ids_.data();
    if constexpr (requires { run.positions; }) run.positions = positions_.data();
    if constexpr (requires { run.scales; }) run.scales = scales_.data();
  }

 private:
  c10::SmallVector<const void*, 16> data_, positions_;
  c10::SmallVector<int32_t, 16> ids_;
  c10::SmallVector<double, 16> scales_;
  int64_t count_ = 0;
};

// Calls f(k, i) for each position k of window o that lies inside the input, at element i.
template <class F>
void for_inside(const PoolAxis& axis, int64_t o, int64_t size, F f) {
  for (int64_t k = axis.first_inside(o), i = axis.origin(o) + k * axis.dilation; k < axis.kernel && i < size;
       ++k, i += axis.dilation)
    f(k, i);
}

PoolGeometry geometry_of(const Planes& in, const Planes& out, const PoolWindow& window) {
  return {in.height, in.width, out.height, out.width, window.h.origin(0), window.w.origin(0), window.h.stride, window.w.stride};
}

// For each input element the windows that see it, in ascending order, and at which of their positions.
class Windows {
 public:
  Windows(const PoolAxis& axis, int64_t in, int64_t out) : begin_(in + 1) {
    for (int64_t i = 0; i < in; ++i) {
      for (int64_t k = axis.kernel - 1; k >= 0; --k) {
        const int64_t from = i + axis.padding - k * axis.dilation;
        if (from >= 0 && from % axis.stride == 0 && from / axis.stride < out) sights_.push_back({from / axis.stride, k});
      }
      begin_[i + 1] = static_cast<int64_t>(sights_.size());
    }
  }
  c10::ArrayRef<PoolSight> of(int64_t i) const {
    return {sights_.data() + begin_[i], static_cast<size_t>(begin_[i + 1] - begin_[i])};
  }
  const int64_t* begin() const { return begin_.data(); }
  const PoolSight* sights() const { return sights_.data(); }

 private:
  std::vector<PoolSight> sights_;
  std::vector<int64_t> begin_;
};

// The positions [first, end) of each window of an axis that are inside the input.
struct Insides {
  c10::SmallVector<int32_t, 64> first, end;

  Insides(const PoolAxis& axis, int64_t in_size, int64_t out_size) : first(out_size + kPoolSlack), end(out_size + kPoolSlack) {
    for (int64_t o = 0; o < out_size; ++o) {
      const int64_t skipped = axis.first_inside(o), begin = axis.origin(o) + skipped * axis.dilation;
      const int64_t fitting = begin < in_size ? (in_size - begin - 1) / axis.dilation + 1 : 0;
      first[o] = static_cast<int32_t>(skipped);
      end[o] = static_cast<int32_t>(std::min(axis.kernel, skipped + fitting));
    }
  }
};

// Contiguous memory, forwards. `divisors` and `divisor_start` are those of averages, `position` is undefined for them, and may be.
template <class Kernel>
void forward_planes(const Tensor& input, const Tensor& output, const Tensor& position, const PoolWindow& window,
                    const void* divisors, const int64_t* divisor_start, Kernel kernel) {
  const Planes in(input, c10::MemoryFormat::Contiguous), out(output, c10::MemoryFormat::Contiguous);
  const Insides rows(window.h, in.height, out.height), columns(window.w, in.width, out.width);
  PoolPlanes p{};
  static_cast<PoolGeometry&>(p) = geometry_of(in, out, window);
  p.in = bytes(input);
  p.elements = in.elements();
  p.row_dilation = window.h.dilation;
  p.column_dilation = window.w.dilation;
  p.columns = window.w.kernel;
  p.first_row = rows.first.data();
  p.end_row = rows.end.data();
  p.first_column = columns.first.data();
  p.end_column = columns.end.data();
  const auto whole = [&](int64_t ow) { return columns.first[ow] == 0 && columns.end[ow] == window.w.kernel; };
  while (p.whole_begin < out.width && !whole(p.whole_begin)) ++p.whole_begin;
  p.whole_end = p.whole_begin;
  while (p.whole_end < out.width && whole(p.whole_end)) ++p.whole_end;
  p.divisors = divisors;
  p.divisor_start = divisor_start;
  p.out = mutable_bytes(output);
  p.position = position.defined() ? mutable_bytes(position) : nullptr;
  const int64_t kinds = position.defined() ? 2 : 1;
  parallel(out.images * out.height, out.width * window.positions(), [&](int64_t begin, int64_t end) {
    Staged staged(in.height, window.h.span(), out.width + kPoolSlack, compute_size(input.scalar_type()), kinds);
    PoolPlanes task = p;
    task.staged = staged.rows(begin, end);
    kernel(task);
  });
}

// channels_last memory, forwards: a run is the channels of neighbouring output pixels of a row that see their windows
// through the same positions, and its taps are pixels of the input. `alike(a, b)` says whether neighbouring columns of
// outputs may share a run beside that; `prepare(run, i, oh, ow)` sets what Run has beyond PoolRun, for the run that begins at
// (oh, ow) with the i-th pixel.
template <class Run, class Kernel, class Alike, class Prepare>
void forward_pixels(const Tensor& input, const Tensor& output, const PoolWindow& window, Kernel kernel, const Alike& alike,
                    const Prepare& prepare) {
  const Planes in(input, c10::MemoryFormat::ChannelsLast), out(output, c10::MemoryFormat::ChannelsLast);
  const int64_t size = input.element_size();
  struct Segment {
    int64_t begin, count;                 // columns of outputs
    int64_t position, element, positions; // the first inside the input, and how many there are
  };
  c10::SmallVector<Segment, 8> segments;
  for (int64_t ow = 0; ow < out.width; ++ow) {
    Segment s{ow, 1, 0, 0, 0};
    for_inside(window.w, ow, in.width, [&](int64_t kw, int64_t x) {
      if (s.positions++ == 0) {
        s.position = kw;
        s.element = x;
      }
    });
    if (ow > 0 && s.position == segments.back().position && s.positions == segments.back().positions && alike(ow - 1, ow))
      ++segments.back().count;
    else segments.push_back(s);
  }
  const bool far = (in.elements() + out.elements()) * size >= kFar;
  parallel(out.images * out.height, out.width * out.channels * window.positions(), [&](int64_t begin, int64_t end) {
    Taps taps(window);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t image = row / out.height, oh = row % out.height;
      for (const Segment& s : segments) {
        taps.clear();
        for_inside(window.h, oh, in.height, [&](int64_t kh, int64_t y) {
          const char* pixel = bytes(input) + (in.row(image, y) + s.element * in.channels) * size;
          for (int64_t k = 0; k < s.positions; ++k, pixel += window.w.dilation * in.channels * size)
            taps.add(pixel, kh * window.w.kernel + s.position + k);
        });
        Run run{};
        taps.set(run);
        run.out = mutable_bytes(output) + (row * out.width + s.begin) * out.channels * size;
        run.n = run.out_step = out.channels;
        run.rows = s.count;
        run.tap_step = window.w.stride * in.channels;
        if (far && 2 * s.count > out.width) {  // the rows that the windows below look at first
          const int64_t below = std::min(in.height, window.h.origin(oh) + window.h.span());
          run.ahead = bytes(input) + in.row(image, below) * size;
          run.ahead_lines = divide_up(window.h.stride * in.width * in.channels * size, s.count * kCacheLine);
        }
        prepare(run, row * out.width + s.begin, oh, s.begin);
        kernel(run);
      }
    }
  });
}

// Windows of two columns that tile a contiguous plane, whole windows all of them.
bool tiles_plane(const PoolWindow& window, const Tensor& in, const Tensor& out) {
  const auto tiles = [](const PoolAxis& axis, int64_t in_size, int64_t out_size) {
    return axis.kernel == axis.stride && axis.padding == 0 && axis.dilation == 1 && out_size * axis.stride <= in_size;
  };
  return window.w.kernel == 2 && tiles(window.w, in.size(-1), out.size(-1)) && tiles(window.h, in.size(-2), out.size(-2));
}

// How many of the rows of windows [row, end) tile one piece of memory: those of a plane, or all, where windows cover planes from
// top to bottom.
int64_t rows_together(const Planes& in, const Planes& out, const PoolWindow& window, int64_t row, int64_t end) {
  if (in.height == out.height * window.h.stride) return end - row;
  return std::min(out.height - row % out.height, end - row);
}

// `position` may be undefined; averages are divided by `divisor`.
template <class Kernel>
void forward_tiles(const Tensor& input, const Tensor& output, const Tensor& position, const PoolWindow& window, double divisor,
                   Kernel kernel) {
  const Planes in(input, c10::MemoryFormat::Contiguous), out(output, c10::MemoryFormat::Contiguous);
  const int64_t size = input.element_size(), position_size = position.defined() ? position.element_size() : 0;
  char* positions = position.defined() ? mutable_bytes(position) : nullptr;
  parallel(out.images * out.height, window.h.stride * in.width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin, n; row < end; row += n) {
      const int64_t oh = row % out.height, from = in.row(row / out.height, oh * window.h.stride), to = row * out.width;
      n = rows_together(in, out, window, row, end);
      kernel({bytes(input) + from * size, window.h.kernel, n, out.width, in.width, in.elements() - from,
              (end - row) * out.width, divisor, mutable_bytes(output) + to * size, positions + to * position_size});
    }
  });
}

constexpr int64_t kNarrow = 3;         // outputs of a row up to which each is computed by itself
constexpr int64_t kChannelBlock = 64;  // channels of a pixel that are scattered together

// Contiguous memory, each output by itself. `prepare(run, i, oh, ow)` is called for the i-th output, at (oh, ow).
template <class Kernel, class Prepare>
void forward_windows(const Tensor& input, const Tensor& output, const PoolWindow& window, Kernel kernel, const Prepare& prepare) {
  const Planes in(input, c10::MemoryFormat::Contiguous), out(output, c10::MemoryFormat::Contiguous);
  const int64_t size = input.element_size();
  const char* from = bytes(input);
  char* to = mutable_bytes(output);
  const Insides rows(window.h, in.height, out.height), columns(window.w, in.width, out.width);
  parallel(out.images * out.height, out.width * window.positions(), [&](int64_t begin, int64_t end) {
    // Planes of one window are alike.
    const int64_t together = out.area() == 1 ? end - begin : 1;
    for (int64_t row = begin; row < end; row += together) {
      const int64_t image = row / out.height, oh = row % out.height;
      const int64_t kh = rows.first[oh];
      const int64_t y = window.h.origin(oh) + kh * window.h.dilation;
      for (int64_t ow = 0; ow < out.width; ++ow) {
        const int64_t kw = columns.first[ow];
        PoolWindowRun run{};
        run.first = from + (in.row(image, y) + window.w.origin(ow) + kw * window.w.dilation) * size;
        run.rows = std::max<int64_t>(0, rows.end[oh] - kh);
        run.columns = std::max<int64_t>(0, columns.end[ow] - kw);
        run.row_stride = in.width * window.h.dilation;
        run.column_stride = window.w.dilation;
        run.first_id = static_cast<int32_t>(kh * window.w.kernel + kw);
        run.id_pitch = static_cast<int32_t>(window.w.kernel);
        run.out = to + (row * out.width + ow) * size;
        run.outputs = together;
        run.apart = in.area();
        prepare(run, row * out.width + ow, oh, ow);
        kernel(run);
      }
    }
  });
}

// What scatters need to know of windows of planes.
PoolScatter scatter_of(const Tensor& grad, const Planes& out, const Planes& in, const PoolWindow& window) {
  PoolScatter s{};
  static_cast<PoolGeometry&>(s) = geometry_of(in, out, window);
  s.gradient = grad.const_data_ptr();
  s.planes = s.channels = 1;
  s.pitch = in.channels;
  s.span_height = window.h.span();
  s.span_width = window.w.span();
  return s;
}

// The way back into contiguous memory: add(image, planes, sums) makes the sums of planes from an image on. They are the
// result itself where `in_result` says so, else of type C and go there by way of scratch.
template <class C, class Add>
void backward_planes(const Tensor& result, int64_t cost, bool in_result, const Add& add) {
  const Planes in(result, c10::MemoryFormat::Contiguous);
  const auto unstage = TENSOROPS_KERNELS(pooling_kernels).unstage[static_cast<int>(dtype_of(result.scalar_type()))];
  const int64_t size = result.element_size(), area = in.area();
  parallel(in.images, area + cost, [&](int64_t begin, int64_t end) {
    char* planes = mutable_bytes(result) + begin * area * size;
    if (in_result) return add(begin, end - begin, planes);
    const Scratch sums(area * sizeof(C));
    for (int64_t image = begin; image < end; ++image, planes += area * size) {
      add(image, 1, sums.data());
      unstage(sums.data(), area, planes);
    }
  });
}

// `position` is undefined for averages, which are divided by `divisor`.
template <class Kernel>
void backward_tiles(const Tensor& grad, const Tensor& position, const Tensor& result, const PoolWindow& window, double divisor,
                    Kernel kernel) {
  const Planes out(grad, c10::MemoryFormat::Contiguous), in(result, c10::MemoryFormat::Contiguous);
  const int64_t size = grad.element_size(), position_size = position.defined() ? position.element_size() : 0;
  const char* positions = position.defined() ? bytes(position) : nullptr;
  // Where the elements above a row of windows end. Rows of the plane that no window has follow the last.
  const auto above = [&](int64_t row) { return in.row(row / out.height, row % out.height * window.h.stride); };
  parallel(out.images * out.height, window.h.stride * in.width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin, n; row < end; row += n) {
      const int64_t at = row * out.width, to = above(row);
      n = rows_together(in, out, window, row, end);
      kernel({bytes(grad) + at * size, positions + at * position_size, window.h.kernel, n, out.width, in.width,
              out.elements() - at, above(row + n) - to, above(end) - to, divisor, mutable_bytes(result) + to * size});
    }
  });
}

// Contiguous memory, backwards: a row of the input gathers from the windows that see it. Averages have divisors, maxima `position`.
template <class Kernel>
void backward_rows(const Tensor& grad, const Tensor& position, const Tensor& result, const PoolWindow& window,
                   const void* divisors, const int64_t* divisor_start, Kernel kernel) {
  const Planes out(grad, c10::MemoryFormat::Contiguous), in(result, c10::MemoryFormat::Contiguous);
  // By phase of a column modulo stride, the windows that see it, in ascending order.
  const PoolAxis& axis = window.w;
  c10::SmallVector<int64_t, 16> taps_begin, offset;
  c10::SmallVector<int32_t, 16> column;
  for (int64_t phase = 0; phase < axis.stride; ++phase) {
    taps_begin.push_back(static_cast<int64_t>(offset.size()));
    for (int64_t k = axis.kernel - 1; k >= 0; --k) {
      const int64_t from = phase + axis.padding - k * axis.dilation;
      if (from % axis.stride != 0) continue;
      offset.push_back(from / axis.stride);
      column.push_back(static_cast<int32_t>(k));
    }
  }
  taps_begin.push_back(static_cast<int64_t>(offset.size()));
  const auto [least, most] = std::minmax_element(offset.begin(), offset.end());
  const int64_t last = (offset.empty() ? 0 : *most) + divide_up(in.width, axis.stride) - 1;
  const Windows rows(window.h, in.height, out.height);
  PoolGather g{};
  static_cast<PoolGeometry&>(g) = geometry_of(in, out, window);
  g.gradient = bytes(grad);
  g.position = position.defined() ? bytes(position) : nullptr;
  g.elements = out.elements();
  g.columns = axis.kernel;
  g.sights_begin = rows.begin();
  g.sights = rows.sights();
  g.taps_begin = taps_begin.data();
  g.offset = offset.data();
  g.column = column.data();
  g.step = axis.stride;
  g.margin = offset.empty() ? 0 : std::max<int64_t>(0, -*least);
  g.divisors = divisors;
  g.divisor_start = divisor_start;
  g.out = mutable_bytes(result);
  const int64_t pitch = g.margin + std::max(last + 1, out.width) + kPoolTogether * kPoolSlack;
  const int64_t size = compute_size(grad.scalar_type());
  const int64_t slots = (window.h.span() - 1) / window.h.stride + 2;  // of the windows that see one row, and one more
  const int64_t cost = in.width * (divide_up(window.h.kernel, window.h.stride) + divide_up(window.w.kernel, window.w.stride));
  parallel(in.images * in.height, cost, [&](int64_t begin, int64_t end) {
    Staged staged(out.height, slots, pitch, size, position.defined() ? 2 : 1);
    const Scratch summed(position.defined() ? 0 : pitch * size);
    PoolGather task = g;
    task.staged = staged.rows(begin, end);
    task.summed = summed.data();
    kernel(task);
  });
}

// channels_last memory, backwards: a run is the channels of pixels of a row of the input's gradient, a stride apart, that are
// seen by the same positions of the windows. `alike(a, b)` is as for forward_pixels, `scale(oh, ow)` that of a window.
template <class Run, class Kernel, class Alike, class Scale>
void backward_pixels(const Tensor& grad, const Tensor& position, const Tensor& result, const PoolWindow& window,
                     Kernel kernel, const Alike& alike, const Scale& scale) {
  const Planes out(grad, c10::MemoryFormat::ChannelsLast), in(result, c10::MemoryFormat::ChannelsLast);
  const int64_t size = grad.element_size(), position_size = position.defined() ? position.element_size() : 0;
  const char *from = bytes(grad), *positions = position.defined() ? bytes(position) : nullptr;
  const Windows rows(window.h, in.height, out.height), columns(window.w, in.width, out.width);
  const auto follows = [&](int64_t x) {
    const auto a = columns.of(x - window.w.stride), b = columns.of(x);
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i].position != b[i].position || !alike(a[i].window, b[i].window)) return false;
    return true;
  };
  struct Segment {
    int64_t begin, count;  // pixels
  };
  c10::SmallVector<Segment, 8> segments;
  for (int64_t phase = 0; phase < std::min(window.w.stride, in.width); ++phase)
    for (int64_t x = phase; x < in.width; x += window.w.stride) {
      if (x > phase && follows(x)) ++segments.back().count;
      else segments.push_back({x, 1});
    }
  // Lines of the result that would not stay in the caches anyway need not be read before they are written, where they are whole.
  const bool lines = reinterpret_cast<intptr_t>(result.const_data_ptr()) % kCacheLine == 0 && in.channels * size % kCacheLine == 0;
  const bool streams = lines && (in.elements() + out.elements()) * size >= kFar;
  const int64_t cost = in.width * in.channels * divide_up(window.positions(), window.h.stride * window.w.stride);
  parallel(in.images * in.height, cost, [&](int64_t begin, int64_t end) {
    Taps taps(window);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t image = row / in.height, y = row % in.height;
      for (const Segment& s : segments) {
        taps.clear();
        for (const auto [oh, kh] : rows.of(y)) {
          for (const auto [ow, kw] : columns.of(s.begin)) {
            const int64_t at = out.row(image, oh) + ow * out.channels;
            taps.add(from + at * size, positions + at * position_size, kh * window.w.kernel + kw, scale(oh, ow));
          }
        }
        Run run{};
        taps.set(run);
        run.out = mutable_bytes(result) + (row * in.width + s.begin) * in.channels * size;
        run.n = run.tap_step = in.channels;
        run.rows = s.count;
        run.out_step = window.w.stride * in.channels;
        run.streams = streams;
        kernel(run);
      }
    }
    if (streams) TENSOROPS_KERNELS(pooling_kernels).end_stream();
  });
}

// ---- max_pool2d

// The maximum, and its position where `position` is defined. A window may lie in the padding altogether.
void max_pool2d_into(const Tensor& input, const PoolWindow& window, const Tensor& output, const Tensor& position) {
  const auto kind = !position.defined() ? PoolPosition::none : position_kind(position);
  const auto& kernels = TENSOROPS_KERNELS(pooling_kernels);
  const auto pick = [&](const auto& table) { return kernel_for("max_pool2d", table[static_cast<int>(kind)], input.scalar_type()); };
  const int64_t position_size = position.defined() ? position.element_size() : 0;
  char* positions = position.defined() ? mutable_bytes(position) : nullptr;
  if (pool_format(input) == c10::MemoryFormat::ChannelsLast) {
    const int64_t channels = input.size(1);
    forward_pixels<MaxPoolRun>(input, output, window, pick(kernels.max), [](int64_t, int64_t) { return true; },
                               [&](MaxPoolRun& run, int64_t i, int64_t oh, int64_t ow) {
                                 run.first = static_cast<int32_t>(window.h.first_inside(oh) * window.w.kernel +
                                                                  window.w.first_inside(ow));
                                 run.position = positions + i * channels * position_size;
                               });
  } else if (tiles_plane(window, input, output)) {
    forward_tiles(input, output, position, window, 1, pick(kernels.max_tiles));
  } else if (output.size(-1) <= kNarrow) {
    forward_windows(input, output, window, pick(kernels.max_window),
                    [&](PoolWindowRun& run, int64_t i, int64_t, int64_t) { run.position = positions + i * position_size; });
  } else {
    forward_planes(input, output, position, window, nullptr, nullptr, pick(kernels.max_planes));
  }
}

Tensor pooled(const char* op, const Tensor& input, const PoolWindow& window, bool ceil_mode) {
  return empty(pooled_sizes<int64_t>(op, input, window, ceil_mode), input.scalar_type(), pool_format(input));
}

Tensor max_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  const Tensor output = pooled("max_pool2d", input, window, ceil_mode);
  max_pool2d_into(input.contiguous(pool_format(input)), window, output, {});
  return output;
}

std::tuple<Tensor, Tensor> max_pool2d_with_position(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                    Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  const Tensor output = pooled("max_pool2d", input, window, ceil_mode);
  const Tensor position = empty(output.sizes(), position_dtype(window), pool_format(input));
  max_pool2d_into(input.contiguous(pool_format(input)), window, output, position);
  return {output, position};
}

// Calls f(place, y, x) for every element of `position`, where place is its offset and (y, x) the input pixel it names.
template <class F>
void for_positions(const Tensor& position, const PoolWindow& window, F f) {
  const Planes out(position, pool_format(position));
  const auto rows = [&](auto* positions) {
    parallel(out.images * out.height, 4 * out.width * out.channels, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t top = window.h.origin(row % out.height);
        for (int64_t ow = 0, place = row * out.width * out.channels; ow < out.width; ++ow) {
          const int64_t left = window.w.origin(ow);
          for (int64_t c = 0; c < out.channels; ++c, ++place) {
            const auto k = static_cast<uint32_t>(positions[place]), width = static_cast<uint32_t>(window.w.kernel);
            f(place, top + k / width * window.h.dilation, left + k % width * window.w.dilation);
          }
        }
      }
    });
  };
  if (position_kind(position) == PoolPosition::u8) rows(position.const_data_ptr<uint8_t>());
  else rows(position.const_data_ptr<int32_t>());
}

std::tuple<Tensor, Tensor> max_pool2d_with_indices(const Tensor& input, Ints kernel_size, Ints stride, Ints padding,
                                                   Ints dilation, bool ceil_mode) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  auto [output, position] = max_pool2d_with_position(input, kernel_size, stride, padding, dilation, ceil_mode);
  const Tensor indices = empty(output.sizes(), c10::kLong, pool_format(input));
  int64_t* index = indices.data_ptr<int64_t>();
  for_positions(position, window, [index, width = input.size(-1)](int64_t place, int64_t y, int64_t x) {
    index[place] = y * width + x;
  });
  return {output, indices};
}

Tensor max_pool2d_backward(const Tensor& grad_, const Tensor& position_, c10::SymIntArrayRef input_size, Ints kernel_size,
                           Ints stride, Ints padding, Ints dilation) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  check_max_pool2d_backward(grad_, position_, window);
  const auto format = pool_format(position_);
  const Tensor grad = grad_.contiguous(format), position = position_.contiguous(format);
  const Tensor result = empty(plane_sizes("max_pool2d", position, C10_AS_INTARRAYREF_SLOW(input_size)), grad.scalar_type(), format);
  const auto& kernels = TENSOROPS_KERNELS(pooling_kernels);
  const int kind = static_cast<int>(position_kind(position));
  const Planes out(grad, format), in(result, format);
  const int64_t count = window.positions(), size = grad.element_size(), position_size = position.element_size();
  // A gather looks at all windows of an element, a scatter at one element of a window: where windows are large that is less.
  // Beside each other channels can only be scattered into sums that are the result: it has their dtype, or no two meet.
  const bool last = format == c10::MemoryFormat::ChannelsLast;
  const bool apart = window.h.stride >= window.h.span() && window.w.stride >= window.w.span();
  const bool in_result = apart || compute_size(grad.scalar_type()) == size;
  if (last && (count <= kPoolGathered || !in_result)) {
    const auto kernel = kernel_for("max_pool2d_backward", kernels.max_backward[kind], grad.scalar_type());
    backward_pixels<MaxPoolBackwardRun>(grad, position, result, window, kernel, [](int64_t, int64_t) { return true; },
                                        [](int64_t, int64_t) { return 1.0; });
    return result;
  }
  if (!last && tiles_plane(window, result, grad)) {
    const auto kernel = kernel_for("max_pool2d_backward", kernels.tiles_backward[kind], grad.scalar_type());
    backward_tiles(grad, position, result, window, 1, kernel);
    return result;
  }
  if (!last && count <= kPoolGathered) {
    const auto kernel = kernel_for("max_pool2d_backward", kernels.gather[kind], grad.scalar_type());
    backward_rows(grad, position, result, window, nullptr, nullptr, kernel);
    return result;
  }
  const auto& table = apart ? kernels.max_scatter_apart : kernels.max_scatter;
  const auto scatter = kernel_for("max_pool2d_backward", table[kind], grad.scalar_type());
  c10::SmallVector<int64_t, 64> row(count), column(count), offset(count);
  for (int64_t k = 0; k < count; ++k) {
    row[k] = k / window.w.kernel * window.h.dilation;
    column[k] = k % window.w.kernel * window.w.dilation;
    offset[k] = (row[k] * in.width + column[k]) * in.channels;
  }
  const auto task_of = [&](int64_t first_gradient, void* sums) {
    MaxPoolScatter task{scatter_of(grad, out, in, window), bytes(position) + first_gradient * position_size, count,
                        row.data(), column.data(), offset.data()};
    task.gradient = bytes(grad) + first_gradient * size;
    task.sums = sums;
    return task;
  };
  if (last) {
    const int64_t blocks = divide_up(in.channels, kChannelBlock);
    parallel(in.images * blocks, (in.area() + 4 * out.area()) * kChannelBlock, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / blocks, channel = i % blocks * kChannelBlock;
        MaxPoolScatter task = task_of(out.row(image, 0) + channel, mutable_bytes(result) + (in.row(image, 0) + channel) * size);
        task.channels = std::min(kChannelBlock, in.channels - channel);
        scatter(task);
      }
    });
    return result;
  }
  by_compute_type(grad.scalar_type(), [&]<class C>(C) {
    backward_planes<C>(result, 4 * out.area(), in_result, [&](int64_t image, int64_t planes, void* sums) {
      MaxPoolScatter task = task_of(out.row(image, 0), sums);
      task.planes = planes;
      scatter(task);
    });
  });
  return result;
}

// ---- By element: picking, gathering and scattering move elements of a size, whatever their dtype.

template <class F>
void by_size(int64_t element_size, F f) {
  switch (element_size) {
    case 1: return f(uint8_t());
    case 2: return f(uint16_t());
    case 4: return f(uint32_t());
    default: return f(uint64_t());
  }
}

Tensor max_pool2d_pick(const Tensor& input_, const Tensor& position_, Ints kernel_size, Ints stride, Ints padding,
                       Ints dilation) {
  const PoolWindow window("max_pool2d", kernel_size, stride, padding, dilation);
  check_max_pool2d_pick(input_, position_, window);
  const auto format = pool_format(position_);
  const Tensor input = input_.contiguous(format), position = position_.contiguous(format);
  const Tensor result = empty(position.sizes(), input.scalar_type(), format);
  const Planes in(input, format), out(position, format);
  by_size(input.element_size(), [&]<class T>(T) {
    const T* from = reinterpret_cast<const T*>(bytes(input));
    T* to = reinterpret_cast<T*>(mutable_bytes(result));
    for_positions(position, window, [&](int64_t place, int64_t y, int64_t x) {
      const bool inside = y >= 0 && y < in.height && x >= 0 && x < in.width;
      const int64_t image = place / (out.area() * out.channels), c = place % out.channels;
      to[place] = inside ? from[in.row(image, y) + x * in.channels + c] : T(0);
    });
  });
  return result;
}

// Refuses indices outside the plane before anything is written.
void check_index_range(const Tensor& indices, int64_t area, c10::IntArrayRef output_size) {
  const int64_t* index = indices.const_data_ptr<int64_t>();
  parallel(indices.numel(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      TORCH_CHECK(static_cast<uint64_t>(index[i]) < static_cast<uint64_t>(area), "max_unpool2d: Found an invalid max index: ",
                  index[i], " (output volumes are of size ", output_size[0], "x", output_size[1], ")");
  });
}

Tensor max_unpool2d(const Tensor& input_, const Tensor& indices_, c10::SymIntArrayRef output_size) {
  check_max_unpool2d(input_, indices_);
  const auto format = pool_format(input_);
  const auto size = C10_AS_INTARRAYREF_SLOW(output_size);
  const Tensor output = empty(plane_sizes("max_unpool2d", input_, size), input_.scalar_type(), format);
  TORCH_CHECK_NOT_IMPLEMENTED(c10::isFloatingType(input_.scalar_type()), "\"max_unpool2d\" not implemented for '",
                              input_.scalar_type(), "'");
  const Tensor input = input_.contiguous(format), indices = indices_.contiguous(format);
  const Planes in(input, format), out(output, format);
  check_index_range(indices, out.area(), size);
  const int64_t* index = indices.const_data_ptr<int64_t>();
  by_size(input.element_size(), [&]<class T>(T) {
    const T* from = reinterpret_cast<const T*>(bytes(input));
    T* to = reinterpret_cast<T*>(mutable_bytes(output));
    parallel(in.images, out.area() * out.channels, [&](int64_t begin, int64_t end) {
      for (int64_t image = begin; image < end; ++image) {
        T* plane = to + out.row(image, 0);
        std::memset(plane, 0, out.area() * out.channels * sizeof(T));
        for (int64_t p = image * in.area(), c; p < (image + 1) * in.area(); ++p)
          for (c = 0; c < in.channels; ++c) plane[index[p * in.channels + c] * in.channels + c] = from[p * in.channels + c];
      }
    });
  });
  return output;
}

Tensor plane_gather(const Tensor& input_, const Tensor& indices_) {
  check_plane_gather(input_, indices_);
  const auto format = pool_format(indices_);
  const Tensor input = input_.contiguous(format), indices = indices_.contiguous(format);
  const Tensor result = empty(indices.sizes(), input.scalar_type(), format);
  const Planes in(input, format), out(indices, format);
  const int64_t* index = indices.const_data_ptr<int64_t>();
  by_size(input.element_size(), [&]<class T>(T) {
    const T* from = reinterpret_cast<const T*>(bytes(input));
    T* to = reinterpret_cast<T*>(mutable_bytes(result));
    parallel(out.images * out.area(), 2 * out.channels, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const T* plane = from + in.row(p / out.area(), 0);
        for (int64_t c = 0, i = p * out.channels; c < out.channels; ++c, ++i) {
          const bool inside = static_cast<uint64_t>(index[i]) < static_cast<uint64_t>(in.area());
          to[i] = inside ? plane[index[i] * in.channels + c] : T(0);
        }
      }
    });
  });
  return result;
}

Tensor plane_scatter_add(const Tensor& grad_, const Tensor& indices_, c10::SymIntArrayRef output_size) {
  check_plane_scatter_add(grad_, indices_);
  const auto format = pool_format(indices_);
  const Tensor grad = grad_.contiguous(format), indices = indices_.contiguous(format);
  const Tensor result = empty(plane_sizes("_plane_scatter_add", indices, C10_AS_INTARRAYREF_SLOW(output_size)),
                              grad.scalar_type(), format);
  const auto& kernels = TENSOROPS_KERNELS(pooling_kernels);
  const auto scatter = kernel_for("_plane_scatter_add", kernels.scatter_add, grad.scalar_type());
  const auto unstage = kernel_for("_plane_scatter_add", kernels.unstage, grad.scalar_type());
  const Planes from(grad, format), to(result, format);
  const int64_t size = grad.element_size(), n = to.area() * to.channels;
  parallel(to.images, n, [&](int64_t begin, int64_t end) {
    std::vector<char> sums(n * compute_size(grad.scalar_type()));
    for (int64_t image = begin; image < end; ++image) {
      std::fill(sums.begin(), sums.end(), 0);
      scatter(bytes(grad) + from.row(image, 0) * size, indices.const_data_ptr<int64_t>() + from.row(image, 0),
              from.area(), from.channels, to.area(), sums.data());
      unstage(sums.data(), n, mutable_bytes(result) + to.row(image, 0) * size);
    }
  });
  return result;
}

// ---- avg_pool2d

// What the sum over window (oh, ow) is divided by.
class Divisors {
 public:
  Divisors(const PoolWindow& window, int64_t in_height, int64_t in_width, int64_t out_height, int64_t out_width,
           bool count_include_pad, std::optional<int64_t> divisor_override)
      : override_(divisor_override) {
    const auto counts = [&](const PoolAxis& axis, int64_t in, int64_t out) {
      c10::SmallVector<int64_t, 16> count(out);
      for (int64_t o = 0; o < out; ++o) {
        const int64_t begin = axis.origin(o), end = std::min(begin + axis.kernel, in + axis.padding);
        count[o] = count_include_pad ? end - begin : std::min(end, in) - std::max<int64_t>(begin, 0);
      }
      return count;
    };
    rows_ = counts(window.h, in_height, out_height);
    columns_ = counts(window.w, in_width, out_width);
  }
  int64_t of_column(int64_t ow) const { return columns_[ow]; }
  int64_t at(int64_t oh, int64_t ow) const { return override_ ? *override_ : rows_[oh] * columns_[ow]; }

  // table[index(oh)] has the divisors of window row oh, in the compute type T; equal neighbours share a row.
  template <class T, class F>
  auto table(F f) const {
    c10::SmallVector<T, 64> values;
    c10::SmallVector<int64_t, 16> start(rows_.size());
    for (size_t oh = 0; oh < rows_.size(); ++oh) {
      if (oh > 0 && rows_[oh] == rows_[oh - 1]) {
        start[oh] = start[oh - 1];
        continue;
      }
      start[oh] = static_cast<int64_t>(values.size());
      for (size_t ow = 0; ow < columns_.size(); ++ow) values.push_back(f(at(oh, ow)));
      values.resize(values.size() + kPoolSlack, T(1));
    }
    return std::make_pair(std::move(values), std::move(start));
  }

 private:
  std::optional<int64_t> override_;
  c10::SmallVector<int64_t, 16> rows_, columns_;
};

// `output` is contiguous in the input's format.
void avg_pool2d_into(const Tensor& input_, const PoolWindow& window, bool count_include_pad,
                     std::optional<int64_t> divisor_override, const Tensor& output) {
  const auto format = pool_format(input_);
  const Tensor input = input_.contiguous(format);
  const bool last = format == c10::MemoryFormat::ChannelsLast;
  const auto& kernels = TENSOROPS_KERNELS(pooling_kernels);
  const auto pick = [&](const auto& table) { return kernel_for("avg_pool2d", table, input.scalar_type()); };
  if (!last && tiles_plane(window, input, output)) {
    const auto divisor = static_cast<double>(divisor_override.value_or(window.positions()));
    return forward_tiles(input, output, {}, window, divisor, pick(kernels.mean_tiles));
  }
  const Divisors divisors(window, input.size(-2), input.size(-1), output.size(-2), output.size(-1), count_include_pad,
                          divisor_override);
  by_compute_type(input.scalar_type(), [&]<class T>(T) {
    const auto [values, start] = divisors.table<T>([](int64_t divisor) { return static_cast<T>(divisor); });
    if (last) {
      forward_pixels<MeanPoolRun>(
          input, output, window, pick(kernels.mean),
          [&](int64_t a, int64_t b) { return divisors.of_column(a) == divisors.of_column(b); },
          [&](MeanPoolRun& run, int64_t, int64_t oh, int64_t ow) { run.divisor = values.data() + start[oh] + ow; });
    } else if (output.size(-1) <= kNarrow) {
      forward_windows(input, output, window, pick(kernels.mean_window), [&](PoolWindowRun& run, int64_t, int64_t oh, int64_t ow) {
        run.divisor = values.data() + start[oh] + ow;
        if (run.columns == run.row_stride) {  // whole rows, one behind the other
          run.columns *= run.rows;
          run.rows = 1;
        }
      });
    } else {
      forward_planes(input, output, {}, window, values.data(), start.data(), pick(kernels.mean_planes));
    }
  });
}

Tensor avg_pool2d(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                  bool count_include_pad, std::optional<int64_t> divisor_override) {
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  check_divisor(divisor_override);
  const Tensor output = pooled("avg_pool2d", input, window, ceil_mode);
  avg_pool2d_into(input, window, count_include_pad, divisor_override, output);
  return output;
}

Tensor& avg_pool2d_out(const Tensor& input, Ints kernel_size, Ints stride, Ints padding, bool ceil_mode,
                       bool count_include_pad, std::optional<int64_t> divisor_override, Tensor& out) {
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  check_divisor(divisor_override);
  const auto sizes = pooled_sizes<int64_t>("avg_pool2d", input, window, ceil_mode);
  if (prepare_pool_out("avg_pool2d", input, c10::fromIntArrayRefSlow(sizes), out))
    avg_pool2d_into(input, window, count_include_pad, divisor_override, out);
  else
    out.copy_(cpu::avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override));
  return out;
}

Tensor avg_pool2d_backward(const Tensor& grad_, c10::SymIntArrayRef input_size, Ints kernel_size, Ints stride,
                           Ints padding, bool ceil_mode, bool count_include_pad,
                           std::optional<int64_t> divisor_override, bool channels_last) {
  const PoolWindow window("avg_pool2d", kernel_size, stride, padding);
  check_divisor(divisor_override);
  const auto format = pool_format(channels_last);
  const Tensor grad = grad_.contiguous(format);
  const Tensor result = empty(plane_sizes("avg_pool2d", grad, C10_AS_INTARRAYREF_SLOW(input_size)), grad.scalar_type(), format);
  const auto& kernels = TENSOROPS_KERNELS(pooling_kernels);
  const auto kernel = kernel_for("avg_pool2d_backward", kernels.mean_backward, grad.scalar_type());
  if (!channels_last && tiles_plane(window, result, grad)) {
    const auto tiles = kernel_for("avg_pool2d_backward", kernels.tiles_backward[static_cast<int>(PoolPosition::none)],
                                  grad.scalar_type());
    backward_tiles(grad, {}, result, window, static_cast<double>(divisor_override.value_or(window.positions())), tiles);
    return result;
  }
  const Divisors divisors(window, result.size(-2), result.size(-1), grad.size(-2), grad.size(-1), count_include_pad,
                          divisor_override);
  if (channels_last) {
    backward_pixels<MeanPoolBackwardRun>(
        grad, {}, result, window, kernel,
        [&](int64_t a, int64_t b) { return divisors.of_column(a) == divisors.of_column(b); },
        [&](int64_t oh, int64_t ow) { return 1.0 / divisors.at(oh, ow); });
    return result;
  }
  by_compute_type(grad.scalar_type(), [&]<class T>(T) {
    const auto [values, start] = divisors.table<T>([](int64_t divisor) { return static_cast<T>(divisor); });
    const Planes out(grad, format), in(result, format);
    if (out.width <= kNarrow) {
      const auto scatter = kernel_for("avg_pool2d_backward", kernels.mean_scatter, grad.scalar_type());
      c10::SmallVector<T, 64> by;
      for (int64_t oh = 0; oh < out.height; ++oh)
        for (int64_t ow = 0; ow < out.width; ++ow) by.push_back(values[start[oh] + ow]);
      const bool in_result = result.element_size() == sizeof(T);
      backward_planes<T>(result, out.area() * window.positions(), in_result, [&](int64_t image, int64_t planes, void* sums) {
        MeanPoolScatter task{scatter_of(grad, out, in, window), by.data()};
        task.gradient = bytes(grad) + out.row(image, 0) * grad.element_size();
        task.sums = sums;
        task.planes = planes;
        scatter(task);
      });
      return;
    }
    const auto gather = kernel_for("avg_pool2d_backward", kernels.gather[static_cast<int>(PoolPosition::none)], grad.scalar_type());
    backward_rows(grad, {}, result, window, values.data(), start.data(), gather);
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  library.impl("max_pool2d", max_pool2d);
  library.impl("max_pool2d_with_indices", max_pool2d_with_indices);
  library.impl("_max_pool2d_with_position", max_pool2d_with_position);
  library.impl("_max_pool2d_backward", max_pool2d_backward);
  library.impl("_max_pool2d_pick", max_pool2d_pick);
  library.impl("max_unpool2d", max_unpool2d);
  library.impl("_plane_scatter_add", plane_scatter_add);
  library.impl("_plane_gather", plane_gather);
  library.impl("avg_pool2d", avg_pool2d);
  library.impl("avg_pool2d.out", avg_pool2d_out);
  library.impl("_avg_pool2d_backward", avg_pool2d_backward);
}

}  // namespace tensorops::cpu
