"""The choice among trials: by what, what it waits for, and where it says that the search was too narrow."""

import dataclasses
import math

import pytest
from reports import arm, result

from benchmarks import studies
from benchmarks.base.records import Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.report import results
from benchmarks.report.sections import choices
from benchmarks.studies import tuning
from benchmarks.studies.study import StudyError, Tuning

TUNED = """
title = "Tuned"
seeds = 2
tuning = { trials = 3, seeds = 2, apart = true }
run = { workload = "digits-mlp", epochs = 3, recalibrate = 0 }
[[runs]]
optimizer = "sgd"
hyper.lr = [0.1, 0.2, 0.3]
[[runs]]
optimizer = "adam"
hyper.lr = [0.01, 0.02, 0.03]
"""


@pytest.fixture
def load(tmp_path):
    """Loads a study from text."""

    def load(text):
        (tmp_path / "study.toml").write_text(text)
        return studies.load(str(tmp_path / "study.toml"))

    return load


def finished(study, scores):
    """The results of all trials, given the scores of each arm by seed."""
    runs = {}
    for i, run in enumerate(study.runs()):
        seed, place = divmod(i, len(study.arms))
        runs[run.label] = result(run.config, (99.0, scores[place][seed]))
    return runs


def test_several_seeds_are_averaged(load):
    """Neither the luckiest seed wins nor the best epoch: sgd's second trial has the best mean of last epochs."""
    study = load(TUNED)
    scores = [(99.0, 80.0), (90.0, 91.0), (95.0, 10.0), (50.0, 50.0), (40.0, 40.0), (60.0, 10.0)]
    tuned, waiting = tuning.select(study, finished(study, scores))
    assert waiting == []
    assert [one.config.hyper["lr"] for one in tuned.arms] == [0.2, 0.01]
    assert [one.config.split for one in tuned.arms] == ["test", "test"]
    assert [run.label for run in tuned.runs()] == ["sgd/seed0", "adam/seed0", "sgd/seed1", "adam/seed1"]


def test_the_first_of_equal_trials_wins(load):
    """A choice does not hang on the order of a dictionary."""
    study = load(TUNED)
    tuned, _ = tuning.select(study, finished(study, [(90.0, 90.0)] * 6))
    assert [one.config.hyper["lr"] for one in tuned.arms] == [0.1, 0.01]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_trial_that_diverged_with_any_seed_loses(load, seed):
    """Against every other, however well its other runs did."""
    study = load(TUNED)
    best = [100.0, 100.0]
    best[seed] = math.nan
    tuned, _ = tuning.select(study, finished(study, [best, (2.0, 2.0), (1.0, 1.0), *[(5.0, 5.0)] * 3]))
    assert tuned.arms[0].config.hyper["lr"] == 0.2


def test_a_trial_that_its_last_step_ruined_loses(load):
    """Its score is a number, its loss on what was held out is none: the report does not count it as sound either."""
    study = load(TUNED)
    trials = finished(study, [(100.0, 100.0), (2.0, 2.0), (1.0, 1.0), *[(5.0, 5.0)] * 3])
    label = study.runs()[0].label
    last = Epoch(epoch=3, test=Evaluation({"top1": 100.0, "loss": None}))
    trials[label] = dataclasses.replace(trials[label], epochs=(last,))
    tuned, _ = tuning.select(study, trials)
    assert tuned.arms[0].config.hyper["lr"] == 0.2


def test_lower_is_better_where_it_is(load):
    """Of a loss or a perplexity the smallest mean wins."""
    study = load(TUNED.replace("digits-mlp", "text-lstm"))
    tuned, _ = tuning.select(study, finished(study, [(3.0, 3.0), (2.0, 2.5), (1.0, 4.0), *[(5.0, 5.0)] * 3]))
    assert tuned.arms[0].config.hyper["lr"] == 0.2


def test_an_entry_waits_for_every_seed_of_every_trial(load):
    """One missing run of one trial, and nothing is chosen for this entry; the other one goes on."""
    study = load(TUNED)
    runs = finished(study, [(1.0, 1.0)] * 6)
    del runs["adam,lr=0.02/seed1000001"]
    tuned, waiting = tuning.select(study, runs)
    assert [one.label for one in tuned.arms] == ["sgd"]
    assert waiting == ["adam"]


def test_a_chosen_arm_keeps_the_title_of_its_entry(load):
    """Two entries of one optimizer are told apart by the titles that they were given."""
    titled = TUNED.replace('"adam"', '"sgd"\nlabel = "small"\ntitle = "SGD (small steps)"')
    tuned, _ = tuning.select(load(titled), finished(load(titled), [(1.0, 1.0)] * 6))
    assert [(one.label, one.title) for one in tuned.arms] == [
        ("sgd", "SGD (momentum)"),
        ("small", "SGD (small steps)"),
    ]


