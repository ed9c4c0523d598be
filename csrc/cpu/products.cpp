// The gradients of products on the CPU, of prod and of cumprod.
//
// prod: each element's is the incoming gradient times the product of the other elements. Nothing
// is divided, so zeros are no case of their own, and all is in double, so what overflows in f32 on the way need not in the end.
//
// The input is seen as matrices whose columns are multiplied up, cut into blocks of kProductRows rows: the products of all blocks,
// then for each block those of the other ones, then within the block. A contiguous line is a matrix of kLineColumns columns,
// whose products are multiplied up in turn, and a tail of fewer elements; shorter lines are turned to be columns.
//
// cumprod: columns side by side, from their ends, and contiguous lines in tiles that are turned to be columns. A few long lines are
// cut into blocks, which are gone through once before, for what each carries to the one before it.
#include <ATen/WrapDimUtils.h>
#include <ATen/core/DimVector.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/dtype.h"
#include "cpu/kernels/reduction.h"
#include "cpu/kernels/scan.h"
#include "cpu/lines.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "ops/reduction.h"
#include "ops/scan.h"

namespace tensorops::cpu {
namespace {

using at::Tensor;

constexpr int64_t kLineColumns = 64;
constexpr int64_t kEnoughMatrices = 16;  // so many keep all threads busy: each is done while it is in the cache
constexpr int64_t kTogether = 512;       // columns whose blocks' products are multiplied up at a time

// Each of n < 2 * kLineColumns numbers becomes `start` times the product of the others.
void products_of_others(double* x, int64_t n, double start) {
  double before[2 * kLineColumns], after = 1;
  for (int64_t i = 0; i < n; ++i) before[i] = start, start *= x[i];
  for (int64_t i = n - 1; i >= 0; --i) {
    const double own = x[i];
    x[i] = before[i] * after;
    after *= own;
  }
}

class ProductGradient {
 public:
  // `input` and `result` are contiguous: `outer` matrices of n rows of `inner` columns, of each of which `grad` has a row.
  ProductGradient(const Tensor& grad, const Tensor& input, const Tensor& result, int64_t n, int64_t inner)
      : dtype_(dtype_of(input.scalar_type())),
        size_(element_size(dtype_)),
        matrix_(n * inner),
        outer_(input.numel() / matrix_),
        columns_(inner > 1 ? inner : kLineColumns),
        rows_(matrix_ / columns_),
        tail_(matrix_ % columns_),
        blocks_(divide_up(rows_, kProductRows)),
        is_line_(inner == 1),
        grad_(static_cast<const char*>(grad.const_data_ptr())),
        input_(static_cast<const char*>(input.const_data_ptr())),
        result_(static_cast<char*>(result.data_ptr())),
        load_(loader(dtype_, Compute::f64)),
        store_(storer(Compute::f64, dtype_)) {
    const ReductionKernels& table = TENSOROPS_KERNELS(reduction_kernels);
    const ReduceKernels(&kernels)[static_cast<int>(Compute::count)] = table.kernels[static_cast<int>(Reducer::prod)];
    products_ = dtype_ == DType::f16    ? table.f16[static_cast<int>(Reducer::prod)].rows
                : dtype_ == DType::bf16 ? table.bf16[static_cast<int>(Reducer::prod)].rows
                                        : kernels[static_cast<int>(dtype_ == DType::f64 ? Compute::f64 : Compute::f32)].rows;
    gradient_ = table.product_gradient[static_cast<int>(dtype_)];
  }

