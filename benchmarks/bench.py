"""What a row of the tables is: its arguments, its call in each library and mode, the work that has to be done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import nets
from benchmarks.measure import Call
from tests.cases.case import Draw, arguments

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Make = Callable[[Draw], Arguments]


def tensors(value: object) -> list[Tensor]:
    """The tensors among arguments or results."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def size_of(values: Iterable[Tensor]) -> int:
    """Bytes behind tensors; an expanded one counts once."""
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in values)


def find(root: object, name: str) -> Any:
    """`root.nn.functional.gelu` for "nn.functional.gelu"; None where it does not exist."""
    try:
        return reduce(getattr, name.split("."), root)
    except AttributeError:
        return None


def compiled(function: Callable, **options: Any) -> Callable:
    """What torch.compile makes of a function, for the very shapes that it is called with."""
    return torch.compile(lambda *args, **kwargs: function(*args, **kwargs), dynamic=False, **options)


class Bench(Protocol):
    """A row of the tables below, for several dtypes and modes."""

    op: str
    label: str
    dtypes: tuple[torch.dtype, ...]
    modes: tuple[str, ...]
    headline: bool

    def draw(self, dtype: torch.dtype, device: str) -> Arguments:
        """The arguments, drawn once for all modes and libraries."""

    def arguments(self, mode: str, drawn: Arguments) -> Arguments | None:
        """The arguments of one mode, shared by all libraries; None where torch does not have the mode."""

    def call(self, library: ModuleType, mode: str, given: Arguments, compile: bool = False) -> Call | None:
        """One call of the library's function; None where it does not have it."""

    def work(self, mode: str, given: Arguments) -> tuple[float, float, float]:
        """Bytes that have to be read, bytes that have to be written, floating-point operations."""


@dataclass(frozen=True)
class Op:
    """A function of torch and of tensorops.

    op: its name under both, such as "nn.functional.gelu"; make: draws its arguments; frozen: how many tensors at the front
    get no gradient; function: takes it, or what is composed of several, from a library; reads: bytes that are read where not
    all of the arguments are; headline: shown in the README.
    """

    op: str
    label: str
    make: Make
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    modes: tuple[str, ...] = ("fresh", "out", "fwd+bwd")
    frozen: int = 0
    function: Callable[[Any], Callable] | None = None
    reads: Callable[..., float] | None = None
    headline: bool = False

    def draw(self, dtype: torch.dtype, device: str) -> Arguments:
        """The arguments."""
        return self.make(Draw(dtype=dtype, device=device))

    def of(self, library: ModuleType) -> Callable | None:
        """The library's function."""
        return self.function(library) if self.function else find(library, self.op)

    def arguments(self, mode: str, drawn: Arguments) -> Arguments | None:
        """With `out`, one output for all; with a graph, leaves in place of the tensors."""
        args, kwargs = drawn
        function = self.of(torch)
        if mode == "fresh":
            return drawn
        if mode == "out":
            result = function(*args, **kwargs)
            if not isinstance(result, Tensor):
                return None
            given = {**kwargs, "out": torch.empty_like(result)}
            try:
                function(*args, **given)
            except TypeError:  # torch has no out= here
                return None
            return args, given
        place = 0

        def leaf(value: Any) -> Any:
            nonlocal place
            if not isinstance(value, Tensor):
                return value
            place += 1
            return value.detach().requires_grad_(value.is_floating_point() and place > self.frozen)

        args = tuple(leaf(value) for value in args)
        results = tensors(function(*args, **kwargs))
        return (args, kwargs) if results[0].requires_grad else None

    def call(self, library: ModuleType, mode: str, given: Arguments, compile: bool = False) -> Call | None:
        """The function on the arguments, and for "fwd+bwd" its gradient for a gradient of ones."""
        args, kwargs = given
        function = self.of(library)
        if function is None or (compile and mode == "out"):
            return None
        if compile:
            function = compiled(function)
        if mode != "fwd+bwd":
            return lambda: function(*args, **kwargs)
        leaves = [t for t in args if isinstance(t, Tensor) and t.requires_grad]
        gradient = torch.ones_like(tensors(function(*args, **kwargs))[0])
        return lambda: torch.autograd.grad(tensors(function(*args, **kwargs))[0], leaves, gradient)

    def work(self, mode: str, given: Arguments) -> tuple[float, float, float]:
        """The arguments once, the result once; for the backward the result's gradient, and those of the leaves.

        A gradient that is the result's own, or a view of it, costs nothing to write. A product's or a convolution's backward
        is as much arithmetic for each factor as the forward; of other ops an operation is counted for each element of the
        arguments, and one for its gradient.
        """
        args, kwargs = given
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        with FlopCounterMode(display=False) as counter:
            result = tensors(self.of(torch)(*args, **kwargs))
        products = counter.get_total_flops()
        read = self.reads(*args, **kwargs) if self.reads else size_of(tensors((*args, *kwargs.values())))
        written = size_of(result)
        flops = products or read / next(t for t in tensors(args) if t.is_floating_point()).element_size()
        if mode == "fwd+bwd":
            leaves = [t for t in args if isinstance(t, Tensor) and t.requires_grad]
            factors = sum(t.dim() > 1 for t in leaves) if products else 1
            given_gradient = torch.ones_like(result[0])
            place = given_gradient.untyped_storage().data_ptr()
            gradients = torch.autograd.grad(result[0], leaves, given_gradient)
            made = size_of(t for t in gradients if t.untyped_storage().data_ptr() != place)
            return read + (size_of(result[:1]) if made else 0), written + made, flops * (1 + factors)
        return read, written, flops


