"""What is said of the rows: lines in the terminal, a summary, what changed since another run, Markdown for the README."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# In the format before, limits were the best that the whole run had measured, not those of each row's moment.
FORMAT, BEST_OF_RUN = 3, 2
Document = dict[str, Any]
KEY = ("family", "op", "label", "dtype", "mode", "threads")


def machine(device: torch.device) -> dict[str, object]:
    """Where, with what, and on which commit the rows were measured."""
    import tensorops

    facts = tensorops._C.build_facts()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {
        "cpu": name,
        "cpus": os.cpu_count(),
        "cpu_capability": tensorops._C.cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "compiler": facts["compiler"],
        "commit": facts["commit"],
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def measured_commit(about: dict[str, str], quote: str = "") -> str:
    """Twelve digits of the commit, and whether the tree that was built had changes on top of it."""
    commit, _, changed = about["commit"].partition("-")
    return f"{quote}{commit[:12]}{quote}{' with changes' if changed else ''}"


def read(path: Path) -> Document:
    """A stored run; ValueError says what is wrong with the file."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") not in (FORMAT, BEST_OF_RUN):
        raise ValueError(f"{path}: not a run of this benchmark (format {FORMAT}); measure it again")
    return document


def write(document: Document, path: Path) -> None:
    """Stores a run, a row a line."""
    parts = []
    for name, value in document.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n]"
        parts.append(f"{json.dumps(name)}: {text}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def key(row: dict) -> tuple:
    """What makes a row the same in another run."""
    return tuple(row[name] for name in KEY)


def short(op: str) -> str:
    """An op's name without its modules."""
    return op.removeprefix("nn.functional.")


def described(row: dict) -> str:
    """A row in words."""
    return f"{short(row['op'])} {row['label']} {row['dtype']} {row['mode']}"


def verdict(row: dict, other: str) -> str:
    """A "win" or a "loss" where the ratio is off 1 by more than its spread, "even" otherwise."""
    ratio, spread = row["ratio"][other], row["spread"][other]
    return "loss" if ratio * (1 + spread) < 1 else "win" if ratio * (1 - spread) > 1 else "even"


def time(seconds: float) -> str:
    """Microseconds, in about four digits."""
    us = seconds * 1e6
    return f"{us:.2f}" if us < 100 else f"{us:.0f}" if us >= 1000 else f"{us:.1f}"


def plus_minus(spread: float) -> str:
    """A spread in percent; beyond 1 it only says that nothing is known."""
    return f"{spread:.0%}" if spread < 1 else ">99%"


def limits(found: dict[str, Any]) -> str:
    """The machine's limits in a line."""
    peaks = ", ".join(f"{value:.0f} in {dtype}" for dtype, value in found["peak_GFLOP_s"].items())
    return (
        f"read {found['read_GB_s']:.1f} GB/s, copy {found['copy_GB_s']:.1f} GB/s ({found['cached_copy_GB_s']:.0f} in the "
        f"caches), GFLOP/s {peaks} ({found['measured_with']})"
    )


def heading(threads: int, found: dict[str, Any], ours: str, against: Iterable[str]) -> str:
    """The machine's limits at this thread count, and the columns."""
    others = "".join(f"{f'{name} µs':>12}{f'{name}/ours':>13}{'±':>5}" for name in against)
    return (
        f"\n{threads} thread{'s' if threads > 1 else ''}: {limits(found)}\n"
        f"{'op':20}{'case':30}{'dtype':6}{'mode':10}{f'{ours} µs':>13}{others}  share of the limit"
    )


def line(row: dict) -> str:
    """One row of the terminal's table; a loss is marked."""
    others = "".join(
        f"{time(row['seconds'][name]):>12}{ratio:>13.2f}{plus_minus(row['spread'][name]):>5}"
        for name, ratio in row["ratio"].items()
    )
    share = f"{row['limit'] / row['seconds']['ours']:6.0%} {row['bound']}" if "limit" in row else ""
    losses = [name for name in row["ratio"] if verdict(row, name) == "loss"]
    mark = f"  slower than {', '.join(losses)}" if losses else ""
    return (
        f"{short(row['op'])[:19]:20}{row['label'][:29]:30}{row['dtype']:6}{row['mode']:10}"
        f"{time(row['seconds']['ours']):>13}{others}  {share:17}{mark}".rstrip()
    )


def geometric_mean(values: Iterable[float]) -> float:
    """The mean that suits ratios."""
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def optional(value: float | None, form: str) -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, form)


