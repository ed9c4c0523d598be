// Which dtype an op runs in under torch.autocast: torch's own lists, by name. One boxed kernel per policy serves all ops,
// for autocast casts inputs and nothing else; an op that is not listed runs in the dtype it is given.
#include "autocast/policies.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <string>

namespace tensorops::autocast {
namespace {

using torch::jit::Stack;

// Calls cast(tensor) on every tensor argument.
template <class F>
void cast_arguments(const c10::FunctionSchema& schema, Stack& stack, F cast) {
  const size_t count = schema.arguments().size();
  for (size_t i = stack.size() - count; i < stack.size(); ++i)
    if (stack[i].isTensor() && stack[i].toTensor().defined()) stack[i] = cast(stack[i].toTensor());
}

template <c10::DeviceType device>
void lower_precision(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard below(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  const auto type = at::autocast::get_lower_precision_fp_from_device_type(device);
  cast_arguments(op.schema(), *stack, [&](const at::Tensor& t) { return at::autocast::cached_cast(type, t, device); });
  op.callBoxed(stack);
}

template <c10::DeviceType device>
void full_precision(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard below(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  cast_arguments(op.schema(), *stack, [&](const at::Tensor& t) { return at::autocast::cached_cast(at::kFloat, t, device); });
  op.callBoxed(stack);
}

// Accumulates in f32 unless the caller named a dtype: sum, softmax, cumsum and their like.
template <c10::DeviceType device>
void full_precision_result(const c10::OperatorHandle& op, Stack* stack) {
  const auto& arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  bool eligible = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& value = (*stack)[first + i];
    if (value.isTensor() && at::autocast::is_eligible(value.toTensor(), device))
      eligible |= value.toTensor().scalar_type() != at::kDouble && value.toTensor().is_floating_point();
  }
  if (eligible) {
    bool has_dtype = false;
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].name() != "dtype") continue;
      has_dtype = true;
      if ((*stack)[first + i].isNone()) (*stack)[first + i] = static_cast<int64_t>(at::kFloat);
    }
    if (!has_dtype) return full_precision<device>(op, stack);
  }
  c10::impl::ExcludeDispatchKeyGuard below(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  op.callBoxed(stack);
}

// All arguments in the widest of their dtypes.
template <c10::DeviceType device>
void promote(const c10::OperatorHandle& op, Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard below(at::autocast::get_autocast_dispatch_key_from_device_type(device));
  auto type = at::autocast::get_lower_precision_fp_from_device_type(device);
  const auto widest = [&](const at::Tensor& t) {
    type = at::autocast::prioritize(type, t, device);
    return t;
  };
  cast_arguments(op.schema(), *stack, widest);
  cast_arguments(op.schema(), *stack, [&](const at::Tensor& t) { return at::autocast::cached_cast(type, t, device); });
  op.callBoxed(stack);
}

enum class Policy { lower_precision, full_precision, full_precision_result, promote };

struct Rule {
  const char* op;
  Policy policy;
};

constexpr Rule kCuda[] = {
    {"mm", Policy::lower_precision},      {"mv", Policy::lower_precision},      {"bmm", Policy::lower_precision},
    {"matmul", Policy::lower_precision},  {"linear", Policy::lower_precision},  {"addmm", Policy::lower_precision},
    {"addmv", Policy::lower_precision},   {"addbmm", Policy::lower_precision},  {"baddbmm", Policy::lower_precision},
    {"addr", Policy::lower_precision},    {"conv2d", Policy::lower_precision},  {"prelu", Policy::lower_precision},
    {"acos", Policy::full_precision},     {"asin", Policy::full_precision},     {"cosh", Policy::full_precision},
    {"exp", Policy::full_precision},      {"expm1", Policy::full_precision},    {"log", Policy::full_precision},
    {"log10", Policy::full_precision},    {"log2", Policy::full_precision},     {"log1p", Policy::full_precision},
    {"reciprocal", Policy::full_precision}, {"rsqrt", Policy::full_precision},  {"sinh", Policy::full_precision},
    {"tan", Policy::full_precision},      {"pow", Policy::full_precision},      {"softplus", Policy::full_precision},
    {"norm", Policy::full_precision},     {"nll_loss", Policy::full_precision}, {"mse_loss", Policy::full_precision},
    {"cross_entropy", Policy::full_precision}, {"logsumexp", Policy::full_precision},
    {"prod", Policy::full_precision_result},   {"softmax", Policy::full_precision_result},
    {"log_softmax", Policy::full_precision_result}, {"cumprod", Policy::full_precision_result},
    {"cumsum", Policy::full_precision_result}, {"sum", Policy::full_precision_result},
    {"addcdiv", Policy::promote},         {"addcmul", Policy::promote},         {"atan2", Policy::promote},
    {"dot", Policy::promote},             {"_linear_activation", Policy::lower_precision},
};

// On the CPU torch leaves elementwise ops and most reductions in the dtype they are given.
constexpr Rule kCpu[] = {
    {"mm", Policy::lower_precision},      {"bmm", Policy::lower_precision},     {"matmul", Policy::lower_precision},
    {"linear", Policy::lower_precision},  {"addmm", Policy::lower_precision},   {"addbmm", Policy::lower_precision},
    {"baddbmm", Policy::lower_precision}, {"conv2d", Policy::lower_precision},  {"prod", Policy::full_precision},
    {"nll_loss", Policy::full_precision}, {"mse_loss", Policy::full_precision}, {"cross_entropy", Policy::full_precision},
    {"binary_cross_entropy", Policy::full_precision}, {"prelu", Policy::lower_precision},
    {"_linear_activation", Policy::lower_precision},
};

template <c10::DeviceType device>
torch::CppFunction kernel_of(Policy policy) {
  switch (policy) {
    case Policy::lower_precision: return torch::CppFunction::makeFromBoxedFunction<&lower_precision<device>>();
    case Policy::full_precision: return torch::CppFunction::makeFromBoxedFunction<&full_precision<device>>();
    case Policy::full_precision_result:
      return torch::CppFunction::makeFromBoxedFunction<&full_precision_result<device>>();
    default: return torch::CppFunction::makeFromBoxedFunction<&promote<device>>();
  }
}

// out= overloads are left alone, as torch leaves them.
template <c10::DeviceType device, size_t n>
void apply(torch::Library& library, const Rule (&rules)[n]) {
  for (const c10::OperatorName& op : c10::Dispatcher::singleton().getAllOpNames())
    for (const Rule& rule : rules)
      if (op.name == std::string("tensorops::") + rule.op && op.overload_name.find("out") == std::string::npos)
        library.impl(c10::toString(op).c_str(), kernel_of<device>(rule.policy));
}

}  // namespace

void register_policies() {
  static torch::Library cpu(torch::Library::IMPL, "tensorops", c10::DispatchKey::AutocastCPU, __FILE__, __LINE__);
  static torch::Library cuda(torch::Library::IMPL, "tensorops", c10::DispatchKey::AutocastCUDA, __FILE__, __LINE__);
  apply<c10::DeviceType::CPU>(cpu, kCpu);
  apply<c10::DeviceType::CUDA>(cuda, kCuda);
}

}  // namespace tensorops::autocast
