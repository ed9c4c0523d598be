// Losses on the CPU: labels are checked before anything else is read; losses go to scratch in the compute type; sums are
// made of partial sums over blocks of fixed size, in f64, so that they do not depend on the number of threads.
#include "ops/loss.h"

#include <ATen/core/DimVector.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/dtype.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/loss.h"
#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "ops/layout.h"

namespace tensorops::cpu {
namespace {

using at::Tensor;
using ops::OptionalTensor;

constexpr int64_t kBlock = 4096;
constexpr int64_t kExpCost = 4;  // of an exponential next to an addition, for the choice of threads
constexpr int64_t kShortRow = 64;  // bytes; rows of classes that are shorter fill no vectors
constexpr int64_t kTurned = 256;   // positions at a time, and 32 at least

template <class Kernel>
Kernel kernel_for(Kernel const (&table)[LossKernels::kDTypes], const Tensor& t) {
  return table[static_cast<int>(dtype_of(t.scalar_type()))];
}
const LossKernels& kernels() { return TENSOROPS_KERNELS(loss_kernels); }

template <class F>
void by_compute_type(const Tensor& t, F f) {
  if (t.scalar_type() == c10::kDouble) return f(double());
  return f(float());
}

// The sum of f(begin, end) over blocks of [0, n).
template <class F>
double sum_of_blocks(int64_t n, int64_t cost, const F& f) {
  if (n <= kBlock) return n > 0 ? 0.0 + f(0, n) : 0.0;
  const int64_t blocks = divide_up(n, kBlock);
  std::vector<double> partial(blocks);
  parallel(blocks, kBlock * cost, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) partial[b] = f(b * kBlock, std::min(n, (b + 1) * kBlock));
  });
  double total = 0;
  for (double sum : partial) total += sum;
  return total;
}

// Elements of any dtype as the compute type, and back.
template <class C>
constexpr Compute compute_of = std::is_same_v<C, double> ? Compute::f64 : Compute::f32;
template <class C>
std::vector<C> as_compute(const Tensor& t) {
  const Tensor dense = t.contiguous();
  const DType dtype = dtype_of(dense.scalar_type());
  std::vector<C> values(dense.numel());
  TENSOROPS_KERNELS(elementwise_kernels).load[static_cast<int>(dtype)][static_cast<int>(compute_of<C>)](
      dense.const_data_ptr(), element_size(dtype), values.data(), dense.numel());
  return values;
}
template <class C>
void store_as(const C* values, const Tensor& out) {
  const DType dtype = dtype_of(out.scalar_type());
  const int64_t size = element_size(dtype);
  const auto store = TENSOROPS_KERNELS(elementwise_kernels).store[static_cast<int>(compute_of<C>)][static_cast<int>(dtype)];
  char* to = static_cast<char*>(out.data_ptr());
  parallel(out.numel(), 1, [&](int64_t begin, int64_t end) { store(values + begin, to + begin * size, size, end - begin); });
}

Tensor scalar(c10::ScalarType dtype) { return empty({}, dtype); }

// ---- Losses over classes

int64_t positions_of(const Tensor& input) {
  int64_t count = 1;
  for (int64_t i = 0; i < input.dim(); ++i)
    if (i != class_dim(input)) count *= input.size(i);
  return count;
}

// The positions as the kernels see them: n of them in `groups`, each group with a plane of its own in the logits. Rows
// have all positions in one group.
struct Positions {
  int64_t groups, n, classes;
  ClassLayout layout;
  Tensor logits;  // dense in this layout

  explicit Positions(const Tensor& input) : classes(input.size(class_dim(input))) {
    const bool rows = has_class_rows(input);
    layout = rows ? ClassLayout::rows : ClassLayout::columns;
    logits = rows ? input : input.contiguous();
    groups = rows || input.dim() == 1 ? 1 : input.size(0);
    n = groups == 0 ? 0 : positions_of(input) / groups;
  }
  int64_t count() const { return groups * n; }
  int64_t row_stride() const { return layout == ClassLayout::rows ? classes : n; }
  // What the kernel sees: short rows, where there are many, are turned in cache, for then their positions fill vectors.
  ClassLayout kernel_layout(const Tensor& target) const {
    const bool is_short = classes > 1 && classes * logits.element_size() < kShortRow && n >= kTurned / 8;
    return is_short && !is_probabilities(target) ? ClassLayout::columns : layout;
  }

