"""Studies: what their files say is what runs, and what they get wrong is named."""

import dataclasses
import json

import pytest

from benchmarks import studies
from benchmarks.base.store import Result
from benchmarks.studies import tuning
from benchmarks.studies.study import StudyError

BASE = """
title = "A study"
seeds = 2
[run]
workload = "digits-mlp"
epochs = 3
"""


@pytest.fixture
def load(tmp_path):
    """Loads a study from text."""

    def load(text, name="study"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return studies.load(str(path))

    return load


@pytest.mark.parametrize("name", studies.names())
def test_every_study_of_the_benchmark_loads(name):
    """Each names workloads, optimizers, settings and figures that exist, and plain JSON identifies its runs."""
    study = studies.load(name)
    runs = study.runs()
    assert len({run.label for run in runs}) == len(runs)
    assert all(json.loads(json.dumps(run.config.to_dict())) == run.config.to_dict() for run in runs)


def test_quick_has_every_optimizer_and_three_seeds():
    """`make bench` compares everything there is."""
    from benchmarks.training.optimizers import REGISTRY

    study = studies.load("quick")
    assert {arm.config.optimizer for arm in study.arms} == set(REGISTRY)
    assert len(study.seeds) >= 3


def test_table_1_is_the_papers_protocol():
    """200 epochs at batch 128 with decays at 50/100/150, its five optimizers, and AdamW in both readings."""
    study = studies.load("paper-table1")
    config = study.arms[0].config
    assert (config.epochs, config.batch_size, config.milestones, config.gamma) == (200, 128, (50, 100, 150), 0.1)
    assert [arm.label for arm in study.arms] == ["sgd", "adam", "amsgrad", "adamw", "padam", "adamw-literal"]
    decays = {arm.label: arm.config.hyper["weight_decay"] for arm in study.arms}
    assert decays["adamw"] == pytest.approx(0.0894, abs=5e-5)
    assert decays["adamw-literal"] == 0.025


def test_short_protocols_are_a_quarter():
    """Each CIFAR study has a short version: 50 epochs, decays at 12, 25 and 37."""
    long = [name for name in studies.names() if name.startswith("cifar") and not name.endswith("-short")]
    assert len(long) == 6
    for name in long:
        config = studies.load(f"{name}-short").arms[0].config
        assert (config.workload, config.epochs, config.milestones) == (name, 50, (12, 25, 37))


def test_a_grid_is_the_product_of_its_axes(load):
    """Lists are axes; betas are a list, so their axis is a list of lists; what varies is in the label."""
    study = load(
        BASE
        + '[[runs]]\noptimizer = ["adam", "nadam"]\nhyper.lr = [0.1, 0.01]\nhyper.betas = [[0.9, 0.9], [0.8, 0.99]]'
    )
    assert len(study.arms) == 8
    assert study.arms[0].label == "adam,lr=0.1,betas=0.9-0.9"
    assert study.arms[-1].config.hyper["betas"] == [0.8, 0.99]
    alone = load(BASE + '[[runs]]\noptimizer = "adam"\nhyper.betas = [0.9, 0.9]').arms
    assert [arm.config.hyper["betas"] for arm in alone] == [[0.9, 0.9]]


def test_all_arms_of_a_seed_come_before_the_next(load):
    """A study cut short is still a comparison; equal seeds across arms are common random numbers."""
    study = load(BASE + '[[runs]]\noptimizer = ["sgd", "adam"]')
    assert [run.label for run in study.runs()] == ["sgd/seed0", "adam/seed0", "sgd/seed1", "adam/seed1"]
    assert [run.config.seed for run in study.runs((7,))] == [7, 7]


def test_extends_inherits_and_overrides(load):
    """[run] merges key by key, [[runs]] replaces, [[also]] adds."""
    load(BASE + '[[runs]]\noptimizer = "sgd"', "parent")
    child = load('title = "B"\nextends = "parent"\n[run]\nepochs = 9\n[[also]]\noptimizer = "adam"')
    assert [(arm.label, arm.config.epochs) for arm in child.arms] == [("sgd", 9), ("adam", 9)]
    assert (child.title, child.seeds) == ("B", (0, 1))
    replaced = load('title = "C"\nextends = "parent"\n[[runs]]\noptimizer = "adam"')
    assert [arm.label for arm in replaced.arms] == ["adam"]


def test_several_workloads_are_told_apart(load):
    """Labels carry the workload once there are two."""
    study = load(BASE.replace('"digits-mlp"', '["digits-mlp", "text-lstm"]') + '[[runs]]\noptimizer = "sgd"')
    assert [arm.label for arm in study.arms] == ["digits-mlp/sgd", "text-lstm/sgd"]


RUNS = '[[runs]]\noptimizer = "sgd"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('titel = "x"', "unknown key 'titel'; did you mean 'title'"),
        ("title = 3", "title must be str, got 3"),
        ("title = ", "not valid TOML"),
        ("seeds = 1", "title is missing"),
        ('title = "x"', "nothing to run"),
        ('title = "x"\nextends = "quik"', "unknown study 'quik'; did you mean 'quick'"),
        ('title = "x"\nextends = "study"', "leads back"),
        (BASE + '[[runs]]\noptimizer = "sdg"', "unknown optimizer 'sdg'; did you mean 'sgd'"),
        (BASE + RUNS + "epohcs = 3", "unknown key of a run 'epohcs'; did you mean 'epochs'"),
        (BASE + RUNS + 'workload = "digit-mlp"', "unknown workload 'digit-mlp'; did you mean 'digits-mlp'"),
        (BASE + RUNS + 'epochs = "3"', "epochs must be int, got '3'"),
        (BASE + RUNS + "epochs = true", "epochs must be int, got True"),
        (BASE + RUNS + "epochs = 0", "epochs must be at least 1, got 0"),
        (BASE + RUNS + "epochs = []", "epochs is an empty grid"),
        (BASE + RUNS + "hyper.lr = []", "lr is an empty grid"),
        (BASE + RUNS + "hyper.momentun = 0.1", "unknown hyperparameter 'momentun'; did you mean 'momentum'"),
        (BASE + RUNS + "gamma = 2.0", r"gamma must be in \(0, 1\], got 2.0"),
        (BASE + RUNS + 'precision = "fp16"', "precision must be one of fp32, bf16, got 'fp16'"),
        (BASE + RUNS + "milestones = [9, 3]", "milestones must be epochs in ascending order"),
        (BASE + RUNS + "hyper.normalized_weight_decay = 0.1", "normalized_weight_decay is not known for 'digits-mlp'"),
        (BASE + RUNS + "workload_options.hiden = 3", "unknown option 'hiden'"),
        (BASE + RUNS + RUNS, "two runs have the label 'sgd'"),
        ('reference = "sdg"\n' + BASE + RUNS, "unknown run 'sdg'; did you mean 'sgd'"),
        ('figures = ["eror"]\n' + BASE + RUNS, "unknown figure 'eror'; did you mean 'error'"),
        (BASE.replace("seeds = 2", "seeds = 0") + RUNS, "seeds must be a count"),
        (BASE.replace("seeds = 2", "seeds = [1, 1]") + RUNS, "seeds must be a count"),
        ("tuning = { trials = 2 }\n" + BASE + RUNS, "has 1 points, but every entry gets 2 trials"),
        ("tuning = { trials = 0 }\n" + BASE + RUNS, "trials must be at least 1"),
    ],
)
def test_mistakes_are_named(load, text, message):
    """Every mistake in a file is an error that says what and, for names, what was meant."""
    with pytest.raises(StudyError, match=message):
        load(text)


