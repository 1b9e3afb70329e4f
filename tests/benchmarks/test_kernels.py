"""The one-minute check of a device: right kernels pass, wrong ones are found, and it goes on where it stopped."""

import json

import pytest
import torch

from benchmarks import cli
from benchmarks.speed import kernels
from partial_adaptive import MEMBERS

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Small tensors to time, and a copy to match."""
    monkeypatch.setattr(kernels, "LARGE", {"cpu": 1000})
    monkeypatch.setattr(kernels, "MATRICES", ((8, 8), (8, 8)))
    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device, rounds: 1e9)
    monkeypatch.setattr(kernels, "SHAPES", ((1,), (7,), (5, 6), (1025,)))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


def test_every_member_is_right_on_the_cpu(tmp_path, capsys):
    """A row each, fused where the member has that mode; the exit code says that nothing is wrong."""
    output = tmp_path / "kernels.md"
    assert cli.main(["kernels", "--device", "cpu", "--rounds", "1", "--output", str(output)]) == 0
    rows = json.loads(output.with_suffix(".json").read_text())["rows"]
    assert [row["member"] for row in rows] == list(MEMBERS)
    assert {row["member"] for row in rows if row["mode"] == "fused"} == {
        name for name, member in MEMBERS.items() if member.elementwise
    }
    assert all(row["right"] == "yes" and row["ms"] > 0 and row["bandwidth %"] > 0 for row in rows)
    assert "| partial_soap " in capsys.readouterr().out


def test_a_learning_rate_that_is_not_seen_is_found(monkeypatch, capsys):
    """A replayed step that still has the rate of its capture ends elsewhere: exit code 1, and which members."""
    monkeypatch.setattr(kernels, "_set_rate", lambda optimizer, rate: None)
    assert cli.main(["kernels", "--device", "cpu", "--members", "padam,partial_muon", "--rounds", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count(" NO ") == 2
    assert "wrong kernels: padam, partial_muon" in captured.err


def test_a_member_that_fails_does_not_hide_the_others(monkeypatch, tmp_path):
    """Its row says no, with the reason above the table; the rows that are there are not measured again."""
    fast, built = kernels._fast, []

    def refuse(name, params):
        built.append(name)
        if name == "padam":
            raise RuntimeError("no kernel for this device")
        return fast(name, params)

    monkeypatch.setattr(kernels, "_fast", refuse)
    arguments = (CPU, ["padam", "partial_yogi"], 1, tmp_path / "k.md")
    assert kernels.run(*arguments) == ["padam"]
    assert built == ["padam", "partial_yogi", "partial_yogi"]
    assert kernels.run(*arguments) == ["padam"]
    assert len(built) == 3
