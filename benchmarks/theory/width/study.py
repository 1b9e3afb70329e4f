"""The width study: the best learning rate against p and the width of a network, and how well it is foretold."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.theory.width.carry import Carried, Tuned, carry, tuned
from benchmarks.theory.width.coordinates import Coordinates, gradient, measure
from benchmarks.theory.width.sweep import Sweep, sweep
from benchmarks.theory.width.task import available, digits
from partial_adaptive import interpolated_lr

PARTIALS = (0.0, 1 / 8, 1 / 4, 1 / 2)
WIDTHS = (64, 128, 256, 512, 1024)
SEEDS = (0, 1, 2, 3, 4)
STEPS = 100  # of the runs at different widths
CARRIED_WIDTH = 64
GUESSES: Mapping[float, float] = {0.0: 1.0, 1 / 2: 1e-2}  # learning rates by p, to begin with


@dataclasses.dataclass(frozen=True)
class Exponent:
    """How something goes with the width: the slope of its logarithm over that of the width.

    Args:
        slope: by least squares, over all widths and seeds.
        low: its 95 % t-interval.
        high: the same.
    """

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
        gradients: the RMS of the hidden matrix's first gradient, at each width for each seed.
        coordinates: the coordinate check.
        tasks: the sweeps of each task at one width.
        tuned: runs with the best of these.
        carried: Adam's best learning rate at other exponents.
        environment: where it ran.
    """

    seeds: tuple[int, ...]
    steps: int
    widths: tuple[Sweep, ...]
    gradients: tuple[tuple[float, ...], ...]
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
        return _exponent([(one.width, log) for one in self.at(partial) for log in one.logs])

    @property
    def of_gradient(self) -> Exponent:
        """How the RMS of the hidden matrix's gradient goes with the width."""
        sizes = [one.width for one in self.at(self.partials[0])]
        pairs = zip(sizes, self.gradients, strict=True)
        return _exponent([(size, math.log10(value)) for size, values in pairs for value in values])

    def best(self, task: str) -> dict[float, float]:
        """The best learning rates of a task, by p."""
        return {one.partial: one.lr for one in self.tuned if one.task == task}

    def interpolated(self, task: str, partial: float) -> float:
        """The learning rate for p from those of the two ends."""
        best = self.best(task)
        return interpolated_lr(partial, {p: best[p] for p in (min(best), max(best))})


def _exponent(points: Sequence[tuple[int, float]]) -> Exponent:
    """The slope over pairs of a width and a logarithm."""
    fit = stats.linregress([math.log10(width) for width, _ in points], [log for _, log in points])
    half = float(stats.t.ppf(0.975, len(points) - 2)) * float(fit.stderr)
    return Exponent(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


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
    gradients = tuple(tuple(gradient(task, width, seed) for seed in SEEDS) for width in WIDTHS)
    parts = tuple(widths), gradients, tuple(coordinates), tuple(tasks), tuple(best), tuple(carried)
    return Record(SEEDS, STEPS, *parts, environment)


class _Clock:
    """Says how much processor time parts of the study take."""

    def __init__(self) -> None:
        self._last = time.process_time()

    def say(self, what: str) -> None:
        now = time.process_time()
        print(f"{what}: {now - self._last:.0f} s", flush=True)
        self._last = now
