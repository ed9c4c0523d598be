"""torch.nn.modules, with ours in the place of those that we have a kernel for. Files are named as in torch.nn.modules."""

from torch.nn.modules import *  # noqa: F403

from .activation import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
)
from .conv import Conv2d
from .linear import Linear
from .loss import BCELoss, CrossEntropyLoss, MSELoss, NLLLoss
from .pooling import AvgPool2d, MaxPool2d, MaxUnpool2d

OURS = (
    "BCELoss",
    "ELU",
    "GELU",
    "SELU",
    "AvgPool2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "MaxUnpool2d",
    "Mish",
    "NLLLoss",
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
)
