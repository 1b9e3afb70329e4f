"""The studies `which-p-…` on record: their entries, and those of each estimator over p."""

import dataclasses
import functools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from benchmarks.base.store import Store, StoreError
from benchmarks.report.evidence import archive, scores
from benchmarks.report.groups import metric
from benchmarks.report.inference.statistics import Summary
from benchmarks.report.results import Report, Series, collect_all
from benchmarks.report.sections.sensitivity import Line, lines
from benchmarks.report.sections.verdicts import judge
from benchmarks.studies import load, names
from benchmarks.training.catalogue import REGISTRY
from benchmarks.workloads.metrics import Metric

RECORDS = Path(__file__).parents[2] / "results" / "cpu"
PREFIX = "which-p-"
_CURVES = ("", "estimators", "matrices")  # the questions of which each estimator has an entry for every p
SHARES = [Fraction(n, 16) for n in (0, 1, 2, 4, 6, 8)]
"""The exponents that are asked of."""
_Key = TypeVar("_Key", float, str)


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
        return self.line.profile.at_edge

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
        if study.question not in _CURVES:
            continue
        by_optimizer: dict[str, list[Entry]] = {}
        for entry in study.entries:
            if entry.has_exponent:
                by_optimizer.setdefault(entry.series.arm.config.optimizer, []).append(entry)
        for name, some in by_optimizer.items():
            if unknown := {*_distinct(((entry.p, entry) for entry in some), study.name)} - {*map(float, SHARES)}:
                raise ValueError(
                    f"{study.name}: no table shows p = {unknown.pop():g}, only {', '.join(map(str, SHARES))}"
                )
            made.append(Choice(study, REGISTRY[name].title, some))
    return made


def _distinct(pairs: Iterable[tuple[_Key, Entry]], study: str) -> Mapping[_Key, Entry]:
    found: dict[_Key, Entry] = {}
    for key, entry in pairs:
        if key in found:
            raise ValueError(
                f"{study} has several entries of {key}: {found[key].series.arm.label} and {entry.series.arm.label}"
            )
        found[key] = entry
    return found
