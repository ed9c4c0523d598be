// What this machine can do, for benchmarks/limits.py: bytes per second of reading and of copying, multiply-adds per second
// out of registers. Each number is the best of several rounds, in which all threads start together.
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include <sys/mman.h>

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 64;
#elif defined(__AVX__)
constexpr int kWidth = 32;
#else
constexpr int kWidth = 16;
#endif
// Short rounds, many of them: on a shared machine a few find all threads undisturbed.
constexpr int kMinRounds = 9;
constexpr double kRoundSeconds = 3e-4, kSeconds = 0.02;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}

  void wait() {
    const int turn = turn_.load();
    if (arrived_.fetch_add(1) + 1 == threads_) {
      arrived_.store(0);
      turn_.fetch_add(1);
    } else {
      while (turn_.load() == turn) std::this_thread::yield();
    }
  }

 private:
  const int threads_;
  std::atomic<int> arrived_{0}, turn_{0};
};

// Seconds of one work(thread) on all threads at once, each call repeated until a round is long enough for the clock.
template <class Work>
double fastest(int threads, Work work) {
  work(0);
  const double started = now();
  work(0);
  const int repeats = 1 + static_cast<int>(kRoundSeconds / (now() - started + 1e-9));
  const double deadline = now() + kSeconds;
  Barrier barrier(threads);
  std::atomic<bool> done{false};
  double best = 1e30;
  auto run = [&](int thread) {
    work(thread);
    for (int round = 0;; ++round) {
      if (thread == 0) done.store(round >= kMinRounds && now() > deadline);
      barrier.wait();
      if (done.load()) return;
      const double began = now();
      for (int i = 0; i < repeats; ++i) work(thread);
      barrier.wait();
      const double took = (now() - began) / repeats;
      if (thread == 0 && took < best) best = took;
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (auto& other : others) other.join();
  return best;
}

// Bytes in huge pages where the system has them, each thread's share a whole number of vectors.
class Buffer {
 public:
  Buffer(size_t bytes, int threads) : share_((bytes / threads + 511) / 512 * 512) {
    const size_t size = (share_ * threads + (2u << 20) - 1) >> 21 << 21;
    data_ = static_cast<char*>(std::aligned_alloc(2u << 20, size));
    if (!data_) std::abort();
    madvise(data_, size, MADV_HUGEPAGE);
    std::memset(data_, 1, size);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  char* of(int thread) const { return data_ + share_ * thread; }
  size_t share() const { return share_; }

 private:
  size_t share_;
  char* data_;
};

// From one place or several at once: some cores follow each with few lines at a time. At most 32 bytes at a time: the compiler
// orders a step's loads as it likes, and wider ones out of order mislead the prefetcher.
template <int Places>
void read(const char* data, size_t bytes) {
  typedef int vec __attribute__((vector_size(kWidth < 32 ? kWidth : 32)));
  constexpr int kSums = 8;
  vec sums[kSums] = {};
  const vec* from = reinterpret_cast<const vec*>(data);
  const size_t apart = bytes / sizeof(vec) / Places;
  for (size_t i = 0; i < apart; i += kSums / Places) {
    for (int j = 0; j < kSums; ++j) sums[j] += from[j % Places * apart + i + j / Places];
  }
  for (int j = 0; j < kSums; ++j) asm volatile("" : : "x"(sums[j]));
}

// Past the caches: the target's lines are not read before they are overwritten.
void copy_streaming(char* to, const char* from, size_t bytes) {
#if defined(__SSE2__)
  for (size_t i = 0; i < bytes; i += 64) {
    for (size_t j = i; j < i + 64; j += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + j), _mm_load_si128(reinterpret_cast<const __m128i*>(from + j)));
    }
  }
  _mm_sfence();
#else
  std::memcpy(to, from, bytes);
#endif
}

// Keeps the compiler from knowing the values, so that it cannot see that all sums are equal.
template <class Factor, class Sum, int N>
void hide(Factor& factor, Factor& term, Sum (&sums)[N]) {
  asm volatile("" : "+x"(factor), "+x"(term));
  for (int j = 0; j < N; ++j) asm volatile("" : "+x"(sums[j]));
}

// Enough independent sums to fill every multiply-add unit; the factor below one keeps them finite.
template <class T>
double multiply_adds(int threads) {
  typedef T vec __attribute__((vector_size(kWidth)));
  constexpr int kSums = 12, kSteps = 10000;
  auto work = [](int) {
    vec sums[kSums], factor, term;
    for (size_t lane = 0; lane < kWidth / sizeof(T); ++lane) factor[lane] = T(0.999), term[lane] = T(0.001);
    for (int j = 0; j < kSums; ++j) sums[j] = term;
    hide(factor, term, sums);
    for (int step = 0; step < kSteps; ++step) {
      for (int j = 0; j < kSums; ++j) sums[j] = sums[j] * factor + term;
    }
    for (int j = 0; j < kSums; ++j) asm volatile("" : : "x"(sums[j]));
  };
  return 2.0 * kSteps * kSums * (kWidth / sizeof(T)) * threads / fastest(threads, work);
}

}  // namespace

extern "C" {

// Bytes read per second from a buffer of that size, shared out among the threads; the better of two ways to read.
double read_bandwidth(size_t bytes, int threads) {
  const Buffer from(bytes, threads);
  const double in_order = fastest(threads, [&](int thread) { read<1>(from.of(thread), from.share()); });
  const double from_four = fastest(threads, [&](int thread) { read<4>(from.of(thread), from.share()); });
  return double(from.share()) * threads / (in_order < from_four ? in_order : from_four);
}

// Bytes per second, read and written together, of a copy that touches that many bytes; the better of two ways to store.
double copy_bandwidth(size_t bytes, int threads) {
  const Buffer from(bytes / 2, threads), to(bytes / 2, threads);
  const double plain =
      fastest(threads, [&](int thread) { std::memcpy(to.of(thread), from.of(thread), from.share()); });
  const double streaming =
      fastest(threads, [&](int thread) { copy_streaming(to.of(thread), from.of(thread), from.share()); });
  return 2.0 * double(from.share()) * threads / (plain < streaming ? plain : streaming);
}

// Flop per second, two for each multiply-add.
double f32_peak(int threads) { return multiply_adds<float>(threads); }

double f64_peak(int threads) { return multiply_adds<double>(threads); }

// Of bfloat16 products summed in float32 by AVX-512's own instruction, not by AMX's tiles; 0 where the CPU has none.
double bf16_peak(int threads) {
#if defined(__AVX512BF16__)
  constexpr int kSums = 12, kSteps = 10000;
  auto work = [](int) {
    __m512 sums[kSums];
    __m512bh factor = (__m512bh)_mm512_set1_epi16(0x3f80), term = factor;
    for (int j = 0; j < kSums; ++j) sums[j] = _mm512_setzero_ps();
    hide(factor, term, sums);
    for (int step = 0; step < kSteps; ++step) {
      for (int j = 0; j < kSums; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], factor, term);
    }
    for (int j = 0; j < kSums; ++j) asm volatile("" : : "x"(sums[j]));
  };
  return 64.0 * kSteps * kSums * threads / fastest(threads, work);
#else
  (void)threads;
  return 0;
#endif
}

int vector_bits() { return 8 * kWidth; }

}  // extern "C"
