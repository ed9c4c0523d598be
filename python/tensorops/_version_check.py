"""Refuses to load beside another torch than the one that tensorops was built against, in words.

The compiled half links against torch's C++ symbols, which change with every minor release; without this check the user
would see an undefined symbol, or worse.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__version__ = "0.1.0"

REBUILD = f"{sys.executable} -m pip install --no-build-isolation --force-reinstall --no-deps PATH_TO_TENSOROPS"


def minor(version: str) -> tuple[int, ...]:
    """(2, 13) of '2.13.0+cpu'."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


def mismatch(built_torch: str, built_cuda: str, torch: str, cuda: str | None) -> str | None:
    """Why a build against one torch cannot run under another; None if it can."""
    if minor(built_torch) != minor(torch):
        return f"tensorops was built against torch {built_torch}, but torch {torch} is installed"
    if built_cuda and cuda is None:
        return f"tensorops was built for CUDA {built_cuda}, but torch {torch} is a CPU build"
    return None


def before_import(torch: str, cuda: str | None) -> None:
    """Raises an ImportError that names both versions and the command that rebuilds."""
    folder = Path(__file__).parent
    if not any((folder / f"_C{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ImportError(f"tensorops has not been built for Python {python}; build it with\n    {REBUILD}")
    try:
        from . import _build
    except ImportError:  # built by something other than our setup.py: the binary itself has to do
        return
    reason = mismatch(_build.TORCH, _build.CUDA, torch, cuda)
    if reason:
        raise ImportError(f"{reason}; rebuild it with\n    {REBUILD}")
