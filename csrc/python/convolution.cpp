#include "ops/convolution.h"
#include "python/bind.h"
#include "python/families.h"

namespace tensorops::python {
namespace {

at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight, const ops::OptionalTensor& bias,
                  c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, int64_t groups) {
  return ops::conv2d(input, weight, bias, c10::fromIntArrayRefSlow(stride), c10::fromIntArrayRefSlow(padding),
                     c10::fromIntArrayRefSlow(dilation), groups);
}

at::Tensor conv2d_padding(const at::Tensor& input, const at::Tensor& weight, const ops::OptionalTensor& bias,
                          c10::IntArrayRef stride, std::string_view padding, c10::IntArrayRef dilation, int64_t groups) {
  return ops::conv2d_padding(input, weight, bias, c10::fromIntArrayRefSlow(stride), padding,
                             c10::fromIntArrayRefSlow(dilation), groups);
}

}  // namespace

void bind_convolution(PyObject* module) {
  bind(module, "conv2d",
       {overload("conv2d(Tensor input, Tensor weight, Tensor? bias=None, IntArrayRef[2] stride=1, "
                 "IntArrayRef[2] padding=0, IntArrayRef[2] dilation=1, int64_t groups=1)",
                 conv2d),
        overload("conv2d(Tensor input, Tensor weight, Tensor? bias=None, IntArrayRef[2] stride=1, "
                 "c10::string_view padding=\"valid\", IntArrayRef[2] dilation=1, int64_t groups=1)",
                 conv2d_padding)});
}

}  // namespace tensorops::python
