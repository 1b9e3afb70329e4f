"""Schedules: every number of every member along any curve, checked before anything changes, and resumed exactly."""

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from family import in_modes, maker
from third_party import OPTIMIZERS
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR

import partial_adaptive as pa
from partial_adaptive import Box, Geometric, Inverse, InverseSqrt, Padam, Schedule
from partial_adaptive.execution.compiled import launch
from partial_adaptive.execution.compiled.program import trace
from partial_adaptive.testing.harness import MODES, contents, parameters, params_of, same, train, values

ALL_MODES = [
    *MODES,
    {"differentiable": True},
    {"capturable": True, "foreach": True},
    {"capturable": True, "fused": True},
]
BETAS = ("beta1", "beta2")
Curve = Callable[[float, int], Any]


def falling(start: float, t: int) -> float:
    """A curve that stays in every range, from 0 up."""
    return start * 0.9 ** (t - 1) + 1e-3 * (t - 1)


def numbers_of(optimizer: pa.PartialAdaptiveOptimizer) -> list[str]:
    """All that may be scheduled: what is a number by default, and the two betas."""
    numbers = [name for name, value in optimizer.defaults.items() if isinstance(value, float | Tensor)]
    return [*numbers, *BETAS] if "betas" in optimizer.defaults else numbers


def now(group: dict[str, Any], name: str) -> float:
    """The value of a hyperparameter, as a number."""
    return float(group["betas"][BETAS.index(name)] if name in BETAS else group[name])


def snapshot(optimizer: pa.PartialAdaptiveOptimizer) -> list[dict[str, float]]:
    return [{name: now(group, name) for name in numbers_of(optimizer)} for group in optimizer.param_groups]


def leaves(count: int = 1) -> list[Any]:
    """Groups of parameters that every mode takes."""
    return [{"params": values(parameters())} for _ in range(count)]


# -- curves


CURVES: dict[str, tuple[Curve, Curve]] = {
    "Geometric": (Geometric(0.99), lambda start, t: start * 0.99 ** (t - 1)),
    "Geometric of 1": (Geometric(1), lambda start, t: start),
    "Geometric of 0": (Geometric(0), lambda start, t: start if t == 1 else 0.0),
    "Inverse": (Inverse(), lambda start, t: start / t),
    "InverseSqrt": (InverseSqrt(), lambda start, t: start / math.sqrt(t)),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves(name: str) -> None:
    """β₁λᵗ⁻¹, β₁/t and α/√t begin at the start value, at t = 1."""
    curve, expected = CURVES[name]
    assert curve(0.9, 1) == 0.9
    assert [curve(0.9, t) for t in range(1, 200)] == pytest.approx([expected(0.9, t) for t in range(1, 200)], rel=1e-15)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan, math.inf, "0.5", None, True, [0.5]], ids=str)
def test_ratios(ratio: Any) -> None:
    """A ratio that is no number in [0, 1] is a ValueError that says so."""
    with pytest.raises(ValueError, match=r"Geometric: ratio must be a number in \[0, 1\], got ") as error:
        Geometric(ratio)
    assert repr(ratio) in str(error.value)


# -- what may be scheduled


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), ALL_MODES))
def test_every_number_of_every_member(name: str, mode: dict[str, Any]) -> None:
    """Scheduled all at once they are what the next step uses, as if written into the group by hand."""
    scheduled, by_hand = (maker(name)(leaves(), weight_decay=0.1, **mode) for _ in range(2))
    for one in (scheduled, by_hand):
        one.param_groups[0].update({key: 2.0 for key in ("d",) if key in one.defaults})  # at its least it cannot fall
    starts = snapshot(by_hand)[0]
    schedule = Schedule(scheduled, **dict.fromkeys(starts, falling))
    for t in range(1, 6):
        wanted = {key: falling(start, t) for key, start in starts.items()}
        assert snapshot(scheduled) == [wanted]
        if "beta1" in wanted:
            by_hand.param_groups[0]["betas"] = (wanted.pop("beta1"), wanted.pop("beta2"))
        by_hand.param_groups[0].update(wanted)
        train(scheduled, 1, start=t)
        train(by_hand, 1, start=t)
        schedule.step()
    same(contents(scheduled), contents(by_hand), "a scheduled number is not what the step uses")


