"""Containers: torch.nn.modules.container's Sequential, which computes neighbouring layers together."""

from __future__ import annotations

import torch.nn
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.modules.module import _has_any_global_hook

from ... import _C
from . import activation, conv, linear, pooling

__all__ = ["Sequential"]

_EPILOGUES = {
    activation.ReLU: "relu",
    activation.Sigmoid: "sigmoid",
    activation.SiLU: "silu",
    activation.Tanh: "tanh",
}


def _watched() -> bool:
    """Whether someone looks on who expects each layer to be called: hooks of all modules, tracers, transforms, modes."""
    return bool(
        _has_any_global_hook()
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack()
    )


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


def _epilogue(layer: Module, following: Module) -> str | None:
    """The name by which Linear applies the activation behind it to its sums, if it can."""
    name = _EPILOGUES.get(type(following))
    if type(following) is activation.GELU:
        name = "gelu" if following.approximate == "none" else "gelu_tanh"
    if name is None or not (_bare(layer) and _bare(following)):
        return None
    # A subclass, or a tensor of another kind in a parameter's place, has its own idea of linear.
    parameters = layer._parameters
    plain = type(parameters.get("weight")) is Parameter and type(parameters.get("bias", ...)) in (Parameter, type(None))
    return name if plain else None


def _pools_first(before: Module | None, layer: Module, following: Module) -> bool:
    """Whether ReLU may change places with what is behind it."""
    return (
        type(following) is pooling.MaxPool2d
        and not following.return_indices
        # In place, it changes what it is given, which only a convolution's result keeps from everyone's sight.
        and (not layer.inplace or (type(before) is conv.Conv2d and _bare(before)))
        and _bare(layer)
        and _bare(following)
    )


class Sequential(torch.nn.Sequential):
    """torch.nn.Sequential that computes neighbouring layers together.

    Linear and the activation behind it are one call, the activation computed on the sums before they are stored: bf16 and
    f16 are rounded once, not twice. ReLU and the MaxPool2d behind it change places, for the maximum of what is at least 0
    is the maximum, at least 0: ReLU then passes over the pooled image, and so does its gradient. Both only between exact
    types of tensorops.nn without hooks or a forward of their own; under torch.compile, tracers and torch.func each layer
    is called by itself.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # The other branch is then not compiled.
            for module in self:
                input = module(input)
            return input
        else:
            return super().forward(input) if _watched() else self._together(input)

    def _together(self, input: Tensor) -> Tensor:
        layers = [*self._modules.values()]
        at = 0
        while at < len(layers):
            layer = layers[at]
            if at + 1 < len(layers) and type(input) is Tensor:
                kind, following = type(layer), layers[at + 1]
                if kind is linear.Linear and (epilogue := _epilogue(layer, following)) is not None:
                    # Not layer.weight: Module.__getattr__ takes as long as a small product.
                    weight, bias = layer._parameters["weight"], layer._parameters["bias"]
                    input = _C._linear_activation(input, weight, bias, epilogue)  # type: ignore[arg-type]
                    at += 2
                    continue
                if kind is activation.ReLU and _pools_first(layers[at - 1] if at > 0 else None, layer, following):
                    # The pooled image is nobody else's: ReLU may write on it.
                    input = _C.relu_(following.forward(input))
                    at += 2
                    continue
            input = layer(input)
            at += 1
        return input
