"""What an online convex problem is, and the two forms of it that the study has."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import numpy as np

from benchmarks.theory.regret.optimum import Optimum, certified
from benchmarks.theory.regret.sets import Vector, form
from partial_adaptive import Box, Constraint


@dataclasses.dataclass(frozen=True, eq=False)
class Problem(ABC):
    """Convex losses f₁, f₂, … over a feasible set, each revealed once the point of its round has been chosen.

    Args:
        name: one word.
        description: one sentence.
        feasible: X, the set.
        start: θ₁, a point of it.
        rate: the middle of the grid of learning rates.
    """

    name: str
    description: str
    feasible: Constraint
    start: Vector
    rate: float

    @property
    def dimension(self) -> int:
        """The number of coordinates."""
        return len(self.start)

    @property
    def diameter(self) -> float:
        """D∞, the largest distance of two points of the set in one coordinate."""
        return form(self.feasible).diameter

    @abstractmethod
    def loss(self, t: int, x: Vector) -> float:
        """fₜ(x), with t from 1."""

    @abstractmethod
    def gradient(self, t: int, x: Vector) -> Vector:
        """∇fₜ(x), or a subgradient where there is a kink."""

    @abstractmethod
    def best(self, t: int) -> Optimum:
        """The best fixed point for the sum of the first t losses."""


@dataclasses.dataclass(frozen=True)
class Link:
    """What a linear prediction z costs.

    Args:
        value: φ(z, b), of arrays element by element.
        slope: ∂φ(z, b)/∂z.
    """

    value: Callable[[Vector, Vector], Vector]
    slope: Callable[[Vector, Vector], Vector]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Predictions(Problem):
    """fₜ(x) = φ(⟨aₜ, x⟩, bₜ).

    Args:
        link: φ.
        rows: aₜ, one row a round.
        targets: bₜ.
        minimum: finds the best point for the first t rounds.
    """

    link: Link
    rows: Vector
    targets: Vector
    minimum: "Callable[[Predictions, int], Optimum]"

    def loss(self, t: int, x: Vector) -> float:
        """φ(⟨aₜ, x⟩, bₜ)."""
        return float(self.link.value(self.rows[t - 1] @ x, self.targets[t - 1]))

    def gradient(self, t: int, x: Vector) -> Vector:
        """φ′(⟨aₜ, x⟩, bₜ)·aₜ."""
        row: Vector = self.rows[t - 1]
        return self.link.slope(row @ x, self.targets[t - 1]) * row

    def total(self, t: int, x: Vector) -> tuple[float, Vector]:
        """The sum of the first t losses, and its gradient."""
        rows, targets = self.rows[:t], self.targets[:t]
        z = rows @ x
        return float(self.link.value(z, targets).sum()), self.link.slope(z, targets) @ rows

    def best(self, t: int) -> Optimum:
        """By `minimum`."""
        return self.minimum(self, t)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Targets(Problem):
    """fₜ(x) = ½Σᵢhᵢ(xᵢ − cₜᵢ)² over a box.

    Args:
        stiffness: h.
        targets: cₜ, one row a round.
    """

    feasible: Box
    stiffness: Vector
    targets: Vector

    def loss(self, t: int, x: Vector) -> float:
        """½Σᵢhᵢ(xᵢ − cₜᵢ)²."""
        return float(self.stiffness @ (x - self.targets[t - 1]) ** 2) / 2

    def gradient(self, t: int, x: Vector) -> Vector:
        """h·(x − cₜ)."""
        target: Vector = self.targets[t - 1]
        return self.stiffness * (x - target)

    def best(self, t: int) -> Optimum:
        """The mean target, or where the walls are before it."""
        targets = self.targets[:t]
        point = np.clip(targets.mean(axis=0), self.feasible.low, self.feasible.high)
        away = point - targets
        return certified(
            self.feasible, point, float((away**2 @ self.stiffness).sum()) / 2, self.stiffness * away.sum(axis=0)
        )
