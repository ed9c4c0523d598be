"""The benchmark's command on rows that take no time."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path

import pytest
import tensorops
import torch

from benchmarks import __main__ as command
from benchmarks import bench, cases, limits, measure, report
from tests.cases.case import arguments

CPU = torch.device("cpu")
ROWS = [
    bench.Op(
        "exp", "100", lambda d: arguments(d.normal(100)), cases.F32_BF16, (*cases.EVERY, "recorded"), headline=True
    ),
    bench.Op("lt", "8", lambda d: arguments(d.normal(8), d.normal(8)), modes=("fresh",)),
    bench.Op("mm", "8", lambda d: arguments(d.normal(64, 64), d.normal(64, 64)), modes=("fresh",), headline=True),
]


class FixedProbe:
    """Limits that need no measuring."""

    source = "nothing"

    def __init__(self, *_: object) -> None:
        self.read = self.copy = self.peak = lambda _: 1e9


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(limits, "Probe", FixedProbe)
    monkeypatch.setattr(command, "LEAST_SECONDS", 0)
    monkeypatch.setitem(cases.FAMILIES, "elementwise", lambda everything: ROWS)


def run(path: Path, *more: str) -> int:
    """On one thread, with no time beyond the fewest rounds."""
    return command.main(["elementwise", "--threads", "1", "--budget", "0", "--json", str(path), *more])


@pytest.fixture
def stored(tmp_path, few_rows) -> Path:
    path = tmp_path / "run.json"
    assert run(path) == 0
    return path


def test_rows_and_pictures(stored):
    pytest.importorskip("matplotlib")
    document = report.read(stored)
    assert not document["not_timed"]
    assert {(row["op"], row["dtype"], row["mode"]) for row in document["rows"]} == {
        *(("exp", dtype, mode) for dtype in ("f32", "bf16") for mode in (*cases.EVERY, "recorded")),
        ("lt", "f32", "fresh"),
        ("mm", "f32", "fresh"),
    }
    for row in document["rows"]:
        assert row["seconds"]["ours"] > 0
        assert row["ratio"]["torch"] > 0
        assert row["spread"]["torch"] >= 0
        assert ("limit" in row) == (row["mode"] != "recorded")
    (product,) = (row for row in document["rows"] if row["op"] == "mm")
    assert (product["flops"], product["bytes"]) == (2 * 64**3, 3 * 4 * 64**2)
    assert product["limit"] == pytest.approx(2 * 64**3 / 1e9)
    (exp,) = (row for row in document["rows"] if (row["op"], row["dtype"], row["mode"]) == ("exp", "f32", "fwd+bwd"))
    assert exp["bytes"] == 4 * 4 * 100  # the input and both gradients, and the result
    for picture in ("run-ratios.png", "run-roofline.png"):
        assert stored.with_name(picture).read_bytes().startswith(b"\x89PNG")


def test_threads_are_set_and_put_back(tmp_path, few_rows):
    before = torch.get_num_threads()
    assert run(tmp_path / "run.json", "--threads", f"1,{before + 1}", "-k", "lt") == 0
    assert torch.get_num_threads() == before
    assert [row["threads"] for row in report.read(tmp_path / "run.json")["rows"]] == [1, before + 1]


def test_markdown_shows_headline_rows_and_families(stored):
    text = report.markdown(report.read(stored), "run")
    assert "| mm | 8 | f32 fresh |" in text
    (exp,) = (line for line in text.splitlines() if line.startswith("| exp | 100 | f32 fresh |"))
    assert all(name in exp for name in ("out ", "fwd+bwd ", "recorded ", "bf16 "))
    assert "| lt |" not in text
    assert "| elementwise | 1 |" in text
    assert "of 10" in text
    assert "benchmarks/results/run-ratios.png" in text


def test_summary_of_a_family():
    def row(ours: float, torchs: float, **limit: float) -> dict:
        ratio = {"ratio": {"torch": torchs / ours}, "spread": {"torch": 0.0}}
        return {"family": "f", "threads": 1, "seconds": {"ours": ours, "torch": torchs}, **ratio, **limit}

    rows = [row(2.0, 4.0, limit=1.0), row(4.0, 2.0, limit=0.5), row(1.0, 8.0)]
    (found,) = report.summaries(rows)
    assert (found.rows, found.losses, found.smallest) == (3, 1, rows[1])
    assert (found.mean, found.share, found.possible) == (pytest.approx(2), pytest.approx(0.25), pytest.approx(4))
    (found,) = report.summaries(rows[2:])
    assert (found.mean, found.share, found.possible) == (pytest.approx(8), None, None)


def test_shares_of_an_older_run_are_said_to_be_too_low(stored):
    document = report.read(stored)
    assert "too low" not in report.markdown(document, "run")
    assert "too low" in report.markdown({**document, "format": report.BEST_OF_RUN}, "run")


def test_the_commit_is_marked_when_the_tree_had_changes():
    assert report.measured_commit({"commit": "0123456789abcdef"}, quote="`") == "`0123456789ab`"
    assert report.measured_commit({"commit": "0123456789abcdef-dirty"}) == "0123456789ab with changes"
    assert report.measured_commit({"commit": "unknown"}) == "unknown"


def test_the_usual_place_of_a_run_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "LATEST", tmp_path / "results" / "latest.json")
    assert command.parse([]).json.parent.is_dir()


def test_self_check(tmp_path, few_rows, capsys):
    path = tmp_path / "run.json"
    assert run(path, "--self-check", "--budget", "0.2", "-k", "exp 100 f32 fresh|mm") == 0
    document = report.read(path)
    assert document["ours"] == "torch"
    assert len(document["rows"]) == 2
    for row in document["rows"]:
        assert abs(row["ratio"]["torch"] - 1) <= max(row["spread"]["torch"], 0.02)
    printed = capsys.readouterr().out
    assert "passed" in printed
    assert "geomean" in printed
    assert "smallest" in printed


def test_self_check_sees_what_is_off():
    row = {
        "op": "exp",
        "label": "",
        "dtype": "f32",
        "mode": "fresh",
        "ratio": {"torch": 1.1},
        "spread": {"torch": 0.01},
    }
    text, right = report.self_check([row])
    assert not right
    assert "0 of 1" in text


def test_compare(stored, tmp_path, capsys):
    before = report.read(stored)
    after = copy.deepcopy(before)
    gone = after["rows"].pop()
    faster, slower, same = after["rows"][:3]
    faster["ratio"]["torch"] *= 1.5
    faster["spread"]["torch"] = slower["spread"]["torch"] = 0.01
    slower["ratio"]["torch"] /= 1.25
    for row in before["rows"][:3]:
        row["spread"]["torch"] = 0.02
    after["machine"]["torch"] = "9.9"
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    for path, document in zip(paths, (before, after), strict=True):
        report.write(document, path)
        assert report.read(path) == document
    capsys.readouterr()
    assert command.main(["--compare", *map(str, paths)]) == 0
    printed = capsys.readouterr().out
    assert "9 rows in both, 2 changed" in printed
    assert "-> 9.9" in printed
    lines = printed.splitlines()
    assert any("+50%" in line and report.described(faster) in line for line in lines)
    assert any("-20%" in line and report.described(slower) in line for line in lines)
    assert not any(report.described(same) + "," in line for line in lines)
    assert any("gone" in line and gone["op"] in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no such family: nonsense"),
        (["--against", "jax"], "--against jax"),
        (["--threads", "two"], "--threads two"),
        (["--threads", "0"], "--threads"),
        (["--budget", "-1"], "--budget"),
        (["--device", "abacus"], "--device abacus"),
        (["-k", "("], "-k ("),
        (["--json", "/nowhere/x.json"], "no such folder"),
        (["--compare", "/nowhere/a.json", "/nowhere/b.json"], "/nowhere/a.json: No such file"),
        (["--unknown"], "--unknown"),
    ],
)
def test_an_error_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_compare_refuses_another_format(tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text('{"rows": []}')
    with pytest.raises(SystemExit):
        command.main(["--compare", str(path), str(path)])
    assert "measure it again" in capsys.readouterr().err


def test_a_row_that_fails_is_listed_and_the_others_go_on(tmp_path, few_rows, monkeypatch, capsys):
    failing = bench.Op("mm", "bad", lambda d: arguments(d.normal(2, 3), d.normal(2, 3)), modes=("fresh",))
    missing = bench.Op("fft.fft", "", lambda d: arguments(d.normal(8)), modes=("fresh",))
    rows = [failing, missing, ROWS[2]]
    monkeypatch.setitem(cases.FAMILIES, "elementwise", lambda everything: rows)
    path = tmp_path / "run.json"
    assert run(path) == 1
    document = json.loads(path.read_text())
    assert [row["label"] for row in document["rows"]] == ["8"]
    assert [item["row"].split()[0] for item in document["not_timed"]] == ["mm", "fft.fft"]
    assert "not timed: fft.fft  f32 fresh, 1 threads: not in tensorops" in capsys.readouterr().out


def test_what_was_measured_before_an_interrupt_is_stored(tmp_path, few_rows, monkeypatch, capsys):
    real, turns = measure.in_turn, []

    def interrupted(*args):
        turns.append(args)
        if len(turns) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(command, "in_turn", interrupted)
    assert run(tmp_path / "run.json") == 1
    assert len(report.read(tmp_path / "run.json")["rows"]) == 2
    assert "interrupted" in capsys.readouterr().err


def test_in_turn_sees_a_difference():
    x = torch.randn(2**14)
    contenders = {"once": lambda: x.exp(), "thrice": lambda: x.exp().exp().exp()}
    timing = measure.in_turn(contenders, CPU, budget=0.05)
    assert timing.seconds["thrice"] > timing.seconds["once"]
    assert timing.ratios["thrice"].median > 1.5


def test_a_contender_of_a_minute_takes_two_rounds_and_no_more(monkeypatch):
    now = 0.0
    taken = {"ours": [], "torch": []}

    def takes(name: str, seconds: float):
        def call() -> None:
            nonlocal now
            now += seconds
            taken[name].append(now)

        return call

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now)
    timing = measure.in_turn({"ours": takes("ours", 0.5), "torch": takes("torch", 60.0)}, CPU, budget=0.3)
    assert timing.rounds == 2 and timing.ratios["torch"].median == 120
    for name, calls in taken.items():
        assert len(calls) == 4, name  # one that warms up, one that finds how many fill a sample, and two that count


def test_a_gpu_is_timed_by_its_own_clock(monkeypatch):
    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.recorded = self.waited_for = False
            assert enable_timing

        def record(self) -> None:
            self.recorded = True

        def synchronize(self) -> None:
            self.waited_for = True

        def elapsed_time(self, last: Event) -> float:
            assert self.recorded and last.recorded and last.waited_for
            return 10.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    calls = []
    assert measure.sample(lambda: calls.append(1), 5, torch.device("cuda")) == pytest.approx(2e-3)
    assert len(calls) == 5


def test_disturbed_rounds_do_not_count():
    quiet = [{"ours": 1.0 + 0.01 * i, "torch": 2.0} for i in range(6)]
    assert measure.undisturbed([*quiet, {"ours": 9.0, "torch": 2.0}, {"ours": 1.0, "torch": 9.0}]) == quiet
    few = quiet[:2] + [{"ours": 9.0, "torch": 2.0}] * 4
    assert measure.undisturbed(few) == few


def test_spread_of_a_median():
    ratio = measure.Ratio.of([1.0] * 50 + [1.1] * 25 + [0.9] * 25)
    assert ratio == measure.Ratio(1.0, 0.0)
    assert measure.Ratio.of([0.5, 1.0, 2.0]) == measure.Ratio(1.0, 1.0)


def test_limits_are_those_of_the_moment_and_the_best_of_all(monkeypatch):
    monkeypatch.setattr(limits, "Probe", FixedProbe)
    found = limits.Limits(CPU, 1)
    assert found.at_best("read", 2**20) == found.now("read", 2**20) == 1e9
    for measured, best in ((3e9, 3e9), (2e9, 3e9)):
        monkeypatch.setattr(found.probe, "read", lambda _, measured=measured: measured)
        monkeypatch.setattr(limits, "NOW_SECONDS", 100)
        before = found.latest["read", 2**20][1]
        assert found.now("read", 2**20) == before
        monkeypatch.setattr(limits, "NOW_SECONDS", 0)
        assert found.now("read", 2**20) == measured
        assert found.at_best("read", 2**20) == best
        assert found.seconds(1e6, 0, 0, torch.float32, now=True)[0] == pytest.approx(1e6 / measured)
        assert found.seconds(1e6, 0, 0, torch.float32, now=False)[0] == pytest.approx(1e6 / best)


def test_limits_hold_traffic_and_arithmetic_against_the_machine(monkeypatch):
    monkeypatch.setattr(limits, "Probe", FixedProbe)
    found = limits.Limits(CPU, 1)
    found.probe.copy = lambda size: 2e9
    assert found.seconds(3e6, 1e6, 0, torch.float32, now=True) == (pytest.approx(2e6 / 2e9 + 2e6 / 1e9), "memory")
    assert found.seconds(1, 1, 1e9, torch.float32, now=True) == (1, "arithmetic")


def test_probe_measures_the_cpu(monkeypatch):
    try:
        probe = limits.Probe(1)
    except (OSError, subprocess.CalledProcessError):
        pytest.fail("the test environment has a compiler")
    assert 1e8 < probe.read(2**16) < 1e13
    assert 1e8 < probe.copy(2**16) < 1e13
    assert probe.peak(torch.float64) < probe.peak(torch.float32) <= probe.peak(torch.bfloat16) * 1.2


def test_without_a_compiler_torch_measures(monkeypatch, capsys):
    limits._compiled_probe.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = limits.Limits(CPU, 1)
    limits._compiled_probe.cache_clear()
    assert isinstance(found.probe, limits.TorchProbe)
    assert found.now("copy", 2**16) > 0
    assert "no-such-compiler" in capsys.readouterr().out


def test_a_gradient_that_is_passed_on_is_not_written():
    def work(op: str, *shape: int) -> tuple[float, float]:
        row = bench.Op(op, "", lambda d: arguments(d.normal(*shape), *([d.normal(*shape)] if op == "add" else [])))
        given = row.arguments("fwd+bwd", row.draw(torch.float32, "cpu"))
        return row.work("fwd+bwd", given)[:2]

    assert work("add", 10) == (80, 40)
    assert work("sum", 10) == (40, 4)
    assert work("exp", 10) == (80, 80)


def test_sized_draws_the_cases_of_the_tests_at_another_size():
    for name, case in cases.elementwise_cases().items():
        args, kwargs = case.make(cases.Sized(case.dtypes[0], count=5000))
        result = bench.tensors(bench.find(torch, case.op)(*args, **kwargs))[0]
        assert result.shape == (5000,), name


@pytest.mark.parametrize("everything", [False, True], ids=["usual", "all"])
def test_every_row_is_of_torch_and_named_once(everything):
    names = set()
    for family, rows in cases.FAMILIES.items():
        for row in rows(everything):
            if isinstance(row, bench.Op):
                assert row.of(torch) is not None, (family, row.op)
            assert (family, row.op, row.label) not in names
            names.add((family, row.op, row.label))


def test_all_times_every_op_of_the_package():
    timed = {report.short(row.op) for rows in cases.FAMILIES.values() for row in rows(True)}
    ours = {name for name in tensorops._C.bound_functions() if not name.endswith("_") and not name.startswith("_")}
    # Timed as max_pool2d; and what undoes it, which no network here has.
    assert ours - timed == {"max_pool2d_with_indices", "max_unpool2d"}
