"""The report of the width study."""

import math
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.report.display.cells import DASH
from benchmarks.report.display.table import Table
from benchmarks.theory import publish
from benchmarks.theory.publish import COLOURS, GREY
from benchmarks.theory.regret.text import fraction, number
from benchmarks.theory.width.carry import ADAM, AFTER
from benchmarks.theory.width.coordinates import LAYERS, RULES, Coordinates
from benchmarks.theory.width.study import Exponent, Record

TITLE = "The learning rate that belongs to p"
DESCRIPTION = (
    "The best constant learning rate of PartialAdam (at p = 1/2 Adam) for perceptrons of different widths in PyTorch's "
    "parametrization, how far the first steps move their activations, and Adam's learning rate carried to other p."
)


def report(record: Record) -> publish.Facts:
    """The head of the page."""
    trials = sum(len(one.trials) for one in (*record.widths, *record.tasks))
    summary = (
        f"{trials} learning rates with {len(record.seeds)} seeds each; digits of {record.steps} steps at the widths."
    )
    return publish.facts("width", TITLE, DESCRIPTION, summary, record.environment)


def tables(record: Record) -> list[Table]:
    """All tables."""
    return [widths(record), carried(record), coordinates(record)]


def widths(record: Record) -> Table:
    """The best learning rates, and how they go with the width."""
    rows = []
    gradient = record.of_gradient
    for p in record.partials:
        rates = [f"{one.lr:.3g}" for one in record.at(p)]
        foretold = record.exponent(record.partials[0]).slope + 2 * p * gradient.slope
        rows.append(
            [fraction(p), *rates, interval(record.exponent(p)), number(foretold, ".2f"), number(-2 * p + 0.0, ".2f")]
        )
    sizes = [str(one.width) for one in record.at(record.partials[0])]
    headers = ["p", *(f"α at width {size}" for size in sizes), "exponent [95 %]", "e₀ + 2pγ", "−2p"]
    note = (
        f"Digits, {record.steps} steps: the α with the least loss on the training set, a geometric mean over "
        f"{len(record.seeds)} seeds. The exponent is the slope of log α over log width, with a t-interval. "
        f"e₀ is that of p = 0, γ = {interval(gradient)} that of the RMS of the hidden matrix's first gradient."
    )
    return Table.plain("The best learning rate by width", headers, rows, [note], headline=True)


def interval(fit: Exponent) -> str:
    """An exponent with its interval."""
    return f"{number(fit.slope, '.2f')} [{number(fit.low, '.2f')}, {number(fit.high, '.2f')}]"


def carried(record: Record) -> Table:
    """Adam's learning rate at other exponents, beside those that were tuned there."""
    rows = []
    for task in dict.fromkeys(one.task for one in record.tuned):
        best = record.best(task)
        for tuned in (one for one in record.tuned if one.task == task and one.partial != ADAM):
            p = tuned.partial
            found = [one for one in record.carried if (one.task, one.partial) == (task, p)]
            by_ends = number(record.interpolated(task, p) / best[p], ".2f") if p not in (min(best), max(best)) else DASH
            rows.append(
                [
                    task,
                    f"{best[ADAM]:.3g}",
                    fraction(p),
                    f"{best[p]:.3g}",
                    *(number(one.lr / best[p], ".2f") for one in found),
                    by_ends,
                    f"{tuned.accuracy:.1f}",
                    f"{found[-1].accuracy:.1f}",
                ]
            )
    headers = ["task", "Adam's α", "p", "tuned α", *(f"carried after {steps} / tuned" for steps in AFTER)]
    headers += ["interpolated / tuned", "accuracy tuned, %", f"carried after {AFTER[-1]}, %"]
    note = (
        "Carried: by `equivalent_lr` from a run of Adam at its best α, after so many steps. Interpolated: between the "
        f"tuned α of p = 0 and p = 1/2. Accuracies: of runs with that α from the start, of {len(record.seeds)} seeds."
    )
    return Table.plain("Adam's learning rate carried to another p", headers, rows, [note], headline=True)


