"""Our own f32 polynomials against float64, over a sweep of all floats: the errors that vec_math_f32.h states."""

from __future__ import annotations

import pytest
import tensorops
import torch

MAX_ULP = {"exp": 1.0, "tanh": 1.5, "erf": 1.5}
MAX_ULP_OF_GELU = 2.0  # of positive numbers; where gelu is close to zero, torch too is good to an absolute error only


def sweep() -> torch.Tensor:
    """Every 1021st float of either sign, infinities and zeros included."""
    bits = torch.arange(0, 2**31, 1021, dtype=torch.int64).to(torch.int32)
    positive = bits.view(torch.float32)
    positive = positive[~positive.isnan()]
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf")])
    return torch.cat([positive, -positive, special])


def ulp_error(value: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Distance in units of the reference's last place in f32; 0 where both round to the same float."""
    exponent = torch.frexp(reference.abs().clamp_min(2.0**-126)).exponent - 1
    ulp = torch.ldexp(torch.ones_like(reference), exponent - 23)
    error = (value.double() - reference).abs() / ulp
    same = (value == reference.float()) | (value.isnan() & reference.isnan())
    return torch.where(same, torch.zeros_like(error), error)


@pytest.mark.parametrize("name", MAX_ULP)
def test_ulp(name: str) -> None:
    x = sweep()
    reference = getattr(torch, name)(x.double())
    assert ulp_error(getattr(tensorops, name)(x), reference).max().item() <= MAX_ULP[name]


@pytest.mark.parametrize("name", MAX_ULP)
def test_special_values(name: str) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
    ours, theirs = getattr(tensorops, name)(x), getattr(torch, name)(x)
    assert torch.equal(ours.nan_to_num(7.0), theirs.nan_to_num(7.0))
    assert torch.equal(ours.signbit()[1:], theirs.signbit()[1:])


def test_gelu() -> None:
    x = sweep()
    x = x[x.abs() < 1e30]
    ours, reference = tensorops.nn.functional.gelu(x), torch.nn.functional.gelu(x.double())
    assert ulp_error(ours, reference)[x > 0].max().item() <= MAX_ULP_OF_GELU
    assert (ours.double() - reference)[x < 0].abs().max().item() < 2.0**-21