  void run() const {
    if (rows_ == 0) return run_turned();
    const int64_t table = blocks_ * columns_, cost = 4;
    if (outer_ >= kEnoughMatrices) {
      parallel(outer_, matrix_ * cost, [&](int64_t begin, int64_t end) {
        const Scratch products(table * 8), factors(table * 8);
        for (int64_t o = begin; o < end; ++o) {
          for (int64_t b = 0; b < blocks_; ++b) block_products(o, b, products.data<double>());
          multiply_up(o, 0, columns_, products.data<double>(), factors.data<double>());
          for (int64_t b = 0; b < blocks_; ++b) block_gradient(o, b, factors.data<double>());
        }
      });
      return;
    }
    const Scratch products(table * 8), factors(table * 8);
    const int64_t together = is_line_ ? columns_ : kTogether, pieces = divide_up(columns_, together);
    for (int64_t o = 0; o < outer_; ++o) {
      const int64_t block_cost = std::min(rows_, kProductRows) * columns_ * cost;
      parallel(blocks_, block_cost, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) block_products(o, b, products.data<double>());
      });
      parallel(pieces, blocks_ * together * cost, [&](int64_t begin, int64_t end) {
        for (int64_t piece = begin; piece < end; ++piece)
          multiply_up(o, piece * together, std::min(columns_, (piece + 1) * together), products.data<double>(),
                      factors.data<double>());
      });
      parallel(blocks_, block_cost, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) block_gradient(o, b, factors.data<double>());
      });
    }
  }

 private:
  // Lines shorter than a row, in tiles in which they are columns.
  void run_turned() const {
    const TransposeKernel transpose = transposer(dtype_);
    const int64_t n = matrix_, width = std::clamp<int64_t>(std::min(kTileElements / n, outer_ / 8) / 16 * 16, 16, kTileColumns);
    parallel(divide_up(outer_, width), width * n * 4, [&](int64_t begin, int64_t end) {
      const Scratch memory(2 * n * width * size_), factors(width * 8);
      char *const x = memory.data(), *const y = x + n * width * size_;
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t first = tile * width, m = std::min(width, outer_ - first), at = first * n * size_;
        transpose(input_ + at, {n * size_, size_}, x, {size_, m * size_}, m, n);
        load_(grad_ + first * size_, size_, factors.data(), m);
        gradient_(x, m, n, m, factors.data<double>(), y);
        transpose(y, {m * size_, size_}, result_ + at, {size_, n * size_}, n, m);
      }
    });
  }

  int64_t first_of(int64_t o, int64_t b) const { return o * matrix_ + b * kProductRows * columns_; }
  int64_t rows_of(int64_t b) const { return std::min(kProductRows, rows_ - b * kProductRows); }

  void block_products(int64_t o, int64_t b, double* products) const {
    products_({}, input_ + first_of(o, b) * size_, columns_ * size_, rows_of(b), columns_, 0, 0,
              {products + b * columns_, columns_});
  }
  void block_gradient(int64_t o, int64_t b, const double* factors) const {
    gradient_(input_ + first_of(o, b) * size_, columns_, rows_of(b), columns_, factors + b * columns_,
              result_ + first_of(o, b) * size_);
  }

  // For columns [begin, end) of all blocks, the gradient times the product of the other blocks; of a line, which has one gradient,
  // times that of the other columns and the tail as well, and the tail's results.
  void multiply_up(int64_t o, int64_t begin, int64_t end, const double* products, double* factors) const {
    const int64_t n = end - begin;
    std::vector<double> running(std::max(n, 2 * kLineColumns), 1.0);
    if (is_line_) {
      for (int64_t b = 0; b < blocks_; ++b)
        for (int64_t c = 0; c < n; ++c) running[c] *= products[b * columns_ + c];
      const int64_t at = o * matrix_ + rows_ * columns_;
      double start;
      load_(grad_ + o * size_, size_, &start, 1);
      load_(input_ + at * size_, size_, &running[columns_], tail_);
      products_of_others(running.data(), columns_ + tail_, start);
      store_(&running[columns_], result_ + at * size_, size_, tail_);
    } else {
      load_(grad_ + (o * columns_ + begin) * size_, size_, running.data(), n);
    }
    for (int64_t b = 0; b < blocks_; ++b)
      for (int64_t c = 0; c < n; ++c) {
        factors[b * columns_ + begin + c] = running[c];
        running[c] *= products[b * columns_ + begin + c];
      }
    std::fill(running.begin(), running.end(), 1.0);
    for (int64_t b = blocks_ - 1; b >= 0; --b)
      for (int64_t c = 0; c < n; ++c) {
        factors[b * columns_ + begin + c] *= running[c];
        running[c] *= products[b * columns_ + begin + c];
      }
  }

  const DType dtype_;
  const int64_t size_;           // bytes of an element
  const int64_t matrix_, outer_;  // elements of a matrix, and how many there are
  const int64_t columns_, rows_, tail_, blocks_;
  const bool is_line_;
  const char *const grad_, *const input_;
  char* const result_;
  const LoadKernel load_;
  const StoreKernel store_;
  ReduceRowsKernel products_;
  ProductGradientKernel gradient_;
};

