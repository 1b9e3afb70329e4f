"""Search spaces: equal budgets of points that are spread evenly, readable, and never change once they have been run."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import studies
from benchmarks.studies import spaces
from benchmarks.studies.spaces import Choices, Range
from benchmarks.studies.study import StudyError, Tuning

FROZEN = json.loads((Path(__file__).parent.parent / "fixtures" / "tuned_trials.json").read_text())
LR = Range(1e-4, 1.0, log=True)


@pytest.mark.parametrize("name", FROZEN)
def test_trials_of_released_studies_stay_what_they_are(name):
    """Labels, order and identities are those of before there were ranges, so that old stores are found again."""
    found = {run.label: run.config.identity("data") for run in studies.load(name).runs()}
    assert list(found.items()) == list(FROZEN[name].items())


def test_the_first_points_of_the_sequence_stay_what_they_are():
    """A run's identity hangs on them: another scipy or numpy must not move them."""
    axes = {"lr": LR, "momentum": Choices((0.0, 0.9, 0.99))}
    points = spaces.points(axes, Tuning(6), "sgd")
    assert [tuple(point.values()) for point in points] == [
        (0.00436, 0.99),
        (0.0772, 0.0),
        (0.416, 0.9),
        (0.000739, 0.9),
        (0.000228, 0.99),
        (0.128, 0.9),
    ]


axis = st.one_of(
    st.builds(Range, st.just(1e-5), st.sampled_from([1e-2, 1.0, 30.0]), st.just(True)),
    st.builds(Range, st.sampled_from([-1.0, 0.0]), st.sampled_from([0.9, 5.0])),
    st.builds(Range, st.just(1), st.integers(12, 900), st.booleans(), st.just(True)),
    st.integers(1, 4).map(lambda count: list(range(count))),
    st.integers(2, 5).map(lambda count: Choices(tuple(map(str, range(count))))),
)
searched = st.lists(axis, min_size=1, max_size=4).map(
    lambda found: {"lr": LR, **dict(zip("abcd", found, strict=False))}
)


@settings(max_examples=60, deadline=None)
@given(searched, st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**40))
def test_a_larger_budget_only_adds_trials(axes, trials, more, seed):
    """The points of a budget come first among those of a larger one, all of them different, as many as asked for."""
    few, many = (spaces.points(axes, Tuning(count, seed), "x") for count in (trials, trials + more))
    assert many[:trials] == few
    assert len({repr(point) for point in many}) == len(many) == trials + more


@settings(max_examples=60, deadline=None)
@given(axis.filter(lambda found: isinstance(found, Range)), st.floats(0, 1, exclude_max=True))
def test_a_point_lies_in_its_range_and_is_short(found, unit):
    """Within both ends, whole where asked, and no more than four digits to read in a label."""
    value = found.at(unit)
    assert found.low <= value <= found.high
    assert isinstance(value, int) == found.whole
    assert len(re.sub(r"e.*|^-|^0\.0*|\.", "", f"{value:g}")) <= 4


@pytest.mark.parametrize("log", [True, False])
def test_the_marginal_is_uniform_in_the_scale_of_the_range(log):
    """Of 64 points each sixteenth of the range, in its own scale, gets four but for rounding; random ones would not."""
    found = Range(1e-4, 1.0, log=log)
    values = np.array([point["lr"] for point in spaces.points({"lr": found, "other": LR}, Tuning(64), "x")])
    scaled = np.log(values / 1e-4) / math.log(1e4) if log else (values - 1e-4) / (1 - 1e-4)
    distance = np.abs(np.sort(scaled) - (np.arange(64) + 0.5) / 64).max()
    assert distance < 1 / 64 + 1e-3


def test_entries_share_their_random_numbers():
    """With as many axes, two entries are tried at the same places of their own ranges."""
    other = Range(1e-2, 10.0, log=True)
    first, second = (spaces.points({"lr": found, "b": [1, 2, 3]}, Tuning(16), "x") for found in (LR, other))
    places = [
        [math.log(p["lr"] / r.low) / math.log(r.high / r.low) for p in ps] for ps, r in ((first, LR), (second, other))
    ]
    assert places[0] == pytest.approx(places[1], abs=1e-3)
    assert [point["b"] for point in first] == [point["b"] for point in second]


