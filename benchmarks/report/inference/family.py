"""Verdicts on several arms against one: Welch's test, Holm's correction, and intervals that agree with the verdict.

Welch's degrees of freedom are an approximation. With 3 seeds, standard deviations of 1 and 5, and the level of the
first of 17 comparisons it is wrong 1.8 times as often as it says. A verdict therefore goes by a guarded p-value: the
largest probability, over all ratios of the two variances, of a Welch p-value as small as the one seen. That is a valid
p-value for normal data, and so the chance of any wrong verdict in a family stays below `ALPHA` by Holm's method.

The functions work on arrays whose last axis is the family, so that a simulation judges as the tables do.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

ALPHA = 0.05
"""Chance of any wrong verdict in a family in which nothing differs."""

_NODES = 40  # of the quadrature over each sample variance; 200 change a probability by less than 0.1 %
_LEVELS = np.geomspace(1e-7, 0.9, 40)
_MARGIN = 1.005  # for the levels and ratios between these: an exact integral finds at most 0.35 % more there
_RATIOS = np.geomspace(1 / 64, 64, 37)  # of standard errors; beyond these it is one variance alone, and Welch is exact


class Moments(NamedTuple):
    """Sample moments of groups of runs, the family along the last axis.

    Args:
        means: of each group; NaN without a run.
        variances: with n − 1; NaN with fewer than two runs.
        counts: how many runs each group has.
    """

    means: Floats
    variances: Floats
    counts: Sequence[int]


class Family(NamedTuple):
    """Comparisons with one base, the family along the last axis; NaN where there are too few runs, or no spread.

    Args:
        difference: mean of the arm minus mean of the base.
        p: Welch's two-sided p-value.
        adjusted: by Holm's method.
        low: lower end of Welch's interval at the level at which Holm's method tests this comparison, guarded.
        high: upper end; the interval excludes 0 exactly where the comparison is decided.
        decided: whether the difference is told from 0; then `adjusted` is below the level too.
    """

    difference: Floats
    p: Floats
    adjusted: Floats
    low: Floats
    high: Floats
    decided: NDArray[np.bool_]


def judge(arms: Sequence[Sequence[float]], base: Sequence[float], alpha: float = ALPHA) -> Family:
    """The verdicts on some arms against `base`: values of independent runs of each.

    Args:
        arms: the values of each arm.
        base: the values of what all are compared with.
        alpha: chance of any wrong verdict, in (0, 1).
    """
    return judge_pairs([(values, base) for values in arms], alpha)


def judge_pairs(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], alpha: float = ALPHA) -> Family:
    """The verdicts on some arms, each against a base of its own, in one family.

    Args:
        pairs: values of independent runs of each arm and of its base.
        alpha: chance of any wrong verdict, in (0, 1).
    """
    arms, bases = (_moments([pair[i] for pair in pairs]) for i in (0, 1))
    return judge_moments(arms, bases, alpha)


def judge_moments(arms: Moments, bases: Moments, alpha: float = ALPHA) -> Family:
    """`judge_pairs` by sample means and variances; all axes but the last are many families at once.

    Args:
        arms: of the arms.
        bases: of what each of them is compared with.
        alpha: chance of any wrong verdict in a family, in (0, 1).
    """
    counts, base_counts = (np.asarray(one.counts, float) for one in (arms, bases))
    with np.errstate(divide="ignore", invalid="ignore"):
        share, base_share = arms.variances / counts, bases.variances / base_counts
    error = np.sqrt(share + base_share)
    freedom = degrees_of_freedom(share, base_share, counts, base_counts)
    sizes = list(zip(arms.counts, bases.counts, strict=True))
    return _decide(arms.means - bases.means, np.where(error > 0, error, np.nan), freedom, sizes, alpha)


def _moments(groups: Sequence[Sequence[float]]) -> Moments:
    """Of groups of values, some of which may have too few."""
    means = [float(np.mean(values)) if values else np.nan for values in groups]
    variances = [float(np.var(values, ddof=1)) if len(values) > 1 else np.nan for values in groups]
    return Moments(np.asarray(means, float), np.asarray(variances, float), [len(values) for values in groups])


def _decide(
    difference: Floats, error: Floats, freedom: Floats, sizes: Sequence[tuple[int, int]], alpha: float
) -> Family:
    """A family from its differences, their standard errors with degrees of freedom, and the sizes of the groups."""
    p = 2 * special.stdtr(freedom, -np.abs(difference) / error)
    guards = [_guard(*both) if min(both) > 1 else None for both in sizes]
    guarded = np.full_like(p, np.nan)
    for i, guard in enumerate(guards):
        if guard is not None:
            guarded[..., i] = guard.p(p[..., i])
    level = _levels(guarded, alpha)
    for i, guard in enumerate(guards):
        if guard is not None:
            level[..., i] = guard.level(level[..., i])
    half = -special.stdtrit(freedom, level / 2) * error
    low, high = difference - half, difference + half
    return Family(difference, p, holm(p), low, high, (low > 0) | (high < 0))


def holm(p: Any) -> Floats:
    """Holm's step-down adjustment along the last axis; NaN stays NaN and does not count as a test."""
    p = np.asarray(p, float)
    order, factors = _ranked(p)
    steps = np.minimum(1.0, np.take_along_axis(p, order, -1) * factors)
    # NaN are last, and so do not get into the maximum of others.
    return _back(np.maximum.accumulate(steps, -1), order)


