"""The paper's claims: what is said of each follows from the runs, here ones whose scores are a formula."""

import dataclasses
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from on_record import epochs, few_trials, record

from benchmarks.base.config import RunConfig
from benchmarks.report.evidence import claims, studied
from benchmarks.report.evidence.claims import Pair
from benchmarks.report.evidence.studied import Entry
from benchmarks.report.results import Series

LOSSES = {"sgd": 1.2, "adam": 1.4, "adamw": 1.3, "amsgrad": 1.4, "muon": 1.4}
EARLY = {claim for claim in claims.CLAIMS if "early" in claim}


def papers(config: RunConfig) -> float:
    """Losses as the paper has them: p = 1/8 is best, then SGD, AdamW and Adam."""
    p = config.hyper.get("partial")
    final = LOSSES[config.optimizer] if p is None else 1.0 + abs(p - 1 / 8)
    return final + random.Random(repr(config)).gauss(0, 0.002)


def opposite(config: RunConfig) -> float:
    """The other way round, and p = 3/8 far ahead of all."""
    return 10 - papers(config) - 8 * (config.hyper.get("partial") == 3 / 8)


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """No more trials than the tests need."""
    with few_trials():
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> studied.Study:
    """Runs that end as the paper says, after an early epoch of which the opposite is true."""
    root = tmp_path_factory.mktemp("cpu")
    record(root, "which-p-zipf", lambda config: [opposite(config), papers(config)])
    (one,) = studied.studies(root)
    return one


def said(study: studied.Study) -> dict[str, tuple[str, ...]]:
    """The row of each claim, without its name and the workload's."""
    return {row[0]: tuple(row[2:]) for row in claims.table([study]).rows}


def having(entry: Entry, losses: Sequence[float]) -> Series:
    """An entry's arm with runs that end so."""
    run = entry.series.runs[0]
    runs = {seed: dataclasses.replace(run, epochs=(*epochs(loss),)) for seed, loss in enumerate(losses)}
    return dataclasses.replace(entry.series, runs=runs)


def test_the_papers_results_confirm_it(study: studied.Study) -> None:
    """Every claim about the end, from the scores there; those about the beginning are refuted by the scores there."""
    rows = said(study)
    for claim in claims.CLAIMS:
        when, first, _, difference, word = rows[claim]
        assert word == ("not confirmed" if claim in EARLY else "confirmed")
        assert when == ("1 of 5" if claim in EARLY else "5 of 5")
        assert first.startswith("SGD" if claim.startswith("Adam") else "PartialAdam (p = 1/8)")
        assert difference[0] == ("+" if claim in EARLY else "−")
    assert rows["p = 1/8 beats AdamW"][2].startswith("AdamW: 1.30")
    assert rows["p = 1/8 beats AdamW"][3].startswith("−0.30")
    assert rows["p = 1/8 is the best p"][2].startswith("PartialAdam (p = 1/16)")


def test_the_opposite_does_not(tmp_path: Path) -> None:
    """Nor does one better exponent of five leave p = 1/8 the best; it is the one that is shown."""
    record(tmp_path, "which-p-zipf", lambda config: [papers(config), opposite(config)])
    rows = said(*studied.studies(tmp_path))
    assert {claim for claim, row in rows.items() if row[-1] == "confirmed"} == EARLY
    assert {row[-1] for claim, row in rows.items() if claim not in EARLY} == {"not confirmed"}
    assert rows["p = 1/8 is the best p"][2].startswith("PartialAdam (p = 3/8)")


def test_a_diverged_run_confirms_nothing_for_its_side(study: studied.Study) -> None:
    """Of the side that is ahead it leaves the claim open, of the other one it changes nothing."""
    first, *_, second = study.entries
    low, high = [1.0, 1.01, 1.02, 1.01], [2.0, 2.01, 2.02, 2.01]

    def word(ours: Sequence[float], theirs: Sequence[float]) -> str:
        (told,) = claims.judged([Pair(having(first, ours), having(second, theirs))])
        return told.word

    assert word(low, high) == "confirmed"
    assert word(low, [*high, math.nan]) == "confirmed"
    assert word([*low, math.nan], high) == "undecided"
    assert word(high, [*low, math.nan]) == "undecided"
    ours, theirs, difference = Pair(having(first, [math.nan]), having(second, [*low, math.nan])).shown()
    assert ours == "(1 of 1 diverged)"
    assert theirs.startswith("1.01")
    assert theirs.endswith("(1 of 5 diverged)")
    assert difference == "–"


def test_the_claims_of_a_workload_are_one_family(study: studied.Study) -> None:
    """A difference that is told alone is not among ten; no difference is told neither way."""
    first, *_, second = study.entries
    pair = Pair(having(first, [1.0, 1.1, 1.2, 1.3]), having(second, [1.3, 1.4, 1.5, 1.6]))
    same = Pair(having(first, [1.0, 1.1, 1.2, 1.3]), having(second, [1.0, 1.1, 1.2, 1.3]))
    assert [one.word for one in claims.judged([pair])] == ["confirmed"]
    assert {one.word for one in claims.judged([pair, *[same] * 9])} == {"undecided"}


def test_the_family_is_asked_as_one(study: studied.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of all claims go to the judge together."""
    asked: list[int] = []
    judged = claims.judged

    def counted(pairs: Sequence[Pair]) -> list[claims.Told]:
        asked.append(len(pairs))
        return judged(pairs)

    monkeypatch.setattr(claims, "judged", counted)
    claims.answers(claims.Sides(study))
    assert asked == [len(claims.CLAIMS) + 4]  # the best p is one of six


def test_batch_norm_is_asked_twice(study: studied.Study) -> None:
    """Early, by the running statistics and by recalibrated ones, each by its own scores, where the runs have them."""
    sides = claims.Sides(study)
    assert {statistics for _, statistics in claims.answers(sides)} == {"running"}
    config = dataclasses.replace(sides.padam.arm.config, recalibrate=20)
    sides.padam = dataclasses.replace(sides.padam, arm=dataclasses.replace(sides.padam.arm, config=config))
    answers = claims.answers(sides)
    for claim in EARLY:
        assert [told.word for told in answers[claim, "running"]] == ["not confirmed"]
        assert [told.word for told in answers[claim, "recalibrated"]] == ["confirmed"]
    assert len(answers) == len(claims.CLAIMS) + len(EARLY)


def test_a_tally_counts_the_workloads(study: studied.Study, tmp_path: Path) -> None:
    """Each once for every claim, by what the table of claims says there."""
    record(tmp_path, "which-p-zipf", lambda config: [papers(config), opposite(config)])
    table = claims.tally([study, study, *studied.studies(tmp_path)])
    assert table.header == ("claim", "confirmed", "undecided", "not confirmed")
    for claim, *counts in table.rows:
        assert counts == (["1", "0", "2"] if claim in EARLY else ["2", "0", "1"])
    assert [row[0] for row in table.rows] == [*claims.CLAIMS]
    assert "of 3 workloads" in table.note


def test_a_tally_counts_batch_norm_once(study: studied.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is confirmed by one kind of statistics alone is not confirmed."""
    sides = claims.Sides(study)
    config = dataclasses.replace(sides.padam.arm.config, recalibrate=20)
    sides.padam = dataclasses.replace(sides.padam, arm=dataclasses.replace(sides.padam.arm, config=config))
    monkeypatch.setattr(claims, "Sides", lambda _: sides)
    for claim, *counts in claims.tally([study]).rows:
        assert counts == (["0", "0", "1"] if claim in EARLY else ["1", "0", "0"])
