"""What a study decides: each arm against the reference, which one is best, and the sentence that says so."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from benchmarks.report.display import cells
from benchmarks.report.display.table import Cell, Column, Mark, Row, Table, slug
from benchmarks.report.inference import family
from benchmarks.report.inference.power import smallest_detectable
from benchmarks.report.inference.statistics import NOTHING, Comparison, paired, summarize
from benchmarks.report.results import Report, Series, mixture
from benchmarks.workloads import metrics

_COLUMNS = (
    *cells.WHO,
    Column("difference", "difference"),
    *cells.interval_columns("interval, Holm's level", "interval"),
    Column("p", "p"),
    Column("p, Holm", "p_holm"),
    Column("finds", "smallest_detectable"),
    *cells.interval_columns("95 % interval (paired)", "paired"),
    Column("p, paired", "p_paired"),
    Column("verdict", "verdict", numeric=False),
)
_NAMED = 3  # arms that a headline names, of each kind


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An arm against the reference.

    Args:
        series: the arm.
        test: the difference from the reference, Welch's p-value, and the interval at Holm's level.
        adjusted: the p-value by Holm's method.
        paired: the same difference over the seeds that both have.
        smallest: the true difference that is found with a probability of 0.8; infinite where the metric has no such.
        word: ``"better"``, ``"worse"``, ``"undecided"``, or why there is no verdict.
    """

    series: Series
    test: Comparison
    adjusted: float
    paired: Comparison
    smallest: float
    word: str


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """All arms of one subject against its reference.

    Args:
        subject: what they were trained on.
        base: the reference, as far as there is one.
        rows: the verdicts, none where nothing can be compared.
        obstacle: why nothing is compared; empty where something is.
        tests: how many comparisons Holm's method corrects for.
    """

    subject: str
    base: Series | None
    rows: Sequence[Verdict] = ()
    obstacle: str = ""
    tests: int = 0

    def of(self, word: str) -> list[Verdict]:
        """Those of one word, the largest difference first."""
        return sorted((one for one in self.rows if one.word == word), key=lambda one: -abs(one.test.difference))


def judge(report: Report, subject: str) -> Verdicts:
    """The verdicts of a study on one of its subjects.

    Only sound runs are compared. A run that diverged is worse than any that did not, and so can only count against its
    arm: an arm with such a run is never better, and none is worse than a reference with one.
    """
    base = report.reference(subject)
    others = [one for one in report.of(subject) if one is not base]
    obstacle = _obstacle(report, subject, base, others)
    if base is None or obstacle:
        return Verdicts(subject, base, (), obstacle)
    workload = base.arm.config.workload
    same = [one.arm.config == base.arm.config for one in others]
    scores = [[] if again else one.finals for one, again in zip(others, same, strict=True)]
    reference = base.finals
    found = family.judge(scores, reference)
    tests = sum(not math.isnan(p) for p in found.p)
    least, most = metrics.bounds(workload)
    widest = most - least
    spread = summarize(reference)
    rows = []
    for i, one in enumerate(others):
        own = summarize(scores[i])
        test = Comparison(
            float(found.difference[i]),
            float(np.clip(found.low[i], -widest, widest)),
            float(np.clip(found.high[i], -widest, widest)),
            float(found.p[i]),
        )
        smallest = smallest_detectable((own.sd, spread.sd), (own.n, spread.n), max(1, tests))
        smallest = math.inf if smallest > widest else smallest
        word = "same run" if same[i] else word_of(one, base, test.difference, decided=bool(found.decided[i]))
        pairs = NOTHING if same[i] else _paired(one, base)
        rows.append(Verdict(one, test, float(found.adjusted[i]), pairs, smallest, word))
    return Verdicts(subject, base, rows, "", tests)


def _obstacle(report: Report, subject: str, base: Series | None, others: Sequence[Series]) -> str:
    """Why no arm can be compared; empty if one can."""
    arm = report.study.base(subject)
    if arm is None:
        reference = report.study.reference
        return f"no run on {subject} is the reference, {reference!r}" if reference else "the study names no reference"
    if base is None:
        return f"the reference, {arm.title}, has no finished run"
    if len(base.scores()) < 2:
        if base.diverged:
            return f"the reference, {arm.title}, diverged in {base.diverged} of {len(base.runs)} runs"
        return f"the reference, {arm.title}, has one run, and a comparison takes two"
    if not any(len(one.scores()) > 1 or one.diverged for one in others):
        return f"no arm but the reference, {arm.title}, has two runs"
    return ""