Tensor prod_gradient(const Tensor& grad, const Tensor& input, at::IntArrayRef given) {
  const auto dims = check_prod_gradient(grad, input, given);
  const auto type = input.scalar_type();
  if (dims.empty()) return grad.clone();
  if (input.numel() == 0) return empty(input.sizes(), type);
  const auto count = static_cast<int64_t>(dims.size());
  int64_t n = 1, inner = 1;
  at::DimVector last(count);
  bool adjacent = input.is_contiguous();
  for (int64_t i = 0; i < count; ++i) {
    n *= input.size(dims[i]);
    last[i] = input.dim() - count + i;
    adjacent &= dims[i] == dims[0] + i;
  }
  // Dimensions that follow one another in memory are gone along where they lie; others are a copy's last ones.
  if (adjacent) {
    for (int64_t i = dims[count - 1] + 1; i < input.dim(); ++i) inner *= input.size(i);
    const Tensor result = empty(input.sizes(), type);
    ProductGradient(grad.contiguous(), input, result, n, inner).run();
    return result;
  }
  const Tensor moved = input.movedim(dims, last).contiguous(), result = empty(moved.sizes(), type);
  ProductGradient(grad.movedim(dims, last).contiguous(), moved, result, n, 1).run();
  return result.movedim(last, dims).contiguous();
}

class CumprodGradient {
 public:
  // All contiguous: `outer` matrices of n rows of `inner` columns.
  CumprodGradient(const Tensor& grad, const Tensor& input, const Tensor& product, const Tensor& result, int64_t n, int64_t inner)
      : dtype_(dtype_of(input.scalar_type())),
        size_(element_size(dtype_)),
        n_(n),
        inner_(inner),
        outer_(input.numel() / (n * inner)),
        grad_(static_cast<const char*>(grad.const_data_ptr())),
        input_(static_cast<const char*>(input.const_data_ptr())),
        product_(static_cast<const char*>(product.const_data_ptr())),
        result_(static_cast<char*>(result.data_ptr())),
        kernel_(TENSOROPS_KERNELS(scan_kernels).cumprod_gradient[static_cast<int>(dtype_)]),
        carry_(TENSOROPS_KERNELS(scan_kernels).cumprod_carry[static_cast<int>(dtype_)]) {}

  void run() const {
    if (inner_ > 1) return columns();
    if (outer_ >= kEnoughMatrices || n_ < 2 * kBlock) return lines(outer_, n_, 0, nullptr);
    for (int64_t o = 0; o < outer_; ++o) blocks(o * n_);
  }

 private:
  static constexpr int64_t kPanel = 512;    // columns whose carries stay in the L1 cache
  static constexpr int64_t kRowsAhead = 4;  // elements of columns are fetched so long before their turn
  static constexpr int64_t kPiece = 512;    // of a line, in a tile: read in long runs, as lines may be far apart
  static constexpr int64_t kBlock = 8192;   // of a long line

