"""Reports made of numbers: arms with the scores that a test gives them, without a run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base.config import RunConfig
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Result
from benchmarks.report.results import Report, Series
from benchmarks.studies.study import Arm, Study
from benchmarks.workloads import metrics

Curve = Sequence[float]  # a score after each epoch; NaN as the last one: the run diverged


def result(config: RunConfig, scores: Curve, seconds: float = 1.0, **environment: Any) -> Result:
    """A finished run with these scores, ten steps to an epoch."""
    key = metrics.metric(config.workload)
    diverged = math.isnan(scores[-1])
    epochs = tuple(
        Epoch(
            epoch=epoch,
            step=10 * epoch,
            test=Evaluation(running={key: None if math.isnan(score) else score}),
            time=Cost(train_s=seconds, eval_s=seconds / 2, mode="eager"),
            diverged=math.isnan(score),
        )
        for epoch, score in enumerate(scores, start=1)
    )
    status = "diverged" if diverged else "done"
    return Result(config.to_dict(), "data", {"device": "cpu", **environment}, epochs, status, Path("run.jsonl"))


def arm(
    label: str,
    optimizer: str = "sgd",
    workload: str = "digits-mlp",
    *,
    group: str | None = None,
    point: Mapping[str, Any] | None = None,
    split: Any = "test",
) -> Arm:
    """An arm with its place on the axes of its entry; its label makes a configuration of its own."""
    config = RunConfig(
        workload=workload, optimizer=optimizer, hyper={"lr": 0.1, "of": label, **(point or {})}, epochs=2, split=split
    )
    title = optimizer.title() + (" (…)" if point else "")
    return Arm(label, title, config, group or label.partition(",")[0], None, point or {}, optimizer.title())


def series(one: Arm, *runs: Curve, seconds: float = 1.0, **environment: Any) -> Series:
    """The arm with a run for each seed from 0."""
    return Series(one, {seed: result(one.config, run, seconds, **environment) for seed, run in enumerate(runs)})


def report(*found: Series, trials: Sequence[Series] = (), name: str = "study", **study: Any) -> Report:
    """The report of a study of these."""
    arms = tuple(one.arm for one in found)
    return Report(Study(name, name.title(), "", arms, (0, 1, 2), **study), tuple(found), 0, tuple(trials))
