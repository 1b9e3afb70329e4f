"""Optimizers over several workloads: performance profiles of the time to a target, and who beats whom how often.

A profile (Dolan and Moré, 2002) is the share of workloads on which an optimizer reaches the target within τ times the
cost of the fastest one. All functions take the reports of one study or of several.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from benchmarks.base.store import Result
from benchmarks.report.display import cells
from benchmarks.report.display.figure import Figure
from benchmarks.report.display.table import Cell, Column, Row, Table, slug
from benchmarks.report.groups import metric, score, sign
from benchmarks.report.inference import family
from benchmarks.report.results import Report, Series

Unit = Literal["steps", "epochs", "seconds"]
_FACTORS = (1.0, 1.5, 2.0, 4.0, 8.0)
_WIDEST = 12  # arms with a column each
_MOST = 40  # arms that are tested pair by pair


@dataclasses.dataclass(frozen=True)
class Problem:
    """A workload of a study with its arms, by their label without the workload's name.

    Args:
        name: the workload, with the study where there are several.
        subject: that of the study.
        target: the score to reach; None if nothing says which.
        arms: what ran on it.
    """

    name: str
    subject: str
    target: float | None
    arms: Mapping[str, Series]


def problems(reports: Sequence[Report]) -> list[Problem]:
    """The workloads of some studies.

    The target is the study's, or else what its reference reaches at the end.
    """
    found = []
    for report in reports:
        for subject in report.study.subjects:
            arms = {one.arm.name: one for one in report.of(subject)}
            if arms:
                name = subject if len(reports) == 1 else f"{report.study.name}: {subject}"
                found.append(Problem(name, subject, _target(report, subject), arms))
    return found


def _target(report: Report, subject: str) -> float | None:
    if report.study.target is not None:
        return report.study.target
    reference = report.reference(subject)
    reached = math.nan if reference is None else score(reference)
    return None if math.isnan(reached) else reached


def cost(one: Series, target: float, unit: Unit) -> float:
    """What an arm spent until its target, the median over its seeds; infinite for a seed that did not reach it."""
    reached = one.to_target(target)
    spent = [math.inf for seed in one.runs if seed not in reached]
    for seed, (epoch, seconds) in reached.items():
        steps = one.runs[seed].epochs[epoch - 1].step
        spent.append(float({"epochs": epoch, "seconds": seconds, "steps": steps}[unit]))
    return statistics.median(spent)


def ratios(found: Sequence[Problem], unit: Unit) -> dict[str, list[float]]:
    """By arm its cost on each problem as a multiple of the fastest arm's; infinite where it did not reach the target.

    Only the arms that ran on all problems, and only problems with a target; of seconds, only those whose runs were all
    made in one mode on one device.
    """
    counted = [one for one in found if one.target is not None and (unit == "steps" or len(machines(one)) == 1)]
    common = [arm for arm in (counted[0].arms if counted else ()) if all(arm in one.arms for one in counted)]
    by_arm: dict[str, list[float]] = {arm: [] for arm in common}
    for one in counted:
        # Records of the first format have no steps; where all batches are alike, epochs are in the same proportion.
        measured: Unit = "epochs" if unit == "steps" and not _counted(one) else unit
        costs = {arm: cost(one.arms[arm], one.target or 0.0, measured) for arm in common}
        fastest = min(costs.values(), default=math.inf)
        for arm in common:
            by_arm[arm].append(math.inf if math.isinf(costs[arm]) else costs[arm] / fastest if fastest else 1.0)
    return by_arm


def _counted(problem: Problem) -> bool:
    """Whether all runs on a problem have counted their steps."""
    return all(epoch.step for one in problem.arms.values() for run in one.runs.values() for epoch in run.epochs)


def machines(problem: Problem) -> set[tuple[str, ...]]:
    """The modes, devices and loads that the runs on a problem were made under."""
    return {_machine(run) for one in problem.arms.values() for run in one.runs.values()}


def _machine(run: Result) -> tuple[str, ...]:
    mode = run.epochs[-1].time.mode if run.epochs else None
    where = [run.environment.get(key) or 1 for key in ("device", "threads", "processes", "side_by_side")]
    return tuple(map(str, [mode, *where]))


def within(multiples: Sequence[float], factor: float) -> float:
    """The share of problems solved within `factor` times the cost of the fastest."""
    return sum(one <= factor for one in multiples) / len(multiples)


def tested(problem: Problem) -> dict[str, list[float]]:
    """The final scores of the arms that can be tested: with at least two runs, none of which diverged."""
    scores = {arm: one.finals for arm, one in problem.arms.items() if not one.diverged}
    return {arm: values for arm, values in scores.items() if len(values) > 1}


def outcomes(found: Sequence[Problem]) -> dict[tuple[str, str], list[int]]:
    """For each pair of arms, by problem that both ran on: 1 if the first is better, -1 if it is worse, 0 if undecided.

    Better and worse are said as in the comparison with the reference, all pairs on all problems being one family.
    Only what is `tested`.
    """
    pairs, names = [], []
    for one in found:
        values = tested(one)
        for first, second in itertools.combinations(values, 2):
            pairs.append((values[first], values[second]))
            names.append((first, second, sign(one.subject)))
    judged = family.judge_pairs(pairs)
    decided: dict[tuple[str, str], list[int]] = {}
    for (first, second, direction), told, difference in zip(names, judged.decided, judged.difference, strict=True):
        verdict = 0 if not told else direction if difference > 0 else -direction
        decided.setdefault((first, second), []).append(verdict)
        decided.setdefault((second, first), []).append(-verdict)
    return decided


def tables(reports: Sequence[Report]) -> list[Table]:
    """The profiles where there are at least two workloads, and the win matrix."""
    found = problems(reports)
    titles = _titles(found)
    tables = [_profile(found, titles, unit) for unit in _units(found)]
    return [*tables, _matrix(found, titles, outcomes(found))] if _shown(found) else tables


def _units(found: Sequence[Problem]) -> list[Unit]:
    """The units in which at least two arms compare on at least two problems."""
    units: list[Unit] = []
    for unit in ("steps", "seconds"):
        by_arm = ratios(found, unit)
        if len(by_arm) > 1 and len(next(iter(by_arm.values()))) > 1:
            units.append(unit)
    return units


def _shown(found: Sequence[Problem]) -> bool:
    """Whether the matrix says something that the comparison with the reference does not, and can be read."""
    arms = len({arm for one in found for arm in tested(one)})
    return 2 < arms <= (_MOST if len(found) > 1 else _WIDEST)


def _titles(found: Sequence[Problem]) -> dict[str, str]:
    """The arms' names in tables and figures, no two alike."""
    titles: dict[str, str] = {}
    for one in found:
        for arm, series in one.arms.items():
            titles.setdefault(arm, series.arm.title)
    named = list(titles.values())
    return {arm: title if named.count(title) == 1 else f"{title} ({arm})" for arm, title in titles.items()}


