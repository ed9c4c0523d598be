// Matmul on CUDA: the forms of ops/matmul_forms.h over launch_gemm.
#include <ATen/Context.h>
#include <torch/library.h>

#include "cuda/kernels/gemm.h"
#include "cuda/launch.h"
#include "ops/matmul_forms.h"

namespace tensorops::cuda {
namespace {

using at::Tensor;

struct Room {
  class Entry {
   public:
    explicit Entry(std::initializer_list<const Tensor*> tensors) : guard_((*tensors.begin())->device()) {
      check_same_device(tensors);
    }

   private:
    Guard guard_;
  };
  static Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::ScalarType type, c10::Device device) {
    return cuda::empty_strided(sizes, strides, type, device);
  }
  static void multiply(const char* name, const GemmProblem& problem, const Tensor& out) {
    if (out.numel() == 0) return;
    TORCH_CHECK_NOT_IMPLEMENTED(gemm_covers(problem), "\"", name, "_cuda\" not implemented for '", out.scalar_type(), "'");
    const int64_t bytes = gemm_workspace_bytes(problem);
    const Tensor workspace = bytes > 0 ? empty({bytes}, c10::kByte, out.device()) : Tensor();
    launch_gemm(problem, at::globalContext().allowTF32CuBLAS(), workspace.defined() ? workspace.mutable_data_ptr() : nullptr,
                stream());
    check_launch();
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, CUDA, library) { MatmulForms<Room>::impl(library); }

}  // namespace tensorops::cuda