def test_numbers_of_ones_own() -> None:
    """A stage's own number is scheduled as the library's are, in its range; a whole number is none."""
    optimizer = OPTIMIZERS["choosing"](leaves())
    schedule = Schedule(optimizer, leak=Geometric(0.5))
    schedule.step()
    assert optimizer.param_groups[0]["leak"] == 0.99 / 2
    with pytest.raises(TypeError, match=r"has no numeric hyperparameter 'rounds'; it has .*leak"):
        Schedule(optimizer, rounds=Inverse())
    with pytest.raises(ValueError, match=r"Schedule: leak must be a number in \[0, 1\], got 1\.5 at step 1"):
        Schedule(optimizer, leak=lambda start, t: 1.5)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("weight_decoy", "weight_decay"), ("partia", "partial"), ("beta_1", "beta1"), ("betas", "beta")),
        *(
            (name, None)
            for name in ("amsgrad", "bias_correction", "foreach", "state_dtype", "constraint", "momentum", "q")
        ),
    ],
)
def test_names_that_are_no_numbers(name: str, meant: str | None) -> None:
    """Text, options, pairs and what the optimizer does not have are TypeErrors that say what there is."""
    optimizer = Padam(leaves())
    before = snapshot(optimizer)
    with pytest.raises(TypeError, match=rf"Schedule: Padam has no numeric hyperparameter {name!r}") as error:
        Schedule(optimizer, lr=InverseSqrt(), **{name: Inverse()})
    known = "lr, partial, weight_decay, peak_lr, eps, agc, clip_rms, trust_ratio, momentum_after, beta1, beta2"
    assert known in str(error.value)
    assert meant is None or f"did you mean '{meant}" in str(error.value)
    assert snapshot(optimizer) == before


@pytest.mark.parametrize("curve", [InverseSqrt, Geometric, 0.5, None, "cosine", [0.1, 0.2]], ids=str)
def test_what_is_no_curve(curve: Any) -> None:
    """A class for an instance, a number and a list are TypeErrors."""
    with pytest.raises(TypeError, match="Schedule: lr must be a curve, a function of start and t, got ") as error:
        Schedule(Padam(leaves()), lr=curve)
    assert repr(curve) in str(error.value)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD(parameters(), lr=0.1), None], ids=["SGD", "None"])
def test_optimizers_of_others(optimizer: Any) -> None:
    """An optimizer that is not of the family is a TypeError that names it; torch has schedulers for it."""
    with pytest.raises(TypeError, match=f"Schedule: optimizer must be .*{type(optimizer).__name__}"):
        Schedule(optimizer, lr=InverseSqrt())


OUTSIDE: dict[str, list[Any]] = {
    "lr": [-0.1, math.nan, math.inf, None, "0.1", True, 1j],
    "partial": [-0.1, 0.51, math.nan],
    "weight_decay": [-0.1, math.inf],
    "eps": [-1e-8, math.nan],
    "beta1": [1.0, -0.1, math.nan, None],
    "beta2": [1.0, 1.5],
}


@pytest.mark.parametrize(("name", "value"), [(name, it) for name, bad in OUTSIDE.items() for it in bad], ids=str)
def test_values_out_of_range(name: str, value: Any) -> None:
    """A value that is not allowed is a ValueError with the step, before any number of any group or t has changed."""
    optimizer = Padam([*leaves(), {**leaves()[0], "lr": 0.2, "betas": (0.5, 0.9)}], weight_decay=0.1)
    others = {other: falling for other in OUTSIDE if other != name}
    of_second = now(optimizer.param_groups[1], name)
    bad = {name: lambda start, t: value if t == 3 and start == of_second else start}
    schedule = Schedule(optimizer, **others, **bad)
    schedule.step()
    before = snapshot(optimizer)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"Schedule: {name} must be .*, got .* at step 3") as error:
            schedule.step()
        assert repr(value) in str(error.value)
        assert (schedule.t, snapshot(optimizer)) == (2, before)
    with pytest.raises(ValueError, match=f"Schedule: {name} must be .* at step 1"):
        Schedule(optimizer, **others, **{name: lambda start, t: value})
    assert snapshot(optimizer) == before


def test_curves_that_fail() -> None:
    """What a curve raises itself comes through, and leaves the schedule and the numbers as they were."""
    optimizer = Padam(leaves())
    schedule = Schedule(optimizer, lr=InverseSqrt(), partial=lambda start, t: start / (2 - t))
    before = snapshot(optimizer)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            schedule.step()
        assert (schedule.t, snapshot(optimizer)) == (1, before)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array, torch.tensor, float], ids=lambda it: it.__name__)
