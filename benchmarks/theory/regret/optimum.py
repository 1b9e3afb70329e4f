"""The best fixed point in hindsight, with a certificate of how good it is: an inexact one would flatter the regret."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from benchmarks.theory.regret.sets import Vector, form, nearest
from partial_adaptive import Box, Constraint

TOLERANCE = 1e-12  # of the gap, relative to the loss
_ITERATIONS = 5_000


@dataclasses.dataclass(frozen=True)
class Optimum:
    """A point and its total loss, which is above the least one over the set by at most `gap`."""

    point: Vector
    value: float
    gap: float


def certified(feasible: Constraint, point: Vector, value: float, subgradient: Vector) -> Optimum:
    """A point with its certificate: F is convex, so F(x) − F(z) ≤ ⟨g, x − z⟩ for every z of the set.

    Args:
        feasible: the set.
        point: x, in the set.
        value: F(x).
        subgradient: g, any subgradient of F at x; the gap is as good as the choice.
    """
    return Optimum(point, value, max(0.0, float(subgradient @ point) - form(feasible).lowest(subgradient)))


def smooth(total: Callable[[Vector], tuple[float, Vector]], feasible: Constraint, start: Vector) -> Optimum:
    """The minimum of a smooth convex function, by Nesterov's projected gradient with restarts.

    Args:
        total: gives F(x) and ∇F(x).
        feasible: the set.
        start: a point of it.
    """
    x = ahead = start
    momentum = length = 1.0
    best = certified(feasible, x, *total(x))
    for _ in range(_ITERATIONS):
        if best.gap <= TOLERANCE * abs(best.value):
            break
        _, slope = total(ahead)
        length *= 2
        while True:
            after = nearest(feasible, ahead - length * slope)
            move = after - ahead
            value, tilt = total(after)
            if 2 * length * (tilt - slope) @ move <= move @ move:  # F is below its parabola, said without F's rounding
                break
            length /= 2
        best = min(best, certified(feasible, after, value, tilt), key=lambda one: one.gap)
        turned = move @ (after - x) < 0
        faster = 1.0 if turned else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = after if turned else after + (momentum - 1) / faster * (after - x)
        x, momentum = after, faster
    return best


def least_absolute(rows: Vector, targets: Vector, feasible: Box) -> Optimum:
    """The minimum of Σ|⟨aₜ, x⟩ − bₜ| over a box, as the linear program min Σ(u + v) with Ax + u − v = b.

    The multiplier of each equation is, negated, a subgradient of its absolute value: they make the certificate.
    """
    count, dimension = rows.shape
    solved = linprog(
        np.r_[np.zeros(dimension), np.ones(2 * count)],
        A_eq=sparse.hstack([rows, sparse.eye(count), -sparse.eye(count)]),
        b_eq=targets,
        bounds=[(feasible.low, feasible.high)] * dimension + [(0, None)] * (2 * count),
    )
    point = np.clip(solved.x[:dimension], feasible.low, feasible.high)
    slopes = np.clip(-solved.eqlin.marginals, -1, 1)
    return certified(feasible, point, float(np.abs(rows @ point - targets).sum()), slopes @ rows)
