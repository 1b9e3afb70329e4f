"""The map of learning rate × p: the final score as colour and number."""

import math
from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from benchmarks.report.display import cells, looks
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.quantities import QUANTITIES
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.results import Report
from benchmarks.workloads import metrics


def draw(report: Report, subject: str) -> Figure | None:
    """The map of a subject, the best of the other settings in each cell; None where no arm has a p."""
    best, workload = _scores(report, subject), report.of(subject)[0].arm.config.workload
    if not best:
        return None
    label, (suffix, where) = QUANTITIES["map"].label(workload), looks.where(report, subject)
    sound = [(value, place) for place, value in best.items() if math.isfinite(value)]
    low, high = (min(sound)[0], max(sound)[0]) if sound else (0.0, 0.0)
    ps, rates = (sorted({place[i] for place in best}) for i in (0, 1))
    rows = [
        {
            "p": f"{p:g}",
            "lr": f"{rate:g}",
            "value": value,
            "text": "diverged" if math.isnan(value) else f"{value:.1f}",
            "dark": value > (low + high) / 2,
        }
        for (p, rate), value in best.items()
    ]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("lr:N", title="learning rate", sort=[f"{one:g}" for one in rates], axis=alt.Axis(labelAngle=0)),
        y=alt.Y(
            "p:N", title="p", sort=[f"{one:g}" for one in reversed(ps)], axis=alt.Axis(titleAngle=0, titlePadding=14)
        ),
        tooltip=["p:N", "lr:N", alt.Tooltip("text:N", title=label)],
    )
    ink = alt.when("!isValid(datum.value)").then(alt.value("var(--ink)")).when("datum.dark").then(alt.value("#ffffff"))
    colour = alt.Color("value:Q", scale=alt.Scale(scheme="viridis", reverse=True, domain=[low, high]), legend=None)
    chart = alt.layer(
        base.mark_rect(color="var(--line)"),
        base.transform_filter("isValid(datum.value)").mark_rect().encode(color=colour),
        base.mark_text(fontSize=11).encode(text="text:N", color=ink.otherwise(alt.value("#1b1f24"))),
    ).properties(width=420, height=alt.Step(34), title=f"{label}{where}")
    ends = "every run diverged"
    if sound:
        value, (p, rate) = _better(workload)(sound)
        ends = f"best {cells.decimal(value)}, at p = {p:g} and learning rate {rate:g}"
    return Figure(
        f"map{suffix}",
        f"{label[0].upper()}{label[1:]}, over learning rate and p: mean over the runs, of the other settings the best "
        "in each cell. Grey: every run diverged.",
        f"Heat map of {label}{where} over {len(ps)} values of p and {len(rates)} learning rates: {ends}; "
        f"{len(best) - len(sound)} of {len(best)} cells diverged.",
        chart,
        data=Table(
            f"map{suffix}".replace("-", "_"),
            f"{label}{where}",
            [Column("p", "p"), *(Column(f"learning rate {one:g}", f"lr_{one:g}") for one in rates)],
            [Row(f"{p:g}", [Cell(f"{p:g}", p), *(_cell(best, p, rate) for rate in rates)]) for p in ps],
        ),
    )


def _scores(report: Report, subject: str) -> dict[tuple[float, float], float]:
    """The score by p and learning rate, NaN where every run diverged."""
    found: dict[tuple[float, float], list[float]] = {}
    for one in report.of(subject):
        hyper, workload = one.arm.config.hyper, one.arm.config.workload
        if "partial" in hyper:
            values = [QUANTITIES["map"].value(run.epochs[-1], workload) for run in one.sound.values()]
            cell = found.setdefault((float(hyper["partial"]), float(hyper["lr"])), [])
            cell += [float(np.mean(values))] if values else []
    better = _better(report.of(subject)[0].arm.config.workload)
    return {place: better(values, default=math.nan) for place, values in found.items()}


def _better(workload: str) -> Callable[..., Any]:
    """The smaller or the larger, of what is drawn: errors in place of accuracies."""
    return max if metrics.sign(workload) > 0 and not metrics.metric(workload).startswith("top") else min


def _cell(best: dict[tuple[float, float], float], p: float, rate: float) -> Cell:
    if (p, rate) not in best:
        return Cell("–")
    return Cell("diverged", None, "diverged") if math.isnan(best[p, rate]) else cells.number(best[p, rate])
