"""The command line: python -m benchmarks [FAMILY…] [--threads 1,2] [--json F] [--plot F]."""

from __future__ import annotations

import argparse
import json
import sys
from functools import reduce
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from benchmarks.cases import FAMILIES, SIZED, small
from benchmarks.measure import Limits, in_turn
from tests.cases.case import Case, Draw


def tensors(value: object) -> list[torch.Tensor]:
    """The tensors among arguments or results."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def size_of(values: list[torch.Tensor]) -> int:
    """Bytes behind tensors; an expanded one counts once."""
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in values)


def find(root: object, name: str):
    """`root.nn.functional.gelu` for "nn.functional.gelu"; None where it does not exist."""
    try:
        return reduce(getattr, name.split("."), root)
    except AttributeError:
        return None


def modes(case: Case, ours, theirs, args: tuple, kwargs: dict, wanted: set[str]):
    """Yields (mode, ours, theirs) as functions of no arguments: a fresh output, out=, and backward."""
    if "fresh" in wanted:
        yield "fresh", lambda: ours(*args, **kwargs), lambda: theirs(*args, **kwargs)
    if "out" in wanted:
        result = theirs(*args, **kwargs)
        out = torch.empty_like(result) if isinstance(result, torch.Tensor) else None
        try:
            theirs(*args, **kwargs, out=out)
        except TypeError:  # torch has no out= here
            out = None
        if out is not None:
            try:
                ours(*args, **kwargs, out=out)
            except TypeError as error:
                print(f"{case.name}: torch has out=, ours has not ({error})", file=sys.stderr)
                out = None
        if out is not None:
            yield "out", lambda: ours(*args, **kwargs, out=out), lambda: theirs(*args, **kwargs, out=out)
    if "backward" in wanted and case.gradient:
        leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in tensors(args)]
        inputs = [t for t in leaves if t.requires_grad]
        rest = iter(leaves)
        args = tuple(next(rest) if isinstance(a, torch.Tensor) else a for a in args)
        results = [tensors(f(*args, **kwargs))[0] for f in (ours, theirs)]
        if not all(result.requires_grad for result in results):  # an integer or a comparison
            return
        gradient = torch.ones_like(results[1])

        def backward(result: torch.Tensor):
            return lambda: torch.autograd.grad(result, inputs, gradient, retain_graph=True)

        yield "backward", backward(results[0]), backward(results[1])


def run(family: str, case: Case, dtype: torch.dtype, limits: Limits, options: argparse.Namespace) -> list[dict]:
    """Times one case in every mode."""
    import tensorops

    ours, theirs = find(tensorops, case.op), find(torch, case.op)
    if ours is None or ours is theirs:
        print(f"{case.name}: not in tensorops", file=sys.stderr)
        return []
    args, kwargs = case.make(Draw(dtype=dtype, device=str(options.device)))
    with FlopCounterMode(display=False) as counter:
        result = theirs(*args, **kwargs)
    flops = case.flops(*args, **kwargs) if case.flops else counter.get_total_flops()
    read, written = size_of(tensors((*args, *kwargs.values()))), size_of(tensors(result))
    del result
    least, bound = limits.seconds(read, written, flops, dtype)
    rows = []
    for mode, a, b in modes(case, ours, theirs, args, kwargs, options.modes):
        our_seconds, torch_seconds, ratio = in_turn(a, b, options.device, options.seconds)
        row = {
            "family": family,
            "op": case.op,
            "label": case.label,
            "dtype": str(dtype).removeprefix("torch."),
            "mode": mode,
            "threads": torch.get_num_threads(),
            "ours_us": our_seconds * 1e6,
            "torch_us": torch_seconds * 1e6,
            "ratio": ratio,
        }
        if mode != "backward" and not options.small:
            row |= {"bound": bound, "ours_share": least / our_seconds, "torch_share": least / torch_seconds}
        rows.append(row)
        print(report.line(row), flush=True)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmarks, prints the table, and writes the JSON and the plot asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="tensorops and torch, timed in turn; torch/ours is torch's time over ours: above 1 we are faster.",
    )
    parser.add_argument("family", nargs="*", help=f"of {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--threads", default=None, help="thread counts, such as 1,2 (default: torch's)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--modes", default="fresh,out,backward", help="of fresh,out,backward (default: all)")
    parser.add_argument("--small", action="store_true", help="a few elements of every op: what one call costs")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each row (default: 0.3)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the rows, the machine and the commit there")
    parser.add_argument("--plot", type=Path, metavar="F", help="plot each row's share of the machine's limit there")
    options = parser.parse_args(argv)
    options.device = torch.device(options.device)
    options.modes = set(options.modes.split(","))
    unknown = [*set(options.family).difference(FAMILIES), *options.modes.difference({"fresh", "out", "backward"})]
    if unknown:
        parser.error(f"no such family or mode: {', '.join(unknown)}")
    threads = [int(n) for n in options.threads.split(",")] if options.threads else [torch.get_num_threads()]

    rows, limits_of = [], {}
    before = torch.get_num_threads()
    for count in threads:
        torch.set_num_threads(count)
        limits = Limits(options.device)
        limits_of[str(count)] = limits.summary()
        print(report.heading(count, limits_of[str(count)]))
        for family in options.family or FAMILIES:
            for case in small(family) if options.small else SIZED[family]:
                for dtype in case.dtypes[:1] if options.small else case.dtypes:
                    rows += run(family, case, dtype, limits, options)
    torch.set_num_threads(before)
    print(report.totals(rows))
    document = {"machine": report.machine(options.device), "limits": limits_of, "rows": rows}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot:
        report.plot(document, options.plot)


if __name__ == "__main__":
    main()
