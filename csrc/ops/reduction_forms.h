// The argument forms that the reductions come in. Each room registers all of them by giving two functions:
//   functional(op, input, arguments)      -> std::tuple<Tensor, Tensor>, the second undefined where there is one result
//   out(op, input, arguments, out, second) with `second` null where there is one result
#pragma once

#include <torch/library.h>

#include "ops/reduction.h"

namespace tensorops {

template <class F, class O>
void impl_reductions(torch::Library& library, F functional, O out) {
  using at::Tensor;
  using ops::Dims;
  using ops::Dtype;
  using ops::Number;
  const auto with_dtype = [&](Reduction op) {
    const std::string name = reduction_name(op);
    library.impl(name.c_str(), [=](const Tensor& input, Dims dim, bool keepdim, Dtype dtype) -> Tensor {
      return std::get<0>(functional(op, input, {dim, keepdim, dtype, {}}));
    });
    library.impl((name + ".out").c_str(), [=](const Tensor& input, Dims dim, bool keepdim, Dtype dtype, Tensor& result) -> Tensor& {
      // Computed in the dtype of out=, which does not make mean take integers.
      if (!dtype && (op != Reduction::mean || !c10::isIntegralType(input.scalar_type(), /*includeBool=*/true)))
        dtype = result.scalar_type();
      out(op, input, {dim, keepdim, dtype, {}}, result, nullptr);
      return result;
    });
  };
  const auto plain = [&](Reduction op) {
    const std::string name = reduction_name(op);
    library.impl(name.c_str(), [=](const Tensor& input, Dims dim, bool keepdim) -> Tensor {
      return std::get<0>(functional(op, input, {dim, keepdim, {}, {}}));
    });
    library.impl((name + ".out").c_str(), [=](const Tensor& input, Dims dim, bool keepdim, Tensor& result) -> Tensor& {
      out(op, input, {dim, keepdim, result.scalar_type(), {}}, result, nullptr);
      return result;
    });
  };
  const auto corrected = [&](Reduction op) {
    const std::string name = reduction_name(op);
    library.impl(name.c_str(), [=](const Tensor& input, Dims dim, const Number& correction, bool keepdim) -> Tensor {
      return std::get<0>(functional(op, input, {dim, keepdim, {}, correction}));
    });
    library.impl((name + ".out").c_str(), [=](const Tensor& input, Dims dim, const Number& correction, bool keepdim, Tensor& result) -> Tensor& {
      out(op, input, {dim, keepdim, {}, correction}, result, nullptr);
      return result;
    });
  };
  const auto corrected_pair = [&](Reduction op) {
    library.impl(reduction_name(op), [=](const Tensor& input, Dims dim, const Number& correction, bool keepdim) -> ops::TwoTensors {
      return functional(op, input, {dim, keepdim, {}, correction});
    });
  };
  // One dimension or none: argmax, aminmax.
  const auto as_dims = [](const std::optional<int64_t>& dim) { return dim ? Dims(*dim) : Dims(); };
  const auto index = [&](Reduction op) {
    const std::string name = reduction_name(op);
    library.impl(name.c_str(), [=](const Tensor& input, std::optional<int64_t> dim, bool keepdim) -> Tensor {
      return std::get<0>(functional(op, input, {as_dims(dim), keepdim, {}, {}}));
    });
    library.impl((name + ".out").c_str(), [=](const Tensor& input, std::optional<int64_t> dim, bool keepdim, Tensor& result) -> Tensor& {
      out(op, input, {as_dims(dim), keepdim, {}, {}}, result, nullptr);
      return result;
    });
  };
  const auto along = [&](Reduction op) {
    const std::string name = reduction_name(op);
    library.impl((name + ".dim").c_str(), [=](const Tensor& input, int64_t dim, bool keepdim) -> ops::TwoTensors {
      return functional(op, input, {Dims(dim), keepdim, {}, {}});
    });
    library.impl((name + ".dim_out").c_str(), [=](const Tensor& input, int64_t dim, bool keepdim, Tensor& values, Tensor& indices) -> ops::TwoOut {
      out(op, input, {Dims(dim), keepdim, {}, {}}, values, &indices);
      return {values, indices};
    });
  };
  with_dtype(Reduction::sum);
  with_dtype(Reduction::prod);
  with_dtype(Reduction::mean);
  plain(Reduction::amax);
  plain(Reduction::amin);
  plain(Reduction::any);
  plain(Reduction::all);
  plain(Reduction::logsumexp);
  corrected(Reduction::var);
  corrected(Reduction::std);
  corrected_pair(Reduction::var_mean);
  corrected_pair(Reduction::std_mean);
  index(Reduction::argmax);
  index(Reduction::argmin);
  along(Reduction::max);
  along(Reduction::min);
  library.impl("count_nonzero", [=](const Tensor& input, Dims dim) -> Tensor {
    return std::get<0>(functional(Reduction::count_nonzero, input, {dim, false, {}, {}}));
  });
  library.impl("norm.scalar", [=](const Tensor& input, const Number& p, Dims dim, bool keepdim, Dtype dtype) -> Tensor {
    return std::get<0>(functional(Reduction::norm, input, {dim, keepdim, dtype, p}));
  });
  library.impl("norm.out", [=](const Tensor& input, const Number& p, Dims dim, bool keepdim, Dtype dtype, Tensor& result) -> Tensor& {
    out(Reduction::norm, input, {dim, keepdim, dtype, p}, result, nullptr);
    return result;
  });
  library.impl("aminmax", [=](const Tensor& input, std::optional<int64_t> dim, bool keepdim) -> ops::TwoTensors {
    return functional(Reduction::aminmax, input, {as_dims(dim), keepdim, {}, {}});
  });
  library.impl("aminmax.out", [=](const Tensor& input, std::optional<int64_t> dim, bool keepdim, Tensor& min, Tensor& max) -> ops::TwoOut {
    out(Reduction::aminmax, input, {as_dims(dim), keepdim, {}, {}}, min, &max);
    return {min, max};
  });
}

}  // namespace tensorops
