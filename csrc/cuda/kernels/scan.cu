// Scans. Neighbouring lines: one thread per line. Lines by themselves: a block scans a piece in tiles, each thread a few
// neighbouring elements of a tile; a line of several pieces takes three launches: the pieces' totals, the totals' scan, and the
// pieces again, each from the total before it.
#include "cuda/kernels/scan.h"

#include "cuda/kernels/line_kernels.h"
#include "cuda/kernels/math.h"

namespace tensorops::cuda {
namespace {

constexpr int kPerThread = 4;
constexpr int64_t kTile = kThreads * kPerThread;

// A scan's element is what a run of the line does to the state before it; then() puts two runs one after the other.
template <class C>
struct Sum {
  struct State {
    C value;
  };
  static constexpr bool coefficients = false;
  static TENSOROPS_DEVICE State identity() { return {0}; }
  static TENSOROPS_DEVICE State of(C x, C, bool) { return {x}; }
  static TENSOROPS_DEVICE State then(State a, State b) { return {(Value<C>(a.value) + Value<C>(b.value)).v}; }
};
template <class C>
struct Product {
  struct State {
    C value;
  };
  static constexpr bool coefficients = false;
  static TENSOROPS_DEVICE State identity() { return {1}; }
  static TENSOROPS_DEVICE State of(C x, C, bool) { return {x}; }
  static TENSOROPS_DEVICE State then(State a, State b) { return {(Value<C>(a.value) * Value<C>(b.value)).v}; }
};
// h -> value + factor * h. The kinds keep 0 * inf out where nothing is multiplied: before the first element there is no h.
template <class C>
struct Linear {
  enum Kind : int { nothing, run, from_start };
  struct State {
    C value, factor;
    Kind kind;
  };
  static constexpr bool coefficients = true;
  static TENSOROPS_DEVICE State identity() { return {0, 1, nothing}; }
  static TENSOROPS_DEVICE State of(C x, C factor, bool first) { return {x, factor, first ? from_start : run}; }
  static TENSOROPS_DEVICE State then(State a, State b) {
    if (b.kind == nothing) return a;
    if (a.kind == nothing || b.kind == from_start) return b;
    return {b.value + b.factor * a.value, a.factor * b.factor, a.kind};
  }
};

// What element k of a line does. The coefficient that leads to it is its own, in reverse its predecessor's on the way; none
// leads to the first.
template <class R, class Load>
TENSOROPS_DEVICE typename R::State element(const LineArguments& a, const LinePlace& p, int64_t k, bool reverse) {
  using C = typename Load::C;
  const C x = Load::load(p.data[0] + k * a.step[0], a.dtype[0]);
  C factor = 0;
  if constexpr (R::coefficients)
    if (k > 0) factor = Load::load(p.data[1] + (reverse ? k - 1 : k) * a.step[1], a.dtype[1]);
  return R::of(x, factor, k == 0);
}

template <class R, class Load>
__global__ void __launch_bounds__(kThreads) scan_across_kernel(const LineArguments a, bool reverse) {
  const LinePlace p = place_of(a);
  if (p.line >= a.count) return;
  typename R::State state = R::identity();
  for (int64_t k = 0; k < a.length; ++k) {
    state = R::then(state, element<R, Load>(a, p, k, reverse));
    Load::store(p.data[2] + k * a.step[2], a.dtype[2], state.value);
  }
}

// The state before each thread's own, within the block; `total` becomes that of the whole block. All threads must call it.
template <class R>
TENSOROPS_DEVICE typename R::State before_in_block(typename R::State own, typename R::State& total) {
  __shared__ typename R::State states[kThreads];
  const int thread = threadIdx.x;
  __syncthreads();  // an earlier call may still be reading
  states[thread] = own;
  for (int reach = 1; reach < kThreads; reach *= 2) {
    __syncthreads();
    const typename R::State earlier = thread >= reach ? states[thread - reach] : R::identity();
    __syncthreads();
    if (thread >= reach) states[thread] = R::then(earlier, states[thread]);
  }
  __syncthreads();
  total = states[kThreads - 1];
  return thread > 0 ? states[thread - 1] : R::identity();
}

// gridDim.x: lines times pieces. With `totals_only` the piece's total is all that is kept.
template <class R, class Load>
__global__ void __launch_bounds__(kThreads)
    scan_pieces_kernel(LineArguments a, bool reverse, int64_t pieces, bool totals_only, typename R::State* states) {
  const int64_t line = blockIdx.x / pieces, piece = blockIdx.x % pieces;
  LinePlace p;
  for (int k = 0; k < kLineOperands; ++k) p.data[k] = a.data[k];
  for_axes(a.axes, line, [&](int axis, int64_t index) {
    for (int k = 0; k < kLineOperands; ++k) p.data[k] += index * a.strides[k][axis];
  });
  const int64_t begin = piece * kScanPiece, end = begin + kScanPiece < a.length ? begin + kScanPiece : a.length;
  typename R::State carry = pieces > 1 && !totals_only ? states[blockIdx.x] : R::identity();
  for (int64_t tile = begin; tile < end; tile += kTile) {
    const int64_t first = tile + static_cast<int64_t>(threadIdx.x) * kPerThread;
    typename R::State own[kPerThread], sum = R::identity(), total;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      own[i] = first + i < end ? element<R, Load>(a, p, first + i, reverse) : R::identity();
      sum = R::then(sum, own[i]);
    }
    typename R::State state = R::then(carry, before_in_block<R>(sum, total));
    carry = R::then(carry, total);
    if (totals_only) continue;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      state = R::then(state, own[i]);
      if (first + i < end) Load::store(p.data[2] + (first + i) * a.step[2], a.dtype[2], state.value);
    }
  }
  if (totals_only && threadIdx.x == 0) states[blockIdx.x] = carry;
}