def _profile(found: Sequence[Problem], titles: Mapping[str, str], unit: Unit) -> Table:
    by_arm = ratios(found, unit)
    size = len(next(iter(by_arm.values())))
    columns = [cells.OPTIMIZER, Column("targets reached", "reached")]
    columns += [Column(f"within {factor:g}×", f"within_{factor:g}".replace(".", "_")) for factor in _FACTORS]
    rows = []
    for arm, multiples in by_arm.items():
        reached = sum(math.isfinite(one) for one in multiples)
        shares = [cells.number(within(multiples, factor)) for factor in _FACTORS]
        rows.append(Row(arm, [cells.text(titles[arm]), Cell(f"{reached} of {size}", reached), *shares]))
    goals = [
        f"{one.name} {cells.short(one.target)} ({metric(one.subject).title})"
        for one in found
        if one.target is not None and (unit == "steps" or len(machines(one)) == 1)
    ]
    notes = [
        f"The share of the {size} workloads on which the target is reached within so many times the {unit} of the "
        "fastest optimizer; the median over the seeds, evaluation not counted.",
        f"Targets: {'; '.join(goals)}.",
    ]
    apart = [one.name for one in found if one.target is not None and len(machines(one)) > 1]
    if unit == "seconds" and apart:
        notes.append(f"Left out, since not all runs were made in one mode on one device: {', '.join(apart)}.")
    absent = [titles[arm] for arm in titles if arm not in by_arm]
    if absent:
        notes.append(f"Left out, since they did not run on all of these workloads: {', '.join(absent)}.")
    return Table(f"profile_{unit}", f"Performance profile, {unit} to the target", columns, rows, notes)


def _matrix(
    found: Sequence[Problem], titles: Mapping[str, str], wins: Mapping[tuple[str, str], Sequence[int]]
) -> Table:
    arms = [arm for arm in titles if any(arm == first for first, _ in wins)]
    columns = [cells.OPTIMIZER]
    columns += [Column(name, name) for name in ("better", "worse", "undecided")]
    against = arms if len(arms) <= _WIDEST else []
    columns += [Column(f"against {titles[arm]}", f"against_{slug(arm)}") for arm in against]
    rows = []
    for arm in arms:
        every = [verdict for other in arms for verdict in wins.get((arm, other), ())]
        counts = [cells.count(every.count(verdict)) for verdict in (1, -1, 0)]
        pairs = [_pair(wins.get((arm, other))) for other in against]
        rows.append(Row(arm, [cells.text(titles[arm]), *counts, *pairs]))
    several = len(found) > 1
    notes = [
        ("Against each other optimizer: the workloads on which it is better, worse, undecided. " if several else "")
        + "By Welch's test with Holm's correction over all pairs"
        + (" on all workloads" if several else "")
        + ", a larger family than that of the comparison with the reference. Undecided does not mean equal.",
    ]
    out = [f"{titles[arm]} ({one.name})" for one in found for arm, series in one.arms.items() if series.diverged]
    if out:
        notes.append(f"Not compared, since a run diverged: {', '.join(out)}.")
    return Table("win_matrix", "Who beats whom", columns, rows, notes)