@dataclass(frozen=True)
class Summary:
    """What is said of a family at one thread count against one opponent.

    mean: of theirs over ours; share: of the limit over ours; possible: of theirs over the limit, which the mean would be if
    ours ran at the limit. The last two are of the rows that have a limit, None where none has.
    """

    family: str
    threads: int
    other: str
    rows: int
    mean: float
    share: float | None
    possible: float | None
    losses: int
    smallest: dict


def summaries(rows: Iterable[dict]) -> list[Summary]:
    """In the order of the rows."""
    groups: dict[tuple[str, int, str], list[dict]] = defaultdict(list)
    for row in rows:
        for other in row["ratio"]:
            groups[row["family"], row["threads"], other].append(row)
    found = []
    for (family, threads, other), members in groups.items():
        mean = geometric_mean(row["ratio"][other] for row in members)
        limited = [row for row in members if "limit" in row]
        share = geometric_mean(row["limit"] / row["seconds"]["ours"] for row in limited) if limited else None
        possible = geometric_mean(row["seconds"][other] / row["limit"] for row in limited) if limited else None
        losses = sum(verdict(row, other) == "loss" for row in members)
        smallest = min(members, key=lambda row: row["ratio"][other])
        found.append(Summary(family, threads, other, len(members), mean, share, possible, losses, smallest))
    return found


def totals(rows: list[dict]) -> str:
    """Per family, thread count and opponent: the geometric means, how many rows lose, the smallest."""
    lines = [
        f"\n{'family':13}{'threads':>7}  {'against':9}{'rows':>5}{'geomean':>9}{'share':>7}{'at the limit':>14}"
        f"{'losses':>8}  smallest"
    ]
    for s in summaries(rows):
        ratio, spread = s.smallest["ratio"][s.other], plus_minus(s.smallest["spread"][s.other])
        lines.append(
            f"{s.family:13}{s.threads:>7}  {s.other:9}{s.rows:>5}{s.mean:>9.2f}"
            f"{optional(s.share, '.0%'):>7}{optional(s.possible, '.2f'):>14}{s.losses:>8}  "
            f"{ratio:.2f} ±{spread}  {described(s.smallest)}"
        )
    return "\n".join(lines)


