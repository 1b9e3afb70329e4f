"""What else a run can be told: parameter groups, clipping, smoothed labels, an average of the weights, precision."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from synthetic import cifar10
from timeless import CPU, stopped_everywhere, timeless, trained
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.training import engine, groups, optimizers
from benchmarks.training.average import Average
from benchmarks.training.settings import captures, check

DIGITS = RunConfig("digits-mlp", "padam", {"lr": 0.1, "weight_decay": 0.1}, epochs=2, max_steps=4)
NORMED = RunConfig(
    "cifar10-resnet18",
    "sgd",
    {"lr": 0.1, "momentum": 0.9},
    epochs=2,
    batch_size=16,
    max_steps=2,
    recalibrate=1,
    workload_options={"width": 1 / 16},
)
MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2))
NAMES = [name for name, _ in MODEL.named_parameters()]


def _split(*given: dict[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
    """The names of each group's parameters, and its own hyperparameters."""
    names = {id(p): name for name, p in MODEL.named_parameters()}
    return [
        ([names[id(p)] for p in group["params"]], {key: value for key, value in group.items() if key != "params"})
        for group in groups.split(MODEL, given)
    ]


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        ("biases", ["0.bias", "1.bias", "3.bias", "4.bias"]),
        ("norms and biases", ["0.bias", "1.weight", "1.bias", "3.bias", "4.bias"]),
        (["norms", "heads"], ["1.weight", "4.weight"]),
        ("matrices", ["0.weight", "3.weight"]),
        ("torch.nn:Linear", ["3.weight", "3.bias", "4.weight", "4.bias"]),
        ("1.*", ["1.weight", "1.bias"]),
    ],
)
def test_what_a_group_takes(match: Any, taken: list[str]) -> None:
    """By role, type and name, joined or listed; all else is in the first group, and nothing is in two."""
    (rest, others), (chosen, own) = _split({"match": match, "weight_decay": 0.0})
    assert (chosen, own, others) == (taken, {"weight_decay": 0.0}, {})
    assert sorted(chosen + rest) == sorted(NAMES)


def test_the_first_group_that_matches_takes() -> None:
    """Of two groups that match a parameter the first has it; without a rest there is no group for one."""
    names = [chosen for chosen, _ in _split({"match": "torch.nn:Linear", "lr": 1.0}, {"match": "*", "lr": 2.0})]
    assert names == [["3.weight", "3.bias", "4.weight", "4.bias"], ["0.weight", "0.bias", "1.weight", "1.bias"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"match": "encoder.*", "lr": 1.0}], r"groups: .*'encoder\.\*'"),
        ([{"match": "embeddings", "lr": 1.0}], r"groups\[0\]\.match: 'embeddings' takes no parameter"),
        ([{"match": "*", "lr": 1.0}, {"match": "biases"}], r"groups\[1\]\.match: 'biases' takes no parameter"),
        ([{"match": "biases", "lr": 1.0}, {"match": "biases"}], r"groups\[1\]\.match: 'biases' takes no parameter"),
        ([{"lr": 1.0}], r"groups\[0\]\.match: must be a role.* got None"),
        ([{"match": 3}], r"groups\[0\]\.match: must be a role.* got 3"),
        ([{"match": "torch.nn:Nothing"}], r"groups\[0\]\.match: 'torch\.nn:Nothing': .* no 'Nothing\'"),
        ([{"match": "torch:ones"}], r"groups\[0\]\.match: torch:ones must be a type of modules"),
    ],
)
def test_groups_that_take_nothing(given: list[dict[str, Any]], message: str) -> None:
    """A match without effect is an error that names the group."""
    with pytest.raises(BenchmarkError, match=message):
        groups.split(MODEL, given)


@pytest.mark.parametrize(
    ("optimizer", "own", "message"),
    [
        ("adam", {"weight_dcay": 0.0}, "adam: unknown hyperparameter 'weight_dcay'; did you mean 'weight_decay'"),
        ("adam", {"lr": -1.0}, r"adam: .*-1"),
        ("adam", {"member": "partial_muon"}, "adam: unknown hyperparameter 'member'"),
        ("padam", {"partial": 0.7}, r"padam: .*0\.7"),
        ("padam", {"member": "partial_moun"}, r"padam: .*'partial_moun'"),
        ("padam", {"member": "partial_muon", "momentun": 0.9}, "partial_muon: unknown hyperparameter 'momentun'"),
        ("torch.optim:LBFGS", {"lr": 0.1}, "torch.optim:LBFGS: LBFGS doesn't support per-parameter options"),
    ],
)
def test_hyperparameters_of_groups_are_checked(optimizer: str, own: dict[str, Any], message: str) -> None:
    """What a group has of its own is looked at as the optimizer's own is, before anything is loaded."""
    with pytest.raises(BenchmarkError, match=message):
        check(dataclasses.replace(DIGITS, optimizer=optimizer, hyper={}, groups=({"match": "biases", **own},)))


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("hyper", {"lr": math.nan}),
        ("groups", ({"match": "biases", "lr": math.inf},)),
        ("clip_norm", -1.0),
        ("clip_norm", math.inf),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("ema", math.nan),
    ],
)
def test_settings_out_of_range(field: str, bad: Any) -> None:
    """Each is refused by name: a study from Python has passed no schema."""
    with pytest.raises(BenchmarkError, match=f"{field} must "):
        check(dataclasses.replace(DIGITS, **{field: bad}))


