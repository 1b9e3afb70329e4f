"""Learning rates in between: the logarithm of the learning rate that suits p is close to linear in p."""

import math
from bisect import bisect
from collections.abc import Mapping

from partial_adaptive.rules.hyperparameters import HYPERPARAMETERS, number

_PARTIAL = HYPERPARAMETERS["partial"]
_RATE = number(1.0, meaning="a learning rate that suits an exponent")


def interpolated_lr(partial: float, known: Mapping[float, float]) -> float:
    """The learning rate for an exponent from those that are known for others: log α is piecewise linear in p.

    ::

        log α(p) = log α₀ + (p − p₀)/(p₁ − p₀) · (log α₁ − log α₀)

    p₀ and p₁ are the neighbours of p, or, beyond the known ones, the two that are the nearest.

    Args:
        partial: p; a number in [0, 1].
        known: learning rates by exponent, two at least; finite numbers > 0 by numbers in [0, 1].

    Raises:
        ValueError: for an exponent or a learning rate that is not allowed, or fewer than two of them.

    Example:
        >>> round(interpolated_lr(1 / 4, {0: 1.0, 1 / 2: 1e-3}), 4)
        0.0316
    """
    wanted = _exponent("partial", partial)
    points = sorted((_exponent("known", p), _log(p, lr)) for p, lr in checked(known).items())
    exponents = [p for p, _ in points]
    place = min(max(bisect(exponents, wanted), 1), len(points) - 1)
    (low, first), (high, last) = points[place - 1 : place + 1]
    share = (wanted - low) / (high - low)
    return math.exp(first * (1 - share) + last * share)


def checked(known: Mapping[float, float]) -> Mapping[float, float]:
    """The learning rates themselves, once they are known to be some."""
    if not isinstance(known, Mapping) or len({_exponent("known", p) for p in known}) < 2:
        raise ValueError(f"known must be a dict of at least two learning rates by exponent p, got {known!r}")
    for p, lr in known.items():
        _log(p, lr)
    return known


def _exponent(argument: str, p: float) -> float:
    value = _PARTIAL.convert(p)
    if not _PARTIAL.accepts(value):
        what = "must be a number in [0, 1]" if argument == "partial" else "must have numbers in [0, 1] as keys"
        raise ValueError(f"{argument} {what}, got {p!r}")
    return float(value)


def _log(p: float, lr: float) -> float:
    value = _RATE.convert(lr)
    if not _RATE.accepts(value) or not value:
        raise ValueError(f"known must have finite numbers > 0 as learning rates, got {lr!r} for p = {p!r}")
    return math.log(value)
