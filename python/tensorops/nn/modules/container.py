"""Containers: torch.nn.modules.container's Sequential, which computes neighbouring layers together."""

from __future__ import annotations

import torch.nn
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.modules.module import _has_any_global_hook

from ... import _C
from . import activation, conv, linear, pooling

__all__ = ["Sequential"]

_PRODUCTS = (linear.Linear, conv.Conv2d)
_EPILOGUES = {
    activation.ReLU: "relu",
    activation.Sigmoid: "sigmoid",
    activation.SiLU: "silu",
    activation.Tanh: "tanh",
}
# What has kernels of ours: anything else goes to torch's function of a layer's own name.
_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}


def _epilogue(layer: Module) -> str | None:
    """The name by which a product applies the layer to its result, if it can."""
    kind = type(layer)
    if kind is activation.GELU:
        return "gelu" if layer.approximate == "none" else "gelu_tanh"
    return _EPILOGUES.get(kind)


def _bare(layer: Module) -> bool:
    """Whether calling the layer is calling its class's forward: no hooks, no forward of its own, not compiled."""
    state = layer.__dict__
    return not (
        state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or "forward" in state
        or layer._compiled_call_impl is not None
    )


def _watched() -> bool:
    """Whether someone looks on who expects each layer to be called: hooks of all modules, tracers, transforms, modes."""
    return bool(
        _has_any_global_hook()
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack()
    )


class Sequential(torch.nn.Sequential):
    """torch.nn.Sequential that computes neighbouring layers together where the result is the same.

    Linear and the activation behind it are one call, the activation computed on the sums before they are stored. ReLU and
    the MaxPool2d behind it change places, for the maximum of what is at least 0 is the maximum, at least 0: ReLU then
    passes over the pooled image, and its gradient too. Both only between exact types of tensorops.nn without hooks or a
    forward of their own; under torch.compile, tracers and torch.func each layer is called by itself.
    """

    def forward(self, input: Tensor) -> Tensor:
        if type(input) is not Tensor or input.dtype not in _DTYPES or input.layout is not torch.strided or _watched():
            return super().forward(input)
        layers = [*self._modules.values()]
        last = len(layers) - 1
        at = 0
        while at <= last:
            layer = layers[at]
            following = layers[at + 1] if at < last else layer
            kind = type(layer)
            at += 1
            if kind is linear.Linear:
                epilogue = _epilogue(following)
                if epilogue is not None and _bare(layer) and _bare(following):
                    # Not layer.weight: Module.__getattr__ takes as long as a small product.
                    parameters = layer._parameters
                    weight, bias = parameters.get("weight"), parameters.get("bias", input)
                    if type(weight) is Parameter and (bias is None or type(bias) is Parameter):
                        input = _C._linear_activation(input, weight, bias, epilogue)
                        at += 1
                        continue
            elif (
                kind is activation.ReLU
                and type(following) is pooling.MaxPool2d
                and not following.return_indices
                # In place, it changes what it is given, which only a product's result keeps from everyone's sight.
                and (not layer.inplace or (at > 1 and type(layers[at - 2]) in _PRODUCTS and _bare(layers[at - 2])))
                and _bare(layer)
                and _bare(following)
            ):
                # The pooled image is nobody else's: ReLU may write on it.
                input = _C.relu_(following.forward(input))  # type: ignore[arg-type]
                at += 1
                continue
            input = layer(input)
        return input
