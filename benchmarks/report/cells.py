"""Cells with their number: written once, read by people and by programs."""

import math

from benchmarks.report.table import Cell, Mark

DASH, MINUS = "–", "−"
NOTHING = Cell(DASH)


def text(words: str, mark: Mark = "") -> Cell:
    """Words."""
    return Cell(words, words, mark)


def count(value: int, mark: Mark = "") -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", value, mark)


def number(value: float, digits: int = 2, suffix: str = "", mark: Mark = "") -> Cell:
    """A number with so many decimals, and what people read after it; a dash for NaN."""
    return NOTHING if math.isnan(value) else Cell(decimal(value, digits) + suffix, value, mark)


def decimal(value: float, digits: int = 2, sign: str = "") -> str:
    """The number with so many decimals, and with ``sign="+"`` always with its sign."""
    return f"{value:{sign}.{digits}f}".replace("-", MINUS)


def short(value: float) -> str:
    """A setting: as few digits as it has, at most six."""
    return f"{value:g}".replace("e-0", "e-").replace("-", MINUS)
