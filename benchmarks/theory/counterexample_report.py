"""The report of the counter-examples: end points, the critical p, and what a small p does not cure."""

from itertools import count, groupby
from typing import Any

import numpy as np

from benchmarks.report.display.table import Table
from benchmarks.theory import publish
from benchmarks.theory.counterexample import Record
from benchmarks.theory.publish import COLOURS, GREY, INK
from benchmarks.theory.regret import drift
from benchmarks.theory.regret.text import fraction, number

TITLE = "The counter-examples of Reddi, Kale and Kumar, at every p"
DESCRIPTION = (
    "fₜ(x) = Cx in every third round and −x in the others, on [−1, 1], with β₁ = 0, β₂ = 1/(1 + C²) and αₜ = α/√t. "
    "The best fixed point is −1 for every C > 2. Adam, p = 1/2, goes to +1. Below a critical p that depends on C, an "
    "average v without Amsgrad's maximum goes to −1 as well. That cures this sequence, not every one: as C → 2 the "
    "critical p goes to 0, and a longer cycle defeats any p > 0 at any β₂."
)

SHOWN = 1 / 8  # the paper's choice


def report(record: Record) -> publish.Facts:
    """The head of the page."""
    summary = f"All paths begin at 0, with α = {record.lr:g}, no bias correction and the projection onto [−1, 1]."
    return publish.facts("counterexample", TITLE, DESCRIPTION, summary, record.environment)


def tables(record: Record) -> list[Table]:
    """All tables."""
    return [_criticals(record), _ends(record), _long(record), _limits(record)]


def _criticals(record: Record) -> Table:
    rows = [
        [
            f"{one.c:g}",
            f"{one.beta:.5f}",
            *(f"{v:.5g}" for v in one.averages),
            f"{one.theory:.4f}",
            f"{one.measured:.4f}",
        ]
        for one in record.criticals
    ]
    headers = ["C", "β₂", "v_a", "v_b", "v_c", "critical p, derived", "critical p, measured"]
    off = max(abs(one.theory - one.measured) for one in record.criticals)
    notes = [
        "In the steady state v_a = (1−β)(C²+β+β²)/(1−β³), v_b = (1−β)(1+βC²+β²)/(1−β³), v_c = (1−β)(1+β+β²C²)/(1−β³) "
        "after the gradients C, −1, −1 (β = β₂). A cycle moves the point by −α(C·v_a^(−p) − v_b^(−p) − v_c^(−p)): "
        "towards −1 below the critical p, at which the bracket is 0, towards +1 above it.",
        f"Measured by bisection on where a played path goes; largest difference {off:.0e}.",
        "Still wrong at p for 2 < C < "
        + ", ".join(f"{drift.fails_below(p):.2f} (p = {fraction(p)})" for p in (1 / 16, 1 / 8, 1 / 4))
        + "; at p = 1/2 for every C, as Reddi et al. prove.",
    ]
    return Table.plain("The critical p", headers, rows, notes, headline=True)


def _ends(record: Record) -> Table:
    rows = [
        [
            f"{one.c:g}",
            f"{one.partial:.4g}",
            number(one.pull, "+.3f"),
            number(one.average, "+.2f"),
            number(one.maximum, "+.2f"),
        ]
        for one in record.library
    ]
    headers = ["C", "p", "pull towards −1", "end without the maximum (PartialAdam)", "end with it (Padam)"]
    notes = [
        f"The library's optimizers after {record.library_rounds:,} rounds. The pull is the bracket above. Two values "
        "of p for each C are just below and just above the critical one. Every point of these paths is within "
        f"{record.difference:.0e} of a NumPy transcription. A path that has arrived still moves by a step: "
        "−1 is read as about −0.97 here.",
    ]
    return Table.plain("Where each p ends", headers, rows, notes, headline=True)