  // f(position, n, offset in the logits) over pieces that share a group; `cost` is that of a position.
  template <class F>
  void for_pieces(int64_t cost, const F& f) const {
    parallel(count(), cost, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t group = begin / n, first = begin % n, m = std::min(n - first, end - begin);
        f(begin, m, layout == ClassLayout::rows ? begin * classes : group * classes * n + first);
        begin += m;
      }
    });
  }
};

// Checks the labels and adds up their weights.
template <class C>
double total_weight(const Tensor& labels, int64_t classes, int64_t ignored, const std::vector<C>& weight) {
  TORCH_CHECK(classes <= std::numeric_limits<int32_t>::max(), "loss over ", classes, " classes: int32 counts them");
  const int64_t* label = labels.const_data_ptr<int64_t>();
  return sum_of_blocks(labels.numel(), 1, [&](int64_t begin, int64_t end) {
    // Counted without branches; who is out of bounds is looked for where someone is.
    int64_t kept = 0, outside = 0;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t is_kept = label[i] != ignored;
      kept += is_kept;
      outside += is_kept & int64_t(static_cast<uint64_t>(label[i]) >= static_cast<uint64_t>(classes));
    }
    for (int64_t i = begin; outside > 0 && i < end; ++i)
      TORCH_CHECK_INDEX(label[i] == ignored || (label[i] >= 0 && label[i] < classes), "Target ", label[i], " is out of bounds.");
    if (weight.empty()) return static_cast<double>(kept);
    double sum = 0;
    for (int64_t i = begin; i < end; ++i)
      if (label[i] != ignored) sum += static_cast<double>(weight[label[i]]);
    return sum;
  });
}

// The loss as torch gives it, from those of the positions.
template <class C>
Tensor reduced(const C* losses, int64_t n, double total, int64_t reduction, c10::IntArrayRef sizes, c10::ScalarType dtype) {
  if (reduction == at::Reduction::None) {
    const Tensor loss = empty(sizes, dtype);
    store_as(losses, loss);
    return loss;
  }
  const double sum = sum_of_blocks(n, 1, [&](int64_t begin, int64_t end) {
    // Sums side by side, for each addition waits for the one before.
    double partial[4] = {};
    int64_t i = begin;
    for (; i + 4 <= end; i += 4)
      for (int k = 0; k < 4; ++k) partial[k] += losses[i + k];
    for (; i < end; ++i) partial[0] += losses[i];
    return (partial[0] + partial[1]) + (partial[2] + partial[3]);
  });
  const C value = static_cast<C>(reduction == at::Reduction::Mean ? sum / total : sum);
  const Tensor loss = scalar(dtype);
  store_as(&value, loss);
  return loss;
}

// The gradient of each position's loss.
template <class C>
std::vector<C> position_gradients(const Tensor& grad, const Tensor& total, int64_t reduction, int64_t n,
                                  const int64_t* labels, int64_t ignored) {
  std::vector<C> gradients = as_compute<C>(grad);
  if (reduction != at::Reduction::None) {
    C shared = gradients.at(0);
    if (reduction == at::Reduction::Mean) shared /= *total.const_data_ptr<C>();
    gradients.assign(n, shared);
  }
  for (int64_t i = 0; labels != nullptr && i < n; ++i)
    if (labels[i] == ignored) gradients[i] = 0;
  return gradients;
}

std::tuple<Tensor, Tensor> nll_loss(const Tensor& input, const Tensor& target_, const OptionalTensor& weight_,
                                    int64_t reduction, c10::SymInt ignore_index) {
  const Tensor target = target_.contiguous();
  const Tensor total = scalar(loss_compute_dtype(input));
  const int64_t ignored = ignore_index.guard_int(__FILE__, __LINE__);
  const auto kernel = kernel_for(kernels().pick, input);
  Tensor loss;
  by_compute_type(input, [&]<class C>(C) {
    const auto weight = weight_ ? as_compute<C>(*weight_) : std::vector<C>();
    const double sum = total_weight(target, input.size(class_dim(input)), ignored, weight);
    *total.data_ptr<C>() = static_cast<C>(sum);
    const Positions positions(input);
    const Scratch losses(positions.count() * sizeof(C));
    const bool rows = positions.layout == ClassLayout::rows;
    positions.for_pieces(2, [&](int64_t position, int64_t n, int64_t offset) {
      kernel({static_cast<const char*>(positions.logits.const_data_ptr()) + offset * input.element_size(), n,
              rows ? positions.classes : 1, rows ? 1 : positions.n,
              {target.const_data_ptr<int64_t>() + position, nullptr, weight.empty() ? nullptr : weight.data(), 1, 0, 0,
               ignored},
              losses.data<C>() + position});
    });
    loss = reduced(losses.data<C>(), positions.count(), sum, reduction, target.sizes(), input.scalar_type());
  });
  return {loss, total};
}

