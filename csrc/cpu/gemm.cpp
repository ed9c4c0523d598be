#include "cpu/gemm.h"

#include <cstring>
#include <optional>
#include <utility>

#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace tensorops::cpu {
namespace {

constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
constexpr int64_t power_of_two_up_to(int64_t a) {
  int64_t power = 1;
  while (2 * power <= a) power *= 2;
  return power;
}

// A block of C that shares one packing of A: its panels stay in the last-level cache, its f32 sums (for bf16 and f16) in
// bounded memory.
constexpr int64_t kBlockRows = 1024, kBlockColumns = 2048;
// A panel of A of this depth stays in the L1 cache while panels of B stream past it from the L2. Sums are cut into chains no
// longer than that, and shorter ones where elements are not rounded to less than the sums' precision anyway, for the error
// of a sum grows with the length of its chains: the smaller C is, the less it costs to come back to it.
constexpr int64_t kDepthBytes = 2048;
constexpr int64_t kChains[][2] = {{1024, 32}, {4096, 64}, {65536, 128}, {INT64_MAX, 192}};  // elements of C, length
// Several chains are packed at once, of small matrices as much as stays in the L2 cache.
constexpr int64_t kPackedBytes = 512 * 1024;
// Columns of B that are packed at a time, for all panels of A to pass over: they stay in the L2 cache.
constexpr int64_t kBandColumns = 256;
// What it takes to pack an element, in multiply-adds.
constexpr int64_t kPackedCost = 6;
// B is contiguous along k and has few rows to meet, or the rows of A are contiguous too and C is small: dot products, which
// neither pack, nor pad C to whole tiles, nor come back to it. A small C has at most so many squares of a vector by a vector.
constexpr int64_t kDotRows = 2 * kSkinnyRows, kDotSquares = 16;
// Up to this depth a product is hardly more than writing C. Where the rows of a tile of C would share a set of the cache, a
// few rows are written at a time, each from end to end, as sums of rows of B.
constexpr int64_t kThinDepth = 8;
// The rows and columns of one piece: its rows pass over B while it is in the cache.
constexpr int64_t kDotPieceRows = 16, kDotColumns = 16, kAxpyColumns = 1024;
// From this width on adding up rows of B beats the micro-kernel, from this depth on dot products do.
constexpr int64_t kAxpyWidth = 48, kDotDepth = 48, kSmallDotDepth = 256;
// Below this many multiply-adds nothing is gained by threads.
constexpr int64_t kSmall = 40 * 40 * 40;
// Up to this many multiply-adds nothing is gained by pairs of bf16 either, and torch keeps subnormals, which they flush.
constexpr int64_t kKeepsSubnormals = 16 * 16 * 16;
// A matrix is read where it lies, not packed, when each of its elements is used for so few panels that packing would not
// pay; B also when it fits the L1 cache. To the low tile of narrow registers packing saves little: it needs two pointers to
// reach the rows of A and takes its time over a row of B. Then A may meet more panels, if its steps are adjacent or so near
// that those of a chain do not share few sets of the L1 cache, and B lie in the L2 cache.
constexpr int64_t kUnpackedBytes = 24 * 1024;
// Short rows of A stay in the L1 cache for as many panels as pass by; then a packed A is read in longer runs.
constexpr int64_t kShallowRow = 512, kShallowUnpackedPanels = 16;
constexpr int64_t kLowTile = 6, kLowUnpackedPanels = 32, kNearStep = 256, kLowUnpackedBytes = 96 * 1024;
// Nor does it take rows of B from the L2 cache for packed ones where these are hardly longer than a panel's.
constexpr int64_t kDenseRow = 512;
// Where every step of k is a row of A and a row of B, and elements are used too few times for packing to pay (m n / (m + n) times
// each), both are read where they lie, some steps at a time, while the next are on their way. Not for a few tiles of C.
constexpr int64_t kStreamedDepth = 96, kStreamedUses = 208, kLowStreamedUses = 52, kStreamedElements = 1152;
// Rows of A that are read where they lie, the next panel's while those of one are multiplied, if they are longer than what the
// hardware sees coming. The few rows of a low tile it does see, and many tiles in a row have time to wait for them.
constexpr int64_t kFetchedRow = 128, kLowFetchedTiles = 8;
// More lines than that at once would keep a tile's own loads waiting: they are fetched every few steps.
constexpr int64_t kFetchedAtOnce = 8, kFetchedSteps = 16;
// A product with fewer independent pieces than this is cut along k as well, into lengths of kSplitDepth at least.
constexpr int64_t kSplitPieces = 16, kSplitDepth = 768, kSplits = 64;

// The work of one multiply-add in units of parallel(), as a fraction.
constexpr int64_t kMultiplyAddsPerUnit = 16;
constexpr int64_t kProductUnits = 256;  // what one of a batch takes beside them

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
        pairs_(g.type == DType::bf16 && g.m * g.n * g.k > kKeepsSubnormals ? TENSOROPS_BF16_KERNELS(gemm_bf16_kernels)
                                                                           : nullptr),
        compute_(compute_type(g.type)),
        size_(pairs_ != nullptr ? pairs_->size : kernels_.size[static_cast<int>(compute_)]),
        micro_(pairs_ != nullptr ? pairs_->micro : kernels_.micro[static_cast<int>(compute_)]),
        pack_(pairs_ != nullptr ? pairs_->pack : kernels_.pack[static_cast<int>(g.type)]),
        in_bytes_(element_size(g.type)),
        c_bytes_(element_size(g.epilogue.c_type)),
        source_bytes_(element_size(g.epilogue.source_type)),
        width_(compute_ == Compute::f64 || compute_ == Compute::i64 ? 8 : 4) {}

