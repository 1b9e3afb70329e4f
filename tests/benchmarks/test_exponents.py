"""Which p: what is said of a study follows from its runs, here ones whose scores are a formula."""

import dataclasses
import importlib
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from on_record import BEST, SLOPE, START, epoch, few_trials, load, record, valley

from benchmarks.base.config import RunConfig
from benchmarks.base.store import Store, StoreError
from benchmarks.report.evidence import archive, exponents, scores, studied, which_p
from benchmarks.report.inference.statistics import summarize


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """No more trials than the tests need."""
    with few_trials():
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[studied.Study]:
    """The studies on rare classes, two of them finished and one begun."""
    root = tmp_path_factory.mktemp("cpu")
    record(root, "which-p-zipf", valley)
    record(root, "which-p-zipf-bias", valley)
    record(root, "which-p-zipf-direction", valley, seeds=2)
    return studied.studies(root)


def test_only_whole_studies_are_read(recorded: list[studied.Study]) -> None:
    """One whose runs are not all there says nothing yet, and one without a folder neither."""
    assert [one.name for one in recorded] == ["which-p-zipf", "which-p-zipf-bias"]
    assert [one.question for one in recorded] == ["", "bias"]


def test_a_study_does_not_leave_the_page_unseen(tmp_path: Path) -> None:
    """Where one of its runs is gone, the table of what was spent says that no table has it."""
    record(tmp_path, "which-p-zipf", valley)
    missing = "missing of `which-p-zipf"
    assert f"{missing}-bias`, `which-p-zipf-direction`" in which_p.tables(tmp_path)["exponent-budgets"].note
    store, run = Store(tmp_path / "zipf"), load("which-p-zipf").runs()[0]
    for path in store.finished()[run.config.identity("data")]:
        path.unlink()
    archive.pack(store, tmp_path / f"zipf{archive.SUFFIX}")
    tables = which_p.tables(tmp_path)
    assert not any(table.rows for table in tables.values())
    assert f"{missing}`, `which-p-zipf-bias`" in tables["exponent-budgets"].note


def test_no_archive_is_passed_over(tmp_path: Path) -> None:
    """One whose name is that of no study, and one in which a run stands twice, of which chance would choose one."""
    record(tmp_path, "which-p-zipf", valley)
    packed = tmp_path / f"zipf{archive.SUFFIX}"
    other = tmp_path / f"zapf{archive.SUFFIX}"
    other.write_bytes(packed.read_bytes())
    with pytest.raises(StoreError, match=r"zapf.* is of no study: none is called which-p-zapf"):
        studied.studies(tmp_path)
    other.unlink()
    store, run = Store(tmp_path / "zipf"), load("which-p-zipf").runs()[0]
    store.write(run.config, "data", {"sources": "def", "torch": "2", "device": "cpu"}, [epoch(valley(run.config))])
    archive.pack(store, packed)
    with pytest.raises(StoreError, match=f"several versions of a run: {run.config.identity('data')}"):
        studied.studies(tmp_path)


def test_no_entry_is_passed_over(recorded: list[studied.Study]) -> None:
    """Two of one exponent or of one baseline, or an exponent that no table has, are errors and not overwritten."""
    (study,) = (one for one in recorded if not one.question)
    first, *_, last = study.report.series

    def having(label: str, **hyper: object) -> studied.Study:
        like = first if "partial" in hyper else last
        config = dataclasses.replace(like.arm.config, hyper={**like.arm.config.hyper, **hyper})
        arm = dataclasses.replace(like.arm, label=label, config=config)
        series = (*study.report.series, dataclasses.replace(like, arm=arm))
        return dataclasses.replace(study, report=dataclasses.replace(study.report, series=series))

    with pytest.raises(ValueError, match=r"several entries of 0\.5: p=1/2 and p=0"):
        studied.curves([having("p=0", partial=0.5)])
    with pytest.raises(ValueError, match=r"no table shows p = 0.4375, only 0, 1/16"):
        studied.curves([having("p=0", partial=0.4375)])
    with pytest.raises(ValueError, match="several entries of muon: muon and muon"):
        _ = having("muon", lr=0.3).baselines


