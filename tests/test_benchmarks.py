"""The benchmark's command on two small cases."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import cases, measure


def test_rows(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(cases.SIZED, "elementwise", [cases.unary("exp", 100), cases.binary("add", "", (8,), (8,))])
    result, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    before = torch.get_num_threads()
    command.main(["elementwise", "--threads", "1", "--seconds", "0", "--json", str(result), "--plot", str(picture)])
    assert torch.get_num_threads() == before
    document = json.loads(result.read_text())
    assert {(row["op"], row["mode"]) for row in document["rows"]} == {
        (op, mode) for op in ("exp", "add") for mode in ("fresh", "out", "backward")
    }
    assert all(row["ours_us"] > 0 and row["torch_us"] > 0 for row in document["rows"])
    assert document["limits"]["1"]["copy_GB_s"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "geometric mean" in capsys.readouterr().out


def test_unknown_family(capsys):
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "nonsense" in capsys.readouterr().err


def test_in_turn_sees_a_difference():
    x = torch.randn(2**16)
    once, thrice, ratio = measure.in_turn(
        lambda: x.exp(), lambda: x.exp().exp().exp(), torch.device("cpu"), seconds=0.05
    )
    assert thrice > once
    assert ratio > 1.5


def test_every_sized_case_can_be_drawn_in_torch():
    for family, rows in cases.SIZED.items():
        for case in rows:
            assert command.find(torch, case.op) is not None, (family, case.name)
