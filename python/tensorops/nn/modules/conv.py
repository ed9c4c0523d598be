"""Convolutions: torch.nn.modules.conv's classes with forward in our kernels."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from .. import functional as F

__all__ = ["Conv2d"]


class Conv2d(torch.nn.Conv2d):
    """torch.nn.Conv2d on our kernel, every padding_mode included."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0, 0)
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)
