"""What is timed, family by family: ops at the sizes where they matter, layers of well-known networks, whole networks.

Each family is a function that returns its rows, the usual ones or, with `everything`, those of all ops of the family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import nets
from benchmarks.bench import Arguments, Make, Net, Op, tensors
from tests.cases.case import Case, Draw, arguments

F32 = (torch.float32,)
F32_BF16 = (torch.float32, torch.bfloat16)
ALL = (torch.float32, torch.float64, torch.bfloat16)
# What is timed of an op: a call with a fresh output, one with out=, one that records a graph, one with its backward.
FORWARD = ("fresh", "out")
BOTH = ("fresh", "fwd+bwd")
EVERY = ("fresh", "out", "fwd+bwd")
PER_CALL = ("fresh", "recorded", "fwd+bwd")


# Elementwise

LARGE, CACHED, TINY = 2**24, 2**16, 8
SIZES = {LARGE: "16M", CACHED: "64K", TINY: "8"}


@dataclass
class Sized(Draw):
    """Draws `count` elements wherever a case of the tests draws more than one: the same case at another size.

    They repeat after a while: drawing is not what is timed.
    """

    count: int = TINY

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """As in Draw, at the other size."""
        return self._sized(shape, lambda *sizes: super(Sized, self).normal(*sizes, dtype=dtype))

    def uniform(self, low: float, high: float, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """As in Draw, at the other size."""
        return self._sized(shape, lambda *sizes: super(Sized, self).uniform(low, high, *sizes, dtype=dtype))

    def _sized(self, shape: tuple[int, ...], draw: Callable[..., Tensor]) -> Tensor:
        if math.prod(shape) <= 1:
            return draw(*shape)
        block = draw(min(self.count, 2**18))
        return block.repeat(math.ceil(self.count / block.numel()))[: self.count]


def elementwise_cases() -> dict[str, Case]:
    """The first case of each op in the tests' table, and the op's other formulas, by name."""
    # The table tries each case in torch when it is imported: thousands of tiny calls, slower with more threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    from tests.cases.elementwise import CASES

    torch.set_num_threads(threads)
    found: dict[str, Case] = {}
    for case in CASES:
        variant = case.label.removesuffix("-plain")
        if variant in ("tanh", "floor", "trunc"):  # of gelu and of div
            found[f"{case.op} {variant}"] = case
        else:
            found.setdefault(case.op, case)
    return found


def elementwise(everything: bool) -> list[Op]:
    """Vectors beyond the caches, in the second-level cache, and of eight elements, where the call itself is timed."""
    cases = elementwise_cases()

    def row(name: str, count: int, dtypes: tuple[torch.dtype, ...], modes: tuple[str, ...], headline: bool) -> Op:
        case = cases[name]
        label = f"{SIZES[count]}{name.removeprefix(case.op)}"
        dtypes = tuple(dtype for dtype in dtypes if dtype in case.dtypes)

        def make(draw: Draw) -> Arguments:
            return case.make(Sized(draw.dtype, draw.device, draw.seed, count=count))

        modes = tuple(mode for mode in modes if case.gradient or mode in FORWARD)
        return Op(case.op, label, make, dtypes, modes, headline=headline)

    modes = {LARGE: EVERY, CACHED: EVERY, TINY: PER_CALL}
    functional = "nn.functional."
    gelu, silu = functional + "gelu", functional + "silu"
    usual: dict[int, dict[str, tuple[torch.dtype, ...]]] = {
        LARGE: {
            **dict.fromkeys(("abs", "tanh", "sigmoid", "erf", "log", "sin", silu), F32),
            **dict.fromkeys(("mul", "div", "lt", "where", "pow"), F32),
            **dict.fromkeys(("relu", "exp", gelu, "add"), ALL),
        },
        CACHED: {
            **dict.fromkeys(("abs", "exp", "sigmoid", "add", "fmod", "erfc"), F32),
            **dict.fromkeys((gelu, "log"), ALL),
        },
        TINY: dict.fromkeys(("relu", "exp", gelu, "add", "lt", "where"), F32),
    }
    if everything:
        usual = {count: dict.fromkeys(cases, ALL) for count in SIZES}
    shown = {LARGE: ("relu", "exp", gelu, "add", "log"), CACHED: ("exp", gelu), TINY: ("exp", "add")}
    rows = [
        row(name, count, dtypes, modes[count], name in shown[count])
        for count, names in usual.items()
        for name, dtypes in names.items()
    ]

    def add(n: int, m: int, label: str, other: Callable[[Draw], Tensor], dtypes: tuple[torch.dtype, ...] = F32) -> Op:
        return Op("add", f"{n}x{m} + {label}", lambda d: arguments(d.normal(n, m), other(d)), dtypes)

    return [
        *rows,
        add(4096, 4096, "row", lambda d: d.normal(4096)),
        add(4096, 4096, "column", lambda d: d.normal(4096, 1)),
        add(4096, 4096, "transposed", lambda d: d.normal(4096, 4096).t()),
        add(8192, 32, "row", lambda d: d.normal(32)),
        add(8192, 32, "column", lambda d: d.normal(8192, 1), F32_BF16),
        add(16384, 10, "row", lambda d: d.normal(10)),
        add(16384, 10, "column", lambda d: d.normal(16384, 1), F32_BF16),
    ]


# Matmul


def matmul(everything: bool) -> list[Op]:
    """Products of every shape: squares, tall, wide, skinny, transposed, vectors, batches; linear with what follows it."""

    def product(
        op: str, label: str, left: tuple[int, ...], right: tuple[int, ...], *, transposed: str = "", **more
    ) -> Op:
        """`transposed`: "a", "b" or both lie transposed in memory."""

        def make(draw: Draw) -> Arguments:
            drawn = []
            for name, shape in (("a", left), ("b", right)):
                swapped = (*shape[:-2], shape[-1], shape[-2]) if name in transposed else shape
                value = draw.normal(*swapped)
                drawn.append(value.transpose(-1, -2) if name in transposed else value)
            return arguments(*drawn)

        return Op(op, label, make, **{"dtypes": F32, "modes": ("fresh",), **more})

    def square(n: int) -> Op:
        some = everything or n in (64, 512)
        modes = EVERY if some else ("fresh",)
        return product("mm", f"{n}x{n}x{n}", (n, n), (n, n), dtypes=ALL, modes=modes, headline=n in (64, 512, 1024))

    def mm(label: str, m: int, n: int, k: int, **more) -> Op:
        return product("mm", f"{label} {m}x{n}x{k}", (m, k), (k, n), dtypes=ALL if everything else F32, **more)

    def linear(rows: int, inputs: int, outputs: int, then: str = "", **more) -> Op:
        def make(draw: Draw) -> Arguments:
            return arguments(draw.normal(rows, inputs), draw.normal(outputs, inputs), draw.normal(outputs))

        label = f"{rows}x{inputs} to {outputs}"
        if not then:
            return Op("nn.functional.linear", label, make, **{"modes": BOTH, **more})

        def function(library: Any) -> Callable:
            functional = library.nn.functional
            activation = getattr(functional, then)
            return lambda x, weight, bias: activation(functional.linear(x, weight, bias))

        return Op(f"linear + {then}", label, make, **{"modes": BOTH, "function": function, **more})

    def added(op: str, label: str, *shapes: tuple[int, ...]) -> Op:
        return Op(op, label, lambda d: arguments(*(d.normal(*shape) for shape in shapes)), ALL)

    more = [
        added("matmul", "16x128x512 by 512x128", (16, 128, 512), (512, 128)),
        added("dot", "1M", (2**20,), (2**20,)),
        added("outer", "4096x4096", (4096,), (4096,)),
        added("addr", "4096x4096", (4096, 4096), (4096,), (4096,)),
        added("addmv", "4096x4096", (4096,), (4096, 4096), (4096,)),
        added("addmm", "512x512x512", (512,), (512, 512), (512, 512)),
        added("addbmm", "64x128x128x64", (128, 128), (64, 128, 64), (64, 64, 128)),
        added("baddbmm", "64x128x128x64", (64, 128, 128), (64, 128, 64), (64, 64, 128)),
    ]
    return [
        *(more if everything else []),
        *(square(n) for n in (32, 64, 128, 256, 512, 1024, 2048)),
        mm("tall", 8192, 64, 64),
        mm("wide", 64, 8192, 64),
        mm("skinny", 64, 64, 8192),
        mm("few columns", 1024, 8, 1024),
        mm("few rows", 8, 1024, 1024),
        mm("a transposed", 1024, 1024, 1024, transposed="a"),
        mm("b transposed", 1024, 1024, 1024, transposed="b"),
        mm("both transposed", 512, 512, 512, transposed="ab"),
        product("mv", "4096x4096", (4096, 4096), (4096,)),
        product("mv", "4096x4096 transposed", (4096, 4096), (4096,), transposed="a"),
        product("bmm", "64x128x128x64", (64, 128, 64), (64, 64, 128), dtypes=F32_BF16, modes=BOTH, headline=True),
        product("bmm", "1000x8x8x8", (1000, 8, 8), (1000, 8, 8)),
        linear(50, 1568, 10, modes=EVERY, headline=True),
        linear(64, 1024, 64),
        linear(32, 8, 6),
        linear(1, 1024, 1024),
        linear(256, 1024, 4096, dtypes=F32_BF16, headline=True),
        *(linear(256, 1024, 1024, then) for then in ("relu", "gelu", "silu", "sigmoid")),
        linear(32, 8, 6, "sigmoid"),
        linear(64, 1024, 64, "relu", headline=True),
    ]


# Convolution and pooling


def channels_last(make: Make) -> Make:
    """The same case with 4-d tensors in channels_last."""

    def moved(draw: Draw) -> Arguments:
        args, kwargs = make(draw)
        last = torch.channels_last
        return tuple(a.contiguous(memory_format=last) if tensors(a) and a.dim() == 4 else a for a in args), kwargs

    return moved


def convolution(everything: bool) -> list[Op]:
    """Layers of the demo's network, LeNet, CIFAR-quick, ResNet-50 and MobileNet v2, forward and with their backward."""
    rows: list[Op] = []
    Shape = tuple[int, int, int, int]

    def layer(
        label: str,
        x: Shape,
        weight: Shape,
        *,
        first: bool = False,
        last: bool = False,
        bias: bool = True,
        dtypes: tuple[torch.dtype, ...] = F32,
        headline: bool = False,
        **kwargs: int,
    ) -> None:
        """The first layer of a network asks for no gradient of its input. `last`: in channels_last as well."""

        def make(draw: Draw) -> Arguments:
            return arguments(draw.normal(*x), draw.normal(*weight), draw.normal(weight[0]) if bias else None, **kwargs)

        conv2d, dtypes = "nn.functional.conv2d", ALL if everything else dtypes
        rows.append(Op(conv2d, label, make, dtypes, BOTH, frozen=int(first), headline=headline))
        if last:
            rows.append(Op(conv2d, f"{label} last", channels_last(make), dtypes, BOTH, frozen=int(first)))

    def normalized(
        label: str, inputs: int, outputs: int, kernel: int, size: int, stride: int = 1, groups: int = 1, **more: Any
    ) -> None:
        """A layer that a normalization follows, so it has no bias; a batch of four squares."""
        more |= {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": False, "last": True}
        layer(label, (4, inputs, size, size), (outputs, inputs // groups, kernel, kernel), **more)

    def resnet(label: str, *sizes: int, **more: Any) -> None:
        normalized(f"ResNet {label}", *sizes, **more)

    def mobilenet(label: str, *sizes: int, **more: Any) -> None:
        normalized(f"MobileNet {label}", *sizes, **more)

    def depthwise(label: str, channels: int, size: int, stride: int = 1, **more: Any) -> None:
        mobilenet(f"depthwise {label}", channels, channels, 3, size, stride, groups=channels, **more)

    layer("demo 1", (50, 1, 28, 28), (16, 1, 5, 5), padding=2, first=True, headline=True)
    layer("demo 2", (50, 16, 14, 14), (32, 16, 5, 5), padding=2, headline=True)
    layer("LeNet 1", (64, 1, 28, 28), (6, 1, 5, 5), padding=2, first=True)
    layer("LeNet 2", (64, 6, 14, 14), (16, 6, 5, 5))
    layer("CIFAR 1", (64, 3, 32, 32), (32, 3, 5, 5), padding=2, first=True)
    layer("CIFAR 2", (64, 32, 16, 16), (32, 32, 5, 5), padding=2, headline=True)
    layer("CIFAR 3", (64, 32, 8, 8), (64, 32, 5, 5), padding=2)
    resnet("7x7/2 3-64 at 224", 3, 64, 7, 224, 2, first=True)
    resnet("1x1 64-256 at 56", 64, 256, 1, 56)
    resnet("1x1 256-64 at 56", 256, 64, 1, 56)
    resnet("3x3 64 at 56", 64, 64, 3, 56, dtypes=F32_BF16, headline=True)
    resnet("1x1/2 256-512 at 56", 256, 512, 1, 56, 2)
    resnet("3x3/2 128 at 56", 128, 128, 3, 56, 2)
    resnet("3x3 128 at 28", 128, 128, 3, 28)
    resnet("1x1 1024-256 at 14", 1024, 256, 1, 14, headline=True)
    resnet("3x3 256 at 14", 256, 256, 3, 14)
    resnet("1x1 512-2048 at 7", 512, 2048, 1, 7)
    resnet("3x3 512 at 7", 512, 512, 3, 7)
    mobilenet("3x3/2 3-32 at 224", 3, 32, 3, 224, 2, first=True)
    depthwise("3x3 32 at 112", 32, 112)
    depthwise("3x3/2 96 at 112", 96, 112, 2)
    depthwise("3x3 192 at 28", 192, 28, headline=True)
    depthwise("3x3 576 at 14", 576, 14)
    mobilenet("1x1 16-96 at 112", 16, 96, 1, 112)
    mobilenet("1x1 192-32 at 28", 192, 32, 1, 28)
    mobilenet("1x1 960-320 at 7", 960, 320, 1, 7)
    return rows


def pooling(everything: bool) -> list[Op]:
    """The pooling layers of the same networks."""
    rows = []

    def pool(op: str, *shape: int, last: bool = False, headline: bool = False, **kwargs: int) -> None:
        stride = f"/{kwargs['stride']}" if "stride" in kwargs else ""
        label = f"{'x'.join(map(str, shape))} k{kwargs['kernel_size']}{stride}{' last' if last else ''}"

        def make(draw: Draw) -> Arguments:
            return arguments(draw.normal(*shape), **kwargs)

        dtypes = ALL if everything else F32_BF16 if headline else F32
        rows.append(
            Op(f"nn.functional.{op}", label, channels_last(make) if last else make, dtypes, BOTH, headline=headline)
        )

    for op in ("max_pool2d", "avg_pool2d"):
        pool(op, 50, 16, 28, 28, kernel_size=2, headline=True)
        pool(op, 50, 32, 14, 14, kernel_size=2)
        pool(op, 64, 32, 32, 32, kernel_size=2)
        for last in (False, True):
            pool(op, 8, 64, 112, 112, kernel_size=3, stride=2, padding=1, last=last, headline=not last)
    pool("avg_pool2d", 8, 2048, 7, 7, kernel_size=7)
    return rows


# Reductions and losses

LAYOUTS: dict[str, tuple[tuple[int, ...], int | None]] = {
    "16M": ((2**24,), None),
    "4096x4096 dim 0": ((4096, 4096), 0),
    "4096x4096 dim 1": ((4096, 4096), 1),
    "64x512x512 dim 1": ((64, 512, 512), 1),
}


def reduction(everything: bool) -> list[Op]:
    """Reductions over everything and over the first, the last and a middle dimension; scans and softmax along them."""

    def over(
        op: str, label: str, dtypes: tuple[torch.dtype, ...], modes: tuple[str, ...], headline: bool = False
    ) -> Op:
        shape, dim = LAYOUTS[label]
        # norm has p before dim; what goes along a dimension goes along the only one.
        kwargs = {} if dim is None and op not in ("logsumexp", *scans) else {"dim": dim or 0}
        if op == "norm":
            kwargs["p"] = 2
        return Op(op, label, lambda d: arguments(d.normal(*shape), **kwargs), dtypes, modes, headline=headline)

    scans = ("cumsum", "cumprod", "softmax", "log_softmax")
    ops = (
        "sum", "mean", "prod", "var", "std", "norm", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all",
        "count_nonzero", "logsumexp", "aminmax", "var_mean", "std_mean", *scans,
    )  # fmt: skip
    if everything:
        return [over(op, label, ALL, EVERY) for op in ops for label in LAYOUTS]
    # Every op over every layout, so that no op outweighs the others; the other dtypes and modes over one layout, sums, which
    # memory bounds in any library, over all.
    first, last = "4096x4096 dim 0", "4096x4096 dim 1"
    shown = {"sum": ("16M", first), "cumsum": (last,), "softmax": (last,), "log_softmax": (last,)}
    rows = [
        over(
            op,
            label,
            ALL if label == first or op == "sum" else F32,
            (EVERY if op == "cumsum" else BOTH) if label == last else ("fresh",),
            headline=label in shown.get(op, ()),
        )
        for op in ops
        for label in LAYOUTS
    ]

    def of_rows(op: str, count: int, columns: int, dtypes: tuple[torch.dtype, ...]) -> Op:
        return Op(op, f"{count}x{columns} dim 1", lambda d: arguments(d.normal(count, columns), dim=1), dtypes, BOTH)

    return [
        *rows,
        of_rows("softmax", 4096, 1024, F32_BF16),
        of_rows("softmax", 8192, 32, F32_BF16),
        of_rows("log_softmax", 50, 10, F32),
        of_rows("log_softmax", 256, 50000, F32),
        of_rows("sum", 8192, 32, F32_BF16),
        of_rows("amax", 8192, 32, F32),
        of_rows("logsumexp", 8192, 32, F32),
        of_rows("cumsum", 16384, 10, F32),
    ]


def loss(everything: bool) -> list[Op]:
    """Losses of the networks here, and of a language model's size."""
    dtypes = ALL if everything else F32

    def classified(op: str, rows: int, classes: int, **more: Any) -> Op:
        def make(draw: Draw) -> Arguments:
            scores = draw.normal(rows, classes)
            return arguments(scores.log_softmax(1) if op == "nll_loss" else scores, draw.integers(0, classes, rows))

        return Op(f"nn.functional.{op}", f"{rows}x{classes}", make, dtypes, BOTH, **more)

    def compared(op: str, count: int, size: str) -> Op:
        def make(draw: Draw) -> Arguments:
            return arguments(draw.uniform(0.01, 0.99, count), draw.uniform(0, 1, count))

        return Op(f"nn.functional.{op}", size, make, dtypes, BOTH)

    def gathered(scores: Tensor, labels: Tensor) -> float:
        """One score a label."""
        return labels.numel() * (scores.element_size() + labels.element_size())

    return [
        classified("cross_entropy", 50, 10, headline=True),
        classified("cross_entropy", 1024, 8192, headline=True),
        classified("cross_entropy", 16384, 10),
        classified("nll_loss", 1024, 8192, reads=gathered),
        compared("mse_loss", 2**20, "1M"),
        compared("mse_loss", 32, "32"),
        compared("binary_cross_entropy", 2**20, "1M"),
    ]


# Networks


def training(everything: bool) -> list[Net]:
    """One step each."""
    return [Net(network, network.batch, ("step",)) for network in nets.NETWORKS]


def inference(everything: bool) -> list[Net]:
    """A batch as in training, and a single sample."""
    return [Net(network, batch, ("inference",)) for network in nets.NETWORKS for batch in (network.batch, 1)]


FAMILIES: dict[str, Callable[[bool], list[Op] | list[Net]]] = {
    function.__name__: function
    for function in (elementwise, matmul, convolution, pooling, reduction, loss, training, inference)
}
