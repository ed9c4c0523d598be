// The torch headers that nearly every file outside the inner kernels includes, directly or not. Parsing them takes most files
// longer than compiling their own code, so setup.py precompiles them once. A file still includes all that it uses.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>
