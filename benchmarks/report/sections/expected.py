"""The score to be expected of the best of n trials, for every n up to those made (Dodge et al., EMNLP 2019).

A tuned comparison holds for one budget: these curves say who leads with fewer trials, and whether more would help.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.display import cells
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.groups import Group, groups, measure, metric, score, sign, stem, subjects, where
from benchmarks.report.results import Report

_LEAST = 3  # trials, for a curve
_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Curve:
    """The expected best of 1, 2, … trials of an entry, with its band."""

    group: Group
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def expected(values: Sequence[float]) -> list[float]:
    """The mean of the largest of n of the `values`, drawn without replacement, for n = 1, 2, … len(values).

    Σᵢ x₍ᵢ₎·C(i − 1, n − 1) / C(N, n) over the values in ascending order: the unbiased form.
    """
    return [float(mean) for mean in _weights(len(values)) @ np.sort(np.asarray(values, dtype=float))]


def band(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[list[float], list[float]]:
    """A bootstrap interval of `expected`, for n = 1, 2, … len(values): percentiles, above at least as far as below.

    Percentiles alone cannot rise above the best trial made. With 16 trials this covers 0.89 to 0.98 of the time from
    bounded distributions, as scores have them; from normal ones it falls to 0.84 where n is the number of trials.

    Args:
        values: the scores of the trials.
        confidence: probability that the band is to cover, in (0, 1).
        seed: of the resampling.
    """
    array = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(array), size=(_RESAMPLES, len(array)))
    weights = _weights(len(array))
    mean, means = weights @ np.sort(array), np.sort(array[drawn], axis=1) @ weights.T
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [float(value) for value in low], [float(value) for value in np.maximum(high, 2 * mean - low)]


def _weights(size: int) -> NDArray[np.float64]:
    """By n and rank the probability that the value of this rank is the largest of n."""
    return np.array(
        [[math.comb(rank, taken - 1) / math.comb(size, taken) for rank in range(size)] for taken in range(1, size + 1)]
    )


def curves(report: Report, subject: str) -> list[Curve]:
    """A curve for each entry with at least three trials on the validation split."""
    tried = [
        (group, scores)
        for group in groups(report)
        if group.subject == subject
        and group.candidates[0].arm.config.split == "validation"
        and len(scores := [sign(subject) * score(one) for one in group.tried]) >= _LEAST
    ]
    known = [value for _, scores in tried for value in scores if not math.isnan(value)]
    found = []
    for group, scores in tried:
        if all(map(math.isnan, scores)):
            continue
        values = [min(known) if math.isnan(value) else value for value in scores]
        low, high = band(values)
        lines = [expected(values), low, [min(value, metric(subject).limit) for value in high]]
        if sign(subject) < 0:
            lines = [[-value for value in line] for line in (lines[0], lines[2], lines[1])]
        found.append(Curve(group, *lines))
    return found


def tables(report: Report) -> list[Table]:
    """The expected best for 1, 2, 4, … trials and for all of them."""
    found = []
    for subject in subjects(report):
        there = curves(report, subject)
        if not there:
            continue
        most = max(len(curve.mean) for curve in there)
        counts = sorted({2**i for i in range(most.bit_length())} | {most})
        columns = [cells.OPTIMIZER]
        columns += [Column("1 trial" if n == 1 else f"{n} trials", f"trials_{n}") for n in counts]
        rows = [
            Row(curve.group.key, [cells.text(curve.group.title), *(_cell(curve, n) for n in counts)]) for curve in there
        ]
        notes = [
            "The mean over all choices of so many of the trials made, on the held-out tenth of the training set, with "
            "a 95 % bootstrap band of that mean, as if the trials were independent draws; points of a grid or of a "
            "quasi-random sequence are spread more evenly. Near the last number of trials the band is rough: nobody "
            "has seen what more would bring.",
            "A diverged trial counts as the worst one on the workload.",
        ]
        title = f"Expected best against the number of trials: {measure(report, subject)}{where(report, subject)}"
        found.append(Table(stem("expected_best", report, subject), title, columns, rows, notes))
    return found


def _cell(curve: Curve, trials: int) -> Cell:
    if trials > len(curve.mean):
        return cells.NOTHING
    low, high = (cells.decimal(line[trials - 1]) for line in (curve.low, curve.high))
    return cells.number(curve.mean[trials - 1], suffix=f" [{low}, {high}]")


def figures(report: Report) -> list[Figure]:
    """The curves with their bands, for each workload."""
    import altair as alt

    found = []
    for subject in subjects(report):
        there = curves(report, subject)
        if not there:
            continue
        rows = [
            {"optimizer": curve.group.title, "trials": i + 1, "mean": mean, "low": curve.low[i], "high": curve.high[i]}
            for curve in there
            for i, mean in enumerate(curve.mean)
        ]
        base = alt.Chart(alt.InlineData(values=rows)).encode(
            x=alt.X("trials:Q", title="trials", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("optimizer:N", title=None, sort=None, legend=alt.Legend(symbolOpacity=1)),
        )
        y = alt.Y("mean:Q", title=f"expected best, {measure(report, subject)}", scale=alt.Scale(zero=False))
        tooltip = [alt.Tooltip("optimizer:N"), alt.Tooltip("trials:Q")]
        tooltip += [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("mean", "low", "high")]
        chart = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q") + base.mark_line().encode(
            y=y, tooltip=tooltip
        )
        ends = [
            f"{curve.group.title} {curve.mean[0]:.2f} with one trial, {curve.mean[-1]:.2f} with {len(curve.mean)}"
            for curve in there
        ]
        found.append(
            Figure(
                stem("expected_best", report, subject),
                f"The score to be expected of the best of so many trials{where(report, subject)}; the band is a "
                "95 % bootstrap interval.",
                f"Expected best {measure(report, subject)}: {'; '.join(ends)}.",
                chart,
            )
        )
    return found
