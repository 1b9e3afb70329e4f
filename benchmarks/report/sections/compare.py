"""Two versions of the code, arm by arm: whether a study comes out the same."""

import functools
from collections.abc import Sequence

from benchmarks.base.errors import BenchmarkError
from benchmarks.base.store import Result, Store
from benchmarks.report.display import cells
from benchmarks.report.display.table import Cell, Column, Row, Table, slug
from benchmarks.report.inference import family
from benchmarks.report.inference.statistics import summarize
from benchmarks.report.results import Index, Series, collect, mixture
from benchmarks.studies.study import Study
from benchmarks.workloads import metrics


class VersionError(BenchmarkError, ValueError):
    """A version of the code of which a store has no runs."""


def compare(study: Study, store: Store, first: str, second: str) -> list[Table]:
    """A table for each subject of a study: the final scores by two versions of the code, and what tells them apart.

    Args:
        study: the arms; of a tuned study those that all results together choose.
        store: has the runs of both versions.
        first: the start of a commit or of a hash of the sources.
        second: likewise; differences are second minus first.

    Raises:
        VersionError: there is no run of one of the versions, or both are one.
    """
    arms = collect(study, store).study
    found = store.scan()
    results = found[0]
    sides: list[dict[str, Series]] = []
    for version in (first, second):
        made = [result for result in results if _is(result, version)]
        if not made:
            known = dict.fromkeys(_version(result) for result in results)
            raise VersionError(f"--compare: no run of {version!r}; there are {', '.join(known) or 'none at all'}")
        index = Index(found, functools.partial(_is, version=version))
        sides.append({one.arm.label: one for one in index.series(arms.arms)})
    if any(_is(result, first) and _is(result, second) for result in results):
        raise VersionError(f"--compare: {first!r} and {second!r} name runs in common; give more digits")
    return [_table(subject, arms, sides, (first, second)) for subject in arms.subjects]


def _table(subject: str, study: Study, sides: Sequence[dict[str, Series]], versions: tuple[str, str]) -> Table:
    arms = [arm for arm in study.arms if arm.config.subject == subject]
    pairs = [(sides[0][arm.label], sides[1][arm.label]) for arm in arms]
    found = family.judge_pairs([(new.finals, old.finals) for old, new in pairs])
    columns = [*cells.WHO]
    for version, name in zip(versions, ("first", "second"), strict=True):
        columns += [Column(f"runs, {version}", f"runs_{name}"), *cells.spread_columns(f"mean ± sd, {version}", name)]
    columns += [
        Column("difference", "difference"),
        *cells.interval_columns("interval, Holm's level", "interval"),
        Column("p", "p"),
        Column("p, Holm", "p_holm"),
        Column("verdict", "verdict", numeric=False),
    ]
    sign = metrics.sign(arms[0].config.workload)
    rows, missing = [], []
    for i, (old, new) in enumerate(pairs):
        row = [cells.text(old.arm.title), cells.text(old.arm.label)]
        for one, version in ((old, versions[0]), (new, versions[1])):
            row += [cells.count(len(one.runs)), *cells.spread(summarize(one.finals))]
            if not one.runs:
                missing.append(f"{one.arm.title} has no run of {version}")
            elif one.diverged:
                missing.append(f"{one.arm.title} diverged in {one.diverged} of {len(one.runs)} runs of {version}")
        row += [cells.signed(float(found.difference[i])), *cells.interval(float(found.low[i]), float(found.high[i]))]
        row += [cells.probability(float(found.p[i])), cells.probability(float(found.adjusted[i]))]
        rows.append(
            Row(old.arm.label, [*row, _verdict(old, new, bool(found.decided[i]), sign * float(found.difference[i]))])
        )
    notes = [f"{note}." for note in missing]
    notes += [warning for side in sides for warning in mixture(side[arm.label] for arm in arms)]
    notes.append(
        f"Final scores, {versions[1]} minus {versions[0]}: Welch's test, Holm's p over the arms of this table. Equal "
        "seeds have equal initial weights and data order where the code that makes them is the same; the test makes no "
        "use of it."
    )
    where = f", {subject}" if len(study.subjects) > 1 else ""
    name = f"compare{f'_{slug(subject)}' if where else ''}"
    title = f"{versions[1]} against {versions[0]}: {study.title}{where}"
    return Table(name, title, columns, rows, notes, headline=True)


def _verdict(old: Series, new: Series, decided: bool, gain: float) -> Cell:
    """What can be said about one arm."""
    if not (old.runs and new.runs):
        return cells.text("missing", "flagged")
    if old.diverged or new.diverged:
        return cells.text("diverged", "diverged")
    if not decided:
        return cells.text("undecided")
    return cells.text("better", "better") if gain > 0 else cells.text("worse", "worse")


def _is(result: Result, version: str) -> bool:
    """Whether it was made by a version of the code; a whole commit is not that with changed files, which has a plus."""
    commit = str(result.environment.get("commit") or "")
    of_commit = commit.startswith(version) and commit != f"{version}+"
    return bool(version) and (of_commit or result.provenance.sources.startswith(version))


def _version(result: Result) -> str:
    """A version as one would name it."""
    return f"{result.environment.get('commit') or 'unknown commit'} (sources {result.provenance.sources})"