def _levels(p: Floats, alpha: float) -> Floats:
    """The level at which Holm's method tests each: for those that it does not reach, that at which it stopped."""
    order, factors = _ranked(p)
    passed = np.take_along_axis(p, order, -1) * factors < alpha
    stopped = np.cumsum(~passed, -1) > 0
    factors = np.maximum.accumulate(np.where(stopped, factors, 0), -1) * stopped + factors * ~stopped
    return _back(alpha / np.maximum(factors, 1), order)


def _ranked(p: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The order of the p-values, and by rank how many tests are left there."""
    tests = np.sum(~np.isnan(p), -1, keepdims=True)
    return np.argsort(p, -1), np.asarray(tests - np.arange(p.shape[-1]), float)


def _back(ranked: Floats, order: NDArray[np.intp]) -> Floats:
    """Values by rank in the order of the family."""
    values = np.empty_like(ranked)
    np.put_along_axis(values, order, ranked, -1)
    return values


def degrees_of_freedom(share: Any, base_share: Any, count: Any, base_count: Any) -> Any:
    """Welch's degrees of freedom from the squared standard errors of the two means."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (share + base_share) ** 2 / (share**2 / (count - 1) + base_share**2 / (base_count - 1))


class _Guard:
    """The guarded p-value of Welch's test for two group sizes."""

    def __init__(self, count: int, base_count: int) -> None:
        shares, base_shares, weights = scatter(count, base_count)
        self._levels = np.log(_LEVELS)
        worst = np.zeros_like(_LEVELS)
        for ratio in _RATIOS:  # of the variances of the means, base over arm
            share, base_share = shares / (1 + ratio**2), base_shares * ratio**2 / (1 + ratio**2)
            freedom = degrees_of_freedom(share, base_share, count, base_count)
            for i, level in enumerate(_LEVELS):
                critical = -student(freedom, level / 2) * np.sqrt(share + base_share)
                worst[i] = max(worst[i], 2 * float(np.sum(special.ndtr(-critical) * weights)))
        self._worst = np.log(np.maximum.accumulate(np.maximum(_MARGIN * worst, _LEVELS)))

    def p(self, p: Floats) -> Floats:
        """The guarded p-value of a Welch p-value."""
        with np.errstate(divide="ignore"):
            logs = np.log(p)
        return np.asarray(np.exp(np.interp(logs, self._levels, self._worst) + np.minimum(logs - self._levels[0], 0)))

    def level(self, guarded: Floats) -> Floats:
        """The Welch p-value that has this guarded one: the inverse of `p`."""
        logs = np.log(guarded)
        return np.asarray(np.exp(np.interp(logs, self._worst, self._levels) + np.minimum(logs - self._worst[0], 0)))


@functools.cache
def _guard(count: int, base_count: int) -> _Guard:
    return _Guard(count, base_count)


def level(count: int, base_count: int, alpha: float) -> float:
    """The level of Welch's test at which it is wrong with a chance of at most `alpha`, whatever the variances."""
    return float(_guard(count, base_count).level(np.asarray(alpha)))


def scatter(count: int, base_count: int) -> tuple[Floats, Floats, Floats]:
    """Two sample variances of unit variance, on a grid, with its weights: for expectations over both."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    places = (nodes + 1) / 2
    first, second = (2 * special.gammaincinv((n - 1) / 2, places) / (n - 1) for n in (count, base_count))
    return first[:, None], second[None, :], weights[:, None] * weights[None, :] / 4


def student(freedom: Floats, probability: float) -> Floats:
    """Quantiles of Student's distribution for many degrees of freedom, interpolated over a fine grid of these."""
    grid = np.geomspace(freedom.min(), freedom.max() * (1 + 1e-12), 64)
    return np.asarray(np.interp(np.log(freedom), np.log(grid), special.stdtrit(grid, probability)))
