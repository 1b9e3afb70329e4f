"""A learning rate that was tuned for Adam, carried to another p by `equivalent_lr`, beside the one tuned there."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.theory.width.sweep import Sweep
from benchmarks.theory.width.task import Task, run, started
from partial_adaptive import equivalent_lr

ADAM = 1 / 2
AFTER = (1, 10, 100)  # steps of Adam's


@dataclasses.dataclass(frozen=True)
class Carried:
    """A learning rate of Adam's at another p.

    Args:
        task: the task's name.
        partial: that p.
        steps: how many steps Adam had taken when it was carried.
        lrs: what came out, for each seed.
        loss: at the end of a run with it from the beginning, the mean over the seeds; None where one is worse than a
            guess.
        accuracy: the same of the accuracy, in percent.
    """

    task: str
    partial: float
    steps: int
    lrs: tuple[float, ...]
    loss: float | None
    accuracy: float

    @property
    def lr(self) -> float:
        """The geometric mean over the seeds."""
        return float(np.exp(np.mean(np.log(self.lrs))))


@dataclasses.dataclass(frozen=True)
class Tuned:
    """How runs with the best learning rate of a sweep end, means over the seeds.

    Args:
        task: the task's name.
        partial: p.
        lr: the learning rate.
        loss: at the end; None where one is worse than a guess.
        accuracy: in percent.
    """

    task: str
    partial: float
    lr: float
    loss: float | None
    accuracy: float


def tuned(task: Task, sweep: Sweep, seeds: Sequence[int]) -> Tuned:
    """Train with the best learning rate."""
    return Tuned(task.name, sweep.partial, sweep.lr, *_ends(task, sweep.lr, sweep.partial, sweep.width, seeds))


def carry(task: Task, sweeps: Mapping[float, Sweep], seeds: Sequence[int]) -> list[Carried]:
    """Carry Adam's best learning rate to the other exponents.

    Args:
        task: what to train on.
        sweeps: those of the task, by p.
        seeds: of the runs.
    """
    adam = sweeps[ADAM]
    found = []
    for steps in AFTER:
        optimizers = [started(task, adam.lr, ADAM, adam.width, seed, steps)[1] for seed in seeds]
        for p in sweeps:
            if p != ADAM:
                lrs = tuple(equivalent_lr(optimizer, p)[0] for optimizer in optimizers)
                middle = float(np.exp(np.mean(np.log(lrs))))
                found.append(Carried(task.name, p, steps, lrs, *_ends(task, middle, p, adam.width, seeds)))
    return found


def _ends(task: Task, lr: float, partial: float, width: int, seeds: Sequence[int]) -> tuple[float | None, float]:
    results = [run(task, lr, partial, width, seed) for seed in seeds]
    loss = float(np.mean([result.loss for result in results]))
    return loss if np.isfinite(loss) else None, float(np.mean([result.accuracy for result in results]))
