"""What a comparison needs beside its verdict: settings, budgets, expected bests, sensitivities, and all workloads."""

from collections.abc import Sequence

from benchmarks.report.display.figure import Figure
from benchmarks.report.display.table import Table
from benchmarks.report.results import Report
from benchmarks.report.sections import budgets, choices, expected, profiles, sensitivity


def tables(report: Report) -> list[Table]:
    """Those of one study for which there are runs."""
    found = [table for part in (choices, budgets, expected, sensitivity) for table in part.tables(report)]
    return [*profiles.tables([report]), *found]


def figures(report: Report) -> list[Figure]:
    """Those of one study for which there are runs."""
    found = [figure for part in (expected, sensitivity) for figure in part.figures(report)]
    return [*profiles.figures([report]), *found]


def overall(reports: Sequence[Report]) -> tuple[list[Table], list[Figure]]:
    """Those over the workloads of several studies; nothing for a single study, which has them itself."""
    return (profiles.tables(reports), profiles.figures(reports)) if len(reports) > 1 else ([], [])
