"""Losses: torch.nn.modules.loss's classes with forward in our kernels."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from .. import functional as F

__all__ = ["BCELoss", "CrossEntropyLoss", "MSELoss", "NLLLoss"]


class NLLLoss(torch.nn.NLLLoss):
    """torch.nn.NLLLoss on our kernel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(torch.nn.MSELoss):
    """torch.nn.MSELoss on our kernel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class BCELoss(torch.nn.BCELoss):
    """torch.nn.BCELoss on our kernel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss on our kernel."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
