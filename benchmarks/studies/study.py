"""What a study is: the arms that are compared, their seeds, and what is to be made of them."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError, nearest

MAX_SEEDS = 10_000
"""The most seeds that a count can mean."""


class StudyError(BenchmarkError, ValueError):
    """A study that does not exist or does not say what to run."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One line of the study's table: a configuration but for the seed.

    Args:
        label: its name within the study, e.g. ``"padam,partial=0.125"``; starts with ``"<workload>/"`` where the study
            has several workloads.
        title: its name in tables and figures.
        config: what is run, with seed 0.
        group: label of the entry that it comes from; the candidates of one optimizer share it.
        refit: in a tuned study, what is run should this candidate be chosen.
        point: its place on the axes along which the entry's arms differ, by name, e.g. ``{"lr": 0.1}``.
        entry: title of the entry that it comes from, without what sets its arms apart.
        tuned: whether its setting is the choice of a tuned study.
    """

    label: str
    title: str
    config: RunConfig
    group: str
    refit: RunConfig | None = None
    point: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    entry: str = ""
    tuned: bool = False

    @property
    def name(self) -> str:
        """Its label without the workload."""
        return self.label.removeprefix(f"{self.config.workload}/")

    def chosen(self) -> "Arm":
        """The arm that trains this candidate's setting on the whole training set, under its entry's label and title."""
        if self.refit is None:
            raise ValueError(f"{self.label} is not a candidate of a tuned study")
        title = self.entry or self.title
        return dataclasses.replace(self, label=self.group, title=title, config=self.refit, refit=None, tuned=True)

    def answers_to(self, name: str) -> bool:
        """Whether a study that names it, by label or entry and with or without the workload, means this arm."""
        return name in (self.label, self.group, self.name, self.group.removeprefix(f"{self.config.workload}/"))


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: Arm
    config: RunConfig

    @property
    def label(self) -> str:
        """Its name within the study, e.g. ``"padam/seed0"``."""
        return f"{self.arm.label}/seed{self.config.seed}"

    def matches(self, pattern: str) -> bool:
        """Whether a glob names this run: by its label, its arm, its entry, its optimizer or its workload."""
        names = (self.label, self.arm.label, self.arm.group, self.config.optimizer, self.config.workload)
        return any(fnmatch.fnmatchcase(name, pattern) for name in names)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How the settings of a tuned study are chosen.

    Args:
        trials: settings tried for each entry, at least 1.
        seed: of the draw of the settings, and the first one that they are trained with; at least 0.
        seeds: runs of each setting, with consecutive seeds; the choice goes by their mean. At least 1.
        apart: keep the seeds of the trials away from those of the study, by counting them from a million.
    """

    trials: int
    seed: int = 0
    seeds: int = 1
    apart: bool = False

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("seed", 0), ("seeds", 1)):
            if getattr(self, name) < least:
                raise StudyError(f"[tuning] {name} must be at least {least}, got {getattr(self, name)!r}")

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """The seeds that every trial is trained with."""
        first = self.seed + (1_000_000 if self.apart else 0)
        return tuple(range(first, first + self.seeds))


