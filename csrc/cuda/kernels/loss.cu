// Losses. Those over classes give each position's line of logits to a few threads; sums are two launches of fixed trees.
#include "cuda/kernels/loss.h"

#include "cuda/kernels/line_kernels.h"
#include "cuda/kernels/reduction_reducers.h"

namespace tensorops::cuda {
namespace {

constexpr int64_t kSumBlocks = 1024;  // loss_sum_bytes counts on it
constexpr int64_t kPerThread = 16;    // elements summed by a thread, while there are blocks left

struct ClassArguments {
  LineArguments lines;
  ClassTarget target;
  DType loss_dtype;
  void *losses, *weights, *maximum, *sum;
  int* fault;
};
ClassArguments arguments_of(const CrossEntropyCall& call) {
  return {arguments_of(call.lines), call.target, call.loss_dtype, call.losses, call.weights, call.maximum, call.sum, call.fault};
}

template <class S, class C = ComputeOf<S>>
TENSOROPS_DEVICE C weight_of(const ClassTarget& target, int64_t c) {
  return target.weight == nullptr ? C(1) : load_as<C>(static_cast<const S*>(target.weight)[c * target.weight_step]);
}

enum class Label { valid, ignored, bad };
TENSOROPS_DEVICE Label check_label(const ClassArguments& a, int64_t label) {
  if (label == a.target.ignored) return Label::ignored;
  if (static_cast<uint64_t>(label) < static_cast<uint64_t>(a.lines.length)) return Label::valid;
  *a.fault = kFaultIndex;
  return Label::bad;
}

template <class S>
TENSOROPS_DEVICE ComputeOf<S> load_at(const char* line, int64_t step, int64_t c) {
  return load_as<ComputeOf<S>>(*reinterpret_cast<const S*>(line + c * step));
}

// The sum over the classes of a term per class, by all lanes of the line.
template <class C>
struct Total {
  using State = C;
  static TENSOROPS_DEVICE State merge(State a, State b) { return a + b; }
};
template <class C, class F>
TENSOROPS_DEVICE C sum_over_classes(const ClassArguments& a, const LinePlace& p, bool active, F term) {
  C sum = 0;
  if (active)
    for (int64_t c = p.lane; c < a.lines.length; c += a.lines.lanes) sum += term(c);
  return share_lanes<Total<C>>(sum, p, a.lines.lanes);
}

template <class S>
__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(const ClassArguments a) {
  using C = ComputeOf<S>;
  using LogSum = LogSumExp::Of<C>;
  const LinePlace p = place_of(a.lines);
  const bool active = p.line < a.lines.count;
  const auto logit = [&](int64_t c) { return load_at<S>(p.data[0], a.lines.step[0], c); };
  typename LogSum::State state = LogSum::identity();
  if (active)
    for (int64_t c = p.lane; c < a.lines.length; c += a.lines.lanes) {
      const C x[1] = {logit(c)};
      LogSum::absorb(state, x, 0, 1, ReduceParams());
    }
  state = share_lanes<LogSum>(state, p, a.lines.lanes);
  const C maximum = state.most;
  // A line with an infinite maximum has no softmax: NaN, as inf - inf is.
  const C sum = isinf(Value<C>(maximum)) ? maximum - maximum : state.sum, log_sum = log(Value<C>(sum)).v;

  const C kept = static_cast<C>(a.target.kept), spread = static_cast<C>(a.target.spread);
  C loss = 0, weight = a.lines.length > 0;  // of no classes, a mean over nothing
  if (a.target.labels == nullptr) {
    loss = sum_over_classes<C>(a, p, active, [&](int64_t c) {
      const C q = (kept * load_at<S>(p.data[1], a.lines.step[1], c) + spread) * weight_of<S>(a.target, c);
      return q * (log_sum - (logit(c) - maximum));
    });
  } else {
    if (a.target.spread != 0)
      loss = sum_over_classes<C>(a, p, active, [&](int64_t c) {
        return spread * weight_of<S>(a.target, c) * (log_sum - (logit(c) - maximum));
      });
    if (!active || p.lane != 0) return;
    const int64_t label = a.target.labels[p.line];
    switch (check_label(a, label)) {
      case Label::valid: {
        weight = weight_of<S>(a.target, label);
        loss += kept * weight * (log_sum - (logit(label) - maximum));
        break;
      }
      case Label::ignored: loss = weight = 0; break;
      case Label::bad: loss = weight = static_cast<C>(__builtin_nan("")); break;
    }
  }
  if (!active || p.lane != 0) return;
  store_any(static_cast<char*>(a.losses) + p.line * (a.loss_dtype == DType::f64 ? 8 : a.loss_dtype == DType::f32 ? 4 : 2),
            a.loss_dtype, loss);
  static_cast<C*>(a.weights)[p.line] = weight;
  static_cast<C*>(a.maximum)[p.line] = maximum;
  static_cast<C*>(a.sum)[p.line] = sum;
}

template <class C>
TENSOROPS_DEVICE C gradient_of(const ClassGradient& g, int64_t position) {
  C value = 0;
  const int64_t at = g.shared ? 0 : position;
  with_storage(g.dtype, [&](auto storage) {
    using S = decltype(storage);
    value = load_as<C>(static_cast<const S*>(g.gradient)[at]);
  });
  return g.total == nullptr ? value : value / *static_cast<const C*>(g.total);
}

template <class S>
__global__ void __launch_bounds__(kThreads) cross_entropy_backward_kernel(const ClassArguments a, const ClassGradient gradient) {
  using C = ComputeOf<S>;
  const LinePlace p = place_of(a.lines);
  const bool active = p.line < a.lines.count;
  const C kept = static_cast<C>(a.target.kept), spread = static_cast<C>(a.target.spread);
  const bool labels = a.target.labels != nullptr;
  int64_t label = -1;
  Label kind = Label::valid;
  if (labels && active) {
    label = a.target.labels[p.line];
    kind = check_label(a, label);
  }
  const auto asked = [&](int64_t c) {
    const C t = labels ? (c == label ? kept : C(0)) : kept * load_at<S>(p.data[1], a.lines.step[1], c);
    return (t + spread) * weight_of<S>(a.target, c);
  };
  // What the line asks for altogether.
  C all = 0;
  if (labels && a.target.spread == 0) all = kind == Label::valid && active ? kept * weight_of<S>(a.target, label) : C(0);
  else all = sum_over_classes<C>(a, p, active, asked);
  if (!active) return;
  C g = 0, maximum = 0, share = 0;
  if (kind == Label::valid) {
    g = gradient_of<C>(gradient, p.line);
    maximum = static_cast<const C*>(a.maximum)[p.line];
    share = all / static_cast<const C*>(a.sum)[p.line];
  }
  for (int64_t c = p.lane; c < a.lines.length; c += a.lines.lanes) {
    C value = 0;
    if (kind == Label::valid) {
      const C e = exp(Value<C>(load_at<S>(p.data[0], a.lines.step[0], c) - maximum)).v;
      value = g * (share * e - asked(c));
    }
    *reinterpret_cast<S*>(p.data[2] + c * a.lines.step[2]) = store_as<S>(value);
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads) pick_kernel(const ClassArguments a) {
  using C = ComputeOf<S>;
  const LinePlace p = place_of(a.lines);
  if (p.line >= a.lines.count) return;
  const int64_t label = a.target.labels[p.line];
  C loss = 0, weight = 0;
  switch (check_label(a, label)) {
    case Label::valid: {
      weight = weight_of<S>(a.target, label);
      loss = -weight * load_at<S>(p.data[0], a.lines.step[0], label);
      break;
    }
    case Label::ignored: break;
    case Label::bad: loss = weight = static_cast<C>(__builtin_nan("")); break;
  }
  store_any(static_cast<char*>(a.losses) + p.line * (a.loss_dtype == DType::f64 ? 8 : a.loss_dtype == DType::f32 ? 4 : 2),
            a.loss_dtype, loss);
  static_cast<C*>(a.weights)[p.line] = weight;
}

template <class S>
__global__ void __launch_bounds__(kThreads) pick_backward_kernel(const ClassArguments a, const ClassGradient gradient) {
  using C = ComputeOf<S>;
  const LinePlace p = place_of(a.lines);
  if (p.line >= a.lines.count) return;
  const int64_t label = a.target.labels[p.line];
  if (check_label(a, label) != Label::valid) return;
  const C value = -weight_of<S>(a.target, label) * gradient_of<C>(gradient, p.line);
  *reinterpret_cast<S*>(p.data[2] + label * a.lines.step[2]) = store_as<S>(value);
}

// ---- Sums

TENSOROPS_DEVICE double add(double a, double b) { return a + b; }

// gridDim.y: rows; partial[row][block].
template <class C>
__global__ void __launch_bounds__(kThreads) sum_kernel(const C* values, int64_t n, double* partial) {
  const C* row = values + blockIdx.y * n;
  double sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += static_cast<int64_t>(gridDim.x) * kThreads)
    sum += static_cast<double>(row[i]);
  sum = block_reduce<kThreads>(sum, 0.0, [](double a, double b) { return add(a, b); });
  if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(32)
    finish_kernel(const double* sums, bool by_total, double divisor, DType loss_dtype, char* loss, bool f64, void* total) {
  if (threadIdx.x != 0) return;
  double value = sums[0];
  if (by_total) value /= sums[1];
  else if (divisor != 0) value /= divisor;
  if (loss != nullptr) store_any(loss, loss_dtype, value);
  if (total == nullptr) return;
  if (f64) *static_cast<double*>(total) = sums[1];
  else *static_cast<float*>(total) = static_cast<float>(sums[1]);
}

unsigned sum_blocks(int64_t n) {
  const int64_t blocks = ceil_div(n, kThreads * kPerThread);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > kSumBlocks ? kSumBlocks : blocks);
}

// ---- Losses over elements

// As torch: log is cut off at -100, and the slope's denominator at 1e-12.
template <class C>
TENSOROPS_DEVICE C loss_of(ElementLoss kind, C x, C t, int* fault) {
  if (kind == ElementLoss::mse) return (x - t) * (x - t);
  if (!(x >= 0 && x <= 1 && t >= 0 && t <= 1)) *fault = kFaultProbability;
  using V = Value<C>;
  const V a = maximum(log(V(x)), V(-100)), b = maximum(log1p(V(-x)), V(-100));
  return (t - 1) * b.v - t * a.v;
}
template <class C>
TENSOROPS_DEVICE C slope_of(ElementLoss kind, C x, C t) {
  if (kind == ElementLoss::mse) return 2 * (x - t);
  return (x - t) / maximum(Value<C>((1 - x) * x), Value<C>(1e-12)).v;
}

template <class S>
TENSOROPS_DEVICE ComputeOf<S> weighted_loss(ElementLoss kind, const S* input, const S* target, const S* weight, int64_t i,
                                            int* fault) {
  using C = ComputeOf<S>;
  const C loss = loss_of(kind, load_as<C>(input[i]), load_as<C>(target[i]), fault);
  return weight == nullptr ? loss : loss * load_as<C>(weight[i]);
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    element_loss_kernel(ElementLoss kind, const S* input, const S* target, const S* weight, int64_t n, int* fault, S* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = store_as<S>(weighted_loss(kind, input, target, weight, i, fault));
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    element_loss_sum_kernel(ElementLoss kind, const S* input, const S* target, const S* weight, int64_t n, int* fault,
                            double* partial) {
  double sum = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += static_cast<int64_t>(gridDim.x) * kThreads)
    sum += static_cast<double>(weighted_loss(kind, input, target, weight, i, fault));
  sum = block_reduce<kThreads>(sum, 0.0, [](double a, double b) { return add(a, b); });
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    element_loss_backward_kernel(ElementLoss kind, const S* input, const S* target, const S* weight, const S* gradient,
                                 bool shared, double scale, int64_t n, S* out) {
  using C = ComputeOf<S>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  C slope = slope_of(kind, load_as<C>(input[i]), load_as<C>(target[i]));
  if (weight != nullptr) slope *= load_as<C>(weight[i]);
  out[i] = store_as<S>(load_as<C>(gradient[shared ? 0 : i]) * static_cast<C>(scale) * slope);
}

template <class F>
void with_float(DType dtype, F f) {
  switch (dtype) {
    case DType::f64: return f(double{});
    case DType::f16: return f(Half{});
    case DType::bf16: return f(BFloat16{});
    default: return f(float{});
  }
}

}  // namespace

void launch_cross_entropy(const CrossEntropyCall& call, cudaStream_t stream) {
  const ClassArguments a = arguments_of(call);
  const unsigned blocks = line_blocks(call.lines);
  with_float(call.lines.operands[0].dtype, [&](auto storage) {
    using S = decltype(storage);
    cross_entropy_kernel<S><<<blocks, kThreads, 0, stream>>>(a);
  });
}

void launch_cross_entropy_backward(const CrossEntropyCall& call, const ClassGradient& gradient, cudaStream_t stream) {
  const ClassArguments a = arguments_of(call);
  const unsigned blocks = line_blocks(call.lines);
  with_float(call.lines.operands[0].dtype, [&](auto storage) {
    using S = decltype(storage);
    cross_entropy_backward_kernel<S><<<blocks, kThreads, 0, stream>>>(a, gradient);
  });
}

void launch_pick(const CrossEntropyCall& call, cudaStream_t stream) {
  ClassArguments a = arguments_of(call);
  a.lines.lanes = 1;
  const unsigned blocks = blocks_for(call.lines.count, kThreads);
  with_float(call.lines.operands[0].dtype, [&](auto storage) {
    using S = decltype(storage);
    pick_kernel<S><<<blocks, kThreads, 0, stream>>>(a);
  });
}

void launch_pick_backward(const CrossEntropyCall& call, const ClassGradient& gradient, int64_t bytes, cudaStream_t stream) {
  cudaMemsetAsync(call.lines.operands[2].data, 0, bytes, stream);
  ClassArguments a = arguments_of(call);
  a.lines.lanes = 1;
  const unsigned blocks = blocks_for(call.lines.count, kThreads);
  with_float(call.lines.operands[2].dtype, [&](auto storage) {
    using S = decltype(storage);
    pick_backward_kernel<S><<<blocks, kThreads, 0, stream>>>(a, gradient);
  });
}

void launch_loss_sum(bool f64, const void* values, int rows, int64_t n, void* workspace, double* sums, cudaStream_t stream) {
  const unsigned blocks = sum_blocks(n);
  auto* partial = static_cast<double*>(workspace);
  const dim3 grid(blocks, static_cast<unsigned>(rows)), last(1, static_cast<unsigned>(rows));
  if (f64) {
    const auto* from = static_cast<const double*>(values);
    sum_kernel<<<grid, kThreads, 0, stream>>>(from, n, partial);
  } else {
    const auto* from = static_cast<const float*>(values);
    sum_kernel<<<grid, kThreads, 0, stream>>>(from, n, partial);
  }
  sum_kernel<double><<<last, kThreads, 0, stream>>>(partial, blocks, sums);
}

void launch_loss_finish(const double* sums, bool by_total, double divisor, DType loss_dtype, void* loss, bool f64, void* total,
                        cudaStream_t stream) {
  char* to = static_cast<char*>(loss);
  finish_kernel<<<1, 32, 0, stream>>>(sums, by_total, divisor, loss_dtype, to, f64, total);
}

void launch_element_loss(ElementLoss kind, const ElementLossCall& call, void* out, cudaStream_t stream) {
  with_float(call.dtype, [&](auto storage) {
    using S = decltype(storage);
    const auto *x = static_cast<const S*>(call.input), *t = static_cast<const S*>(call.target),
               *w = static_cast<const S*>(call.weight);
    S* to = static_cast<S*>(out);
    element_loss_kernel<<<blocks_for(call.n, kThreads), kThreads, 0, stream>>>(kind, x, t, w, call.n, call.fault, to);
  });
}

void launch_element_loss_sum(ElementLoss kind, const ElementLossCall& call, void* workspace, double* sum, cudaStream_t stream) {
  const unsigned blocks = sum_blocks(call.n);
  auto* partial = static_cast<double*>(workspace);
  with_float(call.dtype, [&](auto storage) {
    using S = decltype(storage);
    const auto *x = static_cast<const S*>(call.input), *t = static_cast<const S*>(call.target),
               *w = static_cast<const S*>(call.weight);
    element_loss_sum_kernel<<<blocks, kThreads, 0, stream>>>(kind, x, t, w, call.n, call.fault, partial);
  });
  sum_kernel<double><<<1, kThreads, 0, stream>>>(partial, blocks, sum);
}

void launch_element_loss_backward(ElementLoss kind, const ElementLossCall& call, const void* gradient, bool shared, double scale,
                                  void* out, cudaStream_t stream) {
  with_float(call.dtype, [&](auto storage) {
    using S = decltype(storage);
    const auto *x = static_cast<const S*>(call.input), *t = static_cast<const S*>(call.target),
               *w = static_cast<const S*>(call.weight), *g = static_cast<const S*>(gradient);
    S* to = static_cast<S*>(out);
    element_loss_backward_kernel<<<blocks_for(call.n, kThreads), kThreads, 0, stream>>>(kind, x, t, w, g, shared, scale, call.n, to);
  });
}

}  // namespace tensorops::cuda
