// The matmul family: typed callers, and the shape and dtype rules that every room shares.
//
// Ten ops are five products, bare or added to something: `addmm` is beta * input + alpha * mm(mat1, mat2).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/native/TypeProperties.h>
#include <c10/core/Scalar.h>
#include <torch/library.h>

#include <array>

#include "ops/handle.h"
#include "ops/layout.h"

namespace tensorops {
namespace ops {

using Tensor = at::Tensor;
using Scalar = c10::Scalar;

using ProductOp = Op<Tensor(const Tensor&, const Tensor&)>;
using ProductOutOp = Op<Tensor&(const Tensor&, const Tensor&, Tensor&)>;
inline const ProductOp mm{"mm"}, mv{"mv"}, bmm{"bmm"}, dot{"dot"}, outer{"outer"}, matmul{"matmul"};
inline const ProductOutOp mm_out{"mm", "out"}, mv_out{"mv", "out"}, bmm_out{"bmm", "out"}, dot_out{"dot", "out"},
    outer_out{"outer", "out"}, matmul_out{"matmul", "out"};

using SumOp = Op<Tensor(const Tensor&, const Tensor&, const Tensor&, const Scalar&, const Scalar&)>;
using SumInplaceOp = Op<Tensor&(Tensor&, const Tensor&, const Tensor&, const Scalar&, const Scalar&)>;
using SumOutOp = Op<Tensor&(const Tensor&, const Tensor&, const Tensor&, const Scalar&, const Scalar&, Tensor&)>;
inline const SumOp addmm{"addmm"}, addmv{"addmv"}, addbmm{"addbmm"}, baddbmm{"baddbmm"}, addr{"addr"};
inline const SumInplaceOp addmm_{"addmm_"}, addmv_{"addmv_"}, addbmm_{"addbmm_"}, baddbmm_{"baddbmm_"}, addr_{"addr_"};
inline const SumOutOp addmm_out{"addmm", "out"}, addmv_out{"addmv", "out"}, addbmm_out{"addbmm", "out"},
    baddbmm_out{"baddbmm", "out"}, addr_out{"addr", "out"};

inline const Op<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&)> linear{"linear"};
inline const Op<Tensor&(const Tensor&, const Tensor&, const std::optional<Tensor>&, Tensor&)> linear_out{"linear", "out"};
// linear with an activation in the epilogue: "relu", "gelu", "gelu_tanh", "sigmoid", "tanh" or "silu".
inline const Op<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view)> linear_activation{
    "_linear_activation"};

}  // namespace ops

enum class Product { mm, mv, bmm, dot, outer, bmm_sum };

// A bare product, and one that is added to its first argument.
struct ProductRow {
  const char* name;
  const char* node;  // what grad_fn prints
  Product product;
  const char* parameters;
  const ops::ProductOp& op;
  const ops::ProductOutOp& out;
};
inline const std::array<ProductRow, 5> kProducts = {{
    {"mm", "MmBackward", Product::mm, "Tensor input, Tensor mat2", ops::mm, ops::mm_out},
    {"mv", "MvBackward", Product::mv, "Tensor input, Tensor vec", ops::mv, ops::mv_out},
    {"bmm", "BmmBackward", Product::bmm, "Tensor input, Tensor mat2", ops::bmm, ops::bmm_out},
    {"dot", "DotBackward", Product::dot, "Tensor input, Tensor tensor", ops::dot, ops::dot_out},
    {"outer", "OuterBackward", Product::outer, "Tensor input, Tensor vec2", ops::outer, ops::outer_out},
}};
struct SumRow {
  const char* name;
  const char* node;  // what grad_fn prints
  Product product;
  const char* parameters;  // those of the product
  const ops::SumOp& op;
  const ops::SumInplaceOp& inplace;
  const ops::SumOutOp& out;
};
inline const std::array<SumRow, 5> kSums = {{
    {"addmm", "AddmmBackward", Product::mm, "Tensor mat1, Tensor mat2", ops::addmm, ops::addmm_, ops::addmm_out},
    {"addmv", "AddmvBackward", Product::mv, "Tensor mat, Tensor vec", ops::addmv, ops::addmv_, ops::addmv_out},
    {"addbmm", "AddbmmBackward", Product::bmm_sum, "Tensor batch1, Tensor batch2", ops::addbmm, ops::addbmm_, ops::addbmm_out},
    {"baddbmm", "BaddbmmBackward", Product::bmm, "Tensor batch1, Tensor batch2", ops::baddbmm, ops::baddbmm_, ops::baddbmm_out},
    {"addr", "AddrBackward", Product::outer, "Tensor vec1, Tensor vec2", ops::addr, ops::addr_, ops::addr_out},
}};

// ---- Rules, written once for plain and symbolic sizes ----------------------------------------------------------------

template <class Int>
Dims<Int> dims(std::initializer_list<Int> sizes) {
  return Dims<Int>(sizes.begin(), sizes.end());
}

