// Elementwise: schemas, typed callers and Meta kernels of every row of the table.
#include "ops/elementwise.h"

#include <ATen/ScalarOps.h>
#include <ATen/native/TypeProperties.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/library.h>

#include <atomic>
#include <optional>

#include "ops/arity.h"
#include "ops/dtypes.h"
#include "ops/layout.h"

namespace tensorops {

const std::array<ElementwiseRow, kElementwiseCount>& elementwise_rows() {
  using D = Domain;
  using S = Saved;
  const auto commas = [](const char* schema) {
    int n = 0;
    for (const char* c = schema; (c = strstr(c, "Scalar")) != nullptr; ++c) ++n;
    return n;
  };
  static const std::array<ElementwiseRow, kElementwiseCount> rows = {{
#define UNARY(name, domain, saved, scalars, ...)                                                                  \
  {#name, Elementwise::name, 1, commas(scalars), scalars, D::domain, S::saved, false},                            \
  {#name "_backward", Elementwise::name##_backward, 2, commas(scalars), scalars, D::ACTIVATION, S::saved, true},
      TENSOROPS_UNARY_TABLE(UNARY)
#undef UNARY
#define BINARY(name, domain, scalars, ...) \
  {#name, Elementwise::name, 2, commas(scalars), scalars, D::domain, S::none, false},
      TENSOROPS_BINARY_TABLE(BINARY)
#undef BINARY
#define TERNARY(name, domain, scalars, ...) \
  {#name, Elementwise::name, 3, commas(scalars), scalars, D::domain, S::none, false},
      TENSOROPS_TERNARY_TABLE(TERNARY)
#undef TERNARY
  }};
  return rows;
}

namespace {

// The tensor parameters' names are those of torch's Python signatures.
std::string tensor_parameters(const ElementwiseRow& row, const char* first_type) {
  const std::string first = first_type;
  if (row.backward) return "Tensor grad, Tensor saved";
  switch (row.op) {
    case Elementwise::where: return "Tensor condition, Tensor input, Tensor other";
    case Elementwise::lerp: return first + " input, Tensor end, Tensor weight";
    case Elementwise::addcmul:
    case Elementwise::addcdiv: return first + " input, Tensor tensor1, Tensor tensor2";
    case Elementwise::_clamp_between: return first + " input, Tensor min, Tensor max";
    case Elementwise::_div_gradient: return first + " grad, Tensor input, Tensor other";
    case Elementwise::_pow_base_gradient:
    case Elementwise::_pow_exponent_gradient: return first + " grad, Tensor input, Tensor exponent";
    case Elementwise::_is_extremum: return first + " input, Tensor extremum";
    case Elementwise::_var_gradient: return first + " grad, Tensor input, Tensor mean";
    case Elementwise::_logsumexp_gradient: return first + " grad, Tensor input, Tensor result";
    case Elementwise::pow: return first + " input, Tensor exponent";
    case Elementwise::_prelu: return first + " input, Tensor weight";
    default: return row.tensors == 1 ? first + " input" : first + " input, Tensor other";
  }
}

// `out` is keyword-only, behind whatever keyword-only marker the row has.
std::string with_out(const std::string& scalars) {
  return scalars + (scalars.find('*') == std::string::npos ? ", *" : "") + ", Tensor(a!) out";
}

// One operator handle per row and form, looked up on first use and kept for good.
enum Form { kFunctional, kInplace, kOut };
std::atomic<const c10::OperatorHandle*> handles[kElementwiseCount][3];
const c10::OperatorHandle& find_handle(Elementwise op, Form form) {
  const std::string name = std::string("tensorops::") + row_of(op).name + (form == kInplace ? "_" : "");
  const auto* found =
      new c10::OperatorHandle(c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), form == kOut ? "out" : ""));
  const c10::OperatorHandle* first = nullptr;
  if (handles[static_cast<size_t>(op)][form].compare_exchange_strong(first, found)) return *found;
  delete found;
  return *first;
}
const c10::OperatorHandle& untyped_handle(Elementwise op, Form form) {
  const c10::OperatorHandle* handle = handles[static_cast<size_t>(op)][form].load(std::memory_order_acquire);
  return handle != nullptr ? *handle : find_handle(op, form);
}

template <class Signature, class... A>
decltype(auto) call_typed(Elementwise op, Form form, A&&... arguments) {
  return untyped_handle(op, form).typed<Signature>().call(std::forward<A>(arguments)...);
}

// A 0-dim tensor on the CPU goes with any device, as in torch; all else must be on one.
void check_devices(const ElementwiseRow& row, const Inputs& inputs, const at::Tensor* out = nullptr) {
  const auto check = [&](const at::Tensor& t) {
    TORCH_CHECK(t.is_meta(), public_name(row), ": Tensor on device ", t.device(), " is not on the expected device meta!");
  };
  for (int i = 0; i < inputs.count; ++i)
    if (inputs[i].dim() > 0 || !inputs[i].is_cpu()) check(inputs[i]);
  if (out != nullptr) check(*out);
}

at::Tensor meta(Elementwise op, const Inputs& inputs, const Scalars& scalars) {
  const ElementwiseRow& row = row_of(op);
  check_devices(row, inputs);
  const auto types = elementwise_types(row, inputs, scalars);
  const auto sizes = broadcast_sizes<c10::SymInt>(inputs);
  const auto strides = result_strides<c10::SymInt>(inputs, sizes);
  return at::empty_strided_symint(sizes, strides, at::TensorOptions().device(c10::kMeta).dtype(types.result));
}

void meta_out(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& out) {
  const ElementwiseRow& row = row_of(op);
  check_devices(row, inputs, &out);
  const auto types = elementwise_types(row, inputs, scalars);
  check_result_cast(row, types, inputs, out);
  const auto sizes = broadcast_sizes<c10::SymInt>(inputs);
  if (out.sym_sizes() != c10::SymIntArrayRef(sizes)) out.unsafeGetTensorImpl()->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(c10::SymIntArrayRef(sizes)));
}

void meta_inplace(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& self) {
  const ElementwiseRow& row = row_of(op);
  check_devices(row, inputs, &self);
  const auto types = elementwise_types(row, inputs, scalars);
  check_result_cast(row, types, inputs, self);
  const auto sizes = broadcast_sizes<c10::SymInt>(inputs);
  TORCH_CHECK(self.sym_sizes() == c10::SymIntArrayRef(sizes), "output with shape ", self.sym_sizes(),
              " doesn't match the broadcast shape ", c10::SymIntArrayRef(sizes));
}

// Of a wrapped number. item() would itself go through Python's dispatch.
c10::Scalar value_of(const at::Tensor& number) {
  if (number.scalar_type() == c10::kDouble) return *number.const_data_ptr<double>();
  if (number.scalar_type() == c10::kLong) return *number.const_data_ptr<int64_t>();
  TORCH_INTERNAL_ASSERT(number.scalar_type() == c10::kBool);
  return *number.const_data_ptr<bool>();
}

// Python's dispatch (torch.compile, __torch_dispatch__) hands a wrapped number on as a Python number, which a schema
// outside aten refuses. There it becomes an ordinary 0-dim tensor that promotes as the number does.
class Unwrapped {
 public:
  explicit Unwrapped(const Inputs& in) : inputs_(in) {
    bool wrapped = false;
    for (int i = 0; i < in.count; ++i) wrapped |= in[i].unsafeGetTensorImpl()->is_wrapped_number();
    if (!wrapped) return;
    bool python = c10::impl::TorchDispatchModeTLS::any_modes_set();
    for (int i = 0; i < in.count; ++i) python |= in[i].key_set().has(c10::DispatchKey::Python);
    if (python) unwrap();
  }
  const Inputs& inputs() const { return inputs_; }

 private:
  void unwrap() {
    at::native::ResultTypeState all, tensors;
    bool shaped = false;
    for (int i = 0; i < inputs_.count; ++i) {
      all = at::native::update_result_type_state(inputs_[i], all);
      if (inputs_[i].unsafeGetTensorImpl()->is_wrapped_number()) continue;
      tensors = at::native::update_result_type_state(inputs_[i], tensors);
      shaped |= inputs_[i].dim() > 0;
    }
    c10::ScalarType type = at::native::result_type(all);
    // Beside a tensor of its own kind that has dimensions, a 0-dim tensor has no say: there it can keep the full value.
    if (shaped && type == at::native::result_type(tensors) && type != c10::kBool)
      type = c10::isFloatingType(type) ? c10::kDouble : c10::kLong;
    for (int i = 0; i < inputs_.count; ++i) {
      if (!inputs_[i].unsafeGetTensorImpl()->is_wrapped_number()) continue;
      owned_[i] = at::scalar_tensor(value_of(inputs_[i]), at::TensorOptions().dtype(type));
      inputs_.tensors[i] = &owned_[i];
    }
  }

  Inputs inputs_;
  at::Tensor owned_[3];
};

}  // namespace

namespace ops {

at::Tensor elementwise(Elementwise op, const Inputs& given, const Scalars& s) {
  const Unwrapped unwrapped(given);
  const Inputs& in = unwrapped.inputs();
  at::Tensor result;
  for_arity(row_of(op), [&](auto tensors, auto scalars) {
    using Signature = ElementwiseSignature<decltype(tensors), decltype(scalars)>;
    [&]<size_t... T, size_t... S>(std::index_sequence<T...>, std::index_sequence<S...>) {
      result = call_typed<typename Signature::Functional>(op, kFunctional, in[T]..., s.values[S]...);
    }(tensors, scalars);
  });
  return result;
}

at::Tensor& elementwise_out(Elementwise op, const Inputs& given, const Scalars& s, at::Tensor& out) {
  const Unwrapped unwrapped(given);
  const Inputs& in = unwrapped.inputs();
  for_arity(row_of(op), [&](auto tensors, auto scalars) {
    using Signature = ElementwiseSignature<decltype(tensors), decltype(scalars)>;
    [&]<size_t... T, size_t... S>(std::index_sequence<T...>, std::index_sequence<S...>) {
      call_typed<typename Signature::Out>(op, kOut, in[T]..., s.values[S]..., out);
    }(tensors, scalars);
  });
  return out;
}

at::Tensor& elementwise_inplace(Elementwise op, const Inputs& given, const Scalars& s) {
  const Unwrapped unwrapped(given);
  const Inputs& in = unwrapped.inputs();
  auto& self = const_cast<at::Tensor&>(in[0]);
  for_arity(row_of(op), [&](auto tensors, auto scalars) {
    using Signature = ElementwiseSignature<decltype(tensors), decltype(scalars)>;
    [&]<size_t First, size_t... T, size_t... S>(std::index_sequence<First, T...>, std::index_sequence<S...>) {
      call_typed<typename Signature::Inplace>(op, kInplace, self, in[T]..., s.values[S]...);
    }(tensors, scalars);
  });
  return self;
}

at::Tensor wrapped_number(const c10::Scalar& value) {
  // Not at::scalar_tensor: under FakeTensorMode that would be a fake tensor, whose value nobody can read.
  at::Tensor tensor = c10::scalar_to_tensor(value);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

std::optional<c10::Scalar> number_of(const at::Tensor& t) {
  constexpr c10::DispatchKeySet tracers({c10::DispatchKey::Python, c10::DispatchKey::Functionalize,
                                         c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper});
  if (!t.defined() || !t.unsafeGetTensorImpl()->is_wrapped_number() || !t.is_cpu() || t.key_set().has_any(tracers))
    return std::nullopt;
  return value_of(t);
}

}  // namespace ops

TORCH_LIBRARY_FRAGMENT(tensorops, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str(), {at::Tag::pt2_compliant_tag}); };
  for (const ElementwiseRow& row : elementwise_rows()) {
    if (!is_registered(row)) continue;
    const std::string name = row.name, scalars = row.scalar_schema;
    define(name + "(" + tensor_parameters(row, "Tensor") + scalars + ") -> Tensor");
    if (has_inplace(row)) define(name + "_(" + tensor_parameters(row, "Tensor(a!)") + scalars + ") -> Tensor(a!)");
    define(name + ".out(" + tensor_parameters(row, "Tensor") + with_out(scalars) + ") -> Tensor(a!)");
  }
}

TORCH_LIBRARY_IMPL(tensorops, Meta, library) { impl_elementwise(library, meta, meta_inplace, meta_out); }

}  // namespace tensorops
