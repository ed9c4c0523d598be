// The gradient of a product on the CPU: each element's is the incoming gradient times the product of the other elements. Nothing
// is divided, so zeros are no case of their own, and all is in double, so what overflows in f32 on the way need not in the end.
//
// The input is seen as matrices whose columns are multiplied up, cut into blocks of kProductRows rows: the products of all blocks,
// then for each block those of the other ones, then within the block. A contiguous line is a matrix of kLineColumns columns,
// whose products are multiplied up in turn, and a tail of fewer elements; shorter lines are turned to be columns.
#include <ATen/core/DimVector.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cpu/dtype.h"
#include "cpu/kernels/reduction.h"
#include "cpu/lines.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "ops/reduction.h"

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

Tensor prod_gradient(const Tensor& grad, const Tensor& input, at::IntArrayRef dims) {
  at::DimVector expected(input.sizes());
  int64_t n = 1, inner = 1;
  for (const int64_t dim : dims) {
    n *= input.size(dim);
    expected[dim] = 1;
  }
  const auto type = input.scalar_type();
  TORCH_CHECK(c10::isFloatingType(type), "_prod_gradient: expected a floating point input, got ", type);
  TORCH_CHECK(grad.sizes() == expected && grad.scalar_type() == type, "_prod_gradient: expected a gradient of shape ",
              at::IntArrayRef(expected), " and dtype ", type, ", got ", grad.sizes(), " and ", grad.scalar_type());
  if (input.numel() == 0) return empty(input.sizes(), type);
  const auto count = static_cast<int64_t>(dims.size());
  at::DimVector last(count);
  bool adjacent = input.is_contiguous();
  for (int64_t i = 0; i < count; ++i) {
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

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) { library.impl("_prod_gradient", prod_gradient); }

}  // namespace tensorops::cpu