  void columns() const {
    const int64_t panels = divide_up(inner_, kPanel);
    parallel(outer_ * panels, n_ * std::min(inner_, kPanel) * 4, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % panels * kPanel, m = std::min(kPanel, inner_ - first), matrix = task / panels * n_ * inner_;
        double carried[kPanel] = {};
        for (int64_t k = n_ - 1; k >= 0; --k) {
          const int64_t at = (matrix + k * inner_ + first) * size_;
          kernel_(grad_ + at, input_ + at, k > 0 ? product_ + at - inner_ * size_ : nullptr, result_ + at, m, carried,
                  k > kRowsAhead ? kRowsAhead * inner_ : 0);
        }
      }
    });
  }

  // Of `count` lines of n elements, one after another from element `start` on, in tiles: f(first line, lines, first element,
  // elements) for pieces of a tile from the end, after begin(first line, lines).
  template <class Begin, class F>
  void for_tiles(int64_t count, int64_t n, const Begin& begin_tile, const F& f) const {
    const int64_t piece = std::min(n, kPiece);
    const int64_t width = std::clamp<int64_t>(std::min(kTileElements / piece, count / 8) / 16 * 16, 16, kTileColumns);
    parallel(divide_up(count, width), width * n * 4, [&](int64_t begin, int64_t end) {
      const Scratch memory(4 * piece * width * size_ + width * size_);
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t first = tile * width, m = std::min(width, count - first);
        double carried[kTileColumns];
        begin_tile(first, m, carried);
        for (int64_t last = n; last > 0; last -= std::min(last, piece)) {
          const int64_t from = std::max<int64_t>(0, last - piece);
          f(first, m, from, last - from, carried, memory.data());
        }
      }
    });
  }
  // Elements of m lines into rows of a tile, or back.
  void turn(const char* from, int64_t n, char* tile, int64_t m, int64_t elements) const {
    transposer(dtype_)(from, {n * size_, size_}, tile, {size_, m * size_}, m, elements);
  }

  // With `carries`, by line, each line but the first is another part of the same one.
  void lines(int64_t count, int64_t n, int64_t start, const double* carries) const {
    for_tiles(
        count, n,
        [&](int64_t first, int64_t m, double* carried) {
          for (int64_t i = 0; i < m; ++i) carried[i] = carries == nullptr ? 0 : carries[first + i];
        },
        [&](int64_t first, int64_t m, int64_t from, int64_t elements, double* carried, char* memory) {
          const int64_t at = (start + first * n + from) * size_, row = m * size_, tile = elements * row;
          char *const g = memory, *const x = g + tile, *const p = x + tile, *const y = p + tile + row;
          turn(grad_ + at, n, g, m, elements);
          turn(input_ + at, n, x, m, elements);
          // The products up to the element before: of a line's first one there are none.
          const bool begins = from == 0;
          if (!begins) turn(product_ + at - size_, n, p, m, elements);
          else if (elements > 1) turn(product_ + at, n, p + row, m, elements - 1);
          if (begins && carries != nullptr) {
            const double one = 1;
            for (int64_t i = 0; i < m; ++i) {
              if (first + i == 0) storer(Compute::f64, dtype_)(&one, p, size_, 1);
              else std::memcpy(p + i * size_, product_ + at + i * n * size_ - size_, size_);
            }
          }
          for (int64_t k = elements - 1; k >= 0; --k) {
            const bool is_first = begins && carries == nullptr && k == 0;
            kernel_(g + k * row, x + k * row, is_first ? nullptr : p + k * row, y + k * row, m, carried, 0);
          }
          transposer(dtype_)(y, {row, size_}, result_ + at, {size_, n * size_}, elements, m);
        });
  }

  // A long line from element `start` on: whole blocks and, at the end, the rest.
  void blocks(int64_t start) const {
    const int64_t count = n_ / kBlock, rest = n_ % kBlock;
    std::vector<double> carries(count), products(count, 1.0);
    for_tiles(
        count, kBlock, [&](int64_t, int64_t m, double* carried) { std::fill(carried, carried + m, 0.0); },
        [&](int64_t first, int64_t m, int64_t from, int64_t elements, double* carried, char* memory) {
          const int64_t at = (start + first * kBlock + from) * size_, row = m * size_;
          char *const g = memory, *const x = g + elements * row;
          turn(grad_ + at, kBlock, g, m, elements);
          turn(input_ + at, kBlock, x, m, elements);
          for (int64_t k = elements - 1; k >= 0; --k) carry_(g + k * row, x + k * row, m, carried, &products[first]);
          if (from == 0) std::copy(carried, carried + m, &carries[first]);
        });
    // Of the rest, one by one; then what each block finds carried to it.
    double carried = 0;
    const auto offset = [&](int64_t k) { return (start + k) * size_; };
    for (int64_t k = n_ - 1; k >= n_ - rest; --k)
      kernel_(grad_ + offset(k), input_ + offset(k), product_ + offset(k - 1), result_ + offset(k), 1, &carried, 0);
    for (int64_t b = count - 1; b >= 0; --b) {
      const double own = carries[b];
      carries[b] = carried;
      carried = own + products[b] * carried;
    }
    lines(count, kBlock, start, carries.data());
  }

  const DType dtype_;
  const int64_t size_, n_, inner_, outer_;
  const char *const grad_, *const input_, *const product_;
  char* const result_;
  const CumprodGradientKernel kernel_;
  const CumprodCarryKernel carry_;
};

Tensor cumprod_gradient(const Tensor& grad, const Tensor& input, const Tensor& product, int64_t dim) {
  check_cumprod_gradient(grad, input, product);
  dim = at::maybe_wrap_dim(dim, input.dim());
  const Tensor result = empty(input.sizes(), input.scalar_type());
  if (input.numel() == 0) return result;
  int64_t inner = 1;
  for (int64_t i = dim + 1; i < input.dim(); ++i) inner *= input.size(i);
  const int64_t n = input.dim() == 0 ? 1 : input.size(dim);
  CumprodGradient(grad.contiguous(), input.contiguous(), product.contiguous(), result, n, inner).run();
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  library.impl("_prod_gradient", prod_gradient);
  library.impl("_cumprod_gradient", cumprod_gradient);
}

}  // namespace tensorops::cpu
