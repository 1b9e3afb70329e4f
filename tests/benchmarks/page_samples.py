"""Stores with runs that were never made, for the tests of what a report shows of them."""

import math
from collections.abc import Callable
from pathlib import Path

from benchmarks import studies
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.studies.study import Run, Study

THREE = """
title = "Three & more"
seeds = 3
reference = "sgd"
target = 80.0
figures = ["train_loss", "error", "distance"]
[run]
workload = "digits-mlp"
epochs = 6
milestones = [3]
recalibrate = 0
[[runs]]
optimizer = ["sgd", "adam", "padam"]
"""
MAP = """
title = "Learning rate and p"
seeds = 2
figures = ["map"]
[run]
workload = "digits-mlp"
epochs = 6
[[runs]]
optimizer = "padam"
hyper = { lr = [0.01, 0.1, 1.0], partial = [0.0625, 0.125, 0.25] }
"""


def load(folder: Path, text: str, name: str = "study") -> Study:
    """A study from text."""
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return studies.load(str(path))


def score(run: Run) -> float:
    """A final accuracy that tells arms and seeds apart."""
    return 80.0 + 3.0 * (len(run.arm.label) % 5) + 0.3 * run.config.seed


def epochs(run: Run, final: float, diverged: bool = False) -> list[Epoch]:
    """Records that come closer to a final accuracy."""
    count = 2 if diverged else run.config.epochs
    found = []
    for epoch in range(1, count + 1):
        rest = math.exp(-4 * epoch / count)
        found.append(
            Epoch(
                epoch=epoch,
                step=10 * epoch,
                lr=0.1,
                train={"online_loss": 0.02 + rest, "clean_loss": 0.01 + rest},
                test=Evaluation(running={"top1": final - 40 * rest * (1 - epoch / count), "top5": 99.0}),
                distance=5.0 * epoch**0.5,
                effective_step={"q01": 1e-4, "q50": 1e-3, "q99": 1e-2},
                floor_share=0.25,
                time=Cost(train_s=2.0, eval_s=9.0, step_ms=3.0, peak_memory_bytes=2**20, mode="eager"),
                diverged=diverged and epoch == count,
            )
        )
    return found


def fill(
    study: Study,
    store: Store,
    final: Callable[[Run], float] = score,
    diverges: Callable[[Run], bool] = lambda run: False,
) -> None:
    """Stores all runs of a study."""
    environment = {"torch": "2", "device": "cpu", "threads": 1, "command": f"python -m benchmarks run {study.name}"}
    for run in study.runs():
        store.write(run.config, "data", environment, epochs(run, final(run), diverges(run)))
