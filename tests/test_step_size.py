"""The learning rate that belongs to p: the update keeps its size when p changes, and looking changes nothing."""

import copy
import itertools
import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from family import ELEMENTWISE, in_modes, maker, takes_complex
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive import (
    Geometric,
    Linear,
    Padam,
    PartialAdafactor,
    PartialAdam,
    Schedule,
    Steps,
    equivalent_lr,
    interpolated_lr,
)
from partial_adaptive.testing.harness import MODES, contents, gradient, parameters, params_of, same, train, values

EXPONENTS = (0.0, 1 / 8, 0.3, 1 / 2)
CHANGES = list(itertools.permutations(EXPONENTS, 2))
ALL_MODES = [
    *MODES,
    {"capturable": True, "foreach": True},
    {"capturable": True, "fused": True},
    {"differentiable": True},
]
KNOWN = {0: 3.0, 1 / 2: 1e-3}


def groups(optimizer: Any, step: int) -> None:
    """Give all parameters the gradients of a step."""
    for index, param in enumerate(params_of(optimizer)):
        param.grad = gradient(param, step, index)


def trained(name: str, partial: Any, steps: int = 3, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A member after some steps, with the gradients of the next one."""
    params: Any = [{"params": values(parameters(dtype=dtype))}, {"params": values(parameters([(4, 2)], dtype))}]
    params[1]["lr"] = 3e-3
    optimizer = maker(name)(params, partial=partial, **{"weight_decay": 0.0, **options})
    train(optimizer, steps)
    groups(optimizer, steps)
    return optimizer


def moves(optimizer: Any, partial: float | None = None, lrs: Sequence[float] = ()) -> list[float]:
    """The norm of each group's next step, taken by a copy, at another p and other learning rates if they are given."""
    other = copy.deepcopy(optimizer)
    groups(other, 3)
    for ours, theirs in zip(params_of(other), params_of(optimizer), strict=True):
        ours.grad = theirs.grad.clone() if theirs.grad is not None else None
    for group, lr in zip(other.param_groups, lrs, strict=False):
        group.update(lr=lr, partial=partial)
    before = [values(group["params"]) for group in other.param_groups]
    other.step()
    return [
        math.sqrt(sum((p.detach() - q).abs().square().sum().item() for p, q in zip(group["params"], old, strict=True)))
        for group, old in zip(other.param_groups, before, strict=True)
    ]


# -- the update keeps its size


@pytest.mark.parametrize(("start", "end"), CHANGES)
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_every_member(name: str, start: float, end: float) -> None:
    """The step that `step` takes at the new p and learning rate is as large as the one at the old: 1e-10 in float64."""
    optimizer = trained(name, start)
    lrs = equivalent_lr(optimizer, partial=end)
    assert moves(optimizer, end, lrs) == pytest.approx(moves(optimizer), rel=1e-10)
    if "d" not in optimizer.defaults:  # Adafactor clips the RMS
        assert all(abs(lr / old - 1) > 1e-3 for lr, old in zip(lrs, rates(optimizer), strict=True)), "p changes nothing"


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), ALL_MODES))
def test_every_mode(name: str, mode: dict[str, Any]) -> None:
    """Groups of every mode, with tensors for lr and p where they may be, give what the plain ones do."""
    kind = (lambda x: torch.tensor(x, dtype=torch.float64)) if mode.get("capturable") else float
    optimizer = trained(name, kind(1 / 2), lr=kind(1e-2), **mode)
    expected = equivalent_lr(trained(name, 1 / 2, lr=1e-2, foreach=False), 1 / 8)
    tolerance = 1e-5 if mode.get("capturable") else 1e-12  # steps are counted in float32, as torch does
    assert equivalent_lr(optimizer, 1 / 8) == pytest.approx(expected, rel=tolerance)


