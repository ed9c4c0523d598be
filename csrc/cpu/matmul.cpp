// Matmul on the CPU: the forms of ops/matmul_forms.h over gemm().
#include <torch/library.h>

#include "cpu/dtype.h"
#include "cpu/gemm.h"
#include "cpu/memory.h"
#include "ops/matmul_forms.h"

namespace tensorops::cpu {
namespace {

using at::Tensor;

// Without what differs from step to step of a sum over the batch: c, and the source.
Gemm describe(const GemmProblem& p) {
  Gemm g;
  g.batch = p.batches, g.m = p.m, g.n = p.n, g.k = p.k;
  g.type = p.dtype;
  g.a = p.a, g.b = p.b;
  g.epilogue.alpha = p.alpha, g.epilogue.beta = p.beta;
  g.epilogue.activation = p.activation;
  return g;
}
void set_result(Gemm& g, void* c, DType dtype, int64_t row, int64_t column, int64_t batch) {
  g.c = c, g.c_batch = batch;
  g.epilogue.c_type = dtype, g.epilogue.c_row = row, g.epilogue.c_column = column;
}
void set_source(Gemm& g, DType dtype, const GemmOperand& source) {
  g.source = source.data, g.source_batch = source.batch;
  g.epilogue.source_type = dtype, g.epilogue.source_row = source.row, g.epilogue.source_column = source.column;
}

// One matrix after the other is added to what the ones before have left.
void sum_batches(const GemmProblem& p) {
  Gemm g = describe(p);
  g.batch = 1;
  set_source(g, p.dtype, p.source);
  if (p.batches == 0) g.k = 0;
  const int64_t steps = std::max<int64_t>(1, p.batches);
  const bool staged = steps > 1 && (p.dtype == DType::f16 || p.dtype == DType::bf16);
  const Tensor sums = staged ? empty({p.m, p.n}, c10::kFloat) : Tensor();
  for (int64_t i = 0; i < steps; ++i) {
    const bool to_sums = staged && i + 1 < steps;
    if (i == 1) {
      g.epilogue.beta = {};
      if (staged) set_source(g, DType::f32, {sums.const_data_ptr(), p.n, 1, 0});
      else set_source(g, p.dtype, {p.c, p.c_row, p.c_column, 0});
    }
    if (to_sums) set_result(g, sums.mutable_data_ptr(), DType::f32, p.n, 1, 0);
    else set_result(g, p.c, p.dtype, p.c_row, p.c_column, 0);
    gemm(g);
    g.a.data = static_cast<const char*>(g.a.data) + g.a.batch * element_size(p.dtype);
    g.b.data = static_cast<const char*>(g.b.data) + g.b.batch * element_size(p.dtype);
  }
}

struct Room {
  struct Entry {
    explicit Entry(std::initializer_list<const Tensor*>) {}
  };
  static Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type, c10::Device) {
    return cpu::empty_strided(sizes, strides, type);
  }
  static void multiply(const char*, const GemmProblem& p, const Tensor&) {
    if (p.sums_batches) return sum_batches(p);
    Gemm g = describe(p);
    set_result(g, p.c, p.dtype, p.c_row, p.c_column, p.c_batch);
    set_source(g, p.dtype, p.source);
    gemm(g);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CPU, library) { MatmulForms<Room>::impl(library); }

}  // namespace tensorops::cpu
