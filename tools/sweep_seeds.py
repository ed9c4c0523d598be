"""Asks the numerical tests of a family's table again with other random numbers: results and gradients of every row, in every
dtype, for many seeds. The tests draw one seed; a row that passes by luck shows here.

    python tools/sweep_seeds.py elementwise --seeds 30 [--op lerp]
    ATEN_CPU_CAPABILITY=default python tools/sweep_seeds.py elementwise     # the baseline kernels

It prints one line per row, dtype and check that fails for some seed, and returns 1 if there is any.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cases.case import Case, Draw
from tests.generic import check_forward, check_gradient
from tests.harness import FAMILIES, draw, family_cases


def with_seed(case: Case, seed: int) -> Case:
    """The case, with its arguments drawn from another seed."""
    return replace(case, make=lambda d: case.make(Draw(d.dtype, d.device, d.seed + seed)))


def failures(case: Case, dtype: torch.dtype, seeds: int) -> Iterator[tuple[str, int, Exception]]:
    """(check, seed, error) of every check of the row that fails for some seed."""
    checks = {"forward": check_forward}
    if case.gradient and case.torch_gradient and dtype.is_floating_point:
        checks["gradient"] = check_gradient
    for seed in range(seeds):
        seeded = with_seed(case, seed)
        for name, check in checks.items():
            try:
                check(seeded, dtype, *draw(seeded, dtype))
            except Exception as error:
                yield name, seed, error


def main() -> int:
    """Sweeps the families asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="+", choices=FAMILIES)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--op", help="only the rows of this op")
    parser.add_argument("--large", action="store_true", help="the large rows too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    failed = 0
    for family in arguments.families:
        for case in family_cases(family):
            if (arguments.op and case.op != arguments.op) or (case.large and not arguments.large):
                continue
            for dtype in case.dtypes:
                found: dict[str, list[tuple[int, Exception]]] = {}
                for check, seed, error in failures(case, dtype, arguments.seeds):
                    found.setdefault(check, []).append((seed, error))
                for check, errors in found.items():
                    failed += 1
                    seeds = ",".join(str(seed) for seed, _ in errors[:5]) + (",..." if len(errors) > 5 else "")
                    print(
                        f"{family} {check}[{case.name}] {dtype}: {len(errors)} of {arguments.seeds} seeds ({seeds}): "
                        f"{type(errors[0][1]).__name__}: {errors[0][1]}",
                        flush=True,
                    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
