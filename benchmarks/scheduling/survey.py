"""What a run would do, and for how long: said before it is done."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.base.config import RunConfig
from benchmarks.base.store import Store
from benchmarks.scheduling import estimate
from benchmarks.scheduling.plan import Planned, distinct, plan
from benchmarks.scheduling.settings import Settings
from benchmarks.studies.study import Run
from benchmarks.workloads.data import DataError

LINES = 200  # of runs, above which they are told by entry


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a run would do.

    Args:
        planned: all runs asked for.
        expected: by identity of those to do the seconds they should take (None: unknown), and how that is known.
        lanes: how many would run side by side.
        chosen: of a tuned study, how many runs follow the trials.
        missing: workloads whose data is missing, and why.
    """

    planned: Sequence[Planned]
    expected: Mapping[str, tuple[float | None, str]]
    lanes: int
    chosen: int
    missing: Mapping[str, str]

    @property
    def due(self) -> list[Planned]:
        """The runs to do."""
        return [one for one in self.planned if one.due]

    def lines(self) -> Iterator[str]:
        """The survey for people: a line for each run, or for each entry where there are more than 200 of them."""
        yield from self._runs() if len(self.planned) <= LINES else self._entries()
        due = self.due
        yield f"{len(due)} of {len(self.planned)} runs to do, {len(self.planned) - len(due)} done before"
        if self.chosen:
            yield f"these are the trials; {self.chosen} runs of the chosen settings follow"
        if due:
            yield f"expected: {estimate.total([self.expected[one.identity] for one in due], self.lanes)}"
        for one in self.planned:
            for file in one.skipped:
                yield f"not believed: {file.reason}"
        for workload, why in self.missing.items():
            yield f"data missing: {why}; what is done of {workload} cannot be told without it"

    def _runs(self) -> Iterator[str]:
        for one in self.planned:
            if not one.due:
                yield f"skip    {one.run.label}"
                continue
            seconds, source = self.expected[one.identity]
            length = "unknown time" if seconds is None else f"{estimate.duration(seconds)}, from {source}"
            yield f"{'resume ' if one.state == 'begun' else 'run    '} {one.run.label} ({length})"

    def _entries(self) -> Iterator[str]:
        groups: dict[str, list[Planned]] = {}
        for one in self.planned:
            groups.setdefault(one.run.arm.group, []).append(one)
        for group, members in groups.items():
            due = [one for one in members if one.due]
            begun = sum(one.state == "begun" for one in due)
            length = estimate.total([self.expected[one.identity] for one in due], self.lanes) if due else "nothing"
            yield f"{group}: {len(due)} of {len(members)} to do{f', {begun} of them begun' * bool(begun)}: {length}"


def survey(
    runs: Sequence[Run],
    store: Store,
    settings: Settings,
    fingerprint: Callable[[RunConfig, Path], str],
    *,
    fresh: bool = False,
    force: bool = False,
    chosen: int = 0,
) -> Survey:
    """The survey of some runs; takes what `benchmarks.scheduling.plan.plan` takes, and how many runs follow these."""
    missing: dict[str, str] = {}

    def known(config: RunConfig, data_dir: Path) -> str:
        try:
            return fingerprint(config, data_dir)
        except DataError as error:
            missing[config.workload] = str(error)
            return "missing"

    planned = distinct(plan(runs, store, settings, known, fresh=fresh, force=force))
    estimator = estimate.Estimator(store, torch.device(settings.devices[0]), settings)
    expected = {one.identity: estimator.seconds(one.run.config) for one in planned if one.due}
    return Survey(planned, expected, len(settings.devices) * settings.jobs, chosen, missing)
