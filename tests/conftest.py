"""Turns each family's table of cases into tests; see generic.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cases.case import Case
from tests.harness import family_cases

WANTED = {
    "test_gradient": lambda case: case.gradient and case.torch_gradient and not case.large,
    "test_gradcheck": lambda case: case.gradient and case.smooth and not case.large and torch.float64 in case.dtypes,
    "test_reproducible": lambda case: case.large,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per row (`case`), per op (`op_cases`) or per family (`family_rows`), by the test's arguments."""
    family = getattr(metafunc.module, "FAMILY", None)
    if family is None:
        return
    rows = family_cases(family)
    if "family_rows" in metafunc.fixturenames:
        metafunc.parametrize("family_rows", [rows], ids=[family])
    elif "op_cases" in metafunc.fixturenames:
        ops: dict[str, list[Case]] = {}
        for case in rows:
            if not case.large:
                ops.setdefault(case.op, []).append(case)
        metafunc.parametrize("op_cases", list(ops.values()), ids=list(ops))
    elif "case" in metafunc.fixturenames:
        wanted = WANTED.get(metafunc.function.__name__, lambda case: not case.large)
        chosen = [case for case in rows if wanted(case)]
        metafunc.parametrize("case", chosen, ids=[case.name for case in chosen])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that known_defects.txt lists: each is a defect of ours, shown as xfail until it is mended.

    The list only ever gets shorter; a test that passes again shows as XPASS and leaves it.
    """
    listed = Path(__file__).with_name("known_defects.txt").read_text().splitlines()
    known = {line for line in listed if line and not line.startswith("#")}
    for item in items:
        if item.nodeid in known:
            item.add_marker(pytest.mark.xfail(reason="known defect", strict=False))
