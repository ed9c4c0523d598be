"""Linear layers: torch.nn.modules.linear's classes with forward in our kernels."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from .. import functional as F

__all__ = ["Linear"]


class Linear(torch.nn.Linear):
    """torch.nn.Linear on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)