@dataclasses.dataclass(frozen=True)
class Study:
    """An experiment.

    Labels tell its arms apart, and titles do on each subject: of arms with one title each gets its label behind it.

    Args:
        name: its name on the command line.
        title: its heading.
        description: what is asked, in a sentence or two.
        arms: what is compared; of a tuned study that has not been tuned yet, the candidates. No two have one label or
            one configuration, but for those of different entries of a tuned study.
        seeds: the seeds of every arm.
        reference: label or entry of the one arm that the others are tested against, with or without the workload.
        target: value of the metric for "time to target".
        figures: the quantities drawn over the epochs, one row of panels each.
        threads: CPU threads of each run; None leaves torch's choice.
        tuning: how to choose among the arms, or None if all of them are the study.
        left_out: optimizers that its file names and this torch cannot build, and why.

    Raises:
        StudyError: two arms are one by label or configuration, or the reference is several.
    """

    name: str
    title: str
    description: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    reference: str | None = None
    target: float | None = None
    figures: tuple[str, ...] = ()
    threads: int | None = None
    tuning: Tuning | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_labels(self.arms)
        if self.tuning is not None:
            _check_entries(self.arms, self.tuning, self.reference)
        _check_configurations(self.arms)
        object.__setattr__(self, "arms", _told_apart(self.arms))
        for subject in self.subjects if self.tuning is None else ():
            self.base(subject)

    @property
    def workloads(self) -> tuple[str, ...]:
        """The workloads of the arms, in order of appearance."""
        return tuple(dict.fromkeys(arm.config.workload for arm in self.arms))

    @property
    def subjects(self) -> tuple[str, ...]:
        """What the arms are trained on, in order of appearance: only arms of one subject are compared."""
        return tuple(dict.fromkeys(arm.config.subject for arm in self.arms))

    def base(self, subject: str) -> Arm | None:
        """The arm of a subject that the others are compared with; None where there is no such.

        Raises:
            StudyError: the reference is the label of no arm of the subject, and several come from that entry.
        """
        arms = [arm for arm in self.arms if arm.config.subject == subject and arm.answers_to(self.reference or "")]
        exact = [arm for arm in arms if self.reference in (arm.label, arm.name)]
        if len(exact or arms) > 1:
            labels = ", ".join(repr(arm.name) for arm in exact or arms)
            raise StudyError(f"reference {self.reference!r} means {len(exact or arms)} runs; name one of {labels}")
        return next(iter(exact or arms), None)

    def runs(self, seeds: Sequence[int] | None = None) -> list[Run]:
        """The runs, all arms of the first seed before any of the next, so that a part of them is a whole comparison.

        Of a study yet to be tuned these are the trials, whatever `seeds` says; the runs to report are those of
        `tuned`.
        """
        if self.tuning is not None:
            seeds = self.tuning.trial_seeds
        chosen = self.seeds if seeds is None else seeds
        return [Run(arm, dataclasses.replace(arm.config, seed=seed)) for seed in chosen for arm in self.arms]

    def tuned(self, arms: Sequence[Arm]) -> "Study":
        """The study with its tuning behind it: the chosen `arms` over all seeds."""
        return dataclasses.replace(self, arms=tuple(arms), tuning=None)


def _check_labels(arms: Sequence[Arm]) -> None:
    """Raise `StudyError` if two arms have one label."""
    seen: dict[str, Arm] = {}
    for arm in arms:
        other = seen.setdefault(arm.label, arm)
        if other is not arm:
            raise StudyError(
                f"two runs have the label {arm.label!r}, {other.title!r} and {arm.title!r}: give one another `label`"
            )


def _check_configurations(arms: Sequence[Arm]) -> None:
    """Raise `StudyError` if two arms are the same run; entries of a tuned study may meet in one point."""
    seen: dict[str, list[Arm]] = {}
    for arm in arms:
        same = seen.setdefault(arm.config.identity(""), [])
        for other in same:
            tuning = all(one.tuned or one.refit is not None for one in (arm, other))
            if not tuning or arm.group == other.group:
                raise StudyError(f"{other.label!r} and {arm.label!r} are the same run, by all settings: remove one")
        same.append(arm)


def _check_entries(arms: Sequence[Arm], tuning: Tuning, reference: str | None) -> None:
    """Raise `StudyError` if two entries of a tuned study have one label, or its reference is no entry."""
    for group, count in Counter(arm.group for arm in arms).items():
        if count > tuning.trials:
            raise StudyError(f"entries of a tuned study have the label {group!r} in common: give each its own `label`")
    entries = {name for arm in arms for name in (arm.group, arm.group.removeprefix(f"{arm.config.workload}/"))}
    if reference is not None and reference not in entries:
        raise StudyError(f"reference {reference!r} is no entry of the tuned study{nearest(reference, entries)}")


def _told_apart(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms with their labels behind those titles that others on the same subject have as well."""

    def title(arm: Arm) -> tuple[str, str]:
        return arm.config.subject, " ".join(arm.title.split())  # as it is read

    counts = Counter(map(title, arms))
    return tuple(
        dataclasses.replace(arm, title=f"{arm.title} [{arm.name}]") if counts[title(arm)] > 1 else arm for arm in arms
    )


def selected(runs: Sequence[Run], only: Sequence[str]) -> list[Run]:
    """The runs that one of the globs matches; all of them without globs."""
    if not only:
        return list(runs)
    chosen = [run for run in runs if any(run.matches(pattern) for pattern in only)]
    if runs and not chosen:
        known = sorted({run.arm.label for run in runs})
        raise StudyError(f"--only {' '.join(only)} matches no run{nearest(only[0], known)}")
    return chosen


def seeds(value: int | list[int]) -> tuple[int, ...]:
    """The seeds meant by a count or a list of them."""
    chosen = list(range(min(value, MAX_SEEDS + 1))) if isinstance(value, int) else value
    whole = all(type(seed) is int and seed >= 0 for seed in chosen)
    if not whole or not 1 <= len(chosen) <= MAX_SEEDS or len(set(chosen)) < len(chosen):
        allowed = f"a count from 1 to {MAX_SEEDS} or a list of different integers >= 0"
        raise StudyError(f"seeds must be {allowed}, got {value!r}")
    return tuple(chosen)
