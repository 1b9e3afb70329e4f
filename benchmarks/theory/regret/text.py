"""Numbers as the two reports show them."""

from fractions import Fraction

from benchmarks.report.display.cells import MINUS

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def fraction(p: float) -> str:
    """1/8 for 0.125."""
    return str(Fraction(p).limit_denominator(1000))


def number(value: float, form: str = ".3g") -> str:
    """A number of a few digits, with a real minus sign."""
    return f"{value:{form}}".replace("-", MINUS)


def power(value: float) -> str:
    """A number that may be of any size: 1.2·10⁷, or as it is where that is short."""
    if value == 0 or 0.01 <= value < 1000:
        return number(value)
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}·10{str(int(exponent)).translate(_RAISED)}"
