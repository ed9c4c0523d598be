"""What the machine can do: bytes read and copied per second, multiply-adds per second.

On a CPU `probe.cpp` measures it, compiled when it is first needed; without a compiler, and on a GPU, torch's own copy, sum
and matrix product stand in, and the report says so.
"""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

from benchmarks.measure import best

DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
# A footprint far beyond the caches, and one that two cores' second-level caches hold.
MEMORY, CACHED = 27, 20
# What was measured within this time is still what the machine can do now.
NOW_SECONDS = 0.5


class Probe:
    """The compiled loops of probe.cpp."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.library = _compiled_probe()
        self.source = f"loops of {self.library.vector_bits()}-bit vectors"

    def read(self, size: int) -> float:
        """Bytes per second of reading `size` bytes."""
        return self.library.read_bandwidth(size, self.threads)

    def copy(self, size: int) -> float:
        """Bytes per second, read and written together, of a copy that touches `size` bytes."""
        return self.library.copy_bandwidth(size, self.threads)

    def peak(self, dtype: torch.dtype) -> float:
        """Flop per second of multiply-adds; in float32 for bfloat16 where the CPU has no instruction for its products."""
        flops = getattr(self.library, f"{DTYPES[dtype]}_peak")(self.threads)
        return flops or self.peak(torch.float32)


@cache
def _compiled_probe() -> ctypes.CDLL:
    """Compiles and loads probe.cpp; OSError or CalledProcessError where that cannot be done."""
    source = Path(__file__).with_name("probe.cpp")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "probe.so"
        flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"]
        command = [os.environ.get("CXX", "g++"), *flags, str(source), "-o", str(target)]
        subprocess.run(command, check=True, capture_output=True)
        library = ctypes.CDLL(str(target))
    for name in ("read_bandwidth", "copy_bandwidth"):
        getattr(library, name).argtypes = (ctypes.c_size_t, ctypes.c_int)
        getattr(library, name).restype = ctypes.c_double
    for name in DTYPES.values():
        getattr(library, f"{name}_peak").restype = ctypes.c_double
    return library


class TorchProbe:
    """Torch's copy, sum and matrix product, as the next best measure of the machine."""

    source = "torch's copy, sum and mm"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self, size: int) -> float:
        """Bytes per second of a sum over `size` bytes."""
        source = torch.ones(max(1, size // 4), device=self.device)
        out = torch.empty((), device=self.device)
        return 4 * source.numel() / best(lambda: torch.sum(source, (0,), out=out), self.device)

    def copy(self, size: int) -> float:
        """Bytes per second, read and written together, of a copy that touches `size` bytes."""
        source = torch.ones(max(1, size // 8), device=self.device)
        target = torch.zeros_like(source)
        return 8 * source.numel() / best(lambda: target.copy_(source), self.device)

    def peak(self, dtype: torch.dtype) -> float:
        """Flop per second of a large square product."""
        n = 1024 if self.device.type == "cpu" else 8192
        a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
        return 2 * n**3 / best(lambda: torch.mm(a, b), self.device, 3)


class Limits:
    """The limits at one thread count: the best that has been measured, and what is measured now.

    A shared machine's memory may be twice as fast for a second as in the next: a call is held against the limits of its own
    moment, the summary states what the machine can do at its best.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self.probe: Probe | TorchProbe = TorchProbe(device)
        if device.type == "cpu":
            try:
                self.probe = Probe(threads)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"no compiled probe ({error}): the limits are those of {self.probe.source}")
        self.best: dict[tuple[str, object], float] = {}
        self.latest: dict[tuple[str, object], tuple[float, float]] = {}

    def now(self, what: str, argument: object) -> float:
        """probe.what(argument), measured at most NOW_SECONDS ago."""
        key = what, argument
        measured, value = self.latest.get(key, (-math.inf, 0.0))
        if time.monotonic() - measured > NOW_SECONDS:
            value = getattr(self.probe, what)(argument)
            self.latest[key] = time.monotonic(), value
            self.best[key] = max(value, self.best.get(key, 0.0))
        return value

    def at_best(self, what: str, argument: object) -> float:
        """The best that probe.what(argument) has been so far."""
        return self.best[what, argument] if (what, argument) in self.best else self.now(what, argument)

    def seconds(self, read: float, written: float, flops: float, dtype: torch.dtype, now: bool) -> tuple[float, str]:
        """The least time for this much traffic and arithmetic, now or at best, and which of them sets it.

        The bandwidth is that of the same footprint, hence of the same level of cache; what is written is a copy of as
        much of what is read, and the rest is read only.
        """
        limit = self.now if now else self.at_best
        footprint = 2 ** min(MEMORY, max(12, math.ceil(math.log2(max(1, read + written)))))
        copied, rest = written + min(read, written), max(0, read - written)
        memory = (copied / limit("copy", footprint) if copied else 0) + (rest / limit("read", footprint) if rest else 0)
        arithmetic = flops / limit("peak", dtype)
        return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")

    def summary(self) -> dict[str, object]:
        """What the report states: GB/s beyond the caches and in them, GFLOP/s in each dtype, and how it was measured."""
        return {
            "read_GB_s": self.at_best("read", 2**MEMORY) / 1e9,
            "copy_GB_s": self.at_best("copy", 2**MEMORY) / 1e9,
            "cached_copy_GB_s": self.at_best("copy", 2**CACHED) / 1e9,
            "peak_GFLOP_s": {name: self.at_best("peak", dtype) / 1e9 for dtype, name in DTYPES.items()},
            "measured_with": self.probe.source,
        }
