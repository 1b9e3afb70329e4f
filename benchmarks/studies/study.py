"""What a study is: the arms that are compared, their seeds, and what is to be made of them."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError, nearest


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
    """

    label: str
    title: str
    config: RunConfig
    group: str
    refit: RunConfig | None = None
    point: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def chosen(self) -> "Arm":
        """The arm that trains this candidate's setting on the whole training set."""
        if self.refit is None:
            raise ValueError(f"{self.label} is not a candidate of a tuned study")
        return Arm(self.group, self.entry, self.refit, self.group, None, self.point)

    @property
    def entry(self) -> str:
        """The title of its entry: its own without the place on the axes, which ends it in brackets."""
        return self.title.rpartition(" (")[0] if self.point else self.title


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

    Args:
        name: its name on the command line.
        title: its heading.
        description: what is asked, in a sentence or two.
        arms: what is compared; of a tuned study that has not been tuned yet, the candidates.
        seeds: the seeds of every arm.
        reference: label (without workload) of the arm that the others are tested against.
        target: value of the metric for "time to target".
        figures: the quantities drawn over the epochs, one row of panels each.
        threads: CPU threads of each run; None leaves torch's choice.
        tuning: how to choose among the arms, or None if all of them are the study.
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

    @property
    def workloads(self) -> tuple[str, ...]:
        """The workloads of the arms, in order of appearance."""
        return tuple(dict.fromkeys(arm.config.workload for arm in self.arms))

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
    chosen = list(range(value)) if isinstance(value, int) else value
    if not chosen or not all(type(seed) is int and seed >= 0 for seed in chosen) or len(set(chosen)) < len(chosen):
        raise StudyError(f"seeds must be a count of at least 1 or a list of different integers >= 0, got {value!r}")
    return tuple(chosen)
