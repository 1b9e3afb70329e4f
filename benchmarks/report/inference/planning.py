"""How many seeds a study needs: by the spread of what has been run, and the comparisons it makes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.base.config import unseeded
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.store import Result, Store
from benchmarks.report.inference.power import POWER, seeds_needed, smallest_detectable
from benchmarks.report.inference.statistics import pooled_sd
from benchmarks.report.results import Index
from benchmarks.studies.study import Study
from benchmarks.workloads import metrics


class PlanningError(BenchmarkError, ValueError):
    """A plan that cannot be made: no spread is known, or a number is out of range."""


class Spread(NamedTuple):
    """A standard deviation over seeds, and how it is known."""

    sd: float
    source: str


def plan(study: Study, store: Store, difference: float, sd: float | None = None) -> list[str]:
    """What to say about the seeds of a study: how many a difference needs, and what those that it has can find.

    The spread is that of the study's own arms, pooled, else that of other runs of the same workload in the store.

    Args:
        study: what is to be compared.
        store: where finished runs may be.
        difference: of the expected final scores, above 0, in units of the workload's metric.
        sd: standard deviation over seeds, above 0, in place of what the store has.

    Raises:
        PlanningError: no spread is known or given, or the difference is out of range.
    """
    scan = ([], []) if sd is not None else store.scan()
    index = None if sd is not None else Index(scan)
    lines = []
    for subject in study.subjects:
        arms = [arm for arm in study.arms if arm.config.subject == subject]
        entries = {arm.group for arm in arms} if study.tuning else {arm.label for arm in arms}
        comparisons = max(1, len(entries) - 1)
        workload = arms[0].config.workload
        if index is None:
            spread = Spread(float(sd or 0), "as given")
        else:
            final = [dataclasses.replace(arm, config=arm.refit or arm.config) for arm in arms]
            groups = [one.finals for one in index.series(final)]
            spread = _spread(groups, scan[0], workload)
        try:
            needed = seeds_needed(difference, spread.sd, comparisons)
        except ValueError as error:
            raise PlanningError(f"{subject}: {error}") from error
        n = len(study.seeds)
        found = smallest_detectable((spread.sd, spread.sd), (n, n), comparisons)
        where = f"{subject}, {metrics.title(workload)}"
        lines.append(
            f"{where}: {comparisons} comparison{'s' * (comparisons > 1)}, sd {spread.sd:.3g} ({spread.source})"
        )
        lines.append(f"  a difference of {difference:g} needs {needed} seeds an arm")
        least, most = metrics.bounds(workload)
        told = f"a difference of {found:.3g} is found" if found <= most - least else "no difference is found"
        lines.append(f"  with the study's {n} seed{'s' * (n > 1)} {told}")
    lines.append(
        f"found: with a probability of {POWER}, by Welch's test at the level of Holm's first step, however many of the "
        "other differences are there"
    )
    return lines


def _spread(groups: Sequence[Sequence[float]], results: Sequence[Result], workload: str) -> Spread:
    """The pooled standard deviation of a study's arms, or else of all arms that the store has of its workload."""
    own = pooled_sd(groups)
    if own > 0:
        count = sum(len(group) > 1 for group in groups)
        return Spread(own, f"of {count} of its own arms, pooled")
    others: dict[str, list[float]] = {}
    for result in results:
        if result.config["workload"] == workload and result.epochs and not result.diverged:
            key = unseeded(result.config) + result.fingerprint + result.provenance.key
            others.setdefault(key, []).append(metrics.score(result.epochs[-1], workload))
    known = [[score for score in scores if not math.isnan(score)] for scores in others.values()]
    sd = pooled_sd(known)
    if not sd > 0:
        raise PlanningError(
            f"no two finished runs of {workload} differ in their seeds alone, so their spread is not known: give --sd"
        )
    return Spread(sd, f"of {sum(len(group) > 1 for group in known)} other arms of {workload}, pooled")
