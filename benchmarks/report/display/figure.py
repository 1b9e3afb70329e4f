"""A figure of a report: a chart with what is to be said about it."""

import dataclasses
from typing import Any

from benchmarks.report.display.table import Table


@dataclasses.dataclass(frozen=True)
class Figure:
    """A chart.

    Args:
        name: the stem of its files, unique among the figures of a study.
        caption: what is to be seen, in a sentence or two, what the band or bar is included.
        alternative: the same for whoever cannot see it, with the numbers that matter.
        chart: an `altair` chart, without a theme of its own.
        live: the same for a page with scripts, with what answers to the pointer; None takes `chart`.
        data: its numbers as a table; None where a table of the report has them.
        by_arm: whether colours and dashes stand for arms, whose names are beside the charts of a page.
    """

    name: str
    caption: str
    alternative: str
    chart: Any
    live: Any = None
    data: Table | None = None
    by_arm: bool = False
