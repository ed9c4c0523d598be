"""Turns each family's table of cases into tests; see generic.py."""

from __future__ import annotations

import pytest
import torch

from tests.cases.case import Case
from tests.harness import EMULATED_CUDA, cuda_rows, family_cases

if EMULATED_CUDA:  # torch's side runs on the CPU, which knows no tf32
    torch.backends.cudnn.allow_tf32 = False

NO_GPU = pytest.param(None, marks=pytest.mark.skip(reason="needs an NVIDIA GPU"), id="no GPU")


def by_op(rows: list[Case]) -> dict[str, list[Case]]:
    """The rows of each op."""
    ops: dict[str, list[Case]] = {}
    for case in rows:
        ops.setdefault(case.op, []).append(case)
    return ops


WANTED = {
    "test_gradient": lambda case: case.gradient and case.torch_gradient and not case.large,
    "test_gradcheck": lambda case: case.gradient and case.smooth and not case.large and torch.float64 in case.dtypes,
    "test_reproducible": lambda case: case.large,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per row (`case`), per op (`op_cases`, and `cuda_cases` where there is a GPU) or per family (`family_rows`),
    by the test's arguments."""
    family = getattr(metafunc.module, "FAMILY", None)
    if family is None:
        return
    rows = family_cases(family)
    if "family_rows" in metafunc.fixturenames:
        metafunc.parametrize("family_rows", [rows], ids=[family])
    elif "op_cases" in metafunc.fixturenames:
        ops = by_op([case for case in rows if not case.large])
        metafunc.parametrize("op_cases", list(ops.values()), ids=list(ops))
    elif "cuda_cases" in metafunc.fixturenames:
        ops = by_op(cuda_rows(rows))
        if torch.cuda.is_available():
            metafunc.parametrize("cuda_cases", list(ops.values()), ids=list(ops))
        else:
            metafunc.parametrize("cuda_cases", [NO_GPU])
    elif "case" in metafunc.fixturenames:
        wanted = WANTED.get(metafunc.function.__name__, lambda case: not case.large)
        chosen = [case for case in rows if wanted(case)]
        metafunc.parametrize("case", chosen, ids=[case.name for case in chosen])
