// Version counters where no Autograd kernel counts them: calls of inference tensors outside inference mode, which are refused,
// and of ordinary tensors inside it. One boxed kernel for every in-place and out= op, as torch's generated ADInplaceOrView
// kernels; a call that goes through Autograd skips it.
#include "autograd/versions.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace tensorops::autograd {
namespace {

bool is_written(const c10::Argument& argument) { return argument.alias_info() != nullptr && argument.alias_info()->isWrite(); }

void count_version(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i)
    if (is_written(arguments[i])) (*stack)[first + i].toTensor().unsafeGetTensorImpl()->bump_version();
  at::AutoDispatchBelowADInplaceOrView guard;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

}  // namespace

void register_versions() {
  static torch::Library library(torch::Library::IMPL, "tensorops", c10::DispatchKey::ADInplaceOrView, __FILE__, __LINE__);
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.rfind("tensorops::", 0) != 0) continue;
    const auto op = c10::Dispatcher::singleton().findSchema(name);
    if (!op || op->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd)) continue;
    for (const c10::Argument& argument : op->schema().arguments()) {
      if (!is_written(argument)) continue;
      library.impl(c10::toString(name).c_str(), torch::CppFunction::makeFromBoxedFunction<&count_version>());
      break;
    }
  }
}

}  // namespace tensorops::autograd
