// In-place and out= ops under torch.compile and torch.func.functionalize. Torch's fallback refuses custom ops that return
// what they wrote to, so one boxed kernel says what they mean: relu_(x) is x.copy_(relu(x)).
#include "functionalize/inplace.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/copy.h>
#include <torch/library.h>

#include <optional>
#include <string>

namespace tensorops::functionalize {
namespace {

// The one argument that the op writes to, if there is exactly one and it is also what the op returns.
std::optional<size_t> written_argument(const c10::FunctionSchema& schema) {
  std::optional<size_t> written;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    if (written) return std::nullopt;
    written = i;
  }
  return written && schema.returns().size() == 1 ? written : std::nullopt;
}

// add_ and add.out belong to add; X_.Y to X.Y and X.Y_out to X.Y.
std::optional<c10::OperatorHandle> functional_form(const c10::OperatorName& op) {
  std::string name = op.name, overload = op.overload_name;
  if (name.back() == '_') name.pop_back();
  else if (overload == "out") overload.clear();
  else if (overload.size() > 4 && overload.compare(overload.size() - 4, 4, "_out") == 0) overload.resize(overload.size() - 4);
  else return std::nullopt;
  return c10::Dispatcher::singleton().findSchema({name, overload});
}

void write_back(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const size_t written = *written_argument(op.schema());
  const auto functional = functional_form(op.operator_name());
  torch::jit::Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  stack->resize(stack->size() - count);
  at::Tensor target = arguments[written].toTensor();
  if (functional->schema().arguments().size() < count) arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(written));
  functional->callBoxed(&arguments);
  const at::Tensor result = arguments[0].toTensor();
  if (target.sym_sizes() != result.sym_sizes()) target.resize__symint(result.sym_sizes());
  target.copy_(result);
  stack->emplace_back(std::move(target));
}

}  // namespace

void register_inplace() {
  static torch::Library library(torch::Library::IMPL, "tensorops", c10::DispatchKey::Functionalize, __FILE__, __LINE__);
  for (const c10::OperatorName& op : c10::Dispatcher::singleton().getAllOpNames()) {
    if (op.name.rfind("tensorops::", 0) != 0 || !functional_form(op)) continue;
    const auto handle = c10::Dispatcher::singleton().findSchema(op);
    if (handle && written_argument(handle->schema()))
      library.impl(c10::toString(op).c_str(), torch::CppFunction::makeFromBoxedFunction<&write_back>());
  }
}

}  // namespace tensorops::functionalize
