"""Turns each family's table of cases into tests; see generic.py."""

from __future__ import annotations

import os

import pytest
import torch

pytest.register_assert_rewrite("tests.harness", "tests.generic")

from tests.cases.case import Case  # noqa: E402
from tests.harness import family_cases  # noqa: E402

# Set where the whole table would take too long, as under another instruction set: only f32 and bf16.
FEW_DTYPES = os.environ.get("TENSOROPS_TEST_FEW_DTYPES") == "1"


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtypes_of(case: Case) -> list[torch.dtype]:
    """Large rows are about threads, not dtypes: one is enough."""
    some = [d for d in case.dtypes if d in (torch.float32, torch.bfloat16)] if FEW_DTYPES or case.large else []
    return list(some[:1] if case.large and some else some or case.dtypes)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    family = getattr(metafunc.module, "FAMILY", None)
    if family is None:
        return
    rows, name = family_cases(family), metafunc.function.__name__
    if "family_rows" in metafunc.fixturenames:
        metafunc.parametrize("family_rows", [rows], ids=[family])
    elif "op_cases" in metafunc.fixturenames:
        ops: dict[str, list[Case]] = {}
        for case in rows:
            if not case.large:
                ops.setdefault(case.op, []).append(case)
        metafunc.parametrize("op_cases", list(ops.values()), ids=list(ops))
    elif "dtype" in metafunc.fixturenames:
        gradient = name == "test_gradient"
        pairs = [
            (case, dtype)
            for case in rows
            for dtype in dtypes_of(case)
            if not gradient or (case.gradient and dtype.is_floating_point)
        ]
        metafunc.parametrize(("case", "dtype"), pairs, ids=[f"{c.name}-{short(d)}" for c, d in pairs])
    elif "case" in metafunc.fixturenames:
        wanted = {
            "test_gradcheck": lambda c: c.gradient and c.smooth and not c.large and torch.float64 in c.dtypes,
            "test_reproducible": lambda c: c.large,
        }.get(name, lambda c: not c.large)
        chosen = [case for case in rows if wanted(case)]
        metafunc.parametrize("case", chosen, ids=[case.name for case in chosen])
