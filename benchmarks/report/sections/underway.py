"""Runs that are not finished: what their checkpoints know of the epochs so far."""

from collections.abc import Sequence

import msgspec
import torch

from benchmarks.base.config import unseeded
from benchmarks.base.records import Epoch, number
from benchmarks.base.store import Result, Store
from benchmarks.report.display import cells
from benchmarks.report.display.table import Column, Row, Table
from benchmarks.report.results import Series
from benchmarks.studies.study import Study
from benchmarks.workloads import metrics


def collect(study: Study, store: Store) -> list[Series]:
    """The arms of a study with their unfinished runs, those that have an epoch behind them."""
    begun: dict[str, dict[int, Result]] = {}
    for identity in sorted(store.begun()):
        path = store.checkpoint(identity)
        try:
            # Mapped, so that of the state nothing but the records is read.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            config, epochs = dict(state["config"]), msgspec.convert(state["records"], tuple[Epoch, ...])
        except Exception:  # it may be replaced or finished in this moment, and what is wrong with it `run` says
            continue
        if epochs:
            runs = begun.setdefault(unseeded(config), {})
            runs[config["seed"]] = Result(config, "", {}, epochs, "unfinished", path)
    found = [Series(arm, begun.get(unseeded(arm.config.to_dict()), {})) for arm in study.arms]
    return [one for one in found if one.runs]


def table(series: Sequence[Series]) -> Table:
    """How far they are."""
    columns = [cells.OPTIMIZER, Column("seed", "seed"), Column("epoch", "epoch")]
    columns += [Column("of", "epochs"), Column("score so far", "score"), Column("train loss, online", "online_loss")]
    rows = []
    for one in series:
        config = one.arm.config
        where = f", {config.workload}" if len({other.arm.config.workload for other in series}) > 1 else ""
        for seed, run in sorted(one.runs.items()):
            last = run.epochs[-1]
            counts = map(cells.count, (seed, last.epoch, config.epochs))
            numbers = [metrics.score(last, config.workload), number(last.train.get("online_loss"))]
            title = f"{one.arm.title}{where}"
            rows.append(Row(one.arm.label, [cells.text(title), *counts, *map(cells.number, numbers, (2, 4))]))
    note = "As their last checkpoints have it; an arm without a finished run is drawn from these."
    return Table("in_progress", "In progress", columns, rows, [note])
