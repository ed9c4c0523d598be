"""torch.nn, with modules of our own where we have a kernel: same constructors, state_dict, repr and pickles."""

import torch.nn

# Not `from torch.nn import *`: it would bring torch's `functional` and `modules` in the place of ours.
from torch.nn import (
    Buffer,
    DataParallel,
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
    attention,
    common_types,
    factory_kwargs,
    grad,
    init,
    parallel,
    parameter,
    utils,
)

from . import functional, modules
from ._alias import install
from .modules import *  # noqa: F403
from .modules import __all__ as _classes

__all__ = [
    "Buffer",
    "DataParallel",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "attention",
    "common_types",
    "factory_kwargs",
    "functional",
    "grad",
    "init",
    "modules",
    "parallel",
    "parameter",
    "utils",
]
__all__ += _classes

install()


def __getattr__(name: str) -> object:
    """The rest of torch.nn."""
    return getattr(torch.nn, name)
