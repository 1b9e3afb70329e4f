"""The width study: searches that find the lowest point, fits that find the slope, and a record that is reported on."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import cli
from benchmarks.theory.record import load, save
from benchmarks.theory.width import carry, coordinates, study, study_report, sweep, task
from benchmarks.workloads.data import DataError
from partial_adaptive import equivalent_lr

SMALL = {"WIDTHS": (4, 8), "SEEDS": (0, 1), "STEPS": 5, "CARRIED_WIDTH": 4}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Five steps on digits."""
    return task.digits(tmp_path_factory.mktemp("data"), 5)


def of(logs, width, partial):
    """A sweep whose best learning rates for the seeds are these powers of ten, which lie between two of its grid."""
    rates = [k / sweep.FINE for k in range(-40, 41)]
    return sweep.Sweep(
        "digits",
        width,
        partial,
        tuple(sweep.Trial(10**rate, tuple(math.exp((rate - log) ** 2) for log in logs)) for rate in rates),
    )


@pytest.mark.parametrize("vertex", [-0.9, -0.3, 0.0, 0.2, 0.74])
def test_the_lowest_point_of_a_parabola(vertex):
    """Between the points of the grid, exactly; at the end of the grid, and beside what diverges, the point itself."""
    x = [k / 8 for k in range(-8, 9)]
    y = [math.exp(3 * (one - vertex) ** 2) for one in x]
    assert sweep.lowest(x, y) == pytest.approx(vertex, abs=1e-12)
    assert sweep.lowest(x[:3], [3.0, 2.0, 1.0]) == x[2]
    assert sweep.lowest(x[:3], [3.0, 2.0, math.inf]) == x[1]


@pytest.mark.parametrize("start", [-20, 0, 17])
@pytest.mark.parametrize("reach", [1, 3])
def test_the_search_ends_around_the_least(start, reach):
    """Wherever it begins, also where all is infinite on one side, with points on both sides of the least."""
    known = sweep.descend(lambda k: math.inf if k > 4 else (k - 3) ** 2, start if start < 4 else 4, reach)
    assert min(known, key=known.__getitem__) == 3
    assert {*range(3 - reach, 3 + reach + 1)} <= known.keys()


def test_a_search_without_an_end_is_given_up():
    """A loss that falls for ever."""
    with pytest.raises(RuntimeError, match="no learning rate is the best one"):
        sweep.descend(lambda k: -float(k), 0, 3)


def test_exponents_of_the_width():
    """The slope and its t-interval: exact for exact powers, and of the textbook's width for scattered ones."""
    sweeps = tuple(of([1 - math.log10(width)] * 2, width, 0.25) for width in (16, 64, 256))
    gradients = tuple((width**-0.5,) * 2 for width in (16, 64, 256))
    record = study.Record((0, 1), 5, sweeps, gradients, (), (), (), (), {})
    assert record.of_gradient.slope == pytest.approx(-0.5, abs=1e-9)
    fit = record.exponent(0.25)
    assert fit.slope == pytest.approx(-1, abs=1e-9)
    assert (fit.low, fit.high) == pytest.approx((-1, -1), abs=1e-7)  # a root of what is left, which is rounding
    scattered = dataclasses.replace(
        record,
        widths=tuple(of([1 - math.log10(w) + e, 1 - math.log10(w) - e], w, 0.25) for w, e in ((10, 0.1), (100, 0.1))),
    )
    fit = scattered.exponent(0.25)
    assert fit.slope == pytest.approx(-1, abs=1e-9)
    # s² = Σ(0.1)²/(4−2), Sxx = 4·(1/2)², t(0.975; 2) = 4.302653
    assert fit.high - fit.slope == pytest.approx(4.302653 * math.sqrt(0.04 / 2 / 1), rel=1e-5)


