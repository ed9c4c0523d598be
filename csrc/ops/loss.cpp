// Losses: schemas, the composites that check and broadcast, and Meta kernels.
#include "ops/loss.h"

#include <ATen/ExpandUtils.h>
#include <ATen/native/TypeProperties.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

#include "ops/layout.h"

namespace tensorops {
namespace {

using at::Tensor;
using ops::OptionalTensor;

// The sizes of `input` without its class dimension.
c10::SmallVector<c10::SymInt, 6> position_sizes(const Tensor& input) {
  const auto sizes = input.sym_sizes();
  c10::SmallVector<c10::SymInt, 6> result;
  for (int64_t i = 0; i < input.dim(); ++i)
    if (i != class_dim(input)) result.push_back(sizes[i]);
  return result;
}

bool has_position_sizes(const Tensor& input, const Tensor& target) {
  if (target.dim() != std::max<int64_t>(input.dim() - 1, 0)) return false;
  const auto from = input.sym_sizes(), to = target.sym_sizes();
  for (size_t i = 0; i < to.size(); ++i)
    if (to[i] != from[i == 0 ? 0 : i + 1]) return false;
  return true;
}

void check_floating(const char* op, const Tensor& input) {
  TORCH_CHECK_NOT_IMPLEMENTED(input.is_floating_point(), "\"", op, "\" not implemented for '", input.scalar_type(), "'");
}

void check_reduction(const char* op, int64_t reduction) {
  TORCH_CHECK(reduction >= 0 && reduction < at::Reduction::END, op, ": reduction must be 0 (none), 1 (mean) or 2 (sum), got ",
              reduction);
}

// Before dispatch, which would send a mixture of devices to the kernel of one.
void check_devices(const char* op, const Tensor& input, const Tensor& target, const OptionalTensor& weight) {
  for (const Tensor* other : {&target, weight ? &*weight : &target})
    TORCH_CHECK(other->device() == input.device(), op, ": Expected all tensors to be on the same device, but found at least "
                "two devices, ", input.device(), " and ", other->device(), "!");
}

// Of more than two dimensions torch looks at the number of weights alone, if it is to pick them by label.
void check_weight(const char* op, const Tensor& input, const OptionalTensor& weight, bool any_shape = false) {
  if (!weight) return;
  const auto& classes = input.sym_size(class_dim(input));
  TORCH_CHECK((weight->dim() == 1 || (any_shape && input.dim() > 2)) && weight->sym_numel() == classes, op, ": weight tensor should be defined either for all ",
              classes, " classes or no classes but got weight tensor of shape: ", weight->sym_sizes());
}

OptionalTensor as_vector(const OptionalTensor& weight) {
  return weight && weight->dim() != 1 ? OptionalTensor(weight->reshape({-1})) : weight;
}

// Labels as int64 in the shape of the positions.
Tensor labels_for(const char* op, const Tensor& input, const Tensor& target) {
  TORCH_CHECK_VALUE(input.dim() >= 1, op, ": Expected 1 or more dimensions (got ", input.dim(), ")");
  TORCH_CHECK_VALUE(input.dim() == 1 || (target.dim() >= 1 && input.sym_size(0) == target.sym_size(0)), op,
                    ": Expected input batch_size (", input.sym_size(0), ") to match target batch_size (",
                    target.dim() >= 1 ? target.sym_size(0) : c10::SymInt(1), ").");
  TORCH_CHECK_VALUE(input.dim() != 1 || target.dim() != 1 || target.sym_size(0) == 1, op,
                    ": For 1D input, 1D target must have size 1, but got target size: ", target.sym_size(0));
  const auto type = target.scalar_type();
  TORCH_CHECK(type == c10::kLong || (type == c10::kByte && input.dim() <= 2), op, ": expected target dtype to be Long",
              input.dim() <= 2 ? " or Byte" : "", ", but got ", type);
  const bool single = input.dim() == 1 && target.dim() == 1 && target.sym_size(0) == 1;
  TORCH_CHECK(single || has_position_sizes(input, target), op, ": Expected target size ",
              c10::SymIntArrayRef(position_sizes(input)), " for input size ", input.sym_sizes(), ", got ", target.sym_sizes());
  const Tensor labels = type == c10::kLong ? target : target.to(c10::kLong);
  return single ? labels.squeeze(0) : labels;
}

// ---- The public ops

Tensor nll_loss(const Tensor& input, const Tensor& target, const OptionalTensor& weight, int64_t reduction,
                c10::SymInt ignore_index) {
  check_devices("nll_loss", input, target, weight);
  const Tensor labels = labels_for("nll_loss", input, target);
  check_floating("nll_loss", input);
  check_reduction("nll_loss", reduction);
  check_weight("nll_loss", input, weight, /*any_shape=*/true);
  TORCH_CHECK(!weight || weight->scalar_type() == input.scalar_type(), "nll_loss: expected scalar type ",
              input.scalar_type(), " for weight, but found ", weight->scalar_type());
  return std::get<0>(ops::nll_loss_forward(input, labels, as_vector(weight), reduction, std::move(ignore_index)));
}

Tensor cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight, int64_t reduction,
                     c10::SymInt ignore_index, double label_smoothing) {
  check_devices("cross_entropy", input, target, weight);
  check_floating("cross_entropy", input);
  check_reduction("cross_entropy", reduction);
  TORCH_CHECK(!(label_smoothing > 1.0), "cross_entropy: label_smoothing must be between 0.0 and 1.0. Got: ", label_smoothing);
  const double smoothing = label_smoothing > 0.0 ? label_smoothing : 0.0;
  if (input.sym_sizes() != target.sym_sizes()) {
    const Tensor labels = labels_for("cross_entropy", input, target);
    check_weight("cross_entropy", input, weight, /*any_shape=*/smoothing == 0.0);
    TORCH_CHECK(!weight || weight->scalar_type() == input.scalar_type(), "cross_entropy: expected scalar type ",
                input.scalar_type(), " for weight, but found ", weight->scalar_type());
    return std::get<0>(ops::cross_entropy_forward(input, labels, as_vector(weight), reduction, std::move(ignore_index), smoothing));
  }
  TORCH_CHECK(target.is_floating_point(),
              "cross_entropy: Expected floating point type for target with class probabilities, got ", target.scalar_type());
  TORCH_CHECK(ignore_index < 0, "cross_entropy: ignore_index is not supported for floating point target");
  TORCH_CHECK_INDEX(input.dim() >= 1, "cross_entropy: Expected 1 or more dimensions (got ", input.dim(), ")");
  check_weight("cross_entropy", input, weight);
  auto type = at::promote_types(input.scalar_type(), target.scalar_type());
  if (weight) type = at::promote_types(type, weight->scalar_type());
  return std::get<0>(ops::cross_entropy_forward(input.to(type), target.to(type),
                                                weight ? OptionalTensor(weight->to(type)) : std::nullopt, reduction,
                                                std::move(ignore_index), smoothing));
}

Tensor mse_loss(const Tensor& input, const Tensor& target, int64_t reduction) {
  check_reduction("mse_loss", reduction);
  check_devices("mse_loss", input, target, std::nullopt);
  const auto type = at::result_type(input, target);
  TORCH_CHECK_NOT_IMPLEMENTED(c10::isFloatingType(type), "\"mse_loss\" not implemented for '", type, "'");
  Tensor x = input.to(type), t = target.to(type);
  if (x.sym_sizes() != t.sym_sizes()) {
    const auto sizes = at::infer_size_symdimvector(x.sym_sizes(), t.sym_sizes());
    x = x.expand_symint(sizes);
    t = t.expand_symint(sizes);
  }
  return ops::mse_loss_forward(x, t, reduction);
}

Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight, int64_t reduction) {
  check_devices("binary_cross_entropy", input, target, weight);
  check_floating("binary_cross_entropy", input);
  check_reduction("binary_cross_entropy", reduction);
  TORCH_CHECK(target.scalar_type() == input.scalar_type(), "binary_cross_entropy: Found dtype ", target.scalar_type(),
              " of target but expected ", input.scalar_type());
  Tensor x = input, t = target;
  if (x.sym_sizes() != t.sym_sizes()) {
    const auto sizes = at::infer_size_symdimvector(x.sym_sizes(), t.sym_sizes());
    x = x.expand_symint(sizes);
    t = t.expand_symint(sizes);
  }
  OptionalTensor w = weight;
  if (w && (w->sym_sizes() != x.sym_sizes() || w->scalar_type() != x.scalar_type()))
    w = w->to(x.scalar_type()).expand_symint(x.sym_sizes());
  return ops::binary_cross_entropy_forward(x, t, w, reduction);
}

