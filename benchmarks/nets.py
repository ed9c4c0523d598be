"""The networks that are trained and asked: `nn` is torch.nn or tensorops.nn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.cases.case import Draw


@dataclass(frozen=True)
class Network:
    """How to build and to train it.

    sample: the shape of one; classes: how many, or none where the targets are probabilities; loss: a class of nn.
    """

    name: str
    batch: int
    sample: tuple[int, ...]
    classes: int | None
    layers: Callable[[Any], Iterable[torch.nn.Module]]
    loss: str
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]

    def model(self, nn: Any, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        """Built of `nn`, with the same weights for every nn."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(*self.layers(nn)).to(device, dtype)

    def data(self, draw: Draw, batch: int) -> tuple[Tensor, Tensor]:
        """Samples and targets."""
        samples = draw.normal(batch, *self.sample)
        if self.classes is None:
            return samples, draw.uniform(0, 1, batch, 1)
        return samples, draw.integers(0, self.classes, batch)


def demo(nn: Any) -> list[torch.nn.Module]:
    """Of examples/train_cnn.py."""
    return [
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 10)),
    ]


def lenet(nn: Any) -> list[torch.nn.Module]:
    """LeNet-5, with the ReLU and the maximum of its later editions."""
    return [
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    ]


def cifar_quick(nn: Any) -> list[torch.nn.Module]:
    """Caffe's quick network for CIFAR-10."""
    return [
        *(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10)),
    ]


def perceptron(nn: Any) -> list[torch.nn.Module]:
    """8-6-4-2-1 with sigmoids: all of its time is calls."""
    sizes = (8, 6, 4, 2, 1)
    return [
        layer for inputs, outputs in itertools.pairwise(sizes) for layer in (nn.Linear(inputs, outputs), nn.Sigmoid())
    ]


SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
NETWORKS = [
    Network("demo CNN", 50, (1, 28, 28), 10, demo, "CrossEntropyLoss", partial(torch.optim.Adam, lr=1e-3)),
    Network("CIFAR-quick", 64, (3, 32, 32), 10, cifar_quick, "CrossEntropyLoss", SGD),
    Network("LeNet", 64, (1, 28, 28), 10, lenet, "CrossEntropyLoss", SGD),
    Network("8-6-4-2-1", 32, (8,), None, perceptron, "MSELoss", partial(torch.optim.SGD, lr=1e-3)),
]