def _long(record: Record) -> Table:
    partials, beta = [end.partial for end in record.longs[0].ends], record.longs[0].beta
    fails = next(c for c in count(2) if drift.long(c, beta).critical() < SHOWN)
    rows = [
        [
            str(one.c),
            f"{one.theory:.4f}",
            f"{2 / ((1 - one.beta) * one.c**2):.4f}",
            *(number(end.average, "+.2f") for end in one.ends),
            number(one.ends[partials.index(SHOWN)].maximum, "+.2f"),
        ]
        for one in record.longs
    ]
    headers = ["C", "critical p", "2/((1−β₂)C²)", *(f"p = {fraction(p)}" for p in partials)]
    headers.append(f"p = {fraction(SHOWN)}, maximum")
    notes = [
        f"A gradient of C, then C − 1 of −1, at the usual β₂ = {beta:g}: the sequence of their Theorem 2. The best "
        f"point is −1, by the smallest margin. The end points are those after {record.cycles:,} cycles, without the "
        "maximum, and in the last column with it.",
        "The critical p falls like 2/((1−β₂)C²): for every p > 0 and β₂ < 1 there is a C from which on the average "
        f"fails, {fails} for p = {fraction(SHOWN)} and β₂ = {beta:g}. Only the maximum, or p = 0, is safe for all.",
    ]
    return Table.plain("A longer cycle, which a small p does not cure", headers, rows, notes, headline=True)


def _limits(record: Record) -> Table:
    rows = []
    for c in (2.0001, 2.01, 2.1, 3, 10, 1e2, 1e4, 1e8):
        p = drift.short(c).critical()
        rows.append(
            [
                f"{c:g}",
                f"{p:.6f}",
                f"{drift.near_two(c):.6f}" if c < 4 else "–",
                f"{drift.far_out(c):.6f}" if c > 2.5 else "–",
            ]
        )
    headers = ["C", "critical p", "near 2", "far out"]
    notes = [
        f"For C → 2: p = (C − 2)/log(v_a²/(v_b·v_c)) = {drift.near_two(3):.4f}·(C − 2), with v at C = 2, β₂ = 1/5. For "
        f"C → ∞: v tends to C², 2, 1, so C^(1−2p) = 1 + 2^(−p) and p = 1/2 − log(1 + 1/√2)/(2·log C) = 1/2 − "
        f"{np.log(1 + np.sqrt(0.5)) / 2:.4f}/log C: slow.",
    ]
    return Table.plain("The limits of the critical p", headers, rows, notes)


def figures(record: Record) -> dict[str, Any]:
    """All figures."""
    with publish.styled():
        return {"ends": _draw_ends(record), "critical": _draw_critical(record)}


def _draw_ends(record: Record) -> Any:
    figure = publish.figure(9.6, 3.4)
    left, right = figure.subplots(1, 2, sharey=True)
    widths = count(4.5, -1)  # so that lines on top of each other are seen
    for (c, ends), colour in zip(groupby(record.curves, key=lambda one: one.c), COLOURS, strict=True):
        curve = list(ends)
        partials = [one.partial for one in curve]
        style = {"color": colour, "linewidth": next(widths)}
        left.plot(partials, [one.average for one in curve], label=f"C = {c:g}", **style)
        right.plot(partials, [one.maximum for one in curve], **style)
        left.axvline(drift.short(c).critical(), color=colour, linewidth=0.8, linestyle=":")
    left.set(
        title="without the maximum; dotted: the critical p", xlabel="p", ylabel=f"x after {record.rounds:,} rounds"
    )
    right.set(title="with the maximum", xlabel="p", yticks=(-1, -0.5, 0, 0.5, 1))
    figure.legend(loc="outside lower center", ncols=4, handlelength=2.2)
    return figure


def _draw_critical(record: Record) -> Any:
    figure = publish.figure(9.6, 4.2)
    axis = figure.subplots()
    above = np.geomspace(0.02, 1e4, 200)  # C − 2
    curve = [drift.short(2 + one).critical() for one in above.tolist()]
    axis.fill_between(above, curve, 0.5, color=COLOURS[3], alpha=0.12, linewidth=0)
    axis.fill_between(above, 0, curve, color=COLOURS[0], alpha=0.12, linewidth=0)
    axis.plot(above, curve, color=INK, label="derived")
    axis.plot(
        [one.c - 2 for one in record.criticals],
        [one.measured for one in record.criticals],
        "o",
        color=COLOURS[2],
        label="measured",
    )
    near, far = above[above < 0.5], above[above > 3]
    axis.plot(near, [drift.near_two(2 + one) for one in near.tolist()], "--", color=GREY, label="limits")
    axis.plot(far, [drift.far_out(2 + one) for one in far.tolist()], "--", color=GREY)
    axis.text(0.03, 0.42, "without the maximum: to +1", color=COLOURS[3])
    axis.text(30, 0.22, "to −1, the best point", color=COLOURS[0])
    axis.set(
        xscale="log",
        xlabel="C − 2",
        ylabel="p",
        xlim=(0.02, 1e4),
        ylim=(0, 0.5),
        title="The critical p of the short cycle",
    )
    axis.legend(loc="lower right")
    return figure
