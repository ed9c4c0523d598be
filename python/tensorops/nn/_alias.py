"""`import tensorops.nn.utils.rnn` gives torch.nn.utils.rnn itself; so for all of torch.nn that has no file here."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

OURS = "tensorops.nn."
TORCHS = "torch.nn."
FOLDER = Path(__file__).parent


class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads tensorops.nn.X as the module torch.nn.X, already imported or not."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(OURS):
            return None
        own = FOLDER.joinpath(*fullname.removeprefix(OURS).split("."))
        if own.is_dir() or own.with_suffix(".py").exists():
            return None
        try:
            module = importlib.import_module(TORCHS + fullname.removeprefix(OURS))
        except ModuleNotFoundError:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self)
        spec.loader_state = (module, module.__spec__)
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module: ModuleType = spec.loader_state[0]
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has given torch's module our spec; it gets its own back.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state[1]


def install() -> None:
    """Goes before the finder of files, which would load a second copy of a submodule of an aliased package."""
    sys.meta_path.insert(0, _Alias())
