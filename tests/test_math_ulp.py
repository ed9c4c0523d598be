"""Our own polynomials, of csrc/cpu/kernels/vec_math_f32.h and csrc/ops/elementwise_formulas.h, against float64: the errors
stated there, over a sweep of all floats of each dtype that they are computed for."""

from __future__ import annotations

import pytest
import tensorops
import torch
from torch import Tensor

from tests.harness import ulp

# exp, tanh and erf in float64, and everything else in any dtype, is Sleef's or libm's.
MAX_ULP = {"exp": 1.0, "tanh": 1.5, "erf": 1.5}
MAX_ULP_OF_GELU = 2.0  # of positive numbers; where gelu is close to zero, torch too is good to an absolute error only
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


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
    """The 16-bit dtypes are computed in float32, so that all but ties are rounded as the exact value."""
    x = sweep(dtype)
    exact = getattr(torch, name)(x.double())
    allowed = MAX_ULP[name] if dtype == torch.float32 else 0.5 + MAX_ULP[name] * 2.0**-13
    assert ulp_error(getattr(tensorops, name)(x), exact).max().item() <= allowed


@pytest.mark.parametrize("dtype", BITS, ids=str)
@pytest.mark.parametrize("name", MAX_ULP)
def test_special_values(name: str, dtype: torch.dtype) -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0], dtype=dtype)
    ours, theirs = getattr(tensorops, name)(x), getattr(torch, name)(x)
    assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))
    assert torch.equal(ours.signbit()[1:], theirs.signbit()[1:])


def test_gelu() -> None:
    x = sweep(torch.float32)
    x = x[x.abs() < 1e30]
    ours, reference = tensorops.nn.functional.gelu(x), torch.nn.functional.gelu(x.double())
    assert ulp_error(ours, reference)[x > 0].max().item() <= MAX_ULP_OF_GELU
    assert (ours.double() - reference)[x < 0].abs().max().item() < 2.0**-21


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
