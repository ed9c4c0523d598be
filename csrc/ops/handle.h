// A typed, cached way into the dispatcher: `inline const Op<Tensor(const Tensor&)> relu{"relu"};` is all it takes to call
// tensorops::relu from C++.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <mutex>
#include <optional>

namespace tensorops {

template <class Signature>
class Op;

template <class R, class... A>
class Op<R(A...)> {
 public:
  using Signature = R(A...);
  explicit constexpr Op(const char* name, const char* overload = "") : name_(name), overload_(overload) {}

  R operator()(A... args) const { return handle().call(std::forward<A>(args)...); }
  const char* name() const { return name_; }

 private:
  // std::call_once costs thread-local writes in every call: a flag of our own spares them once the handle is there.
  const c10::TypedOperatorHandle<R(A...)>& handle() const {
    if (!found_.load(std::memory_order_acquire)) find();
    return *handle_;
  }
  void find() const {
    std::call_once(once_, [this] {
      handle_.emplace(c10::Dispatcher::singleton()
                          .findSchemaOrThrow((std::string("tensorops::") + name_).c_str(), overload_)
                          .template typed<R(A...)>());
    });
    found_.store(true, std::memory_order_release);
  }

  const char* name_;
  const char* overload_;
  mutable std::atomic<bool> found_{false};
  mutable std::once_flag once_;
  mutable std::optional<c10::TypedOperatorHandle<R(A...)>> handle_;
};

}  // namespace tensorops