def _pair(verdicts: Sequence[int] | None) -> Cell:
    if verdicts is None:
        return cells.NOTHING
    if len(verdicts) == 1:
        words = {1: Cell("better", 1, "better"), -1: Cell("worse", -1, "worse"), 0: Cell("undecided", 0)}
        return words[verdicts[0]]
    balance = sum(verdicts)
    text = " / ".join(str(verdicts.count(verdict)) for verdict in (1, -1, 0))
    return Cell(text, balance, "better" if balance > 0 else "worse" if balance < 0 else "")


def figures(reports: Sequence[Report]) -> list[Figure]:
    """The profiles as steps over the factor, and the win matrix as a map if it says anything."""
    found = problems(reports)
    titles = _titles(found)
    drawn = [_drawn_profile(found, titles, unit) for unit in _units(found)]
    wins = outcomes(found) if _shown(found) else {}
    decided = any(any(verdicts) for verdicts in wins.values())
    return [*drawn, _drawn_matrix(titles, wins)] if decided else drawn


def _drawn_profile(found: Sequence[Problem], titles: Mapping[str, str], unit: Unit) -> Figure:
    import altair as alt

    by_arm = ratios(found, unit)
    last = 1.1 * max(one for multiples in by_arm.values() for one in [*multiples, 2.0] if math.isfinite(one))
    rows = [
        {"optimizer": titles[arm], "factor": factor, "share": within(multiples, factor)}
        for arm, multiples in by_arm.items()
        for factor in sorted({1.0, last, *(one for one in multiples if math.isfinite(one))})
    ]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("factor:Q", title=f"{unit}, as a multiple of the fastest", scale=alt.Scale(type="log")),
            y=alt.Y("share:Q", title="share of workloads solved", scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("optimizer:N", title=None, sort=None),
            tooltip=["optimizer:N", alt.Tooltip("factor:Q", format=".2f"), alt.Tooltip("share:Q", format=".0%")],
        )
    )
    firsts = [f"{titles[arm]} {within(m, 1.0):.0%} and {within(m, math.inf):.0%}" for arm, m in by_arm.items()]
    return Figure(
        f"profile_{unit}",
        f"The share of workloads on which an optimizer reaches the target within so many times the {unit} of the "
        "fastest: high on the left is fast, high on the right is dependable.",
        f"Share of workloads on which each is the fastest, and solved at all: {'; '.join(firsts)}.",
        chart,
    )


def _drawn_matrix(titles: Mapping[str, str], wins: Mapping[tuple[str, str], Sequence[int]]) -> Figure:
    import altair as alt

    verdicts_by = {
        (titles[first], titles[second]): [verdicts.count(verdict) for verdict in (1, -1, 0)]
        for (first, second), verdicts in wins.items()
    }
    rows = [
        {"optimizer": a, "other": b, "balance": won - lost, "better": won, "worse": lost, "undecided": tied}
        for (a, b), (won, lost, tied) in verdicts_by.items()
    ]
    order = [title for title in titles.values() if any(title == first for first, _ in verdicts_by)]
    most = max(1, *(abs(sum(verdicts)) for verdicts in wins.values()))
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("other:N", title="than", sort=order),
            y=alt.Y("optimizer:N", title=None, sort=order),
            color=alt.Color(
                "balance:Q",
                title="better − worse",
                scale=alt.Scale(domain=[-most, 0, most], range=["#d95f0e", "#8885", "#2171b5"]),
                legend=alt.Legend(tickMinStep=1),
            ),
            tooltip=["optimizer:N", "other:N", "better:Q", "worse:Q", "undecided:Q"],
        )
    )
    sums = [
        "{} {} and {}".format(
            title, *(sum(counts[i] for (first, _), counts in verdicts_by.items() if first == title) for i in (0, 1))
        )
        for title in order
    ]
    return Figure(
        "win_matrix",
        "On how many workloads more the optimizer on the left is better than the one below (blue) than it is worse "
        "(orange); undecided comparisons count for neither.",
        f"Comparisons in which each is better, and worse: {'; '.join(sums)}.",
        chart,
    )