def test_the_best_p_is_chosen_without_the_final_runs(recorded: list[studied.Study]) -> None:
    """By the held-out part, at its best learning rate; the final runs then judge the others against it."""
    (curve,) = studied.curves(recorded)
    assert (curve.name, curve.base.p) == ("PartialAdam", BEST)
    words = curve.words(curve.base)
    assert set(words.values()) == {"worse"}
    assert len(words) == 5
    (row,) = exponents.by_exponent(recorded).rows
    assert [cell.startswith("**") for cell in row[2:]] == [False] * 4 + [True, False]
    assert not any(exponents.OPEN in cell for cell in row)


def test_the_final_runs_may_contradict_the_choice(tmp_path: Path) -> None:
    """What was chosen stays chosen; that another p does better in the end is said."""

    def score(config: RunConfig) -> float:
        judged = config.split == "validation"
        if not judged and config.hyper.get("partial") == 0:
            return math.nan
        return valley(config) - 0.5 * (judged and config.hyper.get("partial") == 0.25)

    record(tmp_path, "which-p-zipf", score)
    (row,) = exponents.by_exponent(studied.studies(tmp_path)).rows
    assert row[5].startswith("**1.12")
    assert row[6].endswith(" ↑")
    assert "diverged" in row[2]
    tally = {p: counts for p, *counts, _ in exponents.tally(studied.studies(tmp_path)).rows}
    assert tally["1/4"] == ["1", "0", "0", "0"]
    assert tally["3/8"] == ["0", "1", "0", "0"]
    assert tally["0"] == ["0", "0", "0", "1"]  # one that diverged is worse


def test_an_estimator_is_one_curve_whatever_its_entries_are_called(recorded: list[studied.Study]) -> None:
    """A title is what a study likes; entries of one optimizer with six titles are six exponents of one curve."""
    study = recorded[0]
    named = [
        dataclasses.replace(one, arm=dataclasses.replace(one.arm, title=f"entry {one.arm.label}"))
        for one in study.report.series
    ]
    renamed = dataclasses.replace(study, report=dataclasses.replace(study.report, series=tuple(named)))
    (curve,) = studied.curves([renamed])
    assert (curve.name, len(curve.entries)) == ("PartialAdam", 6)


def test_a_tally_counts_workloads(recorded: list[studied.Study]) -> None:
    """Every workload once for each p, by what the table of scores says there, of PartialAdam alone."""
    (study,) = (one for one in recorded if not one.question)
    table = exponents.tally([study, dataclasses.replace(study, workload="another"), *recorded[1:]])
    assert table.header == ("p", "chosen", "better", "undecided", "worse", "best learning rates")
    best, worse = ("2", "0", "0", "0"), ("0", "0", "0", "2")
    assert [row[1:-1] for row in table.rows] == [*[worse] * 4, best, worse]
    assert "of 2 workloads" in table.note


def test_how_far_the_best_rate_moves_between_workloads(recorded: list[studied.Study], tmp_path: Path) -> None:
    """From the smallest to the largest of each p, over the workloads."""

    def thrice(config: RunConfig) -> RunConfig:
        return dataclasses.replace(config, hyper={**config.hyper, "lr": 3 * config.hyper["lr"]})

    record(tmp_path, "which-p-zipf", lambda config: valley(thrice(config)))
    (study,) = (one for one in recorded if not one.question)
    table = exponents.tally([study, *studied.studies(tmp_path)])
    for (p, *_, cell), entry in zip(table.rows, studied.curves([study])[0].entries, strict=True):
        assert float(Fraction(p)) == entry.p
        low, high = map(float, cell.partition(" (")[0].split(" to "))
        assert high == pytest.approx(entry.lr, rel=0.05)
        assert math.log10(high / low) == pytest.approx(math.log10(3), abs=0.2)
        decades = float(cell.partition(" (")[2].removesuffix(" decades)"))
        assert decades == pytest.approx(math.log10(high / low), abs=0.06)
    (own,) = exponents.tally([study]).rows[:1]
    assert own[-1].endswith("(0.0 decades)")