def word_of(one: Series, base: Series, difference: float, *, decided: bool) -> str:
    """What is said of an arm against another: nothing is better of which a run diverged, nor worse than such a base."""
    sign = metrics.sign(base.arm.config.workload)
    word = "undecided" if not decided else "better" if sign * difference > 0 else "worse"
    if one.diverged and word != "worse":
        return "diverged"
    if base.diverged and word == "worse":
        return "reference diverged"
    return word


def _paired(one: Series, base: Series) -> Comparison:
    scores, reference = one.scores(), base.scores()
    common = sorted(scores.keys() & reference.keys())
    return paired([scores[seed] for seed in common], [reference[seed] for seed in common])


def tables(report: Report, subject: str, where: str = "") -> list[Table]:
    """Each arm against the reference, and what can be said about the best; none for a study of one run an arm."""
    verdicts, series = judge(report, subject), report.of(subject)
    name = f"against_reference{f'_{slug(subject)}' if where else ''}"
    if verdicts.obstacle:
        if report.study.reference is None or all(len(one.runs) < 2 for one in series):
            return []
        rows = [Row(one.arm.label, _row(_nothing(one))) for one in series if one is not verdicts.base]
        notes = [f"Not compared: {verdicts.obstacle}."]
        return [Table(name, f"Against the reference{where}", _COLUMNS, rows, notes, headline=True)]
    base = verdicts.base
    assert base is not None  # without an obstacle there is one
    rows = [Row(one.series.arm.label, _row(one)) for one in verdicts.rows]
    notes = [*mixture(series), *_notes(verdicts), _leader(series)]
    return [Table(name, f"Against {base.arm.title}{where}", _COLUMNS, rows, notes, headline=True)]


def _nothing(one: Series) -> Verdict:
    return Verdict(one, NOTHING, math.nan, NOTHING, math.nan, "not compared")


def _row(one: Verdict) -> list[Cell]:
    marks: dict[str, Mark] = {"better": "better", "worse": "worse", "diverged": "diverged"}
    marks |= {"reference diverged": "flagged", "not compared": "flagged"}
    return [
        cells.text(one.series.arm.title),
        cells.text(one.series.arm.label),
        cells.signed(one.test.difference),
        *cells.interval(one.test.low, one.test.high),
        cells.probability(one.test.p),
        cells.probability(one.adjusted),
        Cell("none") if math.isinf(one.smallest) else cells.number(one.smallest),
        *cells.interval(one.paired.low, one.paired.high),
        cells.probability(one.paired.p),
        cells.text(one.word, marks.get(one.word, "")),
    ]


def _notes(verdicts: Verdicts) -> list[str]:
    base, notes, alpha, tests = verdicts.base, [], family.ALPHA, max(1, verdicts.tests)
    if base is not None and base.diverged:
        notes.append(
            f"The reference, {base.arm.title}, diverged in {_share(base)}. It is compared by the others; as a "
            "divergence is worse than any result, no arm is called worse than it."
        )
    if any(one.series.diverged for one in verdicts.rows):
        notes.append("An arm of which a run diverged is compared by its sound runs, and never called better.")
    notes.append(
        f"Better and worse are said only where the interval excludes 0, and then Holm's p over the {tests} comparisons "
        f"of this table is below {alpha} too. The interval is Welch's at the level at which Holm's method tests the "
        f"comparison (1 − {alpha}/{tests} for the smallest p), widened to hold whatever the spreads of the two arms "
        f"are: with few seeds it can include 0 although Holm's p is below {alpha}. The chance of any wrong verdict in "
        f"the table is at most {alpha}."
    )
    notes.append(
        "Undecided does not mean equal: *finds* is the true difference that is found with a probability of 0.8, for "
        "these numbers of runs and the spreads seen, at the level of Holm's first step. The paired columns use that "
        "equal seeds share initial weights and data order; they have no part in the verdict."
    )
    if any(one.word == "same run" for one in verdicts.rows):
        notes.append("Same run: all its settings are those of the reference.")
    return notes


def _leader(series: Sequence[Series]) -> str:
    """Which arm is best, if that can be said: a family of its own, of the best mean against all others."""
    sound = [one for one in series if one.scores() and not one.diverged]
    if not sound:
        return "Best: not decided. Every arm has a run that diverged."
    sign = metrics.sign(sound[0].arm.config.workload)
    leader = max(sound, key=lambda one: sign * summarize(one.finals).mean)
    others = [one for one in series if one is not leader and one.scores()]
    if not others:
        return "Best: not decided. There is no other arm with a result."
    found = family.judge([one.finals for one in others], leader.finals)
    near = [
        one.arm.title
        for one, decided, difference in zip(others, found.decided, found.difference, strict=True)
        if not (decided and sign * difference < 0)
    ]
    if not near:
        return f"Best: {leader.arm.title}; it is told from every other arm, at {family.ALPHA} over all of them."
    count = f"{len(near)} others" if len(near) > 4 else ", ".join(near)
    return f"Best: not decided. {leader.arm.title} has the best mean, but these runs do not tell it from {count}."


