"""What is timed: ops at the sizes where they matter, and one small call of each op in the tests' tables."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from tests.cases.case import Case, Draw, arguments

M16 = 2**24
F32 = (torch.float32,)
F32_BF16 = (torch.float32, torch.bfloat16)
FAMILIES = ("elementwise", "matmul", "convolution", "pooling", "reduction", "loss")


def case(op: str, label: str, make: Callable, dtypes: tuple[torch.dtype, ...] = F32, gradient: bool = True) -> Case:
    """A row of the tables below; bytes and flops are counted when it runs."""
    return Case(op, make, label, dtypes=dtypes, gradient=gradient)


def unary(op: str, *shape: int, dtypes: tuple[torch.dtype, ...] = F32, **kwargs) -> Case:
    """One normal tensor in."""
    size = "16M" if shape == (M16,) else "x".join(map(str, shape))
    label = " ".join([size, *(f"{key}={value}" for key, value in kwargs.items())])
    return case(op, label, lambda draw: arguments(draw.normal(*shape), **kwargs), dtypes)


def binary(op: str, label: str, left: tuple[int, ...], right: tuple[int, ...], dtypes=F32, gradient=True) -> Case:
    """Two normal tensors in."""
    return case(op, label, lambda draw: arguments(draw.normal(*left), draw.normal(*right)), dtypes, gradient)


def conv(label: str, x: tuple[int, ...], weight: tuple[int, ...], dtypes=F32, **kwargs) -> Case:
    """conv2d with a bias."""

    def make(draw: Draw):
        return arguments(draw.normal(*x), draw.normal(*weight), draw.normal(weight[0]), **kwargs)

    return case("nn.functional.conv2d", label, make, dtypes)


def channels_last(row: Case) -> Case:
    """The same case with 4-d tensors in channels_last."""

    def make(draw: Draw):
        args, kwargs = row.make(draw)
        last = torch.channels_last
        return tuple(a.contiguous(memory_format=last) if a.dim() == 4 else a for a in args), kwargs

    return case(row.op, f"{row.label} channels_last", make, row.dtypes, row.gradient)


def classified(op: str, rows: int, classes: int) -> Case:
    """Scores and labels."""

    def make(draw: Draw):
        scores = draw.normal(rows, classes)
        if op == "nn.functional.nll_loss":
            scores = scores.log_softmax(1)
        return arguments(scores, draw.integers(0, classes, rows))

    return case(op, f"{rows}x{classes}", make)


SIZED: dict[str, list[Case]] = {
    "elementwise": [
        *(unary(op, M16) for op in ("abs", "relu", "exp", "tanh", "sigmoid", "erf", "log", "sin")),
        unary("nn.functional.gelu", M16, dtypes=F32_BF16),
        unary("nn.functional.silu", M16),
        *(unary(op, 2**16) for op in ("abs", "exp", "nn.functional.gelu")),
        binary("add", "16M", (M16,), (M16,), F32_BF16),
        binary("add", "4096x4096 + row", (4096, 4096), (4096,)),
        binary("add", "4096x4096 + column", (4096, 4096), (4096, 1)),
        binary("div", "16M", (M16,), (M16,)),
        binary("lt", "16M", (M16,), (M16,), gradient=False),
        case("add", "4096x4096 + transposed", lambda d: arguments(d.normal(4096, 4096), d.normal(4096, 4096).t())),
        case("where", "16M", lambda d: arguments(d.normal(M16, dtype=torch.bool), d.normal(M16), d.normal(M16))),
    ],
    "matmul": [
        *(binary("mm", f"{n}x{n}x{n}", (n, n), (n, n), F32_BF16) for n in (64, 512, 1024)),
        binary("mm", "2048x2048x2048", (2048, 2048), (2048, 2048)),
        case("mm", "1024 transposed", lambda d: arguments(d.normal(1024, 1024), d.normal(1024, 1024).t())),
        binary("mv", "4096x4096", (4096, 4096), (4096,)),
        binary("bmm", "64x128x64x128", (64, 128, 64), (64, 64, 128)),
        *(
            case(
                "nn.functional.linear",
                f"{rows}x{inputs} to {outputs}",
                lambda d, r=rows, i=inputs, o=outputs: arguments(d.normal(r, i), d.normal(o, i), d.normal(o)),
            )
            for rows, inputs, outputs in ((50, 1568, 10), (1, 1024, 1024), (256, 1024, 4096))
        ),
    ],
    "convolution": [
        conv("demo 1", (50, 1, 28, 28), (16, 1, 5, 5), padding=2),
        conv("demo 2", (50, 16, 14, 14), (32, 16, 5, 5), padding=2),
        conv("stem 7x7/2", (8, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3),
        conv("3x3 64", (8, 64, 56, 56), (64, 64, 3, 3), F32_BF16, padding=1),
        channels_last(conv("3x3 64", (8, 64, 56, 56), (64, 64, 3, 3), padding=1)),
        conv("1x1 256", (8, 256, 28, 28), (64, 256, 1, 1)),
        conv("depthwise 3x3 128", (8, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128),
    ],
    "pooling": [
        unary("nn.functional.max_pool2d", 50, 16, 28, 28, kernel_size=2),
        unary("nn.functional.max_pool2d", 8, 64, 112, 112, kernel_size=3, stride=2, padding=1),
        channels_last(unary("nn.functional.max_pool2d", 8, 64, 112, 112, kernel_size=3, stride=2, padding=1)),
        unary("nn.functional.avg_pool2d", 50, 16, 28, 28, kernel_size=2),
        unary("nn.functional.avg_pool2d", 8, 64, 112, 112, kernel_size=3, stride=2, padding=1),
    ],
    "reduction": [
        unary("sum", M16),
        unary("sum", 4096, 4096, dim=0),
        unary("sum", 4096, 4096, dim=1),
        unary("mean", 4096, 4096, dim=1),
        unary("var", 4096, 4096, dim=1),
        unary("amax", 4096, 4096, dim=1),
        unary("argmax", 4096, 4096, dim=1),
        unary("logsumexp", 4096, 4096, dim=1),
        unary("cumsum", 4096, 4096, dim=1),
        unary("nn.functional.softmax", 4096, 1024, dim=1),
        unary("nn.functional.log_softmax", 50, 10, dim=1),
        unary("nn.functional.log_softmax", 256, 50000, dim=1),
    ],
    "loss": [
        classified("nn.functional.cross_entropy", 50, 10),
        classified("nn.functional.cross_entropy", 1024, 8192),
        classified("nn.functional.nll_loss", 1024, 8192),
        binary("nn.functional.mse_loss", "1M", (2**20,), (2**20,)),
        case(
            "nn.functional.binary_cross_entropy",
            "1M",
            lambda d: arguments(d.uniform(0.01, 0.99, 2**20), d.uniform(0, 1, 2**20)),
        ),
    ],
}


def small(family: str) -> list[Case]:
    """The first row of each op in the tests' table: a few elements, so what is timed is the call itself."""
    rows: dict[str, Case] = {}
    for row in importlib.import_module(f"tests.cases.{family}").CASES:
        rows.setdefault(row.op, row)
    return list(rows.values())
