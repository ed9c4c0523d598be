"""What a test case is: an op, how to draw its arguments, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGRAL = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
BOOL = (torch.bool,)


@dataclass
class Draw:
    """Draws the tensors of one case: the same values for every dtype and device, up to rounding."""

    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    seed: int = 0
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Standard normal; for integer dtypes scaled by 5 and truncated; for bool the sign."""
        value = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return self._as(value, dtype)

    def uniform(self, low: float, high: float, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Uniform in [low, high)."""
        value = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        dtype = dtype or self.dtype
        return value.to(self.device, dtype)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """Integers in [low, high), int64 unless said otherwise: labels, indices."""
        return torch.randint(low, high, shape, generator=self.generator).to(self.device, dtype)

    def distinct(self, *shape: int) -> torch.Tensor:
        """A shuffled, evenly spaced range around zero: no ties, so that max and its gradient are smooth."""
        count = torch.Size(shape).numel()
        order = torch.randperm(count, generator=self.generator).to(torch.float64)
        return ((order - count / 2) / 8).reshape(shape).to(self.device, self.dtype)

    def _as(self, value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        dtype = dtype or self.dtype
        if dtype == torch.bool:
            return (value > 0).to(self.device)
        if not dtype.is_floating_point:
            value = value * 5
            if dtype == torch.uint8:
                value = value.abs()
        return value.to(self.device, dtype)


def arguments(*args: Any, **kwargs: Any) -> tuple[tuple, dict[str, Any]]:
    """What `Case.make` returns."""
    return args, kwargs


@dataclass(frozen=True)
class Case:
    """One row of a family's table; it drives every test and the benchmark.

    op: name under both torch and tensorops, such as "add" or "nn.functional.gelu".
    make: draws (args, kwargs); floating tensors among them get gradients.
    label: what distinguishes this row from the op's others.
    dtypes: the dtypes that the op has in torch.
    gradient: whether the op is differentiable for these arguments.
    exact: the result must equal torch's bit for bit (no rounding happens, or it is the same).
    ulps: every single element is held to a number of ulps, not only to torch's largest absolute error; for results that
        do not come out of cancellation, as elementwise ones.
    torch_gradient: whether torch's own gradient is right here, to compare with.
    constants: keyword arguments that have no gradient in torch, which refuses them where they require one.
    dense_gradient: torch's own backward takes dense arguments only; in other layouts ours is compared with torch's of them.
    strides: whether the result's strides are torch's.
    smooth: finite differences mean something here, so gradcheck is asked; not at kinks, ties, infinities.
    large: big enough to be split among threads; asked to be the same for every number of them, and little else.
    cuda_dtypes: the dtypes that the op has on CUDA, where they are fewer.
    rounds_scalar: torch's CPU kernels round the 0-d operand to bf16 or f16, its CUDA kernels do not.
    """

    op: str
    make: Callable[[Draw], tuple[tuple, dict[str, Any]]]
    label: str = ""
    dtypes: tuple[torch.dtype, ...] = FLOATING
    gradient: bool = True
    exact: bool = False
    ulps: bool = False
    torch_gradient: bool = True
    constants: tuple[str, ...] = ()
    dense_gradient: bool = False
    strides: bool = True
    smooth: bool = True
    large: bool = False
    cuda_dtypes: tuple[torch.dtype, ...] | None = None
    rounds_scalar: bool = False

    @property
    def name(self) -> str:
        """Readable and unique within a family: what pytest shows."""
        return f"{self.op}-{self.label}" if self.label else self.op
