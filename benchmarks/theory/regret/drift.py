"""The counter-examples of Reddi, Kale and Kumar (ICLR 2018), solved: where Adam's average drifts the wrong way.

On [−1, 1] the losses are Cx in the first round of a cycle and −x in its others, β₁ is 0. Where the cycle has fewer than
C rounds of −x, the best fixed point is −1. The gradients do not depend on x, so v = β₂v + (1−β₂)g² forgets where it
began and repeats itself with the cycle; a step is −αg/v^p. A cycle moves the point by −α·(C·v₀^(−p) − Σⱼ vⱼ^(−p)).
"""

import dataclasses
import math
from typing import final

import numpy as np
from scipy.optimize import brentq

from benchmarks.theory.regret.sets import Vector


@final
@dataclasses.dataclass(frozen=True)
class Cycle:
    """One gradient C, then −1 until the cycle is over.

    Args:
        c: C.
        length: how many rounds the cycle has.
        beta: β₂.
    """

    c: float
    length: int
    beta: float

    def averages(self) -> Vector:
        """The v of the steady state, from the round of the gradient C to the last of the cycle.

        The weights (1−β)βᵏ of all earlier rounds add up to 1, and those of the earlier gradients C, which lie a cycle
        apart, to (1−β)βʲ/(1−βⁿ): vⱼ is so much C², and 1 for the rest.
        """
        ages = np.arange(self.length, dtype=np.float64)
        weights = (1 - self.beta) * np.power(self.beta, ages) / (1 - self.beta**self.length)
        return 1 + (self.c**2 - 1) * weights

    def pull(self, p: float) -> float:
        """C·v₀^(−p) − Σⱼ vⱼ^(−p): towards −1, the best point, where it is positive."""
        first, *others = self.averages() ** -p
        return float(self.c * first - sum(others))

    def critical(self) -> float:
        """The p at which the pull is 0; it is positive below and negative above.

        There is one such p > 0: the pull times v₀^p, C − Σⱼ (v₀/vⱼ)^p, is positive at p = 0 and falls without end.
        """
        high = 0.5
        while self.pull(high) > 0:
            high *= 2
        return float(brentq(self.pull, 0, high, xtol=1e-15))


def short(c: float) -> Cycle:
    """The counter-example of their Theorem 1: three rounds, β₂ = 1/(1 + C²), C > 2. They prove it for p = 1/2."""
    return Cycle(c, 3, 1 / (1 + c * c))


def long(c: int, beta: float = 0.999) -> Cycle:
    """The counter-example of their Theorem 2, for any β₂: C rounds, so that the best point is −1 by a little."""
    return Cycle(c, c, beta)


def fails_below(p: float) -> float:
    """The C up to which the point of the short cycle drifts the wrong way at this p, 0 < p < 1/2."""
    return float(brentq(lambda c: short(c).pull(p), 2, 4 ** (1 / (1 - 2 * p)), xtol=1e-14))


def near_two(c: float) -> float:
    """The critical p of the short cycle for C → 2: (C − 2)/log(v₀²/(v₁v₂)), by the pull to first order in p."""
    first, *others = np.log(short(2).averages())
    return float((c - 2) / (2 * first - sum(others)))


def far_out(c: float) -> float:
    """The critical p of the short cycle for C → ∞: 1/2 − log(1 + 1/√2)/(2·log C).

    The v tend to C², 2 and 1, so that C^(1−2p) = 2^(−p) + 1, and p to 1/2.
    """
    return 0.5 - math.log(1 + math.sqrt(0.5)) / (2 * math.log(c))
