"""The chart of final scores: of each arm the mean, its 95 % interval, and each run."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd

from benchmarks.report.display import cells, looks, palette
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.palette import Style
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.inference.statistics import Summary, summarize
from benchmarks.report.results import Report, Series
from benchmarks.workloads import metrics


@dataclasses.dataclass(frozen=True)
class _Scored:
    """An arm with its scores."""

    series: Series
    summary: Summary

    @property
    def name(self) -> str:
        """What it is called."""
        return self.series.arm.title

    @property
    def spread(self) -> tuple[float, float]:
        """The ends of the interval, or the mean where there is none."""
        one = self.summary
        return (one.mean, one.mean) if math.isnan(one.low) else (one.low, one.high)

    @property
    def said(self) -> str:
        """The score in words."""
        one = self.summary
        span = "" if math.isnan(one.low) else f" [{one.low:.2f}, {one.high:.2f}]"
        return f"{one.mean:.2f}{span}" if one.n else "diverged"


def draw(report: Report, subject: str, styles: Mapping[str, Style]) -> Figure | None:
    """The chart of a subject, best arm first; None where every run diverged."""
    series, (suffix, where) = report.of(subject), looks.where(report, subject)
    workload, reference = series[0].arm.config.workload, report.reference(subject)
    sign, bounds = metrics.sign(workload), metrics.bounds(workload)
    arms = [_Scored(one, summarize(one.finals, bounds=bounds)) for one in series]
    base = next((one for one in arms if one.series is reference), None)
    arms.sort(key=lambda one: -sign * one.summary.mean if one.summary.n else math.inf)
    scored = [one for one in arms if one.summary.n]
    if not scored:
        return None
    scope = _scope(scored)
    base = base if base in scored else None
    colour = looks.encodings([one.series for one in arms], styles)["color"]
    rows = _rows(arms, scope)
    size = {"width": 560, "height": alt.Step(18), "title": f"final {metrics.title(workload)}{where}"}
    still, live = (
        alt.layer(*_layers(*rows, [one.name for one in arms], scope, base, live=live))
        .encode(color=colour)
        .properties(**size)
        for live in (False, True)
    )
    better = "more is better" if sign > 0 else "less is better"
    caption = f"Final score; {better}. "
    if max(one.summary.n for one in scored) > 1:
        caption += "Dot: mean; bar: 95 % interval of the mean (as in the tables); small dots: the runs."
        if any(
            max(scope[0] - one.spread[0], one.spread[1] - scope[1]) > 0 for one in scored if not _outside(one, scope)
        ):
            caption += " A bar that reaches the edge goes on beyond it."
    else:
        caption += "One run an arm, so that there are no intervals."
    if base is not None:
        caption += f" Dotted: the mean of {base.name}."
    if any(_outside(one, scope) for one in scored):
        caption += " Arms far from the others are written at the edge."
    said = "; ".join(f"{one.name} {one.said}" for one in arms)
    alternative = f"Dot plot of the final {metrics.title(workload)}{where}, {better}, best first: {said}."
    return Figure(f"scores{suffix}", caption, alternative, still, live, _table(arms, suffix, where), by_arm=True)


def _outside(one: _Scored, scope: tuple[float, float]) -> bool:
    return not scope[0] <= one.summary.mean <= scope[1]


def _scope(scored: Sequence[_Scored]) -> tuple[float, float]:
    """The part of the axis that shows most arms: what lies far from the bulk is left to the edge."""
    means = np.array([one.summary.mean for one in scored])
    first, middle, third = np.percentile(means, [25, 50, 75])
    reach = 4 * max(third - first, 0.02 * abs(middle), 1e-9)
    kept = [one for one in scored if abs(one.summary.mean - middle) <= reach]
    inner = [one.summary.mean for one in kept]
    # The interval of two or three runs may be wider than everything else together: that much of it is enough.
    room = 1.5 * (max(inner) - min(inner)) + 0.02 * abs(float(middle)) + 1e-9
    low = max(min(one.spread[0] for one in kept), min(inner) - room)
    high = min(max(one.spread[1] for one in kept), max(inner) + room)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _rows(arms: Sequence[_Scored], scope: tuple[float, float]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Means, runs, and what is written in place of them."""
    low, high = scope
    means, runs, notes = [], [], []
    for one in arms:
        row = {"arm": palette.key(one.series), "optimizer": one.name, "runs": len(one.series.runs)}
        mean, (bottom, top) = one.summary.mean, one.spread
        note = f"{one.series.diverged} of {row['runs']} diverged" if one.series.diverged and one.summary.n else ""
        side = "left"
        if not one.summary.n:
            note = "diverged"
        elif _outside(one, scope):
            side = "left" if mean < low else "right"
            note = (f"◂ {mean:.4g}  {note}" if side == "left" else f"{note}  {mean:.4g} ▸").strip()
        else:
            means.append(row | {"mean": mean, "low": max(low, bottom), "high": min(high, top)})
            scores = one.series.scores().items()
            runs += [row | {"seed": seed, "score": score} for seed, score in scores if low <= score <= high]
        if note:
            notes.append(row | {"edge": low if side == "left" else high, "text": note, "side": side})
    return (
        pd.DataFrame(means, columns=["arm", "optimizer", "runs", "mean", "low", "high"]),
        pd.DataFrame(runs, columns=["arm", "optimizer", "runs", "seed", "score"]),
        pd.DataFrame(notes, columns=["arm", "optimizer", "runs", "edge", "text", "side"]),
    )


