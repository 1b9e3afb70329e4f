"""Progress of a study: bars on a terminal, one line per finished run everywhere else."""

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

try:
    from tqdm import tqdm
except ImportError:  # a bare checkout on a machine without it still runs
    tqdm = None


class Progress:
    """Shows the runs of a study, `slots` of them at a time.

    Args:
        total: runs to go.
        slots: how many run side by side.
        say: gets the lines; None shows nothing at all.
    """

    def __init__(self, total: int, slots: int, say: Callable[[str], None] | None) -> None:
        self._say = say
        self._total = total
        self._finished = 0
        self._lock = threading.Lock()
        interactive = sys.stderr.isatty() and "CI" not in os.environ and os.environ.get("TERM") != "dumb"
        self._bars: list[Any] = []
        if tqdm is not None and interactive and say is not None and total:
            self._bars = [tqdm(total=total, desc="runs", unit="run", position=0)]
            self._bars += [tqdm(unit="epoch", position=1 + slot, leave=False) for slot in range(slots)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for bar in reversed(self._bars):
            bar.close()

    def start(self, slot: int, label: str, epochs: int) -> None:
        """A run begins, with no epoch behind it yet."""
        if self._bars:
            bar = self._bars[1 + slot]
            bar.reset(total=epochs)
            bar.set_postfix_str("", refresh=False)
            bar.set_description(label)

    def step(self, slot: int, done: int, total: int) -> None:
        """So many of the run's steps are done."""
        if self._bars:
            bar = self._bars[1 + slot]
            bar.update(round(bar.total * done / total, 2) - bar.n)

    def epoch(self, slot: int, number: int, note: str) -> None:
        """An epoch is done, or was restored."""
        if self._bars:
            bar = self._bars[1 + slot]
            bar.set_postfix_str(note, refresh=False)
            bar.n = number
            bar.refresh()

    def finish(self, label: str, note: str) -> None:
        """A run has ended."""
        with self._lock:
            self._finished += 1
            if self._bars:
                self._bars[0].update()
                return
            if self._say is not None:
                self._say(f"[{self._finished:{len(str(self._total))}}/{self._total}] {label}: {note}")
