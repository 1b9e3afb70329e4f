"""The finished runs of a study, arm by arm."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.base.records import Cost, Epoch, Number, number
from benchmarks.base.store import Result, Store, StoreError
from benchmarks.studies import tuning
from benchmarks.studies.study import Arm, Study
from benchmarks.workloads import metrics


@dataclasses.dataclass(frozen=True)
class Series:
    """An arm with its finished runs by seed."""

    arm: Arm
    runs: Mapping[int, Result]

    def only(self, seeds: Sequence[int]) -> "Series":
        """The same with no other runs than those of `seeds`."""
        return Series(self.arm, {seed: run for seed, run in self.runs.items() if seed in seeds})

    @property
    def sound(self) -> Mapping[int, Result]:
        """The runs that did not diverge."""
        return {seed: run for seed, run in self.runs.items() if not run.diverged}

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

    def time(self, value: Callable[[Cost], Number]) -> list[float]:
        """A timing of the runs' last records."""
        return list(self.at(-1, lambda record: value(record.time)).values())

    def to_target(self, target: float) -> dict[int, tuple[int, float]]:
        """By seed the epoch at which the target was reached, and the seconds of training until then."""
        workload = self.arm.config.workload
        sign = 1 if metrics.higher_is_better(workload) else -1
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
    """

    study: Study
    series: tuple[Series, ...]
    missing: int
    trials: tuple[Series, ...] = ()
    waiting: tuple[str, ...] = ()

    def of(self, workload: str) -> list[Series]:
        """The series of one workload."""
        return [series for series in self.series if series.arm.config.workload == workload]

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
                    found.setdefault(key, {})[str(value)] = None
        return {key: " / ".join(values) for key, values in found.items()}

    @property
    def commands(self) -> list[str]:
        """The command lines that made the runs."""
        commands = [str(environment["command"]) for environment in self._environments() if "command" in environment]
        return list(dict.fromkeys(commands))

    def _environments(self) -> list[Mapping[str, Any]]:
        return [run.environment for one in (*self.trials, *self.series) for run in one.runs.values()]


def train_loss(record: Epoch) -> Number:
    """The loss on training examples without augmentation, or else on the batches as they were trained on."""
    clean = record.train.get("clean_loss")
    return record.train.get("online_loss") if clean is None else clean


class Index:
    """The results of a store by configuration, so that a report needs no data set."""

    def __init__(self, store: Store) -> None:
        self._results: dict[str, Result] = {}
        for result in store.results():
            key = _key(result.config)
            other = self._results.setdefault(key, result)
            if other.fingerprint != result.fingerprint:
                raise StoreError(
                    f"{store.root} has the same run on different data ({other.fingerprint} and {result.fingerprint}): "
                    f"{result.config['workload']}, {result.config['optimizer']}, seed {result.config['seed']}; "
                    f"keep results on different data in different directories"
                )

    def series(self, arms: Iterable[Arm]) -> list[Series]:
        """Each arm with all its seeds that are there, whether or not the study asks for them."""
        by_arm: dict[str, dict[int, Result]] = {}
        for result in self._results.values():
            runs = by_arm.setdefault(_key({**result.config, "seed": 0}), {})
            runs[result.config["seed"]] = result
        found = []
        for arm in arms:
            runs = by_arm.get(_key(arm.config.to_dict()), {})
            found.append(Series(arm, dict(sorted(runs.items()))))
        return found


def collect(study: Study, store: Store) -> Report:
    """What the store has of a study."""
    index = Index(store)
    series = index.series(study.arms)
    if study.tuning is None:
        return _report(study, series)
    series = [one.only(study.tuning.trial_seeds) for one in series]
    trials = {f"{one.arm.label}/seed{seed}": run for one in series for seed, run in one.runs.items()}
    chosen, waiting = tuning.select(study, trials)
    report = _report(chosen, index.series(chosen.arms))
    return dataclasses.replace(report, trials=tuple(series), waiting=tuple(waiting))


def _report(study: Study, series: Sequence[Series]) -> Report:
    missing = sum(1 for one in series for seed in study.seeds if seed not in one.runs)
    return Report(study, tuple(one for one in series if one.runs), missing)


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)
