"""The choice of a tuned study: for each entry the trial with the best last epoch on the validation split."""

import math
from collections.abc import Mapping

from benchmarks.base.store import Result
from benchmarks.studies.study import Arm, Study
from benchmarks.workloads import metrics


def select(study: Study, results: Mapping[str, Result]) -> tuple[Study, list[str]]:
    """The study with its settings chosen, and the entries that still wait for trials and are left out of it.

    The last epoch counts, as in the report; the best of all epochs would reward noise. A diverged trial loses against
    every other, and of equal trials the first wins. An entry is judged only once all its trials are in.

    Args:
        study: a study with `tuning`.
        results: the finished trials by the label of their run.
    """
    trials: dict[str, list[tuple[Arm, Result | None]]] = {}
    for run in study.runs():
        trials.setdefault(run.arm.group, []).append((run.arm, results.get(run.label)))
    chosen: list[Arm] = []
    waiting: list[str] = []
    for group, candidates in trials.items():
        finished = [(arm, result) for arm, result in candidates if result is not None]
        if len(finished) < len(candidates):
            waiting.append(group)
        else:
            chosen.append(max(finished, key=lambda trial: _merit(*trial))[0].chosen())
    return study.tuned(chosen), waiting


def _merit(arm: Arm, result: Result) -> float:
    """The score of a trial, greater being better."""
    score = metrics.score(result.epochs[-1], arm.config.workload)
    if result.diverged or math.isnan(score):
        return -math.inf
    return score if metrics.higher_is_better(arm.config.workload) else -score