def headlines(report: Report) -> list[str]:
    """The verdict of a study: a sentence for each of its subjects that has runs."""
    found = []
    for subject in report.study.subjects:
        series = report.of(subject)
        if series:
            where = f"{subject}: " if len(report.study.subjects) > 1 else ""
            found.append(
                f"{where}{'So far: ' if report.missing else ''}{_sentence(report, judge(report, subject), series)}"
            )
    return found


def _sentence(report: Report, verdicts: Verdicts, series: Sequence[Series]) -> str:
    base = verdicts.base
    ends = ["its runs are of different code, torch or devices"] * bool(mixture(series))
    if verdicts.obstacle or base is None:
        if report.study.reference is None:
            return _closed([_leader(series).rstrip(".").replace("Best: not decided. ", "Nothing is decided: "), *ends])
        return _closed([f"Nothing is compared: {verdicts.obstacle}", *ends])
    unit = " points" if metrics.of(base.arm.config.workload).percent else ""
    better, worse = verdicts.of("better"), verdicts.of("worse")
    parts = [_said(better, "better", base, unit), _said(worse, "worse", base if not better else None, unit)]
    parts = [part for part in parts if part]
    open_ = [one for one in verdicts.rows if one.word in ("undecided", "reference diverged")]
    if not parts:
        parts.append(f"Nothing is decided: no arm is told from {base.arm.title}")
    elif open_:
        parts.append("nothing else is told apart")
    if open_ and not better:
        parts.append(_finds(open_, unit))
    diverged = verdicts.of("diverged")
    parts += [f"{one.series.arm.title} diverged in {_share(one.series)}" for one in diverged[:_NAMED]]
    if len(diverged) > _NAMED:
        parts.append(f"so did {len(diverged) - _NAMED} more")
    if base.diverged:
        parts.append(f"{base.arm.title}, the reference, diverged in {_share(base)} and is compared by the others")
    return _closed([*parts, *ends])


def _said(found: Sequence[Verdict], word: str, base: Series | None, unit: str) -> str:
    """What is better or worse, by how much, and how sure that is."""
    if not found:
        return ""
    parts = []
    for i, one in enumerate(found[:_NAMED]):
        ends = sorted((abs(one.test.low), abs(one.test.high)))
        size = f"{cells.decimal(abs(one.test.difference))}{unit} {cells.between(*ends)}"
        start = (
            f"{one.series.arm.title} is {word}" + (f" than {base.arm.title}" if base else "")
            if i == 0
            else one.series.arm.title
        )
        p = cells.chance(one.adjusted)
        sure = f"Holm p {p}" if p.startswith("<") else f"Holm p = {p}"
        parts.append(f"{start} by {size}, {sure}, {_seeds(one.series, base)}")
    rest = len(found) - _NAMED
    return "; ".join(parts) + (f"; so {'is' if rest == 1 else 'are'} {rest} more" if rest > 0 else "")


def _seeds(one: Series, base: Series | None) -> str:
    counts = dict.fromkeys(len(series.scores()) for series in (one, base) if series is not None)
    return f"{' and '.join(map(str, counts))} seeds"


def _finds(rows: Sequence[Verdict], unit: str) -> str:
    """The differences that would have been found."""
    known = sorted((one for one in rows if not math.isnan(one.smallest)), key=lambda one: one.smallest)
    if not known:
        return "without spread or a second run there is no telling what could be found"
    least, most = known[0], known[-1]
    if math.isinf(least.smallest):
        return "with so few seeds this study finds no difference, however large"
    if math.isinf(most.smallest):
        return f"this study finds differences of {_round(least.smallest)}{unit} and more, and of some arms none at all"
    if most.smallest < 1.5 * least.smallest:
        return f"this study finds differences of {_round(most.smallest)}{unit} and more"
    return (
        f"this study finds differences from {_round(least.smallest)}{unit} ({least.series.arm.title}) to "
        f"{_round(most.smallest)}{unit} ({most.series.arm.title})"
    )


def _round(value: float) -> str:
    """Up to two digits: no difference smaller than the one stated is claimed to be found."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1) if value else 1.0
    return f"{float(f'{math.ceil(value / digit - 1e-9) * digit:.2g}'):g}"


def _share(one: Series) -> str:
    return f"{one.diverged} of {len(one.runs)} runs"


def _closed(parts: Sequence[str]) -> str:
    return "; ".join(parts) + "."
