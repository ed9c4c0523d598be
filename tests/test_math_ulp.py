"""Our own polynomials, of csrc/cpu/kernels/vec_math_*.h and csrc/ops/elementwise_formulas.h: the errors
stated there, against float64 over a sweep of all floats of each dtype that they are computed for, or against 80 bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorops
import torch
from torch import Tensor

from tests.harness import ulp

# With FMA, without. What stands neither here nor in MAX_ULP_IN_F64 is computed by Sleef or libm.
MAX_ULP = {
    "exp": (1.0, 1.0),
    "exp2": (1.0, 1.2),
    "expm1": (1.6, 1.6),
    "log": (0.85, 1.0),
    "log2": (1.6, 1.0),
    "log10": (0.95, 1.6),
    "log1p": (0.9, 1.1),
    "sin": (1.6, 1.0),
    "cos": (1.6, 1.0),
    "asin": (1.9, 1.9),
    "acos": (1.3, 1.3),
    "atan": (1.6, 1.7),
    "sinh": (1.6, 1.6),
    "cosh": (1.6, 1.6),
    "tanh": (1.3, 1.3),
    "erf": (2.1, 2.4),
    "erfc": (1.7, 2.8),
}
MAX_ULP_IN_F64 = {"exp": 1.1, "expm1": 1.8, "sinh": 1.7, "cosh": 1.6, "tanh": 1.4, "erf": 2.0, "erfc": 2.3}
# With FMA, without; log2 and log10 without it are libm's.
MAX_ULP_OF_LOGARITHMS_IN_F64 = {"log": (0.95, 1.2), "log2": (1.7, 1.0), "log10": (1.4, 1.6), "log1p": (0.95, 1.3)}
MAX_ULP_OF_SIGMOID = 2.8
MAX_ULP_OF_POW = 0.55
# Of positive numbers; of negative ones, where gelu is close to zero, the absolute error: torch's is 1.0e-6.
MAX_ULP_OF_GELU = 1.6
MAX_ERROR_OF_GELU = 1.1e-7
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def allowed(bounds: tuple[float, float], dtype: torch.dtype = torch.float32) -> float:
    """The 16-bit dtypes are computed in float32, so that all but ties are rounded as the exact value."""
    ulps = bounds[tensorops._C.cpu_capability() == "baseline"]
    return ulps if dtype == torch.float32 else 0.5 + ulps * 2.0**-13


def sweep(dtype: torch.dtype) -> Tensor:
    """Every 1021st float32, every number of a 16-bit dtype, of either sign, and what is not finite."""
    width = torch.finfo(dtype).bits
    positive = torch.arange(0, 2 ** (width - 1), 1021 if width == 32 else 1).to(BITS[dtype]).view(dtype)
    special = torch.tensor([0.0, torch.inf, torch.nan], dtype=dtype)
    return torch.cat([positive, -positive, special, -special])


def ulp_error(value: Tensor, exact: Tensor) -> Tensor:
    """Distance in units of the exact value's last place; 0 where both round to the same number."""
    rounded = exact.to(value.dtype)
    error = (value.double() - exact).abs() / ulp(exact, value.dtype)
    return torch.where((value == rounded) | (value.isnan() & rounded.isnan()), 0.0, error)


@pytest.mark.parametrize("dtype", BITS, ids=str)
@pytest.mark.parametrize("name", MAX_ULP)
def test_ulp(name: str, dtype: torch.dtype) -> None:
    x = sweep(dtype)
    exact = getattr(torch, name)(x.double())
    assert ulp_error(getattr(tensorops, name)(x), exact).max().item() <= allowed(MAX_ULP[name], dtype)


@pytest.mark.parametrize("dtype", BITS, ids=str)
@pytest.mark.parametrize("name", MAX_ULP)
def test_special_values(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, -1.0], dtype=dtype)
    ours, theirs = getattr(tensorops, name)(x), getattr(torch, name)(x.double()).to(dtype)
    whole = torch.tensor([value == round(value) for value in theirs.nan_to_num(0.0).tolist()])
    assert torch.equal(ours[whole].nan_to_num(7), theirs[whole].nan_to_num(7))
    assert torch.equal(ours.signbit()[~theirs.isnan()], theirs.signbit()[~theirs.isnan()])


