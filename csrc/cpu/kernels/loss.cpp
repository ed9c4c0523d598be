#include "cpu/kernels/loss.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

template <class C>
using Lane = typename MaskInt<C>::type;

// Calls f(i, n) for the vectors that cover [0, count): n lanes from element i.
template <class C, class F>
TENSOROPS_INLINE void for_vectors(int64_t count, F f) {
  int64_t i = 0;
  for (; i + Vec<C>::size <= count; i += Vec<C>::size) f(i, int64_t(Vec<C>::size));
  if (i < count) f(i, count - i);
}

// A sum in two levels, so that its error grows with the square root of the number of terms at most: no term goes through
// more than kTerms additions of its own size.
template <class C>
class Sum {
 public:
  TENSOROPS_INLINE void add(Vec<C> x) {
    part_ = part_ + x;
    if (++terms_ == kTerms) {
      whole_ = whole_ + part_;
      part_ = Vec<C>(C(0));
      terms_ = 0;
    }
  }
  // n lanes of x; the others do not count.
  TENSOROPS_INLINE void add(Vec<C> x, int64_t n) { add(n == Vec<C>::size ? x : first_lanes(x, n, C(0))); }
  TENSOROPS_INLINE Vec<C> lanes() const { return whole_ + part_; }
  TENSOROPS_INLINE C value() const { return sum_lanes(lanes()); }

 private:
  static constexpr int kTerms = 32;
  Vec<C> part_ = Vec<C>(C(0)), whole_ = Vec<C>(C(0));
  int terms_ = 0;
};

template <class C>
TENSOROPS_INLINE C log_of(C x) {
  return sizeof(C) == 4 ? C(::logf(x)) : C(::log(x));
}
// exp(x - maximum), and that of one element, the same as in a vector.
template <class C>
TENSOROPS_INLINE Vec<C> exp_below(Vec<C> x, Vec<C> maximum) { return unscaled(exp_term(x - maximum)); }
template <class C>
TENSOROPS_INLINE C exp_below(C x, C maximum) {
  C lanes[Vec<C>::size];
  exp_below(Vec<C>(x), Vec<C>(maximum)).store(lanes);
  return lanes[0];
}
// The sum of exp(x - maximum) from that of its terms; NaN where the maximum is infinite, as inf - inf is, and where any x is NaN,
// whatever the maximum is then.
template <class V>
TENSOROPS_INLINE V sum_of_exps(V terms, V maximum) { return unscaled(terms) + (maximum - maximum); }

// weight[c], for a single class and for the classes from c on; one where there are no weights.
template <class C>
TENSOROPS_INLINE C weight_of(const ClassTarget& target, int64_t c) {
  return target.weight == nullptr ? C(1) : static_cast<const C*>(target.weight)[c];
}
template <class C>
TENSOROPS_INLINE Vec<C> weights_of(const ClassTarget& target, int64_t c, int64_t n) {
  return target.weight == nullptr ? Vec<C>(C(1)) : load_lanes<C>(static_cast<const C*>(target.weight) + c, n);
}

// ---- Rows

