#pragma once

namespace tensorops::autograd {

// Gives every in-place and out= op that is defined by now its version counting without Autograd; called once, when the module
// is loaded.
void register_versions();

}  // namespace tensorops::autograd
