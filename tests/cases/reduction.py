"""Reductions, scans and softmax."""

from __future__ import annotations

from typing import Any

import torch

from tests.cases.case import BOOL, FLOATING, INTEGRAL, Case, Draw, arguments

NUMERIC = (*FLOATING, *INTEGRAL)
ALL = (*NUMERIC, *BOOL)
INF, NAN = float("inf"), float("nan")


def transposed(draw: Draw, *shape: int) -> torch.Tensor:
    """A tensor of that shape whose memory lies in the order of the reversed shape."""
    return draw.normal(*reversed(shape)).permute(*reversed(range(len(shape))))


# label -> (shape and strides of the input, dim); every one is crossed with keepdim where the op has it.
LAYOUTS: dict[str, tuple[Any, Any]] = {
    "all": (lambda d: d.normal(3, 5, 7), None),
    "inner": (lambda d: d.normal(6, 131), 1),
    "outer": (lambda d: d.normal(131, 70), 0),
    "middle": (lambda d: d.normal(3, 9, 5), 1),
    "negative": (lambda d: d.normal(4, 5), -1),
    "several": (lambda d: d.normal(2, 3, 4, 5), (0, 2)),
    "channels_last": (lambda d: d.normal(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), (0, 2, 3)),
    "transposed": (lambda d: transposed(d, 17, 33), 0),
    "sliced": (lambda d: d.normal(9, 40)[:, ::2], 1),
    "expanded": (lambda d: d.normal(5, 1).expand(5, 6), 1),
    "few columns": (lambda d: d.normal(300, 3), 0),
    "short runs": (lambda d: d.normal(200, 5), 1),
    "one element": (lambda d: d.normal(1, 4), 0),
    "0-d": (lambda d: d.normal(), 0),
}
LONG: dict[str, tuple[Any, Any]] = {
    "long run": (lambda d: d.normal(40000), None),
    "long column": (lambda d: d.normal(3000, 20), 0),
}
EMPTY: dict[str, tuple[Any, Any]] = {
    "empty result": (lambda d: d.normal(0, 3), 1),
    "nothing to reduce": (lambda d: d.normal(0, 3), 0),
}


def over_layouts(
    op: str,
    layouts: dict[str, tuple[Any, Any]],
    *extra: Any,
    single: bool = False,
    keepdim: bool = True,
    suffix: str = "",
    **fields: Any,
) -> list[Case]:
    """`op` over every layout. `extra`: arguments between the input and dim; single: the op takes one int for dim."""

    def case(label: str, make: Any, dim: Any, keep: bool) -> Case:
        kwargs: dict[str, Any] = {} if dim is None else {"dim": dim}
        if keep:
            kwargs["keepdim"] = True
        name = (f"{label}, keepdim" if keep else label) + suffix
        return Case(op, lambda draw: arguments(make(draw), *extra, **kwargs), name, **fields)

    cases = []
    for label, (make, dim) in layouts.items():
        if single and isinstance(dim, tuple):
            continue
        cases.append(case(label, make, dim, keep=False))
        if keepdim and dim is not None and label in ("inner", "several", "transposed"):
            cases.append(case(label, make, dim, keep=True))
    return cases