  void run() const {
    const int64_t pieces = path() == Path::axpy ? divide_up(g_.n, kAxpyColumns)
                           : path() == Path::dot ? divide_up(g_.m, kDotPieceRows) * divide_up(g_.n, kDotColumns)
                                                 : divide_up(g_.m, 64) * divide_up(g_.n, 64);
    const bool floating = compute_ == Compute::f32 || compute_ == Compute::f64;
    // As many as a power of two: three pieces would keep one of two threads busy for twice as long as the other.
    const int64_t splits = floating && pieces < kSplitPieces ? std::min(kSplits, power_of_two_up_to(g_.k / kSplitDepth)) : 1;
    if (splits > 1) return split(splits);
    run_whole();
  }

  // Tiny matrices: A where it lies, B as well or on the stack, no threads. The arithmetic is that of panels().
  static constexpr int64_t kTinyBytes = 8 * 1024;
  bool is_tiny() const {
    return g_.m * g_.n * g_.k <= kSmall && is_compute_type(g_.type, compute_) && size_.nr * g_.k * width_ <= kTinyBytes &&
           path() == Path::panels;
  }
  void tiny(int64_t begin, int64_t end) const {
    alignas(64) char panel[kTinyBytes];
    const GemmEpilogue& e = g_.epilogue;
    GemmTile tile;
    tile.a_row = g_.a.row;
    tile.a_step = g_.a.column;
    tile.a_panel = size_.mr * g_.a.row;
    tile.k = g_.k;
    tile.chain = chain_length();
    for (int64_t index = begin; index < end; ++index) {
      const char* a = offset(g_.a.data, index * g_.a.batch, in_bytes_);
      const char* b = offset(g_.b.data, index * g_.b.batch, in_bytes_);
      char* c = offset(g_.c, index * g_.c_batch, c_bytes_);
      const char* source = g_.source == nullptr ? nullptr : offset(g_.source, index * g_.source_batch, source_bytes_);
      for (int64_t j = 0; j < g_.n; j += size_.nr) {
        tile.columns = std::min<int64_t>(size_.nr, g_.n - j);
        tile.b = offset(b, j * g_.b.column, in_bytes_);
        tile.b_step = g_.b.row;
        if (g_.b.column != 1 || tile.columns % size_.vector != 0) {
          const int width = tile.columns > size_.vector ? size_.nr : size_.vector;
          pack_(tile.b, g_.b.column, g_.b.row, tile.columns, g_.k, width, panel);
          tile.b = panel;
          tile.b_step = width;
        }
        for (int64_t i = 0; i < g_.m; i += tile.row_panels * tile.rows) {
          const int64_t rows = g_.m - i;
          tile.rows = std::min<int64_t>(size_.mr, rows);
          tile.row_panels = rows < 2 * size_.mr ? 1 : rows / size_.mr;
          tile.a = offset(a, i * g_.a.row, in_bytes_);
          tile.c = offset(c, i * e.c_row + j * e.c_column, c_bytes_);
          tile.source = source == nullptr ? nullptr : offset(source, i * e.source_row + j * e.source_column, source_bytes_);
          micro_(tile, e);
        }
      }
    }
  }

