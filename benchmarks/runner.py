"""Runs what is missing of a study: in order, within a time budget, several side by side, on this machine or on Ray."""

import contextlib
import dataclasses
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from benchmarks import distributed, environment, metrics
from benchmarks.config import RunConfig
from benchmarks.progress import Progress
from benchmarks.store import Store, StoreError
from benchmarks.study import Run

Train = Callable[..., list[dict[str, Any]] | None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run, none of which changes a result on the CPU.

    Args:
        data_dir: where the data sets lie.
        devices: the devices to use, e.g. ``("cuda:0", "cuda:1")``.
        jobs: runs side by side on each of them.
        threads: CPU threads of each run; None leaves torch's choice.
        budget: seconds after which to stop; None for no limit.
        ray: address of a Ray cluster, ``"local"`` for one of this machine's own, None for no Ray.
    """

    data_dir: Path
    devices: tuple[str, ...] = ("cpu",)
    jobs: int = 1
    threads: int | None = None
    budget: float | None = None
    ray: str | None = None


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run with its name in the store, and whether it is done, begun or new."""

    run: Run
    fingerprint: str
    identity: str
    state: Literal["done", "begun", "new"]


@dataclasses.dataclass
class Outcome:
    """What became of a plan: labels of the runs finished, stopped with their state saved, never started, or failed."""

    finished: list[str] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    fatal: str | None = None

    @property
    def broken(self) -> bool:
        """Whether nothing more can be run: no disk to write to, or an error while others wait for this process."""
        return self.fatal is not None or (distributed.active() and bool(self.failed))


class Stop:
    """Why and when to stop: a signal, the budget, or an error that would hit every run."""

    def __init__(self, budget: float | None) -> None:
        self._event = threading.Event()
        self.deadline = None if budget is None else time.time() + budget
        self.interrupted = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._event.is_set() or (self.deadline is not None and time.time() >= self.deadline)

    def now(self) -> None:
        """Stop at the next opportunity."""
        self._event.set()

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop, the budget aside."""
        return self._event.is_set()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Stop on Ctrl-C and on a polite kill; a second one ends the process at once.

        Under torchrun it does not: torchrun passes on to its processes what the terminal has sent them already, and
        kills those that do not end within half a minute.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                if distributed.active():
                    return
                raise KeyboardInterrupt
            self.interrupted = True
            self.now()
            print("\nstopping: the state of running runs is being saved (again to stop at once)", flush=True)

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def plan(runs: Sequence[Run], store: Store, data_dir: Path, fingerprint: Callable[[str, Path], str]) -> list[Planned]:
    """The runs with their state in the store; of several that are the same run, the first."""
    prints: dict[str, str] = {}
    planned: dict[str, Planned] = {}
    for run in runs:
        workload = run.config.workload
        if workload not in prints:
            prints[workload] = fingerprint(workload, data_dir)
        identity = run.config.identity(prints[workload])
        begun = store.checkpoint(identity).is_file()
        state: Literal["done", "begun", "new"] = "done" if store.has(identity) else "begun" if begun else "new"
        planned.setdefault(identity, Planned(run, prints[workload], identity, state))
    return list(planned.values())


def execute(todo: Sequence[Planned], store: Store, settings: Settings, stop: Stop, train: Train) -> Outcome:
    """Train every planned run and store its records, until done or told to stop.

    The processes of torchrun share each run: all of them are given the same runs, and the first one stores them.
    """
    outcome = Outcome()
    waiting: queue.SimpleQueue[Planned] = queue.SimpleQueue()
    for planned in todo:
        waiting.put(planned)
    slots = [device for device in settings.devices for _ in range(settings.jobs)][: max(1, len(todo))]
    with Progress(len(todo), len(slots), shown=distributed.rank() == 0) as progress, stop.on_signals():

        def work(slot: int, device: torch.device) -> None:
            if settings.threads is not None:
                torch.set_num_threads(settings.threads)
            while not outcome.broken and not distributed.anywhere(stop(), device):
                try:
                    planned = waiting.get_nowait()
                except queue.Empty:
                    return
                _one(planned, slot, device, store, settings.data_dir, stop, train, progress, outcome)

        threads = [
            threading.Thread(target=work, args=(slot, torch.device(device)), daemon=True)
            for slot, device in enumerate(slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.2)
    outcome.interrupted = stop.interrupted
    if not outcome.broken:
        outcome.interrupted = distributed.anywhere(stop.interrupted, torch.device(settings.devices[0]))
    return outcome


def _one(
    planned: Planned,
    slot: int,
    device: torch.device,
    store: Store,
    data_dir: Path,
    stop: Stop,
    train: Train,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """Train one run and store it; an error ends this run, and all of them if it is the disk's."""
    run = planned.run
    progress.start(slot, run.label, run.config.epochs)
    try:
        records = train(
            run.config,
            data_dir=data_dir,
            device=device,
            checkpoint=store.checkpoint(planned.identity),
            on_epoch=lambda record: progress.epoch(slot, record["epoch"], note(run.config, [record])),
            should_stop=stop,
            on_step=lambda done, total: progress.step(slot, done, total),
        )
        if records is None:
            outcome.stopped.append(run.label)
            return
        if distributed.rank() == 0:
            store.write(run.config, planned.fingerprint, environment.describe(device), records)
        outcome.finished.append(run.label)
        progress.finish(run.label, note(run.config, records))
    except (StoreError, OSError) as error:
        outcome.fatal = str(error)
        stop.now()
    except Exception:
        outcome.failed[run.label] = traceback.format_exc()
        progress.finish(run.label, "failed")


def note(config: RunConfig, records: Sequence[Mapping[str, Any]]) -> str:
    """The last record in a few words."""
    last = records[-1]
    if last.get("diverged"):
        return f"diverged in epoch {last['epoch']}"
    seconds = sum(metrics.number(record, "time", "train_s") for record in records)
    key = metrics.metric(config.workload)
    return f"{key} {metrics.score(last, config.workload):.2f}, {seconds:.1f} s"
