"""Studies: what their files say is what runs, and what they get wrong is named."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from benchmarks import studies
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Result
from benchmarks.studies import tuning
from benchmarks.studies.study import StudyError
from benchmarks.training import optimizers

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
    """`make bench` compares everything there is in this torch."""
    from benchmarks.training.optimizers import REGISTRY

    study = studies.load("quick")
    assert {arm.config.optimizer for arm in study.arms} == {name for name in REGISTRY if not REGISTRY[name].missing}
    assert len(study.left_out) == sum(bool(entry.missing) for entry in REGISTRY.values())
    assert len(study.seeds) >= 3


def test_what_an_older_torch_does_not_have_is_left_out(monkeypatch):
    """With its reason, and the rest of the study is as it was."""
    from benchmarks.training import catalogue

    whole = studies.load("quick")
    monkeypatch.setattr(catalogue.importlib.metadata, "version", lambda name: "2.8.1+cpu")
    study = studies.load("quick")
    assert study.left_out == ("muon needs torch 2.9, this is 2.8.1+cpu",)
    assert [arm for arm in whole.arms if arm.label != "muon"] == list(study.arms)


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
    """Each CIFAR study of the paper's has a short version: 50 epochs, decays at 12, 25 and 37."""
    nets = ("vgg16", "resnet18", "wrn16-4")
    long = [name for name in studies.names() if name.startswith("cifar") and name.endswith(nets)]
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
    assert load('title = "B"\nextends = "parent.toml"').arms[0].label == "sgd"  # as `run` takes it
    replaced = load('title = "C"\nextends = "parent"\n[[runs]]\noptimizer = "adam"')
    assert [arm.label for arm in replaced.arms] == ["adam"]


def test_several_workloads_are_told_apart(load):
    """Labels carry the workload once there are two."""
    study = load(BASE.replace('"digits-mlp"', '["digits-mlp", "text-lstm"]') + '[[runs]]\noptimizer = "sgd"')
    assert [arm.label for arm in study.arms] == ["digits-mlp/sgd", "text-lstm/sgd"]


RUNS = '[[runs]]\noptimizer = "sgd"\n'


