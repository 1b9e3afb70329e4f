"""The study of the counter-examples: where each p ends, with and without the maximum, and from which p on it fails."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.theory.regret import drift
from benchmarks.theory.regret.cycles import library_path, measured_critical, path
from benchmarks.theory.regret.drift import Cycle

LR = 1.0
PLAYED = (3.0, 5.0, 10.0)  # values of C for the library
MEASURED = (2.1, 2.25, 2.5, *PLAYED, 30.0, 100.0)
DRAWN = (2.25, *PLAYED)
LONG = (50, 100, 125, 130, 150, 200, 400)
PARTIALS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
BESIDE = 0.02  # how far from the critical p the library is played, on either side of it
LIBRARY_ROUNDS, ROUNDS, LONG_CYCLES = 3_000, 30_000, 3_000


@dataclasses.dataclass(frozen=True)
class Critical:
    """The critical p of a short cycle.

    Args:
        c: C.
        beta: β₂.
        averages: v in the steady state, in the three rounds of the cycle.
        theory: the root of the pull.
        measured: by bisection on played paths.
    """

    c: float
    beta: float
    averages: tuple[float, float, float]
    theory: float
    measured: float


@dataclasses.dataclass(frozen=True)
class End:
    """Where a path ends, from 0.

    Args:
        c: C.
        partial: p.
        pull: of the theory; towards −1 where it is positive.
        average: the last point without the maximum.
        maximum: the last point with it.
    """

    c: float
    partial: float
    pull: float
    average: float
    maximum: float


@dataclasses.dataclass(frozen=True)
class Long:
    """A long cycle.

    Args:
        c: C, which is its length too.
        beta: β₂.
        theory: the critical p.
        ends: where a path ends at each of `PARTIALS`.
    """

    c: int
    beta: float
    theory: float
    ends: tuple[End, ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """The study's results.

    Args:
        lr: α of all paths whose end points are here.
        library_rounds: how long those of the library were.
        rounds: how long those of the curves were.
        cycles: how many cycles those of the long cycle had.
        criticals: of the short cycle, by C.
        library: end points of the library's optimizers.
        difference: the largest between a point of the library's paths and of NumPy's.
        curves: end points over p, in NumPy.
        longs: of the long cycle, by C.
        environment: where it ran.
    """

    lr: float
    library_rounds: int
    rounds: int
    cycles: int
    criticals: tuple[Critical, ...]
    library: tuple[End, ...]
    difference: float
    curves: tuple[End, ...]
    longs: tuple[Long, ...]
    environment: Mapping[str, Any]


def end(cycle: Cycle, partial: float, rounds: int) -> End:
    """Where NumPy's paths end."""
    average, maximum = (float(path(cycle, partial, LR, rounds, maximum=kind)[-1]) for kind in (False, True))
    return End(cycle.c, partial, cycle.pull(partial), average, maximum)


def library_end(cycle: Cycle, partial: float, rounds: int) -> tuple[End, float]:
    """Where the library's paths end, and how far they are from NumPy's at most."""
    points = {kind: library_path(cycle, partial, LR, rounds, maximum=kind) for kind in (False, True)}
    off = max(np.abs(own - path(cycle, partial, LR, rounds, maximum=kind)).max() for kind, own in points.items())
    return End(cycle.c, partial, cycle.pull(partial), *(float(own[-1]) for own in points.values())), float(off)


def critical(c: float) -> Critical:
    """By theory and by measurement."""
    cycle = drift.short(c)
    first, second, third = cycle.averages().tolist()
    return Critical(c, cycle.beta, (first, second, third), cycle.critical(), measured_critical(cycle))


def run(environment: Mapping[str, Any]) -> Record:
    """Solve and play everything, and say what is done."""
    criticals = tuple(map(critical, MEASURED))
    print(f"[1/4] the critical p of {len(criticals)} values of C", flush=True)
    ends = []
    for c in PLAYED:
        cycle = drift.short(c)
        near = cycle.critical()
        ends += [library_end(cycle, p, LIBRARY_ROUNDS) for p in sorted((*PARTIALS, near - BESIDE, near + BESIDE))]
    print(f"[2/4] {2 * len(ends)} paths of {LIBRARY_ROUNDS:,} rounds by the library", flush=True)
    grid = np.linspace(0, 0.5, 51).tolist()
    curves = tuple(end(drift.short(c), p, ROUNDS) for c in DRAWN for p in grid)
    print(f"[3/4] {2 * len(curves)} paths of {ROUNDS:,} rounds in NumPy", flush=True)
    longs = []
    for c in LONG:
        cycle = drift.long(c)
        played = tuple(end(cycle, p, LONG_CYCLES * c) for p in PARTIALS)
        longs.append(Long(c, cycle.beta, cycle.critical(), played))
    print(f"[4/4] {2 * len(LONG) * len(PARTIALS)} paths of {LONG_CYCLES:,} longer cycles in NumPy", flush=True)
    library, off = zip(*ends, strict=True)
    return Record(
        LR, LIBRARY_ROUNDS, ROUNDS, LONG_CYCLES, criticals, tuple(library), max(off), curves, tuple(longs), environment
    )
