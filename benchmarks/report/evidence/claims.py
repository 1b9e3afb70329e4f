"""The paper's claims, each asked of every workload on record."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.report.evidence import scores
from benchmarks.report.evidence.documented import Documented
from benchmarks.report.evidence.studied import Study
from benchmarks.report.inference import family
from benchmarks.report.results import Series
from benchmarks.report.sections.verdicts import word_of
from benchmarks.workloads import metrics

PADAM = 1 / 8
READINGS = ("running", "recalibrated")
"""The statistics of batch norm that a test can go by."""
_EARLY = 4  # one in so many epochs, the first ones


class Pair(NamedTuple):
    """Two arms, of which the claim says that the first is better.

    Args:
        first: one of them.
        second: the other.
        epoch: after which they are compared; -1: the last.
        statistics: of batch norm, one of `READINGS`.
    """

    first: Series
    second: Series
    epoch: int = -1
    statistics: str = READINGS[0]

    def scores(self) -> tuple[list[float], list[float]]:
        """Those of the runs that did not diverge."""
        first, second = (one.scores(self.epoch, self.statistics) for one in self[:2])
        return [*first.values()], [*second.values()]

    def shown(self) -> tuple[str, str, str]:
        """The mean of each with its interval and what diverged, and the difference."""
        when = self.epoch, self.statistics
        first, second = (scores.shown(one, *when) for one in self[:2])
        return first, second, scores.difference(*(scores.summary(one, *when) for one in self[:2]))


def early(epochs: int) -> int:
    """The last of the epochs that are called early, of so many in all."""
    return max(1, epochs // _EARLY)


class Sides:
    """The arms of a study of p that the paper speaks of, in pairs of which it says that the first is better."""

    def __init__(self, study: Study) -> None:
        exponents = {entry.p: entry.series for entry in study.entries if entry.has_exponent}
        self.padam = exponents.pop(PADAM)
        self.others = [*exponents.values()]
        self.baselines = {optimizer: entry.series for optimizer, entry in study.baselines.items()}

    def over(self, baseline: str) -> Iterator[Pair]:
        """Of p = 1/8 and this one, at the end."""
        yield Pair(self.padam, self.baselines[baseline])

    def early_over(self, baseline: str) -> Iterator[Pair]:
        """Of p = 1/8 and this one, early, by both statistics of batch norm where both were recorded."""
        config = self.padam.arm.config
        for statistics in READINGS if config.recalibrate else READINGS[:1]:
            yield Pair(self.padam, self.baselines[baseline], early(config.epochs), statistics)

    def best(self) -> Iterator[Pair]:
        """Of p = 1/8 and each other exponent, at the end."""
        return (Pair(self.padam, other) for other in self.others)

    def gap(self) -> Iterator[Pair]:
        """Of SGD and Adam, at the end."""
        yield Pair(self.baselines["sgd"], self.baselines["adam"])


CLAIMS: Mapping[str, Callable[[Sides], Iterator[Pair]]] = {
    "Adam generalizes worse than SGD": Sides.gap,
    "p = 1/8 generalizes as well as SGD": lambda sides: sides.over("sgd"),
    "p = 1/8 beats AdamW": lambda sides: sides.over("adamw"),
    "p = 1/8 is the best p": Sides.best,
    "p = 1/8 is faster than SGD early": lambda sides: sides.early_over("sgd"),
    "p = 1/8 is as fast as Adam early": lambda sides: sides.early_over("adam"),
}
WORDS = {"worse": "not confirmed", "better": "confirmed"}  # any other: undecided
ORDER = ("not confirmed", "undecided", "confirmed")  # a claim has the first of these words that one of its pairs has


class Told(NamedTuple):
    """What is said of a pair.

    Args:
        pair: the two.
        lead: by how much the first is better.
        word: one of `ORDER`.
    """

    pair: Pair
    lead: float
    word: str


def table(found: Sequence[Study]) -> Documented:
    """Every claim on every workload; all comparisons of a workload are one family."""
    rows: dict[str, list[tuple[str, ...]]] = {claim: [] for claim in CLAIMS}
    for study in found:
        if not study.question:
            for (claim, _), told in answers(Sides(study)).items():
                rows[claim].append((claim, study.workload, *_row(told)))
    note = (
        "Confirmed: the first is better than the second, not confirmed: it is worse; of several seconds the one that "
        'speaks most against the claim is shown. Nothing is confirmed by being undecided, an "as well as" neither. '
        f"Early is after 1/{_EARLY} of the epochs, at least one. Each at the learning rate that was best for it at the "
        "end, on the held-out part. The chance of any wrong verdict on a workload is at most "
        f"{100 * family.ALPHA:g} %."
    )
    header = ("claim", "workload", "after epoch", "first", "second", "difference", "verdict")
    return Documented(header, [row for some in rows.values() for row in some], note)


def tally(found: Sequence[Study]) -> Documented:
    """On how many workloads each claim is what, as the table of claims has it."""
    asked = [answers(Sides(study)) for study in found if not study.question]
    rows = []
    for claim in CLAIMS if asked else ():
        words = [
            _weakest(one for (name, _), some in said.items() if name == claim for one in some).word for said in asked
        ]
        rows.append((claim, *(str(words.count(word)) for word in reversed(ORDER))))
    note = (
        f"On how many of {len(asked)} workloads each is what, by the table below. Where batch norm is asked twice, the "
        "one that speaks more against the claim counts."
    )
    return Documented(("claim", *reversed(ORDER)), rows, note)


def answers(sides: Sides) -> dict[tuple[str, str], list[Told]]:
    """What is said of the pairs of each claim, by claim and statistics of batch norm."""
    asked = [(claim, pair) for claim, pairs in CLAIMS.items() for pair in pairs(sides)]
    found: dict[tuple[str, str], list[Told]] = {}
    for (claim, pair), told in zip(asked, judged([pair for _, pair in asked]), strict=True):
        found.setdefault((claim, pair.statistics), []).append(told)
    return found


def judged(pairs: Sequence[Pair]) -> list[Told]:
    """What is said of each pair, all in one family."""
    found = family.judge_pairs([pair.scores() for pair in pairs])
    told = []
    for pair, decided, difference in zip(pairs, found.decided, found.difference.tolist(), strict=True):
        word = word_of(pair.first, pair.second, difference, decided=bool(decided))
        lead = metrics.sign(pair.first.arm.config.workload) * difference
        told.append(Told(pair, lead, WORDS.get(word, "undecided")))
    return told


def _row(some: Sequence[Told]) -> tuple[str, ...]:
    pair, _, word = _weakest(some)
    first, second, difference = pair.shown()
    named = f"{pair.first.arm.title}: {first}", f"{pair.second.arm.title}: {second}"
    epochs = pair.first.arm.config.epochs
    when = f"{pair.epoch if pair.epoch > 0 else epochs} of {epochs}{', recalibrated' * (pair.statistics != 'running')}"
    return when, *named, difference, word


def _weakest(some: Iterable[Told]) -> Told:
    """What speaks most against the claim; without a lead nothing speaks."""
    return min(some, key=lambda one: (ORDER.index(one.word), math.inf if math.isnan(one.lead) else one.lead))