// Turns the totals of a line's pieces into the states before them; one block per line.
template <class R>
__global__ void __launch_bounds__(kThreads) scan_totals_kernel(int64_t pieces, typename R::State* all) {
  typename R::State* states = all + blockIdx.x * pieces;
  typename R::State carry = R::identity();
  for (int64_t tile = 0; tile < pieces; tile += kThreads) {
    const int64_t i = tile + threadIdx.x;
    typename R::State total;
    const typename R::State own = i < pieces ? states[i] : R::identity();
    const typename R::State before = R::then(carry, before_in_block<R>(own, total));
    carry = R::then(carry, total);
    if (i < pieces) states[i] = before;
  }
}

template <class R, class Load>
void launch(const Lines& lines, bool reverse, void* workspace, cudaStream_t stream) {
  using State = typename R::State;
  static_assert(sizeof(State) <= 24, "scan_workspace_bytes counts on it");
  LineArguments a = arguments_of(lines);
  if (reverse) {
    for (int k = 0; k < kLineOperands; ++k) {
      if (a.data[k] != nullptr) a.data[k] += (a.length - 1) * a.step[k];
      a.step[k] = -a.step[k];
    }
  }
  if (lines.across) {
    a.lanes = 1;
    scan_across_kernel<R, Load><<<blocks_for(a.count, kThreads), kThreads, 0, stream>>>(a, reverse);
    return;
  }
  const int64_t pieces = ceil_div(a.length, kScanPiece);
  const unsigned blocks = blocks_for(a.count * pieces, 1), each = blocks_for(a.count, 1);
  auto* states = static_cast<State*>(workspace);
  if (pieces > 1) {
    scan_pieces_kernel<R, Load><<<blocks, kThreads, 0, stream>>>(a, reverse, pieces, true, states);
    scan_totals_kernel<R><<<each, kThreads, 0, stream>>>(pieces, states);
  }
  scan_pieces_kernel<R, Load><<<blocks, kThreads, 0, stream>>>(a, reverse, pieces, false, states);
}

template <class Load>
void launch_with(Scan scan, const Lines& lines, bool reverse, void* workspace, cudaStream_t stream) {
  using C = typename Load::C;
  switch (scan) {
    case Scan::sum: return launch<Sum<C>, Load>(lines, reverse, workspace, stream);
    case Scan::prod: return launch<Product<C>, Load>(lines, reverse, workspace, stream);
    default: return launch<Linear<C>, Load>(lines, reverse, workspace, stream);  // of floating point
  }
}

}  // namespace

void launch_scan(Scan scan, const Lines& lines, bool reverse, void* workspace, cudaStream_t stream) {
  const Compute compute = compute_type(lines.operands[2].dtype);
  if (compute == Compute::f32 || compute == Compute::f64)
    return launch_with<Mixed<double>>(scan, lines, reverse, workspace, stream);
  launch_with<Mixed<int64_t>>(scan, lines, reverse, workspace, stream);
}

}  // namespace tensorops::cuda
