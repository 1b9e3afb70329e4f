"""What was spent on the settings of each optimizer: a comparison is fair where all were given the same."""

from collections.abc import Iterable, Sequence

from benchmarks.base.numbers import is_number
from benchmarks.base.records import number
from benchmarks.report.display import cells
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.groups import Group, groups, stem, subjects, where
from benchmarks.report.results import Report, Series

_FEW = 5  # values that are named one by one
_COLUMNS = (
    cells.OPTIMIZER,
    Column("settings tried", "settings"),
    Column("seeds each", "seeds"),
    Column("diverged", "diverged"),
    Column("compute, s", "compute_s"),
    Column("searched", "searched", numeric=False),
)


def tables(report: Report) -> list[Table]:
    """The budgets on each workload; nothing where no entry was tried with several settings."""
    found = []
    for subject in subjects(report):
        there = [group for group in groups(report) if group.subject == subject and group.tried]
        if any(len(group.candidates) > 1 for group in there):
            found.append(_table(report, subject, there))
    return found


def _table(report: Report, subject: str, there: Sequence[Group]) -> Table:
    sizes = [len(group.candidates) for group in there]
    usual = max(sizes, key=sizes.count)
    rows = []
    for group in there:
        size, tried = len(group.candidates), group.tried
        settings = cells.count(len(tried), "flagged" if size != usual else "")
        if len(tried) < size:
            settings = Cell(f"{len(tried)} of {size}", len(tried), "flagged")
        diverged = sum(one.diverged > 0 for one in tried)
        row = [
            cells.text(group.title),
            settings,
            cells.span(len(one.runs) for one in tried),
            cells.count(diverged, "diverged" if diverged else ""),
            cells.number(seconds(tried), 0),
            cells.text(searched(group) or "as given"),
        ]
        rows.append(Row(group.key, row))
    notes = [
        f"All entries were given {usual} settings."
        if len(set(sizes)) == 1
        else f"Budgets differ, from {min(sizes)} to {max(sizes)} settings: an entry with more of them finds better "
        "ones by luck alone, so their best scores do not compare.",
        "Diverged: settings of which at least one run diverged. Compute: training and evaluation of all these runs.",
    ]
    return Table(stem("budgets", report, subject), f"Budgets{where(report, subject)}", _COLUMNS, rows, notes)


def seconds(series: Iterable[Series]) -> float:
    """What training and evaluating all runs took."""
    costs = [epoch.time for one in series for run in one.runs.values() for epoch in run.epochs]
    return sum(number(part) for cost in costs for part in (cost.train_s, cost.eval_s) if part is not None)


def searched(group: Group) -> str:
    """The values tried on each axis: the ends and the count, or all of them if they are few."""
    values: dict[str, list[object]] = {}
    for one in group.tried:
        for name, value in one.arm.point.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return "; ".join(f"{name} {_span(found)}" for name, found in values.items())


def _span(values: Sequence[object]) -> str:
    numbers = sorted(value for value in values if is_number(value))
    if len(values) <= _FEW or len(numbers) < len(values):
        return ", ".join(map(_word, numbers if len(numbers) == len(values) else values))
    return f"{cells.short(numbers[0])} … {cells.short(numbers[-1])} ({len(numbers)} values)"


def _word(value: object) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_word, value))})"
    return cells.short(value) if is_number(value) else str(value)
