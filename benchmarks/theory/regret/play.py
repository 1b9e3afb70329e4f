"""Algorithm 1 of the paper, played by the library, and what Theorem 4.2 looks at along the way."""

import dataclasses
from collections.abc import Collection
from typing import final

import numpy as np
import torch
from torch import Tensor

from benchmarks.theory.regret.problem import Problem
from partial_adaptive import Constraint, Geometric, InverseSqrt, Padam, Schedule

BETAS = (0.9, 0.999)
DECAY = 0.99  # λ, by which β₁ decays
EPS = 1e-8


@dataclasses.dataclass(frozen=True)
class Mark:
    """What a run had seen after t rounds.

    Args:
        t: the round.
        loss: Σₛ fₛ(θₛ).
        scales: Σᵢ (√v̂ₜᵢ + ε)^(2p), the theorem's Σᵢ v̂ₜᵢ^p with the ε that the division needs.
        norms: Σᵢ ‖g₁:ₜ,ᵢ‖₂.
        largest: G∞, the largest |gₛᵢ|.
        sum: ΣₛΣᵢ |gₛᵢ|.
    """

    t: int
    loss: float
    scales: float
    norms: float
    largest: float
    sum: float


@final
@dataclasses.dataclass(frozen=True)
class Euclidean(Constraint):
    """A set's projection in the wrong metric, as if every weight were 1: what one gets by projecting after the step."""

    inner: Constraint

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        """The nearest point to x by the ordinary distance."""
        return self.inner.project(x, torch.ones_like(x))


def play(
    problem: Problem, partial: float, lr: float, rounds: Collection[int], constraint: Constraint | None = None
) -> list[Mark]:
    """Play a problem with αₜ = α/√t and β₁ₜ = β₁λᵗ⁻¹.

    Args:
        problem: what to play.
        partial: p.
        lr: α.
        rounds: where to take a mark; the last is where the run ends.
        constraint: how to project, unless as the algorithm says.
    """
    theta = torch.from_numpy(problem.start.copy())
    theta.grad = torch.zeros_like(theta)
    x, g = theta.numpy(), theta.grad.numpy()  # the same memory
    optimizer = Padam(
        [theta],
        lr=lr,
        betas=BETAS,
        partial=partial,
        eps=EPS,
        bias_correction="none",
        constraint=constraint or problem.feasible,
    )
    schedule = Schedule(optimizer, lr=InverseSqrt(), beta1=Geometric(DECAY))
    loss = largest = total = 0.0
    squares = np.zeros_like(x)
    marks = []
    for t in range(1, max(rounds) + 1):
        loss += problem.loss(t, x)
        g[:] = problem.gradient(t, x)
        optimizer.step()
        schedule.step()
        sizes = np.abs(g)
        squares += sizes**2
        largest, total = max(largest, float(sizes.max())), total + float(sizes.sum())
        if t in rounds:
            highest = optimizer.state[theta]["max_exp_avg_sq"].numpy()
            scales = float(((np.sqrt(highest) + EPS) ** (2 * partial)).sum())
            marks.append(Mark(t, loss, scales, float(np.sqrt(squares).sum()), largest, total))
    return marks