def test_how_soon_each_p_is_at_the_target(tmp_path: Path) -> None:
    """In epochs, and how many runs were; one that is never there says so."""

    def score(config: RunConfig) -> list[float]:
        late = config.hyper.get("partial") == 0.25 and config.seed in (1, 2)
        return [3.0, 2.0, valley(config) - 0.8 + late]  # the target is 1

    record(tmp_path, "which-p-zipf", score)
    table = exponents.epochs_to_target(studied.studies(tmp_path))
    (row,) = table.rows
    assert row[:2] == ("rare classes, softmax regression", "PartialAdam")
    assert row[2:] == ("3.0", "3.0", "3.0", "3.0 (8 of 10)", "3.0", "3.0")
    assert table.note.endswith("Targets: rare classes, softmax regression: 1.")


def test_several_versions_of_the_code_are_named(tmp_path: Path) -> None:
    """Below every table, with what differs."""
    record(tmp_path, "which-p-zipf", valley)
    assert not any("differ" in table.note for table in which_p.tables(tmp_path).values())
    store, study = Store(tmp_path / "zipf"), load("which-p-zipf")
    run = study.runs()[0]
    for path in store.finished()[run.config.identity("data")]:
        path.unlink()
    store.write(run.config, "data", {"sources": "def", "torch": "2", "device": "cpu"}, [epoch(valley(run.config))])
    archive.pack(store, tmp_path / f"zipf{archive.SUFFIX}")
    for table in which_p.tables(tmp_path).values():
        assert "which-p-zipf: Warning: the runs of this table" in table.note
        assert "sources def" in table.note


def test_what_cannot_be_told_apart_is_marked(tmp_path: Path) -> None:
    """Where p makes no difference, no p is said to be worse, whichever was chosen."""
    record(tmp_path, "which-p-zipf", lambda config: 1 + random.Random(repr(config)).gauss(0, 0.1))
    (row,) = exponents.by_exponent(studied.studies(tmp_path)).rows
    assert [cell.endswith(exponents.OPEN) or cell.startswith("**") for cell in row[2:]] == [True] * 6


def test_small_losses_do_not_read_as_nothing() -> None:
    """As many decimals as show two digits of half the interval, of 3e-5 as of 30."""
    assert scores.interval(summarize([2e-5, 3e-5, 4e-5])).startswith("0.000030 [")
    assert scores.interval(summarize([20.0, 30.0, 40.0])).startswith("30.0 [")


def test_a_difference_is_no_more_exact_than_its_sides() -> None:
    """It has the decimals of the side with fewer, or as many as show that it is not 0; without a side there is none."""
    exact, rough = summarize([0.00012, 0.00013, 0.00014]), summarize([0.31, 0.34, 0.37])
    assert (scores.interval(exact).partition(" ")[0], scores.interval(rough).partition(" ")[0]) == ("0.000130", "0.340")
    assert scores.difference(exact, rough) == "−0.340"
    assert scores.difference(rough, exact) == "+0.340"
    assert scores.difference(rough, summarize([0.34003, 0.34004, 0.34005])) == "−0.000040"
    assert scores.difference(rough, summarize([])) == "–"


def test_a_diverged_run_is_shown(tmp_path: Path) -> None:
    """It is neither dropped nor averaged over."""

    def score(config: RunConfig) -> float:
        lost = config.hyper.get("partial") == 0.5 and config.seed == 3
        return math.nan if lost else valley(config)

    record(tmp_path, "which-p-zipf", score)
    found = studied.studies(tmp_path)
    (row,) = exponents.by_exponent(found).rows
    assert row[-1].endswith("(1 of 10 diverged)")
    budgets = exponents.budgets(found)
    assert budgets.rows[0][budgets.header.index("diverged")] == "1"