@pytest.mark.parametrize("name", ["lr", "eps", "beta1"])
def test_numbers_of_all_kinds(name: str, kind: Any) -> None:
    """A curve may give numbers as its tools have them; what is stored is a plain float."""
    if kind is torch.tensor and name != "lr":
        return  # there only where the hyperparameter takes them
    optimizer = Padam(leaves())
    Schedule(optimizer, **{name: lambda start, t: kind(0.5)}).step()
    group = optimizer.param_groups[0]
    assert type(group["betas"][0] if name == "beta1" else group[name]) is float
    assert now(group, name) == 0.5


# -- groups and tensors


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_tensors_are_filled_in_place(mode: dict[str, Any]) -> None:
    """Tensors of a group stay the same objects, which a CUDA graph has captured, and mean what numbers mean."""
    lr, partial, beta1 = (torch.tensor(value, dtype=torch.float64) for value in (0.1, 0.3, 0.9))
    by_tensor = Padam(leaves(), lr=lr, partial=partial, betas=(beta1, 0.999), bias_correction="none", **mode)
    by_number = Padam(leaves(), lr=0.1, partial=0.3, bias_correction="none", **mode)
    curves: dict[str, Curve] = {
        "lr": InverseSqrt(),
        "partial": Geometric(0.9),
        "beta1": Geometric(0.5),
        "beta2": falling,
    }
    schedules = [Schedule(optimizer, **curves) for optimizer in (by_tensor, by_number)]
    for step in range(4):
        for optimizer, schedule in zip((by_tensor, by_number), schedules, strict=True):
            train(optimizer, 1, start=step)
            schedule.step()
        group = by_tensor.param_groups[0]
        assert (group["lr"] is lr, group["partial"] is partial, group["betas"][0] is beta1) == (True, True, True)
        assert type(group["betas"]) is tuple
        assert snapshot(by_tensor) == snapshot(by_number)
    same(values(params_of(by_tensor)), values(params_of(by_number)), "tensors mean something else", 1e-12)


def test_groups_and_later_ones() -> None:
    """Each group begins at its own values, one that is added later at those that it comes with."""
    optimizer = Padam([*leaves(), {**leaves()[0], "lr": 0.4, "betas": (0.5, 0.99)}], lr=0.1)
    schedule = Schedule(optimizer, lr=InverseSqrt(), beta1=Inverse())
    for _ in range(3):
        schedule.step()
    optimizer.add_param_group({**leaves()[0], "lr": 0.8})
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.2, 0.8]
    for _ in range(5):
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [start / 3 for start in (0.1, 0.4, 0.8)]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.1, 0.999), (0.5 / 9, 0.99), (0.1, 0.999)]
    assert [start["lr"] for start in schedule.state_dict()["starts"]] == [0.1, 0.4, 0.8]


@pytest.mark.parametrize("name", ["lr", "partial", "beta1"])
def test_a_later_group_with_the_same_tensor(name: str) -> None:
    """A tensor that is the default is that of all groups; it follows its curve as before where one more has it."""
    tensor = torch.tensor(0.25, dtype=torch.float64)
    optimizer = Padam(leaves(), **({"betas": (tensor, 0.999)} if name == "beta1" else {name: tensor}))
    schedule = Schedule(optimizer, **{name: Inverse()})
    schedule.step()
    optimizer.add_param_group(leaves()[0])
    schedule.step()
    assert [now(group, name) for group in optimizer.param_groups] == [0.25 / 3] * 2


