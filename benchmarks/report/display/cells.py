"""Cells with their number: written once, read by people and by programs."""

import math
from collections.abc import Iterable, Sequence

from benchmarks.report.display.table import Cell, Column, Mark
from benchmarks.report.inference.statistics import Summary, summarize

DASH, MINUS = "–", "−"
NOTHING = Cell(DASH)
FINEST = 8  # decimals; what is smaller yet is the rounding of a difference that is none
OPTIMIZER = Column("optimizer", "optimizer", numeric=False)
"""The first column of a table about optimizers."""
WHO = (OPTIMIZER, Column("label", "label", numeric=False, shown=False))
"""The first columns of a table about arms."""


def text(words: str, mark: Mark = "") -> Cell:
    """Words."""
    return Cell(words, words, mark)


def count(value: int, mark: Mark = "") -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", value, mark)


def number(value: float, digits: int = 2, suffix: str = "", mark: Mark = "", kind: str = "f") -> Cell:
    """A number with so many decimals, and what people read after it; a dash for NaN."""
    return NOTHING if math.isnan(value) else Cell(decimal(value, digits, kind=kind) + suffix, value, mark)


def signed(value: float) -> Cell:
    """A difference."""
    return NOTHING if math.isnan(value) else Cell(decimal(value, sign="+"), value)


def probability(value: float) -> Cell:
    """A p-value."""
    return NOTHING if math.isnan(value) else Cell(chance(value), value)


def spread(summary: Summary, digits: int = 2, suffix: str = "") -> list[Cell]:
    """A mean, shown with its standard deviation, and that for programs: the cells of `spread_columns`."""
    beside = "" if math.isnan(summary.sd) else f" ± {decimal(summary.sd, digits)}"
    return [number(summary.mean, digits, beside + suffix), number(summary.sd, digits)]


def spread_of(values: Sequence[float], digits: int = 2, suffix: str = "") -> list[Cell]:
    """`spread` of some values."""
    return spread(summarize(values), digits, suffix)


def spread_columns(header: str, name: str) -> list[Column]:
    """A column with means, and one for programs with standard deviations."""
    return [Column(header, f"{name}_mean"), Column(f"{header}, sd", f"{name}_sd", shown=False)]


def span(values: Iterable[int]) -> Cell:
    """Whole numbers: the one that all are, or the least and the greatest; by program the greatest."""
    some = sorted(values)
    return Cell("–".join(map(str, dict.fromkeys((some[0], some[-1])))), some[-1]) if some else NOTHING


def interval(low: float, high: float) -> list[Cell]:
    """An interval, shown as one, and its upper end for programs: the cells of `interval_columns`."""
    return [NOTHING, NOTHING] if math.isnan(low) else [Cell(between(low, high), low), number(high)]


def interval_columns(header: str, name: str) -> list[Column]:
    """A column with intervals, the number being the lower end, and one for programs with upper ends."""
    return [Column(header, f"{name}_low"), Column(f"{header}, upper end", f"{name}_high", shown=False)]


def between(low: float, high: float) -> str:
    """An interval in words."""
    return f"[{decimal(low)}, {decimal(high)}]"


def decimal(value: float, digits: int = 2, sign: str = "", kind: str = "f") -> str:
    """The number with so many decimals, and with ``sign="+"`` always with its sign.

    A number too small for them gets as many as show two of its digits, up to `FINEST`: what is not 0 does not read so.
    """
    if kind == "f" and 0 < abs(value) < 10.0**-digits:
        finer = 1 - math.floor(math.log10(abs(value)))
        digits = finer if finer <= FINEST else digits
    return f"{value:{sign}.{digits}{kind}}".replace("-", MINUS)


def short(value: float) -> str:
    """A setting: as few digits as it has, at most six."""
    return f"{value:g}".replace("e-0", "e-").replace("-", MINUS)


def chance(value: float) -> str:
    """A p-value in words."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