def test_a_seed_means_one_start_and_one_order(digits):
    """Runs of a seed differ by what is asked of them alone; those of another seed by more."""
    one, other, third = (task.started(digits, 0.0, 1 / 8, 4, seed, 5)[0] for seed in (0, 0, 1))
    for a, b, c in zip(one.parameters(), other.parameters(), third.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_a_run_that_diverges_has_no_loss(digits):
    """A loss that is not finite, or worse than a guess, counts as infinite, and is None in the record."""
    assert task.run(digits, 1e30, 0.0, 4, 0).loss == math.inf
    assert task.run(dataclasses.replace(digits, steps=50), 1.0, 0.0, 16, 0).loss < math.log(10)


def test_the_coordinate_check_changes_one_thing(digits):
    """The rules differ by the learning rate at other widths alone, and a learning rate of 0 moves nothing."""
    found = coordinates.measure(digits, 1 / 8, (4, 0.1), (4, 16), (0,))
    lrs = {(one.rule, one.width): one.lr for one in found}
    assert [lrs[rule, 4] for rule in coordinates.RULES] == pytest.approx([0.1] * 3)
    assert [lrs[rule, 16] for rule in coordinates.RULES] == pytest.approx([0.1, 0.1 * 4**-0.25, 0.1 * 4**-0.125])
    assert len({one.changes for one in found if one.width == 4}) == 1
    assert all(len(one.changes) == len(coordinates.LAYERS) for one in found)
    assert {one.changes for one in coordinates.measure(digits, 0.0, (4, 0.0), (4,), (0,))} == {(0.0, 0.0, 0.0)}


def test_what_is_carried_is_equivalent(digits):
    """After so many steps of Adam's, by `equivalent_lr`."""
    sweeps = {p: sweep.sweep(digits, 4, p, 0.1, (0,)) for p in (1 / 8, 1 / 2)}
    found = {one.steps: one.lr for one in carry.carry(digits, sweeps, (0,))}
    assert found.keys() == {*carry.AFTER}
    _, adam = task.started(digits, sweeps[1 / 2].lr, 1 / 2, 4, 0, 10)
    assert found[10] == pytest.approx(equivalent_lr(adam, 1 / 8)[0], rel=1e-12)


def test_tasks_without_data_are_left_out(tmp_path, monkeypatch, capsys):
    """Fashion-MNIST has to be downloaded; where it cannot be, the study says so and goes on."""

    def unavailable(data_dir, steps):
        raise DataError("no network")

    monkeypatch.setattr(task, "fashion", unavailable)
    assert [one.name for one in task.available(tmp_path)] == ["digits", "text"]
    assert "left out: no network" in capsys.readouterr().out


RECORD = Path(__file__).parents[2] / "docs" / "width.json"


def test_what_the_page_says_of_carried_learning_rates():
    """On record: within 1.5 after ten steps, 1.2 after a hundred, accurate to a point; interpolated within 1.3."""
    record = load(study.Record, RECORD, "")
    assert {one.task for one in record.tuned} >= {"digits", "text"}
    accuracy = {(one.task, one.partial): one.accuracy for one in record.tuned}
    for one in record.carried:
        ratio = one.lr / record.best(one.task)[one.partial]
        assert abs(math.log(ratio)) < math.log({1: 4.7, 10: 1.5, 100: 1.2}[one.steps])
        if one.steps == 100:
            assert abs(one.accuracy - accuracy[one.task, one.partial]) < 1
    for one in record.tuned:
        assert abs(math.log(record.interpolated(one.task, one.partial) / one.lr)) < math.log(1.31)


def test_what_the_page_says_of_the_width():
    """On record: −2p is outside the intervals of p = 1/4 and 1/2, e₀ + 2pγ inside all; and how much less moves."""
    record = load(study.Record, RECORD, "")
    assert record.partials == study.PARTIALS
    for p in (1 / 4, 1 / 2):
        assert record.exponent(p).low > -2 * p
    for p in record.partials:
        fit = record.exponent(p)
        assert fit.low < record.exponent(0.0).slope + 2 * p * record.of_gradient.slope < fit.high
    narrow, *_, wide = study_report.points_of(record, "width^(−2p)", 1 / 2)
    assert narrow.changes[0] / wide.changes[0] == pytest.approx(12, abs=0.5)

    def growth(rule: str, p: float) -> list[float]:
        narrow, *_, wide = study_report.points_of(record, rule, p)
        return [after / before for before, after in zip(narrow.changes, wide.changes, strict=True)]

    assert 4.5 < max(growth("constant", p)[-1] for p in record.partials) < 5
    sgd = growth("width^(−p)", 0.0)
    for p in (1 / 8, 1 / 4):
        assert growth("width^(−p)", p) == pytest.approx(sgd, rel=0.3)
    assert all(half < 0.75 * one for half, one in zip(growth("width^(−p)", 1 / 2), sgd, strict=True))


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Calls the command line in an empty directory, with a small study; returns exit code and output."""
    monkeypatch.chdir(tmp_path)
    for name, value in SMALL.items():
        monkeypatch.setattr(study, name, value)

    monkeypatch.setattr(study, "available", lambda data_dir: (task.digits(data_dir, 5),))

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_run_then_report(call, tmp_path):
    """A record with its origin, tables on the screen, a page with its figures; `report` makes it again."""
    code, out = call("run", "width", "--data-dir", "elsewhere")
    assert code == 0
    assert (tmp_path / "elsewhere" / "digits.npz").exists()
    assert "exponent [95 %]" in out
    stored = json.loads((tmp_path / "runs/width.json").read_text())
    assert {"torch", "numpy", "device"} <= stored["environment"].keys()
    page = (tmp_path / "runs/report/width.html").read_bytes()
    assert page.count(b"<svg") == 3
    assert call("report", "width")[0] == 0
    record = load(study.Record, tmp_path / "runs/width.json", "")
    save(tmp_path / "again.json", record)
    assert json.loads((tmp_path / "again.json").read_text()) == stored
    assert [table.title for table in study_report.tables(record)] == [
        "The best learning rate by width",
        "Adam's learning rate carried to another p",
        "The coordinate check",
    ]


def test_options_without_a_meaning_are_refused(call):
    """By name; only the folder of the data sets means something to it."""
    code, out = call("run", "width", "--seeds", "3")
    assert code == 2
    assert "--seeds means nothing to width" in out
