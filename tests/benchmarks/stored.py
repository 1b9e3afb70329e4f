"""Studies from text, and stores filled with runs that nobody trained."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import studies
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.studies.study import Run, Study

HEAD = """
title = "Three & more"
seeds = 3
reference = "sgd"
[run]
workload = "digits-mlp"
epochs = 2
recalibrate = 0
"""
"""The head of a study; `HEAD.replace(…)` changes it."""

ENVIRONMENT: Mapping[str, Any] = {
    "torch": "2",
    "device": "a CPU",
    "threads": 1,
    "side_by_side": 1,
    "sources": "aaaa",
    "commit": "c1",
    "command": "python -m benchmarks run study",
}


def load(folder: Path, text: str, name: str = "study") -> Study:
    """The study of this text."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    return studies.load(str(path))


def records(*scores: float, recalibrated: float | None = None, key: str = "top1", **cost: Any) -> list[Epoch]:
    """Epochs with these scores."""
    took = {"train_s": 2.0, "eval_s": 9.0, "step_ms": 3.0, "peak_memory_bytes": 2**20, "mode": "eager"}
    return [
        Epoch(
            epoch=epoch,
            train={"online_loss": 1 / epoch, "clean_loss": 0.5 / epoch},
            test=Evaluation({key: score}, None if recalibrated is None else {key: recalibrated}),
            distance=float(epoch),
            effective_step={"q01": 1e-4, "q50": 1e-3, "q99": 1e-2},
            floor_share=0.25,
            time=Cost(**{**took, **cost}),
        )
        for epoch, score in enumerate(scores, start=1)
    ]


def diverged() -> list[Epoch]:
    """Of a run that diverged in its first epoch."""
    return [Epoch(epoch=1, test=Evaluation({"top1": 10.0}), diverged=True)]


def fill(
    runs: Sequence[Run],
    store: Store,
    score: Mapping[str, Sequence[float | None]] | Callable[[Run], float | None],
    data: str = "data",
    **environment: Any,
) -> None:
    """Store runs that have 70 after their first epoch, and then this score; None for a run that diverged.

    Args:
        runs: of a study.
        store: where to.
        score: by the arm's label and the seed, or for a run.
        data: fingerprint of the data.
        environment: what differs from `ENVIRONMENT`.
    """
    for run in runs:
        end = score(run) if callable(score) else score[run.arm.label][run.config.seed]
        epochs = diverged() if end is None else records(70.0, end)
        store.write(run.config, data, {**ENVIRONMENT, **environment}, epochs)
