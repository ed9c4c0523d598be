"""Writes the type stubs of the C functions, python/tensorops/_C.pyi and __init__.pyi, from the built package.

python tools/make_stubs.py           write them
python tools/make_stubs.py --check   exit with 1 if they are out of date
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import tensorops
import torch
from tensorops import _C

FOLDER = Path(__file__).resolve().parent.parent / "python" / "tensorops"

TYPES = {
    "Tensor": "Tensor",
    "TensorList": "Sequence[Tensor]",
    "Scalar": "Number",
    "IntArrayRef": "int | Sequence[int]",
    "SymIntArrayRef": "int | Sequence[int]",
    "ScalarType": "torch.dtype",
    "bool": "bool",
    "int64_t": "int",
    "SymInt": "int",
    "double": "float",
    "std::string_view": "str",
    "c10::string_view": "str",
}

# Where torch's argument parser takes a number for any tensor.
NUMBERS = ("add", "sub", "mul", "div", "floor_divide")

HEAD = '"""Written by tools/make_stubs.py; do not edit."""\n\n'


def parameter(function: str, text: str) -> str:
    """'other: Number = 1' of the argument parser's 'Scalar other=1'."""
    if text == "*":
        return text
    kind, _, rest = text.rpartition(" ")
    name, _, default = rest.partition("=")
    optional = kind.endswith("?") or default == "None"
    python = TYPES[re.sub(r"\[\d*\]", "", kind.removesuffix("?"))]
    if python == "Tensor" and function in NUMBERS and name != "out":
        python = "Tensor | Number"
    if optional:
        python += " | None"
    return f"{name}: {python}" + (" = ..." if default else "")


def result(name: str, parameters: list[str]) -> str:
    """The return type: that of the schema with these parameters."""
    wanted = {p.rpartition(" ")[2].partition("=")[0] for p in parameters if p != "*"} - {"out"}
    best, most = "Tensor", -1
    for schema in torch._C._jit_get_schemas_for_operator(f"tensorops::{name}"):
        own = {argument.name for argument in schema.arguments} - {"out"}
        shared = len(own & wanted) - len(own ^ wanted)
        if shared > most and schema.overload_name != "out":
            count = len(schema.returns)
            best, most = "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]", shared
    return best


def function(name: str, signatures: list[str]) -> str:
    """The stub of one function, every overload."""
    lines = []
    for signature in signatures:
        parameters = signature.removesuffix("|deprecated")[signature.index("(") + 1 : -1].split(", ")
        returns = result(name, parameters)
        written = [parameter(name.removesuffix("_"), p) for p in parameters]
        if returns != "Tensor":
            written = [w.replace("out: Tensor", f"out: {returns}") for w in written]
            if hasattr(torch.return_types, name):
                returns = f"torch.return_types.{name}"
        decorator = "@overload\n" if len(signatures) > 1 else ""
        lines.append(f"{decorator}def {name}({', '.join(written)}) -> {returns}: ...")
    return "\n".join(lines)


def c_stub() -> str:
    """_C.pyi."""
    body = "\n".join(function(name, own) for name, own in sorted(_C.signatures().items()))
    return f"""{HEAD}from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

Number = bool | int | float

elementwise_ops: dict[str, str]

def build_facts() -> dict[str, str]: ...
def bound_functions() -> dict[str, str]: ...
def cpu_capability() -> str: ...
def has_avx512_bf16() -> bool: ...
def empty_cache() -> None: ...
def memory_stats() -> dict[str, int]: ...
def signatures() -> dict[str, list[str]]: ...
{body}
"""


def package_stub() -> str:
    """__init__.pyi."""
    names = "\n".join(f"from ._C import {name} as {name}" for name in sorted(tensorops._OURS))
    return f"""{HEAD}from . import nn as nn
from ._C import empty_cache as empty_cache
from ._C import memory_stats as memory_stats
{names}
from ._fallback import fallbacks as fallbacks
from ._fallback import strict as strict
from ._version_check import __version__ as __version__
from .optimize import optimize as optimize
from .optimize import restore as restore
"""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    status = 0
    for name, text in (("_C.pyi", c_stub()), ("__init__.pyi", package_stub())):
        path = FOLDER / name
        if check and (not path.exists() or path.read_text() != text):
            print(f"{path} is out of date; run python tools/make_stubs.py", file=sys.stderr)
            status = 1
        elif not check:
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
