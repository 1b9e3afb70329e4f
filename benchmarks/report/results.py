"""The finished runs of a study, arm by arm."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.base import choice
from benchmarks.base.config import unseeded
from benchmarks.base.environment import Provenance
from benchmarks.base.records import Cost, Epoch, Number, number
from benchmarks.base.store import Result, Skipped, Store
from benchmarks.studies import tuning
from benchmarks.studies.study import Arm, Study
from benchmarks.workloads import metrics


@dataclasses.dataclass(frozen=True)
class Series:
    """An arm with its finished runs by seed."""

    arm: Arm
    runs: Mapping[int, Result]

    def only(self, wanted: Callable[[Result], bool]) -> "Series":
        """The arm with those of its runs that are wanted."""
        return Series(self.arm, {seed: run for seed, run in self.runs.items() if wanted(run)})

    @property
    def sound(self) -> Mapping[int, Result]:
        """The runs that did not diverge, up to and including what their last step has left."""
        workload = self.arm.config.workload
        return {
            seed: run
            for seed, run in self.runs.items()
            if not run.diverged and metrics.judged(run.epochs[-1], workload)
        }

    @property
    def diverged(self) -> int:
        """How many did."""
        return len(self.runs) - len(self.sound)

    def at(self, epoch: int, value: Callable[[Epoch], Number]) -> dict[int, float]:
        """A number of one epoch's record (-1: the last) by seed, where there is one."""
        found = {}
        for seed, run in self.sound.items():
            if epoch <= len(run.epochs):
                found[seed] = number(value(run.epochs[epoch - 1 if epoch > 0 else epoch]))
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def scores(self, epoch: int = -1, statistics: str = "running") -> dict[int, float]:
        """The workload's metric after an epoch (-1: the last) by seed."""
        return self.at(epoch, lambda record: metrics.score(record, self.arm.config.workload, statistics))

    @property
    def finals(self) -> list[float]:
        """The scores after the last epoch, of the runs that did not diverge."""
        return list(self.scores().values())

    def time(self, value: Callable[[Cost], Number]) -> list[float]:
        """A timing of the runs' last records."""
        return list(self.at(-1, lambda record: value(record.time)).values())

    def to_target(self, target: float) -> dict[int, tuple[int, float]]:
        """By seed the epoch at which the target was reached, and the seconds of training until then."""
        workload = self.arm.config.workload
        sign = metrics.sign(workload)
        reached = {}
        for seed, run in self.sound.items():
            seconds = 0.0
            for record in run.epochs:
                seconds += number(record.time.train_s)
                if sign * metrics.score(record, workload) >= sign * target:
                    reached[seed] = (record.epoch, seconds)
                    break
        return reached


@dataclasses.dataclass(frozen=True)
class Report:
    """A study and what there is of it.

    Args:
        study: the study; of a tuned one, with the chosen settings as its arms.
        series: its arms with at least one finished run.
        missing: runs of the study that are not finished.
        trials: of a tuned study, the candidates with their results.
        waiting: of a tuned study, entries that cannot be judged yet.
        notes: what of the store has been left out, and why.
    """

    study: Study
    series: tuple[Series, ...]
    missing: int
    trials: tuple[Series, ...] = ()
    waiting: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, subject: str) -> list[Series]:
        """The series of one of the study's subjects."""
        return [series for series in self.series if series.arm.config.subject == subject]

    def reference(self, subject: str) -> Series | None:
        """What the others on a subject are compared with, if it has a finished run."""
        base = self.study.base(subject)
        return next((one for one in self.of(subject) if base is not None and one.arm.label == base.label), None)

    @property
    def state(self) -> str:
        """How much of the study there is."""
        runs = sum(len(one.runs) for one in self.series)
        seeds = len({seed for one in self.series for seed in one.runs})
        text = f"{runs} finished run{'s' * (runs != 1)} over {seeds} seed{'s' * (seeds != 1)}"
        text += f"; {self.missing} of the study still to come." if self.missing else "; the study is complete."
        return text if not self.waiting else f"{text} Waiting for trials of {', '.join(self.waiting)}."

    @property
    def environment(self) -> dict[str, str]:
        """Where the runs were made; several values where they differ."""
        found: dict[str, dict[str, None]] = {}
        for environment in self._environments():
            for key, value in environment.items():
                if key != "command" and value is not None:
                    said = ", ".join(f"{name} {one}" for name, one in value.items()) if key == "modules" else value
                    found.setdefault(key, {})[str(said)] = None
        return {key: " / ".join(filter(None, values)) for key, values in found.items() if any(values)}

    @property
    def commands(self) -> list[str]:
        """The command lines that made the runs."""
        commands = [str(environment["command"]) for environment in self._environments() if "command" in environment]
        return list(dict.fromkeys(commands))

    def _environments(self) -> list[Mapping[str, Any]]:
        return [run.environment for one in (*self.trials, *self.series) for run in one.runs.values()]


def clean_loss(record: Epoch) -> Number:
    """The loss of the model after the epoch: in evaluation mode, on at most 5,000 training examples as they are."""
    return record.train.get("clean_loss")


def online_loss(record: Epoch) -> Number:
    """The mean loss of the epoch's batches as they were trained on, in train mode: the paper's train loss."""
    return record.train.get("online_loss")


