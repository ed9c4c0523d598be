"""The elementwise family: every op of csrc/ops/elementwise_table.h.

Rows of an op: `plain` (a full vector and a tail), `broadcast`, `number`, `promote`, `0-d`, `empty`, `wide` (magnitudes over
the op's whole range), `special` (infinities, NaN, signed zeros, subnormals, ties, and the op's own boundaries; for two
inputs all pairs) and `large` (split among threads). The dtypes of a row are those that torch runs it for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.cases.case import BOOL, FLOATING, INTEGRAL, Case, Draw, arguments

ALL_DTYPES = (*FLOATING, *INTEGRAL, *BOOL)
LARGE = 150_001  # more than three threads' worth, and not a multiple of any vector
INF, NAN = float("inf"), float("nan")

SPECIAL = (
    1.0, -1.0, NAN, INF, -INF, 0.0, -0.0, 2.0, -2.0, 3.0, -3.0, 6.0, -6.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.1, -0.1,
    20.0, -20.0, 88.0, -88.0, 104.0, -104.0, 709.0, -745.0, 1e-3, -1e-3, 1e-8, -1e-8, 1e-20, -1e-20, 6e-8, 1e-40, -1e-40,
    5e-324, 1e4, -1e4, 65504.0, 1e10, -1e10, 3e38, -3e38, 8388607.5, 16777217.0, 0.49999997, 2147483648.0, 1e300, -1e300,
)  # fmt: skip
PAIRED = (1.0, -1.0, NAN, INF, -INF, 0.0, -0.0, 2.0, -3.0, 0.5, -0.5, 2.5, 7.0, -7.0, 0.1, 1e-40, 1e30, -1e30, 5e-324)
INTEGERS = (
    0,
    1,
    -1,
    2,
    -2,
    3,
    -3,
    7,
    -7,
    10,
    63,
    100,
    -100,
    127,
    -128,
    32767,
    -32768,
    2**31 - 1,
    -(2**31),
    2**63 - 1,
    -(2**63),
)

# What is left where two terms cancel has the error of the larger one: in ulps of itself without bound, for torch as for us.
CANCELS = ("add", "sub", "lerp", "addcmul", "addcdiv", "nn.functional.tanhshrink")

Make = Callable[[Draw], tuple[tuple, dict[str, Any]]]


def values(d: Draw, numbers: tuple[float, ...]) -> Tensor:
    """The numbers in the drawn dtype; integers wrap around."""
    if d.dtype.is_floating_point:
        return torch.tensor(numbers, dtype=torch.float64).to(d.device, d.dtype)
    return torch.tensor(INTEGERS, dtype=torch.int64).to(d.device, d.dtype)


def within(d: Draw, low: float, high: float, *shape: int) -> Tensor:
    """Uniform in [low, high) for floats; small integers otherwise, clipped to the range where it is one of integers."""
    if d.dtype.is_floating_point:
        return d.uniform(low, high, *shape)
    return d.normal(*shape)


def magnitudes(d: Draw, low: float, high: float, *shape: int) -> Tensor:
    """Log-uniform between 1e-6 (or low) and high, of either sign where low is negative."""
    exponents = torch.rand(shape, generator=d.generator, dtype=torch.float64)
    smallest = torch.tensor(max(low, 1e-6), dtype=torch.float64).log()
    value = (smallest + exponents * (torch.tensor(high, dtype=torch.float64).log() - smallest)).exp()
    if low < 0:
        value = value * torch.where(torch.rand(shape, generator=d.generator) < 0.5, -1.0, 1.0)
    return value.to(d.device, d.dtype)


def runs_in_torch(op: str, make: Make, dtype: torch.dtype) -> bool:
    """Whether torch has the op for the arguments drawn in that dtype."""
    function: Any = torch
    for part in op.split("."):
        function = getattr(function, part)
    args, kwargs = make(Draw(dtype))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            function(*args, **kwargs)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


CASES: list[Case] = []


def add(op: str, label: str, make: Make, dtypes: tuple[torch.dtype, ...] = ALL_DTYPES, **more: Any) -> None:
    """One row, for the dtypes among `dtypes` that torch has."""
    more.setdefault("ulps", op not in CANCELS)
    found = tuple(dtype for dtype in dtypes if runs_in_torch(op, make, dtype))
    if found:
        CASES.append(Case(op, make, label, dtypes=found, **more))


def unary(
    op: str,
    low: float = -3.0,
    high: float = 3.0,
    *args: Any,
    exact: bool = False,
    gradient: bool = True,
    smooth: bool = True,
    reach: tuple[float, float] | None = None,
    label: str = "",
    dtypes: tuple[torch.dtype, ...] = ALL_DTYPES,
    torch_gradient: bool = True,
    special_gradient: bool = True,
    strides: bool = True,
    **kwargs: Any,
) -> None:
    """The rows of a function of one tensor, smooth in (low, high); `reach` is where its values are finite and not all
    the same. `special_gradient` is whether torch's gradient is right at infinities. args and kwargs are passed on to it."""
    prefix = f"{label}-" if label else ""
    reach = reach or (-30.0, 30.0)
    common = {
        "exact": exact,
        "gradient": gradient,
        "torch_gradient": torch_gradient,
        "smooth": smooth,
        "strides": strides,
    }

    def row(name: str, tensor: Callable[[Draw], Tensor], some: tuple = ALL_DTYPES, **more: Any) -> None:
        chosen = tuple(dtype for dtype in dtypes if dtype in some)
        add(op, prefix + name, lambda d: arguments(tensor(d), *args, **kwargs), chosen, **{**common, **more})

    row("plain", lambda d: within(d, low, high, 5, 7))
    row("special", lambda d: values(d, SPECIAL), smooth=False, torch_gradient=torch_gradient and special_gradient)
    row("wide", lambda d: magnitudes(d, reach[0], reach[1], 1031), FLOATING, smooth=False)
    if not label:
        row("0-d", lambda d: within(d, low, high))
        row("empty", lambda d: within(d, low, high, 0, 3), FLOATING, smooth=False)
        row("4-d", lambda d: within(d, low, high, 2, 3, 2, 2), FLOATING, smooth=False)
        row("large", lambda d: within(d, low, high, LARGE), FLOATING, large=True, smooth=False)


