"""The page "On a GPU": its tables say what the records say, and no more."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import studies
from benchmarks.base.config import RunConfig
from benchmarks.base.records import Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.report.evidence import archive, on_gpu

HERE = {"sources": "abc", "torch": "2", "commit": "c0ffee"}


def recorded(
    root: Path,
    name: str,
    score: Callable[[RunConfig, int], tuple[float, float]],
    leave: int = 0,
    device: Callable[[RunConfig], str] = lambda config: "a GPU",
) -> None:
    """An archive with all runs of a study but the last few; scores by epoch: running and recalibrated."""
    store = Store(root / name)
    store.prepare()
    runs = list(studies.load(name).runs())
    for run in runs[: len(runs) - leave]:
        epochs = []
        for epoch in range(1, run.config.epochs + 1):
            running, recalibrated = ({"top1": value} for value in score(run.config, epoch))
            epochs.append(Epoch(epoch=epoch, test=Evaluation(running, recalibrated)))
        store.write(run.config, "data", HERE | {"device": device(run.config)}, epochs)
    archive.pack(store, root / f"{name}{archive.SUFFIX}")


def test_batch_norm_is_asked_early_and_at_the_end_by_both_statistics(tmp_path: Path) -> None:
    """Each row compares the scores of its epoch and its statistics, and a verdict is that of these runs."""

    def score(config: RunConfig, epoch: int) -> tuple[float, float]:
        padam, noise = config.optimizer == "padam", 0.1 * config.seed
        return 60 + epoch / 10 + 5 * padam + noise, 80 - 3 * padam * (epoch == 50) + noise

    recorded(tmp_path, "paper-bn", score)
    table = on_gpu.batch_norm(on_gpu.report(tmp_path, "paper-bn"))
    assert [(row[0], row[1], row[4], row[5]) for row in table.rows] == [
        ("12", "running", "+5.00", "confirmed"),
        ("12", "recalibrated", "+0.00", "undecided"),
        ("50", "running", "+5.00", "confirmed"),
        ("50", "recalibrated", "−3.00", "not confirmed"),
    ]
    assert table.rows[0][3].startswith("61.30 [")
    assert table.rows[0][2].startswith("66.30 [")
    assert "3 seeds" in table.note
    assert "6 runs, a GPU, torch 2, commit c0ffee, sources abc" in table.note


def test_runs_of_two_devices_are_named(tmp_path: Path) -> None:
    """What the note says of all runs is of all of them, or it says that it is not."""
    device = {"sgd": "one GPU", "padam": "another GPU"}
    recorded(tmp_path, "paper-bn", lambda config, epoch: (60.0, 70.0), device=lambda config: device[config.optimizer])
    note = on_gpu.batch_norm(on_gpu.report(tmp_path, "paper-bn")).note
    assert "one GPU" in note
    assert "another GPU" in note


def test_an_unfinished_study_shows_what_was_tried_in_full(tmp_path: Path) -> None:
    """An entry of which a rate is missing has no row; a best rate that is the largest tried is flagged."""
    runs = list(studies.load("which-p-cifar10").runs())
    rates: dict[str, list[float]] = {}
    for run in runs:
        rates.setdefault(run.arm.entry, []).append(run.config.hyper["lr"])
    first, *others = (sorted({*some}) for some in rates.values())
    best = {first[-1], *(some[4] for some in others)}

    def score(config: RunConfig, epoch: int) -> tuple[float, float]:
        lr, odd = config.hyper["lr"], config.seed % 2  # of two seeds one is a point better
        if config.hyper.get("partial") == 1 / 16 and lr == others[0][0]:
            return math.nan, 0.0
        return (70.0 if lr in best else 60.0) + odd, 0.0

    second = sum(run.config.seed == runs[-1].config.seed for run in runs)
    assert len(runs) == 2 * second
    # Of the first seed a run is missing, of the second all are.
    recorded(tmp_path, "which-p-cifar10", score, leave=second + 1)
    rows = on_gpu.trials(on_gpu.report(tmp_path, "which-p-cifar10")).rows
    assert [row[0] for row in rows] == [*rates][:-1]
    assert [row[3] for row in rows] == [f"{first[-1]:g} (!)", *(f"{some[4]:g}" for some in others[:-1])]
    assert {row[1:3] for row in rows} == {("8", "1")}
    assert [row[4:] for row in rows[:3]] == [("70.00", "60.00"), ("70.00", "diverged"), ("70.00", "60.00")]

    recorded(tmp_path, "which-p-cifar10", score, leave=second // 2)
    rows = on_gpu.trials(on_gpu.report(tmp_path, "which-p-cifar10")).rows
    assert [row[0] for row in rows] == [*rates]
    assert {row[1:3] for row in rows} == {("8", "2"), ("8", "1")}
    assert rows[0][4:] == ("70.50", "60.50")


@pytest.mark.parametrize(("mode", "share"), [("fused, captured", "98 %"), ("foreach", "–")])
def test_a_kernels_bandwidth(mode: str, share: str) -> None:
    """Only of fused kernels, of which nothing but memory limits the speed."""
    row = {"member": "padam", "mode": mode, "error": 4.5e-6, "right": "yes", "ms": 0.617, "bandwidth %": 97.6}
    facts = {
        **HERE,
        "device": "a GPU",
        "elements": 5_000,
        "copy_bandwidth_gb_s": 2952.3,
        "rounds": 5,
        "command": "python",
    }
    assert on_gpu.kernels({"environment": facts, "rows": [row]}).rows == [("`padam`", mode, "4.5e-06", "0.617", share)]


def test_every_kernel_on_record_is_right() -> None:
    """What the page says of the kernels is of kernels that passed."""
    rows = json.loads((on_gpu.RECORDS / "kernels.json").read_text())["rows"]
    assert {row["right"] for row in rows} == {"yes"}