def with_dim(layouts: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """The layouts that name a dimension."""
    return {label: row for label, row in layouts.items() if row[1] is not None}


def values(draw: Draw, *numbers: float) -> torch.Tensor:
    """These very numbers."""
    return torch.tensor(numbers, dtype=draw.dtype, device=draw.device)


def distinct_layouts() -> dict[str, tuple[Any, Any]]:
    """Layouts whose elements are all different, so that extrema are smooth."""
    return {
        "all": (lambda d: d.distinct(3, 5, 7), None),
        "inner": (lambda d: d.distinct(6, 31), 1),
        "outer": (lambda d: d.distinct(31, 6), 0),
        "middle": (lambda d: d.distinct(3, 9, 5), 1),
        "several": (lambda d: d.distinct(2, 3, 4, 5), (0, 2)),
        "transposed": (lambda d: d.distinct(9, 7).t(), 0),
        "few columns": (lambda d: d.distinct(40, 3), 0),
        "0-d": (lambda d: d.distinct(), 0),
    }


NANS = {
    "NaN": lambda d: values(d, 1.0, NAN, 3.0, NAN, -INF),
    "inf": lambda d: values(d, -INF, 2.0, INF, INF),
    "ties": lambda d: values(d, 2.0, 5.0, 5.0, 1.0, 1.0, 5.0),
    "many ties": lambda d: values(d, *([3.0] * 100)),
}


def torch_differentiates_aminmax() -> bool:
    """Torch 2.11 has no derivative for it."""
    try:
        torch.aminmax(torch.ones(2, requires_grad=True)).min.backward()
    except RuntimeError:
        return False
    return True


AMINMAX_GRADIENT = torch_differentiates_aminmax()

CASES: list[Case] = [
    *over_layouts("sum", {**LAYOUTS, **LONG, **EMPTY}),
    *over_layouts("sum", LAYOUTS, suffix=", integers", dtypes=(*INTEGRAL, *BOOL), gradient=False, exact=True),
    Case(
        "sum", lambda d: arguments(d.normal(4, 5), 0, dtype=torch.float64), "dtype", dtypes=(torch.float32, torch.int32)
    ),
    Case("sum", lambda d: arguments(d.normal(4, 5), (0, 1), True), "positional"),
    *over_layouts("mean", {**LAYOUTS, **LONG, **EMPTY}),
    Case(
        "mean",
        lambda d: arguments(d.normal(4, 5), 1, dtype=torch.float32),
        "dtype",
        dtypes=(torch.int64, torch.bool),
        gradient=False,
    ),
    *over_layouts("prod", LAYOUTS, single=True),
    Case("prod", lambda d: arguments(values(d, 2.0, 0.0, 3.0)), "one zero"),
    Case("prod", lambda d: arguments(values(d, 2.0, 0.0, 3.0, 0.0)), "two zeros"),
    Case(
        "prod",
        lambda d: arguments(d.integers(-3, 4, 5, 6, dtype=d.dtype), 1),
        "integers",
        dtypes=INTEGRAL,
        gradient=False,
        exact=True,
    ),
    Case("prod", lambda d: arguments(d.normal(0, 3), 0), "nothing to reduce", exact=True),
]
for _op in ("var", "std"):
    CASES += over_layouts(
        _op, {**{k: v for k, v in LAYOUTS.items() if k not in ("one element", "0-d", "expanded")}, **LONG}
    )
    CASES += [
        Case(_op, lambda d: arguments(d.normal(6, 7), dim=1, correction=0), "correction=0"),
        Case(_op, lambda d: arguments(d.normal(6, 7), dim=1, correction=2.5), "correction=2.5"),
        Case(_op, lambda d: arguments(d.normal(6, 7), 0, False, True), "unbiased=False, keepdim"),
        Case(_op, lambda d: arguments(d.normal(6, 7), False), "unbiased=False over all"),
        Case(
            _op,
            lambda d: arguments(d.normal(6, 70) + 1000, dim=1),
            "far from zero",
            dtypes=(torch.float32, torch.float64),
        ),
        Case(_op, lambda d: arguments(d.normal(1)), "one sample", gradient=False, exact=True),
        Case(_op, lambda d: arguments(values(d, 1.0, INF, 2.0)), "inf", gradient=False, exact=True),
        Case(_op, lambda d: arguments(d.normal(0, 3), 0), "nothing to reduce", gradient=False, exact=True),
        Case(f"{_op}_mean", lambda d: arguments(d.normal(6, 70), dim=1), "inner"),
        Case(f"{_op}_mean", lambda d: arguments(d.normal(70, 6), dim=0, correction=0, keepdim=True), "outer"),
        Case(f"{_op}_mean", lambda d: arguments(d.normal(6, 7), False), "unbiased=False"),
        Case(f"{_op}_mean", lambda d: arguments(d.normal(2, 3, 4, 5), (0, 2, 3)), "several"),
    ]
for _op in ("amax", "amin"):
    CASES += over_layouts(_op, distinct_layouts(), exact=True)
    CASES += over_layouts(
        _op, {**LAYOUTS, **LONG}, suffix=", integers", dtypes=(*INTEGRAL, *BOOL), gradient=False, exact=True
    )
    CASES += [
        Case(_op, lambda d, make=make: arguments(make(d)), label, gradient=False, exact=True)
        for label, make in NANS.items()
    ]
    CASES.append(Case(_op, lambda d: arguments(values(d, 3.0, 1.0, 3.0, 1.0)), "gradient at ties", gradient=False))
for _op in ("max", "min", "argmax", "argmin"):
    _index = _op.startswith("arg")
    _dtypes = INTEGRAL if _index else (*INTEGRAL, *BOOL)
    CASES += over_layouts(_op, distinct_layouts(), single=True, exact=True, gradient=not _index)
    CASES += over_layouts(
        _op, {**LAYOUTS, **LONG}, single=True, suffix=", integers", dtypes=_dtypes, gradient=False, exact=True
    )
    CASES += [
        Case(_op, lambda d, make=make: arguments(make(d), 0), label, gradient=False, exact=True)
        for label, make in NANS.items()
    ]
CASES += [
    Case("max", lambda d: arguments(d.distinct(4, 5), d.distinct(5)), "of two", exact=True),
    Case("min", lambda d: arguments(d.distinct(4, 5), d.distinct(4, 1)), "of two", exact=True),
    Case("argmax", lambda d: arguments(transposed(d, 7, 9)), "over all, transposed", gradient=False, exact=True),
    Case(
        "argmax",
        lambda d: arguments(d.integers(0, 3, 70, 90, dtype=d.dtype).t()),
        "ties over all, transposed",
        gradient=False,
        exact=True,
    ),
    Case("aminmax", lambda d: arguments(d.distinct(5, 6)), "all", exact=True, torch_gradient=AMINMAX_GRADIENT),
    Case(
        "aminmax",
        lambda d: arguments(d.distinct(5, 6), dim=0, keepdim=True),
        "outer",
        exact=True,
        torch_gradient=AMINMAX_GRADIENT,
    ),
    Case(
        "aminmax",
        lambda d: arguments(d.normal(5, 60), dim=1),
        "integers",
        dtypes=(*INTEGRAL, *BOOL),
        gradient=False,
        exact=True,
    ),
    *[
        Case("aminmax", lambda d, make=make: arguments(make(d)), label, gradient=False, exact=True)
        for label, make in NANS.items()
    ],
]
for _op in ("any", "all"):
    CASES += over_layouts(_op, {**LAYOUTS, **EMPTY}, dtypes=ALL, gradient=False, exact=True)
    CASES += [
        Case(_op, lambda d: arguments(values(d, 0.0, 0.0, NAN)), "NaN is true", gradient=False, exact=True),
        Case(_op, lambda d: arguments(d.normal(3, 4), ()), "no dims", dtypes=ALL, gradient=False, exact=True),
    ]
CASES += over_layouts("count_nonzero", LAYOUTS, keepdim=False, dtypes=ALL, gradient=False, exact=True)
# Added to distinct numbers, it makes their magnitudes distinct too, so that norms of infinite p are smooth.
OFF_ZERO = 0.03125
for _p in (2, 1, 0, INF, -INF, 3, 1.5, 0.5, -1):
    CASES += [
        Case("norm", lambda d, p=_p: arguments(d.distinct(6, 31) + OFF_ZERO, p, 1), f"p={_p}, inner"),
        Case(
            "norm",
            lambda d, p=_p: arguments(d.distinct(31, 6) + OFF_ZERO, p, 0, True),
            f"p={_p}, outer",
        ),
        Case("norm", lambda d, p=_p: arguments(d.distinct(3, 4, 5) + OFF_ZERO, p), f"p={_p}, all"),
    ]
CASES += [
    # By name, torch's norm takes at most two dimensions.
    *over_layouts("norm", {k: v for k, v in {**LAYOUTS, **LONG}.items() if k not in ("expanded", "channels_last")}),
    *over_layouts("norm", {"channels_last": LAYOUTS["channels_last"]}, 2),
    Case("norm", lambda d: arguments(d.normal(4, 5), "fro", (0, 1)), "fro"),
    Case("norm", lambda d: arguments(d.normal(4, 5), 2, 0, dtype=torch.float64), "dtype", dtypes=(torch.float32,)),
    Case("norm", lambda d: arguments(values(d, 0.0, 0.0)), "of zeros", exact=True, gradient=False),
    Case("norm", lambda d: arguments(values(d, 1.0, NAN, INF)), "NaN", exact=True, gradient=False),
    *over_layouts("logsumexp", with_dim({**LAYOUTS, **LONG, **EMPTY})),
    Case("logsumexp", lambda d: arguments(values(d, -INF, -INF), 0), "-inf", exact=True, gradient=False),
    Case("logsumexp", lambda d: arguments(values(d, -INF, 3.0, INF), 0), "inf", exact=True, gradient=False),
    Case("logsumexp", lambda d: arguments(values(d, NAN, 3.0, INF), 0), "NaN", exact=True, gradient=False),
    Case("logsumexp", lambda d: arguments(d.normal(4, 5) * 100, 1), "wide range"),
]
LINES = {**with_dim(LAYOUTS), "long": (lambda d: d.normal(70000), 0), "empty": (lambda d: d.normal(0, 3), 0)}
for _op in ("cumsum", "cumprod"):
    _lines = {k: v for k, v in LINES.items() if _op == "cumsum" or k not in ("long", "long column")}
    CASES += [
        Case(_op, lambda d, make=make, dim=dim: arguments(make(d), dim), label)
        for label, (make, dim) in _lines.items()
        if not isinstance(dim, tuple)
    ]
    CASES += [
        Case(
            _op,
            lambda d: arguments(d.integers(-2, 3, 4, 9, dtype=d.dtype), 1),
            "integers",
            dtypes=(torch.int32, torch.int64),
            gradient=False,
            exact=True,
        ),
        Case(_op, lambda d: arguments(d.normal(4, 9), 1), "bool", dtypes=BOOL, gradient=False, exact=True),
        Case(
            _op,
            lambda d: arguments(d.normal(4, 5), 0, dtype=torch.float64),
            "dtype",
            dtypes=(torch.float32, torch.int32),
        ),
    ]
CASES += [
    Case("cumprod", lambda d: arguments(values(d, 2.0, 0.0, 3.0, 0.0, 4.0), 0), "zeros"),
    Case("cumsum", lambda d: arguments(values(d, 2.0, NAN, 3.0), 0), "NaN", exact=True, gradient=False),
]
for _op in ("softmax", "log_softmax"):
    CASES += [
        Case(_op, lambda d, make=make, dim=dim: arguments(make(d), dim), label)
        for label, (make, dim) in LINES.items()
        if not isinstance(dim, tuple)
    ]
    CASES += [
        Case(_op, lambda d: arguments(d.normal(4, 9) * 50, 1), "wide range"),
        Case(
            _op,
            lambda d: arguments(d.normal(50, 10), 1, dtype=torch.float32),
            "short lines, dtype",
            dtypes=(torch.float16, torch.int32),
            smooth=False,
        ),
        Case(
            _op,
            lambda d: arguments(d.normal(4, 5), 0, dtype=torch.float32),
            "dtype",
            dtypes=(torch.float16, torch.int32),
        ),
        Case(_op, lambda d: arguments(values(d, -INF, -INF), 0), "-inf", exact=True, gradient=False),
        Case(_op, lambda d: arguments(values(d, 1.0, NAN, 2.0), 0), "NaN", exact=True, gradient=False),
    ]
# Big enough to be split among threads, along every way through the kernels: everything to one element, runs, columns, few
# columns, a line longer than a block, lines side by side.
REDUCED = {"all": ((700000,), 0), "runs": ((5, 150000), 1), "columns": ((900, 700), 0), "few columns": ((200000, 3), 0)}
SCANNED = {"one line": ((700000,), 0), "lines": ((700, 900), 1), "side by side": ((700, 900), 0)}


def large(op: str, shapes: dict[str, tuple[tuple[int, ...], int]], *between: Any, **fields: Any) -> list[Case]:
    """`op` over each shape and dim; `between`: arguments between the input and dim."""
    return [
        Case(
            op, lambda d, s=shape, i=dim: arguments(d.normal(*s), *between, i), f"large, {label}", large=True, **fields
        )
        for label, (shape, dim) in shapes.items()
    ]


for _op in ("sum", "mean", "prod", "var", "std", "norm", "amax", "any", "logsumexp", "argmax", "max"):
    _between = (2,) if _op == "norm" else ()
    CASES += large(_op, REDUCED, *_between, gradient=_op not in ("any", "argmax"))
for _op in ("cumsum", "cumprod", "softmax", "log_softmax"):
    CASES += large(_op, SCANNED | {"short lines": ((70001, 10), 1)})
    # Turned in tiles: lines beyond the last whole tile, elements beyond the last whole square, lines that are not equally far
    # apart.
    CASES += [
        Case(_op, lambda d: arguments(d.normal(35, 5), 1), "short lines"),
        Case(_op, lambda d: arguments(d.normal(4, 18, 10)[:, 1::2], 2), "short lines in pieces", smooth=False),
    ]
