"""`python -m tensorops.info`: what this build is, what it runs on, and what it covers."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

import torch

from . import _C, __version__
from .nn import modules


def facts() -> dict[str, Any]:
    """Everything that the command prints, by name."""
    built = _C.build_facts()
    return {
        "tensorops": __version__,
        "commit": built["commit"],
        "built against torch": built["torch"],
        "running with torch": torch.__version__,
        "python": platform.python_version(),
        "compiler": built["compiler"],
        "flags": built["flags"],
        "CPU capability in use": _C.cpu_capability(),
        "products of bf16": "AVX512-BF16" if _C.has_avx512_bf16() else "in float32",
        "threads": torch.get_num_threads(),
        "CUDA": built["cuda"] or "not built",
        "CUDA architectures": built["cuda_architectures"] or "none",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none visible",
        "coverage": coverage(),
    }


def coverage() -> dict[str, list[str]]:
    """The names that have a kernel of ours, by the torch module that they live in."""
    places: dict[str, list[str]] = {"torch": [], "torch, in place": [], "torch.nn.functional": [], "torch.nn": []}
    for name in _C.bound_functions():
        if name.startswith("_"):
            continue
        if name.endswith("_"):
            places["torch, in place"].append(name)
        else:
            places["torch" if hasattr(torch, name) else "torch.nn.functional"].append(name)
    places["torch.nn"] = list(modules.OURS)
    return {place: sorted(names) for place, names in places.items()}


def table(width: int = 100) -> str:
    """The facts as text."""
    lines = []
    found = facts()
    names = found.pop("coverage")
    for key, value in found.items():
        lines.append(f"{key:22} {value}")
    for place, covered in names.items():
        lines += ["", f"{place} ({len(covered)})"]
        line = " "
        for name in covered:
            if len(line) + len(name) + 1 > width:
                lines.append(line)
                line = " "
            line += f" {name}"
        lines.append(line)
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tensorops.info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    print(json.dumps(facts(), indent=2) if options.json else table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
