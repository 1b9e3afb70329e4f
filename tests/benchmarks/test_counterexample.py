"""The counter-examples of Reddi, Kale and Kumar: what is derived is what is played, and the library plays it so."""

import json
import re

import numpy as np
import pytest

from benchmarks import cli
from benchmarks.theory import counterexample
from benchmarks.theory.record import load, save
from benchmarks.theory.regret import drift
from benchmarks.theory.regret.cycles import gradients, library_path, measured_critical, path

CRITICAL = {3.0: 0.2246, 5.0: 0.3202, 10.0: 0.3767}


def recursion(cycle, cycles):
    """The average v after every round."""
    v, found = 0.0, []
    for g in gradients(cycle, cycles * cycle.length).tolist():
        v = cycle.beta * v + (1 - cycle.beta) * g * g
        found.append(v)
    return np.array(found)


@pytest.mark.parametrize("c", [2.1, *CRITICAL, 30.0])
def test_averages_of_the_short_cycle(c):
    """The v when it has been going on for long, from the recursion and in the form in which one derives it by hand."""
    cycle = drift.short(c)
    np.testing.assert_allclose(cycle.averages(), recursion(cycle, 30)[-3:], rtol=1e-13)
    beta, square = cycle.beta, c * c
    sums = np.array([square + beta + beta**2, 1 + beta * square + beta**2, 1 + beta + beta**2 * square])
    np.testing.assert_allclose(cycle.averages(), sums * (1 - beta) / (1 - beta**3), rtol=1e-13)


def test_averages_of_the_long_cycle():
    """The same of a cycle of ten rounds with β₂ = 0.9."""
    cycle = drift.long(10, 0.9)
    np.testing.assert_allclose(cycle.averages(), recursion(cycle, 60)[-10:], rtol=1e-13)


@pytest.mark.parametrize(("c", "p"), CRITICAL.items())
def test_critical_p_in_theory_and_practice(c, p):
    """Four digits of the derived one, three of the one that played paths give."""
    cycle = drift.short(c)
    assert cycle.critical() == pytest.approx(p, abs=5e-5)
    assert cycle.pull(cycle.critical()) == pytest.approx(0, abs=1e-12)
    assert measured_critical(cycle) == pytest.approx(cycle.critical(), abs=5e-4)


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("cycle", [drift.short(3.0), drift.short(10.0), drift.long(20)], ids=str)
def test_numpy_plays_what_the_library_plays(cycle, maximum):
    """Point by point, walls included."""
    own, numpys = (play(cycle, 0.3, 1.0, 600, maximum=maximum) for play in (library_path, path))
    np.testing.assert_allclose(own, numpys, rtol=0, atol=1e-13)
    assert own.min() == -1.0


@pytest.mark.parametrize("c", CRITICAL)
def test_ends_of_the_library(c):
    """Just below the critical p both go to −1, just above it and at p = 1/2 only the optimizer with the maximum."""
    cycle, p = drift.short(c), drift.short(c).critical()
    for partial, wrong in ((p - 0.04, False), (p + 0.04, True), (0.5, True)):
        average, maximum = (library_path(cycle, partial, 1.0, 1_200, maximum=kind)[-1] for kind in (False, True))
        assert average == pytest.approx(1 if wrong else -1, abs=0.06)
        assert maximum == pytest.approx(-1, abs=0.06)


def test_limits_of_the_critical_p():
    """Linear in C − 2 at first, with the derived slope; in the end 1/2 less log(1 + 1/√2)/(2·log C)."""
    for c, digits in ((2.01, 2e-2), (2.001, 2e-3), (2.0001, 2e-4)):
        assert drift.near_two(c) == pytest.approx(drift.short(c).critical(), rel=digits)
    off = [1 - (0.5 - drift.far_out(c)) / (0.5 - drift.short(c).critical()) for c in (1e2, 1e4, 1e8)]
    assert 0.05 > off[0] > off[1] > off[2] > 0
    found = [drift.short(c).critical() for c in np.geomspace(0.01, 1e6, 50) + 2]
    assert found == sorted(found)
    assert 0 < found[0] < found[-1] < 0.5


@pytest.mark.parametrize("p", [1 / 16, 1 / 8, 1 / 4, 0.45])
def test_small_p_fails_near_two(p):
    """Below the C that `fails_below` gives the average goes the wrong way, above it the right way."""
    c = drift.fails_below(p)
    assert c > 2
    assert drift.short(c - 1e-3 * (c - 2)).pull(p) < 0 < drift.short(c + 1e-3 * (c - 2)).pull(p)


def test_a_longer_cycle_defeats_a_small_p():
    """At the usual β₂ = 0.999 and C = 150 an average with p = 1/8 ends at +1, but not with the maximum, or p = 1/16.

    The critical p is about 2/((1−β₂)C²).
    """
    cycle = drift.long(150)
    assert cycle.critical() == pytest.approx(2 / (0.001 * 150**2), rel=0.02)
    for p, maximum, wrong in ((1 / 8, False, True), (1 / 8, True, False), (1 / 16, False, False)):
        end = path(cycle, p, 1.0, 150_000, maximum=maximum)[-1]
        assert end > 0.9 if wrong else end < -0.5


@pytest.fixture
def short_study(monkeypatch):
    """The study over fewer rounds and values of C."""
    monkeypatch.setattr(counterexample, "MEASURED", (3.0,))
    monkeypatch.setattr(counterexample, "LONG", (50,))
    for name in ("LIBRARY_ROUNDS", "ROUNDS", "LONG_CYCLES"):
        monkeypatch.setattr(counterexample, name, 60)


@pytest.mark.usefixtures("short_study")
def test_records_are_read_as_they_were_written(tmp_path):
    """Every digit."""
    record = counterexample.run({"torch": "2"})
    save(tmp_path / "record.json", record)
    assert load(counterexample.Record, tmp_path / "record.json", "") == record
    assert record.difference < 1e-13


@pytest.mark.usefixtures("short_study")
def test_run_then_report(tmp_path, monkeypatch, capsys):
    """A record with its origin, tables on the screen, a page with its figures; `report` makes the same page again."""
    monkeypatch.chdir(tmp_path)

    def files():
        """The bytes of the report's files, without the page's date."""
        directory = tmp_path / "runs/report"
        return {
            str(path.relative_to(directory)): re.sub(rb'<p class="made">.*?</p>', b"", path.read_bytes())
            for path in sorted(directory.rglob("*.*"))
        }

    assert cli.main(["run", "counterexample", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "| 3   | 0.10000 | 8.2072 | 1.7207 | 1.0721 |                0.2246 |" in out
    assert str(tmp_path / "runs/report/counterexample.html") in out
    record = json.loads((tmp_path / "runs/counterexample.json").read_text())
    assert record["environment"]["threads"] == 1
    first = files()
    assert first.keys() >= {"counterexample.html", "counterexample.md", "counterexample/ends.svg"}
    assert first["counterexample.html"].count(b"<svg") == 2
    assert cli.main(["report", "counterexample"]) == 0
    assert files() == first
