"""What the studies `which-p-…` on record say of the exponent, over workloads and estimators: tables."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.report.display import cells
from benchmarks.report.evidence import scores
from benchmarks.report.evidence.documented import Documented
from benchmarks.report.evidence.studied import SHARES, Choice, Entry, Study, curves
from benchmarks.report.sections.budgets import seconds
from benchmarks.report.sections.sensitivity import fit, tolerances

OPEN = "°"  # beside what is not told from the chosen one
_TALLIED = ("chosen", "better", "undecided", "worse")
_TOLD = {"better": "better", "worse": "worse", "diverged": "worse"}  # any other verdict: undecided
_OVER_P = ("workload", "optimizer", *(f"p = {p}" for p in SHARES))


def by_exponent(found: Sequence[Study]) -> Documented:
    """The final score at each p, each with its own best learning rate."""
    rows = []
    for curve in curves(found):
        words = curve.words(curve.base)
        marked = {entry.p: _score(entry, words, curve.base) for entry in curve.entries}
        rows.append(_over_p(curve, marked))
    note = (
        "Mean after the last epoch over the seeds, with its 95 % interval, each p at the learning rate that was best "
        "for it on the held-out tenth of the training set. Bold: the p that was best there, by which the others are "
        f"judged, with Holm's correction over a row. {OPEN}: not told from it. ↑: better than it."
    )
    return Documented(_OVER_P, rows, note)


def tally(found: Sequence[Study]) -> Documented:
    """On how many workloads each p is what, as the table of scores has it."""
    asked = curves(one for one in found if not one.question)
    counts: Counter[tuple[float, str]] = Counter()
    best: dict[float, list[float]] = {}
    for curve in asked:
        base = curve.base
        words = curve.words(base)
        for entry in curve.entries:
            word = "chosen" if entry is base else _TOLD.get(words[entry.series.arm.label], "undecided")
            counts[entry.p, word] += 1
            best.setdefault(entry.p, []).append(entry.lr)
    rows = [
        (str(p), *(str(counts[float(p), word]) for word in _TALLIED), _between(best[float(p)])) for p in SHARES if asked
    ]
    note = (
        f"On how many of {len(asked)} workloads this p of PartialAdam is the one that was best on the held-out part, "
        "and on how many the table below tells it from that one, as better or worse. Last the smallest and the largest "
        "of its best learning rates on them."
    )
    return Documented(("p", *_TALLIED, "best learning rates"), rows, note)


def rates(found: Sequence[Study]) -> Documented:
    """The best learning rate at each p, how it moves, and how near it one has to be."""
    rows = []
    for curve in curves(found):
        (subject,) = curve.study.report.study.subjects
        limits, _ = tolerances([entry.line for entry in curve.entries], subject)
        widths = [entry.line.profile.width(limit) for entry, limit in zip(curve.entries, limits, strict=True)]
        per_unit, off = fit([(entry.p, entry.lr) for entry in curve.entries if not entry.edge])
        marked = {
            entry.p: f"{_rate(entry)} ({'≥ ' * more}{width:.1f})"
            for entry, (width, more) in zip(curve.entries, widths, strict=True)
        }
        cell = f"{cells.decimal(per_unit, 1)} ± {off:.2f}" if math.isfinite(per_unit) else cells.DASH
        rows.append((*_over_p(curve, marked), cell))
    note = (
        "The learning rate that was best on the held-out part, and in brackets the decades around it within which the "
        "score stays within one standard deviation of the seeds, or within 5 % where a setting was tried with one "
        "seed; ≥ where that reaches the end of what was tried. !: the smallest or largest tried. Slope: decades of "
        "the best learning rate per unit of p by least squares, ± the largest distance of a point from the line, in "
        "decades; without those at an end."
    )
    return Documented((*_OVER_P, "slope"), rows, note)


def epochs_to_target(found: Sequence[Study]) -> Documented:
    """How many epochs it takes to the target at each p."""
    rows = []
    for curve in curves(found):
        marked = {entry.p: _to_target(curve, entry) for entry in curve.entries}
        rows.append(_over_p(curve, marked))
    note = "Mean over the runs that reach the target. Each p at the learning rate that was best for it at the end."
    return Documented(_OVER_P, rows, note + _targets(curve.study for curve in curves(found)))


def _over_p(curve: Choice, marked: Mapping[float, str]) -> tuple[str, ...]:
    """A row of `_OVER_P`."""
    return (curve.study.workload, curve.name, *(marked.get(float(p), cells.DASH) for p in SHARES))


def against_baselines(found: Sequence[Study]) -> Documented:
    """The baselines and the chosen exponent."""
    rows: list[tuple[str, ...]] = []
    for study in found:
        if study.question:
            continue
        base = Choice(study, "", [entry for entry in study.entries if entry.has_exponent]).base
        choice = Choice(study, "", [base, *(entry for entry in study.entries if not entry.has_exponent)])
        rows += _against(choice, base)
    note = "The baselines against PartialAdam at the p that was best on the held-out part. Equal trials."
    return Documented(_AGAINST, rows, note + _targets(one for one in found if not one.question))


def among(found: Sequence[Study], question: str, *, of_one_p: bool = False) -> Documented:
    """All entries of the studies that ask this, or those of each p, against the best one on the held-out part."""
    rows: list[tuple[str, ...]] = []
    for study in found:
        if study.question == question:
            for p in dict.fromkeys(entry.p for entry in study.entries) if of_one_p else (None,):
                choice = Choice(study, "", [entry for entry in study.entries if p in (None, entry.p)])
                rows += _against(choice, choice.base)
    note = f"Against the entry{' of the same p' * of_one_p} that was best on the held-out part of each workload."
    return Documented(_AGAINST, rows, note + _targets(one for one in found if one.question == question))


def _targets(found: Iterable[Study]) -> str:
    """What the targets of studies are, in words."""
    said = {one.workload: one.report.study.target for one in found}
    named = "; ".join(f"{workload}: {target:g}" for workload, target in said.items() if target is not None)
    return f" Targets: {named}." if named else ""


def budgets(found: Sequence[Study]) -> Documented:
    """What was spent on each whole study, and by what code; the others are named."""
    rows = []
    for study in (one for one in found if one.whole):
        report = study.report
        made = [*report.trials, *report.series]
        some = study.entries
        facts = report.environment
        rows.append(
            (
                f"`{study.name}`",
                str(len(some)),
                cells.span(len(entry.line.profile.lrs) for entry in some).text,
                _span(math.log10(entry.line.profile.lrs[-1] / entry.line.profile.lrs[0]) for entry in some),
                cells.span(len(one.runs) for one in report.trials).text,
                cells.span(len(one.runs) for one in report.series).text,
                f"{sum(len(one.runs) for one in made):,}",
                str(sum(one.diverged for one in made)),
                str(sum(entry.edge for entry in some)),
                f"{seconds(made) / 60:.0f}",
                facts["commit"],
                facts["sources"],
                facts["torch"],
            )
        )
    spent = ("study", "entries", "settings each", "decades tried", "seeds each", "final seeds", "runs", "diverged")
    header = (*spent, "at the edge", "CPU minutes", "commit", "sources", "torch")
    note = (
        "Decades tried: from the smallest to the largest learning rate of an entry. At the edge: entries whose best "
        "rate is one of those two."
    )
    if waiting := [f"`{study.name}`" for study in found if not study.whole]:
        note += f" Runs are missing of {', '.join(waiting)}, which no table has."
    return Documented(header, rows, note)


_AGAINST = ("workload", "optimizer", "lr", "score", "difference", "verdict", "to the target, epochs")


def _against(choice: Choice, base: Entry) -> list[tuple[str, ...]]:
    words = choice.words(base)
    rows: list[tuple[str, ...]] = []
    for entry in choice.entries:
        name, score = entry.series.arm.title, (_rate(entry), scores.shown(entry.series))
        told = (cells.DASH, "compared with")
        if entry is base:
            name = f"**{name}**"
        else:
            told = (scores.difference(entry.final, base.final), words[entry.series.arm.label])
        rows.append((choice.study.workload, name, *score, *told, _to_target(choice, entry)))
    return rows


def _rate(entry: Entry) -> str:
    """The chosen learning rate in two digits, set off where it is at an end."""
    return f"{_short(entry.lr)}{'!' * entry.edge}"


def _short(lr: float) -> str:
    return f"{float(f'{lr:.2g}'):g}"


def _between(lrs: Sequence[float]) -> str:
    """The least and the greatest learning rate, and the decades between."""
    low, high = min(lrs), max(lrs)
    return f"{_short(low)} to {_short(high)} ({math.log10(high / low):.1f} decades)"


def _span(values: Iterable[float]) -> str:
    """The least and the greatest, or the one that all are, to one decimal."""
    some = sorted(values)
    return "–".join(dict.fromkeys(f"{value:.1f}" for value in (some[0], some[-1])))


def _to_target(choice: Choice, entry: Entry) -> str:
    """The mean of the epochs after which the runs first reached the study's target, and how many did."""
    target = choice.study.report.study.target
    reached = [] if target is None else [epoch for epoch, _ in entry.series.to_target(target).values()]
    count, runs = len(reached), len(entry.series.runs)
    if not reached:
        return "never" if target is not None else cells.DASH
    return f"{np.mean(reached):.1f}" + (f" ({count} of {runs})" if count < runs else "")


def _score(entry: Entry, words: Mapping[str, str], base: Entry) -> str:
    text = scores.shown(entry.series)
    if entry is base:
        return f"**{text}**"
    word = words[entry.series.arm.label]
    return text + {"worse": "", "diverged": "", "better": " ↑", "undecided": f" {OPEN}"}.get(word, f" ({word})")
