"""Times two functions in turn, and the machine's limits beside them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import lru_cache

import torch

# One sample lasts at least this long, so that the clock and the loop around the call do not count.
SAMPLE_SECONDS = 2e-3
MIN_PAIRS = 7


def sample(function: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds per call over `calls` calls."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / calls


def calls_per_sample(function: Callable[[], object], device: torch.device) -> int:
    """How many calls fill a sample; also the warm-up."""
    calls = 1
    while True:
        seconds = sample(function, calls, device)
        if seconds * calls >= SAMPLE_SECONDS:
            return max(1, math.ceil(SAMPLE_SECONDS / seconds))
        calls *= 4


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], device: torch.device, seconds: float
) -> tuple[float, float, float]:
    """Median seconds per call of both, and the median over pairs of theirs / ours.

    The two are timed in turn, A B B A, for `seconds` altogether: drift of the machine falls on both alike.
    """
    calls = {f: calls_per_sample(f, device) for f in (ours, theirs)}
    pairs: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    while len(pairs) < MIN_PAIRS or time.perf_counter() < deadline:
        order = (ours, theirs) if len(pairs) % 2 == 0 else (theirs, ours)
        took = {f: sample(f, calls[f], device) for f in order}
        pairs.append((took[ours], took[theirs]))
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def best(function: Callable[[], object], device: torch.device, samples: int = 5) -> float:
    """The shortest of some samples: what the machine can do when nothing disturbs it."""
    calls = calls_per_sample(function, device)
    return min(sample(function, calls, device) for _ in range(samples))


class Limits:
    """The machine's bandwidth and arithmetic peak at the current thread count, measured when asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copy_bandwidth = lru_cache(None)(self._copy_bandwidth)
        self.read_bandwidth = lru_cache(None)(self._read_bandwidth)
        self.peak = lru_cache(None)(self._peak)

    def _copy_bandwidth(self, exponent: int) -> float:
        """Bytes per second, read and written together, of a copy into existing memory that moves 2**exponent bytes."""
        source = torch.ones(max(1, 2**exponent // 8), device=self.device)
        target = torch.zeros_like(source)
        return 8 * source.numel() / best(lambda: target.copy_(source), self.device)

    def _read_bandwidth(self, exponent: int) -> float:
        """Bytes per second of a sum over 2**exponent bytes."""
        source = torch.ones(max(1, 2**exponent // 4), device=self.device)
        out = torch.empty((), device=self.device)
        return 4 * source.numel() / best(lambda: torch.sum(source, (0,), out=out), self.device)

    def _peak(self, dtype: torch.dtype) -> float:
        """Flop per second of the fastest square matrix product that torch or we reach."""
        import tensorops

        n = 1024 if self.device.type == "cpu" else 8192
        a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
        seconds = [best(lambda f=f: f(a, b), self.device, 3) for f in (torch.mm, getattr(tensorops, "mm", torch.mm))]
        return 2 * n**3 / min(seconds)

    def seconds(self, read: int, written: int, flops: float, dtype: torch.dtype) -> tuple[float, str]:
        """The least time for this much traffic and arithmetic, and which of them sets it.

        Traffic is held against a copy of the same size, hence of the same level of cache, or where little is written
        against a sum.
        """
        exponent = max(10, math.ceil(math.log2(max(1, read + written))))
        bandwidth = self.copy_bandwidth(exponent)
        if written < read / 10:
            bandwidth = max(bandwidth, self.read_bandwidth(exponent))
        memory = (read + written) / bandwidth
        arithmetic = flops / self.peak(dtype) if flops else 0.0
        return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")

    def summary(self) -> dict[str, float]:
        """What the report states: GB/s out of a buffer beyond the caches, GFLOP/s in float32."""
        return {
            "copy_GB_s": self.copy_bandwidth(28) / 1e9,
            "read_GB_s": self.read_bandwidth(28) / 1e9,
            "f32_GFLOP_s": self.peak(torch.float32) / 1e9,
        }
