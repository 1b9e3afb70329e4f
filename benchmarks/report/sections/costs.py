"""What a result costs in time and memory: one table for each set of conditions under which runs were timed."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.base.store import Result
from benchmarks.report.display import cells
from benchmarks.report.display.table import Cell, Column, Row, Table, slug
from benchmarks.report.results import Series, mixture


class Conditions(NamedTuple):
    """What has to be equal for two times to be compared; None where the record does not say."""

    mode: str | None
    device: str | None
    torch: str | None
    threads: int | None
    side_by_side: int | None

    def __str__(self) -> str:
        """In words."""
        count = "unknown number of" if self.side_by_side is None else str(self.side_by_side)
        return ", ".join(
            [
                self.mode or "unknown mode",
                self.device or "unknown device",
                f"torch {self.torch or 'unknown'}",
                "unknown number of threads"
                if self.threads is None
                else f"{self.threads} thread{'s' * (self.threads != 1)}",
                "alone on its device" if self.side_by_side == 1 else f"{count} runs side by side",
            ]
        )


def conditions(run: Result) -> Conditions:
    """The conditions under which a run was timed."""
    found = run.environment
    mode = run.epochs[-1].time.mode if run.epochs else None
    return Conditions(mode, found.get("device"), found.get("torch"), found.get("threads"), found.get("side_by_side"))


def tables(series: Sequence[Series], where: str = "", target: float | None = None) -> list[Table]:
    """The costs of each arm; evaluation is not in them.

    Args:
        series: arms of one subject. One whose runs were timed under several conditions has a row in several tables.
        where: end of the tables' titles.
        target: value of the metric for "time to target".
    """
    found = dict.fromkeys(conditions(run) for one in series for run in one.runs.values())
    name = f"cost_{slug(where)}" if where else "cost"
    made = []
    for i, one in enumerate(found):
        timed = [_timed(arm, one) for arm in series]
        notes = [*mixture(timed), f"Timed: {one}. Means ± sd over the runs; training alone, without evaluation."]
        if len(found) > 1:
            notes.append("Not to be compared with the other tables of cost, which were timed under other conditions.")
        title = f"Cost{where}" + (f" ({i + 1} of {len(found)}): {one}" if len(found) > 1 else "")
        rows = [_row(arm, target) for arm in timed if arm.runs]
        made.append(Table(name + (f"_{i + 1}" if i else ""), title, _columns(target), rows, notes))
    return made


def _timed(series: Series, under: Conditions) -> Series:
    return series.only(lambda run: conditions(run) == under)


def _columns(target: float | None) -> list[Column]:
    columns = [*cells.WHO, Column("runs", "runs")]
    if target is not None:
        columns.append(Column(f"runs to {target:g}", "runs_to_target", shown=False))
        columns += cells.spread_columns(f"epochs to {target:g}", "epochs_to_target")
        columns += cells.spread_columns(f"seconds to {target:g}", "seconds_to_target")
    columns += cells.spread_columns("s per epoch", "seconds_per_epoch")
    columns += cells.spread_columns("step, ms", "step_ms")
    columns += cells.spread_columns("optimizer, ms", "optimizer_ms")
    columns += cells.spread_columns("peak memory, MiB", "peak_memory_mib")
    return columns + cells.spread_columns("state, B/parameter", "state_bytes_per_parameter")


def _row(one: Series, target: float | None) -> Row:
    row: list[Cell] = [cells.text(one.arm.title), cells.text(one.arm.label), cells.count(len(one.runs))]
    if target is not None:
        reached = one.to_target(target)
        short = f" ({len(reached)} of {len(one.runs)})" if reached and len(reached) < len(one.runs) else ""
        row.append(cells.count(len(reached)))
        row += cells.spread_of([float(epoch) for epoch, _ in reached.values()], 1, suffix=short)
        row += cells.spread_of([seconds for _, seconds in reached.values()], 1)
    row += cells.spread_of(one.time(lambda cost: cost.train_s))
    row += cells.spread_of(one.time(lambda cost: cost.step_ms))
    row += cells.spread_of(one.time(lambda cost: cost.optimizer_ms), 3)
    row += cells.spread_of([value / 2**20 for value in one.time(lambda cost: cost.peak_memory_bytes)], 0)
    row += cells.spread_of(one.time(lambda cost: cost.state_bytes_per_param), 1)
    return Row(one.arm.label, row)