@dataclass(frozen=True)
class Net:
    """A network of nets.py: a training step with an optimizer of torch.optim, or inference."""

    network: nets.Network
    batch: int
    modes: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    headline: bool = True

    @property
    def op(self) -> str:
        """The network's name."""
        return self.network.name

    @property
    def label(self) -> str:
        """What distinguishes its rows."""
        return f"batch {self.batch}"

    def draw(self, dtype: torch.dtype, device: str) -> Arguments:
        """Samples and targets."""
        return arguments(*self.network.data(Draw(dtype=dtype, device=device), self.batch))

    def arguments(self, mode: str, drawn: Arguments) -> Arguments:
        """The same for every mode."""
        return drawn

    def call(self, library: ModuleType, mode: str, given: Arguments, compile: bool = False) -> Call:
        """A step of training, or the result for the samples without a graph; from the same weights for every library.

        torch.compile gets the model for inference, with its weights frozen into the code, and the model with its loss for
        training; the optimizer runs as it does without.
        """
        samples, targets = given[0]
        model = self.network.model(library.nn, samples.dtype, samples.device)
        if mode == "inference":
            model.eval()
            forward = compiled(model, options={"freezing": True}) if compile else model

            def infer() -> Tensor:
                with torch.no_grad():
                    return forward(samples)

            return infer
        criterion = getattr(library.nn, self.network.loss)()
        optimizer = self.network.optimizer(model.parameters())

        def loss_of(samples: Tensor, targets: Tensor) -> Tensor:
            return criterion(model(samples), targets)

        loss = compiled(loss_of) if compile else loss_of

        def step() -> None:
            optimizer.zero_grad()
            loss(samples, targets).backward()
            optimizer.step()

        return step

    def work(self, mode: str, given: Arguments) -> tuple[float, float, float]:
        """The samples and the weights; in a step they are read, read again by the optimizer, and written."""
        samples = given[0][0]
        weights = size_of(self.network.model(torch.nn, samples.dtype, samples.device).parameters())
        with FlopCounterMode(display=False) as counter:
            self.call(torch, mode, given)()
        read, flops = size_of([samples]) + weights, counter.get_total_flops()
        return (read, 0, flops) if mode == "inference" else (read + weights, weights, flops)