def test_a_seed_moves_the_points():
    """Another seed is another draw."""
    assert spaces.points({"lr": LR}, Tuning(8, seed=1), "x") != spaces.points({"lr": LR}, Tuning(8), "x")


def test_whole_numbers_and_steps_are_equally_likely():
    """The ends count as much as what lies between, and steps come out without the noise of adding them up."""
    units = np.linspace(0, 1, 400, endpoint=False)
    assert [[Range(1, 4, whole=True).at(u) for u in units].count(k) for k in (1, 2, 3, 4)] == [100] * 4
    steps = [Range(0.1, 0.7, step=0.2).at(u) for u in units]
    assert [steps.count(k) for k in (0.1, 0.3, 0.5, 0.7)] == [100] * 4
    assert {type(Range(8, 32, step=8).at(u)) for u in units} == {int}
    logarithmic = [Range(1, 3, log=True, whole=True).at(u) for u in units]
    shares = [math.log((k + 0.5) / (k - 0.5)) / math.log(3.5 / 0.5) for k in (1, 2, 3)]
    assert [logarithmic.count(k) / 400 for k in (1, 2, 3)] == pytest.approx(shares, abs=1 / 200)


def test_the_ends_of_a_range_are_kept():
    """Rounding does not lead out of it, however many digits its ends have."""
    for log in (True, False):
        found = Range(0.0012345, 0.0098766, log=log)
        assert (found.at(0.0), found.at(1 - 1e-12)) == (found.low, found.high)


@pytest.mark.parametrize("count", [3, 6, 9])
def test_a_small_space_is_exhausted(count):
    """Where there are just as many points as trials, the sequence goes on until each has come."""
    axes = (
        {"a": Choices(("x", "y", "z")), "b": Range(1, count // 3, whole=True)}
        if count > 3
        else {"a": Choices((1, 2, 3))}
    )
    assert len({repr(point) for point in spaces.points(axes, Tuning(count), "x")}) == count


def test_lists_alone_are_a_grid():
    """Without ranges all points, or a draw without replacement; as it was before there were ranges."""
    axes = {"lr": [1, 2, 3], "p": [4, 5]}
    grid = [{"lr": lr, "p": p} for lr in (1, 2, 3) for p in (4, 5)]
    assert spaces.points(axes, None, "x") == grid
    assert spaces.points(axes, Tuning(6), "x") == grid
    drawn = spaces.points(axes, Tuning(4), "x")
    assert len({repr(point) for point in drawn}) == 4
    assert all(point in grid for point in drawn)


def test_what_a_file_may_say():
    """Ranges are logarithmic where they can be, and what is no range stays itself."""
    assert spaces.parse({"low": 1e-4, "high": 1}, "lr") == LR
    assert spaces.parse({"low": 0, "high": 1}, "lr") == Range(0, 1)
    assert spaces.parse({"low": 0.5, "high": 0.9, "log": False}, "lr") == Range(0.5, 0.9)
    assert spaces.parse({"low": 1.0, "high": 8.0, "whole": True}, "heads") == Range(1, 8, log=True, whole=True)
    assert spaces.parse({"low": 16, "high": 64, "step": 16}, "batch_size") == Range(16, 64, step=16)
    assert spaces.parse({"choices": [[1, 2], [3]]}, "betas") == Choices(([1, 2], [3]))
    for value in ({"width": 0.5}, 3, [1, 2], "low"):
        assert spaces.parse(value, "x") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"low": 1, "hihg": 2}, "lr: unknown key of a range 'hihg'; did you mean 'high'"),
        ({"low": 1}, "lr: a range needs low < high"),
        ({"low": 2, "high": 1}, "lr: a range needs low < high"),
        ({"low": math.nan, "high": 1}, "lr: low must be a finite number, got nan"),
        ({"low": "a", "high": 1}, "lr: low must be a finite number, got 'a'"),
        ({"low": False, "high": 1}, "lr: low must be a finite number, got False"),
        ({"low": 0, "high": 1, "log": True}, "lr: log needs low > 0 and no step"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "lr: log needs low > 0 and no step"),
        ({"low": 1, "high": 9, "log": 1}, "lr: log must be true or false, got 1"),
        ({"low": 1, "high": 2, "step": 3}, r"lr: step must be in \(0, high - low\], got 3"),
        ({"low": 1, "high": 2, "step": -1}, r"lr: step must be in \(0, high - low\], got -1"),
        ({"low": 1.5, "high": 3, "whole": True}, "lr: whole numbers need a whole low, high and step"),
        ({"choices": []}, "lr: choices must be a list of at least one value"),
        ({"choices": [1], "low": 2}, "lr: choices must be a list of at least one value and stand alone"),
    ],
)
def test_mistakes_in_a_range_are_named(value, message):
    """Each says which hyperparameter, what it got and what is allowed."""
    with pytest.raises(StudyError, match=message):
        spaces.parse(value, "lr")