POSITIVE = (0.2, 4.0)
for name in ("abs", "neg", "square", "reciprocal", "sign", "ceil", "floor", "round", "trunc", "frac", "relu"):
    unary(name, 0.25, 2.25, exact=True)
for decimals in (2, 0, -1, 40, -40):  # 10 to the 40th is infinite in float32, and leaves float64 no step to be flat on
    label, flat = f"{decimals} decimals", abs(decimals) < 40
    unary("round", -9.3, 9.7, decimals=decimals, exact=True, label=label, dtypes=FLOATING, smooth=flat)
for name in ("sqrt", "rsqrt"):
    unary(name, *POSITIVE, reach=(0.0, 1e30))
for name in ("log", "log2", "log10"):
    unary(name, *POSITIVE, reach=(0.0, 1e30))
unary("log1p", -0.8, 4.0, reach=(0.0, 1e30))
for name in ("exp", "exp2", "expm1", "sinh", "cosh"):
    unary(name, reach=(-80.0, 80.0))
for name in ("sin", "cos"):
    unary(name, reach=(-1e4, 1e4))
unary("tan", -1.2, 1.2, reach=(-1e4, 1e4))
for name in ("asin", "acos"):
    unary(name, -0.9, 0.9, reach=(-1.0, 1.0))
unary("atan", reach=(-1e10, 1e10))
for name in ("tanh", "sigmoid", "erf"):
    unary(name, reach=(-100.0, 100.0))
unary("erfc", reach=(-9.0, 9.0))
for name in ("isnan", "isinf", "isfinite", "logical_not"):
    unary(name, exact=True, gradient=False)

