"""Which result of a run counts where several are stored: of other code, torch or device."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from benchmarks.base.store import Result

Key = TypeVar("Key", bound=Hashable)


def preferred(runs: Mapping[Key, Sequence[Result]], wanted: Collection[Key] = ()) -> dict[Key, Result]:
    """One result of each run: all of them by the provenance that made most of the runs, as far as it goes.

    Then come the provenance that made the next most, and so on; of two that made as many, that of the newest file.

    Args:
        runs: what is stored of each, at least one result.
        wanted: runs that count before all others when provenances are compared.
    """
    made = {key: [result.provenance.common for result in results] for key, results in runs.items()}
    order = ranked(made, runs, wanted)
    place = {provenance: i for i, provenance in enumerate(order)}
    return {
        key: min(results, key=lambda result: (place[result.provenance.common], -_written(result)))
        for key, results in runs.items()
    }


Value = TypeVar("Value", bound=Hashable)


def ranked(
    values: Mapping[Key, Sequence[Value]], runs: Mapping[Key, Sequence[Result]], wanted: Collection[Key] = ()
) -> list[Value]:
    """What the results of some runs differ in, that of most runs first, and of equally many that of the newest file.

    Args:
        values: by run, that of each of its results.
        runs: the results.
        wanted: runs that count before all others.
    """
    asked, all_, newest = Counter[Value](), Counter[Value](), dict[Value, float]()
    for key, found in values.items():
        for value, result in zip(found, runs[key], strict=True):
            newest[value] = max(newest.get(value, 0.0), _written(result))
        all_.update(set(found))
        asked.update(set(found) if key in wanted else ())
    return sorted(newest, key=lambda value: (asked[value], all_[value], newest[value]), reverse=True)


def _written(result: Result) -> float:
    """When its file was written; long ago if it is gone."""
    try:
        return result.path.stat().st_mtime
    except OSError:
        return 0.0
