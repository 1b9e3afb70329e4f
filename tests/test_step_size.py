"""The learning rate that belongs to p: the update keeps its size when p changes, and looking changes nothing."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from family import ELEMENTWISE, in_modes, maker, takes_complex
from step_size import groups, moves, rates, trained
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive import (
    Linear,
    Padam,
    PartialAdafactor,
    Schedule,
    equivalent_lr,
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
        equivalent_lr(torch.optim.SGD(parameters()), 1 / 8)
