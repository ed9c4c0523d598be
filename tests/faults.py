"""What is asked of calls that torch refuses: the same exception from ours, for every bad argument of a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorops
import torch


def assert_same_refusal(call: Callable[[Any], Any]) -> None:
    """`call(root)` is refused by torch, and by tensorops with an exception of the same kind."""
    with pytest.raises(Exception) as refused:
        call(torch)
    with pytest.raises(refused.type):
        call(tensorops)


def assert_same_deprecation(call: Callable[[Any], Any]) -> None:
    """`call(root)` warns under torch and under tensorops, and both give the same."""
    results = []
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        for root in (tensorops, torch):
            with pytest.warns(UserWarning, match="This overload of .* is deprecated"):
                results.append(call(root))
    finally:
        torch.set_warn_always(always)
    torch.testing.assert_close(*results)
