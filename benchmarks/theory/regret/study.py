"""The regret study: every problem at every p over the same number of learning rates, beside the theorem's bound."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.theory.regret import sets
from benchmarks.theory.regret.bound import Bound, bound, trivial
from benchmarks.theory.regret.play import BETAS, DECAY, EPS, Euclidean, play
from benchmarks.theory.regret.problem import Problem
from benchmarks.theory.regret.problems import PROBLEMS

ROUNDS = 2_000
PARTIALS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
STEPS = (-2, -1, 0, 1, 2)  # of the grid of learning rates, half decades around the problem's own
METRIC = ("portfolio", 1 / 2)  # the problem and the p at which the projection is also the Euclidean one


@dataclasses.dataclass(frozen=True)
class Point:
    """A run after t rounds.

    Args:
        t: the round.
        regret: the loss until then over that of the best fixed point for these rounds.
        bound: the theorem's.
        trivial: D∞·ΣₜΣᵢ|gₜᵢ|, which no player can exceed.
    """

    t: int
    regret: float
    bound: Bound
    trivial: float


@dataclasses.dataclass(frozen=True)
class Run:
    """A problem once played.

    Args:
        partial: p.
        lr: α.
        weighted: whether the projection was the algorithm's, or the Euclidean one.
        points: the run at some rounds.
    """

    partial: float
    lr: float
    weighted: bool
    points: tuple[Point, ...]

    @property
    def regret(self) -> float:
        """At the end."""
        return self.points[-1].regret


@dataclasses.dataclass(frozen=True)
class Played:
    """A problem and its runs.

    Args:
        name: of the problem.
        description: one sentence.
        feasible: the set as a formula.
        dimension: of its points.
        diameter: D∞.
        gap: how far at most a comparator is from the best one, in loss; the largest over the rounds.
        runs: all of them.
    """

    name: str
    description: str
    feasible: str
    dimension: int
    diameter: float
    gap: float
    runs: tuple[Run, ...]

    def best(self, partial: float, *, weighted: bool = True) -> Run:
        """The run with the least regret at the end, of those with this p and projection."""
        return min(self.of(partial, weighted=weighted), key=lambda run: run.regret)

    def of(self, partial: float, *, weighted: bool = True) -> list[Run]:
        """The runs with this p and projection, in the order of their learning rates."""
        return [run for run in self.runs if run.partial == partial and run.weighted == weighted]


@dataclasses.dataclass(frozen=True)
class Record:
    """The study's results.

    Args:
        betas: β₁ and β₂ of all runs.
        decay: λ.
        eps: ε.
        problems: what was played.
        environment: where it ran.
    """

    betas: tuple[float, float]
    decay: float
    eps: float
    problems: tuple[Played, ...]
    environment: Mapping[str, Any]

    @property
    def rounds(self) -> int:
        """How long each run was."""
        return self.problems[0].runs[0].points[-1].t

    @property
    def partials(self) -> tuple[float, ...]:
        """The values of p."""
        return tuple(dict.fromkeys(run.partial for run in self.problems[0].runs))

    @property
    def metric(self) -> tuple[Played, float]:
        """The problem and the p that were also played with the Euclidean projection."""
        return next((one, run.partial) for one in self.problems for run in one.runs if not run.weighted)


def marks(rounds: int) -> tuple[int, ...]:
    """Ten rounds, evenly spaced on a logarithmic axis; the last is the last."""
    return tuple(round(t) for t in np.geomspace(min(10, rounds), rounds, 10))


def measure(problem: Problem, rounds: Sequence[int], partials: Iterable[float] = PARTIALS) -> Played:
    """Play one problem at each p and learning rate, and compare with the best point for each number of rounds."""
    best = [problem.best(t) for t in rounds]

    def one(p: float, alpha: float, *, weighted: bool) -> Run:
        seen = play(problem, p, alpha, rounds, None if weighted else Euclidean(problem.feasible))
        points = (
            Point(mark.t, mark.loss - comparator.value, bound(problem, p, alpha, mark), trivial(problem, mark))
            for mark, comparator in zip(seen, best, strict=True)
        )
        return Run(p, alpha, weighted, tuple(points))

    rates = [problem.rate * 10 ** (step / 2) for step in STEPS]
    settings = [(p, True) for p in partials] + [(p, False) for p in partials if (problem.name, p) == METRIC]
    return Played(
        problem.name,
        problem.description,
        sets.form(problem.feasible).formula,
        problem.dimension,
        problem.diameter,
        max(comparator.gap for comparator in best),
        tuple(one(p, alpha, weighted=weighted) for p, weighted in settings for alpha in rates),
    )


def run(environment: Mapping[str, Any]) -> Record:
    """Play all problems, and say how long each took."""
    played = []
    for number, (name, build) in enumerate(PROBLEMS.items(), start=1):
        start = time.process_time()
        played.append(measure(build(ROUNDS), marks(ROUNDS)))
        print(
            f"[{number}/{len(PROBLEMS)}] {name}: {len(played[-1].runs)} runs of {ROUNDS:,} rounds, "
            f"{time.process_time() - start:.1f} s",
            flush=True,
        )
    return Record(BETAS, DECAY, EPS, tuple(played), environment)