// ---- Meta

namespace meta {

Tensor reduced(const Tensor& input, int64_t reduction, c10::SymIntArrayRef sizes) {
  return at::empty_symint(reduction == at::Reduction::None ? sizes : c10::SymIntArrayRef(), input.options());
}

std::tuple<Tensor, Tensor> nll_loss(const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                                    int64_t reduction, c10::SymInt ignore_index) {
  return {reduced(input, reduction, target.sym_sizes()), at::empty({}, input.options().dtype(loss_compute_dtype(input)))};
}

Tensor nll_loss_backward(const Tensor& grad, const Tensor& target, const OptionalTensor& weight, const Tensor& total,
                         c10::SymInt classes, int64_t reduction, c10::SymInt ignore_index) {
  auto sizes = target.sym_sizes().vec();
  sizes.insert(sizes.begin() + (sizes.empty() ? 0 : 1), std::move(classes));
  return at::empty_symint(sizes, grad.options());
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                                                 int64_t reduction, c10::SymInt ignore_index, double label_smoothing) {
  auto sizes = position_sizes(input);
  const auto kept = input.options().dtype(loss_compute_dtype(input));
  const Tensor loss = reduced(input, reduction, sizes);
  sizes.insert(sizes.begin(), c10::SymInt(2));
  return {loss, at::empty_symint(sizes, kept), at::empty({}, kept)};
}

Tensor cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                              const Tensor& normalizer, const Tensor& total, int64_t reduction, c10::SymInt ignore_index,
                              double label_smoothing) {
  if (!has_class_rows(input)) return at::empty_symint(input.sym_sizes(), input.options());
  auto sizes = position_sizes(input);
  sizes.push_back(input.sym_size(class_dim(input)));
  return at::empty_symint(sizes, input.options()).movedim(-1, class_dim(input));
}

