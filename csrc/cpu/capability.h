// Which instruction set the inner kernels run with: the best that CPU and OS support, lowered by torch's own
// ATEN_CPU_CAPABILITY (default | avx2 | avx512), read once.
#pragma once

namespace tensorops::cpu {

enum class Capability { baseline, avx2, avx512 };

Capability capability();
const char* capability_name();
// Whether the kernels of cpu/kernels/avx512_bf16/ run: the CPU multiplies bf16 itself, and nothing lowers the capability.
bool has_avx512_bf16();

template <class Table>
const Table& select(const Table& baseline, const Table& avx2, const Table& avx512) {
  switch (capability()) {
    case Capability::avx512:
      return avx512;
    case Capability::avx2:
      return avx2;
    default:
      return baseline;
  }
}

}  // namespace tensorops::cpu

// A family of inner kernels is one table of function pointers, defined once per instruction set by cpu/kernels/X.cpp.
#if defined(__x86_64__)
#define TENSOROPS_DECLARE_KERNELS(Table, name)       \
  namespace baseline { extern const Table name; }    \
  namespace avx2 { extern const Table name; }        \
  namespace avx512 { extern const Table name; }
#define TENSOROPS_KERNELS(name)                                                                   \
  (::tensorops::cpu::select(::tensorops::cpu::baseline::name, ::tensorops::cpu::avx2::name,       \
                            ::tensorops::cpu::avx512::name))
// A pointer to the table of cpu/kernels/avx512_bf16/X.cpp; null where those kernels do not run.
#define TENSOROPS_DECLARE_BF16_KERNELS(Table, name) namespace avx512_bf16 { extern const Table name; }
#define TENSOROPS_BF16_KERNELS(name) \
  (::tensorops::cpu::has_avx512_bf16() ? &::tensorops::cpu::avx512_bf16::name : nullptr)
#else
#define TENSOROPS_DECLARE_KERNELS(Table, name) namespace baseline { extern const Table name; }
#define TENSOROPS_KERNELS(name) (::tensorops::cpu::baseline::name)
#define TENSOROPS_DECLARE_BF16_KERNELS(Table, name) \
  namespace avx512_bf16 { constexpr const Table* name = nullptr; }
#define TENSOROPS_BF16_KERNELS(name) (::tensorops::cpu::avx512_bf16::name)
#endif