Tensor nll_loss_backward(const Tensor& grad, const Tensor& target_, const OptionalTensor& weight_, const Tensor& total,
                         c10::SymInt classes_, int64_t reduction, c10::SymInt ignore_index) {
  const Tensor target = target_.contiguous();
  const int64_t classes = classes_.guard_int(__FILE__, __LINE__), ignored = ignore_index.guard_int(__FILE__, __LINE__);
  at::DimVector sizes(target.sizes());
  sizes.insert(sizes.begin() + (sizes.empty() ? 0 : 1), classes);
  const Tensor result = empty(sizes, grad.scalar_type());
  fill_with_zeros(result);
  const auto kernel = kernel_for(kernels().pick_backward, grad);
  by_compute_type(grad, [&]<class C>(C) {
    const auto weight = weight_ ? as_compute<C>(*weight_) : std::vector<C>();
    total_weight(target, classes, ignored, weight);
    const int64_t* labels = target.const_data_ptr<int64_t>();
    const Positions positions(result);
    const auto gradients = position_gradients<C>(grad, total, reduction, positions.count(), labels, ignored);
    const bool rows = positions.layout == ClassLayout::rows;
    positions.for_pieces(2, [&](int64_t position, int64_t n, int64_t offset) {
      kernel({gradients.data() + position, n, rows ? classes : 1, rows ? 1 : positions.n,
              {labels + position, nullptr, weight.empty() ? nullptr : weight.data(), 1, 0, 0, ignored},
              static_cast<char*>(result.data_ptr()) + offset * grad.element_size()});
    });
  });
  return result;
}

// `target` in the layout of the logits, if it is made of probabilities.
Tensor target_like(const Positions& positions, const Tensor& input, const Tensor& target) {
  if (!is_probabilities(target) || positions.layout == ClassLayout::columns) return target.contiguous();
  return target.movedim(class_dim(input), -1).contiguous();
}

template <class C>
ClassTarget class_target(const Tensor& target, const std::vector<C>& weight, int64_t classes, int64_t ignored,
                         double smoothing) {
  ClassTarget t{};
  // Probabilities of no classes have no memory, and are not labels for all that.
  if (is_probabilities(target)) t.probabilities = target.numel() > 0 ? target.const_data_ptr() : &t;
  else t.labels = target.const_data_ptr<int64_t>();
  t.weight = weight.empty() ? nullptr : weight.data();
  t.kept = 1 - smoothing;
  t.spread = smoothing / static_cast<double>(classes);
  t.weight_sum = weight.empty() ? static_cast<double>(classes) : 0;
  for (C w : weight) t.weight_sum += static_cast<double>(w);
  t.ignored = ignored;
  return t;
}
// The same from a later position on.
ClassTarget from(ClassTarget target, int64_t position, int64_t offset_bytes) {
  if (target.labels != nullptr) target.labels += position;
  else target.probabilities = static_cast<const char*>(target.probabilities) + offset_bytes;
  return target;
}

