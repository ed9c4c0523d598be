// Elementwise derivatives, read off the table. A unary op's backward is the fused op <name>_backward(grad, saved); the
// other gradients are tensor-level expressions of our own ops.
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <cctype>
#include <string>
#include <type_traits>

#include "autograd/node.h"
#include "autograd/sum_to_size.h"
#include "autograd/tensor_expr.h"
#include "ops/arity.h"
#include "ops/elementwise.h"

namespace tensorops::autograd {
namespace {

#define TENSOROPS_FORMULA inline
#include "ops/elementwise_formulas.h"

// In one pass over memory, but where a number (x ** 2) makes several simple ones of it. Of all Expr's functions these alone fall
// back on their formula, and so stand behind it.
Expr pow_base_gradient(const Expr& g, const Expr& a, const Expr& b) {
  if (a.is_constant() || b.is_constant()) return pow_base_gradient<Expr>(g, a, b);
  return ops::elementwise(Elementwise::_pow_base_gradient, g.tensor(), a.tensor(), b.tensor());
}
Expr pow_exponent_gradient(const Expr& g, const Expr& a, const Expr& b) {
  if (a.is_constant() || b.is_constant()) return pow_exponent_gradient<Expr>(g, a, b);
  return ops::elementwise(Elementwise::_pow_exponent_gradient, g.tensor(), a.tensor(), b.tensor());
}

// The expression in a table column, or nothing where it has none.
template <class T>
std::optional<Expr> maybe(const T& value) {
  if constexpr (std::is_same_v<T, None> || std::is_same_v<T, NotImplemented> || std::is_same_v<T, Flat>) return std::nullopt;
  else return Expr(value);
}
template <class T>
int reads_of(const T& value) {
  if constexpr (std::is_same_v<T, Probe>) return value.reads;
  else return 0;
}

// A unary row: its slope and curve at tensor level.
struct UnaryRule {
  std::optional<Expr> (*slope)(const Expr& saved, const Expr* p) = nullptr;
  std::optional<Expr> (*curve)(const Expr& saved, const Expr* p) = nullptr;
};
// A binary or ternary row: the gradient for each input, and which inputs it reads, as bits.
struct Rule {
  std::optional<Expr> (*gradient[3])(const Expr& g, const Expr* in, const Expr* p) = {};
  int reads[3] = {};
  bool implemented[3] = {};
};

#define UNARY_COLUMN(expression)                                                             \
  [](const Expr& saved, const Expr* p) -> std::optional<Expr> {                              \
    using V [[maybe_unused]] = Expr;                                                         \
    [[maybe_unused]] const V x = saved, y = saved, p0 = p[0], p1 = p[1], p2 = p[2];          \
    return maybe(expression);                                                                \
  }
const UnaryRule& unary_rule(Elementwise op) {
  static const auto rules = [] {
    std::array<UnaryRule, kElementwiseCount> all;
#define UNARY(name, domain, saved, scalars, formula, slope, curve) \
  all[static_cast<size_t>(Elementwise::name)] = {UNARY_COLUMN(slope), UNARY_COLUMN(curve)};
    TENSOROPS_UNARY_TABLE(UNARY)
#undef UNARY
    return all;
  }();
  return rules[static_cast<size_t>(op)];
}
#undef UNARY_COLUMN

#define GRADIENT(index, expression)                                                                               \
  rule.gradient[index] = [](const Expr& g, const Expr* in, const Expr* p) -> std::optional<Expr> {                \
    using V [[maybe_unused]] = Expr;                                                                              \
    [[maybe_unused]] const V a = in[0], b = in[1], c = in[2], p0 = p[0];                                          \
    return maybe(expression);                                                                                     \
  };                                                                                                              \
  rule.reads[index] = [] {                                                                                        \
    using V [[maybe_unused]] = Probe;                                                                             \
    [[maybe_unused]] const V g, a(1, true), b(2, true), c(4, true), p0;                                           \
    return reads_of(expression);                                                                                  \
  }();                                                                                                            \
  rule.implemented[index] = [] {                                                                                  \
    using V [[maybe_unused]] = Probe;                                                                             \
    [[maybe_unused]] const V g, a, b, c, p0;                                                                      \
    return !std::is_same_v<std::remove_cvref_t<decltype(expression)>, NotImplemented>;                            \
  }();
const Rule& rule_of(Elementwise op) {
  static const auto rules = [] {
    std::array<Rule, kElementwiseCount> all;
#define BINARY(name, domain, scalars, formula, for_a, for_b)   \
  {                                                            \
    Rule& rule = all[static_cast<size_t>(Elementwise::name)];  \
    GRADIENT(0, for_a)                                         \
    GRADIENT(1, for_b)                                         \
  }
    TENSOROPS_BINARY_TABLE(BINARY)
#undef BINARY
#define TERNARY(name, domain, scalars, formula, for_a, for_b, for_c) \
  {                                                                  \
    Rule& rule = all[static_cast<size_t>(Elementwise::name)];        \
    GRADIENT(0, for_a)                                               \
    GRADIENT(1, for_b)                                               \
    GRADIENT(2, for_c)                                               \
  }
    TENSOROPS_TERNARY_TABLE(TERNARY)
#undef TERNARY
    return all;
  }();
  return rules[static_cast<size_t>(op)];
}
#undef GRADIENT

struct Parameters {
  Expr values[3];
  explicit Parameters(const Scalars& s) : values{s.values[0], s.values[1], s.values[2]} {}
};

// The unary op whose backward `op` is: the row before it.
Elementwise forward_of(Elementwise op) { return static_cast<Elementwise>(static_cast<int>(op) - 1); }
Elementwise backward_of(Elementwise op) { return static_cast<Elementwise>(static_cast<int>(op) + 1); }

at::Tensor unary_gradient(Elementwise op, Saved saved, const at::Tensor& grad, const at::Tensor& value, const Scalars& s) {
  if (saved != Saved::none) return ops::elementwise(backward_of(op), {{&grad, &value}, 2}, s);
  const Parameters p(s);
  const Expr slope = *unary_rule(op).slope(Expr(0), p.values);
  return slope.is(0) ? at::zeros_like(grad) : (Expr(grad) * slope).tensor();
}

// A gradient that folded into a constant still has the shape of the incoming one.
at::Tensor shaped_like(const at::Tensor& gradient, const Expr& e) {
  return e.is_constant() ? at::full_like(gradient, e.number()) : e.tensor();
}

// Attaches the backward of `op` to `out`, which may be the first input itself, overwritten; `inputs` are the values
// before that.
void record(Graph& graph, Elementwise op, const Inputs& inputs, const Scalars& scalars, const at::Tensor& out, bool inplace) {
  const ElementwiseRow& row = row_of(op);
  const auto attach = [&](Graph::Tensors saved, auto function) {
    if (inplace) graph.record_inplace(out, saved, std::move(function));
    else graph.record({&out}, saved, std::move(function));
  };
  if (row.backward) {
    const Elementwise forward = forward_of(op);
    attach({inputs.tensors[0], inputs.tensors[1]}, [op, forward, scalars](Backward& b) {
      const at::Tensor &gg = b.gradient(), &grad = b.saved(0), &saved = b.saved(1);
      if (b.needs(0)) b.result(0, ops::elementwise(op, {{&gg, &saved}, 2}, scalars));
      if (b.needs(1)) {
        const Parameters p(scalars);
        if (const auto curve = unary_rule(forward).curve(saved, p.values)) b.result(1, (Expr(gg) * grad * *curve).tensor());
      }
    });
  } else if (row.tensors == 1) {
    const Saved kind = row.saved;
    const at::Tensor nothing;
    const at::Tensor* saved = kind == Saved::self ? inputs.tensors[0] : kind == Saved::result ? &out : &nothing;
    attach({saved}, [op, kind, scalars](Backward& b) {
      b.result(0, unary_gradient(op, kind, b.gradient(), b.saved(0), scalars));
    });
  } else {
    const Rule& rule = rule_of(op);
    int reads = 0;
    std::array<std::optional<std::vector<c10::SymInt>>, 3> sizes;  // of the inputs that were broadcast
    std::array<c10::ScalarType, 3> types{};
    for (int i = 0; i < inputs.count; ++i) {
      types[i] = inputs[i].scalar_type();
      if (inputs[i].sym_sizes() != out.sym_sizes()) sizes[i] = inputs[i].sym_sizes().vec();
      if (inputs[i].requires_grad()) reads |= rule.reads[i];
    }
    const at::Tensor nothing;
    const auto kept = [&](int i) { return i < inputs.count && (reads >> i & 1) ? inputs.tensors[i] : &nothing; };
    attach({kept(0), kept(1), kept(2)}, [op, scalars, count = inputs.count, sizes = std::move(sizes), types](Backward& b) {
      // In the dtype of the result: the logarithm of a bf16 base would otherwise be one of bf16, and bools cannot be subtracted.
      // A factor or divisor of no dimensions keeps its precision, as in the forward.
      const bool scales = op == Elementwise::mul || op == Elementwise::_div_true;
      const auto operand = [&](int i) -> Expr {
        const at::Tensor& t = b.saved(i);
        const bool as_it_is = !t.defined() || op == Elementwise::where || t.unsafeGetTensorImpl()->is_wrapped_number() ||
                              t.scalar_type() == b.gradient().scalar_type() ||
                              (scales && i == 1 && t.dim() == 0 && t.is_floating_point());
        return as_it_is ? t : t.to(b.gradient().scalar_type());
      };
      const Expr in[3] = {operand(0), operand(1), operand(2)};
      const Parameters p(scalars);
      for (int i = 0; i < count; ++i) {
        if (!b.needs(i)) continue;
        TORCH_CHECK(rule_of(op).implemented[i], "derivative for tensorops::", row_of(op).name, " is not implemented");
        // A 0-dim input may have a wider dtype than the result; its gradient, a sum, is computed in that.
        const c10::ScalarType type = b.gradient().scalar_type();
        const bool wider = sizes[i] && sizes[i]->empty() && types[i] != type && c10::promoteTypes(types[i], type) == types[i];
        const at::Tensor g = wider ? b.gradient().to(types[i]) : b.gradient();
        const auto gradient = rule_of(op).gradient[i](g, in, p.values);
        if (!gradient) continue;
        const at::Tensor shaped = shaped_like(g, *gradient);
        b.result(i, sizes[i] ? sum_to_size(shaped, *sizes[i]) : shaped);
      }
    });
  }
}

// "leaky_relu" gives "LeakyReluBackward": what grad_fn prints.
const char* node_name(Elementwise op) {
  static const auto names = [] {
    std::array<std::string, kElementwiseCount> all;
    for (const ElementwiseRow& row : elementwise_rows()) {
      bool upper = true;
      for (const char* c = row.name; *c != 0; ++c) {
        if (*c != '_') all[static_cast<size_t>(row.op)] += upper ? static_cast<char>(std::toupper(*c)) : *c;
        upper = *c == '_';
      }
      all[static_cast<size_t>(row.op)] += "Backward";
    }
    return all;
  }();
  return names[static_cast<size_t>(op)].c_str();
}

// Predicates have no derivative, and a call of one no business here.
bool is_predicate(const ElementwiseRow& row) { return row.domain == Domain::PREDICATE; }

at::Tensor functional(Elementwise op, const Inputs& inputs, const Scalars& scalars) {
  Graph graph(node_name(op), inputs.tensors, inputs.count);
  at::Tensor out = Graph::forward([&] { return ops::elementwise(op, inputs, scalars); });
  if (graph.recording()) record(graph, op, inputs, scalars, out, /*inplace=*/false);
  return out;
}

void inplace(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& self) {
  const ElementwiseRow& row = row_of(op);
  Graph graph(node_name(op), inputs.tensors, inputs.count);
  graph.before_inplace(self);
  // What the backward reads of the overwritten memory must outlive the write.
  at::Tensor old[3];
  Inputs before = inputs;
  if (graph.recording()) {
    int reads = row.tensors == 1 && row.saved == Saved::self ? 1 : 0;
    if (row.tensors > 1)
      for (int i = 0; i < inputs.count; ++i)
        if (inputs[i].requires_grad()) reads |= rule_of(op).reads[i];
    for (int i = 0; i < inputs.count; ++i) {
      if (!(reads >> i & 1) || !may_alias(inputs[i], self)) continue;
      old[i] = inputs[i].clone();
      before.tensors[i] = &old[i];
    }
  }
  Graph::forward([&] { return ops::elementwise_inplace(op, inputs, scalars); });
  Graph::after_inplace(self);
  if (graph.recording()) record(graph, op, before, scalars, self, /*inplace=*/true);
}

void out_variant(Elementwise op, const Inputs& inputs, const Scalars& scalars, at::Tensor& out) {
  const ElementwiseRow& row = row_of(op);
  const Graph graph(node_name(op), inputs.tensors, inputs.count);
  if (graph.recording() || (at::GradMode::is_enabled() && out.requires_grad()))
    torch::autograd::throw_error_out_requires_grad(row.name);
  Graph::forward([&] { return ops::elementwise_out(op, inputs, scalars, out); });
  Graph::after_inplace(out);
}

}  // namespace

TORCH_LIBRARY_IMPL(tensorops, Autograd, library) {
  impl_elementwise(library, functional, inplace, out_variant, is_predicate);
}

}  // namespace tensorops::autograd
