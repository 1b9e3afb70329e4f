"""The points of an entry: all of a grid, a draw from it, or the first points of a quasi-random sequence."""

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.base.errors import nearest
from benchmarks.base.numbers import is_number
from benchmarks.studies.study import StudyError, Tuning

_KEYS = ("low", "high", "log", "whole", "step", "choices")
_DIGITS = 3  # of a drawn number: labels stay readable, and an identity does not hang on the last bit of a logarithm
_LONGEST = 2**16  # points of the sequence that are looked through for different ones


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`.

    Args:
        low: the smallest one.
        high: the largest one, above `low`.
        log: whether their logarithm is uniform instead of they themselves; needs `low` > 0.
        whole: whether only whole numbers count, both ends included.
        step: distance between those that count, from `low` on; 0 for no such grid. Excludes `log`.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float = 0

    @property
    def size(self) -> float:
        """How many numbers there are."""
        if self.step:
            return math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return self.high - self.low + 1 if self.whole else math.inf

    def at(self, unit: float) -> float:
        """The number at `unit`, in [0, 1): rounded to three digits of its own, or of the width where that is finer."""
        if self.step or (self.whole and not self.log):
            value = self.low + math.floor(unit * self.size) * (self.step or 1)
            return value if isinstance(value, int) else float(f"{value:.6g}")
        # Each whole number owns the half before and after it, so that the ends are as likely as their neighbours.
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        value = low * (high / low) ** unit if self.log else low + unit * (high - low)
        if self.whole:
            return min(max(round(value), self.low), self.high)
        rounded = round(value, _DIGITS - _magnitude(min(value, high - low) if self.log else high - low))
        return float(min(max(rounded, self.low), self.high))


@dataclasses.dataclass(frozen=True)
class Choices:
    """Values of any kind, each as likely as the others."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """How many there are."""
        return len(self.values)

    def at(self, unit: float) -> Any:
        """The value at `unit`, in [0, 1)."""
        return self.values[math.floor(unit * len(self.values))]


def parse(value: Any, name: str) -> Range | Choices | None:
    """The space that a value of a study file stands for, None if it stands for itself.

    Args:
        value: ``{low, high, log, whole, step}`` (of which `log` is true by default where `low` > 0 and there is no
            `step`), ``{choices}``, or anything else.
        name: what it is a value of, for messages.

    Raises:
        StudyError: it looks like a space, and is none.
    """
    if not isinstance(value, Mapping) or not {"low", "high", "choices"} & value.keys():
        return None
    for key in value:
        if key not in _KEYS:
            raise StudyError(f"{name}: unknown key of a range {key!r}{nearest(str(key), _KEYS)}")
    if "choices" in value:
        choices = value["choices"]
        if len(value) > 1 or not isinstance(choices, list) or not choices:
            raise StudyError(f"{name}: choices must be a list of at least one value and stand alone, got {value!r}")
        return Choices(tuple(choices))
    return _range(value, name)


def _range(value: Mapping[str, Any], name: str) -> Range:
    for key in ("low", "high", "step"):
        number = value.get(key, 0)
        if not is_number(number) or not math.isfinite(number):
            raise StudyError(f"{name}: {key} must be a finite number, got {number!r}")
    for key in ("log", "whole"):
        if not isinstance(value.get(key, False), bool):
            raise StudyError(f"{name}: {key} must be true or false, got {value[key]!r}")
    if "low" not in value or "high" not in value or not value["low"] < value["high"]:
        raise StudyError(f"{name}: a range needs low < high, got {dict(value)!r}")
    step, whole = value.get("step", 0), value.get("whole", False)
    found = Range(value["low"], value["high"], value.get("log", value["low"] > 0 and not step), whole, step)
    if found.log and (found.low <= 0 or step):
        raise StudyError(f"{name}: log needs low > 0 and no step, got {dict(value)!r}")
    if not 0 <= step <= found.high - found.low:
        raise StudyError(f"{name}: step must be in (0, high - low], got {step!r}")
    if whole and any(number != int(number) for number in (found.low, found.high, step)):
        raise StudyError(f"{name}: whole numbers need a whole low, high and step, got {dict(value)!r}")
    return dataclasses.replace(found, low=int(found.low), high=int(found.high), step=int(step)) if whole else found


def points(
    axes: Mapping[str, Sequence[Any] | Range | Choices], tuning: Tuning | None, label: str
) -> list[dict[str, Any]]:
    """The settings that an entry stands for, each by the name of its axis.

    Without ranges and `tuning` all points of the grid; with `tuning` as many as there are trials: of lists alone, a
    draw without replacement; else the first different points of a quasi-random sequence, whose coordinates are the
    same for every entry with as many axes, and of which more trials only take more.

    Args:
        axes: in the order in which they count.
        tuning: how many trials there are, and the seed of the draw.
        label: the entry's name, for messages.
    """
    spaces = [name for name, axis in axes.items() if isinstance(axis, Range | Choices)]
    if spaces and tuning is None:
        raise StudyError(f"{label!r}: {spaces[0]} is a range, which only [tuning] draws from; give a value or a list")
    if spaces and tuning is not None:
        return _drawn(
            {name: axis if isinstance(axis, Range | Choices) else Choices(tuple(axis)) for name, axis in axes.items()},
            tuning,
            label,
        )
    grid = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*(axis for axis in axes.values() if not isinstance(axis, Range | Choices)))
    ]
    if tuning is None or len(grid) == tuning.trials:
        return grid
    _check_size(len(grid), tuning, label)
    return random.Random(tuning.seed).sample(grid, tuning.trials)


def _drawn(axes: Mapping[str, Range | Choices], tuning: Tuning, label: str) -> list[dict[str, Any]]:
    _check_size(math.prod(axis.size for axis in axes.values()), tuning, label)
    found: dict[str, dict[str, Any]] = {}
    for units in itertools.islice(_sequence(len(axes), tuning.seed), _LONGEST):
        point = {name: axis.at(unit) for (name, axis), unit in zip(axes.items(), units, strict=True)}
        found.setdefault(repr(point), point)
        if len(found) == tuning.trials:
            return list(found.values())
    _check_size(len(found), tuning, label)
    raise AssertionError("unreachable: fewer points were found than trials")


def _check_size(size: float, tuning: Tuning, label: str) -> None:
    if size < tuning.trials:
        raise StudyError(f"the grid of {label!r} has {size:g} points, but every entry gets {tuning.trials} trials")


def _sequence(dimensions: int, seed: int) -> Iterator[Sequence[float]]:
    """Scrambled Sobol' points in the unit cube."""
    from scipy.stats import qmc

    sampler = qmc.Sobol(dimensions, scramble=True, rng=seed)
    while True:
        yield from sampler.random(64).tolist()  # a power of two, without which scipy warns


def _magnitude(number: float) -> int:
    """The exponent of the first digit, plus one: 1 for 3.14, 0 for 0.5."""
    return math.floor(math.log10(number)) + 1