def coordinates(record: Record) -> Table:
    """How the change of the activations goes with the width, by each rule."""
    rows = []
    for rule in RULES:
        for p in record.partials:
            points = points_of(record, rule, p)
            cells = [f"{_shown(points[0].changes[i])} → {_shown(points[-1].changes[i])}" for i in range(len(LAYERS))]
            rows.append([rule, fraction(p), *cells])
    ends = [record.coordinates[0].width, max(one.width for one in record.coordinates)]
    note = (
        f"RMS of the change in the first 5 steps, at width {ends[0]} → {ends[1]}, from the best α of width {ends[0]}."
    )
    return Table.plain("The coordinate check", ["α ∝", "p", *LAYERS], rows, [note])


def points_of(record: Record, rule: str, partial: float) -> list[Coordinates]:
    """The coordinate check at one p by one rule, from narrow to wide."""
    return [one for one in record.coordinates if (one.rule, one.partial) == (rule, partial)]


def figures(record: Record) -> dict[str, Any]:
    """All figures."""
    with publish.styled():
        return {"best": best(record), "coordinates": check(record), "carried": carried_figure(record)}


def best(record: Record) -> Any:
    """The best learning rate over the width, at each p."""
    figure = publish.figure(6.4, 3.8)
    axis = figure.subplots()
    for p, colour in zip(record.partials, COLOURS, strict=True):
        sweeps = record.at(p)
        sizes = [one.width for one in sweeps]
        for one in sweeps:
            axis.plot([one.width] * len(one.logs), [10**log for log in one.logs], ".", color=colour, alpha=0.4)
        slope = record.exponent(p).slope
        middle = sum(one.log for one in sweeps) / len(sweeps)
        centre = sum(map(math.log10, sizes)) / len(sizes)
        line = [10 ** (middle + slope * (math.log10(size) - centre)) for size in sizes]
        axis.plot(sizes, line, color=colour, label=f"p = {fraction(p)}: width^({number(slope, '.2f')})")
        rule = [10 ** (middle - 2 * p * (math.log10(size) - centre)) for size in sizes]
        axis.plot(sizes, rule, ":", color=colour, label="width^(−2p)" if p == record.partials[-1] else None)
    axis.set(xscale="log", yscale="log", xlabel="width", ylabel="best learning rate α")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def check(record: Record) -> Any:
    """How far the first steps move each layer, over the width, by each rule."""
    figure = publish.figure(9.6, 7.2)
    axes = figure.subplots(len(LAYERS), len(RULES), sharex=True, sharey="row")
    for i, layer in enumerate(LAYERS):
        axes[i, 0].set_ylabel(f"change of the {layer}")
        for axis, rule in zip(axes[i], RULES, strict=True):
            for p, colour in zip(record.partials, COLOURS, strict=True):
                points = [one for one in points_of(record, rule, p) if one.changes[i] is not None]
                sizes = [one.width for one in points]
                axis.plot(
                    sizes, [one.changes[i] for one in points], "o-", ms=3, color=colour, label=f"p = {fraction(p)}"
                )
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            if i == 0:
                axis.set_title("α constant" if rule == "constant" else f"α ∝ {rule}")
            if i == len(LAYERS) - 1:
                axis.set_xlabel("width")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def carried_figure(record: Record) -> Any:
    """The learning rates that were tuned and those that were carried, over p."""
    figure = publish.figure(9.2, 3.4)
    names = list(dict.fromkeys(one.task for one in record.tuned))
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, task in zip(axes, names, strict=True):
        tuned = record.best(task)
        axis.plot(list(tuned), list(tuned.values()), "o", color=COLOURS[0], label="tuned", zorder=3)
        ends = [min(tuned), max(tuned)]
        axis.plot(ends, [tuned[p] for p in ends], "--", color=GREY, label="interpolated")
        for steps, colour in zip(AFTER, COLOURS[1:], strict=True):
            found = {one.partial: one.lr for one in record.carried if (one.task, one.steps) == (task, steps)}
            found[ADAM] = tuned[ADAM]
            axis.plot(list(found), list(found.values()), "-", color=colour, label=f"carried after {steps}")
        axis.set(yscale="log", xlabel="p", title=task)
        axis.set_xticks(list(tuned), [fraction(p) for p in tuned])
    axes[0].set_ylabel("learning rate α")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _shown(change: float | None) -> str:
    return "∞" if change is None else number(change, ".2g")