def test_numbers_that_require_gradients() -> None:
    """A learning rate and a p that are learned themselves are looked at and left alone."""
    lr, partial, new = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1e-2, 1 / 2, 1 / 8))
    learned = trained("padam", partial, steps=0, lr=lr, differentiable=True)
    assert equivalent_lr(learned, new) == equivalent_lr(trained("padam", 1 / 2, steps=0, lr=1e-2), 1 / 8)
    schedule = Schedule(learned, partial=Linear(1 / 8, 2), rescale_lr=equivalent_lr)
    with torch.no_grad():
        schedule.step()
    assert (learned.param_groups[0]["lr"] is lr, lr.grad) == (True, None)


OPTIONS: list[dict[str, Any]] = [
    {"weight_decay": 0.1},
    {"maximize": True},
    {"beyond_half": True},
    {"normalize_gradient": True, "momentum_after": 0.9},
    {"agc": 0.1, "cautious": True},
    {"trust_ratio": 1.0, "clip_rms": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_options(name: str, options: dict[str, Any]) -> None:
    """Decay through the gradient is part of the update, and so is what else the rule does; p may be beyond a half."""
    optimizer = trained(name, 1 / 8, decoupled_weight_decay=False, **options)
    end = 0.9 if "beyond_half" in options else 1 / 4
    assert moves(optimizer, end, equivalent_lr(optimizer, end)) == pytest.approx(moves(optimizer), rel=1e-10)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_decay_of_the_parameter_is_left_out(name: str) -> None:
    """Decoupled decay changes no learning rate: it is not what p is about."""
    without, decayed = (
        trained(name, 1 / 2, decoupled_weight_decay=True, weight_decay=decay, steps=0) for decay in (0.0, 0.5)
    )
    assert equivalent_lr(decayed, 1 / 8) == equivalent_lr(without, 1 / 8)


@pytest.mark.parametrize("name", [name for name in pa.MEMBERS if name in ELEMENTWISE])
def test_a_second_moment_that_rested(name: str) -> None:
    """From p = 0 after steps at p > 0, the second moment goes on with what it had and its own count of gradients."""
    optimizer = trained(name, 1 / 2)
    for group in optimizer.param_groups:
        group["partial"] = 0.0
    train(optimizer, 2, start=3)
    groups(optimizer, 5)
    assert moves(optimizer, 1 / 4, equivalent_lr(optimizer, 1 / 4)) == pytest.approx(moves(optimizer), rel=1e-10)


COMPLEX = [
    name for name, member in pa.MEMBERS.items() if member.counterpart is None or takes_complex(member.counterpart)
]


@pytest.mark.parametrize("name", [name for name in COMPLEX if name in ELEMENTWISE])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex128, 1e-10), (torch.complex64, 1e-5)], ids=str)
def test_complex_parameters(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """Complex parameters count as pairs of real ones."""
    optimizer = trained(name, 1 / 2, dtype=dtype, lr=1.0)  # so that the difference of two parameters has some digits
    optimizer.param_groups[1]["lr"] = 0.3
    assert moves(optimizer, 1 / 8, equivalent_lr(optimizer, 1 / 8)) == pytest.approx(moves(optimizer), rel=tolerance)


@pytest.mark.parametrize("name", pa.MEMBERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Of parameters in 16 bits the learning rate is that of the same values in float32: the arithmetic is float32."""
    half = trained(name, 1 / 2, steps=0, dtype=dtype)
    wide = trained(name, 1 / 2, steps=0, dtype=torch.float32)
    for narrow, param in zip(params_of(half), params_of(wide), strict=True):
        param.data, param.grad = narrow.detach().float(), narrow.grad.float() if narrow.grad is not None else None
    assert equivalent_lr(half, 1 / 8) == pytest.approx(equivalent_lr(wide, 1 / 8), rel=1e-6)


def test_sizes_that_float32_cannot_square() -> None:
    """Gradients of 1e-30 have an update, though their squares are none in float32."""
    param = Parameter(torch.ones(3))
    optimizer = Padam([param], lr=1.0, partial=0.0)
    param.grad = torch.full_like(param, 1e-30)
    assert equivalent_lr(optimizer, 1 / 2) == pytest.approx([1e-8], rel=1e-6)  # ε = 1e-8 is all that it divides by


def test_sparse_gradients() -> None:
    """A sparse gradient counts as the dense one."""
    lrs = []
    for layout in (torch.strided, torch.sparse_coo):
        param = Parameter(torch.ones(4, 3))
        optimizer = pa.PartialAdagrad([param], lr=0.1, partial=1 / 2)
        grad = torch.zeros(4, 3)
        grad[2] = torch.tensor([1.0, 2.0, 3.0])
        param.grad = grad if layout is torch.strided else grad.to_sparse()
        lrs += equivalent_lr(optimizer, 1 / 8)
    assert lrs[0] == pytest.approx(lrs[1], rel=1e-6)
    assert lrs[0] != 0.1


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support")
@pytest.mark.parametrize("placement", [Shard(0), Replicate()], ids=["shard", "replicate"])
@pytest.mark.parametrize("name", ["padam", "partial_muon"])
def test_distributed_parameters(name: str, placement: Any, mesh: DeviceMesh) -> None:
    """Of DTensors, the norm is that of all shards: the same learning rate on each process."""
    plain = Parameter(parameters([(4, 3)])[0].detach())
    plain.grad = gradient(plain, 0)
    param = Parameter(distribute_tensor(plain.detach().clone(), mesh, [placement]))
    param.grad = distribute_tensor(plain.grad.clone(), mesh, [placement])
    lrs = [equivalent_lr(maker(name)([one], lr=0.1, partial=1 / 2), 1 / 8) for one in (plain, param)]
    assert lrs[1] == pytest.approx(lrs[0], rel=1e-10)


def _on_two(rank: int, path: str) -> None:
    """One of two processes: half of a parameter each."""
    dist.init_process_group("gloo", store=dist.FileStore(path, 2), rank=rank, world_size=2)
    whole = parameters([(5, 3)])[0]
    param = Parameter(distribute_tensor(whole.detach().clone(), init_device_mesh("cpu", (2,)), [Shard(0)]))
    param.grad = distribute_tensor(gradient(whole, 0), param.device_mesh, [Shard(0)])
    whole.grad = gradient(whole, 0)
    for name in ("padam", "partial_muon"):
        lrs = [equivalent_lr(maker(name)([one], lr=0.1, partial=1 / 2), 1 / 8) for one in (whole, param)]
        assert lrs[1] == pytest.approx(lrs[0], rel=1e-10), name
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:DTensor random operators may not have complete support")
def test_two_processes(tmp_path: Path) -> None:
    """Both find the learning rate of the whole parameter, of which they have different halves."""
    torch.multiprocessing.start_processes(_on_two, (str(tmp_path / "store"),), nprocs=2, start_method="spawn")


def test_one_exponent_for_each_group() -> None:
    """A sequence has one for each group; one that stays leaves its learning rate as it is."""
    optimizer = trained("padam", 1 / 2)
    first, second = equivalent_lr(optimizer, [1 / 8, 1 / 2])
    assert (first, second) == (equivalent_lr(optimizer, 1 / 8)[0], optimizer.param_groups[1]["lr"])
    assert equivalent_lr(optimizer, (0, torch.tensor(0.25))) == [
        equivalent_lr(optimizer, 0)[0],
        equivalent_lr(optimizer, np.float64(0.25))[1],
    ]


def test_groups_of_other_members() -> None:
    """A group that names a member gets the learning rate that belongs to it there."""
    both = Padam([{"params": values(parameters())}, {"params": values(parameters()), "member": "partial_sign"}], lr=0.1)
    alone = [maker(name)(values(parameters())) for name in ("padam", "partial_sign")]
    alone[0].param_groups[0]["lr"] = 0.1
    for optimizer in (both, *alone):
        for i, param in enumerate(params_of(optimizer)):
            param.grad = gradient(param, 0, i % len(parameters()))
    assert equivalent_lr(both, 1 / 2) == [equivalent_lr(one, 1 / 2)[0] for one in alone]


def test_parameters_without_gradients_are_left_out() -> None:
    """They take no step, so that the learning rate is that of the others."""
    optimizer, alone = (trained("padam", 1 / 2, steps=0) for _ in range(2))
    params_of(optimizer)[0].grad = None
    del alone.param_groups[0]["params"][0]
    assert equivalent_lr(optimizer, 1 / 8) == equivalent_lr(alone, 1 / 8)
    assert equivalent_lr(optimizer, 1 / 8) != equivalent_lr(trained("padam", 1 / 2, steps=0), 1 / 8)


def test_a_bounded_step_size() -> None:
    """Adafactor's step size is min(α, 1/√t): where α is above, the learning rate is that of the step really taken."""
    optimizer = trained("partial_adafactor", 0.3, lr=7.0)
    assert moves(optimizer, 1 / 4, equivalent_lr(optimizer, 1 / 4)) == pytest.approx(moves(optimizer), rel=1e-10)
    optimizer.state[params_of(optimizer)[0]]["step"].fill_(
        40
    )  # its step size has another bound than those of the others
    assert moves(optimizer, 1 / 4, equivalent_lr(optimizer, 1 / 4)) == pytest.approx(moves(optimizer), rel=1e-10)
    param = Parameter(torch.ones(3, 3, dtype=torch.float64))
    optimizer = PartialAdafactor([param], lr=0.01, partial=1 / 2)
    param.grad = torch.full_like(param, 1e-6)
    with pytest.raises(
        RuntimeError, match=r"group 0 of PartialAdafactor cannot keep its update at partial=0: its step"
    ):
        equivalent_lr(optimizer, 0)


def test_a_learning_rate_of_zero_stays() -> None:
    """No update is no update at any p."""
    assert equivalent_lr(trained("padam", 1 / 2, lr=0.0), 0)[0] == 0.0


# -- nothing changes


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), ALL_MODES))
@pytest.mark.parametrize("start", [0.0, 1 / 2])
def test_looking_changes_nothing(name: str, mode: dict[str, Any], start: float) -> None:
    """Parameters, gradients, state and groups are bit-identical and the same objects, and so is the next step."""
    optimizer, other = (trained(name, start, **mode) for _ in range(2))
    before = contents(optimizer)
    grads = values(param.grad for param in params_of(optimizer) if param.grad is not None)
    state = {id(entry): list(map(id, entry.values())) for entry in optimizer.state.values()}
    numbers = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    versions = [param._version for param in params_of(optimizer)]
    equivalent_lr(optimizer, 1 / 4)
    same(contents(optimizer), before, "equivalent_lr changes parameters or state")
    same([param.grad for param in params_of(optimizer)], grads, "equivalent_lr changes gradients")
    assert {id(entry): list(map(id, entry.values())) for entry in optimizer.state.values()} == state
    assert [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups] == numbers
    assert [param._version for param in params_of(optimizer)] == versions
    for one in (optimizer, other):
        train(one, 2, start=4)
    same(contents(optimizer), contents(other), "equivalent_lr changes what later steps do")