template <class S, class C>
void cross_entropy_rows(const CrossEntropyRun& run) {
  const ClassTarget& target = run.target;
  const C kept = C(target.kept), spread = C(target.spread);
  C *const losses = static_cast<C*>(run.loss), *const maxima = static_cast<C*>(run.maximum), *const sums = static_cast<C*>(run.sum);
  // Then the loss is a difference of two numbers of the row: logarithms are left for the end, many at a time.
  const bool by_label = target.probabilities == nullptr && spread == 0;
  for (int64_t i = 0; i < run.n; ++i) {
    const S* x = static_cast<const S*>(run.logits) + i * run.stride;
    Vec<C> top(-C(__builtin_inf()));
    for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      const Vec<C> v = load_lanes<C>(x + c, n);
      top = larger(top, n == Vec<C>::size ? v : first_lanes(v, n, -C(__builtin_inf())));
    });
    top = fold_lanes(top, [](Vec<C> a, Vec<C> b) TENSOROPS_LAMBDA_INLINE { return larger(a, b); });
    const C maximum = top.v[0];
    Sum<C> terms;
    // Exponentials leave the memory idle: the next row is fetched meanwhile.
    const S* const next = i + 1 < run.n ? x + run.stride : x;
    for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      __builtin_prefetch(next + c, 0, 2);
      terms.add(exp_term(load_lanes<C>(x + c, n) - Vec<C>(maximum)), n);
    });
    const C sum = sum_of_exps(terms.value(), maximum);
    maxima[i] = maximum, sums[i] = sum;
    if (by_label) {
      losses[i] = target.labels[i] == target.ignored ? C(0) : load_as<C>(x[target.labels[i]]) - maximum;
      continue;
    }

    const C log_sum = log_of(sum);
    C loss = 0;
    if (target.probabilities != nullptr) {
      const S* t = static_cast<const S*>(target.probabilities) + i * run.stride;
      Sum<C> total;
      for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        const Vec<C> q = (Vec<C>(kept) * load_lanes<C>(t + c, n) + Vec<C>(spread)) * weights_of<C>(target, c, n);
        total.add(q * (Vec<C>(log_sum) - (load_lanes<C>(x + c, n) - Vec<C>(maximum))), n);
      });
      loss = total.value();
    } else if (const int64_t label = target.labels[i]; label != target.ignored) {
      Sum<C> total;
      for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        total.add(weights_of<C>(target, c, n) * (Vec<C>(log_sum) - (load_lanes<C>(x + c, n) - Vec<C>(maximum))), n);
      });
      loss = kept * weight_of<C>(target, label) * (log_sum - (load_as<C>(x[label]) - maximum)) + spread * total.value();
    }
    losses[i] = loss;
  }
  if (!by_label) return;
  for_vectors<C>(run.n, [&](int64_t i, int64_t n) TENSOROPS_LAMBDA_INLINE {
    store_lanes(log(load_lanes<C>(sums + i, n)) - load_lanes<C>(losses + i, n), losses + i, n);
  });
  for (int64_t i = 0; i < run.n; ++i) {
    const int64_t label = target.labels[i];
    losses[i] = label == target.ignored ? C(0) : kept * weight_of<C>(target, label) * losses[i];
  }
}

// out[c] = gradient * (sum(q) * softmax(x)[c] - q[c]), where sum(q) / sum is one number of the position.
template <class S, class C>
void cross_entropy_backward_rows(const CrossEntropyBackwardRun& run) {
  const ClassTarget& target = run.target;
  const C kept = C(target.kept), spread = C(target.spread);
  for (int64_t i = 0; i < run.n; ++i) {
    const S* x = static_cast<const S*>(run.logits) + i * run.stride;
    S* out = static_cast<S*>(run.out) + i * run.stride;
    const C maximum = static_cast<const C*>(run.maximum)[i], sum = static_cast<const C*>(run.sum)[i],
            gradient = static_cast<const C*>(run.gradient)[i];
    if (target.probabilities != nullptr) {
      const S* t = static_cast<const S*>(target.probabilities) + i * run.stride;
      const auto q_of = [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        return (Vec<C>(kept) * load_lanes<C>(t + c, n) + Vec<C>(spread)) * weights_of<C>(target, c, n);
      };
      Sum<C> total;
      for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE { total.add(q_of(c, n), n); });
      const Vec<C> share(total.value() / sum);
      for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
        const Vec<C> e = exp_below(load_lanes<C>(x + c, n), Vec<C>(maximum));
        store_lanes(Vec<C>(gradient) * (share * e - q_of(c, n)), out + c, n);
      });
      continue;
    }
    const int64_t label = target.labels[i];
    const bool ignored = label == target.ignored;
    const C at_label = ignored ? C(0) : kept * weight_of<C>(target, label);
    const C share = (at_label + C(target.spread * target.weight_sum)) / sum;
    for_vectors<C>(run.classes, [&](int64_t c, int64_t n) TENSOROPS_LAMBDA_INLINE {
      Vec<C> slope = Vec<C>(share) * exp_below(load_lanes<C>(x + c, n), Vec<C>(maximum));
      if (spread != 0) slope = slope - Vec<C>(spread) * weights_of<C>(target, c, n);
      store_lanes(Vec<C>(gradient) * slope, out + c, n);
    });
    if (ignored) continue;
    const C q = at_label + spread * weight_of<C>(target, label);
    out[label] = StoreAs<S, C>::from(gradient * (share * exp_below(load_as<C>(x[label]), maximum) - q));
  }
}

