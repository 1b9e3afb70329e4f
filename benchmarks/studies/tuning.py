"""The choice of a tuned study: for each entry the trial with the best last epoch on the validation split."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from benchmarks.base.numbers import is_number
from benchmarks.base.store import Result
from benchmarks.studies.study import Arm, Study
from benchmarks.workloads import metrics

_NATURAL_END = {"partial": 0.5}  # the largest value that makes sense, where it is not infinity; the smallest is 0


def select(study: Study, results: Mapping[str, Result]) -> tuple[Study, list[str]]:
    """The study with its settings chosen, and the entries that still wait for trials and are left out of it.

    The mean over the trial's seeds counts, each by its last epoch, as in the report; the best of all epochs would
    reward noise. A trial that diverged with any seed loses against every other, and of equal trials the first wins.
    An entry is judged only once all its trials are in.

    Args:
        study: a study with `tuning`.
        results: the finished trials by the label of their run.
    """
    made: dict[str, list[Result | None]] = {}
    for run in study.runs():
        made.setdefault(run.arm.label, []).append(results.get(run.label))
    groups: dict[str, list[Arm]] = {}
    for arm in study.arms:
        groups.setdefault(arm.group, []).append(arm)
    chosen: list[Arm] = []
    waiting: list[str] = []
    for group, arms in groups.items():
        merits = [_merit(arm, made[arm.label]) for arm in arms]
        if None in merits:
            waiting.append(group)
        else:
            known = [merit for merit in merits if merit is not None]
            chosen.append(arms[known.index(max(known))].chosen())
    return study.tuned(chosen), waiting


def _merit(arm: Arm, results: Sequence[Result | None]) -> float | None:
    """The score of a trial, greater being better; None if it is not complete."""
    total = 0.0
    for result in results:
        if result is None:
            return None
        last, workload = result.epochs[-1], arm.config.workload
        total += metrics.score(last, workload) if not result.diverged and metrics.judged(last, workload) else math.nan
    mean = total / len(results)
    if math.isnan(mean):
        return -math.inf
    return metrics.sign(arm.config.workload) * mean


@dataclasses.dataclass(frozen=True)
class Edge:
    """A hyperparameter beyond whose chosen value nothing was tried.

    Args:
        name: of the hyperparameter, of one in a list ``"betas[1]"``.
        value: the chosen one.
        largest: whether it is the largest tried, else the smallest.
    """

    name: str
    value: float
    largest: bool


def edges(arm: Arm, trials: Sequence[Arm]) -> list[Edge]:
    """The hyperparameters whose chosen value is the smallest or largest tried: a better one may lie beyond.

    Of a grid these are its ends; of a range, what is within one trial's share of them. A smallest value of 0 and
    p = 1/2 are ends by nature and do not count.

    Args:
        arm: the chosen trial.
        trials: all of the entry, that one included.
    """
    tried = [_numbers(trial) for trial in trials]
    found = []
    for name, value in _numbers(arm).items():
        values = [numbers[name] for numbers in tried if name in numbers]
        if min(values) == max(values):
            continue
        if value == max(values) and value != _NATURAL_END.get(name):
            found.append(Edge(name, value, largest=True))
        elif value == min(values) and value != 0:
            found.append(Edge(name, value, largest=False))
    return found


def _numbers(arm: Arm) -> dict[str, float]:
    """The numbers in which the trials of an entry differ, those in lists one by one."""
    found = {}
    for key, value in arm.point.items():
        parts = {f"{key}[{i}]": part for i, part in enumerate(value)} if isinstance(value, list) else {key: value}
        found.update({name: part for name, part in parts.items() if is_number(part)})
    return found
