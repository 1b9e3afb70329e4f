"""Studies `which-p-…` on record whose scores are a formula."""

import contextlib
import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import studies
from benchmarks.base.config import RunConfig
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.report.evidence import archive, studied
from benchmarks.report.results import collect
from benchmarks.studies.study import Study
from benchmarks.workloads import metrics

SLOPE, START, BEST = -5.5, 2.0, 0.375
TRIALS, SEEDS = 12, 3
Score = Callable[[RunConfig], float | Sequence[float]]


def valley(config: RunConfig) -> float:
    """A loss that is least at p = 3/8 and, at each p, where log lr is on a line; baselines are as p = 0."""
    p = float(config.hyper.get("partial", 0.0))
    optimum = START + SLOPE * p if "partial" in config.hyper else math.log10(12.0)
    noise = random.Random(f"{p} {config.optimizer} {config.seed}").gauss(0, 0.01)
    return 1.0 + abs(p - BEST) + (math.log10(config.hyper["lr"]) - optimum) ** 2 + noise


def record(root: Path, name: str, score: Score, seeds: int | None = None) -> None:
    """An archive with runs of a study, trials and the chosen, with these scores, and what it had before.

    A score is the metric after the only epoch, or those after every epoch.
    """
    workload = name.removeprefix(studied.PREFIX).partition("-")[0]
    study, store = load(name), Store(root / workload)
    store.prepare()
    here = {"sources": "abc", "torch": "2", "device": "cpu", "commit": "c0ffee"}
    for run in study.runs():
        store.write(run.config, "data", here, epochs(score(run.config), metrics.metric(run.config.workload)))
    for run in collect(study, store).study.runs(range(seeds) if seeds else None):
        store.write(run.config, "data", here, epochs(score(run.config), metrics.metric(run.config.workload)))
    archive.pack(store, root / f"{workload}{archive.SUFFIX}")


def load(name: str) -> Study:
    """A study with the first few trials of every entry, so that the tests take no longer where the search is finer."""
    study = studies.load(name)
    assert study.tuning is not None
    seen: Counter[str] = Counter()
    arms = []
    for arm in study.arms:
        seen[arm.group] += 1
        if seen[arm.group] <= TRIALS:
            arms.append(arm)
    tuning = dataclasses.replace(study.tuning, trials=TRIALS, seeds=SEEDS)
    return dataclasses.replace(study, arms=tuple(arms), tuning=tuning)


@contextlib.contextmanager
def few_trials() -> Iterator[None]:
    """What is read from the records are such studies as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studied, "load", load)
        yield


def epochs(scores: float | Sequence[float], key: str = "loss") -> list[Epoch]:
    """The records of a run."""
    each = [scores] if isinstance(scores, float | int) else scores
    return [epoch(score, i + 1, key) for i, score in enumerate(each)]


def epoch(score: float, number: int = 1, key: str = "loss") -> Epoch:
    """One epoch of a run; one without a score has diverged. With batch norm recalibrated, bad ones are good ones."""
    lost = math.isnan(score)
    test = Evaluation({key: None if lost else score}, recalibrated={key: None if lost else 10 - score})
    return Epoch(epoch=number, step=10 * number, test=test, time=Cost(train_s=60.0), diverged=lost)