// ---- Columns

template <class S, class C>
void cross_entropy_columns(const CrossEntropyRun& run) {
  const ClassTarget& target = run.target;
  const C kept = C(target.kept), spread = C(target.spread);
  for_vectors<C>(run.n, [&](int64_t i, int64_t n) {
    const S* x = static_cast<const S*>(run.logits) + i;
    Vec<C> maximum(-C(__builtin_inf()));
    Sum<C> terms, loss_sum;
    for (int64_t c = 0; c < run.classes; ++c)
      maximum = larger(maximum, load_lanes<C>(x + c * run.stride, n));
    for (int64_t c = 0; c < run.classes; ++c) terms.add(exp_term(load_lanes<C>(x + c * run.stride, n) - maximum));
    const Vec<C> sum = sum_of_exps(terms.lanes(), maximum), log_sum = log(sum);
    if (target.probabilities != nullptr) {
      const S* t = static_cast<const S*>(target.probabilities) + i;
      for (int64_t c = 0; c < run.classes; ++c) {
        const Vec<C> q = (Vec<C>(kept) * load_lanes<C>(t + c * run.stride, n) + Vec<C>(spread)) *
                         Vec<C>(weight_of<C>(target, c));
        loss_sum.add(q * (log_sum - (load_lanes<C>(x + c * run.stride, n) - maximum)));
      }
    } else {
      if (spread != 0)
        for (int64_t c = 0; c < run.classes; ++c)
          loss_sum.add(Vec<C>(spread * weight_of<C>(target, c)) *
                       (log_sum - (load_lanes<C>(x + c * run.stride, n) - maximum)));
    }
    Vec<C> loss = loss_sum.lanes();
    if (target.labels != nullptr) {
      C losses[Vec<C>::size], maxima[Vec<C>::size], log_sums[Vec<C>::size];
      loss.store(losses);
      maximum.store(maxima);
      log_sum.store(log_sums);
      for (int64_t lane = 0; lane < n; ++lane) {
        const int64_t label = target.labels[i + lane];
        if (label == target.ignored) losses[lane] = 0;
        else
          losses[lane] += kept * weight_of<C>(target, label) *
                          (log_sums[lane] - (load_as<C>(x[label * run.stride + lane]) - maxima[lane]));
      }
      loss = Vec<C>::load(losses);
    }
    store_lanes(loss, static_cast<C*>(run.loss) + i, n);
    store_lanes(maximum, static_cast<C*>(run.maximum) + i, n);
    store_lanes(sum, static_cast<C*>(run.sum) + i, n);
  });
}

template <class S, class C>
void cross_entropy_backward_columns(const CrossEntropyBackwardRun& run) {
  const ClassTarget& target = run.target;
  const C kept = C(target.kept), spread = C(target.spread);
  for_vectors<C>(run.n, [&](int64_t i, int64_t n) {
    const S* x = static_cast<const S*>(run.logits) + i;
    const S* t = static_cast<const S*>(target.probabilities) + i;
    S* out = static_cast<S*>(run.out) + i;
    const Vec<C> maximum = load_lanes<C>(static_cast<const C*>(run.maximum) + i, n),
                 sum = load_lanes<C>(static_cast<const C*>(run.sum) + i, n),
                 gradient = load_lanes<C>(static_cast<const C*>(run.gradient) + i, n);
    Vec<Lane<C>> labels(Lane<C>(-1));
    Vec<C> total;
    if (target.probabilities != nullptr) {
      Sum<C> asked;
      for (int64_t c = 0; c < run.classes; ++c)
        asked.add((Vec<C>(kept) * load_lanes<C>(t + c * run.stride, n) + Vec<C>(spread)) * Vec<C>(weight_of<C>(target, c)));
      total = asked.lanes();
    } else {
      Lane<C> label_lanes[Vec<C>::size] = {};
      C totals[Vec<C>::size] = {};
      for (int64_t lane = 0; lane < n; ++lane) {
        const int64_t label = target.labels[i + lane];
        label_lanes[lane] = label == target.ignored ? Lane<C>(-1) : Lane<C>(label);
        totals[lane] = label == target.ignored ? C(0) : kept * weight_of<C>(target, label);
      }
      labels = Vec<Lane<C>>::load(label_lanes);
      total = Vec<C>::load(totals) + Vec<C>(C(target.spread * target.weight_sum));
    }
    const Vec<C> share = total / sum;
    for (int64_t c = 0; c < run.classes; ++c) {
      const Vec<C> e = exp_below(load_lanes<C>(x + c * run.stride, n), maximum), weight(weight_of<C>(target, c));
      Vec<C> q = Vec<C>(spread) * weight;
      if (target.probabilities != nullptr) q = q + Vec<C>(kept) * load_lanes<C>(t + c * run.stride, n) * weight;
      else q = q + select(Mask<C>{(labels == Vec<Lane<C>>(Lane<C>(c))).bits}, Vec<C>(kept) * weight, Vec<C>(C(0)));
      store_lanes(gradient * (share * e - q), out + c * run.stride, n);
    }
  });
}

