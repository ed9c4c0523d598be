"""Activations: torch.nn.modules.activation's classes with forward in our kernels."""

from __future__ import annotations

import torch.nn
from torch import Tensor

from .. import functional as F

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class Threshold(torch.nn.Threshold):
    """torch.nn.Threshold on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)


class ReLU(torch.nn.ReLU):
    """torch.nn.ReLU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class Hardtanh(torch.nn.Hardtanh):
    """torch.nn.Hardtanh on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class ReLU6(torch.nn.ReLU6):
    """torch.nn.ReLU6 on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class Sigmoid(torch.nn.Sigmoid):
    """torch.nn.Sigmoid on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Hardsigmoid(torch.nn.Hardsigmoid):
    """torch.nn.Hardsigmoid on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Tanh(torch.nn.Tanh):
    """torch.nn.Tanh on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class SiLU(torch.nn.SiLU):
    """torch.nn.SiLU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Mish(torch.nn.Mish):
    """torch.nn.Mish on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Hardswish(torch.nn.Hardswish):
    """torch.nn.Hardswish on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class ELU(torch.nn.ELU):
    """torch.nn.ELU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class SELU(torch.nn.SELU):
    """torch.nn.SELU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class GELU(torch.nn.GELU):
    """torch.nn.GELU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)


class LeakyReLU(torch.nn.LeakyReLU):
    """torch.nn.LeakyReLU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class LogSigmoid(torch.nn.LogSigmoid):
    """torch.nn.LogSigmoid on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Softplus(torch.nn.Softplus):
    """torch.nn.Softplus on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class PReLU(torch.nn.PReLU):
    """torch.nn.PReLU on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class Softsign(torch.nn.Softsign):
    """torch.nn.Softsign on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class Tanhshrink(torch.nn.Tanhshrink):
    """torch.nn.Tanhshrink on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class Softmax(torch.nn.Softmax):
    """torch.nn.Softmax on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(torch.nn.LogSoftmax):
    """torch.nn.LogSoftmax on our kernel."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)