def test_no_state_is_made() -> None:
    """Before the first step there is no state, and after the call neither."""
    optimizer = trained("padam", 1 / 2, steps=0)
    equivalent_lr(optimizer, 1 / 8)
    assert not optimizer.state


# -- errors


@pytest.mark.parametrize("partial", [-0.1, 0.6, math.nan, None, "0.1", True, [0.1, 0.7]], ids=str)
def test_exponents_that_are_not_allowed(partial: Any) -> None:
    """An exponent that the group may not have is a ValueError with the value and the range."""
    wrong = partial[1] if isinstance(partial, list) else partial
    with pytest.raises(
        ValueError, match=r"equivalent_lr: param group [01] of Padam: partial must be a number in \[0, 1"
    ) as e:
        equivalent_lr(trained("padam", 1 / 2), partial)
    assert repr(wrong) in str(e.value)


@pytest.mark.parametrize("partial", [[], [0.1], [0.1, 0.2, 0.3]], ids=str)
def test_the_wrong_number_of_exponents(partial: Any) -> None:
    """As many as there are groups."""
    with pytest.raises(ValueError, match="partial must be one number, or one for each of 2 param groups, got"):
        equivalent_lr(trained("padam", 1 / 2), partial)


def test_no_gradients() -> None:
    """A group without any gradient has no update to keep: a RuntimeError that names it."""
    optimizer = trained("padam", 1 / 2)
    for param in optimizer.param_groups[1]["params"]:
        param.grad = None
    with pytest.raises(RuntimeError, match="param group 1 of Padam has no parameter with a gradient"):
        equivalent_lr(optimizer, 1 / 8)


