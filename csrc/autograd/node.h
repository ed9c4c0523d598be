// The one place that touches torch's Node API, which moves between releases.
//
//   Graph graph("Conv2dBackward", {&input, &weight});                    // refuses forward-mode AD
//   Tensor output = graph.forward([&] { return ops::conv2d(input, weight, stride); });
//   if (graph.recording())
//     graph.record({&output}, {&input, &weight}, [stride = stride.vec()](Backward& b) {
//       if (b.needs(0)) b.result(0, ops::conv2d_input_gradient(b.gradient(), b.saved(1), stride));
//       if (b.needs(1)) b.result(1, ...);
//     });
//   return output;
//
// A torch::autograd::Function would be shorter, but torch.func refuses it. The backward function must be made of ops that
// are differentiable themselves: that is all double backward needs.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/version.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

namespace tensorops::autograd {

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 13)
using NodePtr = c10::intrusive_ptr<torch::autograd::Node>;
template <class T, class... A>
NodePtr make_node(A&&... args) {
  return c10::make_intrusive<T>(std::forward<A>(args)...);
}
inline NodePtr self_pointer(torch::autograd::Node* node) {
  return c10::intrusive_ptr<torch::autograd::Node>::unsafe_reclaim_from_nonowning(node);
}
#else
using NodePtr = std::shared_ptr<torch::autograd::Node>;
template <class T, class... A>
NodePtr make_node(A&&... args) {
  return NodePtr(new T(std::forward<A>(args)...), torch::autograd::deleteNode);
}
inline NodePtr self_pointer(torch::autograd::Node* node) { return node->getptr(); }
#endif

// What a backward function sees: incoming gradients, saved tensors, and which results are wanted.
class Backward {
 public:
  Backward(torch::autograd::Node* node, torch::autograd::variable_list&& gradients, torch::autograd::variable_list&& saved)
      : node_(node), gradients_(std::move(gradients)), saved_(std::move(saved)), results_(node->num_outputs()) {}

  // The gradient of output i; undefined when nothing downstream used that output.
  const at::Tensor& gradient(size_t i = 0) const { return gradients_[i]; }
  // Tensor i of record()'s saved list.
  const at::Tensor& saved(size_t i) const {
    static const at::Tensor undefined;
    return i < saved_.size() ? saved_[i] : undefined;
  }
  // Whether input i of the Graph wants a gradient.
  bool needs(size_t i) const { return node_->task_should_compute_output(i); }
  void result(size_t i, at::Tensor value) { results_[i] = std::move(value); }
  torch::autograd::variable_list take() && { return std::move(results_); }

 private:
  torch::autograd::Node* node_;
  torch::autograd::variable_list gradients_, saved_, results_;
};

template <class Function>
class FunctionNode final : public torch::autograd::Node {
 public:
  FunctionNode(const char* name, torch::autograd::edge_list&& edges, Function function)
      : Node(std::move(edges)), name_(name), function_(std::move(function)) {}

  std::string name() const override { return name_; }

  void save(const at::Tensor& tensor, bool is_output) {
    if (tensor.defined()) saved_.emplace_back(tensor, is_output);
    else saved_.emplace_back();
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : saved_) variable.reset_data();
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    bool any = false;
    for (const auto& gradient : gradients) any |= gradient.defined();
    if (!any) return torch::autograd::variable_list(num_outputs());
    torch::autograd::variable_list saved;
    saved.reserve(saved_.size());
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (const auto& variable : saved_) saved.push_back(variable.unpack(self_pointer(this)));
    }
    Backward backward(this, std::move(gradients), std::move(saved));
    function_(backward);
    return std::move(backward).take();
  }

 private:
  const char* name_;
  Function function_;
  c10::SmallVector<torch::autograd::SavedVariable, 2> saved_;  // with the node: most ops save no more
};

// Whether a write to one may change the other; of a torch.func wrapper, which has no storage, that is not known.
inline bool may_alias(const at::Tensor& a, const at::Tensor& b) {
  return !a.has_storage() || !b.has_storage() || a.is_alias_of(b);
}

class Graph {
 public:
  using Tensors = std::initializer_list<const at::Tensor*>;

  // `name` must outlive the graph (a literal). Inputs may be undefined tensors (an absent bias).
  Graph(const char* name, Tensors inputs) : Graph(name, inputs.begin(), inputs.size()) {}
  Graph(const char* name, const at::Tensor* const* inputs, size_t count) : name_(name) {
    const bool enabled = at::GradMode::is_enabled();
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor& input = *inputs[i];
      if (!input.defined()) continue;
      TORCH_CHECK_NOT_IMPLEMENTED(!input._fw_grad(/*level=*/0).defined(), "tensorops: ", name,
                                  " has no forward-mode derivative; use reverse mode (torch.func.vjp, backward)");
      recording_ |= enabled && input.requires_grad();
    }
    if (!recording_) return;
    edges_.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      if (inputs[i]->defined()) edges_.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
      else edges_.emplace_back();
    }
  }

  bool recording() const { return recording_; }

  // Runs the op itself, below autograd.
  template <class F>
  static auto forward(F f) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return f();
  }

  // Attaches the backward function to the differentiable outputs. `saved` may name inputs and outputs alike.
  template <class Function>
  void record(Tensors outputs, Tensors saved, Function function) {
    auto [node, typed] = make(std::move(function));
    for (const at::Tensor* output : outputs) torch::autograd::set_history(*output, node);
    keep(typed, outputs, saved);
  }

  // The same for an op that wrote into `self`. Call before_inplace first; `saved` must not name self's old value.
  template <class Function>
  void record_inplace(const at::Tensor& self, Tensors saved, Function function) {
    auto [node, typed] = make(std::move(function));
    torch::autograd::rebase_history(self, node);
    keep(typed, {&self}, saved);
  }

  // Refuses out= where a gradient would be lost, as torch does.
  void refuse_out(const char* op, const at::Tensor& out) const {
    if (recording_ || (at::GradMode::is_enabled() && out.requires_grad())) torch::autograd::throw_error_out_requires_grad(op);
  }
  // Refuses in-place writes that autograd cannot follow, as torch does.
  void before_inplace(const at::Tensor& self) const { torch::autograd::check_inplace(self, recording_); }
  static void after_inplace(const at::Tensor& self) { torch::autograd::increment_version(self); }

 private:
  template <class Function>
  auto make(Function function) {
    using Node = FunctionNode<Function>;
    NodePtr node = make_node<Node>(name_, std::move(edges_), std::move(function));
    auto* typed = static_cast<Node*>(node.get());
    return std::make_pair(std::move(node), typed);
  }

  template <class Node>
  static void keep(Node* node, Tensors outputs, Tensors saved) {
    // Backward::saved knows that what lies behind the last defined one is undefined.
    size_t count = saved.size();
    while (count > 0 && !saved.begin()[count - 1]->defined()) --count;
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor* tensor = saved.begin()[i];
      bool is_output = false;
      for (const at::Tensor* output : outputs) is_output |= tensor == output;
      node->save(*tensor, is_output);
    }
  }

  const char* name_;
  bool recording_ = false;
  torch::autograd::edge_list edges_;
};

}  // namespace tensorops::autograd