SGD = "study.toml: [[runs]][0]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "study.toml: is not valid TOML: Invalid value (at"),
        ("seeds = 1", "study.toml: title: is missing"),
        ('title = "x"', "study.toml: [[runs]]: there is nothing to run"),
        ('title = "x"\nextends = "quik"', "study.toml: extends: unknown study 'quik'; did you mean 'quick'"),
        ('title = "x"\nextends = "study"', "study.toml: extends: leads back to 'study'"),
        ('title = "x"\nextends = "\\u0000"', "study.toml: extends: unknown study '\\x00'"),
        (BASE.replace("epochs = 3", "") + RUNS, f"{SGD}.epochs: is missing"),
        (BASE + '[[runs]]\noptimizer = "sdg"', f"{SGD}.optimizer: unknown optimizer 'sdg'; did you mean 'sgd'"),
        (BASE + RUNS + 'workload = "digit-mlp"', f"{SGD}.workload: unknown workload 'digit-mlp'; did you mean 'digits"),
        (BASE + RUNS + 'preset = "papr"', f"{SGD}.preset: unknown preset 'papr'; did you mean 'paper'"),
        (BASE + RUNS + 'preset = "paper-siblings"', f"{SGD}.preset: 'paper-siblings' has no setting for 'sgd'"),
        (
            BASE + RUNS + "hyper.momentun = 0.1",
            f"{SGD}.hyper.momentun: sgd: unknown hyperparameter 'momentun'",
        ),
        (BASE + RUNS + "hyper.momentum = -0.5", f"{SGD}.hyper.momentum: sgd: Invalid momentum value: -0.5"),
        (BASE + RUNS + "hyper.maximize = true", f"{SGD}.hyper.maximize: is not for a study to set"),
        (BASE + '[[runs]]\noptimizer = "adam"\nhyper = { lr = 0.1, betas = [0.9] }', f"{SGD}.hyper.betas: adam"),
        (BASE + '[[runs]]\noptimizer = "padam"\nhyper = { lr = 0.1, betas = [0.9] }', f"{SGD}.hyper.betas: padam"),
        (
            BASE + RUNS + "data = 'os:getcwd'\nhyper.normalized_weight_decay = 0.1",
            f"{SGD}.hyper.normalized_weight_decay: is not known for",
        ),
        (BASE + RUNS + "workload_options.hiden = 3", f"{SGD}.workload_options.hiden: unknown option 'hiden'"),
        (BASE + RUNS + "data_options.n = 3", f"{SGD}.data_options: are options of data, which is missing"),
        (
            BASE + RUNS + "schedules.lr = { kind = 'cosine', warmpu = 1 }",
            f"{SGD}.schedules.lr.warmpu: no option",
        ),
        (BASE + RUNS + "schedules.p.kind = 'constant'", f"{SGD}.schedules.p: sgd has no such number"),
        (
            BASE + RUNS + "schedules.weight_decay = { kind = 'linear', to = -0.5 }",
            f"{SGD}.schedules.weight_decay: sgd:",
        ),
        (BASE + RUNS + "groups = [{ match = 'biases', lrr = 1 }]", f"{SGD}: sgd: unknown hyperparameter 'lrr'"),
        (BASE + RUNS + "groups = [{ lr = 1.0 }]", f"{SGD}.groups[0].match: must be a role"),
        (BASE + RUNS + "model = 'torch.nn:Linear'", f"{SGD}.workload_options.in_features: is missing"),
        (BASE + RUNS + "workload = 'classification'", f"{SGD}.workload: classification needs a model of your own"),
        (
            BASE + RUNS + "workload_options.hidden = -3",
            f"{SGD}.workload_options.hidden: option hidden of",
        ),
        (BASE + RUNS + "milestones = [1]\nschedules.lr.kind = 'cosine'", f"{SGD}.schedules.lr: excludes milestones"),
        (BASE + RUNS + RUNS, "[[runs]][1]: two runs have the label 'sgd': give one of them another `label` (the other"),
        ('reference = "sdg"\n' + BASE + RUNS, "study.toml: reference: unknown run 'sdg'; did you mean 'sgd'"),
        (
            "tuning = { trials = 2 }\n" + BASE + RUNS,
            "[[runs]][0]: the grid of 'sgd' has 1 points, but every entry gets 2",
        ),
        ("tuning = { trials = 1 }\n" + BASE + RUNS + "split = 'test'", f"{SGD}.split: is set by [tuning]"),
        (BASE + RUNS + f"epochs = {list(range(1, 1000))}\nhyper.lr = {list(range(999))}", "998,001 points, of at most"),
    ],
)
def test_mistakes_are_named(load, text, message):
    """What a file gets wrong is an error in one line that says where, what and, for names, what was meant."""
    with pytest.raises(StudyError) as error:
        load(text)
    assert str(error.value).startswith("study study.toml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_is_where_it_was_made(load):
    """What is inherited is wrong in the file, and the table, that says it."""
    with pytest.raises(StudyError, match=r"^study parent.toml: \[run\].hyper.momentum: sgd: Invalid momentum"):
        load(BASE + "hyper.lr = 0.1\nhyper.momentum = -1\n" + RUNS, "parent")
    with pytest.raises(StudyError, match=r"^study parent.toml: \[run\].hyper.momentum: sgd: Invalid momentum"):
        load('title = "B"\nextends = "parent"\nrun.hyper.lr = 0.2\n' + RUNS, "child")


def test_a_file_of_another_encoding_is_named(tmp_path):
    """UTF-8 is what TOML is written in."""
    path = tmp_path / "latin.toml"
    path.write_bytes('title = "Größe"'.encode("latin-1"))
    with pytest.raises(StudyError, match=r"^study latin.toml: is not UTF-8: byte 11 is 0xf6"):
        studies.load(str(path))


def test_extends_may_not_go_round(load):
    """Over any number of files."""
    load(BASE + RUNS, "a")  # so that it is there
    load('title = "b"\nextends = "a"', "b")
    with pytest.raises(StudyError, match=r"^study b.toml: extends: leads back to 'a'"):
        load('title = "a"\nextends = "b"', "a")


def test_titles_may_be_anything(load):
    """Dollar signs, braces, and every script."""
    text = "$a_1$ {x} 部分自适应 \\N"
    study = load(f"title = '{text}'\nrun = {{ workload = 'digits-mlp', epochs = 1 }}\n{RUNS}title = '{text}'")
    assert (study.title, study.arms[0].title) == (text, text)


def test_studies_of_before_are_the_same_runs():
    """A run is found by the hash of its configuration: it must not change, or every old result is lost."""
    frozen = json.loads((Path(__file__).parent.parent / "fixtures" / "studies.json").read_text())
    assert len(frozen) >= 38
    changed = []
    for name, labels in frozen.items():
        arms = {arm.label: arm for arm in studies.load(name).arms}
        for label, digests in labels.items():
            configs = [config for config in (arms[label].config, arms[label].refit) if config is not None]
            texts = [json.dumps(config.to_dict(), sort_keys=True) for config in configs]
            if digests != " ".join(hashlib.sha256(text.encode()).hexdigest()[:12] for text in texts):
                changed.append((name, label))
    assert changed == []


def test_new_keys_reach_the_configuration(load):
    """As they are, numbers as floats; `schedules` is inherited key by key; their lists are axes."""
    load(BASE + "schedules.lr = { kind = 'cosine', warmup = 0.05 }\n" + RUNS, "parent")
    arms = load(
        'title = "B"\nextends = "parent"\n'
        + RUNS
        + "clip_norm = 1\nlabel_smoothing = 0.1\nema = [0.9, 0.99]\nprecision = 'fp16'\n"
        + "groups = [{ match = 'biases', weight_decay = 0.0 }]\n"
        + "schedules.momentum = [{ kind = 'linear', to = 0.5 }, { kind = 'constant' }]\n"
    ).arms
    assert [arm.label for arm in arms] == [
        f"sgd,ema={ema},momentum_schedule={kind}" for ema in (0.9, 0.99) for kind in ("linear-to=0.5", "constant")
    ]
    config = arms[-1].config
    assert (config.clip_norm, config.label_smoothing, config.ema, config.precision) == (1.0, 0.1, 0.99, "fp16")
    assert isinstance(config.clip_norm, float)
    assert config.groups == ({"match": "biases", "weight_decay": 0.0},)
    assert config.schedules["lr"] == {"kind": "cosine", "warmup": 0.05}
    assert config.schedules["momentum"] == {"kind": "constant"}


def test_numbers_are_tried_once(load, monkeypatch):
    """A grid of 60 × 60 builds its optimizer 119 times, and finds the one bad value wherever it is."""
    built = []
    check = optimizers.check
    monkeypatch.setattr(optimizers, "check", lambda *given: built.append(given) or check(*given))
    text = BASE + '[[runs]]\noptimizer = "padam"\nhyper.lr = [{}]\nhyper.partial = [{}]\n'
    rates, powers = (", ".join(str(i / scale) for i in range(1, 61)) for scale in (10, 120))
    arms = load(text.format(rates, powers)).arms
    assert (len(arms), len(built)) == (3600, 119)
    assert len({arm.config.identity("") for arm in arms}) == 3600
    with pytest.raises(StudyError, match=r"hyper.partial: padam: .* got 0\.7"):
        load(text.format(rates, powers + ", 0.7"))


def test_an_unknown_study_is_named():
    """With the nearest one there is."""
    with pytest.raises(StudyError, match="unknown study 'paper-tabel1'; did you mean 'paper-table1'"):
        studies.load("paper-tabel1")
    with pytest.raises(StudyError, match="unknown study ''"):
        studies.load("")


@pytest.mark.parametrize("name", ["nowhere.toml", "\0.toml", 300 * "a" + ".toml", "benchmarks.toml/x.toml"])
def test_a_file_that_is_not_there_is_named(name):
    """A path is a path: no study of the benchmark was meant."""
    with pytest.raises(StudyError, match="there is no study file") as caught:
        studies.load(name)
    assert repr(name) in str(caught.value)
    assert "known:" not in str(caught.value)


TUNED = (
    "tuning = { trials = 3 }\n"
    + BASE
    + '[[runs]]\noptimizer = "sgd"\nhyper.lr = [0.1, 0.2, 0.3, 0.4, 0.5]\n'
    + '[[runs]]\noptimizer = "adam"\nhyper.lr = [0.1, 0.2, 0.3]\n'
)


def result(run, *scores, status="done"):
    """A finished run with these scores."""
    epochs = tuple(
        Epoch(epoch=i, train={}, test=Evaluation({"top1": score}), time=Cost())
        for i, score in enumerate(scores, start=1)
    )
    return Result(run.config.to_dict(), "data", {}, epochs, status, Path(run.label))


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
