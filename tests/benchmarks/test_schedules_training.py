"""Schedules of a run: their values, their exact resumption, and what is said of wrong ones."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from timeless import CPU, stopped_everywhere, timeless, trained
from torch.optim import lr_scheduler

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.training import engine, schedules
from benchmarks.training.settings import check
from partial_adaptive import interpolated_lr

TOTAL = 20
PADAM = RunConfig("digits-mlp", "padam", {"lr": 0.1, "partial": 0.125, "betas": [0.9, 0.999]}, epochs=2, max_steps=4)


def _values(options: dict[str, Any], base: float = 0.1, name: str = "lr", total: int = TOTAL) -> list[float]:
    value = schedules.value(name, options, total)
    return [value(step, base) for step in range(total)]


def bounce(step: int, total: int, base: float, *, depth: float) -> float:
    """A schedule of somebody's own."""
    return base * (1 - depth * math.sin(math.pi * step / total))


@pytest.mark.parametrize(
    ("options", "scheduler"),
    [
        ({"kind": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
        ({"kind": "cosine", "final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, 0.01)),
        ({"kind": "linear", "to": 0.02}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL)),
        ({"kind": "exponential", "final": 0.1}, lambda o: lr_scheduler.ExponentialLR(o, 0.1 ** (1 / TOTAL))),
        ({"kind": "steps", "at": [0.25, 12]}, lambda o: lr_scheduler.MultiStepLR(o, [5, 12])),
        ({"kind": "constant", "warmup": 4}, lambda o: lr_scheduler.LinearLR(o, 0.25, 1.0, 3)),
        (
            {"kind": "cosine", "warmup": 0.2},
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.LinearLR(o, 0.25, 1.0, 3), lr_scheduler.CosineAnnealingLR(o, 16)], [4]
            ),
        ),
        (
            {"kind": "wsd", "warmup": 4, "decay": 0.25},
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.LinearLR(o, 0.25, 1.0, 3), lr_scheduler.LinearLR(o, 1.0, 0.0, 5)], [4 + 11]
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # SequentialLR calls it so
def test_values_are_those_of_torchs_schedulers(options: dict[str, Any], scheduler: Any) -> None:
    """Each kind, with a warm-up or without, gives at every step what torch's scheduler of that name gives."""
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    theirs, expected = scheduler(optimizer), []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert _values(options) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_an_exponent_goes_to_a_value() -> None:
    """Where p goes is a value, not a share: from 1/2 towards 1/16, and to each of several in steps."""
    p = _values({"kind": "linear", "to": 0.0625}, 0.5, "partial")
    assert (p[0], p[10]) == (0.5, 0.28125)
    p = _values({"kind": "steps", "at": [0.5, 15], "to": [0.125, 0.0]}, 0.5, "partial")
    assert p == [0.5] * 10 + [0.125] * 5 + [0.0] * 5


def test_the_learning_rate_follows_p(tmp_path: Path) -> None:
    """With `rescale` it is its own schedule's, in every group, times what belongs to p, over that of the first p."""
    known = {0.0: 1.0, 0.5: 0.01}
    chosen = {
        "lr": {"kind": "cosine"},
        "partial": {"kind": "linear", "to": 0.5, "rescale": [[p, lr] for p, lr in known.items()]},
    }
    config = dataclasses.replace(PADAM, schedules=chosen, groups=({"match": "biases", "lr": 0.02},))
    run = engine.Run(config, tmp_path, CPU, captured=False)
    moving = run.schedules
    for step in range(8):
        rest, biases = moving.values(step)
        factor = interpolated_lr(rest["partial"], known) / interpolated_lr(0.125, known)
        assert rest["lr"] == moving.lr(step) == pytest.approx(_values({"kind": "cosine"}, total=8)[step] * factor)
        assert biases["lr"] == pytest.approx(rest["lr"] / 5)
    alone = dataclasses.replace(config, schedules={"partial": chosen["partial"]})
    assert engine.Run(alone, tmp_path, CPU, captured=False).schedules.lr(0) == pytest.approx(0.1)


def test_a_function_of_ones_own() -> None:
    """It gets the step from 0, all steps, the base value and its options."""
    values = _values({"kind": "test_schedules_training:bounce", "depth": 0.5})
    assert values == [bounce(step, TOTAL, 0.1, depth=0.5) for step in range(TOTAL)]


SCHEDULES: list[dict[str, dict[str, Any]]] = [
    {"lr": {"kind": "constant", "warmup": 3}},
    {"lr": {"kind": "cosine", "warmup": 2}, "partial": {"kind": "linear", "to": 0.5}},
    {"lr": {"kind": "linear", "final": 0.5}, "beta1": {"kind": "cosine", "to": 0.5}},
    {"lr": {"kind": "wsd", "decay": 0.5}, "beta2": {"kind": "steps", "at": [0.5], "to": 0.9}},
    {"lr": {"kind": "exponential", "final": 0.1}, "partial": {"kind": "steps", "at": [3, 5], "to": [0.0, 0.25]}},
    {"lr": {"kind": "cosine"}, "partial": {"kind": "linear", "to": 0.5, "rescale": [[0.0, 1.0], [0.5, 0.01]]}},
    {"lr": {"kind": "test_schedules_training:bounce", "depth": 0.5}},
]


@pytest.mark.parametrize(
    "chosen", SCHEDULES, ids=lambda one: "-".join(v["kind"].rpartition(":")[2] for v in one.values())
)
def test_stop_and_resume_anywhere(tmp_path: Path, chosen: dict[str, dict[str, Any]]) -> None:
    """Stopped after every single step, a scheduled run ends with the records of one that never stopped."""
    config = dataclasses.replace(PADAM, schedules=chosen)
    records, rounds = stopped_everywhere(config, tmp_path)
    assert rounds == 7
    assert records == timeless(trained(config, tmp_path))
    assert records != timeless(trained(dataclasses.replace(config, schedules={}), tmp_path)), "it has an effect"


def test_what_a_step_is_taken_with(tmp_path: Path) -> None:
    """At each step the groups have that step's values, each from its own base; the record has the last step's."""
    chosen: dict[str, dict[str, Any]] = {
        "lr": {"kind": "cosine", "warmup": 2},
        "partial": {"kind": "linear", "to": 0.5},
        "beta1": {"kind": "linear", "to": 0.5},
    }
    config = dataclasses.replace(PADAM, schedules=chosen, groups=({"match": "biases", "lr": 0.02},))
    run = engine.Run(config, tmp_path, CPU, captured=False)
    seen = []
    while not run.finished:
        for _ in run.steps():
            rest, biases = run.optimizer.param_groups
            seen.append((biases["lr"], rest["lr"], rest["partial"], rest["betas"]))
        run.close_epoch()
    rates = _values(chosen["lr"], total=8)
    assert [one[1] for one in seen] == rates
    assert [one[0] for one in seen] == pytest.approx([rate / 5 for rate in rates])
    assert [one[2] for one in seen] == _values(chosen["partial"], 0.125, "partial", 8)
    assert [one[3] for one in seen] == [(beta, 0.999) for beta in _values(chosen["beta1"], 0.9, "beta1", 8)]
    assert [record.lr for record in run.records] == [seen[3][1], seen[7][1]], "of what is in no group of its own"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"lr": {"kind": "cosin"}}, r"schedules\.lr\.kind: unknown kind 'cosin'; did you mean 'cosine'"),
        ({"lr": {}}, r"schedules\.lr\.kind: unknown kind None"),
        ({"lr": {"kind": "cosine", "warmpu": 1}}, r"schedules\.lr\.warmpu: no option .* did you mean 'warmup'"),
        ({"lr": {"kind": "constant", "final": 1.0}}, r"schedules\.lr\.final: no option of 'constant'"),
        ({"lr": {"kind": "cosine", "warmup": 1.0}}, r"schedules\.lr\.warmup: .*\[0, 1\).* got 1\.0"),
        ({"lr": {"kind": "cosine", "warmup": -1}}, r"schedules\.lr\.warmup: .* got -1"),
        ({"lr": {"kind": "cosine", "warmup": True}}, r"schedules\.lr\.warmup: must be a finite number, got True"),
        ({"lr": {"kind": "cosine", "final": math.nan}}, r"schedules\.lr\.final: must be a finite number, got nan"),
        ({"lr": {"kind": "cosine", "final": -0.1}}, r"schedules\.lr\.final: must be at least 0"),
        ({"lr": {"kind": "linear", "final": 0.1, "to": 0.1}}, r"schedules\.lr: final .* exclude each other"),
        ({"lr": {"kind": "exponential"}}, r"schedules\.lr: an exponential schedule ends above 0"),
        ({"lr": {"kind": "exponential", "to": 0.2}}, r"schedules\.lr: .* no fall"),
        ({"lr": {"kind": "wsd", "warmup": 0.5, "decay": 0.6}}, r"schedules\.lr\.decay: .* more than all"),
        ({"lr": {"kind": "steps"}}, r"schedules\.lr\.at: moments are needed"),
        ({"lr": {"kind": "steps", "at": [0.5, 0.25]}}, r"schedules\.lr\.at: moments must ascend"),
        (
            {"partial": {"kind": "steps", "at": [0.5], "to": [0.1, 0.2]}},
            r"schedules\.partial\.to: a value for each of 1",
        ),
        ({"partial": {"kind": "cosine"}}, r"schedules\.partial: where does it end\? give to"),
        ({"partial": {"kind": "linear", "to": 0.7}}, r"schedules\.partial: padam: .*0\.7"),
        ({"partial": {"kind": "linear", "to": 0.1, "rescale": 3}}, r"schedules\.partial\.rescale: must be .* got 3"),
        ({"partial": {"kind": "linear", "to": 0.1, "rescale": [[0.5, 0.1]]}}, r"rescale: must be two or more"),
        ({"partial": {"kind": "linear", "to": 0.1, "rescale": [[0, 1], [0.5, 0]]}}, r"rescale: must be .* rates > 0"),
        ({"lr": {"kind": "cosine", "rescale": [[0, 1], [1, 2]]}}, r"schedules\.lr\.rescale: no option of 'cosine'"),
        ({"beta1": {"kind": "linear", "to": 1.0}}, r"schedules\.beta1: padam: .*betas"),
        ({"lr": {"kind": "nowhere:at_all"}}, r"schedules\.lr\.kind: 'nowhere:at_all': there is no module"),
        ({"lr": {"kind": "test_schedules_training:bounce"}}, r"schedules\.lr: .*bounce at step 0: .*depth"),
        ({"momentum": {"kind": "linear", "to": 0.5}}, r"schedules\.momentum: padam has no such number"),
        ({"betas": {"kind": "linear", "to": 0.5}}, r"schedules\.betas: padam has no such number"),
    ],
)
def test_wrong_schedules_are_named(tmp_path: Path, chosen: dict[str, dict[str, Any]], message: str) -> None:
    """The entry that is wrong, and what is allowed, before a step is taken."""
    with pytest.raises(BenchmarkError, match=message):
        trained(dataclasses.replace(PADAM, schedules=chosen), tmp_path)
    assert not list(tmp_path.iterdir())


def test_milestones_and_a_schedule_exclude_each_other() -> None:
    """Two schedules of the learning rate are an error; milestones beside one of p are not."""
    cosine = dataclasses.replace(PADAM, schedules={"lr": {"kind": "cosine"}}, milestones=(1,))
    with pytest.raises(BenchmarkError, match=r"schedules\.lr and milestones exclude each other"):
        check(cosine)
    check(dataclasses.replace(cosine, schedules={"partial": {"kind": "linear", "to": 0.5}}))


def test_a_warmup_in_steps_may_be_longer_than_the_trial() -> None:
    """Whole numbers of steps are checked against the run's own length, which is not known beforehand."""
    check(dataclasses.replace(PADAM, schedules={"lr": {"kind": "wsd", "warmup": 5000, "decay": 9000}}))