F = "nn.functional."
unary(F + "relu6", 0.25, 5.75, exact=True)
unary(F + "leaky_relu", 0.1, 3.0, exact=True)
unary(F + "leaky_relu", -3.0, -0.1, 0.3, label="slope")
unary(F + "leaky_relu", 0.1, 3.0, -0.5, label="negative slope")
unary(F + "elu")
unary(F + "elu", alpha=0.5, label="alpha")
unary("selu")
unary(F + "gelu")
unary(F + "gelu", approximate="tanh", label="tanh")
unary(F + "silu", reach=(-100.0, 100.0))
unary(F + "mish", reach=(-100.0, 100.0))
unary(F + "softplus", reach=(-100.0, 100.0))
unary(F + "softplus", beta=2.0, threshold=1.0, low=-3.0, high=0.4, label="beta")
unary(F + "softplus", -3.0, 3.0, 0.25, 20, label="small beta")
unary(F + "softsign", 0.1, 3.0, special_gradient=False, dtypes=FLOATING)  # torch: inf / inf
add(F + "softsign", "integers", lambda d: arguments(d.normal(33)), INTEGRAL, gradient=False)
unary(F + "hardtanh", -0.9, 0.9, exact=True)
unary(F + "hardtanh", -1.9, 0.4, min_val=-2, max_val=0.5, exact=True, label="bounds")
unary(F + "hardswish", -2.9, 2.9)
unary(F + "hardsigmoid", -2.9, 2.9, dtypes=(torch.float32, torch.bfloat16, torch.float16))
unary(F + "hardsigmoid", -2.9, 2.9, dtypes=(torch.float64,), torch_gradient=False, label="double")  # torch: 1.0f / 6.0f
unary(F + "logsigmoid", reach=(-100.0, 100.0))
unary(F + "tanhshrink")
unary(F + "threshold", 0.2, 3.0, threshold=0.1, value=20.0, exact=True)
unary("threshold", 0.2, 3.0, 0, 5, exact=True, label="integers")
unary("clamp", -0.9, 0.9, -1, 1, exact=True)
unary("clamp", 0.1, 0.9, min=0, exact=True, label="min")
unary("clamp", -0.9, 0.4, max=0.5, exact=True, label="max")
unary("clamp", -0.9, 0.9, min=1, max=-1, exact=True, label="min above max")
unary("clamp", 0.3, 0.9, min=0.25, exact=True, label="float bound")
# A single bound of NaN gives NaN, but in torch 2.11 the input.
if torch.ones(1).clamp(NAN).isnan().all():
    unary("clamp", 0.3, 0.9, min=NAN, exact=True, smooth=False, label="NaN bound")


def pairs(d: Draw, zero_divisor: bool = True) -> tuple[Tensor, Tensor]:
    """All pairs of special values, (n, 1) and (n,); for integers, unless zero divisors are allowed, without them and
    without the most negative number, which kills torch's process when divided by -1."""
    left = right = values(d, PAIRED)
    if not zero_divisor and not d.dtype.is_floating_point:
        right = left[left != 0]
        if d.dtype != torch.bool:
            left = left[left != torch.iinfo(d.dtype).min] if torch.iinfo(d.dtype).min < 0 else left
    return left[:, None], right


def away_from(a: Tensor, b: Tensor) -> Tensor:
    """b moved off a where they are close, so that a comparison between them is not at a tie."""
    if not a.is_floating_point():
        return b
    return torch.where((a - b).abs() < 0.05, b + 0.25, b)


