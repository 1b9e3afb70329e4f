"""Spreads a study over a Ray cluster, one run per device; the results land in the store of the machine that asked."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import environment
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Epoch
from benchmarks.base.store import Store, StoreError
from benchmarks.scheduling.progress import Progress
from benchmarks.scheduling.runner import Outcome, Planned, Settings, Stop, Train, note


class ClusterError(BenchmarkError, RuntimeError):
    """Ray is not installed, or its cluster cannot be reached."""


def execute(todo: Sequence[Planned], store: Store, settings: Settings, stop: Stop, train: Train) -> Outcome:
    """`benchmarks.scheduling.runner.execute` on the cluster at `settings.ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--ray needs Ray: pip install 'partial-adaptive[ray]'") from error
    store.prepare()
    workers = len(settings.devices) * settings.jobs
    cuda = settings.devices[0].startswith("cuda")
    code = [str(environment.ROOT / package) for package in ("benchmarks", "partial_adaptive")]
    local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            **(local if settings.ray == "local" else {"address": settings.ray}),
            runtime_env={"py_modules": code},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"cannot reach a Ray cluster at {settings.ray!r}: {error}") from error
    outcome = Outcome()
    try:
        task = ray.remote(num_cpus=1, num_gpus=1 if cuda else 0, max_retries=0)(_train)
        with Progress(len(todo), 0) as progress, stop.on_signals():
            pending = {
                task.remote(
                    train,
                    planned.run.config,
                    settings.data_dir.resolve(),
                    "cuda" if cuda else "cpu",
                    store.checkpoint(planned.identity).resolve(),
                    stop.deadline,
                    settings.threads,
                ): planned
                for planned in todo
            }
            while pending:
                ready, _ = ray.wait(list(pending), timeout=0.5)
                for reference in ready:
                    planned = pending.pop(reference)
                    _collect(ray, reference, planned, store, stop, progress, outcome)
                if stop.requested:
                    for reference in pending:
                        ray.cancel(reference)
                    outcome.stopped.extend(planned.run.label for planned in pending.values())
                    break
    finally:
        ray.shutdown()
    outcome.interrupted = stop.interrupted
    return outcome


def _collect(
    ray: Any, reference: Any, planned: Planned, store: Store, stop: Stop, progress: Progress, outcome: Outcome
) -> None:
    """Store what a task returned."""
    label = planned.run.label
    try:
        records, where = ray.get(reference)
        if records is None:
            outcome.stopped.append(label)
            return
        store.write(planned.run.config, planned.fingerprint, where, records)
        outcome.finished.append(label)
        progress.finish(label, note(planned.run.config, records))
    except StoreError as error:
        outcome.fatal = str(error)
        stop.now()
    except ray.exceptions.RayError as error:
        outcome.failed[label] = str(error)
        progress.finish(label, "failed")


def _train(
    train: Train,
    config: RunConfig,
    data_dir: Path,
    device: str,
    checkpoint: Path,
    deadline: float | None,
    threads: int | None,
) -> tuple[list[Epoch] | None, dict[str, Any]]:
    """One run, in a worker: its records, and where they were made."""
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def late() -> bool:
        return deadline is not None and time.time() >= deadline

    where = environment.describe(torch.device(device))
    if late():
        return None, where
    records = train(config, data_dir=data_dir, device=torch.device(device), checkpoint=checkpoint, should_stop=late)
    return records, where
