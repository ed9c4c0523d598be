// Element types: the same on every device.
#pragma once

#include "ops/dtype.h"
