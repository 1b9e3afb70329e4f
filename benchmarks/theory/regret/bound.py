"""The right-hand side of Theorem 4.2, term by term, as it comes out along a run."""

import dataclasses
import math

from benchmarks.theory.regret.play import BETAS, DECAY, EPS, Mark
from benchmarks.theory.regret.problem import Problem


@dataclasses.dataclass(frozen=True)
class Bound:
    """The three terms of the theorem's bound on the regret.

    Args:
        distance: how far the best point can be, in the metric of the last step.
        gradients: what the steps cost.
        momentum: what a decaying β₁ costs.
    """

    distance: float
    gradients: float
    momentum: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.distance + self.gradients + self.momentum


def bound(problem: Problem, p: float, alpha: float, seen: Mark) -> Bound:
    """R_T ≤ D²√T/(2α(1−β₁))·Σv̂^p + αG^(1−2p)√(1+log T)/((1−β₁)²(1−γ)(1−β₂)^p)·Σ‖g‖ + β₁dD²G^(2p)/(2α(1−β₁)(1−λ)²).

    γ = β₁/√β₂. ε is added to √v̂, and so to G where it bounds √v̂: in the first and the third term.
    """
    (beta1, beta2), d, wide, steep = BETAS, problem.dimension, problem.diameter, seen.largest
    gamma = beta1 / math.sqrt(beta2)
    return Bound(
        wide**2 * math.sqrt(seen.t) / (2 * alpha * (1 - beta1)) * seen.scales,
        alpha
        * steep ** (1 - 2 * p)
        * math.sqrt(1 + math.log(seen.t))
        / ((1 - beta1) ** 2 * (1 - gamma) * (1 - beta2) ** p)
        * seen.norms,
        beta1 * d * wide**2 * (steep + EPS) ** (2 * p) / (2 * alpha * (1 - beta1) * (1 - DECAY) ** 2),
    )


def trivial(problem: Problem, seen: Mark) -> float:
    """What convexity alone says: R_T ≤ Σₜ⟨gₜ, θₜ − θ*⟩ ≤ D∞·ΣₜΣᵢ|gₜᵢ|, whatever is played."""
    return problem.diameter * seen.sum
