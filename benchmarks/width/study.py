"""The width study: the best learning rate against p and the width of a network, and how well it is foretold."""

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.width.carry import Carried, Tuned, carry, tuned
from benchmarks.width.coordinates import Coordinates, measure
from benchmarks.width.sweep import Sweep, sweep
from benchmarks.width.task import available, digits
from partial_adaptive import interpolated_lr

PARTIALS = (0.0, 1 / 8, 1 / 4, 1 / 2)
WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2, 3, 4)
STEPS = 100  # of the runs at different widths
CARRIED_WIDTH = 64
GUESSES: Mapping[float, float] = {0.0: 1.0, 1 / 2: 1e-2}  # learning rates by p, to begin with


@dataclasses.dataclass(frozen=True)
class Exponent:
    """The slope of log(best learning rate) over log(width).

    Args:
        partial: p.
        slope: by least squares, over all widths and seeds.
        low: its 95 % t-interval.
        high: the same.
    """

    partial: float
    slope: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Record:
    """The study's results.

    Args:
        seeds: of all runs.
        steps: of a run at the widths; runs of tasks have their own.
        widths: the sweeps of digits at all widths.
        coordinates: the coordinate check.
        tasks: the sweeps of each task at one width.
        tuned: runs with the best of these.
        carried: Adam's best learning rate at other exponents.
        environment: where it ran.
    """

    seeds: tuple[int, ...]
    steps: int
    widths: tuple[Sweep, ...]
    coordinates: tuple[Coordinates, ...]
    tasks: tuple[Sweep, ...]
    tuned: tuple[Tuned, ...]
    carried: tuple[Carried, ...]
    environment: Mapping[str, Any]

    @property
    def partials(self) -> tuple[float, ...]:
        """The values of p."""
        return tuple(dict.fromkeys(one.partial for one in self.widths))

    def at(self, partial: float) -> list[Sweep]:
        """The sweeps at one p, from narrow to wide."""
        return sorted((one for one in self.widths if one.partial == partial), key=lambda one: one.width)

    def exponent(self, partial: float) -> Exponent:
        """How the best learning rate goes with the width."""
        points = [(math.log10(one.width), log) for one in self.at(partial) for log in one.logs]
        fit = stats.linregress(*zip(*points, strict=True))
        half = float(stats.t.ppf(0.975, len(points) - 2)) * float(fit.stderr)
        return Exponent(partial, float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)

    def best(self, task: str) -> dict[float, float]:
        """The best learning rates of a task, by p."""
        return {one.partial: one.lr for one in self.tuned if one.task == task}

    def interpolated(self, task: str, partial: float) -> float:
        """The learning rate for p from those of the two ends."""
        best = self.best(task)
        return interpolated_lr(partial, {p: best[p] for p in (min(best), max(best))})


def run(environment: Mapping[str, Any], data_dir: Path) -> Record:
    """Train everything, and say how long each part took."""
    clock = _Clock()
    task = digits(data_dir, STEPS)
    widths: list[Sweep] = []
    coordinates: list[Coordinates] = []
    for p in PARTIALS:
        guess = interpolated_lr(p, GUESSES)
        for width in WIDTHS:
            widths.append(sweep(task, width, p, guess, SEEDS))
            guess = widths[-1].lr
        clock.say(f"sweeps at p = {p:g}")
        base = widths[-len(WIDTHS)]
        coordinates += measure(task, p, (base.width, base.lr), WIDTHS, SEEDS)
        clock.say(f"coordinate check at p = {p:g}")
    tasks: list[Sweep] = []
    best: list[Tuned] = []
    carried: list[Carried] = []
    for one in available(data_dir):
        sweeps = {p: sweep(one, CARRIED_WIDTH, p, interpolated_lr(p, GUESSES), SEEDS) for p in PARTIALS}
        tasks += sweeps.values()
        best += [tuned(one, found, SEEDS) for found in sweeps.values()]
        carried += carry(one, sweeps, SEEDS)
        clock.say(f"{one.name}, carried")
    parts = tuple(widths), tuple(coordinates), tuple(tasks), tuple(best), tuple(carried)
    return Record(SEEDS, STEPS, *parts, environment)


class _Clock:
    """Says how much processor time parts of the study take."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def say(self, what: str) -> None:
        now = time.process_time()
        print(f"{what}: {now - self._last:.0f} s", flush=True)
        self._last = now
