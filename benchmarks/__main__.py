"""The command line: python -m benchmarks [FAMILY…] [--against torch,compile] [--threads 1,2] [--json F] [--plot F]."""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import torch

from benchmarks import pictures, report
from benchmarks.bench import Arguments, Bench
from benchmarks.cases import FAMILIES
from benchmarks.limits import DTYPES, Limits
from benchmarks.measure import Call, in_turn

LATEST = Path(__file__).with_name("results") / "latest.json"
OPPONENTS = ("torch", "compile")
# Below this the limit says little: what a call costs in any case counts as much.
LEAST_SECONDS = 2e-6


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


class Progress:
    """A tqdm bar on a terminal, where tqdm is installed, that lines of the table pass above."""

    def __init__(self, total: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self.bar = None
        else:
            self.bar = tqdm(total=total, unit="row", dynamic_ncols=True, leave=False, disable=None)

    def say(self, text: str) -> None:
        """Prints a line."""
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.write(text)

    def step(self, name: str) -> None:
        """Advances to the next row."""
        if self.bar is not None:
            self.bar.set_description(name[:40], refresh=False)
            self.bar.update(1)

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self.bar is not None:
            self.bar.close()


class Run:
    """One run of the command: what it is asked, and what it has measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        import tensorops

        self.options = options
        self.ours: ModuleType = torch if options.self_check else tensorops
        self.against = ["torch"] if options.self_check else options.against
        self.strict = tensorops.strict
        self.rows: list[dict] = []
        self.limits: dict[str, dict] = {}
        self.not_timed: list[dict[str, str]] = []
        self.failed = False

    def benches(self) -> Iterator[tuple[str, Bench, torch.dtype, list[str]]]:
        """Family, row, dtype and the modes wanted."""
        for family in self.options.family or FAMILIES:
            for bench in FAMILIES[family](self.options.all):
                for dtype in bench.dtypes:
                    name = f"{family} {report.short(bench.op)} {bench.label} {DTYPES[dtype]}"
                    modes = [mode for mode in bench.modes if self.options.only.search(f"{name} {mode}")]
                    if modes:
                        yield family, bench, dtype, modes

    def document(self) -> report.Document:
        """What is stored."""
        return {
            "format": report.FORMAT,
            "machine": report.machine(self.options.device),
            "ours": self.ours.__name__,
            "against": self.against,
            "limits": self.limits,
            "rows": self.rows,
            "not_timed": self.not_timed,
        }

    def measure(self) -> None:
        """All rows at all thread counts; a row that fails is listed, and the others go on."""
        plan = list(self.benches())
        count = sum(len(modes) for *_, modes in plan) * len(self.options.threads)
        print(f"{count} rows, about {self.options.budget:g} s each")
        progress = Progress(count)
        before = torch.get_num_threads()
        if self.options.device.type == "cuda":
            torch.cuda.set_device(self.options.device)
        try:
            for threads in self.options.threads:
                torch.set_num_threads(threads)
                limits = Limits(self.options.device, threads)
                self.limits[str(threads)] = limits.summary()
                progress.say(report.heading(threads, self.limits[str(threads)], self.ours.__name__, self.against))
                for family, bench, dtype, modes in plan:
                    drawn: Arguments | None = None
                    for mode in modes:
                        progress.step(f"{report.short(bench.op)} {bench.label}")
                        try:
                            drawn = drawn or bench.draw(dtype, str(self.options.device))
                            row = self.row(bench, dtype, mode, drawn, limits)
                        except Exception as error:
                            name = f"{report.short(bench.op)} {bench.label} {DTYPES[dtype]} {mode}, {threads} threads"
                            why = (str(error) or type(error).__name__).splitlines()[0]
                            self.not_timed.append({"row": name, "why": why})
                            self.failed |= not isinstance(error, NotImplementedError)
                            continue
                        if row:
                            self.rows.append({"family": family, "threads": threads, **row})
                            progress.say(report.line(self.rows[-1]))
                self.limits[str(threads)] = limits.summary()
        finally:
            progress.close()
            torch.set_num_threads(before)

    def row(self, bench: Bench, dtype: torch.dtype, mode: str, drawn: Arguments, limits: Limits) -> dict | None:
        """Times one row, and the machine's limit before and after it; None where torch has no such mode."""
        given = bench.arguments(mode, drawn)
        if given is None:
            return None
        ours = bench.call(self.ours, mode, given)
        if ours is None:
            raise NotImplementedError(f"not in {self.ours.__name__}")
        calls: dict[str, Call] = {"ours": ours}
        with self.strict():
            ours()
        for name in self.against:
            if name == "compile":
                torch.compiler.reset()
            call = bench.call(torch, mode, given, compile=name == "compile")
            if call is not None:
                calls[name] = call
        if len(calls) == 1:
            return None
        work = read, written, flops = bench.work(mode, given)
        limited = mode != "recorded" and limits.seconds(*work, dtype, now=False)[0] >= LEAST_SECONDS
        moments = [limits.seconds(*work, dtype, now=True)] if limited else []
        timing = in_turn(calls, self.options.device, self.options.budget)
        if limited:
            moments.append(limits.seconds(*work, dtype, now=True))
        row = {
            "op": bench.op,
            "label": bench.label,
            "dtype": DTYPES[dtype],
            "mode": mode,
            "headline": bench.headline,
            "seconds": timing.seconds,
            "ratio": {name: ratio.median for name, ratio in timing.ratios.items()},
            "spread": {name: ratio.spread for name, ratio in timing.ratios.items()},
            "rounds": timing.rounds,
            "bytes": read + written,
            "written": written,
            "flops": flops,
        }
        if moments:
            row["limit"], row["bound"] = min(moments)
        return row


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        prog="python -m benchmarks",
        description="tensorops and torch, timed in turn; torch/ours is torch's time over ours: above 1 ours is faster.",
    )
    parser.add_argument("family", nargs="*", help=f"of {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--all", action="store_true", help="every op of the families in every dtype, not a selection")
    parser.add_argument(
        "--against",
        default="torch",
        help="torch, or torch,compile: torch.compile too, with the weights frozen for inference (default: torch)",
    )
    parser.add_argument("--threads", help="thread counts, such as 1,2 (default: torch's and 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--budget", type=float, default=0.3, metavar="S", help="seconds for each row (default: 0.3)")
    parser.add_argument(
        "-k", dest="only", default="", metavar="REGEX", help="only rows whose name matches, as 'gelu 16M f32'"
    )
    parser.add_argument(
        "--json", type=Path, metavar="F", default=LATEST, help="where the run is stored (default: %(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="F", help="F-ratios.png and F-roofline.png (default: as the JSON)")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A.json", "B.json"), help="what changed from A to B")
    parser.add_argument("--self-check", action="store_true", help="torch against torch: every ratio should be 1")
    options = parser.parse_args(argv)
    unknown = [family for family in options.family if family not in FAMILIES]
    if unknown:
        parser.error(f"no such family: {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    options.against = options.against.split(",")
    unknown = [name for name in options.against if name not in OPPONENTS]
    if unknown:
        parser.error(f"--against {','.join(unknown)}: must be of {', '.join(OPPONENTS)}")
    try:
        options.device = torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {options.device}: {str(error).splitlines()[0]}")
    now = torch.get_num_threads()
    try:
        options.threads = (
            [int(n) for n in options.threads.split(",")] if options.threads else sorted({now, 1}, reverse=True)
        )
    except ValueError:
        parser.error(f"--threads {options.threads}: must be numbers, such as 1,2")
    if min(options.threads) < 1:
        parser.error("--threads: must be at least 1")
    if options.device.type == "cuda":
        options.threads = [now]
    if not options.budget >= 0:
        parser.error(f"--budget {options.budget}: must not be negative")
    try:
        options.only = re.compile(options.only)
    except re.error as error:
        parser.error(f"-k {options.only}: {error}")
    if options.json == LATEST:
        LATEST.parent.mkdir(exist_ok=True)
    options.plot = options.plot or options.json.with_suffix("")
    for name, path in (("--json", options.json), ("--plot", options.plot)):
        if not path.parent.is_dir():
            parser.error(f"{name} {path}: no such folder")
    if options.compare:
        try:
            options.compare = [report.read(path) for path in options.compare]
        except ValueError as error:
            parser.error(f"--compare {error}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmarks, prints the table, and writes the JSON and the pictures."""
    options = parse(argv)
    if options.compare:
        print(report.compare(*options.compare))
        return 0
    run = Run(options)
    started = time.monotonic()
    try:
        run.measure()
    except KeyboardInterrupt:
        print("\ninterrupted: what follows is of the rows so far", file=sys.stderr)
        run.failed = True
    for missing in run.not_timed:
        print(f"not timed: {missing['row']}: {missing['why']}")
    if not run.rows:
        print("nothing was timed")
        return 1
    print(report.totals(run.rows))
    passed = not run.failed
    if options.self_check:
        text, right = report.self_check(run.rows)
        print(text)
        passed &= right
    document = run.document()
    report.write(document, options.json)
    print(f"\n{time.monotonic() - started:.0f} s; stored: {options.json}")
    try:
        print("pictures:", *pictures.draw(document, options.plot))
    except ImportError:
        print("no pictures: they need matplotlib")
    return 0 if passed else 1


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="torch")
    sys.exit(main())
