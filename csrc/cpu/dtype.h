// From torch's dtypes to the kernels': the same on every device.
#pragma once

#include "ops/scalar_type.h"

namespace tensorops::cpu {
using tensorops::dtype_of;
}