@pytest.mark.parametrize("name", MAX_ULP_IN_F64)
def test_ulp_in_float64(name: str) -> None:
    """Against 80-bit arithmetic; of erf and erfc Python has none, and the error of libm's, below 1 ulp, is allowed for."""
    generator = torch.Generator().manual_seed(1)
    near, far = (torch.rand(200_000, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2))
    tiny = near * torch.exp2(-60 * torch.rand(near.shape, generator=generator, dtype=torch.float64))
    reach = {"tanh": 20.0, "erf": 6.0, "erfc": 27.5}.get(name, 700.0)
    x = torch.cat([near * 1.5, far * reach, far * 40, tiny])
    wide = x.numpy().astype(np.longdouble)
    by_libm = {"erf": math.erf, "erfc": math.erfc}.get(name)
    exact = np.array([by_libm(v) for v in x.tolist()], np.longdouble) if by_libm else getattr(np, name)(wide)
    error = np.abs(getattr(tensorops, name)(x).numpy().astype(np.longdouble) - exact).astype(np.float64)
    unit = ulp(torch.from_numpy(exact.astype(np.float64)), torch.float64).numpy()
    assert (error / unit).max() <= MAX_ULP_IN_F64[name] + (by_libm is not None)


@pytest.mark.parametrize("name", MAX_ULP_OF_LOGARITHMS_IN_F64)
def test_ulp_of_logarithms_in_float64(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    near, far = (torch.rand(200_000, generator=generator, dtype=torch.float64) for _ in range(2))
    tiny = torch.exp2(-1074 * torch.rand(near.shape, generator=generator, dtype=torch.float64))
    x = torch.cat([near, 1 + near, 1 - near * 1e-3, torch.exp2(1023.9 * far), tiny])
    if name == "log1p":
        x = torch.cat([x, -near, -tiny[tiny < 1]])
    exact = getattr(np, name)(x.numpy().astype(np.longdouble))
    error = np.abs(getattr(tensorops, name)(x).numpy().astype(np.longdouble) - exact).astype(np.float64)
    unit = ulp(torch.from_numpy(exact.astype(np.float64)), torch.float64).numpy()
    bounds = MAX_ULP_OF_LOGARITHMS_IN_F64[name]
    assert (error / unit).max() <= bounds[tensorops._C.cpu_capability() == "baseline"]


@pytest.mark.parametrize("name", ["expm1", "sinh", "cosh"])
def test_special_values_of_hyperbolic_functions_in_float64(name: str) -> None:
    """Finite as far as the exact value is, where exp is not, and torch's own are infinite."""
    some = [0.0, 5e-324, 1e-300, 1e-17, 37.5, 709.5, 709.79, 710.4, 710.48, 1e300, torch.inf]
    x = torch.tensor([*some, *(-value for value in some), torch.nan], dtype=torch.float64)
    with np.errstate(over="ignore"):
        exact = torch.from_numpy(getattr(np, name)(x.numpy().astype(np.longdouble)).astype(np.float64))
    ours = getattr(tensorops, name)(x)
    torch.testing.assert_close(ours, exact, rtol=4e-16, atol=0, equal_nan=True)
    assert torch.equal(ours.signbit()[:-1], exact.signbit()[:-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MAX_ULP_OF_LOGARITHMS_IN_F64)
def test_special_values_of_logarithms(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, -1.0, -1.5, -2.0, 1.0], dtype=dtype)
    ours, theirs = getattr(tensorops, name)(x), getattr(torch, name)(x)
    assert torch.equal(ours.nan_to_num(7.0, 8.0, 9.0), theirs.nan_to_num(7.0, 8.0, 9.0))
    known = ~theirs.isnan()
    assert torch.equal(ours.signbit()[known], theirs.signbit()[known])


def test_sigmoid() -> None:
    """Into the subnormal numbers; NaN whatever bits it has."""
    x = torch.cat(
        [sweep(torch.float32), torch.tensor([0x7F800001, 0x7FC00123, -1], dtype=torch.int32).view(torch.float32)]
    )
    exact = torch.sigmoid(x.double())
    assert ulp_error(tensorops.sigmoid(x), exact).max().item() <= MAX_ULP_OF_SIGMOID
    assert torch.equal(tensorops.sigmoid(x).isnan(), x.isnan())


def test_sigmoid_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.cat(
        [torch.randn(200_000, generator=generator, dtype=torch.float64) * scale for scale in (1e-3, 3.0, 150.0)]
    )
    exact = 1 / (1 + np.exp(-x.numpy().astype(np.longdouble)))
    error = np.abs(tensorops.sigmoid(x).numpy().astype(np.longdouble) - exact).astype(np.float64)
    unit = ulp(torch.from_numpy(exact.astype(np.float64)), torch.float64).numpy()
    assert (error / unit).max() <= MAX_ULP_OF_SIGMOID


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exp_of_nan(dtype: torch.dtype) -> None:
    bits = {torch.float32: [0x7F800001, 0x7FC00123, -1], torch.float64: [0x7FF0000000000001, 0x7FF8000000000123, -1]}
    x = torch.tensor(bits[dtype], dtype={torch.float32: torch.int32, torch.float64: torch.int64}[dtype]).view(dtype)
    for name in ("exp", "tanh", "sigmoid", "log", "log1p", "erfc"):
        assert getattr(tensorops, name)(x.repeat(16)).isnan().all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_fmod(dtype: torch.dtype) -> None:
    """Exact, as C's is: of quotients near whole numbers or with more digits than the dtype, of subnormal numbers."""
    generator = torch.Generator().manual_seed(1)
    finfo = torch.finfo(dtype)
    low, high = math.log2(finfo.smallest_normal * finfo.eps), math.log2(finfo.max)

    def draw(narrow: float) -> Tensor:
        exponent = torch.rand(20_000, generator=generator, dtype=torch.float64) * (high - low) * narrow
        sign = torch.randint(0, 2, (20_000,), generator=generator) * 2 - 1
        return (sign * torch.exp2(exponent + low * narrow)).to(dtype)

    y = torch.cat([draw(1.0), draw(0.1), draw(0.02)])
    x = torch.cat([draw(1.0), draw(0.1), draw(0.02)])
    whole = (y * torch.randint(1, 1 << 22, y.shape, generator=generator)).to(dtype)
    x = torch.cat([x, whole, torch.nextafter(whole, torch.zeros_like(whole)), torch.nextafter(whole, 2 * whole)])
    y = y.repeat(4)
    x = torch.where(x.isfinite(), x, 1.0)
    y = torch.where(y == 0, 1.0, y)
    exact = torch.tensor([math.fmod(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)], dtype=dtype)
    ours = tensorops.fmod(x, y)
    assert torch.equal(ours, exact)
    assert torch.equal(ours.signbit(), exact.signbit())
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1.5, -1.5], dtype=dtype)
    a, b = special.repeat(7), special.repeat_interleave(7)
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    rest = [math.nan if math.isinf(i) or j == 0 else math.fmod(i, j) for i, j in pairs]
    assert torch.equal(tensorops.fmod(a, b).nan_to_num(7), torch.tensor(rest, dtype=dtype).nan_to_num(7))


