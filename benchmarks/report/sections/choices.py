"""The settings that tuning chose, out of how many, and where the search was too narrow."""

from collections.abc import Sequence

from benchmarks.report.display import cells
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.groups import groups, score
from benchmarks.report.results import Report
from benchmarks.studies.tuning import Edge, edges

_COLUMNS = (
    cells.OPTIMIZER,
    Column("chosen setting", "setting", numeric=False),
    Column("validation score", "validation_score"),
    Column("trials", "trials"),
    Column("diverged", "diverged"),
    Column("to widen", "to_widen", numeric=False),
)


def tables(report: Report) -> list[Table]:
    """The chosen settings of a tuned study, once there are any."""
    if not report.trials:
        return []
    entries = {group.key: group for group in groups(report)}
    rows = []
    for arm in report.study.arms:
        group = entries[arm.group]
        chosen = next(one for one in group.candidates if one.arm.refit == arm.config)
        setting = chosen.arm.label.removeprefix(arm.group).lstrip(",").replace(",", ", ") or "as given"
        beyond = edges(chosen.arm, [one.arm for one in group.candidates])
        diverged = sum(one.diverged > 0 for one in group.candidates)
        row = [
            cells.text(group.title),
            cells.text(setting),
            cells.number(score(chosen)),
            cells.count(len(group.candidates)),
            cells.count(diverged, "diverged" if diverged else ""),
            _widen(beyond),
        ]
        rows.append(Row(arm.label, row))
    notes = [
        "Chosen by the last epoch's score on the held-out tenth of the training set, the mean over the trial's seeds, "
        "without the test set.",
    ]
    if any(row.cells[-1].mark for row in rows):
        notes.append(
            "To widen: a better value may lie beyond the smallest or largest tried. A comparison holds for the "
            "spaces searched."
        )
    if report.waiting:
        notes.append(f"Still waiting for trials: {', '.join(report.waiting)}.")
    return [Table("chosen_settings", "Chosen settings", _COLUMNS, rows, notes)]


def _widen(beyond: Sequence[Edge]) -> Cell:
    words = [
        f"{edge.name}: {cells.short(edge.value)} is the {'largest' if edge.largest else 'smallest'} tried"
        for edge in beyond
    ]
    return cells.text("; ".join(words), "flagged") if words else cells.NOTHING
