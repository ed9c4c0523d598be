#include "cpu/gemm.h"

#include <cstring>
#include <optional>
#include <utility>

#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A block of C that shares one packing of A and B: its panels stay in the last-level cache, its f32 sums (for bf16 and
// f16) in bounded memory.
constexpr int64_t kBlockRows = 1024, kBlockColumns = 2048;
// A panel of A (kRows x kDepth) stays in the L1 cache while panels of B stream past it from the L2.
constexpr int64_t kDepthBytes = 2048;
// Columns of B that one work item passes over for each of its panels of A: they stay in the L2 cache.
constexpr int64_t kItemColumns = 256;
// Few rows whose B is contiguous along k: dot products, all rows on a piece of B while it is in the cache.
constexpr int64_t kDotRows = 2 * kSkinnyRows;
constexpr int64_t kDotColumns = 16, kAxpyColumns = 1024;
// Below this many multiply-adds nothing is gained by threads or by packing A.
constexpr int64_t kSmall = 40 * 40 * 40;
// A product with fewer independent pieces than this is cut along k as well, into lengths of kSplitDepth at least.
constexpr int64_t kSplitPieces = 16, kSplitDepth = 4096, kSplits = 32;

// The work of one multiply-add in units of parallel(), as a fraction.
constexpr int64_t kMultiplyAddsPerUnit = 16;

const char* offset(const void* p, int64_t index, int64_t size) { return static_cast<const char*>(p) + index * size; }
char* offset(void* p, int64_t index, int64_t size) { return static_cast<char*>(p) + index * size; }

// Of the transposed product: rows and columns of everything change places.
void transpose(Gemm& g) {
  std::swap(g.m, g.n);
  std::swap(g.a, g.b);
  std::swap(g.a.row, g.a.column);
  std::swap(g.b.row, g.b.column);
  std::swap(g.epilogue.c_row, g.epilogue.c_column);
  std::swap(g.epilogue.source_row, g.epilogue.source_column);
}

class Multiply {
 public:
  explicit Multiply(const Gemm& g)
      : g_(g),
        kernels_(TENSOROPS_KERNELS(gemm_kernels)),
        compute_(compute_type(g.type)),
        size_(kernels_.size[static_cast<int>(compute_)]),
        micro_(kernels_.micro[static_cast<int>(compute_)]),
        pack_(kernels_.pack[static_cast<int>(g.type)]),
        in_bytes_(element_size(g.type)),
        c_bytes_(element_size(g.epilogue.c_type)),
        source_bytes_(element_size(g.epilogue.source_type)),
        width_(compute_ == Compute::f64 || compute_ == Compute::i64 ? 8 : 4) {}

  void run() const {
    const bool dots = g_.m <= kDotRows && kernels_.dot[static_cast<int>(g_.type)] != nullptr && g_.b.row == 1;
    const bool axpys = g_.m <= kSkinnyRows && kernels_.axpy[static_cast<int>(g_.type)] != nullptr && g_.b.column == 1;
    const int64_t pieces = axpys  ? ceil_div(g_.n, kAxpyColumns)
                           : dots ? ceil_div(g_.n, kDotColumns)
                                  : ceil_div(g_.m, 64) * ceil_div(g_.n, 64);
    if (pieces * g_.batch < kSplitPieces && g_.k >= 2 * kSplitDepth && is_floating())
      return split(std::min(kSplits, g_.k / kSplitDepth));
    if (axpys) return axpy();
    if (dots) return dot();
    if (g_.m * g_.n * g_.k <= kSmall) return small();
    blocked();
  }

 private:
  bool is_floating() const { return compute_ == Compute::f32 || compute_ == Compute::f64; }
  DType compute_dtype() const {
    constexpr DType types[] = {DType::f32, DType::f64, DType::i32, DType::i64};
    return types[static_cast<int>(compute_)];
  }
  const char* a_at(int64_t i, int64_t p) const { return offset(g_.a.data, i * g_.a.row + p * g_.a.column, in_bytes_); }
  const char* b_at(int64_t p, int64_t j) const { return offset(g_.b.data, p * g_.b.row + j * g_.b.column, in_bytes_); }
  void place(GemmTile& tile, int64_t i, int64_t j) const {
    const GemmEpilogue& e = g_.epilogue;
    tile.c = offset(g_.c, i * e.c_row + j * e.c_column, c_bytes_);
    tile.source = g_.source == nullptr ? nullptr
                                       : offset(g_.source, i * e.source_row + j * e.source_column, source_bytes_);
  }

