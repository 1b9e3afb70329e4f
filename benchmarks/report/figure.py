"""A figure of a report: a chart with what is to be said about it."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart.

    Args:
        name: the stem of its files, unique among the figures of a study.
        caption: what is to be seen, in a sentence or two, what the band or bar is included.
        alternative: the same for whoever cannot see it, with the numbers that matter.
        chart: an `altair` chart, without a theme of its own.
    """

    name: str
    caption: str
    alternative: str
    chart: Any
