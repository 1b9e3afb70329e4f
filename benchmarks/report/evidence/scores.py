"""How a page shows scores: a mean with its interval and what diverged, and the difference of two."""

import math

from benchmarks.report.display import cells
from benchmarks.report.groups import metric
from benchmarks.report.inference.statistics import Summary, summarize
from benchmarks.report.results import Series


def summary(series: Series, epoch: int = -1, statistics: str = "running") -> Summary:
    """The scores after an epoch (-1: the last) of the runs that did not diverge."""
    return summarize([*series.scores(epoch, statistics).values()], bounds=metric(series.arm.config.subject).bounds)


def shown(series: Series, epoch: int = -1, statistics: str = "running") -> str:
    """Their mean with its interval, and how many runs diverged where any did."""
    lost = f"({series.diverged} of {len(series.runs)} diverged)" if series.diverged else ""
    return " ".join(filter(None, (interval(summary(series, epoch, statistics)), lost)))


def interval(score: Summary) -> str:
    """A mean with its interval, where there are such."""
    digits = _decimals(score)
    ends = "" if math.isnan(score.low) else f" [{score.low:.{digits}f}, {score.high:.{digits}f}]"
    return "" if math.isnan(score.mean) else f"{score.mean:.{digits}f}{ends}"


def difference(first: Summary, second: Summary) -> str:
    """By how much the first mean is greater, as exactly as the less exact of the two; a dash without one of them."""
    greater = first.mean - second.mean
    return cells.DASH if math.isnan(greater) else cells.decimal(greater, min(map(_decimals, (first, second))), "+")


def _decimals(score: Summary) -> int:
    """As many as show two digits of half the interval."""
    half = (score.high - score.low) / 2
    return min(max(1 - math.floor(math.log10(half)), 1), cells.FINEST) if half > 0 else 2