class Index:
    """The results of a store by configuration, so that a report needs no data set.

    Args:
        found: what `Store.scan` gave.
        wanted: which of them count.

    Attributes:
        notes: what has been left out, and why.
    """

    def __init__(
        self,
        found: tuple[Iterable[Result], Iterable[Skipped]],
        wanted: Callable[[Result], bool] = lambda result: True,
    ) -> None:
        results, skipped = found
        self.notes = _not_believed(skipped)
        self._runs: dict[str, dict[int, list[Result]]] = {}
        for result in filter(wanted, results):
            runs = self._runs.setdefault(unseeded(result.config), {})
            runs.setdefault(result.config["seed"], []).append(result)

    def series(self, arms: Iterable[Arm], seeds: Iterable[int] = (), *, others: bool = True) -> list[Series]:
        """Each arm with all its seeds that are there, whether or not `seeds` has them, unless `others` is false.

        Where a run was made by several versions of the code, torch or devices, the one counts that made most of the
        runs of `seeds`. Of runs on different data those count that are more; the others are named in `notes`.
        """
        arms, seeds = list(arms), list(seeds)
        found = {
            (arm.label, seed): results
            for arm in arms
            for seed, results in sorted(self._runs.get(unseeded(arm.config.to_dict()), {}).items())
            if others or seed in seeds
        }
        wanted = {(arm.label, seed) for arm in arms for seed in seeds}
        for subject in dict.fromkeys(arm.config.subject for arm in arms):
            labels = {arm.label for arm in arms if arm.config.subject == subject}
            found |= self._of_one_data({key: runs for key, runs in found.items() if key[0] in labels}, wanted, subject)
        chosen = choice.preferred({key: results for key, results in found.items() if results}, wanted)
        runs: dict[str, dict[int, Result]] = {arm.label: {} for arm in arms}
        for (label, seed), run in chosen.items():
            runs[label][seed] = run
        return [Series(arm, runs[arm.label]) for arm in arms]

    def _of_one_data(
        self, runs: Mapping[tuple[str, int], Sequence[Result]], wanted: set[tuple[str, int]], subject: str
    ) -> dict[tuple[str, int], list[Result]]:
        """The results on the data that most of the runs were made on."""
        prints = {key: [result.fingerprint for result in results] for key, results in runs.items()}
        kept, *others = choice.ranked(prints, runs, wanted) or [""]
        for other in others:
            labels = dict.fromkeys(f"{label}/seed{seed}" for (label, seed), found in prints.items() if other in found)
            self.notes.append(
                f"{subject}: {len(labels)} run{'s' * (len(labels) != 1)} on other data are left out (its fingerprint "
                f"is {other}, that of the runs in the tables {kept}): {', '.join(labels)}"
            )
        return {key: [one for one in results if one.fingerprint == kept] for key, results in runs.items()}


def collect(study: Study, store: Store) -> Report:
    """What the store has of a study."""
    (report,) = collect_all([study], store)
    return report


def collect_all(studies: Iterable[Study], store: Store) -> list[Report]:
    """What the store has of some studies; its files are read once."""
    found = store.scan()
    return [_collected(study, Index(found)) for study in studies]


def _collected(study: Study, index: Index) -> Report:
    if study.tuning is None:
        return _report(study, index)
    series = index.series(study.arms, {run.config.seed for run in study.runs()}, others=False)
    trials = {f"{one.arm.label}/seed{seed}": run for one in series for seed, run in one.runs.items()}
    chosen, waiting = tuning.select(study, trials)
    return dataclasses.replace(_report(chosen, index), trials=tuple(series), waiting=tuple(waiting))


def _report(study: Study, index: Index) -> Report:
    series = index.series(study.arms, study.seeds)
    missing = sum(1 for one in series for seed in study.seeds if seed not in one.runs)
    notes = [*study.left_out, *index.notes, *_unsealed(run for one in series for run in one.runs.values())]
    return Report(study, tuple(one for one in series if one.runs), missing, notes=tuple(dict.fromkeys(notes)))


def _not_believed(skipped: Iterable[Skipped]) -> list[str]:
    """A sentence for each reason why files of the store are passed over."""
    by_reason: dict[str, list[str]] = {}
    for one in skipped:
        by_reason.setdefault(one.reason, []).append(one.path.name)
    return [f"{_some(names)}: {reason}." for reason, names in by_reason.items()]


def _unsealed(runs: Iterable[Result]) -> list[str]:
    names = [run.path.name for run in runs if not run.sealed]
    why = "from before runs had a checksum; whether they have been changed since cannot be told."
    return [f"{_some(names)}: {why}"] if names else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def mixture(series: Iterable[Series]) -> list[str]:
    """A warning that names what was made by which code, torch and device, where that is not one and the same."""
    made: dict[Provenance, dict[str, None]] = {}
    commits: dict[Provenance, dict[str, None]] = {}
    brought: dict[str, dict[str, None]] = {}
    for one in series:
        for run in one.runs.values():
            provenance = run.provenance.common
            made.setdefault(provenance, {})[one.arm.title] = None
            commits.setdefault(provenance, {})[str(run.environment.get("commit") or "unknown")] = None
            for module, version in (run.environment.get("modules") or {}).items():
                brought.setdefault(module, {})[version] = None
    warnings = [
        f"Warning: the runs of this table differ in {module}: {' and '.join(versions)}."
        for module, versions in brought.items()
        if len(versions) > 1
    ]
    if len(made) < 2:
        return warnings
    apart = [field for i, field in enumerate(Provenance._fields) if len({one[i] for one in made}) > 1]
    parts = []
    for provenance, titles in made.items():
        facts = [f"{field} {getattr(provenance, field)}" for field in apart]
        facts += [f"commit {'/'.join(commits[provenance])}"] * ("sources" in apart)
        parts.append(f"{', '.join(titles)} ({', '.join(facts)})")
    return [*warnings, f"Warning: the runs of this table differ in {' and '.join(apart)}: {'; '.join(parts)}."]