def test_an_unknown_study_is_named():
    """With the nearest one there is."""
    with pytest.raises(StudyError, match="unknown study 'paper-tabel1'; did you mean 'paper-table1'"):
        studies.load("paper-tabel1")


TUNED = (
    "tuning = { trials = 3 }\n"
    + BASE
    + '[[runs]]\noptimizer = "sgd"\nhyper.lr = [0.1, 0.2, 0.3, 0.4, 0.5]\n'
    + '[[runs]]\noptimizer = "adam"\nhyper.lr = [0.1, 0.2, 0.3]\n'
)


def result(run, *scores, status="done"):
    """A finished run with these scores."""
    epochs = tuple({"epoch": i, "test": {"running": {"top1": score}}} for i, score in enumerate(scores, start=1))
    return Result(run.config.to_dict(), "data", {}, epochs, status)


def test_tuning_gives_equal_trials_on_the_validation_split(load):
    """A larger grid is drawn from, without replacement and reproducibly; a tuned run never sees the test set."""
    runs = load(TUNED).runs(seeds=(5, 6))
    assert [run.config.optimizer for run in runs] == ["sgd"] * 3 + ["adam"] * 3
    assert len({run.config.hyper["lr"] for run in runs[:3]}) == 3
    assert {(run.config.split, run.config.seed) for run in runs} == {("validation", 0)}
    assert [run.label for run in runs] == [run.label for run in load(TUNED).runs()]


def test_tuning_refits_the_best_last_epoch(load):
    """The choice is by the last epoch, diverged trials lose, and the refit trains on everything, once per seed."""
    study = load(TUNED)
    runs = study.runs()
    scores = [(99.0, 80.0), (70.0, 90.0), (0.0, 85.0), (1.0, 50.0), (1.0, 40.0), (1.0, 30.0)]
    results = {run.label: result(run, *pair) for run, pair in zip(runs, scores, strict=True)}
    results[runs[3].label] = result(runs[3], 99.0, status="diverged")
    tuned, waiting = tuning.select(study, results)
    assert waiting == []
    assert [arm.label for arm in tuned.arms] == ["sgd", "adam"]
    for arm, trial in zip(tuned.arms, (runs[1], runs[4]), strict=True):
        assert arm.config == dataclasses.replace(trial.config, split="test")
    assert [run.label for run in tuned.runs()] == ["sgd/seed0", "adam/seed0", "sgd/seed1", "adam/seed1"]


def test_tuning_waits_for_all_trials(load):
    """An optimizer with a trial missing is not judged yet."""
    study = load(TUNED)
    runs = study.runs()
    tuned, waiting = tuning.select(study, {run.label: result(run, 50.0) for run in runs[:5]})
    assert [arm.label for arm in tuned.arms] == ["sgd"]
    assert waiting == ["adam"]