def test_labels_are_smoothed_where_there_are_some() -> None:
    """A setting that a task would pass over is refused."""
    with pytest.raises(BenchmarkError, match="label_smoothing is for classification and language, and ring-gan is gan"):
        check(RunConfig("ring-gan", "sgd", {}, epochs=1, label_smoothing=0.1))


def test_a_group_without_decay_does_not_decay(tmp_path: Path) -> None:
    """With zero gradients (a learning rate of the decay alone) masked parameters stand still, others shrink."""
    config = dataclasses.replace(
        DIGITS,
        optimizer="adamw",
        hyper={"lr": 0.1, "weight_decay": 0.1},
        groups=({"match": "biases", "weight_decay": 0.0},),
    )
    run = engine.Run(config, tmp_path, CPU, captured=False)
    for p in run.model.parameters():
        p.data.fill_(1.0)
        p.grad = torch.zeros_like(p)
    run.optimizer.step()
    for name, p in run.model.named_parameters():
        assert torch.equal(p, torch.full_like(p, 1.0 if "bias" in name else 1 - 0.1 * 0.1)), name


def test_a_member_for_the_matrices(tmp_path: Path) -> None:
    """Of a member of the family each group may name another: matrices by their singular values."""
    config = dataclasses.replace(DIGITS, groups=({"match": "matrices", "member": "partial_muon", "lr": 0.02},))
    check(config)
    run = engine.Run(config, tmp_path, CPU, captured=False)
    assert [group.get("member") for group in run.optimizer.param_groups] == [None, "partial_muon"]
    records, _ = stopped_everywhere(config, tmp_path)
    assert records == timeless(trained(config, tmp_path))


