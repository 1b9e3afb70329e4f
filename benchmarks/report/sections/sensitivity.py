"""How much hangs on the learning rate: the score beside its best value, and how that value moves with p.

The paper's "small learning rate dilemma", that a large p only bears small learning rates, as a number.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.base.numbers import is_number
from benchmarks.report.display import cells
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.table import Cell, Column, Row, Table
from benchmarks.report.groups import Group, groups, measure, metric, score, sign, stem, subjects, where
from benchmarks.report.inference.statistics import pooled_sd
from benchmarks.report.results import Report, Series

_LEAST = 3  # learning rates, for a line
_SHARE = 0.05  # of the best loss or error, where there are no seeds to take a tolerance from


@dataclasses.dataclass(frozen=True)
class Profile:
    """A score over the learning rate, linear in its logarithm between the ones tried.

    Args:
        lrs: the learning rates, ascending.
        scores: the score at each, greater being better; NaN where it diverged.
        best: the index of the best learning rate, of equally good ones that which was tried first.
    """

    lrs: Sequence[float]
    scores: Sequence[float]
    best: int

    @property
    def at_edge(self) -> bool:
        """Whether it is the smallest or largest of all."""
        return self.best in (0, len(self.lrs) - 1)

    def at(self, lr: float) -> float | None:
        """The score at a learning rate: NaN where it or a neighbour diverged, None outside of what was tried."""
        for known, value in zip(self.lrs, self.scores, strict=True):
            if math.isclose(lr, known, rel_tol=1e-9):
                return value
        if not self.lrs[0] < lr < self.lrs[-1]:
            return None
        return float(np.interp(math.log(lr), np.log(self.lrs), self.scores))

    def width(self, tolerance: float) -> tuple[float, bool]:
        """Decades of learning rate around the best with a score within `tolerance`, and whether there may be more.

        There may be more where the range reaches an end of what was tried; a neighbour that diverged ends it.
        """
        (low, low_open), (high, high_open) = (self._reach(step, tolerance) for step in (-1, 1))
        return (high - low) / math.log(10), low_open or high_open

    def _reach(self, step: int, tolerance: float) -> tuple[float, bool]:
        """The logarithm of how far the score stays within the tolerance, and whether the end of all tried is near."""
        i, floor = self.best, self.scores[self.best] - tolerance
        while 0 <= i + step < len(self.lrs):
            here, there = (math.log(self.lrs[j]) for j in (i, i + step))
            value, following = self.scores[i], self.scores[i + step]
            if math.isnan(following):
                return here, False
            if following < floor:
                return here + (there - here) * (value - floor) / (value - following), False
            i += step
        return math.log(self.lrs[i]), True


@dataclasses.dataclass(frozen=True)
class Line:
    """An entry's profile, at one p where it has several.

    Args:
        group: the entry.
        key: the label of its best arm.
        title: its name in tables and figures.
        partial: p, if it is an axis of the entry.
        profile: the profile.
        best: the arm at its best learning rate.
    """

    group: Group
    key: str
    title: str
    partial: float | None
    profile: Profile
    best: Series


def lines(report: Report, subject: str) -> list[Line]:
    """The profiles of all entries with at least three learning rates."""
    found = []
    for group in groups(report):
        if group.subject != subject:
            continue
        for partial, candidates in _by_partial(group.tried).items():
            by_lr: dict[float, list[Series]] = {}
            for one in candidates:
                by_lr.setdefault(float(one.arm.config.hyper["lr"]), []).append(one)
            merits = {lr: [sign(subject) * score(one) for one in some] for lr, some in sorted(by_lr.items())}
            tops = {lr: max((m for m in some if not math.isnan(m)), default=math.nan) for lr, some in merits.items()}
            if len(tops) < _LEAST or all(map(math.isnan, tops.values())):
                continue
            if not _full(by_lr):
                tops = unimodal(tops)
            top = max(value for value in tops.values() if not math.isnan(value))
            lr = next(lr for lr in by_lr if tops.get(lr) == top)
            profile = Profile(list(tops), list(tops.values()), [*tops].index(lr))
            best = by_lr[lr][merits[lr].index(top)]
            title = group.title if partial is None else f"{group.title}, p = {cells.short(partial)}"
            found.append(Line(group, best.arm.label, title, partial, profile, best))
    return found


def _by_partial(candidates: Sequence[Series]) -> Mapping[float | None, Sequence[Series]]:
    """The candidates by p, where p is an axis and there are enough learning rates at each; else all under None."""
    candidates = [one for one in candidates if is_number(one.arm.config.hyper.get("lr"))]
    found: dict[float | None, list[Series]] = {}
    for one in candidates:
        found.setdefault(one.arm.point.get("partial"), []).append(one)
    rates = [{one.arm.config.hyper["lr"] for one in some} for some in found.values()]
    whole: Mapping[float | None, Sequence[Series]] = {None: candidates}
    if len(found) < 2 or None in found or any(len(some) < _LEAST for some in rates):
        return whole
    return {p: found[p] for p in sorted(found, key=lambda p: p or 0)}


def _full(by_lr: Mapping[float, Sequence[Series]]) -> bool:
    """Whether every learning rate was tried with the same other settings."""
    others = [
        sorted(repr({key: value for key, value in one.arm.point.items() if key != "lr"}) for one in some)
        for some in by_lr.values()
    ]
    return all(other == others[0] for other in others)


def unimodal(scores: Mapping[float, float]) -> dict[float, float]:
    """The scores over ascending learning rates without those below one that is farther from the best.

    Where every learning rate comes with other settings drawn anew, such a score tells of those.
    """
    rates, values = list(scores), [-math.inf if math.isnan(value) else value for value in scores.values()]
    best = values.index(max(values))
    kept = [i for i in range(best) if values[i] >= max(values[: i + 1])]
    kept += [i for i in range(best, len(values)) if values[i] >= max(values[i:])]
    return {rates[i]: scores[rates[i]] for i in kept}


def slope(found: Sequence[Line]) -> tuple[float, int]:
    """By how many decades the best learning rate moves per unit of p, by least squares, and over how many p.

    A best learning rate at an end of those tried is not known, and does not count. NaN with fewer than two.
    """
    known = [
        (line.partial, line.profile.lrs[line.profile.best])
        for line in found
        if line.partial is not None and not line.profile.at_edge
    ]
    return fit(known)[0], len(known)


def fit(known: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The slope of log₁₀ of the learning rate against p, by least squares, and the largest distance from that line.

    Args:
        known: pairs of p and a learning rate; NaN with fewer than two.
    """
    if len(known) < 2:
        return math.nan, math.nan
    p, rate = np.array(known).T
    per_unit, start = np.polyfit(p, np.log10(rate), 1)
    return float(per_unit), float(np.abs(np.log10(rate) - (start + per_unit * p)).max())


