"""Two pictures of a run: the ratios of all rows, and the roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import report

COLOURS = {"loss": "tab:red", "even": "tab:gray", "win": "tab:blue"}
MARKERS = {"f32": "o", "f64": "s", "bf16": "^"}
NAMED = 3  # so many of a panel's smallest rows are named


def draw(document: report.Document, prefix: Path) -> list[Path]:
    """Writes PREFIX-ratios.png and PREFIX-roofline.png; ImportError without matplotlib.

    Both show the largest thread count.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    threads = max(row["threads"] for row in document["rows"])
    rows = [row for row in document["rows"] if row["threads"] == threads]
    about = document["machine"]
    where = about["device"] if about["device"] != "cpu" else f"{about['cpu']} ({about['cpu_capability']})"
    plural = "s" if threads > 1 else ""
    title = f"{where}, {threads} thread{plural}, torch {about['torch']}, commit {report.measured_commit(about)}"
    figures = {
        "ratios": ratios(rows, document["against"], document["ours"]),
        "roofline": roofline(rows, document["limits"][str(threads)]),
    }
    paths = []
    for name, figure in figures.items():
        figure.suptitle(f"{title}\n{figure.get_suptitle()}", fontsize=10)
        paths.append(prefix.with_name(f"{prefix.name}-{name}.png"))
        figure.savefig(paths[-1], dpi=110)
        pyplot.close(figure)
    return paths


def ratios(rows: list[dict], against: list[str], ours: str) -> Any:
    """A panel per family and opponent."""
    from matplotlib import pyplot

    panels = []
    for family in dict.fromkeys(row["family"] for row in rows):
        for other in against:
            members = [row for row in rows if row["family"] == family and other in row["ratio"]]
            if members:
                panels.append((family, other, sorted(members, key=lambda row: row["ratio"][other])))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    size = (9 if columns == 1 else 13, 2.8 * lines + 0.6)
    figure, grid = pyplot.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        ratio_panel(axes, *panel, ours)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(
        f"time of theirs over {ours}, in order: above 1 {ours} is faster; blue faster, red slower, gray within the spread"
    )
    return figure


def ratio_panel(axes: Any, family: str, other: str, rows: list[dict], ours: str) -> None:
    """A family's ratios in ascending order, each with its spread, the smallest by name."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [row["ratio"][other] for row in rows]
    low, high = min(0.7, values[0] * 0.8), max(1.5, values[-1] * 1.4)
    axes.axhline(1, color="black", linewidth=1)
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        colour, spread = COLOURS[report.verdict(row, other)], row["spread"][other]
        axes.vlines(place, min(1, value), max(1, value), color=colour, linewidth=1, alpha=0.4)
        axes.vlines(place, value * max(0.01, 1 - spread), value * (1 + spread), color=colour, linewidth=3, alpha=0.35)
        axes.plot(place, value, "o", color=colour, markersize=4)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", alpha=0.3)
    axes.set_xticks([])
    axes.set_xlim(-1, len(rows))
    axes.set_ylabel(f"{other} / {ours}")
    slower = sum(report.verdict(row, other) == "loss" for row in rows)
    mean = report.geometric_mean(values)
    axes.set_title(f"{family}: geometric mean {mean:.2f}, {slower} of {len(rows)} rows slower", fontsize=10)
    named = [f"{row['ratio'][other]:.2f}  {report.described(row)}" for row in rows[:NAMED]]
    axes.text(0.015, 0.95, "\n".join(named), transform=axes.transAxes, va="top", fontsize=7.5, color="0.25")


def roofline(rows: list[dict], limits: dict[str, Any]) -> Any:
    """A point per row, below the roofs that the measured bandwidths and peaks make."""
    import numpy
    from matplotlib import pyplot

    rows = [row for row in rows if "limit" in row]
    figure, axes = pyplot.subplots(figsize=(11, 6.5), layout="constrained")
    peaks, cached = limits["peak_GFLOP_s"], limits["cached_copy_GB_s"]
    intensities = [row["flops"] / row["bytes"] for row in rows]
    low, high = min([*intensities, 0.1]) / 2, max([*intensities, 100]) * 2
    roof = max(peaks.values())
    for name, bandwidth, style in (
        ("read, memory", limits["read_GB_s"], "--"),
        ("copy, memory", limits["copy_GB_s"], "-"),
        ("copy, caches", cached, ":"),
    ):
        x = numpy.array([low, roof / bandwidth])
        axes.plot(x, x * bandwidth, style, color="black", linewidth=1.2, label=f"{name}: {bandwidth:.0f} GB/s")
    # Measured one by one, peaks of one width differ a little: they share a line.
    for value in sorted({max(peak for peak in peaks.values() if peak < 1.1 * other) for other in peaks.values()}):
        dtypes = ", ".join(dtype for dtype, peak in peaks.items() if value / 1.1 < peak <= value)
        axes.plot([value / cached, high], [value, value], color="black", linewidth=1)
        place = {"xytext": (-4, 3), "textcoords": "offset points", "ha": "right", "fontsize": 8}
        axes.annotate(f"{dtypes}: {value:.0f} GFLOP/s", (high, value), **place)
    for number, family in enumerate(dict.fromkeys(row["family"] for row in rows)):
        for dtype, marker in MARKERS.items():
            some = [row for row in rows if row["family"] == family and row["dtype"] == dtype]
            axes.scatter(
                [row["flops"] / row["bytes"] for row in some],
                [row["flops"] / row["seconds"]["ours"] / 1e9 for row in some],
                marker=marker,
                s=26,
                color=f"C{number}",
                alpha=0.8,
                edgecolors="white",
                linewidths=0.5,
            )
        axes.scatter([], [], color=f"C{number}", s=26, label=family)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(top=roof * 2)
    axes.set_xlabel(
        "flop per byte that has to be moved (where there are no products: one flop for each element of the arguments)"
    )
    axes.set_ylabel("GFLOP/s of ours")
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle("each row below what the machine allows: circles float32, squares float64, triangles bfloat16")
    return figure
