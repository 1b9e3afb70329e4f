"""What a study can find: the smallest difference for its seeds, and the seeds for a difference."""

import math

import numpy as np
from scipy import optimize, special

from benchmarks.report.inference.family import ALPHA, degrees_of_freedom, level, scatter, student

POWER = 0.8
"""Chance with which a difference that is there is to be found."""

MOST = 100_000  # seeds, beyond which none are counted


def power(
    difference: float, sds: tuple[float, float], counts: tuple[int, int], comparisons: int = 1, alpha: float = ALPHA
) -> float:
    """The chance that `family.judge` tells an arm from the base, at the level of Holm's first step.

    That is alpha / comparisons: the worst case, in which no other comparison of the family has been decided before.

    Args:
        difference: of the expected values.
        sds: standard deviations of arm and base, at least one above 0.
        counts: runs of arm and base, at least 2 each.
        comparisons: of the family, at least 1.
        alpha: chance of any wrong verdict in the family.
    """
    shares, base_shares, weights = scatter(*counts)
    shares, base_shares = shares * sds[0] ** 2 / counts[0], base_shares * sds[1] ** 2 / counts[1]
    error = math.sqrt(sds[0] ** 2 / counts[0] + sds[1] ** 2 / counts[1])
    freedom = degrees_of_freedom(shares, base_shares, *counts)
    critical = -student(freedom, level(*counts, alpha / comparisons) / 2) * np.sqrt(shares + base_shares)
    found = special.ndtr((difference - critical) / error) + special.ndtr((-difference - critical) / error)
    return float(np.sum(found * weights))


def smallest_detectable(
    sds: tuple[float, float],
    counts: tuple[int, int],
    comparisons: int = 1,
    chance: float = POWER,
    alpha: float = ALPHA,
) -> float:
    """The true difference that `power` says is found with probability `chance`; NaN for less than 2 runs or no spread.

    Args:
        sds: standard deviations of arm and base.
        counts: runs of arm and base.
        comparisons: of the family, at least 1.
        chance: of the right verdict.
        alpha: chance of any wrong verdict in the family.
    """
    if min(counts) < 2 or not max(sds) > 0 or any(map(math.isnan, sds)):
        return math.nan
    unit = math.sqrt(sds[0] ** 2 / counts[0] + sds[1] ** 2 / counts[1])

    def lacking(factor: float) -> float:
        return power(factor * unit, sds, counts, comparisons, alpha) - chance

    most = 4.0
    while lacking(most) < 0:
        most *= 4
    return float(optimize.brentq(lacking, 0, most, xtol=1e-6)) * unit


def seeds_needed(
    difference: float,
    sd: float | tuple[float, float],
    comparisons: int = 1,
    power: float = POWER,
    alpha: float = ALPHA,
) -> int:
    """How many seeds each arm needs for a true difference to be found with probability `power`.

    Args:
        difference: of the expected values, above 0.
        sd: standard deviation over seeds, above 0: of both, or of arm and base.
        comparisons: of the family, at least 1.
        power: chance of the right verdict, in (0, 1).
        alpha: chance of any wrong verdict in the family, in (0, 1).

    Raises:
        ValueError: an argument is outside its range, or more than `MOST` seeds are needed.
    """
    sds = sd if isinstance(sd, tuple) else (sd, sd)
    if not difference > 0:
        raise ValueError(f"difference must be above 0, got {difference}")
    if not max(sds) > 0 or not min(sds) >= 0:
        raise ValueError(f"sd must be above 0, got {sd}")
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be in (0, 1), got {value}")

    def enough(n: int) -> bool:
        return smallest_detectable(sds, (n, n), comparisons, power, alpha) <= difference

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST:
            raise ValueError(f"a difference of {difference} needs more than {MOST:,} seeds")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