Tensor element_loss(const Tensor& input, const Tensor& target, int64_t reduction) {
  if (reduction != at::Reduction::None) return at::empty({}, input.options());
  return at::empty_strided_symint(input.sym_sizes(), result_strides<c10::SymInt>({{&input, &target}, 2}, input.sym_sizes()),
                                  input.options());
}

Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor&, int64_t reduction) {
  return element_loss(input, target, reduction);
}

Tensor mse_loss_backward(const Tensor& grad, const Tensor& input, const Tensor& target, int64_t reduction) {
  return element_loss(input, target, at::Reduction::None);
}

Tensor binary_cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target, const OptionalTensor&,
                                     int64_t reduction) {
  return element_loss(input, target, at::Reduction::None);
}

}  // namespace meta
}  // namespace

bool has_class_rows(const Tensor& input) {
  if (input.unsafeGetTensorImpl()->has_symbolic_sizes_strides())
    return input.movedim(class_dim(input), -1).is_contiguous();
  // The same of plain numbers, without a view.
  if (input.numel() == 0) return true;
  int64_t expected = 1;
  const auto follows = [&](int64_t dim) {
    if (input.size(dim) == 1) return true;
    if (input.stride(dim) != expected) return false;
    expected *= input.size(dim);
    return true;
  };
  if (!follows(class_dim(input))) return false;
  for (int64_t dim = input.dim() - 1; dim >= 0; --dim)
    if (dim != class_dim(input) && !follows(dim)) return false;
  return true;
}

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const std::string arguments = "Tensor input, Tensor target, Tensor? weight=None, int reduction=1";
  const std::string saved = "Tensor normalizer, Tensor total, int reduction, SymInt ignore_index, float label_smoothing";
  for (const std::string& schema : {
           "nll_loss(" + arguments + ", SymInt ignore_index=-100) -> Tensor",
           "_nll_loss(" + arguments + ", SymInt ignore_index=-100) -> (Tensor, Tensor)",
           std::string("_nll_loss_backward(Tensor grad, Tensor target, Tensor? weight, Tensor total, SymInt classes, "
                       "int reduction, SymInt ignore_index) -> Tensor"),
           "cross_entropy(" + arguments + ", SymInt ignore_index=-100, float label_smoothing=0.0) -> Tensor",
           "_cross_entropy(" + arguments + ", SymInt ignore_index=-100, float label_smoothing=0.0) -> "
               "(Tensor, Tensor, Tensor)",
           "_cross_entropy_backward(Tensor grad, Tensor input, Tensor target, Tensor? weight, " + saved + ") -> Tensor",
           std::string("mse_loss(Tensor input, Tensor target, int reduction=1) -> Tensor"),
           std::string("_mse_loss(Tensor input, Tensor target, int reduction=1) -> Tensor"),
           std::string("_mse_loss_backward(Tensor grad, Tensor input, Tensor target, int reduction) -> Tensor"),
           "binary_cross_entropy(" + arguments + ") -> Tensor",
           "_binary_cross_entropy(" + arguments + ") -> Tensor",
           std::string("_binary_cross_entropy_backward(Tensor grad, Tensor input, Tensor target, Tensor? weight, "
                       "int reduction) -> Tensor"),
       })
    library.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tensorops, CompositeImplicitAutograd, library) {
  library.impl("nll_loss", nll_loss);
  library.impl("cross_entropy", cross_entropy);
  library.impl("mse_loss", mse_loss);
  library.impl("binary_cross_entropy", binary_cross_entropy);
}

TORCH_LIBRARY_IMPL(tensorops, Meta, library) {
  library.impl("_nll_loss", meta::nll_loss);
  library.impl("_nll_loss_backward", meta::nll_loss_backward);
  library.impl("_cross_entropy", meta::cross_entropy);
  library.impl("_cross_entropy_backward", meta::cross_entropy_backward);
  library.impl("_mse_loss", meta::element_loss);
  library.impl("_mse_loss_backward", meta::mse_loss_backward);
  library.impl("_binary_cross_entropy", meta::binary_cross_entropy);
  library.impl("_binary_cross_entropy_backward", meta::binary_cross_entropy_backward);
}

}  // namespace tensorops