MANY: dict[str, Any] = {"ema": 0.9, "clip_norm": 0.1, "schedules": {"lr": {"kind": "cosine", "warmup": 1}}}
EXTRAS: dict[str, RunConfig] = {
    "groups": dataclasses.replace(DIGITS, groups=({"match": "biases", "weight_decay": 0.0, "lr": 0.01},)),
    "clipping": dataclasses.replace(DIGITS, clip_norm=0.1),
    "smoothing": dataclasses.replace(DIGITS, label_smoothing=0.1),
    "average": dataclasses.replace(NORMED, ema=0.9),
    "fp16": dataclasses.replace(DIGITS, precision="fp16"),
    "bf16": dataclasses.replace(DIGITS, precision="bf16"),
    "muon": dataclasses.replace(DIGITS, optimizer="muon", hyper={"lr": 0.01}),
    "radam": dataclasses.replace(DIGITS, optimizer="radam", hyper={"lr": 0.01}),
    "text": RunConfig("text-lstm", "padam", {"lr": 0.1}, epochs=2, max_steps=2, workload_options={"hidden": 8}, **MANY),
    "regression": RunConfig("friedman-mlp", "padam", {"lr": 0.1}, epochs=2, max_steps=2, **MANY),
    "gan": RunConfig("ring-gan", "padam", {"lr": 0.1}, epochs=2, max_steps=2, **MANY),
    "all at once": dataclasses.replace(
        NORMED, ema=0.9, clip_norm=1.0, label_smoothing=0.1, precision="bf16", schedules={"lr": {"kind": "cosine"}}
    ),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_stop_and_resume_anywhere(tmp_path: Path, name: str) -> None:
    """Stopped after every single step, a run with any of them ends with the records of one that never stopped."""
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has Muon from 2.9 on")
    config = EXTRAS[name]
    cifar10(tmp_path)
    records, _ = stopped_everywhere(config, tmp_path)
    assert records == timeless(trained(config, tmp_path))
    off: dict[str, Any] = {
        "groups": (),
        "clip_norm": 0.0,
        "label_smoothing": 0.0,
        "ema": 0.0,
        "schedules": {},
        "precision": "fp32",
    }
    plain = dataclasses.replace(config, **off)
    if plain != config:
        assert records != timeless(trained(plain, tmp_path)), "it has an effect"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_is_torchs(tmp_path: Path, precision: Any) -> None:
    """The gradients that the optimizer sees are those of the batch, scaled to the norm where theirs is above it.

    In float16 it is their norm and not that of the scaled gradients.
    """
    norms = []
    for clip in (0.0, 0.1, 1e9):
        config = dataclasses.replace(DIGITS, clip_norm=clip, precision=precision)
        run = engine.Run(config, tmp_path, CPU, captured=False)
        next(run.steps())
        norms.append(float(nn.utils.get_total_norm([p.grad for p in run.model.parameters() if p.grad is not None])))
    assert norms[0] == norms[2] > 0.1
    assert norms[1] == pytest.approx(0.1, rel=1e-5)


def test_smoothing_is_torchs_and_of_training_alone(tmp_path: Path) -> None:
    """The loss trained on is smoothed, the judgement is not."""
    plain, smooth = (
        engine.Run(dataclasses.replace(DIGITS, label_smoothing=s), tmp_path, CPU, captured=False) for s in (0.0, 0.2)
    )
    batch = (torch.arange(8),)
    task: Any = smooth.task
    logits = smooth.model(task.inputs(smooth.model, task.data.x_train[:8]))
    expected = F.cross_entropy(logits, task.data.y_train[:8].long(), label_smoothing=0.2)
    loss, means = task.loss(smooth.model, batch, smooth.draws)
    assert loss.item() == pytest.approx(expected.item()) == pytest.approx(means[0].item())
    assert loss.item() != plain.task.loss(plain.model, batch, plain.draws)[0].item()
    assert smooth.task.evaluate(smooth.model) == plain.task.evaluate(plain.model)


def test_the_average_is_torchs() -> None:
    """As AveragedModel with torch's function of an exponential average, begun at the initial weights, buffers too."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours = Average(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(5):
        model(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        ours.update()
        theirs.update_parameters(model)
    for (name, a), b in zip(ours.model.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        assert torch.equal(a, b) or name.endswith("num_batches_tracked")
    assert int(ours.model[1].num_batches_tracked) == 5


def test_the_average_is_judged(tmp_path: Path) -> None:
    """It has a reading of its own, and the training is what it is without it."""
    cifar10(tmp_path)
    without, with_it = (trained(dataclasses.replace(NORMED, ema=ema), tmp_path) for ema in (0.0, 0.5))
    assert without is not None
    assert with_it is not None
    assert [r.train for r in without] == [r.train for r in with_it]
    assert [r.test.running for r in without] == [r.test.running for r in with_it]
    assert all(r.test.ema is None for r in without)
    assert all(r.test.ema and r.test.ema.keys() == r.test.running.keys() for r in with_it)
    assert with_it[-1].test.ema != with_it[-1].test.running


def test_fp16_backs_off_and_goes_on(tmp_path: Path) -> None:
    """A step whose scaled gradients overflow is left out, and the scale is halved: it is part of the run's state."""
    run = engine.Run(EXTRAS["fp16"], tmp_path, CPU, captured=False)
    scale = run.update.state_dict()["scale"]
    run.update.load_state_dict({**run.update.state_dict(), "scale": 2.0**40})
    before = [p.detach().clone() for p in run.model.parameters()]
    next(run.steps())
    assert all(map(torch.equal, before, run.model.parameters()))
    assert run.update.state_dict()["scale"] == 2.0**39 > scale
    run.save(tmp_path / "checkpoint.pt")
    resumed = engine.Run(run.config, tmp_path, CPU, captured=False)
    resumed.load(tmp_path / "checkpoint.pt")
    assert resumed.update.state_dict() == run.update.state_dict()
    assert not captures(run.config), "the host looks at each step"


def test_fp16_that_a_cpu_does_not_have(tmp_path: Path) -> None:
    """Where an operation is missing on the CPU it is said in one line, with what to do; other errors are themselves."""

    def missing(*arguments: object) -> Any:
        raise RuntimeError("\"lstm\" not implemented for 'Half'")

    for config, message in (
        (EXTRAS["fp16"], "precision: fp16 does not .* on a CPU .*Half.*; use bf16"),
        (DIGITS, "^.lstm"),
    ):
        run = engine.Run(config, tmp_path, CPU, captured=False)
        run.task.loss = missing
        with pytest.raises(RuntimeError, match=message) as raised:
            next(run.steps())
        assert isinstance(raised.value, BenchmarkError) == (config is not DIGITS)


def test_muon_is_torchs_on_matrices_and_adamw_elsewhere() -> None:
    """The wrapper's steps are those of torch's two optimizers, also after its state went through a file's form."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has Muon from 2.9 on")
    ours, theirs = ([nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4))] for _ in range(2))
    hyper = {"lr": 0.1, "weight_decay": 0.01}
    optimizer = optimizers.build("muon", ours, hyper)
    assert [group["eps"] for group in optimizer.param_groups] == [1e-7, 1e-8], "each as documented"
    parts = (
        torch.optim.Muon([theirs[0]], **hyper, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([theirs[1]], **hyper),
    )
    for i in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        for part in parts:
            part.step()
        assert all(map(torch.equal, ours, theirs))
        if i == 1:
            state = optimizer.state_dict()
            optimizer = optimizers.build("muon", ours, hyper)
            optimizer.load_state_dict(state)