def self_check(rows: list[dict]) -> tuple[str, bool]:
    """Of a run of torch against torch: whether the ratios are 1 within their spread, as 99 % of them should be."""
    off = [row for row in rows if verdict(row, "torch") != "even"]
    mean = geometric_mean(row["ratio"]["torch"] for row in rows)
    right = len(off) <= max(1, len(rows) // 10) and abs(mean - 1) < 0.02
    lines = [f"\n{described(row)}: {row['ratio']['torch']:.3f} ±{row['spread']['torch']:.1%}" for row in off]
    return (
        f"{''.join(lines)}\ntorch against torch: geometric mean {mean:.3f}; 1.0 lies within the printed spread of "
        f"{len(rows) - len(off)} of {len(rows)} rows: {'passed' if right else 'FAILED'}",
        right,
    )


def compare(before: Document, after: Document) -> str:
    """What changed from one run to another, by the ratios to torch, which do not depend on how fast the machine was.

    A row has changed where the ratios differ by more than both spreads together.
    """
    lines = []
    for name in sorted({*before["machine"], *after["machine"]}):
        old, new = before["machine"].get(name), after["machine"].get(name)
        if old != new:
            lines.append(f"{name}: {old} -> {new}")
    olds, news = ({key(row): row for row in document["rows"]} for document in (before, after))
    both = [place for place in olds if place in news]
    changes: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    changed = []
    for place in both:
        old, new = olds[place], news[place]
        for other in old["ratio"].keys() & new["ratio"].keys():
            change = new["ratio"][other] / old["ratio"][other]
            changes[new["family"], other, new["threads"]].append(change)
            if abs(math.log(change)) > math.log1p(old["spread"][other]) + math.log1p(new["spread"][other]):
                changed.append((change, old, new, other))
    lines.append(
        f"\n{len(both)} rows in both, {len(changed)} changed; ours is faster (+) or slower (-) in relation to torch"
    )
    for change, old, new, other in sorted(changed, key=lambda item: item[0]):
        lines.append(
            f"{change - 1:+8.0%}  {other}/ours {old['ratio'][other]:.2f} -> {new['ratio'][other]:.2f}, ours "
            f"{time(old['seconds']['ours'])} -> {time(new['seconds']['ours'])} µs  {described(new)}, {new['threads']} thr"
        )
    lines.append("")
    for (family, other, threads), values in changes.items():
        lines.append(f"{geometric_mean(values) - 1:+8.0%}  {family}, {threads} thr, {other}, of {len(values)} rows")
    for name, some in (("gone", olds.keys() - news.keys()), ("new", news.keys() - olds.keys())):
        lines += [f"{name:>8}  {' '.join(map(str, place))}" for place in sorted(some)]
    return "\n".join(lines)


def markdown(document: Document, stem: str) -> str:
    """For the README: the machine, a line per family, the headline rows at the largest thread count, the pictures."""
    about, rows = document["machine"], document["rows"]
    threads = max(row["threads"] for row in rows)
    against = document["against"]
    where = about["device"] if about["device"] != "cpu" else about["cpu"]

    def number(row: dict, other: str) -> str:
        text = f"{row['ratio'][other]:.2f}"
        return f"**{text}**" if verdict(row, other) == "loss" else text

    text = [
        f"{where} ({about['cpu_capability']}), {threads} threads: {limits(document['limits'][str(threads)])}; "
        f"torch {about['torch']}, commit {measured_commit(about, quote='`')}. "
        "Ratios are theirs over ours: above 1 we are faster, and a number in **bold** is a loss by more than the spread. "
        "A family's is the geometric mean of its rows, as is its share of the machine's limit; *at the limit* is what the "
        "ratio would be if every row of ours took the least time that the machine can do it in."
        + (
            " The limits of this run are the best of all of it: shares are too low."
            if document["format"] == BEST_OF_RUN
            else ""
        ),
        "",
        "| family | threads | against | theirs/ours | share | at the limit | losses | smallest |",
        "|---|--:|---|--:|--:|--:|--:|---|",
    ]
    for s in summaries(rows):
        smallest = f"{number(s.smallest, s.other)} {described(s.smallest)}"
        means = f"{s.mean:.2f} | {optional(s.share, '.0%')} | {optional(s.possible, '.2f')}"
        text.append(f"| {s.family} | {s.threads} | {s.other} | {means} | {s.losses} of {s.rows} | {smallest} |")
    shown: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in rows:
        if row["threads"] == threads and row["headline"]:
            shown[short(row["op"]), row["label"]].append(row)
    columns = " | ".join(f"{name} µs | {name}/ours" for name in against)
    text += [
        "",
        f"| op | case | | ours µs | {columns} | limit | others |",
        f"|---|---|---|--:|{'--:|--:|' * len(against)}--:|---|",
    ]
    for (op, label), (row, *others) in shown.items():
        cells = [time(row["seconds"]["ours"])]
        for name in against:
            have = name in row["ratio"]
            cells += [time(row["seconds"][name]), number(row, name)] if have else ["", ""]
        cells.append(f"{row['limit'] / row['seconds']['ours']:.0%}" if "limit" in row else "")
        said = []
        for other in others:  # the other modes of the same dtype, the same mode of the other dtypes
            name = other["mode"] if other["dtype"] == row["dtype"] else other["dtype"]
            if row["dtype"] == other["dtype"] or row["mode"] == other["mode"]:
                said.append(" ".join([name, *(number(other, against) for against in other["ratio"])]))
        text.append(f"| {op} | {label} | {row['dtype']} {row['mode']} | {' | '.join([*cells, ', '.join(said)])} |")
    folder = f"benchmarks/results/{stem}"
    text += ["", f"![Ratios of all rows]({folder}-ratios.png)", "", f"![Roofline]({folder}-roofline.png)"]
    return "\n".join(text) + "\n"
