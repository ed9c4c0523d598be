"""The matmul family: products, sums with a product, linear.

Rows of an op go over the shapes at which the kernels change their path: nothing to sum over, vectors, few rows, part of a
tile, whole tiles, several blocks of k, sums long enough to be cut into pieces; and over what is added and how often.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.cases.case import BOOL, FLOATING, INTEGRAL, Case, Draw, arguments

NUMERIC = (*FLOATING, *INTEGRAL)
ALL = (*NUMERIC, *BOOL)
F32 = (torch.float32,)

# (m, n, k)
SHAPES: dict[str, tuple[int, int, int]] = {
    "one": (1, 1, 1),
    "tile": (8, 8, 8),
    "odd": (17, 35, 65),
    "no-k": (3, 4, 0),
    "no-rows": (0, 4, 5),
    "no-columns": (4, 0, 5),
    "one-row": (1, 37, 70),
    "one-column": (37, 1, 70),
    "three-rows": (3, 70, 9),
    "few-columns": (70, 3, 9),
    "seven-rows": (7, 50, 60),
    "outer": (33, 40, 1),
}
BATCHED: dict[str, tuple[int, int, int, int]] = {
    "batch-none": (0, 2, 3, 4),
    "batch-one": (1, 5, 6, 7),
    "batch": (5, 8, 8, 8),
    "batch-odd": (3, 15, 17, 19),
    "batch-row": (4, 1, 33, 20),
    "batch-no-k": (2, 3, 4, 0),
}


def products() -> list[Case]:
    """mm, mv, dot, bmm, outer."""
    rows: list[Case] = []
    for label, (m, n, k) in SHAPES.items():
        rows.append(
            Case(
                "mm",
                lambda d, m=m, n=n, k=k: arguments(d.normal(m, k), d.normal(k, n)),
                label,
                NUMERIC,
            )
        )
        if n == 1 or label in ("tile", "odd", "no-k", "no-rows"):
            rows.append(Case("mv", lambda d, m=m, k=k: arguments(d.normal(m, k), d.normal(k)), label, NUMERIC))
        if label in ("one", "tile", "odd", "no-k"):
            rows.append(Case("dot", lambda d, k=k: arguments(d.normal(k), d.normal(k)), label, NUMERIC))
            rows.append(Case("outer", lambda d, m=m, n=n: arguments(d.normal(m), d.normal(n)), label, ALL))
    for label, (b, m, n, k) in BATCHED.items():
        rows.append(
            Case("bmm", lambda d, b=b, m=m, n=n, k=k: arguments(d.normal(b, m, k), d.normal(b, k, n)), label, NUMERIC)
        )
    rows += [
        # Values that finite arithmetic must not lose or invent.
        Case("mm", lambda d: arguments(special(d, 6, 5), special(d, 5, 7)), "special", exact=True, gradient=False),
        Case("mv", lambda d: arguments(special(d, 6, 5), special(d, 5)), "special", exact=True, gradient=False),
        Case("bmm", lambda d: arguments(d.normal(1, 4, 5).expand(3, 4, 5), d.normal(3, 5, 2)), "shared", NUMERIC, smooth=False),
        Case("outer", lambda d: arguments(d.normal(4), d.normal(3, dtype=torch.int32)), "promotes", FLOATING, gradient=False),
        # More than one block of k, of rows, of columns; sums cut into pieces; vectors long enough for threads.
        Case("mm", lambda d: arguments(d.normal(130, 600), d.normal(600, 70)), "depths", smooth=False),
        # Rows of A, or of C, that share one set of the cache.
        Case("mm", lambda d: arguments(d.normal(40, 1024), d.normal(1024, 70)), "cache way", FLOATING, smooth=False),
        Case("mm", lambda d: arguments(d.normal(30, 3), d.normal(3, 1024)), "thin", FLOATING, smooth=False),
        Case("mm", lambda d: arguments(d.normal(30, 8), d.normal(8, 2048)), "thin, deeper", FLOATING, smooth=False),
        Case("mm", lambda d: arguments(d.normal(300, 1100), d.normal(1100, 300)), "large", F32, smooth=False, large=True),
        # Steps of k are rows of both, and so many that they are read where they lie, in whole vectors and not.
        Case("mm", lambda d: arguments(d.normal(1100, 120).t(), d.normal(1100, 48)), "deep", F32, smooth=False, large=True),
        Case("mm", lambda d: arguments(d.normal(1050, 70)[:, 3:].t(), d.normal(1050, 50)[:, 7:]), "deep, odd", FLOATING, smooth=False),
        Case("mm", lambda d: arguments(d.normal(5, 5000), d.normal(5000, 6)), "long", F32, smooth=False, large=True),
        Case("mm", lambda d: arguments(d.normal(6, 700), d.normal(700, 900)), "wide", F32, smooth=False, large=True),
        Case("mv", lambda d: arguments(d.normal(700, 900), d.normal(900)), "large", F32, smooth=False, large=True),
        Case("dot", lambda d: arguments(d.normal(150_001), d.normal(150_001)), "large", F32, smooth=False, large=True),
        Case("bmm", lambda d: arguments(d.normal(9, 70, 80), d.normal(9, 80, 60)), "large", F32, smooth=False, large=True),
        Case("outer", lambda d: arguments(d.normal(500), d.normal(300)), "large", F32, smooth=False, large=True),
    ]  # fmt: skip
    return rows


def special(d: Draw, *shape: int) -> Tensor:
    """Small whole numbers, so that every sum is exact, with an infinity and a NaN among them."""
    value = torch.randint(-3, 4, shape, generator=d.generator).to(torch.float64)
    value.view(-1)[1] = float("inf")
    if len(shape) > 1:
        value.view(-1)[-1] = float("nan")
    return value.to(d.device, d.dtype)


def matmuls() -> list[Case]:
    """Every pair of ranks, and broadcast batches."""
    pairs = {
        "1x1": ((5,), (5,)), "2x1": ((3, 5), (5,)), "1x2": ((5,), (5, 4)), "2x2": ((3, 5), (5, 4)),
        "3x2": ((2, 3, 5), (5, 4)), "2x3": ((3, 5), (2, 5, 4)), "3x1": ((2, 3, 5), (5,)), "1x3": ((5,), (2, 5, 4)),
        "3x3": ((2, 3, 5), (2, 5, 4)), "4x3": ((2, 3, 4, 5), (3, 5, 2)), "broadcast": ((2, 1, 3, 5), (4, 5, 2)),
        "one-batch": ((1, 3, 5), (4, 5, 2)), "5x4": ((2, 1, 2, 3, 5), (3, 1, 5, 2)), "empty-batch": ((0, 3, 5), (5, 4)),
        "no-k": ((2, 3, 0), (0, 4)),
    }  # fmt: skip
    rows = [
        Case("matmul", lambda d, a=a, b=b: arguments(d.normal(*a), d.normal(*b)), label, NUMERIC)
        for label, (a, b) in pairs.items()
    ]
    rows.append(
        Case(
            "matmul", lambda d: arguments(d.normal(4, 60, 70), d.normal(70, 80)), "large", F32, smooth=False, large=True
        )
    )
    return rows


def sums() -> list[Case]:
    """addmm, addmv, addbmm, baddbmm, addr: what is added, in every shape that broadcasts, and the two factors."""
    rows: list[Case] = []
    added: dict[str, tuple[int, ...]] = {
        "plain": (6, 7), "scalar": (), "row": (7,), "one-row": (1, 7), "column": (6, 1), "one": (1, 1),
    }  # fmt: skip
    factors: dict[str, dict[str, float]] = {
        "beta": {"beta": 2}, "alpha": {"alpha": 3}, "both": {"beta": -2, "alpha": 3}, "no-beta": {"beta": 0},
    }  # fmt: skip
    a, b, x, y, u, v = (6, 5), (5, 7), (3, 6, 5), (3, 5, 7), (6,), (7,)
    for op, first, second in (("addmm", a, b), ("addbmm", x, y), ("baddbmm", x, y), ("addr", u, v)):
        dtypes = ALL if op == "addr" else NUMERIC
        for label, shape in added.items():
            make = lambda d, s=shape, f=first, g=second: arguments(d.normal(*s), d.normal(*f), d.normal(*g))  # noqa: E731
            rows.append(Case(op, make, label, dtypes))
        for label, by in factors.items():
            rows.append(
                Case(
                    op,
                    lambda d, f=first, g=second, by=by: arguments(d.normal(6, 7), d.normal(*f), d.normal(*g), **by),
                    label,
                    NUMERIC,
                )
            )
        rows.append(
            Case(
                op,
                lambda d, f=first, g=second: arguments(
                    d.normal(6, 7), d.normal(*f), d.normal(*g), beta=0.5, alpha=-1.5
                ),
                "fractions",
            )
        )
    for label, shape in {"plain": (6,), "scalar": (), "one": (1,)}.items():
        rows.append(
            Case("addmv", lambda d, s=shape: arguments(d.normal(*s), d.normal(6, 5), d.normal(5)), label, NUMERIC)
        )
    for label, by in factors.items():
        rows.append(
            Case("addmv", lambda d, by=by: arguments(d.normal(6), d.normal(6, 5), d.normal(5), **by), label, NUMERIC)
        )

    def not_a_number(d: Draw) -> Tensor:
        return d.normal(6, 7) * float("nan")

    rows += [
        # With beta = 0 the input is not read; with nothing to sum over the result is beta * input.
        Case("addmm", lambda d: arguments(not_a_number(d), d.normal(6, 5), d.normal(5, 7), beta=0), "ignores-input", gradient=False),
        Case("addmm", lambda d: arguments(d.normal(6, 7), d.normal(6, 0), d.normal(0, 7), beta=3), "no-k", NUMERIC),
        Case("addmv", lambda d: arguments(d.normal(6), d.normal(6, 0), d.normal(0), beta=3), "no-k", NUMERIC),
        Case("baddbmm", lambda d: arguments(d.normal(2, 6, 7), d.normal(2, 6, 0), d.normal(2, 0, 7), beta=3), "no-k", NUMERIC),
        Case("baddbmm", lambda d: arguments(d.normal(3, 1, 7), d.normal(3, 6, 5), d.normal(3, 5, 7)), "batch-row", NUMERIC),
        Case("addr", lambda d: arguments(d.normal(7, 6).t(), d.normal(6), d.normal(7)), "transposed"),
        Case("addmm", lambda d: arguments(d.normal(300), d.normal(200, 700), d.normal(700, 300), beta=0.5, alpha=2), "large", F32,
             smooth=False, large=True),
        Case("addmv", lambda d: arguments(d.normal(700), d.normal(700, 900), d.normal(900)), "large", F32, smooth=False, large=True),
        Case("addbmm", lambda d: arguments(d.normal(70, 60), d.normal(9, 70, 80), d.normal(9, 80, 60)), "large", F32, smooth=False,
             large=True),
        Case("baddbmm", lambda d: arguments(d.normal(60), d.normal(9, 70, 80), d.normal(9, 80, 60)), "large", F32, smooth=False,
             large=True),
        Case("addr", lambda d: arguments(d.normal(500, 300), d.normal(500), d.normal(300)), "large", F32, smooth=False, large=True),
    ]  # fmt: skip
    return rows


def linears() -> list[Case]:
    """nn.functional.linear: ranks of the input, shapes of the bias, a vector weight."""
    op = "nn.functional.linear"
    makes: dict[str, Any] = {
        "plain": lambda d: arguments(d.normal(6, 5), d.normal(7, 5), d.normal(7)),
        "no-bias": lambda d: arguments(d.normal(6, 5), d.normal(7, 5)),
        "keywords": lambda d: arguments(input=d.normal(6, 5), weight=d.normal(7, 5), bias=None),
        "vector": lambda d: arguments(d.normal(5), d.normal(7, 5), d.normal(7)),
        "3-d": lambda d: arguments(d.normal(2, 3, 5), d.normal(7, 5), d.normal(7)),
        "4-d": lambda d: arguments(d.normal(2, 3, 2, 5), d.normal(7, 5)),
        "vector-weight": lambda d: arguments(d.normal(2, 3, 5), d.normal(5)),
        "one-bias": lambda d: arguments(d.normal(6, 5), d.normal(7, 5), d.normal(1)),
        "full-bias": lambda d: arguments(d.normal(6, 5), d.normal(7, 5), d.normal(6, 7)),
        "one-feature": lambda d: arguments(d.normal(40, 65), d.normal(1, 65), d.normal(1)),
        "one-sample": lambda d: arguments(d.normal(1, 65), d.normal(40, 65), d.normal(40)),
        "few-samples": lambda d: arguments(d.normal(6, 65), d.normal(40, 65), d.normal(40)),
        "empty-batch": lambda d: arguments(d.normal(0, 5), d.normal(7, 5), d.normal(7)),
        "no-k": lambda d: arguments(d.normal(3, 0), d.normal(7, 0), d.normal(7)),
    }
    rows = [Case(op, make, label, NUMERIC) for label, make in makes.items()]
    rows.append(
        Case(op, lambda d: arguments(d.normal(128, 500), d.normal(300, 500), d.normal(300)), "large", F32, smooth=False,
             large=True)
    )  # fmt: skip
    return rows


def on_cuda(case: Case) -> Case:
    """Torch multiplies matrices of integers on the CPU alone; outer products are elementwise."""
    return case if case.op in ("outer", "addr") else replace(case, cuda_dtypes=FLOATING)


CASES: list[Case] = [on_cuda(case) for case in (*products(), *matmuls(), *sums(), *linears())]
