"""Trains planned runs: in order, several side by side, within a time budget, beside other processes on one store."""

import collections
import dataclasses
import functools
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.base import distributed, environment
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Epoch, number
from benchmarks.base.store import Store, StoreError
from benchmarks.scheduling.claims import Claim, Claims
from benchmarks.scheduling.outcome import Outcome, Say, Stop
from benchmarks.scheduling.plan import Planned
from benchmarks.scheduling.progress import Progress
from benchmarks.scheduling.settings import Settings
from benchmarks.workloads import metrics

Train = Callable[..., list[Epoch] | None]
OnEpoch = Callable[[str, Epoch], None]
"""Called with the label of a run and the record of each of its epochs, those of a checkpoint included."""

# A device in this state refuses every further call of the process.
_LOST = ("device-side assert", "illegal memory access", "unspecified launch failure", "uncorrectable ECC error")


def execute(
    todo: Sequence[Planned],
    store: Store,
    settings: Settings,
    stop: Stop,
    train: Train,
    say: Say | None = print,
    on_epoch: OnEpoch | None = None,
) -> Outcome:
    """Train every planned run and store its records, until done or told to stop.

    A run that another process has claimed is passed over, and looked at again when nothing else is left. The processes
    of torchrun share each run: all of them are given the same runs, and the first one claims and stores them.

    Args:
        todo: the runs, in order.
        store: where the results go.
        settings: where and how to run.
        stop: asked after each step.
        train: `benchmarks.training.engine.train`, or what stands in for it.
        say: gets lines for people; None shows nothing.
        on_epoch: called from the threads that train.
    """
    slots = [device for device in settings.devices for _ in range(settings.jobs)][: max(1, len(todo))]
    shown = say if distributed.rank() == 0 else None
    threads_before = torch.get_num_threads()
    with Progress(len(todo), len(slots), shown) as progress, stop.on_signals():
        session = _Session(todo, store, settings, stop, train, progress, on_epoch)
        threads = [
            threading.Thread(target=session.work, args=(slot, torch.device(device)), daemon=True)
            for slot, device in enumerate(slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.2)
    torch.set_num_threads(threads_before)  # new threads would take over what the last one had
    outcome = session.outcome
    if shown is not None and session.claims.note is not None:
        shown(f"note: {session.claims.note}")
    outcome.interrupted = stop.interrupted
    if not outcome.broken:
        outcome.interrupted = distributed.anywhere(stop.interrupted, torch.device(settings.devices[0]))
    return outcome


@dataclasses.dataclass
class _Session:
    """What the threads of one call of `execute` share."""

    todo: dataclasses.InitVar[Sequence[Planned]]
    store: Store
    settings: Settings
    stop: Stop
    train: Train
    progress: Progress
    on_epoch: OnEpoch | None

    def __post_init__(self, todo: Sequence[Planned]) -> None:
        self.outcome = Outcome(len(todo))
        self.claims = Claims(self.store.root)
        self._waiting = collections.deque(todo)
        self._taken: collections.deque[Planned] = collections.deque()
        self._side_by_side = min(self.settings.jobs, max(1, len(todo)))

    def work(self, slot: int, device: torch.device) -> None:
        """Make one run after the other."""
        try:
            if self.settings.threads is not None:
                torch.set_num_threads(self.settings.threads)
            for planned in self._next(device):
                self._claimed(planned, slot, device)
        except Exception as error:  # not of one run: it would hit the next one as well
            self._give_up(error)

    def _next(self, device: torch.device) -> Iterator[Planned]:
        """The runs that wait, then once more those that others had claimed."""
        for waiting in (self._waiting, self._taken):
            while waiting:
                if self.outcome.broken or distributed.anywhere(self.stop(), device):
                    return
                try:
                    planned = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                if distributed.agreed(functools.partial(self.stop.leaves, planned.expected)):
                    yield planned

    def _claimed(self, planned: Planned, slot: int, device: torch.device) -> None:
        """Make a run, unless another process is making it or has just made it."""
        claim: Claim | None = None

        def take() -> str | bool:
            """Who has it, or whether it is still to be made."""
            nonlocal claim
            got = self.claims.begin(planned, self.store)
            if isinstance(got, str):
                return got
            claim = got
            return claim is not None

        label = planned.run.label
        try:
            state = distributed.agreed(take)
            if isinstance(state, str):
                if label not in self.outcome.others:
                    self._taken.append(planned)
                self.outcome.others[label] = state
                return
            self.outcome.others.pop(label, None)
            if state:
                self._one(planned, slot, device)
            else:
                self.outcome.finished.append(label)
                self.progress.finish(label, "made by another process")
        finally:
            if claim is not None:
                claim.release()

    def _one(self, planned: Planned, slot: int, device: torch.device) -> None:
        """Train one run and store it; an error ends this run, and all of them if it would hit every one."""
        run, config = planned.run, planned.run.config
        self.progress.start(slot, run.label, config.epochs)
        checkpoint = self.store.checkpoint(planned.identity)
        made: dict[str, Any] = {}  # by what the whole run is, where another version of the code began it

        def on_epoch(record: Epoch) -> None:
            self.progress.epoch(slot, record.epoch, note(config, [record]))
            if self.on_epoch is not None:
                self.on_epoch(run.label, record)

        try:
            if planned.anew and distributed.rank() == 0:
                checkpoint.unlink(missing_ok=True)
            records = self.train(
                config,
                data_dir=self.settings.data_dir,
                device=device,
                checkpoint=checkpoint,
                on_epoch=on_epoch,
                should_stop=self.stop,
                on_step=lambda done, total: self.progress.step(slot, done, total),
                on_resume=made.update,
            )
            if records is None:
                self.outcome.stopped.append(run.label)
                return
            if distributed.rank() == 0:
                where = described(device, config, self._side_by_side)
                self.store.write(config, planned.fingerprint, where | made, records)
            self.outcome.finished.append(run.label)
            self.progress.finish(run.label, note(config, records))
        except (StoreError, OSError) as error:
            self._give_up(error)
        except Exception as error:
            if any(sign in str(error) for sign in _LOST):
                self._give_up(error)
            self.outcome.failed[run.label] = failure(error)
            self.progress.finish(run.label, "failed")

    def _give_up(self, error: Exception) -> None:
        """End the session."""
        self.outcome.fatal = str(error) if isinstance(error, BenchmarkError | OSError) else failure(error)
        self.stop.now()


def described(device: torch.device, config: RunConfig, side_by_side: int) -> dict[str, Any]:
    """Where a run was made, as this thread has just made it, and how many shared the device."""
    return environment.describe(device, config.modules) | {"side_by_side": side_by_side}


def failure(error: Exception) -> str:
    """The message of an error that says itself what is wrong, else its traceback."""
    return str(error) if isinstance(error, BenchmarkError) else "".join(traceback.format_exception(error)).rstrip()


def note(config: RunConfig, records: Sequence[Epoch]) -> str:
    """The last record in a few words."""
    last = records[-1]
    if last.diverged:
        return f"diverged in epoch {last.epoch}"
    seconds = sum(number(record.time.train_s) for record in records)
    key = metrics.metric(config.workload)
    return f"{key} {metrics.score(last, config.workload):.2f}, {seconds:.1f} s"
