"""What a study brings along: found beside it or by entry points, checked when it is read, and passed on as written."""

import dataclasses
import importlib
import sys

import pytest

from benchmarks import cli, studies
from benchmarks.base import references
from benchmarks.base.references import Catalogue
from benchmarks.studies.study import StudyError
from benchmarks.training import catalogue

MODULE = '''
import torch

class Own(torch.optim.SGD):
    """Takes a whole number."""
    def __init__(self, params, lr=0.5, every=1, scale=(1, 2), *, name="a"):
        assert type(every) is int
        super().__init__(params, lr)

def net(width): ...
def data(n=3): ...
def wave(step, total, base): return base
number = 3
'''
STUDY = """
title = "Own"
run = {{ workload = "digits-mlp", epochs = 1 }}
[[runs]]
{}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a study beside modules of somebody; all is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(references.VARIABLE, "")
    (tmp_path / "own_things.py").write_text(MODULE)

    def load(entry, folder=tmp_path):
        path = folder / "own.toml"
        path.write_text(STUDY.format(entry))
        return studies.load(str(path))

    yield load
    for name in ("own_things", "colorsys"):
        sys.modules.pop(name, None)


def test_an_optimizer_beside_the_study(load):
    """Called by its class; whole numbers stay whole; the learning rate is stated; lists are axes."""
    arms = load('optimizer = "own_things:Own"\nhyper = { every = [2, 3], lr = 1, scale = [[1, 2]] }').arms
    assert [arm.label for arm in arms] == ["own_things:Own,every=2", "own_things:Own,every=3"]
    assert arms[0].title == "Own (every = 2)"
    assert arms[0].config.optimizer == "own_things:Own"
    assert {**arms[0].config.hyper} == {"lr": 1, "every": 2, "scale": [1, 2]}
    assert [type(arms[0].config.hyper[key]) for key in ("lr", "every")] == [float, int]
    assert arms[0].config.modules == ("own_things",)
    groups = ({"match": "own_layers:Layer and *.weight"}, {"match": ["biases", "torch.nn:LayerNorm"]})
    assert dataclasses.replace(arms[0].config, groups=groups).modules == ("own_things", "own_layers", "torch.nn")
    assert load('optimizer = "own_things:Own"').arms[0].config.hyper["lr"] == 0.5


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('optimizer = "own_thing:Own"', "optimizer: 'own_thing:Own': there is no module 'own_thing'"),
        ('optimizer = "own_things:Onw"', "optimizer: 'own_things:Onw': module 'own_things' has no 'Onw'; did you mean"),
        (
            'optimizer = "own_things:Own"\nhyper.evry = 2',
            "hyper.evry: own_things:Own: unknown hyperparameter",
        ),
        ('optimizer = "own_things:Own"\nhyper.every = 2.0', "hyper.every: own_things:Own"),
        ('optimizer = "own_things:number"', "optimizer: must be the name of a class, got 3"),
        ('optimizer = "own_things:Own"\npreset = "paper"', "preset: 'paper' has no setting for 'own_things:Own'"),
        ('optimizer = "sgd"\nmodel = "own_things:net"', "workload_options.width: is missing: own_things:net needs it"),
        ('optimizer = "sgd"\ndata = "own_things:data"\ndata_options.m = 3', "data_options.m: own_things:data has no"),
        ('optimizer = "sgd"\ndata = "own_things:number"', "data_options: 'own_things:number' cannot be called"),
        ('optimizer = "sgd"\nworkload = "own_things:number"', "workload: 'own_things:number' must be"),
        ('optimizer = "sgd"\nschedules.lr.kind = "own_things:wav"', "schedules.lr.kind: 'own_things:wav': module"),
    ],
)
def test_what_is_wrong_with_it_is_said(load, entry, message):
    """Before anything runs, with its place."""
    with pytest.raises(StudyError) as error:
        load(entry)
    assert f"study own.toml: [[runs]][0].{message}" in str(error.value)


@pytest.mark.parametrize("name", ["colorsys:rgb_to_hsv", "colorsys:Own"])
def test_a_hidden_file_is_an_error(load, tmp_path, name):
    """What is installed comes first; the file of the same name beside the study would silently not be the one used.

    Where the installed one has no such object, that is why.
    """
    (tmp_path / "colorsys.py").write_text("def rgb_to_hsv(): ...\nclass Own: ...\n")
    with pytest.raises(StudyError, match=rf"optimizer: '{name}': module 'colorsys' is .*; rename"):
        load(f'optimizer = "{name}"')


def test_two_folders_with_one_name_are_an_error(load, tmp_path):
    """A process knows one module of a name: the second study must not get the first one's."""
    load('optimizer = "own_things:Own"')
    other = tmp_path / "other"
    other.mkdir()
    (other / "own_things.py").write_text(MODULE)
    with pytest.raises(StudyError, match=r"module 'own_things' is .*; rename"):
        load('optimizer = "own_things:Own"', other)


def test_entry_points_have_names(load, tmp_path, capsys, monkeypatch):
    """In studies and in `list`, with the distribution; the configuration has the object itself, for other processes."""
    info = tmp_path / "own_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{references.OPTIMIZERS}]\nmine = own_things:Own\nsgd = own_things:Own\n"
        f"[{references.SCHEDULES}]\nw = own_things:wave\n"
    )
    sys.path.append(str(tmp_path))
    importlib.invalidate_caches()
    known = Catalogue("optimizer", catalogue.CATALOGUE.own, references.OPTIMIZERS)  # one that has not looked yet
    monkeypatch.setattr(catalogue, "CATALOGUE", known)
    arm = load('optimizer = ["mine", "sgd"]\nschedules.lr = { kind = "w" }').arms[0]
    assert (arm.label, arm.title, arm.config.optimizer) == ("mine", "Own", "own_things:Own")
    assert arm.config.schedules["lr"] == {"kind": "own_things:wave"}
    assert cli.main(["list"]) == cli.DONE
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "mine own_things:Own, from own-package" in lines
    assert "sgd@own-package own_things:Own, from own-package" in lines
    assert "sgd SGD (momentum)" in lines
