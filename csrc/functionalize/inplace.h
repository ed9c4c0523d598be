#pragma once

namespace tensorops::functionalize {

// Gives every in-place and out= op that is defined by now a functional meaning; called once, when the module is loaded.
void register_inplace();

}  // namespace tensorops::functionalize
