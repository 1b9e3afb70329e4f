"""What is asked of a study, run by run, and what there is of it in the store."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from benchmarks.base import environment
from benchmarks.base.config import RunConfig
from benchmarks.base.store import Skipped, Store, StoreError, verified
from benchmarks.scheduling.settings import Settings
from benchmarks.studies.study import Run

Fingerprint = Callable[[RunConfig, Path], str]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run with its name in the store, and what there is of it.

    Args:
        run: the run.
        fingerprint: hash of its data.
        identity: its name in the store.
        state: whether it is done, begun or new.
        files: where it lies if it is done: several if other code or another machine did it as well.
        skipped: files under its name that are not believed.
        own: whether one of them was made by this code, torch, device and number of processes.
        files_done: a glob of the files in the store each of which makes it done.
        seen: those that there were when this was planned, with the time of each; what comes later another process made.
        anew: whether it is to be made though it is done, from the beginning.
        expected: seconds that earlier runs say it takes; None where they do not, or nobody asked.
    """

    run: Run
    fingerprint: str
    identity: str
    state: Literal["done", "begun", "new"]
    files: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    own: bool = False
    files_done: str = ""
    seen: frozenset[tuple[Path, int]] = frozenset()
    anew: bool = False
    expected: float | None = None

    @property
    def due(self) -> bool:
        """Whether it is to be made."""
        return self.anew or self.state != "done"


def plan(
    runs: Sequence[Run],
    store: Store,
    settings: Settings,
    fingerprint: Fingerprint,
    *,
    fresh: bool = False,
    force: bool = False,
) -> list[Planned]:
    """The runs with their state in the store, whose files are listed once; those of the runs are read and checked.

    Args:
        runs: what is asked for; equal ones have one identity, and need to be made once.
        store: where the results are.
        settings: where and how they would be made.
        fingerprint: gives the hash of a run's data.
        fresh: count as done only what this code, torch, device and number of processes have done.
        force: make all of them, from the beginning.
    """
    device = torch.device(settings.devices[0])
    finished, begun = store.finished(), store.begun()

    @functools.cache
    def data_of(workload: str, data: str, options: str) -> str:
        config = next(
            run.config
            for run in runs
            if (run.config.workload, run.config.data, repr(run.config.data_options)) == (workload, data, options)
        )
        return fingerprint(config, settings.data_dir)

    planned: list[Planned] = []
    for run in runs:
        config = run.config
        data = data_of(config.workload, config.data, repr(config.data_options))
        identity = config.identity(data)
        here = environment.here(device, config.modules)
        mine = store.path(identity, here)
        files: list[Path] = []
        skipped: list[Skipped] = []
        own = False
        for path in finished.get(identity, ()):
            try:
                own |= environment.provenance(verified(path).environment) == here
                files.append(path)
            except StoreError as error:
                skipped.append(Skipped(path, str(error)))
        done = own if fresh else bool(files)
        state: Literal["done", "begun", "new"] = "done" if done else "begun" if identity in begun else "new"
        seen = frozenset(
            (path, path.stat().st_mtime_ns) for path in finished.get(identity, ()) if not fresh or path == mine
        )
        pattern = mine.name if fresh else f"{identity}*.jsonl"
        planned.append(Planned(run, data, identity, state, tuple(files), tuple(skipped), own, pattern, seen, force))
    return planned


def distinct(planned: Sequence[Planned]) -> list[Planned]:
    """Of several that are the same run, the first."""
    return list({one.identity: one for one in reversed(planned)}.values())[::-1]