def _layers(
    means: pd.DataFrame,
    runs: pd.DataFrame,
    notes: pd.DataFrame,
    order: list[str],
    scope: tuple[float, float],
    base: _Scored | None,
    *,
    live: bool,
) -> list[Any]:
    """The reference, intervals, runs, means and notes, from back to front."""
    axis = alt.Axis(title=None, grid=True, labelLimit=190, ticks=False, domain=False, labelPadding=6)
    # On a page, the row of an arm goes with the arm.
    y = alt.Y("optimizer:N", sort=order, axis=axis, scale=alt.Scale() if live else alt.Scale(domain=order))

    def x(field: str) -> Any:
        scale = alt.Scale(domain=list(scope), nice=False, zero=False)
        return alt.X(f"{field}:Q", scale=scale, axis=alt.Axis(title=None, grid=False))

    near, lit = looks.pointer(nearest=False)
    told = ["optimizer:N", *(alt.Tooltip(f"{field}:Q", format=".3f") for field in ("mean", "low", "high")), "runs:Q"]
    bars = alt.Chart(means).mark_rule(strokeWidth=1.5)
    bars = bars.encode(x=x("low"), x2="high:Q", y=y, opacity=looks.opacity(0.8, live=live))
    seeds = alt.Chart(runs).mark_point(filled=True, size=26)
    seeds = seeds.encode(
        x=x("score"), y=y, opacity=looks.opacity(0.45, live=live), tooltip=["optimizer:N", "seed:Q", "score:Q"]
    )
    dots = alt.Chart(means).mark_point(filled=True, size=70, stroke="var(--paper)", strokeWidth=1)
    dots = dots.encode(x=x("mean"), y=y, opacity=looks.opacity(1, live=live), tooltip=told)
    if live:
        bars, dots = bars.add_params(lit), dots.add_params(near)
    layers = [bars, seeds, dots]
    if base is not None and not _outside(base, scope):
        rule = alt.Chart(pd.DataFrame({"at": [base.summary.mean]})).mark_rule(strokeDash=[2, 3])
        layers.insert(0, rule.encode(x=x("at"), color=alt.value(looks.SOFT)))
    sides: tuple[tuple[Literal["left", "right"], int], ...] = (("left", 2), ("right", -2))
    for side, dx in sides:
        if (notes["side"] == side).any():
            text = alt.Chart(notes[notes["side"] == side]).mark_text(align=side, dx=dx, dy=-5, fontSize=10)
            layers.append(text.encode(x=x("edge"), y=y, text="text:N", opacity=looks.opacity(1, live=live)))
    return layers


def _table(arms: Sequence[_Scored], suffix: str, where: str) -> Table:
    """The numbers of the chart."""
    columns = [cells.OPTIMIZER]
    columns += [Column(header, header) for header in ("mean", "low", "high")]
    columns.append(Column("runs", "runs", numeric=False))
    rows = []
    for one in arms:
        numbers = [cells.number(value) for value in (one.summary.mean, one.summary.low, one.summary.high)]
        runs = [f"{score:.2f}" for score in one.series.scores().values()]
        text = ", ".join([*runs, *(["diverged"] * one.series.diverged)])
        rows.append(Row(one.series.arm.label, [Cell(one.name, one.name), *numbers, Cell(text, text)]))
    return Table(f"scores{suffix}".replace("-", "_"), f"Final scores{where}", columns, rows)
