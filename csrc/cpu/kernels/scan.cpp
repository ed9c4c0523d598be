#include "cpu/kernels/scan.h"

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vec_math.h"

namespace tensorops::cpu::TENSOROPS_ISA {
namespace {

struct Sum {
  static constexpr bool linear = false;
  template <class V>
  static TENSOROPS_INLINE V combine(V h, V x) { return h + x; }
  template <class A>
  static constexpr A identity = 0;
};
struct Prod {
  static constexpr bool linear = false;
  template <class V>
  static TENSOROPS_INLINE V combine(V h, V x) { return h * x; }
  template <class A>
  static constexpr A identity = 1;
};
struct Linear {
  static constexpr bool linear = true;
};

// Lanes moved on by `by`, up or, in reverse, down; those at the start are filled from `fill`.
template <bool reverse, int by, class A>
TENSOROPS_INLINE Vec<A> move_lanes(Vec<A> x, Vec<A> fill) {
  constexpr int L = Vec<A>::size;
  typename Native<int64_t>::type index;
  for (int i = 0; i < L; ++i) {
    const int from = reverse ? i + by : i - by;
    index[i] = 0 <= from && from < L ? from : L + i;
  }
  return Vec<A>(__builtin_shuffle(x.v, fill.v, index));
}
template <bool reverse, class A>
TENSOROPS_INLINE Vec<A> last_everywhere(Vec<A> x) {
  const typename Native<int64_t>::type index = typename Native<int64_t>::type{} + (reverse ? 0 : Vec<A>::size - 1);
  return Vec<A>(__builtin_shuffle(x.v, index));
}

// A prefix within the register by doubling steps, then the carry: one dependent operation per register. Returns the scanned
// vector. In reverse the highest lane is the first.
template <class S, bool reverse, class A>
TENSOROPS_INLINE Vec<A> scan_vector(Vec<A> v, Vec<A>& carry) {
  const Vec<A> identity(S::template identity<A>);
  v = S::combine(move_lanes<reverse, 1>(v, identity), v);
  if constexpr (Vec<A>::size > 2) v = S::combine(move_lanes<reverse, 2>(v, identity), v);
  if constexpr (Vec<A>::size > 4) v = S::combine(move_lanes<reverse, 4>(v, identity), v);
  const Vec<A> total = last_everywhere<reverse>(v), scanned = S::combine(carry, v);
  carry = S::combine(carry, total);
  return scanned;
}

template <class S, class A>
void run(void* data, [[maybe_unused]] const void* coefficient, int64_t n, void* state) {
  A* x = static_cast<A*>(data);
  A h = *static_cast<A*>(state);
  int64_t i = 0;
  if constexpr (S::linear) {
    const A* a = static_cast<const A*>(coefficient);
    for (; i < n; ++i) x[i] = h = x[i] + a[i] * h;
  } else {
    Vec<A> carry(h);
    for (; i + Vec<A>::size <= n; i += Vec<A>::size) scan_vector<S, false, A>(Vec<A>::load(x + i), carry).store(x + i);
    A lanes[Vec<A>::size];
    carry.store(lanes);
    h = lanes[0];
    for (; i < n; ++i) x[i] = h = S::combine(h, x[i]);
  }
  *static_cast<A*>(state) = h;
}

template <class S, class A>
void step(const void* data, [[maybe_unused]] const void* coefficient, int64_t n, void* state) {
  const A* __restrict x = static_cast<const A*>(data);
  [[maybe_unused]] const A* __restrict a = static_cast<const A*>(coefficient);
  A* __restrict h = static_cast<A*>(state);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (S::linear) h[i] = x[i] + a[i] * h[i];
    else h[i] = S::combine(h[i], x[i]);
  }
}

template <class S, class T, bool reverse>
void along(const void* from, void* to, int64_t n, void* state, bool streams) {
  using V = Vec<double>;
  const T* x = static_cast<const T*>(from);
  T* y = static_cast<T*>(to);
  double h = *static_cast<double*>(state);
  V carry(h);
  // Where a run of so many elements, i elements on, begins in memory.
  const auto at = [](int64_t i, int64_t size) TENSOROPS_LAMBDA_INLINE { return reverse ? 1 - i - size : i; };
  const auto scanned = [&](int64_t i) TENSOROPS_LAMBDA_INLINE {
    return scan_vector<S, reverse, double>(load_vector<double>(x + at(i, V::size)), carry);
  };
  int64_t i = 0;
  if (streams)
    for (; i + V::size <= n; i += V::size) stream_vector(scanned(i), y + at(i, V::size));
  else
    for (; i + V::size <= n; i += V::size) store_vector(scanned(i), y + at(i, V::size));
  double lanes[V::size];
  carry.store(lanes);
  h = lanes[0];
  for (; i < n; ++i) y[at(i, 1)] = static_cast<T>(h = S::combine(h, static_cast<double>(x[at(i, 1)])));
  *static_cast<double*>(state) = h;
}

template <class S, class T>
void through(const void* from, void* to, int64_t n, void* state, const void* ahead, bool streams) {
  using V = Vec<double>;
  const T* x = static_cast<const T*>(from);
  const T* next = static_cast<const T*>(ahead);
  T* y = static_cast<T*>(to);
  double* h = static_cast<double*>(state);
  for (int64_t i = 0; i < n; i += V::size) {
    if (next != nullptr) __builtin_prefetch(next + i, 0, 2);
    const V sum = S::combine(load_lanes<double>(h + i, n - i), load_lanes<double>(x + i, n - i));
    store_lanes(sum, h + i, n - i);
    if (streams && n - i >= V::size) stream_vector(sum, y + i);
    else store_lanes(sum, y + i, n - i);
  }
}

// Each line is one chain of dependent operations: some of them at once keep the processor busy.
template <class S, class T>
void lines(const ScanLines& from, const ScanLines& to, int64_t n, int64_t count) {
  const T* x = static_cast<const T*>(from.data);
  T* y = static_cast<T*>(to.data);
  const auto scan = [&]<int N>() TENSOROPS_LAMBDA_INLINE {
    double h[N];
    for (int u = 0; u < N; ++u) h[u] = S::template identity<double>;
    for (int64_t k = 0; k < n; ++k)
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) {
        h[u] = S::combine(h[u], static_cast<double>(x[k * from.step + u * from.pitch]));
        y[k * to.step + u * to.pitch] = static_cast<T>(h[u]);
      }
    x += N * from.pitch;
    y += N * to.pitch;
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) scan.template operator()<4>();
  for (; i < count; ++i) scan.template operator()<1>();
}

