"""The figures of a report, in the form of the paper's: a quantity over the epochs, one line per optimizer."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.base.records import Epoch, number
from benchmarks.report.results import Report, Series, clean_loss, online_loss
from benchmarks.training import optimizers
from benchmarks.workloads import metrics

INK = "#1b1f24"  # text, axes and SGD; `page` puts the reader's own text colour in its place
_COLOURS = {
    "padam": "#d1495b",
    "amsgrad": "#e08e1b",
    "partial_adam": "#2e7fb8",
    "adam": "#2e7fb8",
    "adamw": "#17a2a2",
    "partial_nadam": "#3a9d5d",
    "nadam": "#3a9d5d",
    "partial_rmsprop": "#e08e1b",
    "rmsprop": "#e08e1b",
    "partial_adagrad": "#8f63c0",
    "adagrad": "#8f63c0",
    "partial_adamax": "#c05f9c",
    "adamax": "#c05f9c",
    "partial_adadelta": "#96703c",
    "adadelta": "#96703c",
    "partial_adabelief": "#7d8a2e",
    "partial_yogi": "#6c7a89",
}
_DASHES = ("-", "--", ":", "-.")
_CROWD = 8  # more arms than this are drawn without their spread
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#8c959f",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "partial-adaptive",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something drawn over the epochs.

    Args:
        label: its axis label for a workload.
        value: its value in a record.
        log: whether its axis is logarithmic.
        late: whether the axis is made for the later epochs; the first ones, and what goes badly wrong, are cut off.
    """

    label: Callable[[str], str]
    value: Callable[[Epoch, str], float]
    log: bool = False
    late: bool = False


def _error(statistics: str, key: str | None = None) -> Callable[[Epoch, str], float]:
    def value(record: Epoch, workload: str) -> float:
        name = key or metrics.metric(workload)
        score = number(record.test.of(statistics).get(name))
        return 100 - score if name.startswith("top") else score

    return value


def _error_label(note: str = "") -> Callable[[str], str]:
    def label(workload: str) -> str:
        return ("test error, %" if metrics.metric(workload) == "top1" else metrics.title(workload)) + note

    return label


QUANTITIES: Mapping[str, Quantity] = {
    "train_loss": Quantity(
        lambda workload: "train loss, evaluated", lambda record, workload: number(clean_loss(record)), log=True
    ),
    "online_loss": Quantity(
        lambda workload: "train loss, online", lambda record, workload: number(online_loss(record)), log=True
    ),
    "error": Quantity(_error_label(), _error("running"), late=True),
    "error_recalibrated": Quantity(_error_label(", recalibrated"), _error("recalibrated"), late=True),
    "top5_error": Quantity(lambda workload: "top-5 error, %", _error("running", "top5"), late=True),
    "distance": Quantity(lambda workload: "‖θ − θ₀‖₂", lambda record, workload: number(record.distance)),
    "effective_step": Quantity(
        lambda workload: "α·s^(−2p), median",
        lambda record, workload: number(record.effective_step.get("q50")),
        log=True,
    ),
    "map": Quantity(_error_label(", final"), _error("running")),
}
"""What a study can ask for in `figures`. All are curves over the epochs but ``map``: learning rate × p, by colour."""


def draw(report: Report) -> dict[str, Any]:
    """The figures of a study by name, as matplotlib figures."""
    drawn: dict[str, Any] = {}
    if not report.series:
        return drawn
    import matplotlib

    with matplotlib.rc_context(STYLE):
        rows = [name for name in report.study.figures if name != "map"]
        if rows:
            drawn["curves"] = _curves(report, rows)
        if "map" in report.study.figures:
            drawn["map"] = _map(report)
    return drawn


def _curves(report: Report, rows: Sequence[str]) -> Any:
    """Panels with a row per quantity and a column per workload; those of a single workload in rows of up to three."""
    from matplotlib.figure import Figure

    workloads = [workload for workload in report.study.subjects if report.of(workload)]
    panels = [(name, workload) for name in rows for workload in workloads]
    columns = len(workloads) if len(workloads) > 1 else 2 if len(rows) in (2, 4) else min(3, len(rows))
    height = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(4.6, 3.6 * columns), 2.8 * height + 0.6), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False)
    styles = _line_styles(report.series)
    for i, (axis, (name, workload)) in enumerate(zip(axes.flat, panels, strict=False)):
        _panel(axis, QUANTITIES[name], workload, report.of(workload), styles)
        axis.set_ylabel(QUANTITIES[name].label(workload))
        if len(workloads) > 1 and i < columns:
            axis.set_title(workload)
        if i + columns >= len(panels):
            axis.set_xlabel("epoch")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines() if line.get_label()[0] != "_"}
    entries = max(1, min(len(lines), int(figure.get_figwidth() / 1.75)))
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=entries, handlelength=2.2)
    return figure


