"""The charts of a quantity over the epochs: the mean over the runs of each arm, one standard deviation as a band."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from benchmarks.report.display import cells, looks, palette
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.palette import Style
from benchmarks.report.display.quantities import QUANTITIES, Quantity
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.results import Report, Series

_CROWD = 8  # with more arms than this a band is drawn only of the arm that is set off


@dataclasses.dataclass(frozen=True)
class _Curves:
    """What is drawn.

    Args:
        quantity: of which.
        frame: a row for each point of each arm.
        decays: the epochs after which a learning rate falls.
        domain: of the axis; None leaves it to the data.
    """

    quantity: Quantity
    frame: pd.DataFrame
    decays: Sequence[int]
    domain: tuple[float, float] | None

    @property
    def last(self) -> int:
        """The last epoch."""
        return int(self.frame["epoch"].max())

    @property
    def crowded(self) -> bool:
        """Whether there are too many arms for bands."""
        return bool(self.frame["optimizer"].nunique() > _CROWD)


def draw(report: Report, name: str, subject: str, styles: Mapping[str, Style], points: int) -> Figure | None:
    """The chart of a quantity on a subject; None where no run has it.

    Args:
        report: what there is of the study.
        name: a key of `QUANTITIES`.
        subject: one of the study's.
        styles: the look of each arm by `palette.key`.
        points: how many epochs of a line are drawn at most.
    """
    quantity, (suffix, where) = QUANTITIES[name], looks.where(report, subject)
    workload = report.of(subject)[0].arm.config.workload
    rows = [row for one in report.of(subject) for row in _rows(one, quantity, workload, points)]
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    there = set(frame["optimizer"])
    series = [one for one in report.of(subject) if one.arm.title in there]
    last = int(frame["epoch"].max())
    decays = sorted({epoch for one in series for epoch in one.arm.config.milestones if epoch < last})
    curves = _Curves(quantity, frame, decays, _late(frame, last) if quantity.late else None)
    label = f"{quantity.label(workload)}{where}"
    encodings = looks.encodings(series, styles)
    still, live = (
        alt.layer(*_layers(curves, encodings, live=live)).properties(width=420, height=230, title=label)
        for live in (False, True)
    )
    figure, data = f"curves-{name}{suffix}", _table(curves, f"curves_{name}{suffix}", label, series)
    several = max(len(one.sound) for one in series) > 1
    return Figure(figure, _caption(curves, several), _alternative(curves, label), still, live, data, by_arm=True)


def _rows(one: Series, quantity: Quantity, workload: str, points: int) -> list[dict[str, Any]]:
    """The mean curve of an arm, thinned to so many points."""
    runs = [run.epochs for run in one.sound.values()]
    length = min(map(len, runs), default=0)
    if not length:
        return []
    values = np.array([[quantity.value(record, workload) for record in run[:length]] for run in runs])
    seconds = np.array([[record.time.train_s or math.nan for record in run[:length]] for run in runs])
    mean = values.mean(axis=0)
    sd = values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(length)
    # Below the mean a band of one standard deviation may reach 0, which a logarithmic axis does not have.
    low = np.maximum(mean - sd, values.min(axis=0)) if quantity.log else mean - sd
    elapsed = seconds.cumsum(axis=1).mean(axis=0)
    chosen = sorted(set(np.linspace(0, length - 1, min(points, length)).round().astype(int).tolist()))
    return [
        {
            "arm": palette.key(one),
            "optimizer": one.arm.title,
            "epoch": i + 1,
            "seconds": float(elapsed[i]),
            "mean": float(mean[i]),
            "low": float(low[i]),
            "high": float(mean[i] + sd[i]),
            "runs": len(runs),
        }
        for i in chosen
        if math.isfinite(mean[i])
    ]


def _late(frame: pd.DataFrame, last: int) -> tuple[float, float]:
    """An axis made for what comes after the first tenth of the epochs."""
    seen = frame[frame["epoch"] > last // 10]["mean"]
    low, high = np.percentile(seen, [0, 96])
    margin = 0.06 * (high - low) or 0.5
    return max(0.0, float(low - margin)), float(high + margin)


def _layers(curves: _Curves, encodings: Mapping[str, Any], *, live: bool) -> list[Any]:
    """Step decays, bands and lines, and for the pointer the points of the lines."""
    scale = alt.Scale(type="log") if curves.quantity.log else alt.Scale(type="linear", zero=False)
    if curves.domain is not None:
        scale.domain, scale.nice = list(curves.domain), False
    axis = alt.Axis(grid=False, tickMinStep=1)
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(nice=False, zero=False), axis=axis)
    # Of the lines of a logarithmic axis those between its numbers say little.
    grid = {"condition": {"test": "datum.label === ''", "value": 0}, "value": 1}
    numbers = alt.Axis(gridOpacity=grid)
    y = alt.Y("mean:Q", title=None, scale=scale, axis=numbers)
    base = alt.Chart(curves.frame)
    band = base.mark_area(clip=True, strokeWidth=0).encode(
        x=x, y=alt.Y("low:Q", title=None, scale=scale, axis=numbers), y2="high:Q", color=encodings["color"]
    )
    line = base.mark_line(
        clip=True, strokeWidth=1.2 if curves.crowded else 1.6, point=curves.frame["epoch"].nunique() == 1
    ).encode(x=x, y=y, **encodings)
    layers = []
    if curves.decays:
        rule = alt.Chart(pd.DataFrame({"epoch": list(curves.decays)})).mark_rule(color=looks.SOFT, strokeDash=[1, 3])
        layers.append(rule.encode(x=x))
    if not live:
        return [*layers, line] if curves.crowded else [*layers, band.encode(opacity=alt.value(0.12)), line]
    near, lit = looks.pointer(nearest=True)
    shown = "datum.arm === lit" if curves.crowded else looks.LIT
    band = band.encode(opacity=alt.condition(shown, alt.value(0.14), alt.value(0)))
    line = line.encode(opacity=looks.opacity(1, live=True)).add_params(lit, looks.zoom())
    told: list[Any] = ["optimizer:N", "epoch:Q"]
    for field, title in (("mean", "mean"), ("low", "mean − sd"), ("high", "mean + sd")):
        told.append(alt.Tooltip(f"{field}:Q", format=".4~g", title=title))
    told.append("runs:Q")
    dots = base.mark_point(filled=True, size=45, clip=True).encode(
        x=x,
        y=y,
        color=encodings["color"],
        tooltip=told,
        opacity=alt.condition(near, alt.value(1), alt.value(0)),
    )
    return [*layers, band, line, dots.add_params(near)]


def _caption(curves: _Curves, several: bool) -> str:
    """What the quantity is, and what lines, bands and dots are."""
    caption = curves.quantity.meaning
    if several:
        caption += " Line: mean over the runs" + ("." if curves.crowded else "; band: one standard deviation.")
    if curves.decays:
        plural = "s" * (len(curves.decays) > 1)
        caption += f" Dotted: the learning rate falls, after epoch{plural} {_listed(curves.decays)}."
    if curves.domain is not None and (curves.frame["mean"] > curves.domain[1]).any():
        caption += " What lies above the axis is cut off."
    return caption


def _listed(numbers: Sequence[int]) -> str:
    texts = [str(number) for number in numbers]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _alternative(curves: _Curves, label: str) -> str:
    """Where the curves end."""
    ends = curves.frame.groupby("optimizer", sort=False)["mean"].last().sort_values()
    said = [f"{name} {value:.3g}" for name, value in ends.items()]
    few = said if len(said) <= 12 else [*said[:8], f"{len(said) - 10} between", *said[-2:]]
    return f"Line chart of {label}, {len(said)} arms; at epoch {curves.last}, from small to large: {', '.join(few)}."


def _table(curves: _Curves, name: str, title: str, series: Sequence[Series]) -> Table:
    """The numbers of the chart at the epochs that matter."""
    there, last = sorted(set(curves.frame["epoch"].tolist())), curves.last
    wanted = [1, *curves.decays, last] if curves.decays else [1, last // 4, last // 2, 3 * last // 4, last]
    epochs = sorted({there[int(np.abs(np.array(there) - epoch).argmin())] for epoch in wanted})
    values = curves.frame.set_index(["optimizer", "epoch"])["mean"].to_dict()
    rows = []
    for one in series:
        found = [values.get((one.arm.title, epoch), math.nan) for epoch in epochs]
        rows.append(Row(one.arm.label, [cells.text(one.arm.title), *map(_cell, found)]))
    columns = [cells.OPTIMIZER]
    columns += [Column(f"epoch {epoch}", f"epoch_{epoch}") for epoch in epochs]
    return Table(name.replace("-", "_"), title, columns, rows)


def _cell(value: float) -> Cell:
    """A value of any size, in four digits."""
    return cells.NOTHING if math.isnan(value) else Cell(cells.short(float(f"{value:.4g}")), value)