def test_seeds_of_trials(load):
    """Consecutive from `seed`, as ever; kept apart they are none that a study has."""
    assert Tuning(3).trial_seeds == (0,)
    assert Tuning(3, seed=4, seeds=3).trial_seeds == (4, 5, 6)
    assert Tuning(3, seed=4, seeds=2, apart=True).trial_seeds == (1_000_004, 1_000_005)
    study = load(TUNED)
    assert not set(study.seeds) & {run.config.seed for run in study.runs()}
    assert study.runs(seeds=(7,)) == study.runs()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ trials = 0 }", r"\[tuning\].trials: must be a whole number of at least 1, got 0"),
        ("{ trials = 3, seeds = 0 }", r"\[tuning\].seeds: must be a whole number from 1 to 10,000, got 0"),
        ("{ trials = 3, seed = -1 }", r"\[tuning\].seed: must be a whole number of at least 0, got -1"),
        ("{ seeds = 2 }", r"\[tuning\].trials: is missing"),
        ("{ trials = 3, apart = 1 }", r"\[tuning\].apart: must be true or false, got 1"),
    ],
)
def test_mistakes_in_tuning_are_named(load, text, message):
    """Each says which key, what it got and what is allowed."""
    with pytest.raises(StudyError, match=message):
        load(TUNED.replace("{ trials = 3, seeds = 2, apart = true }", text))


def trials(**axes):
    """Trials along these axes, one for each place of their values."""
    return [
        arm(f"x,{i}", point=dict(zip(axes, values, strict=True)))
        for i, values in enumerate(zip(*axes.values(), strict=True))
    ]


@pytest.mark.parametrize(
    ("axes", "chosen", "expected"),
    [
        ({"lr": [0.1, 0.2, 0.3]}, 1, []),
        ({"lr": [0.1, 0.2, 0.3]}, 2, [("lr", 0.3, True)]),
        ({"lr": [0.1, 0.2, 0.3]}, 0, [("lr", 0.1, False)]),
        ({"lr": [0.1, 0.2, 0.3], "momentum": [0.9, 0.5, 0.99]}, 2, [("lr", 0.3, True), ("momentum", 0.99, True)]),
        ({"lr": [0.2, 0.1, 0.3], "batch_size": [64, 32, 32]}, 0, [("batch_size", 64, True)]),
        ({"betas": [[0.9, 0.9], [0.9, 0.99], [0.9, 0.999]]}, 2, [("betas[1]", 0.999, True)]),
        ({"partial": [0.0, 0.25, 0.5]}, 0, []),
        ({"partial": [0.0, 0.25, 0.5]}, 2, []),
        ({"partial": [0.0, 0.125, 0.25]}, 2, [("partial", 0.25, True)]),
        ({"weight_decay": [0.0, 1e-4, 5e-4]}, 0, []),
        ({"workload": ["a", "b", "c"], "nesterov": [True, False, False]}, 0, []),
        ({"lr": [0.1, 0.1, 0.1]}, 0, []),
    ],
)
def test_a_choice_at_the_edge_is_flagged(axes, chosen, expected):
    """The smallest or largest tried, list by list; not where nothing lies beyond, nor what is no number."""
    candidates = trials(**axes)
    found = tuning.edges(candidates[chosen], candidates)
    assert [(edge.name, edge.value, edge.largest) for edge in found] == expected


def test_the_table_says_what_to_widen(load, tmp_path):
    """From the store to the table: the chosen setting, its mean validation score, and the edge that is set off."""
    study, store = load(TUNED), Store(tmp_path / "runs")
    scores = [(10.0, 10.0), (20.0, 20.0), (30.0, 40.0), (5.0, 5.0), (6.0, 6.0), (math.nan, 1.0)]
    for label, run in finished(study, scores).items():
        config = next(one.config for one in study.runs() if one.label == label)
        store.write(config, "data", {}, run.epochs)
    (table,) = choices.tables(results.collect(study, store))
    assert table.texts == [
        ["SGD (momentum)", "lr=0.3", "35.00", "3", "0", "lr: 0.3 is the largest tried"],
        ["Adam", "lr=0.02", "6.00", "3", "1", "–"],
    ]
    assert [row.cells[-1].mark for row in table.rows] == ["flagged", ""]
    assert any("To widen" in note for note in table.notes)


def test_other_seeds_of_a_trial_do_not_count(load, tmp_path):
    """A run of the same setting that another study made with another seed has no part in choice or table."""
    study, store = load(TUNED), Store(tmp_path / "runs")
    for label, run in finished(study, [(10.0, 10.0), (20.0, 20.0), (15.0, 15.0), *[(5.0, 5.0)] * 3]).items():
        config = next(one.config for one in study.runs() if one.label == label)
        store.write(config, "data", {}, run.epochs)
    other = load(TUNED.replace("apart = true", "seed = 3"))
    stray = next(run for run in other.runs() if run.label == "sgd,lr=0.2/seed3")
    store.write(stray.config, "data", {}, result(stray.config, (0.0, 0.0)).epochs)
    (table,) = choices.tables(results.collect(study, store))
    assert table.texts[0][:3] == ["SGD (momentum)", "lr=0.2", "20.00"]