// The shape of a @ b; refuses what does not fit.
template <class Int>
Dims<Int> product_sizes(const char* name, Product product, const at::Tensor& a, const at::Tensor& b) {
  const auto x = sizes_of<Int>(a), y = sizes_of<Int>(b);
  switch (product) {
    case Product::mm:
      TORCH_CHECK(x.size() == 2, name, ": mat1 must be a matrix, got ", x.size(), "-D tensor");
      TORCH_CHECK(y.size() == 2, name, ": mat2 must be a matrix, got ", y.size(), "-D tensor");
      TORCH_CHECK(x[1] == y[0], name, ": mat1 and mat2 shapes cannot be multiplied (", x[0], "x", x[1], " and ", y[0], "x",
                  y[1], ")");
      return dims<Int>({x[0], y[1]});
    case Product::mv:
      TORCH_CHECK(x.size() == 2 && y.size() == 1, name, ": vector + matrix @ vector expected, got a matrix of ", x.size(),
                  " and a vector of ", y.size(), " dimensions");
      TORCH_CHECK(x[1] == y[0], name, ": size mismatch, got mat (", x[0], "x", x[1], "), vec (", y[0], ")");
      return dims<Int>({x[0]});
    case Product::dot:
      TORCH_CHECK(x.size() == 1 && y.size() == 1, name, ": 1D tensors expected, but got ", x.size(), "D and ", y.size(),
                  "D tensors");
      TORCH_CHECK(x[0] == y[0], name, ": inconsistent tensor size, expected tensor [", x[0], "] and src [", y[0],
                  "] to have the same number of elements");
      return {};
    case Product::outer:
      TORCH_CHECK(x.size() == 1, name, ": Expected 1-D argument vec1, but got ", x.size(), "-D");
      TORCH_CHECK(y.size() == 1, name, ": Expected 1-D argument vec2, but got ", y.size(), "-D");
      return dims<Int>({x[0], y[0]});
    default:
      TORCH_CHECK(x.size() == 3, name, ": batch1 must be a 3D tensor, got shape ", x);
      TORCH_CHECK(y.size() == 3, name, ": batch2 must be a 3D tensor, got shape ", y);
      TORCH_CHECK(x[0] == y[0] && x[2] == y[1], name, ": Expected size for first two dimensions of batch2 tensor to be: [",
                  x[0], ", ", x[2], "] but got: [", y[0], ", ", y[1], "].");
      return product == Product::bmm ? dims<Int>({x[0], x[1], y[2]}) : dims<Int>({x[1], y[2]});
  }
}

// Whether `added` broadcasts to the product's shape.
template <class Int>
void check_expands(const char* name, const at::Tensor& added, c10::ArrayRef<Int> sizes) {
  const auto own = sizes_of<Int>(added);
  TORCH_CHECK(own.size() <= sizes.size(), name, ": The number of sizes provided (", sizes.size(),
              ") must be greater or equal to the number of dimensions in the tensor (", own.size(),
              ").  Target sizes: ", sizes, ".  Tensor sizes: ", own);
  const size_t extra = sizes.size() - own.size();
  for (size_t dim = 0; dim < own.size(); ++dim)
    TORCH_CHECK(own[dim] == 1 || own[dim] == sizes[extra + dim], name, ": The expanded size of the tensor (",
                sizes[extra + dim], ") must match the existing size (", own[dim], ") at non-singleton dimension ",
                extra + dim, ".  Target sizes: ", sizes, ".  Tensor sizes: ", own);
}

// linear: weight is a matrix (out_features x in_features) or a vector (no out_features dimension in the result).
template <class Int>
Dims<Int> linear_sizes(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const auto x = sizes_of<Int>(input), w = sizes_of<Int>(weight);
  TORCH_CHECK(x.size() > 0 && w.size() > 0, "both arguments to linear need to be at least 1D, but they are ", x.size(),
              "D and ", w.size(), "D");
  TORCH_CHECK(w.size() <= 2, "linear: weight must be a matrix or a vector, got shape ", w);
  TORCH_CHECK(w.size() == 2 || !bias || (x.size() != 2 && bias->dim() != 1), "linear: with a bias, weight must be a matrix, got ",
              w.size(), "-D tensor");
  TORCH_CHECK(x.back() == w.back(), "linear: mat1 and mat2 shapes cannot be multiplied: input has shape ", x,
              " and weight has shape ", w, ", but their last dimensions must be equal");
  Dims<Int> sizes(x.begin(), x.end() - 1);
  if (w.size() == 2) sizes.push_back(w[0]);
  if (bias) check_expands<Int>("linear", *bias, sizes);
  return sizes;
}