def test_how_the_learning_rate_moves(recorded: list[studied.Study]) -> None:
    """The slope is that of the formula, up to the spacing of the rates tried; the width is that of the valley."""
    (row,) = exponents.rates(recorded).rows
    slope = float(row[-1].partition(" ± ")[0].replace("−", "-"))
    assert slope == pytest.approx(SLOPE, abs=0.4)
    (curve,) = studied.curves(recorded)
    assert all(0.05 < float(cell.partition(" (")[2].removesuffix(")")) < 0.4 for cell in row[2:-1])
    for entry in curve.entries:
        assert abs(math.log10(entry.lr) - (START + SLOPE * entry.p)) < 0.15
        assert not entry.edge


@pytest.mark.parametrize("side", [-1, 1])
def test_a_best_rate_at_the_end_is_flagged(side: int, tmp_path: Path) -> None:
    """What may lie beyond the range is not counted on."""
    record(tmp_path, "which-p-zipf", lambda config: float(config.hyper["lr"] ** side))
    found = studied.studies(tmp_path)
    (row,) = exponents.rates(found).rows
    assert all("!" in cell for cell in row[2:-1])
    assert row[-1] == "–"
    budgets = exponents.budgets(found)
    assert budgets.rows[0][budgets.header.index("at the edge")] == "11"


def test_budgets_say_how_wide_the_search_was(recorded: list[studied.Study]) -> None:
    """In decades from the smallest to the largest rate, those of the entry with the fewest and with the most."""
    budgets = exponents.budgets(recorded)
    for row, decades in zip(budgets.rows, (1.5, 2.5), strict=True):
        for end in row[budgets.header.index("decades tried")].split("–"):
            assert float(end) == pytest.approx(decades, abs=0.25)


def test_baselines_stand_beside_the_best(recorded: list[studied.Study]) -> None:
    """Each against the chosen p, with its difference."""
    rows = exponents.against_baselines(recorded).rows
    assert next(row[1] for row in rows) == "**PartialAdam (p = 3/8)**"
    assert len(rows) == 6
    assert all(row[-2] == "worse" for row in rows[1:])
    assert [row[-1] for row in rows][:2] == ["1.0 (5 of 10)", "never"]
    assert float(rows[1][4]) == pytest.approx(BEST, abs=0.05)


def test_a_better_baseline_is_called_so(tmp_path: Path) -> None:
    """The exponents are chosen among themselves, also where a baseline is best on the held-out part."""
    record(tmp_path, "which-p-zipf", lambda config: valley(config) / (100 if config.optimizer == "muon" else 1))
    rows = exponents.against_baselines(studied.studies(tmp_path)).rows
    assert next(row[1] for row in rows) == "**PartialAdam (p = 3/8)**"
    assert [row[-2:] for row in rows if "Muon" in row[1]] == [("better", "1.0")]


def test_each_table_is_of_one_page(recorded: list[studied.Study], tmp_path: Path) -> None:
    """All have their names, and are empty, not wrong, where nothing is on record."""
    assert all(not table.rows for table in which_p.tables(tmp_path).values())
    assert {row[0] for row in exponents.budgets(recorded).rows} == {"`which-p-zipf`", "`which-p-zipf-bias`"}
    assert len(exponents.among(recorded, "bias").rows) == 6


def test_bias_corrections_are_compared_at_one_p(recorded: list[studied.Study]) -> None:
    """Each with the best of its own p; among all of them the p would decide, which is another question."""
    table = exponents.among(recorded, "bias", of_one_p=True)
    assert [row[1].startswith("**") for row in table.rows].count(True) == 2
    assert all(abs(float(row[4].replace("−", "-"))) < 0.05 for row in table.rows if row[5] != "compared with")
    ahead = [row[4] for row in exponents.among(recorded, "bias").rows if row[5] != "compared with"]
    assert max(abs(float(text.replace("−", "-"))) for text in ahead) > 0.1
    assert table.note.endswith("Targets: rare classes, softmax regression: 1.")
    assert "Targets" not in exponents.among(recorded, "direction").note