 private:
  int64_t max_chain() const {
    if (is_compute_type(g_.type, compute_)) {
      for (const auto& [elements, length] : kChains)
        if (g_.m * g_.n <= elements) return std::min(length, streams() ? kStreamedDepth : kDepthBytes / width_);
    }
    return kDepthBytes / width_ * (pairs_ != nullptr ? 2 : 1);
  }
  int64_t chain_length() const {
    const int64_t chains = std::max<int64_t>(1, divide_up(g_.k, max_chain()));
    return std::max<int64_t>(8, round_up(divide_up(g_.k, chains), 8));
  }
  bool streams() const {
    const int64_t uses = size_.mr <= kLowTile ? kLowStreamedUses : kStreamedUses;
    return is_compute_type(g_.type, compute_) && g_.a.row == 1 && g_.b.column == 1 && g_.k >= kSplitDepth &&
           g_.m * g_.n >= kStreamedElements && g_.m * g_.n <= uses * (g_.m + g_.n);
  }
  // Steps of a panel that k elements take: its elements are width_ bytes long.
  int64_t steps(int64_t k) const { return pairs_ != nullptr ? divide_up(k, 2) : k; }

  // Whether C can hold sums of which not all steps are in, while the source still waits for the last (GemmTile::sums).
  bool sums_in_c() const {
    const GemmEpilogue& e = g_.epilogue;
    const bool plain_source = g_.source == nullptr || (e.source_type == compute_dtype() && e.source_column == 1);
    return e.c_type == compute_dtype() && e.c_column == 1 && plain_source;
  }