def binary(
    op: str,
    low: float = -3.0,
    high: float = 3.0,
    other: tuple[float, float] | None = None,
    exact: bool = False,
    gradient: bool = True,
    zero_divisor: bool = True,
    numbers: tuple[Any, ...] = (3, 2.5, 0.1, -2, True),
    label: str = "",
    special: bool = True,
    exact_special: bool | None = None,
    **kwargs: Any,
) -> None:
    """The rows of a function of two tensors; `other` is the range of the second. `exact_special` is for the special values,
    where torch's vector and scalar code differ, or where it is less accurate than we are."""
    prefix = f"{label}-" if label else ""
    lo, hi = other or (low, high)
    common = {
        "exact": exact,
        "gradient": gradient,
    }

    def divisor(d: Draw, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        value = within(replace(d, dtype=dtype or d.dtype, seed=d.seed + 1), lo, hi, *shape)
        return (
            value if zero_divisor or value.is_floating_point() else torch.where(value == 0, value.new_tensor(1), value)
        )

    def row(name: str, make: Callable[[Draw], tuple], dtypes: tuple = ALL_DTYPES, **more: Any) -> None:
        add(op, prefix + name, lambda d: arguments(*make(d), **kwargs), dtypes, **{**common, **more})

    def plain(d: Draw) -> tuple[Tensor, Tensor]:
        a = within(d, low, high, 5, 7)
        return a, away_from(a, divisor(d, 5, 7))

    row("plain", plain)
    row("broadcast", lambda d: (within(d, low, high, 4, 1, 5), divisor(d, 3, 1)), FLOATING, smooth=False)
    if special:
        row(
            "special",
            lambda d: pairs(d, zero_divisor),
            smooth=False,
            exact=exact if exact_special is None else exact_special,
        )
    for number in numbers:
        row(
            f"number {number}",
            lambda d, n=number: (
                torch.cat([within(d, low, high, 33), d.normal(1) * 0 + n if d.dtype != torch.bool else d.normal(1)]),
                n,
            ),
            smooth=False,
            rounds_scalar=op in ("add", "sub"),
        )
    if label:
        return
    row("0-d", lambda d: (within(d, low, high), divisor(d)), smooth=False)
    row("0-d right", lambda d: (within(d, low, high, 9), divisor(d)), FLOATING, smooth=False)
    row("0-d left", lambda d: (within(d, low, high), divisor(d, 9)), FLOATING, smooth=False)
    row("empty", lambda d: (within(d, low, high, 0, 3), divisor(d, 3)), FLOATING, smooth=False)
    row("empty by broadcast", lambda d: (within(d, low, high, 0, 3), divisor(d, 1, 1)), FLOATING, smooth=False)
    for mixed in (torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool):
        name = str(mixed).removeprefix("torch.")
        # Torch's derivative of pow subtracts 1 from the exponent, which a bool refuses: finite differences judge ours.
        torchs = not (op == "pow" and mixed == torch.bool)
        asked: dict[str, Any] = {"torch_gradient": torchs, "smooth": not torchs}
        row(f"promote {name}", lambda d, m=mixed: (within(d, low, high, 5, 7), divisor(d, 7, dtype=m)), **asked)
        row(
            f"promote 0-d {name}",
            lambda d, m=mixed: (within(d, low, high, 9), divisor(d, dtype=m)),
            rounds_scalar=op in ("add", "sub"),
            **asked,
        )
    row("large", lambda d: (within(d, low, high, LARGE), divisor(d, LARGE)), FLOATING, large=True, smooth=False)


binary("add", exact=True)
binary("add", alpha=2, label="alpha", numbers=(3,))
binary("add", alpha=0.3, label="float alpha", numbers=(3,))
binary("sub", exact=True, numbers=(3, 2.5, 0.1))
binary("sub", alpha=2, label="alpha", numbers=(3,))
binary("mul", exact=True)
binary("div", other=(0.5, 3.0), exact=True)
binary("div", other=(0.5, 3.0), exact=True, zero_divisor=False, rounding_mode="floor", label="floor", numbers=(3, -2.5))
binary(
    "div",
    other=(0.5, 3.0),
    exact=True,
    zero_divisor=False,
    rounding_mode="trunc",
    label="trunc",
    numbers=(3, -2.5),
    exact_special=False,
)
binary("div", other=(0.5, 3.0), exact=True, rounding_mode=None, label="mode None", numbers=())
binary("floor_divide", other=(0.5, 3.0), exact=True, gradient=False, zero_divisor=False, numbers=(3, 2.5, -2))
binary("fmod", 1.2, 1.4, (0.45, 0.55), exact=True, exact_special=False, zero_divisor=False, numbers=(3, 2.5, -2))
binary("remainder", 1.2, 1.4, (0.45, 0.55), exact=True, exact_special=False, zero_divisor=False, numbers=(3, 2.5, -2))
binary("pow", 0.2, 3.0, (-2.0, 2.0), special=False, numbers=(2, 3, 0.5, 0, 1, 2.5))
binary("atan2")
binary("maximum", exact=True, exact_special=False, numbers=())
binary("minimum", exact=True, exact_special=False, numbers=())
for name in ("eq", "ne", "lt", "le", "gt", "ge"):
    binary(name, exact=True, gradient=False)
for name in ("logical_and", "logical_or", "logical_xor"):
    binary(name, exact=True, gradient=False, numbers=())

POWERS = (NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 1.5, 10.0, 1e-40, 1e10)
add("pow", "special", lambda d: arguments(values(d, POWERS)[:, None], values(d, POWERS)), FLOATING, smooth=False)
add(
    "pow", "integers", lambda d: arguments(d.normal(6, 1), d.integers(0, 9, 7, dtype=d.dtype)), INTEGRAL, gradient=False
)
for exponent in (2, 3, 0.5, -1, -2, -0.5, 0, 1, 2.5):
    # torch's f16 has IEEE's pow(-inf, 0.5) = inf, its other dtypes have sqrt(-inf) = nan.
    dtypes = ALL_DTYPES if abs(exponent) != 0.5 else (torch.float32, torch.float64, torch.bfloat16)
    add("pow", f"special to {exponent}", lambda d, e=exponent: arguments(values(d, SPECIAL), e), dtypes, smooth=False)
for base in (2, 10.0, 1, 0, -1):
    add("pow", f"number {base} to tensor", lambda d, b=base: arguments(b, d.uniform(-2, 3, 33)), FLOATING, smooth=False)
    add(
        "remainder",
        f"number {base} by tensor",
        lambda d, b=base: arguments(b, d.uniform(0.5, 3, 33)),
        FLOATING,
        gradient=False,
    )
add("atan2", "quadrants", lambda d: arguments(values(d, PAIRED)[:, None], values(d, PAIRED)), FLOATING, smooth=False)


def bounded(d: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """A tensor, and bounds around zero that it is not close to."""
    x = d.normal(5, 7)
    low, high = within(d, -1.5, -0.5, 7), within(d, 0.5, 1.5, 5, 1)
    return away_from(low.expand(5, 7), away_from(high.expand(5, 7), x)), low, high


add("clamp", "tensors", lambda d: arguments(*bounded(d)), exact=True)
add("clamp", "tensor min", lambda d: arguments(bounded(d)[0], min=bounded(d)[1]), exact=True)
add("clamp", "tensor max", lambda d: arguments(bounded(d)[0], max=bounded(d)[2]), exact=True)
add("clamp", "crossing tensors", lambda d: arguments(d.normal(9), d.normal(9), d.normal(9)), exact=True, smooth=False)
add(
    "clamp", "ties", lambda d: arguments(values(d, PAIRED)[:, None], values(d, PAIRED), values(d, PAIRED)), smooth=False
)

add("prelu", "one weight", lambda d: arguments(d.normal(3, 4, 2), within(d, 0.1, 0.4, 1)), FLOATING)
add("prelu", "0-d weight", lambda d: arguments(d.normal(3, 4, 2), within(d, 0.1, 0.4)), FLOATING)
add("prelu", "per channel", lambda d: arguments(d.normal(3, 4, 2, 2), within(d, -0.4, 0.4, 4)), FLOATING)
add("prelu", "1-d input", lambda d: arguments(d.normal(9), within(d, -0.4, 0.4, 1)), FLOATING)
add("prelu", "0-d input", lambda d: arguments(d.normal(), within(d, -0.4, 0.4, 1)), FLOATING)
add(
    "prelu",
    "special",
    lambda d: arguments(values(d, SPECIAL), within(d, 0.1, 0.4, 1)),
    FLOATING,
    exact=True,
    smooth=False,
)
add("prelu", "large", lambda d: arguments(d.normal(3, 4, LARGE // 12), d.normal(4)), FLOATING, large=True, smooth=False)

condition = torch.bool
add("where", "plain", lambda d: arguments(d.normal(5, 7, dtype=condition), d.normal(5, 7), d.normal(5, 7)), exact=True)
add(
    "where",
    "broadcast",
    lambda d: arguments(d.normal(4, 1, dtype=condition), d.normal(3, 1, 5), d.normal(5)),
    exact=True,
)
add("where", "numbers", lambda d: arguments(d.normal(9, dtype=condition), d.normal(9), 2.5), exact=True)
add("where", "number first", lambda d: arguments(d.normal(9, dtype=condition), 2, d.normal(9)), exact=True)
add(
    "where",
    "two numbers",
    lambda d: arguments(d.normal(9, dtype=condition), 2, 0.5),
    (torch.float32,),
    exact=True,
    gradient=False,
)
add(
    "where",
    "special",
    lambda d: arguments(torch.tensor([True, False])[:, None], values(d, SPECIAL), values(d, SPECIAL[::-1])),
    exact=True,
    smooth=False,
)
add(
    "where",
    "promote",
    lambda d: arguments(d.normal(9, dtype=condition), d.normal(9), d.normal(9, dtype=torch.float32)),
    exact=True,
    smooth=False,
)
add("where", "0-d", lambda d: arguments(d.normal(dtype=condition), d.normal(), d.normal()), exact=True)
add("where", "empty", lambda d: arguments(d.normal(0, dtype=condition), d.normal(3, 0), d.normal(3, 1)), exact=True)
add(
    "where",
    "large",
    lambda d: arguments(d.normal(LARGE, dtype=condition), d.normal(LARGE), d.normal(LARGE)),
    FLOATING,
    exact=True,
    large=True,
)

add("lerp", "plain", lambda d: arguments(d.normal(5, 7), d.normal(5, 7), d.uniform(0, 1, 5, 7)), FLOATING)
add("lerp", "broadcast", lambda d: arguments(d.normal(4, 1, 5), d.normal(3, 1), d.uniform(-1, 2, 5)), FLOATING)
for weight in (0, 0.3, 0.5, 0.7, 1, 1.5, -2):
    add("lerp", f"number {weight}", lambda d, w=weight: arguments(d.normal(33), d.normal(33), w), FLOATING)
add(
    "lerp",
    "special",
    lambda d: arguments(values(d, PAIRED)[:, None], values(d, PAIRED), d.uniform(0, 1, 1)),
    FLOATING,
    smooth=False,
)
add("lerp", "large", lambda d: arguments(d.normal(LARGE), d.normal(LARGE), 0.3), FLOATING, large=True, smooth=False)

for name in ("addcmul", "addcdiv"):
    third = (0.5, 2.0)
    add(name, "plain", lambda d: arguments(d.normal(5, 7), d.normal(5, 7), within(d, 0.5, 2, 5, 7)))
    add(name, "value", lambda d: arguments(d.normal(5, 7), d.normal(5, 7), within(d, 0.5, 2, 5, 7), value=2))
    add(name, "float value", lambda d: arguments(d.normal(9), d.normal(9), within(d, 0.5, 2, 9), value=-0.3))
    add(name, "broadcast", lambda d: arguments(d.normal(4, 1, 5), d.normal(3, 1), within(d, 0.5, 2, 5)))
    add(
        name,
        "promote",
        lambda d: arguments(d.normal(9), d.normal(9, dtype=torch.float32), within(d, 0.5, 2, 9)),
        smooth=False,
    )
    add(
        name,
        "special",
        lambda d: arguments(d.normal(1), values(d, PAIRED)[:, None], values(d, PAIRED)),
        FLOATING,
        smooth=False,
    )
    add(
        name,
        "large",
        lambda d: arguments(d.normal(LARGE), d.normal(LARGE), within(d, 0.5, 2, LARGE)),
        FLOATING,
        large=True,
        smooth=False,
    )
