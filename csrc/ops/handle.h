// A typed, cached way into the dispatcher: `inline const Op<Tensor(const Tensor&)> relu{"relu"};` is all it takes to call
// tensorops::relu from C++.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

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
  const c10::TypedOperatorHandle<R(A...)>& handle() const {
    std::call_once(once_, [this] {
      handle_.emplace(c10::Dispatcher::singleton()
                          .findSchemaOrThrow((std::string("tensorops::") + name_).c_str(), overload_)
                          .template typed<R(A...)>());
    });
    return *handle_;
  }

  const char* name_;
  const char* overload_;
  mutable std::once_flag once_;
  mutable std::optional<c10::TypedOperatorHandle<R(A...)>> handle_;
};

}  // namespace tensorops
