"""torch.utils.flop_counter: what our products and convolutions count, which is what torch's count.

FlopCounterMode sees an op of ours by its own name, and knows formulas for torch's names alone. Like those, these count
products only: no biases, and nothing of ops that torch counts nothing for, such as mv.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from ._lazy import when_imported

Shape = Sequence[int]


def swapped(shape: Shape) -> list[int]:
    """(N, C, ...) as (C, N, ...)."""
    return [shape[1], shape[0], *shape[2:]]


def register() -> None:
    """Gives FlopCounterMode its formulas."""
    from torch.utils.flop_counter import bmm_flop, conv_flop_count, mm_flop, register_flop_formula

    ops = torch.ops.tensorops

    @register_flop_formula([ops.mm, ops.bmm])
    def product(a: Shape, b: Shape, *args: Any, **kwargs: Any) -> int:
        return mm_flop(a, b) if len(a) == 2 else bmm_flop(a, b)

    @register_flop_formula([ops.addmm, ops.baddbmm])
    def added(input: Shape, a: Shape, b: Shape, *args: Any, **kwargs: Any) -> int:
        return product(a, b)

    @register_flop_formula([ops.linear, ops._linear_activation])
    def linear(input: Shape, weight: Shape, *args: Any, **kwargs: Any) -> int:
        return 2 * prod(input) * prod(weight[:-1])

    @register_flop_formula(ops._conv2d)
    def conv2d(input: Shape, weight: Shape, *args: Any, out_shape: Shape, **kwargs: Any) -> int:
        return conv_flop_count(list(input), list(weight), list(out_shape))

    @register_flop_formula(ops.conv2d_input_gradient)
    def conv2d_input_gradient(grad: Shape, weight: Shape, *args: Any, out_shape: Shape, **kwargs: Any) -> int:
        return conv_flop_count(list(grad), list(weight), list(out_shape), transposed=True)

    @register_flop_formula(ops.conv2d_weight_gradient)
    def conv2d_weight_gradient(grad: Shape, input: Shape, *args: Any, out_shape: Shape, **kwargs: Any) -> int:
        return conv_flop_count(swapped(input), swapped(grad), swapped(out_shape))


def register_when_flop_counter_loads() -> None:
    """Registers now if the flop counter is loaded, else as soon as it is."""
    when_imported("torch.utils.flop_counter", register)
