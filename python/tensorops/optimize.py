"""Puts our modules in the place of torch.nn's, on a model that already exists."""

from __future__ import annotations

from typing import TypeVar

import torch

from .nn import modules

Model = TypeVar("Model", bound=torch.nn.Module)

OURS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    getattr(torch.nn, name): getattr(modules, name) for name in modules.OURS
}
TORCHS = {ours: torchs for torchs, ours in OURS.items()}


def _swap(model: Model, classes: dict[type[torch.nn.Module], type[torch.nn.Module]]) -> Model:
    for module in model.modules():
        replacement = classes.get(type(module))
        # A forward that was patched onto the instance hides the class's: someone wants that one.
        if replacement is not None and "forward" not in vars(module):
            module.__class__ = replacement
    return model


def optimize(model: Model) -> Model:
    """Makes each torch.nn module that we have a kernel for compute with it, and returns the model.

    The modules stay the objects they were: parameters, buffers, hooks, the training flag, names and references to them
    are untouched, and `state_dict` keeps its keys. Only exact torch.nn types change; a subclass, say a quantized or
    parametrized layer, keeps its own forward. Calls of torch.nn.functional inside a model's own forward are not ours to
    change. `restore` undoes it.

    Example:
        >>> model = tensorops.optimize(torchvision.models.resnet18())
    """
    return _swap(model, OURS)


def restore(model: Model) -> Model:
    """Undoes `optimize`: our modules become torch.nn's again."""
    return _swap(model, TORCHS)