@pytest.mark.parametrize("capturable", [False, True])
def test_numbers_never_recompile(capturable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduled number is read anew by the kernel that is there."""
    programs: list[int] = []
    monkeypatch.setattr(launch, "trace", lambda *args, **kwargs: programs.append(1) or trace(*args, **kwargs))
    optimizer = Padam(leaves(), fused=True, partial=0.3, capturable=capturable, constraint=Box(-1, 1))
    schedule = Schedule(optimizer, lr=InverseSqrt(), beta1=Geometric(0.9), partial=lambda start, t: 0.3 / (1 + t / 7))
    for step in range(6):
        train(optimizer, 1, start=step)
        schedule.step()
    assert len(programs) == 1


# -- where it is, and on from there


def scheduled(optimizer: Padam) -> Schedule:
    return Schedule(optimizer, lr=InverseSqrt(), beta1=Geometric(0.9), partial=Inverse())


def on_disk(checkpoint: Any) -> Any:
    """What torch.load makes of what torch.save has written, with weights alone."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("first", ["optimizer", "schedule"])
@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "tensors"])
def test_resuming(tensors: bool, first: str, mode: dict[str, Any]) -> None:
    """Training goes on from both checkpoints, loaded in either order, bit for bit as without the break."""

    def make() -> tuple[Padam, Schedule]:
        lr = torch.tensor(0.3, dtype=torch.float64) if tensors else 0.3
        optimizer = Padam(leaves(2), lr=lr, constraint=Box(-1, 1), **mode)
        optimizer.param_groups[1]["betas"] = (0.5, 0.99)
        return optimizer, scheduled(optimizer)

    def go_on(optimizer: Padam, schedule: Schedule, start: int) -> None:
        for step in range(start, start + 3):
            train(optimizer, 1, start=step)
            schedule.step()

    optimizer, schedule = make()
    go_on(optimizer, schedule, 0)
    checkpoints = on_disk({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
    assert {type(value) for start in checkpoints["schedule"]["starts"] for value in start.values()} == {float}
    resumed, resumed_schedule = make()
    for twin, param in zip(params_of(resumed), params_of(optimizer), strict=True):
        twin.data.copy_(param.detach())
    loads = [("optimizer", resumed), ("schedule", resumed_schedule)]
    for name, it in loads if first == "optimizer" else loads[::-1]:
        it.load_state_dict(checkpoints[name])
    assert resumed_schedule.t == 4
    assert snapshot(resumed) == snapshot(optimizer)
    go_on(optimizer, schedule, 3)
    go_on(resumed, resumed_schedule, 3)
    same(contents(resumed), contents(optimizer), "training resumed from checkpoints differs")
    assert snapshot(resumed) == snapshot(optimizer)


def test_state_is_a_copy() -> None:
    """What `state_dict` gave stays as it was, and what was loaded may be changed."""
    optimizer = Padam(leaves())
    schedule = scheduled(optimizer)
    state = schedule.state_dict()
    kept = copy.deepcopy(state)
    schedule.step()
    assert state == kept
    schedule.load_state_dict(state)
    for changed in (state, schedule.state_dict()):
        changed["starts"][0]["lr"] = 7.0
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.1 / 2**0.5


MISMATCHED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other names": (
        lambda state: state["starts"][0].update(eps=1e-8),
        r"must be of beta1, lr, partial in 2 groups, got .*eps",
    ),
    "fewer names": (lambda state: state["starts"][1].pop("lr"), "must be of beta1, lr, partial in 2 groups"),
    "more groups": (lambda state: state["starts"].append(dict(state["starts"][0])), "in 2 groups, got .* in 3"),
    "a value out of range": (
        lambda state: state["starts"][1].update(partial=9.0),
        r"partial must be .*, got 3\.0 at step 3",
    ),
}


@pytest.mark.parametrize("kind", MISMATCHED)
def test_state_of_others(kind: str) -> None:
    """State of other hyperparameters or more groups is refused, and nothing has changed."""
    change, message = MISMATCHED[kind]
    optimizer, source = Padam(leaves(2)), scheduled(Padam(leaves(2)))
    schedule = scheduled(optimizer)
    source.step()
    source.step()
    state = source.state_dict()
    change(state)
    before = snapshot(optimizer), schedule.state_dict()
    with pytest.raises(ValueError, match=f"Schedule: .*{message}"):
        schedule.load_state_dict(state)
    assert (snapshot(optimizer), schedule.state_dict()) == before


@pytest.mark.parametrize("order", [1, -1], ids=["torch's first", "ours first"])
def test_beside_a_scheduler_of_torch(order: int) -> None:
    """LambdaLR on the learning rate and a schedule of β₁ and p do not meet."""
    optimizer = Padam(leaves(2), lr=0.1)
    torchs = LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    ours = Schedule(optimizer, beta1=Geometric(0.5), partial=Inverse())
    for t in range(1, 5):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.1 * 0.5 ** (t - 1), rel=1e-15)
            assert group["betas"] == (0.9 * 0.5 ** (t - 1), 0.999)
            assert group["partial"] == 1 / 8 / t
        train(optimizer, 1, start=t)
        for scheduler in (torchs, ours)[::order]:
            scheduler.step()


@pytest.mark.parametrize("name", [name for name in pa.MEMBERS if pa.MEMBERS[name].counterpart is torch.optim.Adagrad])
def test_torch_limit_of_cycled_momentum(name: str) -> None:
    """OneCycleLR and CyclicLR ask for `cycle_momentum=False` where there is no momentum, in torch's Adagrad too."""
    for make in (maker(name), torch.optim.Adagrad):
        optimizer = make(parameters())
        with pytest.raises(ValueError, match="optimizer must support momentum"):
            OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
        with pytest.raises(ValueError, match="optimizer must support momentum"):
            CyclicLR(optimizer, base_lr=0.01, max_lr=0.1)
