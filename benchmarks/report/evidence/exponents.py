"""Which p: what the studies `which-p-…` on record say of the exponent, over workloads and estimators."""

import dataclasses
import functools
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.base.store import Store, StoreError
from benchmarks.report.display import cells
from benchmarks.report.evidence import archive, scores
from benchmarks.report.evidence.documented import Documented
from benchmarks.report.groups import metric
from benchmarks.report.inference.statistics import Summary
from benchmarks.report.results import Report, Series, collect_all
from benchmarks.report.sections.budgets import seconds
from benchmarks.report.sections.sensitivity import Line, fit, lines, tolerances
from benchmarks.report.sections.verdicts import judge
from benchmarks.studies import load, names
from benchmarks.training.catalogue import REGISTRY
from benchmarks.workloads.metrics import Metric

RECORDS = Path(__file__).parents[2] / "results" / "cpu"
PREFIX = "which-p-"
CURVES = ("", "estimators", "matrices")  # the questions of which each estimator has an entry for every p
OPEN = "°"  # beside what is not told from the chosen one
_TALLIED = ("chosen", "better", "undecided", "worse")
_TOLD = {"better": "better", "worse": "worse", "diverged": "worse"}  # any other verdict: undecided
_SHARES = [Fraction(n, 16) for n in (0, 1, 2, 4, 6, 8)]
Key = TypeVar("Key", float, str)
_OVER_P = ("workload", "optimizer", *(f"p = {p}" for p in _SHARES))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of a study: what was tried for it, and the runs of the setting that was chosen.

    Args:
        series: the chosen setting, with seeds that the choice has not seen.
        line: its score over the learning rates tried, which are its trials.
    """

    series: Series
    line: Line

    @property
    def has_exponent(self) -> bool:
        """Whether it has an exponent; baselines have none."""
        return "partial" in self.series.arm.config.hyper

    @property
    def p(self) -> float:
        """The exponent, the first one where it moves."""
        return float(self.series.arm.config.hyper["partial"])

    @property
    def lr(self) -> float:
        """The chosen learning rate."""
        return float(self.series.arm.config.hyper["lr"])

    @property
    def edge(self) -> bool:
        """Whether that is the smallest or largest tried."""
        return self.lr in (self.line.profile.lrs[0], self.line.profile.lrs[-1])

    @property
    def metric(self) -> Metric:
        """What it is judged by."""
        return metric(self.series.arm.config.subject)

    @property
    def validation(self) -> float:
        """The score of the chosen setting on the held-out part, greater being better."""
        return self.line.profile.scores[self.line.profile.best]

    @property
    def final(self) -> Summary:
        """The final scores of the runs that did not diverge."""
        return scores.summary(self.series)


@dataclasses.dataclass(frozen=True)
class Study:
    """A study on record.

    Args:
        name: as `run` takes it.
        workload: what it trains, in words.
        question: what it asks besides: "" for p itself, else "estimators", "matrices", "direction" or "bias".
        report: its results.
    """

    name: str
    workload: str
    question: str
    report: Report

    @property
    def whole(self) -> bool:
        """Whether all its runs are there: before that it says nothing."""
        return not self.report.missing and not self.report.waiting

    @property
    def baselines(self) -> Mapping[str, Entry]:
        """Its entries without an exponent, by optimizer.

        Raises:
            ValueError: several are of one optimizer.
        """
        some = [entry for entry in self.entries if not entry.has_exponent]
        return _distinct(((entry.series.arm.config.optimizer, entry) for entry in some), self.name)

    @functools.cached_property
    def entries(self) -> Sequence[Entry]:
        """What was tried, and chosen, for each of its entries."""
        (subject,) = self.report.study.subjects
        tried = {line.group.key: line for line in lines(self.report, subject)}
        return [Entry(one, tried[one.arm.label]) for one in self.report.series]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Entries that one question sets beside each other on one workload, and what they are compared with.

    Args:
        study: where they stand.
        name: of what they have in common, such as the estimator.
        entries: in their order.
    """

    study: Study
    name: str
    entries: Sequence[Entry]

    @property
    def base(self) -> Entry:
        """The entry that did best on the held-out part: the final runs have had no part in choosing it.

        Of equal ones the first, of a curve that with the smallest p.
        """
        return max(self.entries, key=lambda entry: entry.validation)

    def words(self, base: Entry) -> Mapping[str, str]:
        """By label, how the final runs of the others compare with those of `base`, by the verdicts of a report."""
        arms = tuple(entry.series.arm for entry in self.entries)
        study = dataclasses.replace(self.study.report.study, arms=arms, reference=base.series.arm.label)
        report = Report(study, tuple(entry.series for entry in self.entries), 0)
        (subject,) = study.subjects
        told = {one.series.arm.label: one.word for one in judge(report, subject).rows}
        others = (entry.series.arm.label for entry in self.entries if entry is not base)
        return {label: told.get(label, "not compared") for label in others}