@pytest.mark.parametrize(("value", "word"), [(0.0, "zero"), (math.nan, "not finite"), (math.inf, "not finite")])
def test_no_update(value: float, word: str) -> None:
    """An update of zero, or one that is not finite, has no size to keep."""
    optimizer = trained("padam", 1 / 2, steps=0)
    for param in params_of(optimizer):
        param.grad = torch.full_like(param, value)
    with pytest.raises(RuntimeError, match=f"param group 0 of Padam has no update to go by: it is {word}"):
        equivalent_lr(optimizer, 1 / 8)


def test_optimizers_of_others() -> None:
    """An optimizer that is not of the family has no p."""
    with pytest.raises(TypeError, match="equivalent_lr: optimizer must be one of the family, got SGD"):
        equivalent_lr(torch.optim.SGD(parameters()), 1 / 8)  # type: ignore[arg-type]  # that is the point


# -- between known learning rates


@pytest.mark.parametrize("p", [0, 0.1, 1 / 8, 1 / 4, 0.5])
def test_interpolation_between_two(p: float) -> None:
    """Log α is linear in p between two ends, which are met."""
    assert interpolated_lr(p, KNOWN) == pytest.approx(3.0 ** (1 - 2 * p) * 1e-3 ** (2 * p), rel=1e-14)