// The first n < size lanes, or all.
template <class S>
TENSOROPS_INLINE void store_rounded(Vec<double> x, S* p, int64_t n) {
  constexpr int64_t size = Vec<double>::size;
  if constexpr (sizeof(S) >= sizeof(float)) {
    store_lanes(x, p, n);
  } else {
    float lanes[size];
    store_vector(x, static_cast<float*>(lanes));
    S rounded[size];
    for (int i = 0; i < size; ++i) rounded[i] = StoreAs<S, float>::from(lanes[i]);
    if (n >= size) __builtin_memcpy(p, rounded, sizeof(rounded));
    else __builtin_memcpy(p, rounded, n * sizeof(S));
  }
}

template <class S>
void cumprod_gradient(const void* grad, const void* x, const void* before, void* out, int64_t n, double* carried, int64_t ahead) {
  using V = Vec<double>;
  const S *g = static_cast<const S*>(grad), *own = static_cast<const S*>(x), *product = static_cast<const S*>(before);
  S* to = static_cast<S*>(out);
  for (int64_t i = 0; i < n; i += V::size) {
    if (ahead > 0) {
      __builtin_prefetch(g + i - ahead);
      __builtin_prefetch(own + i - ahead);
      __builtin_prefetch(product + i - ahead);
    }
    const V sum = load_lanes<double>(g + i, n - i) + load_lanes<double>(carried + i, n - i);
    store_lanes(load_lanes<double>(own + i, n - i) * sum, carried + i, n - i);
    store_rounded(product == nullptr ? sum : load_lanes<double>(product + i, n - i) * sum, to + i, n - i);
  }
}
template <class S>
void cumprod_carry(const void* grad, const void* x, int64_t n, double* carried, double* product) {
  using V = Vec<double>;
  const S *g = static_cast<const S*>(grad), *own = static_cast<const S*>(x);
  for (int64_t i = 0; i < n; i += V::size) {
    const V factor = load_lanes<double>(own + i, n - i);
    store_lanes(factor * (load_lanes<double>(g + i, n - i) + load_lanes<double>(carried + i, n - i)), carried + i, n - i);
    store_lanes(factor * load_lanes<double>(product + i, n - i), product + i, n - i);
  }
}

// In the order of DType: u8 i8 i16 i32 i64 f16 f32 f64 boolean bf16.
#define FLOATING(f) {nullptr, nullptr, nullptr, nullptr, nullptr, f<Half>, f<float>, f<double>, nullptr, f<BFloat16>}

}  // namespace

extern const ScanKernels scan_kernels;
const ScanKernels scan_kernels = {
    {{run<Sum, double>, run<Sum, int64_t>}, {run<Prod, double>, run<Prod, int64_t>}, {run<Linear, double>, run<Linear, int64_t>}},
    {{step<Sum, double>, step<Sum, int64_t>}, {step<Prod, double>, step<Prod, int64_t>}, {step<Linear, double>, step<Linear, int64_t>}},
    {{along<Sum, float, false>, along<Sum, double, false>}, {along<Prod, float, false>, along<Prod, double, false>}},
    {along<Sum, float, true>, along<Sum, double, true>},
    {{through<Sum, float>, through<Sum, double>}, {through<Prod, float>, through<Prod, double>}},
    {{lines<Sum, float>, lines<Sum, double>}, {lines<Prod, float>, lines<Prod, double>}},
    FLOATING(cumprod_gradient),
    FLOATING(cumprod_carry),
    end_stream,
};

}  // namespace tensorops::cpu::TENSOROPS_ISA