def tolerances(found: Sequence[Line], subject: str) -> tuple[list[float], str]:
    """For each line how far from its best still counts as near-optimal, and where that comes from, in words."""
    sd = pooled_sd([line.best.finals for line in found])
    if sd > 0:
        return [sd] * len(found), f"{sd:.3g}, the standard deviation over seeds, pooled over the best settings"
    tops = [line.profile.scores[line.profile.best] for line in found]
    if metric(subject).percent:
        return [_SHARE * (100 - top) for top in tops], "5 % of the best setting's error, for want of several seeds"
    return [_SHARE * abs(top) for top in tops], "5 % of the best setting's score, for want of several seeds"


_COLUMNS = (
    cells.OPTIMIZER,
    Column("learning rates", "lrs"),
    Column("best lr", "best_lr"),
    Column("score there", "score"),
    Column("at lr / 2", "score_half"),
    Column("at lr × 2", "score_double"),
    Column("near-optimal, decades", "near_optimal_decades"),
)
_MOVES = (
    cells.OPTIMIZER,
    Column("best lr by p", "best_lr_by_p", numeric=False),
    Column("slope, decades per unit of p", "slope"),
    Column("p counted", "points"),
)


def tables(report: Report) -> list[Table]:
    """The sensitivity of each entry, and how the best learning rate moves with p where that is an axis."""
    found = []
    for subject in subjects(report):
        there = lines(report, subject)
        if there:
            found.append(_sensitivity(report, subject, there))
        moving = [line for line in there if line.partial is not None]
        if moving:
            found.append(_moves(report, subject, moving))
    return found