def test_interpolation_between_more() -> None:
    """Between more it is linear piece by piece, in whatever order they are given, and goes on beyond the last."""
    known = {1 / 2: 1e-3, 0: 1.0, 1 / 4: 0.1}
    found = [interpolated_lr(p, known) for p in (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)]
    assert found == pytest.approx([1.0, 10**-0.5, 0.1, 1e-2, 1e-3, 1e-5], rel=1e-13)


@pytest.mark.parametrize(
    ("partial", "known", "message"),
    [
        (-0.1, KNOWN, r"partial must be a number in \[0, 1\], got -0.1"),
        (None, KNOWN, r"partial must be a number in \[0, 1\], got None"),
        (0.1, {0: 1.0}, "known must be a dict of at least two"),
        (0.1, [(0, 1.0), (0.5, 2.0)], "known must be a dict of at least two"),
        (0.1, {0: 1.0, 1.5: 2.0}, r"known must have numbers in \[0, 1\] as keys, got 1.5"),
        (0.1, {0: 1.0, 0.5: 0.0}, "known must have finite numbers > 0 as learning rates, got 0.0 for p = 0.5"),
        (0.1, {0: math.inf, 0.5: 1.0}, "known must have finite numbers > 0 as learning rates, got inf"),
        (0.1, {0: "1", 0.5: 1.0}, "known must have finite numbers > 0 as learning rates, got '1'"),
    ],
    ids=str,
)
def test_what_cannot_be_interpolated(partial: Any, known: Any, message: str) -> None:
    """Exponents and learning rates that are none, or one alone, are ValueErrors, from a schedule as well."""
    with pytest.raises(ValueError, match=message):
        interpolated_lr(partial, known)
    if known is not KNOWN and isinstance(known, dict):
        with pytest.raises(ValueError, match=message):
            Schedule(Padam(parameters()), partial=Linear(0.0, 5), rescale_lr=known)