  void axpy() const {
    const auto kernel = kernels_.axpy[static_cast<int>(g_.type)];
    parallel(ceil_div(g_.n, kAxpyColumns), cost(g_.m, kAxpyColumns, g_.k), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kAxpyColumns;
      GemmTile tile;
      tile.k = g_.k;
      tile.rows = g_.m;
      tile.columns = std::min(end * kAxpyColumns, g_.n) - first;
      tile.a = g_.a.data;
      tile.a_row = g_.a.row;
      tile.a_step = g_.a.column;
      tile.b = b_at(0, first);
      tile.b_step = g_.b.row;
      place(tile, 0, first);
      kernel(tile, g_.epilogue);
    });
  }

  void dot() const {
    const auto kernel = kernels_.dot[static_cast<int>(g_.type)];
    // The kernel wants A's rows contiguous.
    std::optional<Scratch> rows;
    const void* a = g_.a.data;
    int64_t a_row = g_.a.row;
    if (g_.a.column != 1) {
      rows.emplace(g_.m * g_.k * in_bytes_);
      for (int64_t i = 0; i < g_.m; ++i)
        for (int64_t p = 0; p < g_.k; ++p)
          std::memcpy(offset(rows->data(), i * g_.k + p, in_bytes_), a_at(i, p), static_cast<size_t>(in_bytes_));
      a = rows->data();
      a_row = g_.k;
    }
    parallel(ceil_div(g_.n, kDotColumns), cost(g_.m, kDotColumns, g_.k), [&](int64_t begin, int64_t end) {
      GemmTile tile;
      tile.k = g_.k;
      tile.a_row = a_row;
      tile.a_step = tile.b_step = 1;
      tile.b_column = g_.b.column;
      for (int64_t j = begin * kDotColumns; j < std::min(end * kDotColumns, g_.n); j += kDotColumns)
        for (int64_t i = 0; i < g_.m; i += kSkinnyRows) {
          tile.rows = std::min(kSkinnyRows, g_.m - i);
          tile.columns = std::min(kDotColumns, g_.n - j);
          tile.a = offset(a, i * a_row, in_bytes_);
          tile.b = b_at(0, j);
          place(tile, i, j);
          kernel(tile, g_.epilogue);
        }
    });
  }

  // One panel of B at a time, A where it lies.
  void small() const {
    const bool same_type = is_compute_type(g_.type, compute_);
    const bool b_in_place = same_type && g_.b.column == 1;
    std::optional<Scratch> a_panels, b_panel;
    if (!same_type) {
      a_panels.emplace(round_up(g_.m, size_.mr) * g_.k * width_);
      pack_(g_.a.data, g_.a.row, g_.a.column, g_.m, g_.k, size_.mr, a_panels->data());
    }
    GemmTile tile;
    tile.k = g_.k;
    for (int64_t j = 0; j < g_.n; j += size_.nr) {
      tile.columns = std::min<int64_t>(size_.nr, g_.n - j);
      if (b_in_place && tile.columns % size_.vector == 0) {
        tile.b = b_at(0, j);
        tile.b_step = g_.b.row;
      } else {
        if (!b_panel) b_panel.emplace(size_.nr * g_.k * width_);
        pack_(b_at(0, j), g_.b.column, g_.b.row, tile.columns, g_.k, size_.nr, b_panel->data());
        tile.b = b_panel->data();
        tile.b_step = size_.nr;
      }
      for (int64_t i = 0; i < g_.m; i += size_.mr) {
        tile.rows = std::min<int64_t>(size_.mr, g_.m - i);
        if (same_type) {
          tile.a = a_at(i, 0);
          tile.a_row = g_.a.row;
          tile.a_step = g_.a.column;
        } else {
          tile.a = offset(a_panels->data(), i * g_.k, width_);
          tile.a_row = 1;
          tile.a_step = size_.mr;
        }
        place(tile, i, j);
        micro_(tile, g_.epilogue);
      }
    }
  }

  void blocked() const {
    const int64_t depths = ceil_div(g_.k, kDepthBytes / width_);
    const int64_t depth = round_up(ceil_div(g_.k, depths), 8);
    const int64_t block_rows = std::min(round_up(g_.m, size_.mr), kBlockRows / size_.mr * size_.mr);
    const int64_t block_columns = std::min(round_up(g_.n, size_.nr), kBlockColumns);
    Scratch a_panels(block_rows * depth * width_), b_panels(block_columns * depth * width_);
    // Sums wait in C itself where it has the compute type.
    const bool in_place = g_.epilogue.c_type == compute_dtype();
    std::optional<Scratch> sums;
    if (!in_place && depths > 1) sums.emplace(block_rows * block_columns * width_);
    for (int64_t i = 0; i < g_.m; i += block_rows)
      for (int64_t j = 0; j < g_.n; j += block_columns)
        for (int64_t p = 0; p < g_.k; p += depth) {
          const Block block{i, std::min(block_rows, g_.m - i), j, std::min(block_columns, g_.n - j),
                            p, std::min(depth, g_.k - p)};
          pack_block(block, a_panels.data(), b_panels.data());
          multiply_block(block, a_panels.data(), b_panels.data(), sums ? sums->data() : nullptr, block_columns);
        }
  }

  struct Block {
    int64_t i, rows, j, columns, p, k;
  };

  void pack_block(const Block& block, void* a_panels, void* b_panels) const {
    const int64_t a_count = ceil_div(block.rows, size_.mr), b_count = ceil_div(block.columns, size_.nr);
    parallel(a_count + b_count, size_.nr * block.k / 2, [&](int64_t begin, int64_t end) {
      if (begin < a_count) {
        const int64_t first = begin * size_.mr, last = std::min(std::min(end, a_count) * size_.mr, block.rows);
        pack_(a_at(block.i + first, block.p), g_.a.row, g_.a.column, last - first, block.k, size_.mr,
              offset(a_panels, first * block.k, width_));
      }
      if (end > a_count) {
        const int64_t first = (std::max(begin, a_count) - a_count) * size_.nr;
        const int64_t last = std::min((end - a_count) * size_.nr, block.columns);
        pack_(b_at(block.p, block.j + first), g_.b.column, g_.b.row, last - first, block.k, size_.nr,
              offset(b_panels, first * block.k, width_));
      }
    });
  }

  void multiply_block(const Block& block, const void* a_panels, const void* b_panels, void* sums,
                      int64_t sums_row) const {
    const bool first = block.p == 0, last = block.p + block.k == g_.k;
    GemmEpilogue e = g_.epilogue;
    const auto sums_are = [&](DType& type, int64_t& row, int64_t& column) {
      type = compute_dtype();
      row = sums != nullptr ? sums_row : g_.epilogue.c_row;
      column = sums != nullptr ? 1 : g_.epilogue.c_column;
    };
    if (!first) {
      e.beta = {};
      sums_are(e.source_type, e.source_row, e.source_column);
    }
    if (!last) {
      e.activation = GemmActivation::none;
      sums_are(e.c_type, e.c_row, e.c_column);
    }
    // Items of a few panels of A by kItemColumns; fewer panels where there are many threads.
    const int64_t row_panels = ceil_div(block.rows, size_.mr);
    const int64_t item_columns = round_up(kItemColumns, size_.nr);
    const int64_t column_items = ceil_div(block.columns, item_columns);
    const int64_t wanted = at::in_parallel_region() ? 1 : 4 * at::get_num_threads();
    const int64_t item_panels = std::max<int64_t>(1, row_panels * column_items / wanted);
    const int64_t row_items = ceil_div(row_panels, item_panels);
    parallel(row_items * column_items, cost(item_panels * size_.mr, item_columns, block.k), [&](int64_t begin, int64_t end) {
      GemmTile tile;
      tile.k = block.k;
      tile.a_step = size_.mr;
      tile.b_step = size_.nr;
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row_end = std::min((item % row_items + 1) * item_panels * size_.mr, block.rows);
        const int64_t column_end = std::min((item / row_items + 1) * item_columns, block.columns);
        for (int64_t i = item % row_items * item_panels * size_.mr; i < row_end; i += size_.mr) {
          tile.rows = std::min<int64_t>(size_.mr, block.rows - i);
          tile.a = offset(a_panels, i * block.k, width_);
          for (int64_t j = item / row_items * item_columns; j < column_end; j += size_.nr) {
            tile.columns = std::min<int64_t>(size_.nr, block.columns - j);
            tile.b = offset(b_panels, j * block.k, width_);
            place(tile, block.i + i, block.j + j);
            void* partial = sums != nullptr ? offset(sums, i * sums_row + j, width_) : tile.c;
            if (!first) tile.source = partial;
            if (!last) tile.c = partial;
            micro_(tile, e);
          }
        }
      }
    });
  }

  // Pieces of k side by side, then their sum in order.
  void split(int64_t pieces) const {
    const int64_t length = round_up(ceil_div(g_.k, pieces), 64);
    pieces = ceil_div(g_.k, length);
    const int64_t area = g_.m * g_.n;
    Scratch partial(pieces * area * width_);
    parallel(pieces, cost(g_.m, g_.n, length), [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        Gemm part = g_;
        part.k = std::min(length, g_.k - piece * length);
        part.a.data = a_at(0, piece * length);
        part.b.data = b_at(piece * length, 0);
        part.c = offset(partial.data(), piece * area, width_);
        part.source = nullptr;
        part.epilogue = {};
        part.epilogue.c_type = compute_dtype();
        part.epilogue.c_row = g_.n;
        Multiply(part).run_whole();
      }
    });
    // ones(1 x pieces) @ partial(pieces x n), row by row of C.
    const double real_one = 1;
    const float single_one = 1;
    for (int64_t i = 0; i < g_.m; ++i) {
      GemmTile tile;
      tile.k = pieces;
      tile.rows = 1;
      tile.columns = g_.n;
      tile.a = width_ == 8 ? static_cast<const void*>(&real_one) : &single_one;
      tile.a_row = tile.a_step = 0;
      tile.b = offset(partial.data(), i * g_.n, width_);
      tile.b_step = area;
      place(tile, i, 0);
      kernels_.axpy[static_cast<int>(compute_dtype())](tile, g_.epilogue);
    }
  }

  // As run(), but never cut along k.
  void run_whole() const {
    if (g_.m <= kSkinnyRows && g_.b.column == 1) return axpy();
    if (g_.m <= kDotRows && g_.b.row == 1) return dot();
    if (g_.m * g_.n * g_.k <= kSmall) return small();
    blocked();
  }

  static int64_t cost(int64_t rows, int64_t columns, int64_t k) {
    return std::max<int64_t>(1, rows * columns * k / kMultiplyAddsPerUnit);
  }

  const Gemm& g_;
  const GemmKernels& kernels_;
  const Compute compute_;
  const GemmTileSize size_;
  const GemmMicroKernel micro_;
  const GemmPack pack_;
  const int64_t in_bytes_, c_bytes_, source_bytes_, width_;
};

}  // namespace

