"""What a handful of seeds can tell: intervals, tests with Holm's correction, and the smallest difference to be seen."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean, standard deviation and the t-interval of the mean; NaN where there are too few values to tell."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A difference of two means with its t-interval and the two-sided p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def summarize(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Summary of independent runs."""
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Mean of `a` minus mean of `b`, for unequal variances."""
    difference = float(np.mean(a) - np.mean(b)) if a and b else math.nan
    if len(a) < 2 or len(b) < 2:
        return Comparison(difference, math.nan, math.nan, math.nan)
    shares = [float(np.var(x, ddof=1)) / len(x) for x in (a, b)]
    if sum(shares) == 0:
        return Comparison(difference, math.nan, math.nan, math.nan)
    freedom = sum(shares) ** 2 / sum(share**2 / (len(x) - 1) for share, x in zip(shares, (a, b), strict=True))
    return _compare(difference, math.sqrt(sum(shares)), freedom, confidence)


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Mean of `a` minus mean of `b` where each pair shares its random numbers."""
    differences = np.subtract(a, b)
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    error = float(np.std(differences, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if error == 0:
        return Comparison(mean, math.nan, math.nan, math.nan)
    return _compare(mean, error, n - 1, confidence)


def _compare(difference: float, error: float, freedom: float, confidence: float) -> Comparison:
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Comparison(difference, difference - half, difference + half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment; NaN stays NaN and does not count as a test."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def smallest_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference of two means that a two-sided t-test finds with probability `power`.

    Args:
        sd: common standard deviation of the two groups.
        n: runs in each group.
        power: probability of a significant result.
        alpha: level of the test.
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    freedom = 2 * (n - 1)
    # The other tail, of a significant difference with the wrong sign, is below 1e-6 at any useful power.
    shift = special.nctdtrinc(freedom, 1 - power, stats.t.ppf(1 - alpha / 2, freedom))
    return float(shift) * sd * math.sqrt(2 / n)


def pooled_sd(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups; NaN when no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if group)
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in groups if len(group) > 1)
    return math.sqrt(squares / freedom) if freedom else math.nan