  enum class Path { axpy, dot, panels };
  Path path() const {
    const int type = static_cast<int>(g_.type);
    const bool deep = g_.k >= kDotDepth || g_.n == 1;
    const bool small = pairs_ == nullptr && g_.a.column == 1 && g_.k >= kSmallDotDepth &&
                       g_.m * g_.n <= kDotSquares * size_.vector * size_.vector;
    if ((g_.m <= kDotRows || small) && kernels_.dot[type] != nullptr && g_.b.row == 1 && deep) return Path::dot;
    const bool thin = g_.k <= kThinDepth && g_.epilogue.c_column == 1 && g_.epilogue.c_row * c_bytes_ % kCacheWay == 0;
    if ((g_.m <= kSkinnyRows || thin) && kernels_.axpy[type] != nullptr && g_.b.column == 1 && g_.n >= kAxpyWidth) return Path::axpy;
    return Path::panels;
  }

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
    const int64_t across = divide_up(g_.n, kAxpyColumns), pieces = divide_up(g_.m, kSkinnyRows) * across;
    parallel(pieces, cost(std::min(g_.m, kSkinnyRows), kAxpyColumns, g_.k), [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t i = piece / across * kSkinnyRows, first = piece % across * kAxpyColumns;
        GemmTile tile;
        tile.k = g_.k;
        tile.rows = std::min(kSkinnyRows, g_.m - i);
        tile.columns = std::min(kAxpyColumns, g_.n - first);
        tile.a = a_at(i, 0);
        tile.a_row = g_.a.row;
        tile.a_step = g_.a.column;
        tile.b = b_at(0, first);
        tile.b_step = g_.b.row;
        place(tile, i, first);
        kernel(tile, g_.epilogue);
      }
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
    const int64_t row_pieces = divide_up(g_.m, kDotPieceRows), pieces = row_pieces * divide_up(g_.n, kDotColumns);
    parallel(pieces, cost(std::min(g_.m, kDotPieceRows), kDotColumns, g_.k), [&](int64_t begin, int64_t end) {
      GemmTile tile;
      tile.k = g_.k;
      tile.a_row = a_row;
      tile.a_step = tile.b_step = 1;
      tile.b_column = g_.b.column;
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t first = piece % row_pieces * kDotPieceRows, last = std::min(first + kDotPieceRows, g_.m);
        const int64_t j = piece / row_pieces * kDotColumns;
        tile.columns = std::min(kDotColumns, g_.n - j);
        for (int64_t i = first; i < last; i += kSkinnyRows) {
          tile.rows = std::min(kSkinnyRows, last - i);
          tile.a = offset(a, i * a_row, in_bytes_);
          tile.b = b_at(0, j);
          place(tile, i, j);
          kernel(tile, g_.epilogue);
        }
      }
    });
  }

  // The general case. C is cut into a grid of areas, one for each thread, which packs for itself what its area takes: to
  // wait for panels that another core has packed, and to fetch them from its cache, takes longer. Where the cuts lie does
  // not show in the results: in any area, an element is the same sum in the same order.
  void panels() const {
    const int64_t work = cost(g_.m, g_.n, g_.k), column_panels = divide_up(g_.n, size_.nr);
    const int64_t threads = at::in_parallel_region() ? 1 : std::min<int64_t>(at::get_num_threads(), divide_up(work, kGrain));
    int64_t down = 1, across = 1, least = INT64_MAX;
    for (int64_t rows = 1; rows <= std::min(threads, g_.m); ++rows) {
      const int64_t columns = std::min(threads / rows, column_panels);
      const int64_t area_rows = divide_up(g_.m, rows), area_columns = divide_up(column_panels, columns) * size_.nr;
      const int64_t time = area_rows * area_columns + kPackedCost * (area_rows + area_columns);
      // Of two equals the one that cuts more rows, for a row of C, which areas side by side share, lies in one piece.
      if (time <= least) down = rows, across = columns, least = time;
    }
    const int64_t areas = down * across;
    parallel(areas, divide_up(work, areas), [&](int64_t begin, int64_t end) {
      for (int64_t area = begin; area < end; ++area) {
        const int64_t row = area / across, column = area % across;
        const auto column_at = [&](int64_t index) { return std::min(column_panels * index / across * size_.nr, g_.n); };
        multiply_area({g_.m * row / down, g_.m * (row + 1) / down, column_at(column), column_at(column + 1)});
      }
    });
  }

  struct Area {
    int64_t top, bottom, left, right;
  };
  void multiply_area(const Area& area) const {
    const int64_t rows = area.bottom - area.top, columns = area.right - area.left;
    const int64_t row_blocks = divide_up(rows, kBlockRows), block_rows = divide_up(rows, row_blocks);
    const int64_t block_columns = std::min(round_up(columns, size_.nr), kBlockColumns);
    const int64_t band = std::min(block_columns, kBandColumns);
    Block block;
    block.chain = chain_length();
    const int64_t chains = std::max<int64_t>(1, divide_up(g_.k, block.chain));
    const bool small = row_blocks == 1 && columns <= band && block.chain < kDepthBytes / width_;
    const int64_t packed_bytes = small ? kPackedBytes / (block_rows + band) : kDepthBytes;
    block.streams = streams();
    const int64_t depth =
        block.streams ? block.chain : block.chain * std::clamp<int64_t>(packed_bytes / (block.chain * width_), 1, chains);
    const bool compute_type = is_compute_type(g_.type, compute_);
    const bool conflict = g_.a.row * in_bytes_ % kCacheWay == 0 && columns > size_.nr && rows > 1;
    const bool low = size_.mr <= kLowTile, b_conflict = g_.b.row * in_bytes_ % kCacheWay == 0;
    const bool near = g_.a.column == 1 || (g_.a.row == 1 && g_.a.column * in_bytes_ <= kNearStep);
    const bool shallow = !low && g_.a.column == 1 && g_.k * in_bytes_ <= kShallowRow;
    const int64_t unpacked_panels = low && near ? kLowUnpackedPanels : shallow ? kShallowUnpackedPanels : kUnpackedPanels;
    // Adjacent elements of a row are pairs where they lie, if none stands alone at its end.
    const bool paired = pairs_ != nullptr && g_.a.column == 1 && g_.a.row % 2 == 0 && g_.k % 2 == 0;
    const bool pack_a = (!compute_type && !paired) || (!block.streams && (conflict || columns > unpacked_panels * size_.nr));
    const int64_t unpacked_bytes = low && !b_conflict ? kLowUnpackedBytes : kUnpackedBytes;
    const bool dense = g_.b.row * in_bytes_ <= kDenseRow;
    const bool pack_b = !compute_type || g_.b.column != 1 ||
                        (rows > kUnpackedPanels * size_.mr && g_.k * columns * width_ > unpacked_bytes && !(low && dense) &&
                         !block.streams);
    // A B that is not packed may still end in a part of a vector, which is.
    const int64_t packed_from = pack_b ? 0 : g_.n % size_.vector == 0 ? g_.n : g_.n / size_.nr * size_.nr;
    const int64_t step_bytes = steps(depth) * width_;
    const int64_t a_bytes = pack_a ? divide_up(block_rows, size_.mr) * size_.mr * step_bytes : 0;
    const int64_t b_bytes = pack_b ? band * step_bytes : packed_from < area.right ? size_.nr * step_bytes : 0;
    constexpr int64_t kOnStack = 8 * 1024;
    alignas(64) char stack[kOnStack];
    std::optional<Scratch> heap, sums;
    if (a_bytes + b_bytes > kOnStack) heap.emplace(a_bytes + b_bytes);
    char* const a_panels = heap ? heap->data() : stack;
    block.a_panels = pack_a ? a_panels : nullptr;
    block.b_panels = a_panels + a_bytes;
    block.down = !pack_b && g_.k * columns * width_ > kUnpackedBytes;
    // Sums that are come back to wait in C, or in memory of their own.
    if (depth < g_.k && !sums_in_c()) sums.emplace(block_rows * block_columns * width_);
    block.sums_row = sums ? block_columns : g_.epilogue.c_row;
    for (block.i = area.top; block.i < area.bottom; block.i += block_rows)
      for (int64_t left = area.left; left < area.right; left += block_columns)
        for (block.p = 0; block.p == 0 || block.p < g_.k; block.p += depth) {
          block.set_rows(std::min(block_rows, area.bottom - block.i), size_.mr);
          block.k = std::min(depth, g_.k - block.p);
          if (pack_a) pack_rows(block);
          const int64_t right = std::min(left + block_columns, area.right);
          for (block.j = left; block.j < right; block.j += band) {
            block.columns = std::min(band, right - block.j);
            block.packed_from = std::clamp<int64_t>(packed_from - block.j, 0, block.columns);
            block.sums = sums ? offset(sums->data(), block.j - left, width_)
                              : offset(g_.c, block.i * g_.epilogue.c_row + block.j * g_.epilogue.c_column, c_bytes_);
            if (block.packed_from < block.columns)
              pack_(b_at(block.p, block.j + block.packed_from), g_.b.column, g_.b.row, block.columns - block.packed_from,
                    block.k, size_.nr, block.b_panels);
            multiply_block(block);
          }
        }
  }

  // Rows and columns of C, and a length of k.
  struct Block {
    int64_t i, rows, row_panels, panel_rows, taller, j, columns, p, k, chain;
    char *a_panels, *b_panels;  // a_panels is null where A is read where it lies
    int64_t packed_from;        // the column, counted from j, from which on b_panels holds B
    bool down;                  // all rows pass over a panel of B while it is in the cache, for it lies spread out
    bool streams;               // so they do, and the next block's steps are fetched meanwhile
    char* sums;                 // of the steps before p
    int64_t sums_row;

    // Rows are cut evenly, for those of a low tile take longer each: the first `taller` panels have one more than the others.
    void set_rows(int64_t n, int64_t most) {
      rows = n;
      row_panels = divide_up(n, most);
      panel_rows = n / row_panels;
      taller = n % row_panels;
    }
    int64_t row_of(int64_t panel) const { return panel * panel_rows + std::min(panel, taller); }
  };

  // Full panels are packed together: where rows are adjacent, memory is then read in longer runs.
  void pack_rows(const Block& block) const {
    const int64_t full = block.panel_rows == size_.mr ? block.row_panels : block.panel_rows + 1 == size_.mr ? block.taller : 0;
    for (int64_t panel = 0, next; panel < block.row_panels; panel = next) {
      next = panel < full ? full : panel + 1;
      const int64_t first = block.row_of(panel);
      pack_(a_at(block.i + first, block.p), g_.a.row, g_.a.column, block.row_of(next) - first, block.k, size_.mr,
            offset(block.a_panels, panel * size_.mr * steps(block.k), width_));
    }
  }

  // Rows of so many bytes that are multiplied next, line by line, fetched in as many parts as there are tiles until then. at(row,
  // byte) is where they lie. To the second cache: more lines can be on their way there than to the first.
  template <class At>
  class Next {
   public:
    Next(At at, int64_t rows, int64_t bytes, int64_t parts)
        : at_(at), rows_(rows), bytes_(bytes), lines_(divide_up(rows * divide_up(bytes, kCacheLine), parts)) {}
    void fetch() {
      for (int64_t line = 0; line < lines_ && row_ < rows_; ++line) {
        __builtin_prefetch(at_(row_, byte_), 0, 2);
        if ((byte_ += kCacheLine) >= bytes_) byte_ = 0, ++row_;
      }
    }

   private:
    const At at_;
    const int64_t rows_, bytes_, lines_;
    int64_t row_ = 0, byte_ = 0;
  };

  void multiply_block(const Block& block) const {
    const int64_t k_steps = steps(block.k);
    GemmTile tile;
    tile.k = k_steps;
    tile.chain = steps(block.chain);
    tile.first = block.p == 0;
    tile.last = block.p + block.k >= g_.k;
    tile.sums_row = block.sums_row;
    const bool packed = block.a_panels != nullptr;
    tile.a_row = packed ? 1 : pairs_ != nullptr ? g_.a.row / 2 : g_.a.row;
    tile.a_step = packed ? size_.mr : g_.a.column;
    // Columns of B that are all packed or all not, met by one panel of A, or one panel of B met by some of A.
    const auto multiply_tiles = [&](int64_t panel, int64_t panels, int64_t j, int64_t columns) {
      const int64_t i = block.row_of(panel);
      const bool b_packed = j >= block.packed_from;
      tile.rows = block.row_of(panel + 1) - i;
      tile.row_panels = panels;
      tile.columns = columns;
      tile.a = packed ? offset(block.a_panels, panel * k_steps * size_.mr, width_) : a_at(block.i + i, block.p);
      tile.a_panel = packed ? size_.mr * k_steps : tile.rows * tile.a_row;
      tile.b = b_packed ? offset(block.b_panels, (j - block.packed_from) * k_steps, width_) : b_at(block.p, block.j + j);
      tile.b_step = b_packed ? size_.nr : g_.b.row;
      tile.b_panel = b_packed ? size_.nr * k_steps : size_.nr;
      place(tile, block.i + i, block.j + j);
      tile.sums = offset(block.sums, i * block.sums_row + j, width_);
      micro_(tile, g_.epilogue);
    };
    const auto multiply_across = [&](int64_t panel) {
      if (block.packed_from > 0) multiply_tiles(panel, 1, 0, block.packed_from);
      if (block.packed_from < block.columns) multiply_tiles(panel, 1, block.packed_from, block.columns - block.packed_from);
    };
    const auto columns_at = [&](int64_t j) { return std::min<int64_t>(size_.nr, block.columns - j); };
    const int64_t tiles = divide_up(block.columns, size_.nr);
    if (block.streams) {
      // The next block's steps, of A and then of B.
      const int64_t p = block.p + block.k, a_bytes = block.rows * width_;
      Next next(
          [&](int64_t step, int64_t byte) {
            return byte < a_bytes ? a_at(block.i, p + step) + byte : b_at(p + step, block.j) + (byte - a_bytes);
          },
          std::min(block.k, g_.k - p), a_bytes + block.columns * width_, block.row_panels * tiles);
      for (int64_t j = 0; j < block.columns; j += size_.nr)
        for (int64_t panel = 0; panel < block.row_panels; ++panel) {
          next.fetch();
          multiply_tiles(panel, 1, j, columns_at(j));
        }
    } else if (block.down) {
      for (int64_t j = 0; j < block.columns; j += size_.nr) {
        if (block.taller > 0) multiply_tiles(0, block.taller, j, columns_at(j));
        multiply_tiles(block.taller, block.row_panels - block.taller, j, columns_at(j));
      }
    } else if (!packed && g_.a.column == 1 && block.k * in_bytes_ > kFetchedRow &&
               (size_.mr > kLowTile || tiles <= kLowFetchedTiles)) {
      for (int64_t panel = 0; panel < block.row_panels; ++panel) {
        const int64_t first = block.row_of(panel + 1), end = block.row_of(std::min(panel + 2, block.row_panels));
        FetchAhead ahead;
        ahead.row = a_at(block.i + first, block.p), ahead.rows = end - first;
        ahead.stride = g_.a.row * in_bytes_, ahead.bytes = block.k * in_bytes_;
        const int64_t lines = divide_up(ahead.rows * divide_up(ahead.bytes, kCacheLine), tiles);
        ahead.steps = lines > kFetchedAtOnce ? kFetchedSteps : k_steps;
        ahead.lines = divide_up(lines, divide_up(k_steps, ahead.steps));
        tile.ahead = &ahead;
        multiply_across(panel);
      }
    } else {
      for (int64_t panel = 0; panel < block.row_panels; ++panel) multiply_across(panel);
    }
  }

  // Pieces of k side by side, then their sum in order.
  void split(int64_t pieces) const {
    const int64_t length = round_up(divide_up(g_.k, pieces), 64);
    pieces = divide_up(g_.k, length);
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
    switch (path()) {
      case Path::axpy: return axpy();
      case Path::dot: return dot();
      default: return panels();
    }
  }

  static int64_t cost(int64_t rows, int64_t columns, int64_t k) {
    return std::max<int64_t>(1, rows * columns * k / kMultiplyAddsPerUnit);
  }

  const Gemm& g_;
  const GemmKernels& kernels_;
  const GemmBf16Kernels* const pairs_;
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
  const bool few_columns = g.n <= kSkinnyRows && g.n < g.m && (g.n == 1 || g.k >= kDotDepth || g.a.row == 1);
  const bool few_rows = g.m <= kSkinnyRows && !few_columns;
  if (few_columns || (!few_rows && g.epilogue.c_column != 1 && g.epilogue.c_row == 1)) transpose(g);

  const int64_t work = kProductUnits + g.m * g.n * g.k / kMultiplyAddsPerUnit;
  const Multiply whole(g);
  if (whole.is_tiny()) {
    if (g.batch == 1) return whole.tiny(0, 1);
    return parallel(g.batch, work, [&](int64_t begin, int64_t end) { whole.tiny(begin, end); });
  }
  if (g.batch == 1) return whole.run();
  const auto run_some = [&](int64_t begin, int64_t end) {
    Gemm one = g;
    one.batch = 1;
    for (int64_t index = begin; index < end; ++index) {
      one.a.data = offset(g.a.data, index * g.a.batch, element_size(g.type));
      one.b.data = offset(g.b.data, index * g.b.batch, element_size(g.type));
      one.c = offset(g.c, index * g.c_batch, element_size(g.epilogue.c_type));
      if (g.source != nullptr) one.source = offset(g.source, index * g.source_batch, element_size(g.epilogue.source_type));
      Multiply(one).run();
    }
  };
  // Whole matrices to each thread where there are enough of them, or where one is too small to share.
  if (g.batch >= at::get_num_threads() || g.m * g.n * g.k <= kSmall) parallel(g.batch, work, run_some);
  else run_some(0, g.batch);
}

}  // namespace tensorops::cpu