def _panel(axis: Any, quantity: Quantity, workload: str, series: Sequence[Series], styles: Mapping[str, Any]) -> None:
    """Mean over the seeds as a line, one standard deviation as a band, the step decays as dotted verticals."""
    seen: list[float] = []
    for one in series:
        curves = [[quantity.value(record, workload) for record in run.epochs] for run in one.sound.values()]
        length = min(map(len, curves), default=0)
        if not length:
            continue
        values = np.array([curve[:length] for curve in curves])
        mean, epochs = values.mean(axis=0), np.arange(1, length + 1)
        if np.isnan(mean).all():
            continue
        style = styles[one.arm.title]
        axis.plot(epochs, mean, label=one.arm.title, marker="o" if length == 1 else None, markersize=3, **style)
        if len(values) > 1 and len(series) <= _CROWD:
            sd = values.std(axis=0, ddof=1)
            low, high = mean - sd, mean + sd
            axis.fill_between(epochs, low, high, color=style["color"], alpha=0.12, linewidth=0)
        seen += [value for value in mean[length // 10 :] if math.isfinite(value)]
    for milestone in {epoch for one in series for epoch in one.arm.config.milestones}:
        if milestone < max(one.arm.config.epochs for one in series):
            axis.axvline(milestone, color="#8c959f", linewidth=0.7, linestyle=(0, (1, 3)))
    if quantity.log:
        axis.set_yscale("log")
    elif quantity.late and seen:
        low, high = np.percentile(seen, [0, 96])
        margin = 0.06 * (high - low) or 0.5
        axis.set_ylim(max(0.0, low - margin), high + margin)
    axis.margins(x=0.01)


def _line_styles(series: Sequence[Series]) -> dict[str, dict[str, Any]]:
    """Colour and dash of each arm: members of the family solid, or a scale where all arms are one optimizer."""
    import matplotlib

    titles = list(dict.fromkeys(one.arm.title for one in series))
    names = {one.arm.title: one.arm.config.optimizer for one in series}
    if len(titles) > 1 and len(set(names.values())) == 1:
        scale = matplotlib.colormaps["plasma"].resampled(256)
        places = np.linspace(0.05, 0.82, len(titles))
        return {title: {"color": scale(place), "linestyle": "-"} for title, place in zip(titles, places, strict=True)}
    styles: dict[str, dict[str, Any]] = {}
    for title in sorted(titles, key=lambda title: not optimizers.find(names[title]).family):
        colour = _COLOURS.get(names[title], INK)
        taken = [style["linestyle"] for style in styles.values() if style["color"] == colour]
        styles[title] = {"color": colour, "linestyle": next((dash for dash in _DASHES if dash not in taken), "-")}
    return styles


def _map(report: Report) -> Any:
    """The final score over learning rate and p, the best of the other settings in each cell."""
    from matplotlib.figure import Figure

    workloads = [workload for workload in report.study.subjects if report.of(workload)]
    figure = Figure(figsize=(max(4.6, 3.6 * len(workloads)), 3.2), layout="constrained")
    for axis, workload in zip(figure.subplots(1, len(workloads), squeeze=False)[0], workloads, strict=True):
        cells: dict[tuple[float, float], list[float]] = {}
        for one in report.of(workload):
            hyper = one.arm.config.hyper
            values = [_error("running")(run.epochs[-1], workload) for run in one.sound.values()]
            cell = cells.setdefault((hyper.get("partial", math.nan), hyper["lr"]), [])
            cell += [float(np.mean(values))] if values else []
        ps = sorted({p for p, _ in cells if not math.isnan(p)})
        rates = sorted({lr for p, lr in cells if not math.isnan(p)})
        better = min if metrics.metric(workload) == "top1" or not metrics.higher_is_better(workload) else max
        grid = [[better(cells.get((p, lr)) or [math.nan]) for lr in rates] for p in ps]
        axis.grid(visible=False)
        image = axis.imshow(grid, cmap="viridis_r", aspect="auto", origin="lower")
        for i, row in enumerate(grid):
            for j, value in enumerate(row):
                shade = "white" if not math.isnan(value) and image.norm(value) > 0.5 else "black"
                text = "diverged" if math.isnan(value) else f"{value:.1f}"
                axis.text(j, i, text, ha="center", va="center", color=shade)
        axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axis.set_yticks(range(len(ps)), [f"{p:g}" for p in ps])
        axis.set(xlabel="learning rate", ylabel="p", title=f"{workload}: {QUANTITIES['map'].label(workload)}")
    return figure
