"""What the arms were run with: the hyperparameters of each, and what all of them share."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.display import cells
from benchmarks.report.display.table import Column, Row, Table
from benchmarks.report.results import Series

_ELSEWHERE = ("optimizer", "hyper", "seed", "workload", "gamma")  # gamma goes with the milestones
_SILENT: Mapping[str, Any] = {"max_steps": 0, "recalibrate": 0, "split": "test", "precision": "fp32"}


def table(series: Sequence[Series], name: str, title: str) -> Table:
    """The settings of each arm: hyperparameters, then whatever of its training is not the same for all.

    Args:
        series: the arms of one workload.
        name: of the table's files.
        title: as people read it.
    """
    trained = [_training(one.arm.config.to_dict()) for one in series]
    keys = list(dict.fromkeys(key for one in trained for key in one))
    shared = {key: trained[0][key] for key in keys if all(one.get(key) == trained[0].get(key) for one in trained)}
    columns = [
        *cells.WHO,
        Column("hyperparameters", "hyperparameters", numeric=False),
        Column("besides", "besides", numeric=False),
    ]
    rows = []
    for one, training in zip(series, trained, strict=True):
        own = {key: value for key, value in training.items() if key not in shared}
        words = [one.arm.title, one.arm.label, listed(one.arm.config.hyper), listed(own) or cells.DASH]
        rows.append(Row(one.arm.label, [cells.text(word) for word in words]))
    return Table(name, title, columns, rows, [f"All of them: {listed(shared)}."])


def listed(values: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in values.items())


def _training(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was trained with but for its optimizer, defaults that do nothing aside."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in _ELSEWHERE or value in ([], {}) or (key in _SILENT and value == _SILENT[key]):
            continue
        if key == "schedules":
            found |= {f"schedule of {name}": schedule for name, schedule in value.items()}
        else:
            found[key] = value
    if config["milestones"]:
        found["milestones"] = {"after epochs": config["milestones"], "factor": config["gamma"]}
    return found


def _said(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, Mapping):
        kind = value.get("kind")
        options = listed({key: item for key, item in value.items() if key != "kind"})
        return f"({options})" if kind is None else f"{kind} ({options})" if options else str(kind)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return cells.short(value) if isinstance(value, float) else str(value)