def test_each_workload_has_a_panel(recorded: list[studied.Study], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the figures, in rows of equal length but for the last, with its means and its learning rates."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs")
    figures = importlib.import_module("exponent_figures")
    (study,) = (one for one in recorded if not one.question)
    names = [f"workload {i}" for i in range(5)]
    found = [dataclasses.replace(_scaled(study, 1 + i), workload=name) for i, name in enumerate(names)]
    ours = [[entry for entry in one.entries if entry.has_exponent] for one in found]

    panels = figures.headline(found).axes
    assert [panel.get_title() for panel in panels] == [name.capitalize() for name in names]
    assert len({panel.get_subplotspec().rowspan.start for panel in panels[:3]}) == 1
    for panel, entries in zip(panels, ours, strict=True):
        assert panel.lines[0].get_ydata().tolist() == [entry.final.mean for entry in entries]
        assert len(panel.lines[0].get_ydata()) == len(entries) == 6

    panels = figures.by_estimator(studied.curves(found)).axes
    assert [panel.get_title() for panel in panels if panel.get_title()] == [name.capitalize() for name in names]
    rates = [panel for panel in panels if panel.get_ylabel() == "best learning rate"]
    assert [list(panel.lines[0].get_ydata()) for panel in rates] == [[one.lr for one in entries] for entries in ours]
    shown = [panel for panel in panels if panel not in rates]
    means = [[one.final.mean for one in entries] for entries in ours]
    assert [panel.lines[0].get_ydata().tolist() for panel in shown] == means
    assert len(panels) == 10


def _scaled(study: studied.Study, factor: float) -> studied.Study:
    """A study with its final losses and its chosen learning rates times that."""
    made = []
    for one in study.report.series:
        hyper = {**one.arm.config.hyper, "lr": factor * one.arm.config.hyper["lr"]}
        arm = dataclasses.replace(one.arm, config=dataclasses.replace(one.arm.config, hyper=hyper))
        runs = {
            seed: dataclasses.replace(run, epochs=(epoch(factor * run.epochs[-1].test.running["loss"]),))
            for seed, run in one.runs.items()
        }
        made.append(dataclasses.replace(one, arm=arm, runs=runs))
    return dataclasses.replace(study, report=dataclasses.replace(study.report, series=tuple(made)))


def test_of_an_accuracy_more_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The greatest is chosen and the others are worse; a figure shows errors, with the ends of their intervals."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs")
    figures = importlib.import_module("exponent_figures")

    def score(config: RunConfig) -> float:
        return 90 - 40 * abs(config.hyper.get("partial", 0.0) - BEST) + random.Random(repr(config)).gauss(0, 0.2)

    record(tmp_path, "which-p-digits", score)
    (study,) = studied.studies(tmp_path)
    (row,) = exponents.by_exponent([study]).rows
    means = [float(cell.removeprefix("**").partition(" ")[0]) for cell in row[2:]]
    assert means == pytest.approx([75, 77.5, 80, 85, 90, 85], abs=0.3)
    assert [cell.startswith("**") for cell in row[2:]] == [False] * 4 + [True, False]
    assert {row[5] for row in exponents.against_baselines([study]).rows} == {"compared with", "worse"}
    errors = [[100 - one.final.high, 100 - one.final.low] for one in study.entries if one.has_exponent]
    (panel,) = figures.headline([study]).axes
    bars = [segment[:, 1].tolist() for segment in panel.collections[0].get_segments()]
    assert np.allclose(bars, errors)
    assert all(low < mean < high for (low, high), mean in zip(bars, panel.lines[0].get_ydata(), strict=True))


@pytest.mark.parametrize(("low", "high"), [(1, 1.5), (0.7, 4), (4, 30), (0.002, 0.012), (13, 660), (3, 301), (1e-5, 2)])
def test_each_scale_can_be_read(low: float, high: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two numbers at least stand beside it; the decades of a logarithmic one may leave a single power of ten."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs")
    figures = importlib.import_module("exponent_figures")
    axis = Figure().subplots()
    axis.plot([low, high])
    figures.log_where_wide(axis)
    assert axis.get_yscale() == ("log" if high > 5 * low else "linear")
    least, most = axis.get_ylim()
    assert sum(least <= tick <= most for tick in axis.get_yticks()) >= 2