# -- schedules


def scheduled(name: str = "padam", rescale_lr: Any = equivalent_lr, **curves: Any) -> tuple[Any, Schedule]:
    """A member whose p goes from 1/2 to 1/8 in some steps, and its schedule."""
    optimizer = trained(name, 1 / 2, steps=0)
    return optimizer, Schedule(optimizer, partial=Linear(1 / 8, 6), rescale_lr=rescale_lr, **curves)


def rates(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def steps(optimizer: Any, schedule: Schedule, count: int) -> list[list[float]]:
    """Train, and what the learning rates were."""
    seen = []
    for _ in range(count):
        train(optimizer, 1, start=schedule.t)
        schedule.step()
        seen.append(rates(optimizer))
    return seen


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_schedules_keep_the_update(name: str) -> None:
    """At each change of p the next update would be as large as before, of every group, of every member."""
    optimizer, schedule = scheduled(name)
    for t in range(7):
        train(optimizer, 1, start=t)
        before = moves(optimizer)
        schedule.step()
        assert moves(optimizer) == pytest.approx(before, rel=1e-10)
    assert optimizer.param_groups[0]["partial"] == 1 / 8


def test_schedules_along_known_learning_rates() -> None:
    """The learning rate stays in proportion to the known ones, for groups that start elsewhere as well."""
    optimizer, schedule = scheduled(rescale_lr=KNOWN)
    start, p = rates(optimizer), []
    seen = steps(optimizer, schedule, 7)
    p = [Linear(1 / 8, 6)(1 / 2, t) for t in range(2, 9)]
    for lrs, partial in zip(seen, p, strict=True):
        expected = [lr * interpolated_lr(partial, KNOWN) / 1e-3 for lr in start]
        assert lrs == pytest.approx(expected, rel=1e-12)


def test_a_curve_of_lr_comes_on_top() -> None:
    """A learning rate with a curve of its own is the curve's value times what p has made of it."""
    plain, by_p = scheduled(rescale_lr=KNOWN)
    both, by_both = scheduled(rescale_lr=KNOWN, lr=Geometric(0.5))
    for t, (ours, theirs) in enumerate(zip(steps(both, by_both, 5), steps(plain, by_p, 5), strict=True), start=1):
        assert ours == pytest.approx([lr * 0.5**t for lr in theirs], rel=1e-12)


def test_schedulers_of_torch_come_on_top() -> None:
    """What multiplies the learning rate that it finds goes together with what p makes of it, in either order."""
    plain, by_p = scheduled(rescale_lr=KNOWN)
    expected = [[lr * 0.5**t for lr in lrs] for t, lrs in enumerate(steps(plain, by_p, 5), start=1)]
    for first in (True, False):
        optimizer, schedule = scheduled(rescale_lr=KNOWN)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for lrs in expected:
            train(optimizer, 1, start=schedule.t)
            for one in (schedule, scheduler) if first else (scheduler, schedule):
                one.step()
            assert rates(optimizer) == pytest.approx(lrs, rel=1e-12)


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("rescale_lr", [equivalent_lr, KNOWN], ids=["state", "known"])
@pytest.mark.parametrize("curves", [{}, {"lr": Geometric(0.9)}], ids=["lr alone", "lr with a curve"])
def test_resuming_is_exact(curves: dict[str, Any], rescale_lr: Any, optimizer_first: bool) -> None:
    """A run that was stopped goes on bit by bit, in whatever order its parts are loaded."""
    whole, part = (scheduled(rescale_lr=rescale_lr, **curves) for _ in range(2))
    steps(*whole, 7)
    steps(*part, 3)
    saved = copy.deepcopy([one.state_dict() for one in part])
    tensors = values(params_of(part[0]))
    resumed = scheduled(rescale_lr=rescale_lr, **curves)
    for param, value in zip(params_of(resumed[0]), tensors, strict=True):
        param.data.copy_(value)
        param.grad = None
    order = zip(resumed, saved, strict=True) if optimizer_first else reversed([*zip(resumed, saved, strict=True)])
    for one, state in order:
        one.load_state_dict(state)
    assert rates(resumed[0]) == rates(part[0])
    steps(*resumed, 4)
    same(contents(resumed[0]), contents(whole[0]), "resuming goes elsewhere")
    assert rates(resumed[0]) == rates(whole[0])


def test_tensors_are_filled_in_place() -> None:
    """A learning rate that is a tensor stays the same object, and is not for two groups at once."""
    lr = torch.tensor(1e-3, dtype=torch.float64)
    optimizer = Padam(values(parameters()), lr=lr, partial=1 / 2, capturable=True)
    schedule = Schedule(optimizer, partial=Steps({2: 1 / 8}), rescale_lr=KNOWN)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(interpolated_lr(1 / 8, KNOWN), rel=1e-12)
    optimizer.add_param_group({"params": values(parameters([(2,)])), "partial": 1 / 4})
    with pytest.raises(ValueError, match="rescale_lr gives each group its own lr, got one tensor in two"):
        schedule.step()
    assert (schedule.t, optimizer.param_groups[1]["partial"]) == (2, 1 / 4)


def test_schedules_without_gradients_change_nothing() -> None:
    """What `equivalent_lr` raises comes through before p, the learning rate or t has changed; it stays callable."""
    optimizer, schedule = scheduled()
    steps(optimizer, schedule, 2)
    before, state = rates(optimizer), schedule.state_dict()
    optimizer.zero_grad()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no parameter with a gradient; call it between backward and zero_grad"):
            schedule.step()
    assert (rates(optimizer), schedule.state_dict()) == (before, state)
    steps(optimizer, schedule, 1)
    assert schedule.t == 4


@pytest.mark.parametrize("rescale_lr", [0.5, "equivalent", True, dict], ids=str)
def test_what_rescales_nothing(rescale_lr: Any) -> None:
    """Anything else than a function, a dict or None is a TypeError, and so is one without a curve for p."""
    with pytest.raises(TypeError, match="Schedule: rescale_lr must be a function such as equivalent_lr"):
        Schedule(Padam(parameters()), partial=Linear(0.0, 5), rescale_lr=rescale_lr)
    with pytest.raises(TypeError, match="Schedule: rescale_lr needs a curve for partial"):
        Schedule(Padam(parameters()), lr=Geometric(0.5), rescale_lr=equivalent_lr)


@pytest.mark.parametrize("rate", [-1.0, math.inf, math.nan, None])
def test_learning_rates_that_are_not_allowed(rate: Any) -> None:
    """A learning rate that a function gives is checked before anything changes."""
    optimizer = Padam(parameters(), lr=0.1, partial=1 / 2)
    given: list[Any] = [0.1]
    schedule = Schedule(optimizer, partial=Steps({2: 0.0}), rescale_lr=lambda *_: given)
    given[0] = rate
    with pytest.raises(ValueError, match=r"Schedule: lr must be a finite number ≥ 0, got .* at step 2"):
        schedule.step()
    assert (schedule.t, optimizer.param_groups[0]["partial"], rates(optimizer)) == (1, 1 / 2, [0.1])


def test_schedules_can_be_pickled() -> None:
    """With known learning rates and with `equivalent_lr`, as they can without."""
    for rescale_lr in (KNOWN, equivalent_lr):
        optimizer = PartialAdam(parameters(), lr=1e-3, partial=1 / 2)
        schedule = pickle.loads(pickle.dumps(Schedule(optimizer, partial=Linear(0.0, 5), rescale_lr=rescale_lr)))
        assert schedule.state_dict()["factors"] == [1.0]