template <class S, class C>
void pick(const PickRun& run) {
  const S* x = static_cast<const S*>(run.logits);
  for (int64_t i = 0; i < run.n; ++i) {
    const int64_t label = run.target.labels[i];
    static_cast<C*>(run.loss)[i] = label == run.target.ignored ? C(0)
                                   : -load_as<C>(x[i * run.position_stride + label * run.class_stride]) *
                                         weight_of<C>(run.target, label);
  }
}
template <class S, class C>
void pick_backward(const PickBackwardRun& run) {
  S* out = static_cast<S*>(run.out);
  for (int64_t i = 0; i < run.n; ++i) {
    const int64_t label = run.target.labels[i];
    if (label == run.target.ignored) continue;
    out[i * run.position_stride + label * run.class_stride] =
        StoreAs<S, C>::from(-static_cast<const C*>(run.gradient)[i] * weight_of<C>(run.target, label));
  }
}

// ---- Elements

template <class C>
struct MeanSquared {
  static TENSOROPS_INLINE Vec<C> value(Vec<C> x, Vec<C> t) { return (x - t) * (x - t); }
  static TENSOROPS_INLINE Vec<C> slope(Vec<C> x, Vec<C> t) { return Vec<C>(C(2)) * (x - t); }
  static TENSOROPS_INLINE Mask<C> valid(Vec<C> x, Vec<C>) { return {(x == x).bits | (x != x).bits}; }
};
// As torch: log is cut off at -100, and the slope's denominator at 1e-12 as a float.
template <class C>
struct BinaryCrossEntropy {
  static TENSOROPS_INLINE Vec<C> value(Vec<C> x, Vec<C> t) {
    const Vec<C> floor(C(-100)), one(C(1));
    return (t - one) * maximum(log1p(-x), floor) - t * maximum(log(x), floor);
  }
  static TENSOROPS_INLINE Vec<C> slope(Vec<C> x, Vec<C> t) {
    return (x - t) / maximum((Vec<C>(C(1)) - x) * x, Vec<C>(C(1e-12f)));
  }
  static TENSOROPS_INLINE Mask<C> valid(Vec<C> x, Vec<C> t) {
    return (x >= Vec<C>(C(0))) & (x <= Vec<C>(C(1))) & (t >= Vec<C>(C(0))) & (t <= Vec<C>(C(1)));
  }
};

template <class C>
TENSOROPS_INLINE bool all_lanes(Mask<C> m, int64_t n) {
  Lane<C> lanes[Vec<C>::size];
  __builtin_memcpy(lanes, &m.bits, sizeof(lanes));
  Lane<C> all = -1;
  for (int64_t i = 0; i < n; ++i) all &= lanes[i];
  return all != 0;
}

