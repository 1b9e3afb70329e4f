"""Which charts a report has: the final scores, curves over the epochs, and the map of learning rate × p."""

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.report.display.figure import Figure
from benchmarks.report.display.palette import Style
from benchmarks.report.results import Report, Series
from benchmarks.report.sections import curves, heatmap, scores

POINTS = 20_000
"""Of all curves of a page together, so that it stays below 5 MB."""


def draw(
    report: Report, styles: Mapping[str, Style], underway: Sequence[Series] = (), points: int = POINTS
) -> list[Figure]:
    """The figures of a study, the final scores first; none without finished runs.

    Args:
        report: what there is of the study.
        styles: the look of each arm by `palette.key`.
        underway: arms without a finished run, with the epochs so far; they have curves alone.
        points: of all curves together; a line has 12 at least.
    """
    subjects = [subject for subject in report.study.subjects if report.of(subject)]
    begun = dataclasses.replace(report, series=(*report.series, *underway))
    wanted = _quantities(report)
    points = max(12, points // max(1, len(begun.series) * len(wanted)))
    found = [scores.draw(report, subject, styles) for subject in subjects]
    found += [
        curves.draw(begun, name, subject, styles, points)
        for name in wanted
        for subject in report.study.subjects
        if begun.of(subject)
    ]
    if "map" in report.study.figures:
        found += [heatmap.draw(report, subject) for subject in subjects]
    return [figure for figure in found if figure is not None]


def _quantities(report: Report) -> list[str]:
    """What the study asks for, and beside it what the runs have of the same kind."""
    beside = {"train_loss": "online_loss", "error": "error_ema"}
    asked = [name for name in report.study.figures if name != "map"]
    return list(dict.fromkeys(one for name in asked for one in (name, beside.get(name, name))))