@pytest.mark.parametrize("name", MAX_ULP_IN_F64)
def test_special_values_in_float64(name: str) -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e308, -1e308], dtype=torch.float64)
    ours, theirs = getattr(tensorops, name)(x), getattr(torch, name)(x)
    assert torch.equal(ours.nan_to_num(7.0, 8.0, 9.0), theirs.nan_to_num(7.0, 8.0, 9.0))
    assert torch.equal(ours.signbit()[1:], theirs.signbit()[1:])


@pytest.mark.parametrize("dtype", BITS, ids=str)
@pytest.mark.parametrize(
    "exponent", [0.5, -2.3, 3.0, 0.01, 17.0, torch.inf, -torch.inf, torch.nan, 0.0, -3.0, 1e-30, 1e30]
)
def test_pow(exponent: float, dtype: torch.dtype) -> None:
    """As a tensor: numbers have kernels of their own."""
    x = sweep(dtype)
    y = torch.full_like(x, 1.0) * exponent
    exact = torch.pow(x.double(), y.double())
    ours = tensorops.pow(x, y)
    finite = exact.abs() <= torch.finfo(dtype).max
    error = torch.where(finite, ulp_error(ours, exact), 0.0).max().item()
    assert error <= allowed((MAX_ULP_OF_POW, MAX_ULP_OF_POW), dtype)
    assert torch.equal(ours.isnan(), exact.isnan())
    assert torch.equal(ours[~finite].nan_to_num(7), exact[~finite].to(dtype).nan_to_num(7))
    assert torch.equal(ours.signbit()[~exact.isnan()], exact.signbit()[~exact.isnan()])


