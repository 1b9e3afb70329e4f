"""A report that follows runs in progress: written anew whenever the store has changed, until the studies are done."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.base.store import Store
from benchmarks.report import write
from benchmarks.report.results import collect_all
from benchmarks.studies.study import Study


def watch(
    studies: Sequence[Study],
    store: Store,
    directory: Path,
    every: int,
    say: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """Keep a report up to date; a browser reads the page again by itself.

    Args:
        studies: what to report on.
        store: where the results are, and the checkpoints of the runs in progress.
        directory: where the report goes.
        every: seconds between two looks at the store, at least 1.
        say: gets a line whenever the report has been written.
        wait: passes the time.

    Returns:
        The page's path, once no run of the studies is missing.
    """
    seen = None
    while True:
        now = _state(store)
        if now != seen:
            seen = now
            missing = sum(report.missing for report in collect_all(studies, store))
            path, _ = write(studies, store, directory, refresh=every if missing else 0)
            say(f"{time.strftime('%H:%M:%S')} {f'{missing} runs to come' if missing else 'complete'}: {path.resolve()}")
            if not missing:
                return path
        wait(every)


def _state(store: Store) -> frozenset[tuple[str, int]]:
    """What changes when a run makes progress."""
    found = set()
    for path in (*store.root.glob("*.jsonl"), *store.root.glob("checkpoints/*.pt")):
        try:
            found.add((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:  # finished in this moment
            continue
    return frozenset(found)
