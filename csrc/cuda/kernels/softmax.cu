// Softmax: one pass over each line for its maximum and the sum of exponentials, one that writes. The second finds the line in
// the cache. The gradients have the same shape: a sum over the line, and a pass that writes.
#include "cuda/kernels/softmax.h"

#include "cuda/kernels/line_kernels.h"
#include "cuda/kernels/reduction_reducers.h"

namespace tensorops::cuda {
namespace {

template <class C>
TENSOROPS_DEVICE C exponential(C x) { return exp(Value<C>(x)).v; }

// summarise() turns a line's state into what apply() needs, once per thread.
template <class C, bool Log>
struct Forward {
  using Sum = LogSumExp::Of<C>;
  using State = typename Sum::State;
  static constexpr bool second = false;
  static TENSOROPS_DEVICE State identity() { return Sum::identity(); }
  static TENSOROPS_DEVICE State merge(State a, State b) { return Sum::merge(a, b); }
  template <int N>
  static TENSOROPS_DEVICE void absorb(State& s, const C (&x)[N], const C (&)[N]) {
    Sum::absorb(s, x, 0, 1, ReduceParams());
  }
  // The log of the sum, or its reciprocal. A line with an infinite maximum has no softmax: NaN, as inf - inf is.
  static TENSOROPS_DEVICE State summarise(State s) {
    const C sum = isinf(Value<C>(s.most)) ? s.most - s.most : s.sum;
    return {s.most, Log ? log(Value<C>(sum)).v : C(1) / sum};
  }
  static TENSOROPS_DEVICE C apply(C x, C, State s) {
    return Log ? x - s.most - s.sum : exponential(x - s.most) * s.sum;
  }
};

template <class C, bool Log>
struct Backward {
  using State = C;
  static constexpr bool second = true;
  static TENSOROPS_DEVICE State identity() { return 0; }
  static TENSOROPS_DEVICE State merge(State a, State b) { return a + b; }
  template <int N>
  static TENSOROPS_DEVICE void absorb(State& s, const C (&g)[N], const C (&y)[N]) {
    C terms[N];
#pragma unroll
    for (int i = 0; i < N; ++i) terms[i] = Log ? g[i] : g[i] * y[i];
    s += tree(terms, [](C a, C b) { return a + b; });
  }
  static TENSOROPS_DEVICE State summarise(State s) { return s; }
  static TENSOROPS_DEVICE C apply(C g, C y, State s) { return Log ? g - exponential(y) * s : (g - s) * y; }
};

template <class R, class Load>
__global__ void __launch_bounds__(kThreads) softmax_kernel(const LineArguments a) {
  using C = typename Load::C;
  constexpr int N = Load::pack > 0 ? Load::pack : 1;
  const LinePlace p = place_of(a);
  const bool vector = Load::pack > 0 && a.vector;
  const int64_t begin = p.lane * (vector ? N : 1), stride = a.lanes * (vector ? N : 1);
  const int64_t length = p.line < a.count ? a.length : 0;
  const auto load = [&](int64_t i, C(&x)[1], C(&y)[1]) {
    x[0] = Load::load(p.data[0] + i * a.step[0], a.dtype[0]);
    if constexpr (R::second) y[0] = Load::load(p.data[1] + i * a.step[1], a.dtype[1]);
  };
  const auto load_many = [&](int64_t i, C(&x)[N], C(&y)[N]) {
    if constexpr (Load::pack > 0) {
      Load::load_pack(p.data[0] + i * a.step[0], x);
      if constexpr (R::second) Load::load_pack(p.data[1] + i * a.step[1], y);
    }
  };

  typename R::State state = R::identity();
  int64_t i = begin;
  if (vector) {
    for (; i + N <= length; i += stride) {
      C x[N], y[N] = {};
      load_many(i, x, y);
      R::absorb(state, x, y);
    }
  }
  // What is left of the line: less than a pack, or all of it.
  const int64_t rest = vector ? 1 : stride;
  for (int64_t j = i; j < length; j += rest) {
    C x[1], y[1] = {};
    load(j, x, y);
    R::absorb(state, x, y);
  }
  const typename R::State summary = R::summarise(share_lanes<R>(state, p, a.lanes));

  i = begin;
  if (vector) {
    for (; i + N <= length; i += stride) {
      C x[N], y[N] = {};
      load_many(i, x, y);
#pragma unroll
      for (int k = 0; k < N; ++k) x[k] = R::apply(x[k], y[k], summary);
      if constexpr (Load::pack > 0) Load::store_pack(p.data[2] + i * a.step[2], x);
    }
  }
  for (int64_t j = i; j < length; j += rest) {
    C x[1], y[1] = {};
    load(j, x, y);
    Load::store(p.data[2] + j * a.step[2], a.dtype[2], R::apply(x[0], y[0], summary));
  }
}

template <class Load>
void launch_typed(Softmax op, const Lines& lines, cudaStream_t stream) {
  using C = typename Load::C;
  const LineArguments a = arguments_of(lines);
  const unsigned blocks = line_blocks(lines);
  switch (op) {
    case Softmax::softmax: {
      softmax_kernel<Forward<C, false>, Load><<<blocks, kThreads, 0, stream>>>(a);
      break;
    }
    case Softmax::log_softmax: {
      softmax_kernel<Forward<C, true>, Load><<<blocks, kThreads, 0, stream>>>(a);
      break;
    }
    case Softmax::softmax_backward: {
      softmax_kernel<Backward<C, false>, Load><<<blocks, kThreads, 0, stream>>>(a);
      break;
    }
    default: {
      softmax_kernel<Backward<C, true>, Load><<<blocks, kThreads, 0, stream>>>(a);
      break;
    }
  }
}

}  // namespace

void launch_softmax(Softmax op, const Lines& lines, cudaStream_t stream) {
  const DType dtype = lines.operands[2].dtype;
  if (!lines.uniform) {
    if (dtype == DType::f64) return launch_typed<Mixed<double>>(op, lines, stream);
    return launch_typed<Mixed<float>>(op, lines, stream);
  }
  switch (dtype) {
    case DType::f64: return launch_typed<Typed<double>>(op, lines, stream);
    case DType::f16: return launch_typed<Typed<Half>>(op, lines, stream);
    case DType::bf16: return launch_typed<Typed<BFloat16>>(op, lines, stream);
    default: return launch_typed<Typed<float>>(op, lines, stream);
  }
}

}  // namespace tensorops::cuda