def test_pow_of_pairs() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.exp(torch.randn(1 << 20, generator=generator) * 20)
    y = torch.randn(1 << 20, generator=generator) * torch.exp(torch.randn(1 << 20, generator=generator) * 3)
    exact = torch.pow(x.double(), y.double())
    assert ulp_error(tensorops.pow(x, y), exact).nan_to_num(0)[exact < 3e38].max().item() <= MAX_ULP_OF_POW


def test_gelu() -> None:
    x = sweep(torch.float32)
    x = x[x.abs() < 1e30]
    ours, reference = tensorops.nn.functional.gelu(x), torch.nn.functional.gelu(x.double())
    assert ulp_error(ours, reference)[x > 0].max().item() <= MAX_ULP_OF_GELU
    assert (ours.double() - reference)[x < 0].abs().max().item() <= MAX_ERROR_OF_GELU


@pytest.mark.parametrize("name", ["abs", "neg", "sign", "ceil", "floor", "round", "trunc", "relu", "relu6"])
def test_exact_in_bf16(name: str) -> None:
    """These are stored without rounding: every number, bit for bit."""
    x = sweep(torch.bfloat16)
    ours, theirs = (getattr(m.nn.functional if "relu" in name else m, name)(x) for m in (tensorops, torch))
    assert torch.equal(ours.isnan(), theirs.isnan())
    numbers = ~theirs.isnan()
    assert torch.equal(ours[numbers].view(torch.int16), theirs[numbers].view(torch.int16))


def tanhshrink(x: Tensor) -> Tensor:
    """In float64: x - tanh(x) by its series where that is a difference of close numbers."""
    s = x * x
    series = (
        x * s * (1 / 3 - s * (2 / 15 - s * (17 / 315 - s * (62 / 2835 - s * (1382 / 155925 - s * 21844 / 6081075)))))
    )
    return torch.where(x.abs() < 0.05, series, x - torch.tanh(x))


@pytest.mark.parametrize("dtype", BITS, ids=str)
def test_tanhshrink(dtype: torch.dtype) -> None:
    """Beyond 1, the error of tanh is up to four times as large beside the difference."""
    x = sweep(dtype)
    error = ulp_error(tensorops.nn.functional.tanhshrink(x), tanhshrink(x.double()))
    assert error.max().item() <= (6.0 if dtype == torch.float32 else 0.501)
    assert error[x.abs() <= 1].max().item() <= (4.0 if dtype == torch.float32 else 0.501)


def test_tanhshrink_in_float64() -> None:
    x = torch.logspace(-100, -1.4, 100_001, dtype=torch.float64)
    x = torch.cat([x, -x])
    assert ulp_error(tensorops.nn.functional.tanhshrink(x), tanhshrink(x)).max().item() <= 5.0
