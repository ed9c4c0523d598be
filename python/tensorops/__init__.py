"""Kernels of our own, C++ (SIMD) and CUDA, for PyTorch's ops, under PyTorch's own names.

`tensorops.X` is `torch.X`, `tensorops.nn.X` is `torch.nn.X`, `tensorops.nn.functional.X` likewise: same arguments,
defaults, results, dtypes and errors. Here are the functions that have a kernel of ours, in-place twins included
(`relu_`, `add_`); `python -m tensorops.info` lists them.
"""

from __future__ import annotations

import torch

from . import _version_check

_version_check.before_import(torch.__version__, torch.version.cuda)

from . import _C, _compile, _docs, _flops, _vmap, nn  # noqa: E402
from ._C import empty_cache, memory_stats  # noqa: E402
from ._fallback import fallbacks, strict  # noqa: E402
from ._version_check import __version__  # noqa: E402
from .optimize import optimize, restore  # noqa: E402

# A function is its C function itself: an eager call runs no Python frame.
_OURS = [
    name
    for name in _C.bound_functions()
    if not name.startswith("_") and (hasattr(torch, name) or (name.endswith("_") and hasattr(torch.Tensor, name)))
]
globals().update({name: getattr(_C, name) for name in _OURS})

__all__ = [
    "__version__",
    "empty_cache",
    "fallbacks",
    "memory_stats",
    "nn",
    "optimize",
    "restore",
    "strict",
    *_OURS,
]

_docs.attach()
_vmap.register()
_compile.register_when_dynamo_loads()
_flops.register_when_flop_counter_loads()


def __getattr__(name: str) -> object:
    """Says what a missing name is: torch's, in another module, or unknown."""
    if hasattr(torch.nn.functional, name) and name in _C.bound_functions():
        raise AttributeError(f"module 'tensorops' has no attribute {name!r}; use tensorops.nn.functional.{name}")
    if hasattr(torch, name):
        raise AttributeError(f"module 'tensorops' has no attribute {name!r}: it has no kernel for it; use torch.{name}")
    raise AttributeError(f"module 'tensorops' has no attribute {name!r}")
