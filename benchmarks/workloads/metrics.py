"""Reading epoch records: which number a workload is judged by, and which of two is the better."""

import math
from collections.abc import Mapping, Sequence

from benchmarks import workloads
from benchmarks.base.records import Epoch, number

_LOWER = frozenset({"loss", "perplexity", "distance"})
_TITLES: Mapping[str, str] = {
    "top1": "test accuracy, %",
    "top5": "top-5 accuracy, %",
    "perplexity": "test perplexity",
    "loss": "test loss",
    "distance": "sliced Wasserstein distance",
}


def metric(workload: str) -> str:
    """The key of the number that the workload is judged by."""
    return workloads.REGISTRY[workload].metric


def title(workload: str) -> str:
    """What that number is called in tables and figures."""
    return _TITLES.get(metric(workload), metric(workload))


def higher_is_better(workload: str) -> bool:
    """Whether more of the metric is better."""
    return metric(workload) not in _LOWER


def bounds(workload: str) -> tuple[float, float]:
    """The least and the greatest value that the metric can take."""
    return {"top1": (0.0, 100.0), "top5": (0.0, 100.0), "perplexity": (1.0, math.inf)}.get(
        metric(workload), (0.0, math.inf)
    )


def score(record: Epoch, workload: str, statistics: str = "running") -> float:
    """The metric of one epoch, under one of the readings of `Evaluation`."""
    return number(record.test.of(statistics).get(metric(workload)))


def best(epochs: Sequence[Epoch], workload: str, statistics: str = "running") -> tuple[int, float]:
    """The epoch of the best score, and the score; (0, NaN) where there is none."""
    scores = [(i + 1, score(record, workload, statistics)) for i, record in enumerate(epochs)]
    scores = [pair for pair in scores if not math.isnan(pair[1])]
    sign = 1 if higher_is_better(workload) else -1
    return max(scores, key=lambda pair: sign * pair[1], default=(0, math.nan))
