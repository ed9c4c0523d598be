"""Pooling: torch.nn.modules.pooling's classes with forward in our kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn
from torch import Tensor

from .. import functional as F

__all__ = ["AvgPool2d", "MaxPool2d", "MaxUnpool2d"]


class MaxPool2d(torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d on our kernel."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        pool = F.max_pool2d_with_indices if self.return_indices else F.max_pool2d
        return pool(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)  # type: ignore[arg-type]


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d on our kernel."""

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)  # type: ignore[arg-type]


class AvgPool2d(torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )
