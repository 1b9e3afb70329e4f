"""What a hostile user found of roles, matrices, codes and options: each was wrong once."""

from typing import Any

import numpy as np
import pytest
import torch
from family import maker
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.rules.hyperparameters import CODES
from partial_adaptive.testing.harness import gradient, parameters, values

MATRICES = ("partial_shampoo", "partial_soap")
EVERYONE: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in pa.MEMBERS]
EVERYONE += [("partial_muon", {"matrix_power": way}) for way in ("newton_schulz", "newton_schulz_bfloat16")]


def second_moment(name: str) -> pa.SecondMoment:
    """That of a member."""
    optimizer = maker(name)([torch.ones(2, 2)])
    return optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment


def stepped(optimizer: pa.PartialAdaptiveOptimizer, params: list[Tensor], steps: range, scale: float = 1.0) -> None:
    for step in steps:
        for i, param in enumerate(params):
            param.grad = (gradient(param, step, i).detach() * scale).to(param.dtype)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "options"), EVERYONE, ids=str)
def test_autocast_changes_nothing(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """A step inside a training loop's autocast is the step outside of it, bit for bit."""
    ours, theirs = ([param.to(dtype) for param in values(parameters([(4, 3), (3,)]))] for _ in range(2))
    inside, outside = (maker(name, **options)(params, lr=0.1) for params in (ours, theirs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stepped(inside, ours, range(3))
        assert torch.is_autocast_enabled("cpu")
    stepped(outside, theirs, range(3))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_device_without_autocast() -> None:
    """Parameters on "meta", which has none, are stepped as before."""
    param = torch.ones(2, 2, device="meta")
    param.grad = torch.ones(2, 2, device="meta")
    pa.PartialAdam([param]).step()


def test_a_closure_keeps_its_autocast() -> None:
    """It is the user's forward pass, and runs as it would elsewhere."""
    param = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = pa.PartialAdam([param])
    seen = []

    def closure() -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        loss = (param @ param).float().sum()
        loss.backward()
        return loss

    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(closure)
    assert seen == [True]


@pytest.mark.parametrize("mode", [{"foreach": False}, {"foreach": True}, {"capturable": True}], ids=str)
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_start_afresh_as_a_whole(name: str, mode: dict[str, Any]) -> None:
    """Without one of its entries a second moment of matrices is a new one: bases and values belong together."""
    slots = second_moment(name).slots
    for gone in slots:
        (ours,), (theirs,) = values(parameters([(4, 3)])), values(parameters([(4, 3)]))
        options = {"lr": 0.1, "precondition_frequency": 10, **mode}
        optimizer, reference = (maker(name, **options)([param]) for param in (ours, theirs))
        stepped(optimizer, [ours], range(4))
        stepped(reference, [theirs], range(4))
        del optimizer.state[ours][gone]
        for slot in slots:
            del reference.state[theirs][slot]
        stepped(optimizer, [ours], range(4, 6))
        stepped(reference, [theirs], range(4, 6))
        assert torch.equal(ours, theirs), gone


@pytest.mark.parametrize(("one", "other"), [("partial_soap", "partial_adam"), ("partial_shampoo", "partial_soap")])
def test_no_state_under_another_meaning(one: str, other: str) -> None:
    """Squares in a rotated basis are not Adam's, and sums are not averages: other members do not take them over."""
    first, second = (maker(name)([torch.ones(2, 2)]) for name in (one, other))
    slots = [
        optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment.slots
        for optimizer in (first, second)
    ]
    assert not {name for name in slots[0].keys() & slots[1].keys() if "basis" not in name}


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("partial_soap", "partial_adam", "block_size"),
        ("partial_soap", None, "block_size"),
        ("padam", "partial_adam", "amsgrad"),
    ],
)
def test_a_group_cannot_change_its_member(before: str, after: str | None, key: str) -> None:
    """Also not to a member that has all that it needs in the group already; nothing has moved."""
    param = torch.ones(2, 2)
    optimizer = pa.PartialAdam([{"params": [param], "member": before}])
    stepped(optimizer, [param], range(1))
    kept = param.clone()
    optimizer.param_groups[0]["member"] = after
    with pytest.raises(RuntimeError, match=r"PartialAdam: param group 0 must not have '.*'; a group gets its member's"):
        stepped(optimizer, [param], range(1, 2))
    assert key in optimizer.param_groups[0]
    assert torch.equal(param, kept)


@pytest.mark.parametrize(
    ("member", "name"), [("partial_adam", "block_size"), ("partial_muon", "shampoo_beta"), ("partial_muon", "heads")]
)
def test_hyperparameters_of_another_member(member: str, name: str) -> None:
    """A group that names its member is told what that does not have, the stages' own hyperparameters included."""
    optimizer = pa.PartialAdam([torch.ones(2)])
    with pytest.raises(TypeError, match=f"unexpected hyperparameter {name!r}; it takes lr, "):
        optimizer.add_param_group({"params": [torch.ones(2, 2)], "member": member, name: 3})


def test_errors_name_the_users_own_group() -> None:
    """A group that is planned in two, or with another, keeps its numbers in messages."""
    first, second = torch.ones(2), torch.ones(3, dtype=torch.bfloat16)
    optimizer = pa.PartialAdam([first, second], rounding="kahan")
    stepped(optimizer, [first, second], range(1))
    optimizer.state[second]["exp_avg"] = torch.ones(7)
    with pytest.raises(RuntimeError, match=r"parameter number 1 of its group, of shape \(3,\)"):
        stepped(optimizer, [first, second], range(1))
    optimizer = pa.PartialAdam([{"params": [torch.ones(2)]}, {"params": [second]}])
    optimizer.state[second]["exp_avg"] = torch.ones(7)
    with pytest.raises(RuntimeError, match=r"parameter number 0 of its group, of shape \(3,\)"):
        stepped(optimizer, [second], range(1))


@pytest.mark.parametrize("way", ["eigh", "newton_schulz", "newton_schulz_bfloat16"])
@pytest.mark.parametrize("p", [1 / 8, 1 / 2])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_matrices_of_every_size(way: str, p: float, scale: float) -> None:
    """Gradients far from 1 in float32 make the step that gradients near 1 make, times scale^(1−2p)."""
    ours, theirs = torch.zeros(4, 3), torch.zeros(4, 3)
    for param, factor in ((ours, scale), (theirs, 1.0)):
        optimizer = pa.PartialMuon([param], lr=1e-6, weight_decay=0.0, eps=0.0, partial=p, matrix_power=way)
        stepped(optimizer, [param], range(1), factor)
    torch.testing.assert_close(
        ours.double(), theirs.double() * scale ** (1 - 2 * p), rtol=2e-2 if "b" in way else 1e-4, atol=0
    )


def test_codes_without_their_scale() -> None:
    """A code is no value: alone it is refused by name, from a checkpoint as in the state."""
    param = torch.ones(64)
    optimizer = pa.PartialAdam([param], state_dtype=CODES[0])
    stepped(optimizer, [param], range(1))
    checkpoint = optimizer.state_dict()
    checkpoint["state"] = {0: {k: v for k, v in checkpoint["state"][0].items() if k != "exp_avg_sq_scale"}}
    checkpoint["param_groups"][0]["state_dtype"] = None
    with pytest.raises(ValueError, match=r"'exp_avg_sq' must be of a floating-point dtype, got torch.uint8"):
        optimizer.load_state_dict(checkpoint)
    for name, dtype in (("exp_avg_sq", torch.int64), ("exp_avg_sq_scale", torch.uint8)):
        kept = optimizer.state[param][name]
        optimizer.state[param][name] = torch.zeros_like(kept, dtype=dtype)
        with pytest.raises(RuntimeError, match=rf"{name!r}.* must be of .*, as it is part of a code, got {dtype}"):
            stepped(optimizer, [param], range(1))
        optimizer.state[param][name] = kept


def test_numpy_strings_are_plain() -> None:
    """Options from a configuration in NumPy are stored as Python's text, which loads with weights_only."""
    optimizer = pa.PartialAdam([torch.ones(2)], rounding=np.str_("kahan"), bias_correction=np.str_("adam"))
    (group,) = optimizer.param_groups
    assert {type(group[name]) for name in ("rounding", "bias_correction")} == {str}


def test_what_a_stage_refuses_is_said_with_the_optimizer() -> None:
    """An exponent without digits, or a slot that no code will do for, is refused by the optimizer's name."""
    with pytest.raises(ValueError, match="PartialMuon: matrix_power='newton_schulz' takes a partial"):
        pa.PartialMuon([torch.ones(2, 2)], partial=0.3, matrix_power="newton_schulz")
    with pytest.raises(ValueError, match="PartialShampoo: "):
        pa.PartialShampoo([torch.ones(2, 2)], state_dtype={"left": "8bit"})
