"""What is shown of the rows: lines in the terminal, a summary, a Markdown table, a plot."""

from __future__ import annotations

import datetime
import math
import platform
from collections import defaultdict
from pathlib import Path

import torch

# Below this torch/ours counts as a loss; what is closer to 1 is within the noise of a shared machine.
SLOWER = 0.95


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
        "cpu_capability": tensorops._C.cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "compiler": facts["compiler"],
        "commit": facts["commit"],
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def heading(threads: int, limits: dict[str, float]) -> str:
    """The machine's limits at this thread count, and the columns."""
    return (
        f"\n{threads} threads: copy {limits['copy_GB_s']:.1f} GB/s, read {limits['read_GB_s']:.1f} GB/s, "
        f"float32 matmul {limits['f32_GFLOP_s']:.0f} GFLOP/s\n"
        f"{'op':34}{'case':28}{'dtype':10}{'mode':10}{'ours µs':>12}{'torch µs':>12}{'torch/ours':>11}  of the limit"
    )


def line(row: dict) -> str:
    """One row of the terminal's table; a loss is marked."""
    op = row["op"].removeprefix("nn.functional.")
    share = f"{row['ours_share']:6.0%} ({row['bound']})" if "ours_share" in row else ""
    mark = "  slower" if row["ratio"] < SLOWER else ""
    return (
        f"{op:34}{row['label'][:27]:28}{row['dtype']:10}{row['mode']:10}"
        f"{row['ours_us']:12.1f}{row['torch_us']:12.1f}{row['ratio']:11.2f}  {share}{mark}"
    )


def geometric_mean(values: list[float]) -> float:
    """The mean that suits ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def totals(rows: list[dict]) -> str:
    """Per family: the mean ratio, the worst row, how many rows lose."""
    families = defaultdict(list)
    for row in rows:
        families[row["family"]].append(row)
    lines = [""]
    for family, members in families.items():
        worst = min(members, key=lambda row: row["ratio"])
        slower = sum(row["ratio"] < SLOWER for row in members)
        mean = geometric_mean([row["ratio"] for row in members])
        lines.append(
            f"{family:12} torch/ours {mean:5.2f} (geometric mean of {len(members)}), slower in {slower}, "
            f"worst {worst['ratio']:.2f}: {worst['op']} {worst['label']} {worst['dtype']} {worst['mode']}"
        )
    return "\n".join(lines)


def markdown(document: dict) -> str:
    """A table for the README: a line per case at the largest thread count, losses in bold."""
    about, threads = document["machine"], max(row["threads"] for row in document["rows"])
    limits = document["limits"][str(threads)]
    where = about["device"] if about["device"] != "cpu" else about["cpu"]
    cases: dict[tuple[str, str, str], dict[str, dict]] = defaultdict(dict)
    for row in document["rows"]:
        if row["threads"] == threads:
            cases[row["op"].removeprefix("nn.functional."), row["label"], row["dtype"]][row["mode"]] = row

    def ratio(modes: dict[str, dict], mode: str) -> str:
        if mode not in modes:
            return ""
        value = modes[mode]["ratio"]
        return f"**{value:.2f}**" if value < SLOWER else f"{value:.2f}"

    text = [
        f"{where} ({about['cpu_capability']}), {threads} threads: copy {limits['copy_GB_s']:.1f} GB/s, "
        f"read {limits['read_GB_s']:.1f} GB/s, float32 matmul {limits['f32_GFLOP_s']:.0f} GFLOP/s; "
        f"torch {about['torch']}, commit `{about['commit'][:12]}`. "
        "Ratios are torch's time over ours, the median over pairs timed in turn: above 1 we are faster, and a "
        "number in **bold** is a loss. The limit is a copy of as many bytes, or the matmul peak.",
        "",
        "| op | case | dtype | ours µs | torch µs | torch/ours | with out= | backward | share of the limit |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (op, label, dtype), modes in cases.items():
        if fresh := modes.get("fresh"):
            share = f"{fresh['ours_share']:.0%}" if "ours_share" in fresh else ""
            ratios = " | ".join(ratio(modes, mode) for mode in ("fresh", "out", "backward"))
            times = f"{fresh['ours_us']:.1f} | {fresh['torch_us']:.1f}"
            text.append(f"| {op} | {label} | {dtype} | {times} | {ratios} | {share} |")
    return "\n".join(text) + "\n"


def plot(document: dict, path: Path) -> None:
    """Each row's share of the machine's limit, ours above torch's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in document["rows"] if "ours_share" in row]
    names = [
        f"{row['op'].removeprefix('nn.functional.')} {row['label']} {row['dtype']} {row['mode']} ({row['threads']})"
        for row in rows
    ]
    figure, axes = pyplot.subplots(figsize=(10, 1.5 + 0.24 * len(rows)), layout="constrained")
    places = range(len(rows))
    axes.barh([p - 0.2 for p in places], [row["ours_share"] for row in rows], 0.4, color="tab:blue", label="tensorops")
    axes.barh([p + 0.2 for p in places], [row["torch_share"] for row in rows], 0.4, color="tab:orange", label="torch")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("share of the machine's limit: copy bandwidth at that size, or the matmul peak")
    axes.set_title(f"{document['machine']['cpu']}, torch {document['machine']['torch']}")
    axes.legend()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