def test_a_budget_that_cannot_be_equal_is_refused():
    """A space with less points than trials, and a range where nothing draws from it."""
    with pytest.raises(StudyError, match="grid of 'sgd' has 4 points, but every entry gets 5 trials"):
        spaces.points({"a": Choices((1, 2)), "b": [1, 2]}, Tuning(5), "sgd")
    with pytest.raises(StudyError, match="grid of 'sgd' has 101 points, but every entry gets 200 trials"):
        spaces.points({"lr": Range(1.0, 1.1, log=True)}, Tuning(200), "sgd")
    with pytest.raises(StudyError, match=r"'sgd': lr is a range, which only \[tuning\] draws from"):
        spaces.points({"lr": LR}, None, "sgd")


def test_a_study_draws_from_ranges(tmp_path):
    """Any numeric field may be a range beside lists and fixed values; labels say what was drawn, arms know it."""
    (tmp_path / "s.toml").write_text("""
        title = "x"
        tuning = { trials = 8, seeds = 2, apart = true }
        run = { workload = "digits-mlp", epochs = { low = 2, high = 5, whole = true }, recalibrate = 0 }
        [[runs]]
        optimizer = ["adam", "amsgrad"]
        hyper = { lr = { low = 1e-4, high = 1e-1 }, betas = { choices = [[0.9, 0.9], [0.9, 0.99]] }, eps = 1e-6 }
        [[runs]]
        optimizer = "padam"
        hyper = { lr = { low = 1e-2, high = 10 }, partial = [0.25, 0.125] }
    """)
    study = studies.load(str(tmp_path / "s.toml"))
    assert [sum(arm.group == group for arm in study.arms) for group in ("adam", "amsgrad", "padam")] == [8, 8, 8]
    for arm in study.arms:
        assert set(arm.point) == {"epochs", "lr", "partial" if arm.group == "padam" else "betas"}
        assert arm.point["epochs"] == arm.config.epochs
        assert arm.point["lr"] == arm.config.hyper["lr"]
        assert f",lr={arm.point['lr']:g}," in arm.label
    assert [run.config.seed for run in study.runs()] == [1_000_000] * 24 + [1_000_001] * 24


def test_the_shipped_study_gives_equal_trials():
    """Sixteen for each of its six optimizers, over as many decades of learning rate, with seeds of their own."""
    study = studies.load("tuned-quick")
    groups = {arm.group for arm in study.arms}
    assert groups == {"sgd", "adam", "amsgrad", "adamw", "padam", "partial_adam"}
    for group in groups:
        rates = [arm.point["lr"] for arm in study.arms if arm.group == group]
        assert len(rates) == 16
        assert 3.5 < math.log10(max(rates) / min(rates)) <= 4
    assert not set(study.seeds) & {run.config.seed for run in study.runs()}


def test_spaces_load_without_scipy():
    """Listing studies must stay quick: scipy is imported once a range is drawn from."""
    code = "import sys, benchmarks.studies.spaces; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
