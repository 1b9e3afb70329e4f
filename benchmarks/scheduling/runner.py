"""Runs what is missing of a study: in order, within a time budget, several side by side, on this machine or on Ray."""

import contextlib
import dataclasses
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

import torch

from benchmarks.base import distributed, environment
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Epoch, number
from benchmarks.base.store import Result, Store, StoreError, read
from benchmarks.scheduling.progress import Progress
from benchmarks.studies.study import Run
from benchmarks.workloads import metrics

Train = Callable[..., list[Epoch] | None]


class SettingsError(BenchmarkError, ValueError):
    """A device that does not exist, or several where one is needed."""


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

    data_dir: Path = Path("data")
    devices: tuple[str, ...] = ("cpu",)
    jobs: int = 1
    threads: int | None = None
    budget: float | None = None
    ray: str | None = None


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run with its name in the store, and what there is of it.

    Args:
        run: the run.
        fingerprint: hash of its data.
        identity: its name in the store.
        state: whether it is done, begun or new.
        files: where it lies if it is done: several if other code or another machine did it as well.
        own: whether one of them was made by this code, torch, device and number of processes.
    """

    run: Run
    fingerprint: str
    identity: str
    state: Literal["done", "begun", "new"]
    files: tuple[Path, ...] = ()
    own: bool = False

    def result(self) -> Result | None:
        """What came out, if it is done: the latest of several."""
        return read(max(self.files, key=lambda path: path.stat().st_mtime)) if self.files else None


@dataclasses.dataclass
class Outcome:
    """What became of the runs asked for.

    Args:
        asked: how many there were to do.
        finished: labels of those that are stored now.
        stopped: labels of those that were stopped with their state saved.
        failed: by label of those that failed, the traceback.
        interrupted: whether somebody asked to stop.
        fatal: why nothing more could be run.
    """

    asked: int = 0
    finished: list[str] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    fatal: str | None = None

    @property
    def left(self) -> int:
        """How many are neither finished nor failed."""
        return self.asked - len(self.finished) - len(self.failed)

    @property
    def status(self) -> Literal["done", "failed", "stopped", "interrupted"]:
        """How it ended: ``"stopped"`` and ``"interrupted"`` runs go on when they are asked for again."""
        if self.interrupted:
            return "interrupted"
        return "stopped" if self.left else "failed" if self.failed else "done"

    @property
    def broken(self) -> bool:
        """Whether nothing more can be run: no disk to write to, or an error while others wait for this process."""
        return self.fatal is not None or (distributed.active() and bool(self.failed))

    def add(self, other: "Outcome") -> None:
        """Count what became of further runs; `other` has no `asked` of its own."""
        self.finished += other.finished
        self.stopped += other.stopped
        self.failed |= other.failed
        self.interrupted |= other.interrupted
        self.fatal = self.fatal or other.fatal


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


def plan(
    runs: Sequence[Run],
    store: Store,
    settings: Settings,
    fingerprint: Callable[[RunConfig, Path], str],
    *,
    fresh: bool = False,
) -> list[Planned]:
    """The runs with their state in the store.

    Args:
        runs: what is asked for; equal ones have one identity, and need to be made once.
        store: where the results are.
        settings: where and how they would be made.
        fingerprint: gives the hash of a run's data.
        fresh: count as done only what this code, torch, device and number of processes have done.
    """
    device = torch.device(settings.devices[0])
    finished = store.finished()
    begun = store.begun()
    planned: list[Planned] = []
    for run in runs:
        data = fingerprint(run.config, settings.data_dir)
        identity = run.config.identity(data)
        files = tuple(finished.get(identity, ()))
        here = environment.here(device, run.config.modules)
        own = store.path(identity, here) in files
        done = own if fresh else bool(files)
        state: Literal["done", "begun", "new"] = "done" if done else "begun" if identity in begun else "new"
        planned.append(Planned(run, data, identity, state, files, own))
    return planned


def distinct(planned: Sequence[Planned]) -> list[Planned]:
    """Of several that are the same run, the first."""
    return list({one.identity: one for one in reversed(planned)}.values())[::-1]


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
            on_epoch=lambda record: progress.epoch(slot, record.epoch, note(run.config, [record])),
            should_stop=stop,
            on_step=lambda done, total: progress.step(slot, done, total),
        )
        if records is None:
            outcome.stopped.append(run.label)
            return
        if distributed.rank() == 0:
            store.write(run.config, planned.fingerprint, environment.describe(device, run.config.modules), records)
        outcome.finished.append(run.label)
        progress.finish(run.label, note(run.config, records))
    except (StoreError, OSError) as error:
        outcome.fatal = str(error)
        stop.now()
    except Exception:
        outcome.failed[run.label] = traceback.format_exc()
        progress.finish(run.label, "failed")


def note(config: RunConfig, records: Sequence[Epoch]) -> str:
    """The last record in a few words."""
    last = records[-1]
    if last.diverged:
        return f"diverged in epoch {last.epoch}"
    seconds = sum(number(record.time.train_s) for record in records)
    key = metrics.metric(config.workload)
    return f"{key} {metrics.score(last, config.workload):.2f}, {seconds:.1f} s"


def devices(names: Sequence[str] | None) -> tuple[str, ...]:
    """The devices of these names, or the best that there is."""
    if names is None:
        return ("cuda",) if torch.cuda.is_available() else ("cpu",)
    for name in names:
        try:
            kind = torch.device(name).type
        except RuntimeError as error:
            raise SettingsError(f"--device: unknown device {name!r}: cpu, cuda or cuda:N") from error
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise SettingsError(f"--device: {name!r} is not available here")
    return tuple(names)


def one_device(names: Sequence[str] | None, threads: int | None = None) -> torch.device:
    """The one device that time is measured on, with so many CPU threads from now on."""
    found = devices(names)
    if len(found) > 1:
        raise SettingsError(f"--device {','.join(found)}: time is measured on one device")
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.device(found[0])