def _sensitivity(report: Report, subject: str, there: Sequence[Line]) -> Table:
    limits, source = tolerances(there, subject)
    rows = []
    for line, tolerance in zip(there, limits, strict=True):
        profile = line.profile
        lr, top = profile.lrs[profile.best], profile.scores[profile.best]
        decades, more = profile.width(tolerance)
        row = [
            cells.text(line.title),
            cells.count(len(profile.lrs)),
            Cell(cells.short(lr), lr, "flagged" if profile.at_edge else ""),
            cells.number(sign(subject) * top),
            *(_beside(profile.at(lr * factor), top, sign(subject)) for factor in (0.5, 2)),
            Cell(f"{'≥ ' * more}{cells.decimal(decades)}", decades),
        ]
        rows.append(Row(line.key, row))
    notes = [
        f"Score: {measure(report, subject)} after the last epoch, the best over the other settings tried. Where these "
        "were drawn anew for each learning rate, one that does worse than another farther from the best is left out. "
        "Best lr is set off where it is the smallest or largest tried: a better one may lie beyond.",
        "At lr / 2 and × 2: the score at half and twice the best learning rate, in brackets its change; interpolated "
        "in the logarithm between the neighbours tried, so only as exact as those are near. Not measured: outside of "
        "what was tried. Diverged: a neighbour did.",
        f"Near-optimal: the decades of learning rate around the best (1 is a factor of 10) with a score within {source}"
        "; ≥ where the range reaches the end of what was tried.",
    ]
    title = f"Sensitivity to the learning rate{where(report, subject)}"
    return Table(stem("sensitivity", report, subject), title, _COLUMNS, rows, notes)


def _beside(value: float | None, top: float, direction: int) -> Cell:
    if value is None:
        return Cell("not measured")
    if math.isnan(value):
        return Cell("diverged", None, "diverged")
    change = cells.decimal(direction * (value - top), 2, "+")
    return cells.number(direction * value, suffix=f" ({change})")


def _moves(report: Report, subject: str, there: Sequence[Line]) -> Table:
    by_group: dict[str, list[Line]] = {}
    for line in there:
        by_group.setdefault(line.group.key, []).append(line)
    rows = []
    for key, some in by_group.items():
        rates = [
            f"{cells.short(line.partial or 0)}: {cells.short(line.profile.lrs[line.profile.best])}"
            + " (at the end)" * line.profile.at_edge
            for line in some
        ]
        per_unit, points = slope(some)
        measured = Cell("not measured") if math.isnan(per_unit) else cells.number(per_unit, 1)
        rows.append(
            Row(key, [cells.text(some[0].group.title), cells.text("; ".join(rates)), measured, cells.count(points)])
        )
    notes = [
        "Slope: of log₁₀ of the best learning rate against p, by least squares. −8 says that the best learning rate "
        "falls tenfold from p to p + 1/8: the paper's small learning rate dilemma. Not more exact than the spacing of "
        "the learning rates tried. A best one at the end of those is not known, and does not count.",
    ]
    title = f"Best learning rate against p{where(report, subject)}"
    return Table(stem("best_lr_by_p", report, subject), title, _MOVES, rows, notes)


def figures(report: Report) -> list[Figure]:
    """The profiles of all entries, for each workload."""
    import altair as alt

    found = []
    for subject in subjects(report):
        there = lines(report, subject)
        if not there:
            continue
        rows = [
            {
                "optimizer": line.group.title,
                "p": "as given" if line.partial is None else cells.short(line.partial),
                "lr": lr,
                "score": sign(subject) * value,
            }
            for line in there
            for lr, value in zip(line.profile.lrs, line.profile.scores, strict=True)
            if not math.isnan(value)
        ]
        chart = (
            alt.Chart(alt.InlineData(values=rows))
            .mark_line(point=True)
            .encode(
                x=alt.X("lr:Q", title="learning rate", scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=5)),
                y=alt.Y("score:Q", title=measure(report, subject), scale=alt.Scale(zero=False)),
                color=alt.Color("optimizer:N", title=None, sort=None),
                tooltip=["optimizer:N", "p:N", "lr:Q", alt.Tooltip("score:Q", format=".2f")],
            )
        )
        if any(line.partial is not None for line in there):
            chart = chart.encode(
                strokeDash=alt.StrokeDash(
                    "p:N",
                    sort=None,
                    legend=alt.Legend(
                        symbolType="stroke",
                        symbolSize=300,
                        symbolStrokeColor="var(--ink)",
                        symbolFillColor="transparent",
                    ),
                )
            )
        bests = [f"{line.title} {line.profile.lrs[line.profile.best]:g}" for line in there]
        found.append(
            Figure(
                stem("sensitivity", report, subject),
                f"The final score against the learning rate{where(report, subject)}, at the best of the other "
                "settings tried; a point that diverged is not drawn.",
                f"Best learning rates for {measure(report, subject)}: {'; '.join(bests)}.",
                chart,
            )
        )
    return found
