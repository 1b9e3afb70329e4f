"""What became of the runs asked for, and why and when to stop making them."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

from benchmarks.base import distributed

TOGETHER = 1.0  # seconds within which two signals are one request

Say = Callable[[str], None]
"""Gets a line for people."""


@dataclasses.dataclass
class Outcome:
    """What became of the runs asked for.

    Args:
        asked: how many there were to do.
        finished: labels of those that are stored now.
        stopped: labels of those that were stopped with their state saved.
        others: by label of those that another process was making when this one had nothing else to do, which that is.
        failed: by label of those that failed, the traceback; one line where the error says itself what is wrong.
        interrupted: whether somebody asked to stop.
        fatal: why nothing more could be run.
    """

    asked: int = 0
    finished: list[str] = dataclasses.field(default_factory=list)
    stopped: list[str] = dataclasses.field(default_factory=list)
    others: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    fatal: str | None = None

    @property
    def left(self) -> int:
        """How many are neither finished nor failed."""
        return self.asked - len(self.finished) - len(self.failed)

    @property
    def status(self) -> Literal["done", "failed", "stopped", "interrupted", "broken"]:
        """How it ended: ``"stopped"`` and ``"interrupted"`` runs go on when they are asked for again."""
        if self.fatal is not None:
            return "broken"
        if self.interrupted:
            return "interrupted"
        return "stopped" if self.left else "failed" if self.failed else "done"

    @property
    def broken(self) -> bool:
        """Whether nothing more can be run: no disk to write to, or an error while others wait for this process."""
        return self.fatal is not None or (distributed.active() and bool(self.failed))

    def add(self, other: "Outcome") -> None:
        """Count what became of further runs."""
        self.asked += other.asked
        self.finished += other.finished
        self.stopped += other.stopped
        self.others |= other.others
        self.failed |= other.failed
        self.interrupted |= other.interrupted
        self.fatal = self.fatal or other.fatal


class Stop:
    """Why and when to stop: a signal, the budget, or an error that would hit every run.

    Args:
        budget: seconds from now; None for no limit.
        say: told that a signal came; None keeps quiet.
    """

    def __init__(self, budget: float | None, say: Say | None = None) -> None:
        self._event = threading.Event()
        self._say = say
        self.deadline = None if budget is None else time.time() + budget
        self.interrupted = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._event.is_set() or (self.deadline is not None and time.time() >= self.deadline)

    def leaves(self, seconds: float | None) -> bool:
        """Whether the budget leaves so much time; yes where the time is unknown or without a limit."""
        return seconds is None or self.deadline is None or time.time() + seconds <= self.deadline

    def now(self) -> None:
        """Stop at the next opportunity."""
        self._event.set()

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop, the budget aside."""
        return self._event.is_set()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Stop on Ctrl-C and on a polite kill; a second one ends the process at once. In the main thread alone.

        What comes within a second is one: `timeout` and some schedulers signal a process and, besides, its whole group.
        Under torchrun it does not: torchrun passes on to its processes what the terminal has sent them already, and
        kills those that do not end within half a minute.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        first = 0.0

        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal first
            if self.interrupted:
                if distributed.active() or time.monotonic() < first + TOGETHER:
                    return
                raise KeyboardInterrupt
            first, self.interrupted = time.monotonic(), True
            self.now()
            if self._say is not None:
                self._say("\nstopping: the state of running runs is being saved (again to stop at once)")

        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
