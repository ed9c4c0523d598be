"""Times functions in turn."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]

# One sample lasts at least this long, so that the clock and the loop around the call do not count; no longer, so that many
# samples lie between two moments at which the scheduler gives the core to someone else.
SAMPLE_SECONDS = 5e-4
# So often a sample is tried to find its number of calls, unless it takes longer than any interruption.
TRIES, LONG_SECONDS = 3, 5e-2
MIN_ROUNDS = 5
# Two rounds, one in each order, where more would take longer: torch's 2048 bf16 matmul takes a minute without AVX-512.
LONGEST_SECONDS = 10.0
# A round in which a contender took so many times its own shortest was disturbed, and does not count.
DISTURBED = 2.0
# Rounds go on until every ratio is known this well, or the time is spent; looked at once in CHECK_EVERY rounds.
SPREAD_WANTED = 0.01
CHECK_EVERY = 16


@dataclass(frozen=True)
class Ratio:
    """Theirs over ours: the median over rounds, and half of its 99 % confidence interval in relation to it.

    Of fewer than twelve rounds the farthest from the median stand in for the interval: of two they are both that there are.
    """

    median: float
    spread: float

    @classmethod
    def of(cls, ratios: list[float]) -> Ratio:
        """From one ratio a round: order statistics around the median, which ask nothing of the noise's distribution."""
        ordered = sorted(ratios)
        median = statistics.median(ordered)
        reach = math.ceil(1.29 * math.sqrt(len(ordered)))  # z = 2.58, and a rank's deviation is sqrt(n) / 2
        middle = len(ordered) // 2
        low, high = ordered[max(0, middle - reach)], ordered[min(len(ordered) - 1, middle + reach)]
        return cls(median, max(high - median, median - low) / median)


@dataclass(frozen=True)
class Timing:
    """Median seconds per call of each contender, and the ratio of every other one to the first."""

    seconds: dict[str, float]
    ratios: dict[str, Ratio]
    rounds: int


def sample(function: Call, calls: int, device: torch.device) -> float:
    """Seconds per call over `calls` calls; on a GPU between two events of its own clock."""
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(calls):
            function()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / calls
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls


def calls_per_sample(function: Call, device: torch.device) -> int:
    """How many calls fill a sample, after one that compiles, allocates and warms up.

    The shortest of some tries decides, for one may have been interrupted: equal contenders get samples of as many calls, so
    that what a sample costs at its start falls on both alike.
    """
    function()
    calls = 1
    while True:
        seconds = sample(function, calls, device)
        if seconds * calls < LONG_SECONDS:
            seconds = min(seconds, *(sample(function, calls, device) for _ in range(TRIES)))
        if seconds * calls >= SAMPLE_SECONDS / 4:
            return max(1, round(SAMPLE_SECONDS / seconds))
        calls *= 4


def in_turn(contenders: Mapping[str, Call], device: torch.device, budget: float) -> Timing:
    """Times all contenders in turn, A B B A, so that drift of the machine falls on all alike.

    Stops when the ratios to the first are known to SPREAD_WANTED, or after `budget` seconds, but not before MIN_ROUNDS
    or, where those would take longer, two rounds and LONGEST_SECONDS.
    """
    calls = {name: calls_per_sample(function, device) for name, function in contenders.items()}
    first, *others = contenders
    rounds: list[dict[str, float]] = []
    order = list(contenders)

    def ratios() -> dict[str, Ratio]:
        return {name: Ratio.of([took[name] / took[first] for took in undisturbed(rounds)]) for name in others}

    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        passed = 0.0
        while len(rounds) < 2 or passed < (budget if len(rounds) >= MIN_ROUNDS else LONGEST_SECONDS):
            rounds.append({name: sample(contenders[name], calls[name], device) for name in order})
            order.reverse()
            passed = time.perf_counter() - started
            if len(rounds) % CHECK_EVERY == 0 and all(r.spread < SPREAD_WANTED for r in ratios().values()):
                break
    finally:
        if collecting:
            gc.enable()
    counted = undisturbed(rounds)
    seconds = {name: statistics.median(took[name] for took in counted) for name in contenders}
    return Timing(seconds, ratios(), len(counted))


def undisturbed(rounds: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rounds in which nobody was held up; all of them where too few are left to tell."""
    shortest = {name: min(took[name] for took in rounds) for name in rounds[0]}
    quiet = [took for took in rounds if all(took[name] <= DISTURBED * shortest[name] for name in shortest)]
    return quiet if len(quiet) >= MIN_ROUNDS else rounds


def best(function: Call, device: torch.device, samples: int = 5) -> float:
    """The shortest of some samples: what the machine can do when nothing disturbs it."""
    calls = calls_per_sample(function, device)
    return min(sample(function, calls, device) for _ in range(samples))