// One dtype for all; bool has no matrix product.
inline c10::ScalarType product_dtype(const char* name, const at::Tensor& a, const at::Tensor& b,
                                     const at::Tensor* added = nullptr) {
  const c10::ScalarType type = a.scalar_type();
  TORCH_CHECK(type == b.scalar_type(), name, ": expected m1 and m2 to have the same dtype, but got: ", type, " != ",
              b.scalar_type());
  TORCH_CHECK(added == nullptr || added->scalar_type() == type, name, ": expected input to have the dtype of the matrices, got ",
              added == nullptr ? type : added->scalar_type(), " and ", type);
  TORCH_CHECK_NOT_IMPLEMENTED(type != c10::kBool, "\"", name, "\" not implemented for 'Bool'");
  return type;
}

// outer and addr promote, as elementwise ops do.
inline c10::ScalarType promoted_dtype(const at::Tensor& a, const at::Tensor& b, const at::Tensor* added = nullptr) {
  const c10::ScalarType type = a.scalar_type();
  if (b.scalar_type() == type && (added == nullptr || added->scalar_type() == type)) return type;
  at::native::ResultTypeState state = at::native::update_result_type_state(a, {});
  state = at::native::update_result_type_state(b, state);
  if (added != nullptr) state = at::native::update_result_type_state(*added, state);
  return at::native::result_type(state);
}

// Result dtype of a product or sum.
inline c10::ScalarType result_dtype(const char* name, Product product, const at::Tensor& a, const at::Tensor& b,
                                    const at::Tensor* added = nullptr) {
  return product == Product::outer ? promoted_dtype(a, b, added) : product_dtype(name, a, b, added);
}

// out= has the result's dtype; outer and addr cast to it within the same kind.
inline void check_out_dtype(const char* name, Product product, c10::ScalarType type, c10::ScalarType out) {
  const bool casts = product == Product::outer;
  TORCH_CHECK(!casts || c10::canCast(type, out), name, ": result type ", type,
              " can't be cast to the desired output type ", out);
  TORCH_CHECK(casts || out == type, name, ": Expected out tensor to have dtype ", type, ", but got ", out, " instead");
}

template <class Int>
Dims<Int> row_major(c10::ArrayRef<Int> sizes) {
  Dims<Int> strides(sizes.size());
  Int next = 1;
  for (size_t dim = sizes.size(); dim-- > 0;) {
    strides[dim] = next;
    next = next * std::max<Int>(sizes[dim], Int(1));
  }
  return strides;
}

// A sum's result: row-major; addr, an elementwise op at heart, keeps its input's order of dimensions.
template <class Int>
Dims<Int> sum_strides(Product product, const at::Tensor& input, const at::Tensor& a, const at::Tensor& b,
                      c10::ArrayRef<Int> sizes) {
  if (product != Product::outer || input.dim() != 2) return row_major(sizes);
  const at::Tensor column = a.unsqueeze(1), row = b.unsqueeze(0);
  return result_strides<Int>({{&input, &column, &row}, 3}, sizes);
}

// An in-place sum writes into a tensor of the product's own shape. (addbmm_ alone lets a smaller one grow, as in torch.)
template <class Int>
void check_inplace(const SumRow& row, const at::Tensor& self, const Dims<Int>& sizes) {
  if (row.product == Product::bmm_sum) return;
  TORCH_CHECK(sizes_of<Int>(self) == c10::ArrayRef<Int>(sizes), "Bad in-place call: ", row.name, "_ input tensor size ",
              sizes_of<Int>(self), " and output tensor size ", c10::ArrayRef<Int>(sizes), " should match");
}

// Registers one kernel for all bare products, f(row, a, b) and out(row, a, b, out), and one for all sums.
template <class F, class Out>
void impl_products(torch::Library& library, F f, Out out) {
  for (const ProductRow& row : kProducts) {
    library.impl(row.name, [&row, f](const at::Tensor& a, const at::Tensor& b) -> at::Tensor { return f(row, a, b); });
    library.impl((std::string(row.name) + ".out").c_str(),
                 [&row, out](const at::Tensor& a, const at::Tensor& b, at::Tensor& result) -> at::Tensor& {
                   out(row, a, b, result);
                   return result;
                 });
  }
}
template <class F, class Inplace, class Out>
void impl_sums(torch::Library& library, F f, Inplace inplace, Out out) {
  using T = const at::Tensor&;
  using S = const c10::Scalar&;
  for (const SumRow& row : kSums) {
    const std::string name = row.name;
    library.impl(name.c_str(),
                 [&row, f](T input, T a, T b, S beta, S alpha) -> at::Tensor { return f(row, input, a, b, beta, alpha); });
    library.impl((name + "_").c_str(), [&row, inplace](at::Tensor& self, T a, T b, S beta, S alpha) -> at::Tensor& {
      inplace(row, self, a, b, beta, alpha);
      return self;
    });
    library.impl((name + ".out").c_str(),
                 [&row, out](T input, T a, T b, S beta, S alpha, at::Tensor& result) -> at::Tensor& {
                   out(row, input, a, b, beta, alpha, result);
                   return result;
                 });
  }
}

}  // namespace tensorops
