"""Spreads a study over a Ray cluster, one run per device; the results land in the store of the machine that asked."""

import collections
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import environment, references
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Epoch
from benchmarks.base.store import Store, StoreError
from benchmarks.scheduling.claims import Claim, Claims
from benchmarks.scheduling.outcome import Outcome, Say, Stop
from benchmarks.scheduling.plan import Planned
from benchmarks.scheduling.progress import Progress
from benchmarks.scheduling.runner import OnEpoch, Train, described, failure, note
from benchmarks.scheduling.settings import Settings

AHEAD = 2  # tasks for each device of the cluster that wait there or run: enough that none is idle


class ClusterError(BenchmarkError, RuntimeError):
    """Ray is not installed, or its cluster cannot be reached."""


def execute(
    todo: Sequence[Planned],
    store: Store,
    settings: Settings,
    stop: Stop,
    train: Train,
    say: Say | None = print,
    on_epoch: OnEpoch | None = None,
) -> Outcome:
    """`benchmarks.scheduling.runner.execute` on the cluster at `settings.ray`; `on_epoch` is called at a run's end."""
    store.prepare()
    cuda = settings.devices[0].startswith("cuda")
    with _cluster(settings) as ray, Progress(len(todo), 0, say) as progress, stop.on_signals():
        workers = int(ray.cluster_resources().get("GPU" if cuda else "CPU", 1))
        task = ray.remote(num_cpus=1, num_gpus=1 if cuda else 0, max_retries=0)(_train)
        driver = _Driver(ray, task, store, settings, stop, train, progress, on_epoch)
        driver.make(todo, AHEAD * max(1, workers))
    if say is not None and driver.claims.note is not None:
        say(f"note: {driver.claims.note}")
    driver.outcome.interrupted = stop.interrupted
    return driver.outcome


@contextlib.contextmanager
def _cluster(settings: Settings) -> Iterator[Any]:
    """The module `ray`, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--ray needs Ray: pip install 'partial-adaptive[ray]'") from error
    code = [str(environment.ROOT / package) for package in ("benchmarks", "partial_adaptive")]
    local: dict[str, Any] = {"num_cpus": len(settings.devices) * settings.jobs, "include_dashboard": False}
    try:
        ray.init(
            **(local if settings.ray == "local" else {"address": settings.ray}),
            runtime_env={"py_modules": code, "env_vars": references.environment()},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"cannot reach a Ray cluster at {settings.ray!r}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


class _Driver:
    """Hands out claimed runs and stores what comes back."""

    def __init__(
        self,
        ray: Any,
        task: Any,
        store: Store,
        settings: Settings,
        stop: Stop,
        train: Train,
        progress: Progress,
        on_epoch: OnEpoch | None,
    ) -> None:
        self.outcome = Outcome()
        self.claims = Claims(store.root)
        self._ray, self._task, self._train = ray, task, train
        self._store, self._settings, self._stop = store, settings, stop
        self._progress, self._on_epoch = progress, on_epoch
        self._pending: dict[Any, tuple[Planned, Claim]] = {}

    def make(self, todo: Sequence[Planned], ahead: int) -> None:
        """Make the runs, so many at a time; those that others have claimed are looked at again at the end."""
        self.outcome.asked = len(todo)
        taken: collections.deque[Planned] = collections.deque()
        for waiting in (collections.deque(todo), taken):
            while (waiting or self._pending) and not self._stop():
                while waiting and len(self._pending) < ahead:
                    planned = waiting.popleft()
                    if self._stop.leaves(planned.expected) and not self._submit(planned) and waiting is not taken:
                        taken.append(planned)
                for reference in self._ray.wait(list(self._pending), timeout=0.5)[0] if self._pending else ():
                    planned, claim = self._pending.pop(reference)
                    with claim:
                        self._collect(reference, planned)
        self._drain()

    def _drain(self) -> None:
        """Stop what still runs: at once if somebody asked for it; at the end of the budget the workers do it."""
        while self._pending and not self._stop.requested:
            for reference in self._ray.wait(list(self._pending), timeout=0.5)[0]:
                planned, claim = self._pending.pop(reference)
                with claim:
                    self._collect(reference, planned)
        for reference, (planned, claim) in self._pending.items():
            self._ray.cancel(reference)
            self.outcome.stopped.append(planned.run.label)
            claim.release()

    def _submit(self, planned: Planned) -> bool:
        """Hand out a run; False if another process has claimed it."""
        label = planned.run.label
        claim = self.claims.begin(planned, self._store)
        if isinstance(claim, str):
            self.outcome.others[label] = claim
            return False
        self.outcome.others.pop(label, None)
        if claim is None:
            self.outcome.finished.append(label)
            self._progress.finish(label, "made by another process")
            return True
        checkpoint = self._store.checkpoint(planned.identity)
        if planned.anew:
            checkpoint.unlink(missing_ok=True)
        settings = self._settings
        reference = self._task.remote(
            self._train,
            planned.run.config,
            settings.data_dir.resolve(),
            "cuda" if settings.devices[0].startswith("cuda") else "cpu",
            checkpoint.resolve(),
            self._stop.deadline,
            settings.threads,
            settings.jobs,
        )
        self._pending[reference] = planned, claim
        return True

    def _collect(self, reference: Any, planned: Planned) -> None:
        """Store what a task returned."""
        label, config, outcome = planned.run.label, planned.run.config, self.outcome
        try:
            records, where = self._ray.get(reference)
            if records is None:
                outcome.stopped.append(label)
                return
            self._store.write(config, planned.fingerprint, where, records)
            outcome.finished.append(label)
            if self._on_epoch is not None:
                for record in records:
                    self._on_epoch(label, record)
            self._progress.finish(label, note(config, records))
        except StoreError as error:
            outcome.fatal = str(error)
            self._stop.now()
        except self._ray.exceptions.RayError as error:
            outcome.failed[label] = failure(getattr(error, "cause", None) or error)
            self._progress.finish(label, "failed")


def _train(
    train: Train,
    config: RunConfig,
    data_dir: Path,
    device: str,
    checkpoint: Path,
    deadline: float | None,
    threads: int | None,
    side_by_side: int,
) -> tuple[list[Epoch] | None, dict[str, Any]]:
    """One run, in a worker: its records, and where they were made."""
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def late() -> bool:
        return deadline is not None and time.time() >= deadline

    where = described(torch.device(device), config, side_by_side)
    if late():
        return None, where
    made: dict[str, Any] = {}
    records = train(
        config,
        data_dir=data_dir,
        device=torch.device(device),
        checkpoint=checkpoint,
        should_stop=late,
        on_resume=made.update,
    )
    return records, where | made
