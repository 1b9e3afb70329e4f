"""The best learning rate: half decades around a guess, then eighths of a decade around the best of them."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.theory.width.task import Task, run

COARSE, FINE = 2, 8  # learning rates per decade
FAR = 40  # decades: no search goes further


@dataclasses.dataclass(frozen=True)
class Trial:
    """A learning rate.

    Args:
        lr: it.
        losses: the loss at the end for each seed; None where it is worse than a guess.
    """

    lr: float
    losses: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The learning rates tried for a network at one p.

    Args:
        task: its name.
        width: of the hidden layers.
        partial: p.
        trials: eighths of a decade, in order.
    """

    task: str
    width: int
    partial: float
    trials: tuple[Trial, ...]

    @property
    def logs(self) -> tuple[float, ...]:
        """log₁₀ of the best learning rate for each seed."""
        exponents = [math.log10(trial.lr) for trial in self.trials]
        columns = zip(*(trial.losses for trial in self.trials), strict=True)
        return tuple(lowest(exponents, [math.inf if loss is None else loss for loss in losses]) for losses in columns)

    @property
    def log(self) -> float:
        """Their mean."""
        return float(np.mean(self.logs))

    @property
    def lr(self) -> float:
        """The best learning rate, a geometric mean over the seeds."""
        return float(10**self.log)


def lowest(x: Sequence[float], y: Sequence[float]) -> float:
    """Where a curve is lowest: the vertex of the parabola through the logarithms of the lowest point's neighbours too.

    Args:
        x: places at equal distances.
        y: positive values.
    """
    i = min(range(len(y)), key=y.__getitem__)
    if not 0 < i < len(y) - 1 or math.isinf(y[i - 1]) or math.isinf(y[i + 1]):
        return x[i]
    before, here, after = (math.log(value) for value in y[i - 1 : i + 2])
    curvature = before - 2 * here + after
    return x[i] if curvature <= 0 else x[i] + (x[i + 1] - x[i]) * (before - after) / (2 * curvature)


def descend(loss: Callable[[int], float], start: int, reach: int) -> dict[int, float]:
    """The loss at whole numbers around the one where it is least, this far to both sides at least."""
    known: dict[int, float] = {}
    best = start
    while True:
        for k in range(best - reach, best + reach + 1):
            if k not in known:
                known[k] = loss(k)
        least = min(known, key=lambda k: (known[k], abs(k - best)))
        if least == best:
            return known
        if abs(least - start) > FAR:
            raise RuntimeError("no learning rate is the best one")
        best = least


def sweep(task: Task, width: int, partial: float, guess: float, seeds: Sequence[int]) -> Sweep:
    """Find the best learning rate.

    Args:
        task: what to train on.
        width: of the hidden layers.
        partial: p.
        guess: a learning rate to begin with.
        seeds: of the runs; the half decades are tried with the first.
    """
    found: dict[int, Trial] = {}

    def coarse(k: int) -> float:
        return run(task, 10 ** (k / COARSE), partial, width, seeds[0]).loss

    def fine(k: int) -> float:
        losses = [run(task, 10 ** (k / FINE), partial, width, seed).loss for seed in seeds]
        found[k] = Trial(10 ** (k / FINE), tuple(None if math.isinf(loss) else loss for loss in losses))
        return float(np.mean(np.log(losses)))

    tried = descend(coarse, round(COARSE * math.log10(guess)), 1)
    descend(fine, min(tried, key=tried.__getitem__) * FINE // COARSE, 3)
    return Sweep(task.name, width, partial, tuple(found[k] for k in sorted(found)))
