"""Optimizers by name: complete, built as told, and clear about what they do not take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import partial_adaptive
from benchmarks.training import optimizers
from benchmarks.training.optimizers import OptimizerError

FROZEN = json.loads((Path(__file__).parent / "resolved.json").read_text())
CIFAR = {"batch_size": 128, "examples": 50_000, "epochs": 200}


def test_every_member_and_baseline_is_there():
    """The family comes from its own registry, so a new member is under test at once."""
    baselines = {"sgd", "adam", "amsgrad", "adamw", "nadam", "rmsprop", "adagrad", "adamax", "adadelta"}
    baselines |= {"sgd_nesterov", "radam", "muon"}
    assert set(optimizers.REGISTRY) == baselines | set(partial_adaptive.registry.MEMBERS)


def test_the_catalogue_is_the_familys_own():
    """The catalogue, which is read without torch, says of every member what the library's registry says."""
    listed = {name: entry for name, entry in optimizers.REGISTRY.items() if entry.family}
    members = partial_adaptive.registry.MEMBERS
    assert {name: entry.cls for name, entry in listed.items()} == {name: member.cls for name, member in members.items()}
    assert all(entry.title == entry.cls.__name__ for entry in listed.values())
    assert {name: optimizers.PRESETS["default"][name] for name in members} == {
        name: member.options for name, member in members.items()
    }


def test_the_catalogue_is_read_without_torch():
    """Names, titles and presets cost no import of torch, so that `list` and `--help` are quick."""
    code = "import sys; from benchmarks.training.catalogue import REGISTRY, PRESETS; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


@pytest.mark.parametrize("preset", FROZEN)
def test_settings_of_known_optimizers_do_not_change(preset):
    """What every preset resolves to is what it was when the first runs were stored: their identities stay."""
    resolved = {name: optimizers.resolve(name, preset, {}, **CIFAR) for name in FROZEN[preset]}
    assert json.dumps(resolved, sort_keys=True) == json.dumps(FROZEN[preset], sort_keys=True)


@pytest.fixture(autouse=True)
def _muon_is_there(request):
    """Skips what needs torch's Muon where torch is older than it."""
    if (
        "name" in request.fixturenames
        and request.getfixturevalue("name") == "muon"
        and not hasattr(torch.optim, "Muon")
    ):
        pytest.skip("torch has Muon from 2.9 on")


@pytest.mark.parametrize("name", optimizers.REGISTRY)
def test_default_preset_trains(name):
    """Each optimizer as documented takes a step, from settings that are stated in full."""
    hyper = optimizers.resolve(name, "default", {}, **CIFAR)
    assert {"lr", "weight_decay"} <= hyper.keys()
    parameter = torch.ones(3, requires_grad=True)
    optimizer = optimizers.build(name, [parameter], hyper)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert (parameter < 1).all()
    assert optimizer.defaults["lr"] == hyper["lr"]


@pytest.mark.parametrize("name", [name for name, entry in optimizers.REGISTRY.items() if entry.capturable])
def test_capturable_reads_the_rate_from_a_tensor(name):
    """A rate filled in place is what the next step uses: a replayed CUDA graph sees the schedule."""
    hyper = optimizers.resolve(name, "default", {}, **CIFAR)
    parameter = torch.ones(3, requires_grad=True)
    optimizer = optimizers.build(name, [parameter], hyper, capturable=True)
    rate = optimizer.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor)
    assert optimizer.defaults.get("capturable") or optimizer.defaults["fused"]
    if not optimizers.find(name).family and not name.startswith("sgd"):
        return  # torch's own capturable steps refuse the CPU
    rate.fill_(0.0)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3))


def test_the_papers_settings():
    """Section C.2, word for word."""
    sgd, padam, adam = (optimizers.resolve(name, "paper", {}, **CIFAR) for name in ("sgd", "padam", "adam"))
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert (padam["lr"], padam["partial"], padam["betas"], padam["weight_decay"]) == (0.1, 0.125, (0.9, 0.999), 5e-4)
    assert (adam["lr"], adam["betas"], adam["weight_decay"]) == (1e-3, (0.9, 0.99), 1e-4)


def test_both_readings_of_adamws_decay():
    """0.025 normalized is 0.0894 in torch's units for the paper's CIFAR runs, and 0.025 literally."""
    assert optimizers.resolve("adamw", "paper", {}, **CIFAR)["weight_decay"] == pytest.approx(0.0894, abs=5e-5)
    assert optimizers.resolve("adamw", "paper-literal", {}, **CIFAR)["weight_decay"] == 0.025


def test_an_override_of_the_decay_replaces_the_normalized_one():
    """A study that states weight_decay gets that number."""
    assert optimizers.resolve("adamw", "paper", {"weight_decay": 0.3}, **CIFAR)["weight_decay"] == 0.3


def test_integers_and_floats_are_one_setting():
    """Lr = 1 and lr = 1.0 must not be two runs."""
    one, same = (optimizers.resolve("sgd", "default", {"lr": lr}, **CIFAR) for lr in (1, 1.0))
    assert repr(one) == repr(same)


def test_counts_stay_whole_numbers():
    """What counts something is not made a float, which the optimizer would refuse."""
    hyper = optimizers.resolve("partial_adam_mini", "default", {"blocks": "head", "heads": 4, "lr": 1}, **CIFAR)
    assert (repr(hyper["heads"]), repr(hyper["lr"])) == ("4", "1.0")


@pytest.mark.parametrize(
    ("name", "preset", "overrides", "message"),
    [
        ("padm", "default", {}, "unknown optimizer 'padm'; did you mean 'padam'"),
        ("padam", "papr", {}, "unknown preset 'papr'; did you mean 'paper'"),
        ("nadam", "paper", {}, "no setting for 'nadam'"),
        ("padam", "default", {"partal": 0.1}, "unknown hyperparameter 'partal'; did you mean 'partial'"),
        ("padam", "default", {"partial": 0.7}, "padam: .*0.7"),
        ("sgd", "default", {"lr": -1.0}, "sgd: .*-1"),
        ("sgd", "default", {"lr": "fast"}, "sgd: "),
        ("amsgrad", "default", {"amsgrad": False}, "amsgrad is True by definition"),
        ("adamw", "paper", {"weight_decay": 0.1, "normalized_weight_decay": 0.1}, "exclude each other"),
    ],
)
def test_bad_settings_are_named(name, preset, overrides, message):
    """What is wrong, and what was probably meant."""
    with pytest.raises(OptimizerError, match=message):
        optimizers.resolve(name, preset, overrides, **CIFAR)