void gemm(const Gemm& problem) {
  Gemm g = problem;
  if (g.batch == 0 || g.m == 0 || g.n == 0) return;
  // The stride of a dimension of size one may be anything: let it be the useful one.
  const auto normalize = [](int64_t size, int64_t& stride) {
    if (size == 1) stride = 1;
  };
  normalize(g.k, g.a.column);
  normalize(g.k, g.b.row);
  normalize(g.n, g.b.column);
  normalize(g.n, g.epilogue.c_column);
  normalize(g.m, g.a.row);
  normalize(g.m, g.epilogue.c_row);
  if (g.k == 0) g.epilogue.alpha = {0, 0};  // the product is zero, not NaN for an infinite alpha

  // The smaller side becomes the rows when it is small; else rows are what C is not contiguous along.
  const bool few_columns = g.n <= kSkinnyRows && g.n < g.m;
  const bool few_rows = g.m <= kSkinnyRows && !few_columns;
  if (few_columns || (!few_rows && g.epilogue.c_column != 1 && g.epilogue.c_row == 1)) transpose(g);

  const auto run_one = [&](int64_t index) {
    Gemm one = g;
    one.batch = 1;
    one.a.data = offset(g.a.data, index * g.a.batch, element_size(g.type));
    one.b.data = offset(g.b.data, index * g.b.batch, element_size(g.type));
    one.c = offset(g.c, index * g.c_batch, element_size(g.epilogue.c_type));
    if (g.source != nullptr) one.source = offset(g.source, index * g.source_batch, element_size(g.epilogue.source_type));
    Multiply(one).run();
  };
  if (g.batch == 1) return run_one(0);
  // Whole matrices to each thread where there are enough of them, or where one is too small to share.
  if (g.batch >= at::get_num_threads() || g.m * g.n * g.k <= kSmall) {
    parallel(g.batch, std::max<int64_t>(1, g.m * g.n * g.k / kMultiplyAddsPerUnit), [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) run_one(index);
    });
  } else {
    for (int64_t index = 0; index < g.batch; ++index) run_one(index);
  }
}

}  // namespace tensorops::cpu
