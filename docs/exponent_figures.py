"""The figures of the page "Which p?", from the studies on record."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.report.evidence.studied import Choice, Entry, Study

PAGE = Path(__file__).parent / "which-p.md"
TABLES = ("exponents", "exponent-rates", "exponent-baselines")  # which have what is drawn
TICKS = {0.0: "0", 0.125: "⅛", 0.25: "¼", 0.375: "⅜", 0.5: "½"}
COLUMNS = 4  # of panels at most: as wide as a page can show
BASELINES = {"sgd": ("SGD", 0.6), "adamw": ("AdamW", 0.67), "muon": ("Muon", 0.74)}  # and where they stand, right of p


def source() -> str:
    """A digest of the tables on the page that have the numbers of these figures: it goes into the files."""
    page = PAGE.read_text()
    parts = [page.partition(f"<!-- table:{name} -->")[2].partition("<!-- /table")[0] for name in TABLES]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def by_estimator(curves: Sequence[Choice]) -> Figure:
    """What each p comes to, by workload, and the learning rate that is best for it; colours are estimators."""
    workloads = list(dict.fromkeys(curve.study.workload for curve in curves))
    names = list(dict.fromkeys(curve.name for curve in curves))
    rows, columns = _grid(len(workloads))
    figure = Figure(figsize=(3.0 * columns, 5.2 * rows + 0.3), layout="constrained")
    axes = figure.subplots(2 * rows, columns, sharex=True, squeeze=False, height_ratios=(1.5, 1) * rows)
    panels = _filled(np.concatenate([axes[::2].reshape(1, -1), axes[1::2].reshape(1, -1)]), len(workloads))
    for curve in curves:
        score, rate = panels[:, workloads.index(curve.study.workload)]
        tint, p = f"C{names.index(curve.name)}", [entry.p for entry in curve.entries]
        there = [one.name for one in curves if one.study.workload == curve.study.workload]
        beside = 0.006 * (there.index(curve.name) - (len(there) - 1) / 2)  # so that no bar hides another
        _bars(score, np.add(p, beside), curve.entries, color=tint)
        rate.plot(p, [entry.lr for entry in curve.entries], color=tint, marker="o", markersize=4, label=curve.name)
    for (score, rate), workload in zip(panels.T, workloads, strict=True):
        _name(score, next(curve for curve in curves if curve.study.workload == workload).study)
        log_where_wide(score)
        log_where_wide(rate)
        rate.set_ylabel("best learning rate")
        rate.set_xlabel("p")
        rate.set_xticks([*TICKS], [*TICKS.values()])
        rate.tick_params(labelbottom=True)
    drawn = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in panels[1]]
    handles = {label: handle for some in drawn for handle, label in some}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def headline(found: Sequence[Study]) -> Figure:
    """The exponents of PartialAdam beside three baselines, by workload."""
    rows, columns = _grid(len(found))
    figure = Figure(figsize=(2.7 * columns, 3.0 * rows), layout="constrained")
    (panels,) = _filled(figure.subplots(rows, columns, squeeze=False).reshape(1, -1), len(found))
    for panel, study in zip(panels, found, strict=True):
        ours = [entry for entry in study.entries if entry.has_exponent]
        _bars(panel, [entry.p for entry in ours], ours, color="C0")
        places = {place: name for name, place in BASELINES.values()}
        _bars(panel, [*places], [study.baselines[optimizer] for optimizer in BASELINES], color="C7", linestyle="none")
        _name(panel, study, fontsize=9.5)
        log_where_wide(panel)
        panel.set_xticks([*TICKS, *places], [*TICKS.values(), *places.values()])
        for label in panel.get_xticklabels()[len(TICKS) :]:
            label.set_rotation(90)
        panel.text(-0.02, -0.055, "p", transform=panel.transAxes, ha="right", va="top")
    return figure


def _grid(count: int) -> tuple[int, int]:
    """Rows and columns for so many panels: the fewest rows of at most `COLUMNS`, and those as even as they can be."""
    rows = math.ceil(count / COLUMNS)
    return rows, math.ceil(count / rows)


def _filled(panels: Any, count: int) -> Any:
    """The first so many columns of panels; the others are taken out of their figure."""
    for panel in panels[:, count:].flat:
        panel.remove()
    return panels[:, :count]


def _bars(axis: Axes, x: Any, entries: Sequence[Entry], **style: Any) -> None:
    """Means and intervals, of accuracies those of the error."""
    means, lows, highs = zip(*map(_lower_is_better, entries), strict=True)
    ends = [np.subtract(means, lows), np.subtract(highs, means)]
    axis.errorbar(x, means, ends, marker="o", markersize=4, linewidth=1.4, capsize=2, **style)


def _lower_is_better(entry: Entry) -> tuple[float, float, float]:
    final = entry.final
    low, high = (final.mean if np.isnan(end) else end for end in (final.low, final.high))
    return (100 - final.mean, 100 - high, 100 - low) if entry.metric.percent else (final.mean, low, high)


def _name(axis: Axes, study: Study, **style: Any) -> None:
    metric = study.entries[0].metric
    axis.set_title((study.workload[:1].upper() + study.workload[1:]).replace(", ", ",\n"), **style)
    axis.set_ylabel(metric.title.replace("test accuracy", "test error"))


def log_where_wide(axis: Axes) -> None:
    """A logarithmic scale where the largest value is more than five times the smallest, with two labels at least."""
    low, high = axis.dataLim.intervaly
    if high > 5 * low:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