template <class Loss, class S, class C, class Use>
TENSOROPS_INLINE void element_losses(const ElementLossRun& run, Use use) {
  const S *x = static_cast<const S*>(run.input), *t = static_cast<const S*>(run.target),
          *w = static_cast<const S*>(run.weight);
  Mask<C> valid = Loss::valid(Vec<C>(C(0)), Vec<C>(C(0)));
  for_vectors<C>(run.n, [&](int64_t i, int64_t n) TENSOROPS_LAMBDA_INLINE {
    const Vec<C> input = load_lanes<C>(x + i, n), target = load_lanes<C>(t + i, n);
    valid = valid & Loss::valid(input, target);
    Vec<C> loss = Loss::value(input, target);
    if (w != nullptr) loss = loss * load_lanes<C>(w + i, n);
    use(loss, i, n);
  });
  if (!all_lanes(valid, Vec<C>::size)) *run.valid = false;
}

template <class Loss, class S, class C>
double element_sum(const ElementLossRun& run) {
  Sum<C> sum;
  element_losses<Loss, S, C>(run, [&](Vec<C> loss, int64_t, int64_t n) TENSOROPS_LAMBDA_INLINE { sum.add(loss, n); });
  return sum.value();
}
template <class Loss, class S, class C>
void element_each(const ElementLossRun& run) {
  element_losses<Loss, S, C>(run, [&](Vec<C> loss, int64_t i, int64_t n)
                                      TENSOROPS_LAMBDA_INLINE { store_lanes(loss, static_cast<S*>(run.out) + i, n); });
}
template <class Loss, class S, class C>
void element_backward(const ElementLossBackwardRun& run) {
  const S *x = static_cast<const S*>(run.input), *t = static_cast<const S*>(run.target),
          *w = static_cast<const S*>(run.weight), *g = static_cast<const S*>(run.gradient);
  const Vec<C> scale(C(run.scale));
  Vec<C> shared(C(0));
  if (run.shared_gradient) shared = Vec<C>(*static_cast<const C*>(run.gradient)) * scale;
  for_vectors<C>(run.n, [&](int64_t i, int64_t n) TENSOROPS_LAMBDA_INLINE {
    Vec<C> slope = Loss::slope(load_lanes<C>(x + i, n), load_lanes<C>(t + i, n));
    if (w != nullptr) slope = slope * load_lanes<C>(w + i, n);
    store_lanes(slope * (run.shared_gradient ? shared : load_lanes<C>(g + i, n) * scale), static_cast<S*>(run.out) + i, n);
  });
}

// Rows of the table, in the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define FLOATS(K) \
  {nullptr, nullptr, nullptr, nullptr, nullptr, K(Half, float), K(float, float), K(double, double), nullptr, K(BFloat16, float)}
#define ROWS(S, C) cross_entropy_rows<S, C>
#define COLUMNS(S, C) cross_entropy_columns<S, C>
#define BACKWARD_ROWS(S, C) cross_entropy_backward_rows<S, C>
#define BACKWARD_COLUMNS(S, C) cross_entropy_backward_columns<S, C>
#define PICK(S, C) pick<S, C>
#define PICK_BACKWARD(S, C) pick_backward<S, C>
#define MSE_SUM(S, C) element_sum<MeanSquared<C>, S, C>
#define MSE_EACH(S, C) element_each<MeanSquared<C>, S, C>
#define MSE_BACKWARD(S, C) element_backward<MeanSquared<C>, S, C>
#define BCE_SUM(S, C) element_sum<BinaryCrossEntropy<C>, S, C>
#define BCE_EACH(S, C) element_each<BinaryCrossEntropy<C>, S, C>
#define BCE_BACKWARD(S, C) element_backward<BinaryCrossEntropy<C>, S, C>

}  // namespace

extern const LossKernels loss_kernels;
const LossKernels loss_kernels = {
    {FLOATS(ROWS), FLOATS(COLUMNS)},
    {FLOATS(BACKWARD_ROWS), FLOATS(BACKWARD_COLUMNS)},
    FLOATS(PICK),
    FLOATS(PICK_BACKWARD),
    {FLOATS(MSE_SUM), FLOATS(BCE_SUM)},
    {FLOATS(MSE_EACH), FLOATS(BCE_EACH)},
    {FLOATS(MSE_BACKWARD), FLOATS(BCE_BACKWARD)},
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
