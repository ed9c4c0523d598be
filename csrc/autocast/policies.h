#pragma once

namespace tensorops::autocast {

// Registers the autocast policy of every op that is defined by now; called once, when the module is loaded.
void register_policies();

}  // namespace tensorops::autocast