// f(logits, out, position, n, stride, target) for pieces of the positions in the kernel's layout: as they lie, or turned in the
// first cache, from rows of classes to rows of positions. `out`, laid out as the logits, may be null.
template <class F>
void for_class_pieces(const Positions& positions, ClassLayout layout, const ClassTarget& target, char* out, const F& f) {
  const int64_t classes = positions.classes, size = positions.logits.element_size(), row = classes * size;
  const auto transpose = transposer(dtype_of(positions.logits.scalar_type()));
  const char* const logits = static_cast<const char*>(positions.logits.const_data_ptr());
  positions.for_pieces(2 * kExpCost * classes, [&](int64_t position, int64_t n, int64_t offset) {
    const char* const from_logits = logits + offset * size;
    char* const to = out == nullptr ? nullptr : out + offset * size;
    if (layout == positions.layout)
      return f(from_logits, to, position, n, positions.row_stride(), from(target, position, offset * size));
    const Scratch memory(std::min(n, kTurned) * row);
    char* const tile = memory.data();
    for (int64_t i = 0; i < n; i += kTurned) {
      const int64_t m = std::min(n - i, kTurned);
      transpose(from_logits + i * row, {row, size}, tile, {size, m * size}, m, classes);
      f(tile, tile, position + i, m, m, from(target, position + i, 0));
      if (out != nullptr) transpose(tile, {m * size, size}, to + i * row, {size, row}, classes, m);
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy(const Tensor& input, const Tensor& target_, const OptionalTensor& weight_,
                                                 int64_t reduction, c10::SymInt ignore_index, double smoothing) {
  const int64_t ignored = ignore_index.guard_int(__FILE__, __LINE__), count = positions_of(input);
  const auto kept = loss_compute_dtype(input);
  at::DimVector position_sizes(input.sizes());
  position_sizes.erase(position_sizes.begin() + class_dim(input));
  at::DimVector sizes(position_sizes);
  sizes.insert(sizes.begin(), 2);
  const Tensor normalizer = empty(sizes, kept), total = scalar(kept);
  Tensor loss;
  by_compute_type(input, [&]<class C>(C) {
    const auto weight = weight_ ? as_compute<C>(*weight_) : std::vector<C>();
    const int64_t classes = input.size(class_dim(input));
    const double sum = !is_probabilities(target_) ? total_weight(target_.contiguous(), classes, ignored, weight)
                       : classes == 0             ? 0.0
                                                  : static_cast<double>(count);
    *total.data_ptr<C>() = static_cast<C>(sum);
    const Positions positions(input);
    const Tensor target = target_like(positions, input, target_);
    const auto asked = class_target(target, weight, classes, ignored, smoothing);
    const ClassLayout layout = positions.kernel_layout(target);
    const auto kernel = kernel_for(kernels().cross_entropy[static_cast<int>(layout)], input);
    const Scratch losses(count * sizeof(C));
    C* maximum = normalizer.data_ptr<C>();
    for_class_pieces(positions, layout, asked, nullptr, [&](const void* logits, void*, int64_t position, int64_t n, int64_t stride,
                                                           const ClassTarget& part) {
      kernel({logits, n, classes, stride, part, losses.data<C>() + position, maximum + position, maximum + count + position});
    });
    loss = reduced(losses.data<C>(), count, sum, reduction, position_sizes, input.scalar_type());
  });
  return {loss, normalizer, total};
}

Tensor cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target_, const OptionalTensor& weight_,
                              const Tensor& normalizer_, const Tensor& total, int64_t reduction, c10::SymInt ignore_index,
                              double smoothing) {
  const int64_t ignored = ignore_index.guard_int(__FILE__, __LINE__), count = positions_of(input);
  const Positions positions(input);
  const Tensor target = target_like(positions, input, target_), normalizer = normalizer_.contiguous();
  Tensor result;
  if (positions.layout == ClassLayout::rows) {
    const auto sizes = input.movedim(class_dim(input), -1).sizes().vec();
    result = empty(sizes, input.scalar_type()).movedim(-1, class_dim(input));
  } else {
    result = empty(input.sizes(), input.scalar_type());
  }
  const ClassLayout layout = positions.kernel_layout(target);
  const auto kernel = kernel_for(kernels().cross_entropy_backward[static_cast<int>(layout)], input);
  by_compute_type(input, [&]<class C>(C) {
    const auto weight = weight_ ? as_compute<C>(*weight_) : std::vector<C>();
    const int64_t* labels = is_probabilities(target) ? nullptr : target.const_data_ptr<int64_t>();
    if (labels != nullptr) total_weight(target, positions.classes, ignored, weight);
    const auto asked = class_target(target, weight, positions.classes, ignored, smoothing);
    const auto gradients = position_gradients<C>(grad, total, reduction, count, labels, ignored);
    const C* maximum = normalizer.const_data_ptr<C>();
    for_class_pieces(positions, layout, asked, static_cast<char*>(result.data_ptr()),
                     [&](const void* logits, void* out, int64_t position, int64_t n, int64_t stride, const ClassTarget& part) {
      kernel({logits, n, positions.classes, stride, part, maximum + position, maximum + count + position,
              gradients.data() + position, out});
    });
  });
  return result;
}

// ---- Losses over elements

// Tensors of one shape in one dense layout, the result's.
struct Elements {
  Dims<int64_t> strides;
  Tensor input, target, weight;

  Elements(const Tensor& x, const Tensor& t, const OptionalTensor& w)
      : strides(result_strides<int64_t>({{&x, &t}, 2}, x.sizes())), input(dense(x)), target(dense(t)) {
    if (w) weight = dense(*w);
  }
  Tensor dense(const Tensor& t) const {
    if (t.strides() == c10::IntArrayRef(strides)) return t;
    return empty_like(t).copy_(t);
  }
  Tensor empty_like(const Tensor& t) const { return empty_strided(t.sizes(), strides, t.scalar_type()); }
};

const char* at_byte(const Tensor& t, int64_t offset) {
  return t.defined() ? static_cast<const char*>(t.const_data_ptr()) + offset : nullptr;
}

Tensor element_loss(ElementLoss kind, const Tensor& input, const Tensor& target, const OptionalTensor& weight,
                    int64_t reduction) {
  const Elements e(input, target, weight);
  const int64_t n = input.numel(), size = input.element_size(), cost = kind == ElementLoss::mse ? 1 : 4 * kExpCost;
  std::atomic<bool> valid = true;
  const auto run_of = [&](int64_t begin, int64_t end, char* out, bool& ok) {
    return ElementLossRun{at_byte(e.input, begin * size), at_byte(e.target, begin * size), at_byte(e.weight, begin * size),
                          end - begin, out, &ok};
  };
  Tensor loss;
  if (reduction == at::Reduction::None) {
    loss = e.empty_like(input);
    const auto kernel = kernel_for(kernels().each[static_cast<int>(kind)], input);
    char* out = static_cast<char*>(loss.data_ptr());
    parallel(n, cost, [&](int64_t begin, int64_t end) {
      bool ok = true;
      kernel(run_of(begin, end, out + begin * size, ok));
      if (!ok) valid = false;
    });
  } else {
    const auto kernel = kernel_for(kernels().sum[static_cast<int>(kind)], input);
    double sum = sum_of_blocks(n, cost, [&](int64_t begin, int64_t end) {
      bool ok = true;
      const double partial = kernel(run_of(begin, end, nullptr, ok));
      if (!ok) valid = false;
      return partial;
    });
    if (reduction == at::Reduction::Mean) sum /= static_cast<double>(n);
    loss = scalar(input.scalar_type());
    by_compute_type(input, [&]<class C>(C) {
      const C value = static_cast<C>(sum);
      store_as(&value, loss);
    });
  }
  TORCH_CHECK(valid, "binary_cross_entropy: all elements of input and target should be between 0 and 1");
  return loss;
}

Tensor element_backward(ElementLoss kind, const Tensor& grad_, const Tensor& input, const Tensor& target,
                        const OptionalTensor& weight, int64_t reduction) {
  const Elements e(input, target, weight);
  const Tensor result = e.empty_like(input);
  const int64_t n = input.numel(), size = input.element_size();
  const bool shared = reduction != at::Reduction::None;
  const double scale = reduction == at::Reduction::Mean ? 1.0 / static_cast<double>(n) : 1.0;
  const Tensor grad = shared ? grad_ : e.dense(grad_);
  const auto kernel = kernel_for(kernels().backward[static_cast<int>(kind)], input);
  by_compute_type(input, [&]<class C>(C) {
    const auto one = shared ? as_compute<C>(grad) : std::vector<C>();
    char* out = static_cast<char*>(result.data_ptr());
    parallel(n, 2, [&](int64_t begin, int64_t end) {
      kernel({shared ? static_cast<const void*>(one.data()) : at_byte(grad, begin * size), at_byte(e.input, begin * size),
              at_byte(e.target, begin * size), at_byte(e.weight, begin * size), shared, scale, end - begin,
              out + begin * size});
    });
  });
  return result;
}

Tensor mse_loss(const Tensor& input, const Tensor& target, int64_t reduction) {
  return element_loss(ElementLoss::mse, input, target, std::nullopt, reduction);
}
Tensor mse_loss_backward(const Tensor& grad, const Tensor& input, const Tensor& target, int64_t reduction) {
  return element_backward(ElementLoss::mse, grad, input, target, std::nullopt, reduction);
}
Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const OptionalTensor& weight, int64_t reduction) {
  return element_loss(ElementLoss::binary_cross_entropy, input, target, weight, reduction);
}
Tensor binary_cross_entropy_backward(const Tensor& grad, const Tensor& input, const Tensor& target,
                                     const OptionalTensor& weight, int64_t reduction) {
  return element_backward(ElementLoss::binary_cross_entropy, grad, input, target, weight, reduction);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) {
  library.impl("_nll_loss", nll_loss);
  library.impl("_nll_loss_backward", nll_loss_backward);
  library.impl("_cross_entropy", cross_entropy);
  library.impl("_cross_entropy_backward", cross_entropy_backward);
  library.impl("_mse_loss", mse_loss);
  library.impl("_mse_loss_backward", mse_loss_backward);
  library.impl("_binary_cross_entropy", binary_cross_entropy);
  library.impl("_binary_cross_entropy_backward", binary_cross_entropy_backward);
}

}  // namespace tensorops::cpu
