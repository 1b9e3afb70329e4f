"""Reading epoch records: which number a workload is judged by, and which of two is the better."""

import math
from collections.abc import Sequence

from benchmarks import workloads
from benchmarks.base.records import Epoch, number
from benchmarks.workloads.workload import Metric

__all__ = ["Metric", "best", "bounds", "metric", "of", "score", "sign", "title"]


def of(workload: str) -> Metric:
    """The metric of the workload of that name or ``"module:object"``."""
    return workloads.find(workload).metric


def metric(workload: str) -> str:
    """The key of the number that the workload is judged by."""
    return of(workload).key


def title(workload: str) -> str:
    """What that number is called in tables and figures."""
    return of(workload).title


def sign(workload: str) -> int:
    """1 where more of the metric is better, else -1."""
    return of(workload).sign


def bounds(workload: str) -> tuple[float, float]:
    """The least and the greatest value that the metric can take."""
    return of(workload).bounds


def score(record: Epoch, workload: str, statistics: str = "running") -> float:
    """The metric of one epoch, under one of the readings of `Evaluation`."""
    return number(record.test.of(statistics).get(metric(workload)))


def judged(record: Epoch, workload: str) -> bool:
    """Whether the model had a finite score and, where it is recorded, a finite loss on what was held out.

    A step that ruins the weights shows in no training loss before the next one, and of the last there is no next.
    """
    return not math.isnan(score(record, workload)) and record.test.running.get("loss", 0.0) is not None


def best(epochs: Sequence[Epoch], workload: str, statistics: str = "running") -> tuple[int, float]:
    """The epoch of the best score, and the score; (0, NaN) where there is none."""
    scores = [(i + 1, score(record, workload, statistics)) for i, record in enumerate(epochs)]
    scores = [pair for pair in scores if not math.isnan(pair[1])]
    return max(scores, key=lambda pair: sign(workload) * pair[1], default=(0, math.nan))
