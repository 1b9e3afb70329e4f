"""How numbers are written in a report's tables."""

import math

import pytest

from benchmarks.report.display import cells


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (98.612, "98.61"),
        (0.01, "0.01"),
        (0.0, "0.00"),
        (0.0012345, "0.0012"),
        (-0.00005, "−0.000050"),
        (1.4e-14, "0.00"),  # the difference of two means that are equal but for rounding
    ],
)
def test_what_is_not_nothing_does_not_read_so(value: float, text: str) -> None:
    """A loss of a thousandth has two digits, where two decimals would show 0.00; the number itself stays whole."""
    cell = cells.number(value)
    assert (cell.text, cell.value) == (text, value)


def test_the_smallest_parts_of_a_spread_and_an_interval_are_seen() -> None:
    """A standard deviation or an end of an interval is as easily lost as a mean."""
    mean, _ = cells.spread_of([0.0011, 0.0013])
    assert mean.text == "0.0012 ± 0.00014"
    assert cells.interval(-0.0004, 0.25)[0].text == "[−0.00040, 0.25]"
    assert cells.signed(0.0003).text == "+0.00030"
    assert cells.number(math.nan) is cells.NOTHING