def studies(root: Path = RECORDS) -> list[Study]:
    """The studies that are complete on record, by workload."""
    return [one for one in recorded(root) if one.whole]


def recorded(root: Path = RECORDS) -> list[Study]:
    """The studies on record, by workload, also those that wait for runs; there is an archive of each workload's runs.

    Raises:
        StoreError: an archive has the runs of no study, or several versions of one run, of which only one can count.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(root.glob(f"*{archive.SUFFIX}")):
            workload = path.name.removesuffix(archive.SUFFIX)
            store = Store(Path(folder, workload))
            archive.unpack(path, store)
            if several := [identity for identity, files in store.finished().items() if len(files) > 1]:
                raise StoreError(f"{path} has several versions of a run: {several[0]}")
            start = f"{PREFIX}{workload}"
            mine = [name for name in names() if name == start or name.startswith(f"{start}-")]
            if not mine:
                raise StoreError(f"{path} is of no study: none is called {start}")
            for name, report in zip(mine, collect_all(map(load, mine), store), strict=True):
                question = name.removeprefix(start).removeprefix("-")
                found.append(Study(name, report.study.title.partition(": ")[2], question, report))
    return sorted(found, key=lambda study: (study.workload.casefold(), study.name))


def curves(found: Iterable[Study]) -> list[Choice]:
    """Every estimator on every workload, over p.

    Raises:
        ValueError: an estimator has several entries of one p, or one of a p that the tables do not show.
    """
    made: list[Choice] = []
    for study in found:
        if study.question not in CURVES:
            continue
        by_optimizer: dict[str, list[Entry]] = {}
        for entry in study.entries:
            if entry.has_exponent:
                by_optimizer.setdefault(entry.series.arm.config.optimizer, []).append(entry)
        for name, some in by_optimizer.items():
            if unknown := {*_distinct(((entry.p, entry) for entry in some), study.name)} - {*map(float, _SHARES)}:
                raise ValueError(
                    f"{study.name}: no table shows p = {unknown.pop():g}, only {', '.join(map(str, _SHARES))}"
                )
            made.append(Choice(study, REGISTRY[name].title, some))
    return made


def by_exponent(found: Sequence[Study]) -> Documented:
    """The final score at each p, each with its own best learning rate."""
    rows = []
    for curve in curves(found):
        words = curve.words(curve.base)
        marked = {entry.p: _score(entry, words, curve.base) for entry in curve.entries}
        rows.append(_over_p(curve, marked))
    note = (
        "Mean after the last epoch over the seeds, with its 95 % interval, each p at the learning rate that was best "
        "for it on the held-out tenth of the training set. Bold: the p that was best there, by which the others are "
        f"judged, with Holm's correction over a row. {OPEN}: not told from it. ↑: better than it."
    )
    return Documented(_OVER_P, rows, note)


def tally(found: Sequence[Study]) -> Documented:
    """On how many workloads each p is what, as the table of scores has it."""
    asked = curves(one for one in found if not one.question)
    counts: Counter[tuple[float, str]] = Counter()
    best: dict[float, list[float]] = {}
    for curve in asked:
        base = curve.base
        words = curve.words(base)
        for entry in curve.entries:
            word = "chosen" if entry is base else _TOLD.get(words[entry.series.arm.label], "undecided")
            counts[entry.p, word] += 1
            best.setdefault(entry.p, []).append(entry.lr)
    rows = [
        (str(p), *(str(counts[float(p), word]) for word in _TALLIED), _between(best[float(p)]))
        for p in _SHARES
        if asked
    ]
    note = (
        f"On how many of {len(asked)} workloads this p of PartialAdam is the one that was best on the held-out part, "
        "and on how many the table below tells it from that one, as better or worse. Last the smallest and the largest "
        "of its best learning rates on them."
    )
    return Documented(("p", *_TALLIED, "best learning rates"), rows, note)


def rates(found: Sequence[Study]) -> Documented:
    """The best learning rate at each p, how it moves, and how near it one has to be."""
    rows = []
    for curve in curves(found):
        (subject,) = curve.study.report.study.subjects
        limits, _ = tolerances([entry.line for entry in curve.entries], subject)
        widths = [entry.line.profile.width(limit) for entry, limit in zip(curve.entries, limits, strict=True)]
        per_unit, off = fit([(entry.p, entry.lr) for entry in curve.entries if not entry.edge])
        marked = {
            entry.p: f"{_rate(entry)} ({'≥ ' * more}{width:.1f})"
            for entry, (width, more) in zip(curve.entries, widths, strict=True)
        }
        cell = f"{cells.decimal(per_unit, 1)} ± {off:.2f}" if math.isfinite(per_unit) else cells.DASH
        rows.append((*_over_p(curve, marked), cell))
    note = (
        "The learning rate that was best on the held-out part, and in brackets the decades around it within which the "
        "score stays within one standard deviation of the seeds, or within 5 % where a setting was tried with one "
        "seed; ≥ where that reaches the end of what was tried. !: the smallest or largest tried. Slope: decades of "
        "the best learning rate per unit of p by least squares, ± the largest distance of a point from the line, in "
        "decades; without those at an end."
    )
    return Documented((*_OVER_P, "slope"), rows, note)


def epochs_to_target(found: Sequence[Study]) -> Documented:
    """How many epochs it takes to the target at each p."""
    rows = []
    for curve in curves(found):
        marked = {entry.p: _to_target(curve, entry) for entry in curve.entries}
        rows.append(_over_p(curve, marked))
    note = "Mean over the runs that reach the target. Each p at the learning rate that was best for it at the end."
    return Documented(_OVER_P, rows, note + _targets(curve.study for curve in curves(found)))


def _distinct(pairs: Iterable[tuple[Key, Entry]], study: str) -> Mapping[Key, Entry]:
    found: dict[Key, Entry] = {}
    for key, entry in pairs:
        if key in found:
            raise ValueError(
                f"{study} has several entries of {key}: {found[key].series.arm.label} and {entry.series.arm.label}"
            )
        found[key] = entry
    return found


def _over_p(curve: Choice, marked: Mapping[float, str]) -> tuple[str, ...]:
    """A row of `_OVER_P`."""
    return (curve.study.workload, curve.name, *(marked.get(float(p), cells.DASH) for p in _SHARES))


def against_baselines(found: Sequence[Study]) -> Documented:
    """The baselines and the chosen exponent."""
    rows: list[tuple[str, ...]] = []
    for study in found:
        if study.question:
            continue
        base = Choice(study, "", [entry for entry in study.entries if entry.has_exponent]).base
        choice = Choice(study, "", [base, *(entry for entry in study.entries if not entry.has_exponent)])
        rows += _against(choice, base)
    note = "The baselines against PartialAdam at the p that was best on the held-out part. Equal trials."
    return Documented(_AGAINST, rows, note + _targets(one for one in found if not one.question))


def among(found: Sequence[Study], question: str, *, of_one_p: bool = False) -> Documented:
    """All entries of the studies that ask this, or those of each p, against the best one on the held-out part."""
    rows: list[tuple[str, ...]] = []
    for study in found:
        if study.question == question:
            for p in dict.fromkeys(entry.p for entry in study.entries) if of_one_p else (None,):
                choice = Choice(study, "", [entry for entry in study.entries if p in (None, entry.p)])
                rows += _against(choice, choice.base)
    note = f"Against the entry{' of the same p' * of_one_p} that was best on the held-out part of each workload."
    return Documented(_AGAINST, rows, note + _targets(one for one in found if one.question == question))


def _targets(found: Iterable[Study]) -> str:
    """What the targets of studies are, in words."""
    said = {one.workload: one.report.study.target for one in found}
    named = "; ".join(f"{workload}: {target:g}" for workload, target in said.items() if target is not None)
    return f" Targets: {named}." if named else ""


def budgets(found: Sequence[Study]) -> Documented:
    """What was spent on each whole study, and by what code; the others are named."""
    rows = []
    for study in (one for one in found if one.whole):
        report = study.report
        made = [*report.trials, *report.series]
        some = study.entries
        facts = report.environment
        rows.append(
            (
                f"`{study.name}`",
                str(len(some)),
                cells.span(len(entry.line.profile.lrs) for entry in some).text,
                _span(math.log10(entry.line.profile.lrs[-1] / entry.line.profile.lrs[0]) for entry in some),
                cells.span(len(one.runs) for one in report.trials).text,
                cells.span(len(one.runs) for one in report.series).text,
                f"{sum(len(one.runs) for one in made):,}",
                str(sum(one.diverged for one in made)),
                str(sum(entry.edge for entry in some)),
                f"{seconds(made) / 60:.0f}",
                facts["commit"],
                facts["sources"],
                facts["torch"],
            )
        )
    spent = ("study", "entries", "settings each", "decades tried", "seeds each", "final seeds", "runs", "diverged")
    header = (*spent, "at the edge", "CPU minutes", "commit", "sources", "torch")
    note = (
        "Decades tried: from the smallest to the largest learning rate of an entry. At the edge: entries whose best "
        "rate is one of those two."
    )
    if waiting := [f"`{study.name}`" for study in found if not study.whole]:
        note += f" Runs are missing of {', '.join(waiting)}, which no table has."
    return Documented(header, rows, note)


_AGAINST = ("workload", "optimizer", "lr", "score", "difference", "verdict", "to the target, epochs")


def _against(choice: Choice, base: Entry) -> list[tuple[str, ...]]:
    words = choice.words(base)
    rows: list[tuple[str, ...]] = []
    for entry in choice.entries:
        name, score = entry.series.arm.title, (_rate(entry), scores.shown(entry.series))
        told = (cells.DASH, "compared with")
        if entry is base:
            name = f"**{name}**"
        else:
            told = (scores.difference(entry.final, base.final), words[entry.series.arm.label])
        rows.append((choice.study.workload, name, *score, *told, _to_target(choice, entry)))
    return rows


def _rate(entry: Entry) -> str:
    """The chosen learning rate in two digits, set off where it is at an end."""
    return f"{_short(entry.lr)}{'!' * entry.edge}"


def _short(lr: float) -> str:
    return f"{float(f'{lr:.2g}'):g}"


def _between(lrs: Sequence[float]) -> str:
    """The least and the greatest learning rate, and the decades between."""
    low, high = min(lrs), max(lrs)
    return f"{_short(low)} to {_short(high)} ({math.log10(high / low):.1f} decades)"


def _span(values: Iterable[float]) -> str:
    """The least and the greatest, or the one that all are, to one decimal."""
    some = sorted(values)
    return "–".join(dict.fromkeys(f"{value:.1f}" for value in (some[0], some[-1])))


def _to_target(choice: Choice, entry: Entry) -> str:
    """The mean of the epochs after which the runs first reached the study's target, and how many did."""
    target = choice.study.report.study.target
    reached = [] if target is None else [epoch for epoch, _ in entry.series.to_target(target).values()]
    count, runs = len(reached), len(entry.series.runs)
    if not reached:
        return "never" if target is not None else cells.DASH
    return f"{np.mean(reached):.1f}" + (f" ({count} of {runs})" if count < runs else "")


def _score(entry: Entry, words: Mapping[str, str], base: Entry) -> str:
    text = scores.shown(entry.series)
    if entry is base:
        return f"**{text}**"
    word = words[entry.series.arm.label]
    return text + {"worse": "", "diverged": "", "better": " ↑", "undecided": f" {OPEN}"}.get(word, f" ({word})")
