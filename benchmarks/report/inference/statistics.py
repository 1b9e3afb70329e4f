"""What a handful of seeds can tell: means with intervals that respect a metric's range, and tests of one difference.

Verdicts over a family of comparisons are in `family`, what can be found with how many seeds in `power`.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

UNBOUNDED = (-math.inf, math.inf)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean, standard deviation and an interval of the mean; NaN where there are too few values to tell."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A difference of two means with its interval and the two-sided p-value of no difference; NaN where unknown."""

    difference: float
    low: float
    high: float
    p: float


NOTHING = Comparison(math.nan, math.nan, math.nan, math.nan)
"""What is known of two means without runs."""


def summarize(values: Sequence[float], confidence: float = 0.95, bounds: tuple[float, float] = UNBOUNDED) -> Summary:
    """Summary of independent runs.

    The interval is Student's, on a scale on which the metric has no bounds: the logit of its share of the range where
    both ends are bounded, the logarithm of its distance from the one that is. Its standard error there is that of the
    mean times the derivative of the scale at the mean (the delta method), so that many runs give the usual interval,
    and few of them none beyond the bounds. A mean on a bound has no such scale: then it is the usual interval cut off
    at the bounds. Equal runs say nothing of the spread, and have no interval.

    Args:
        values: one per run.
        confidence: probability with which the interval covers the expected value, in (0, 1).
        bounds: the least and the greatest value that there can be.
    """
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    if sd == 0:
        return Summary(n, mean, sd, math.nan, math.nan)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, *_interval(mean, half, *bounds))


def _interval(mean: float, half: float, least: float, greatest: float) -> tuple[float, float]:
    """The interval around `mean` on the unbounded scale, back on the scale of the metric."""
    if not least < mean < greatest:
        return max(least, mean - half), min(greatest, mean + half)
    below, above = mean - least, greatest - mean
    if math.isinf(below) and math.isinf(above):
        return mean - half, mean + half
    if math.isinf(above):
        return least + below * math.exp(-half / below), least + below * _exp(half / below)
    if math.isinf(below):
        return greatest - above * _exp(half / above), greatest - above * math.exp(-half / above)
    logit, width = math.log(below / above), half * (1 / below + 1 / above)
    low, high = (float(least + (greatest - least) * special.expit(logit + side)) for side in (-width, width))
    return low, high


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Mean of `a` minus mean of `b` where each pair shares its random numbers."""
    differences = np.subtract(a, b)
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    error = float(np.std(differences, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if error == 0:
        return Comparison(mean, math.nan, math.nan, math.nan)
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
    p = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    return Comparison(mean, mean - half, mean + half, p)


def pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups; NaN when no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if group)
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in groups if len(group) > 1)
    return math.sqrt(squares / freedom) if freedom else math.nan
