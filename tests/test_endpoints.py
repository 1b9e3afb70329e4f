"""p = 0 is SGD: with momentum for the members that average the gradient, plain for the others."""

from typing import Any

import pytest
import torch
from family import in_modes, maker

import partial_adaptive as pa
from partial_adaptive.rules.numerators import AnnealedGradient, ExpAvg, Gradient, Momentum
from partial_adaptive.rules.second_moments import SecondMoment
from partial_adaptive.testing.harness import displacement, parameters, same, train, values


def with_momentum(*kinds: type[Momentum]) -> list[str]:
    """The members whose numerator is of one of these kinds, and whose direction is the step."""
    found = []
    for name in pa.MEMBERS:
        recipe = maker(name)(parameters()).recipe
        direct = all(None in part.alternatives for part in recipe.after)
        if type(recipe.momentum) in kinds and direct:
            found.append(name)
    return found


AVERAGING = with_momentum(ExpAvg)
PLAIN = with_momentum(Gradient, AnnealedGradient)
MODIFIERS = [{}, {"weight_decay": 0.1}, {"maximize": True}]


def assert_is_sgd(name: str, options: dict[str, Any], sgd: dict[str, Any], modifiers: dict[str, Any]) -> None:
    """Twenty steps of a member at p = 0 are twenty steps of SGD."""
    ours, theirs = parameters(), parameters()
    plain = {"weight_decay": 0.0, "decoupled_weight_decay": False}  # of some members these are not the defaults
    optimizer = pa.create(name, ours, partial=0.0, **{**plain, **options, **modifiers})
    train(optimizer, 20)
    train(torch.optim.SGD(theirs, **sgd, **modifiers), 20)
    same(values(ours), values(theirs), f"{name} at p = 0 is not SGD", 1e-14)


@pytest.mark.parametrize("modifiers", MODIFIERS, ids=str)
@pytest.mark.parametrize("beta1", [0.9, 0.5, 0.0])
@pytest.mark.parametrize(("name", "mode"), in_modes(AVERAGING))
def test_zero_is_sgd_with_momentum(name: str, beta1: float, modifiers: dict[str, Any], mode: dict[str, Any]) -> None:
    """Without bias correction, (lr) at p = 0 is SGD(lr(1−β₁), momentum=β₁) exactly, from the first step."""
    options = {"lr": 0.1, "betas": (beta1, 0.999), "bias_correction": "none", **mode}
    assert_is_sgd(name, options, {"lr": 0.1 * (1 - beta1), "momentum": beta1}, modifiers)


@pytest.mark.parametrize("modifiers", MODIFIERS, ids=str)
@pytest.mark.parametrize(("name", "mode"), in_modes(PLAIN))
def test_zero_is_plain_sgd(name: str, modifiers: dict[str, Any], mode: dict[str, Any]) -> None:
    """The members that use the gradient itself are SGD without momentum."""
    assert_is_sgd(name, {"lr": 0.1, **mode}, {"lr": 0.1}, modifiers)


@pytest.mark.parametrize("modifiers", MODIFIERS, ids=str)
def test_zero_rmsprop_with_momentum_is_sgd_with_momentum(modifiers: dict[str, Any]) -> None:
    """RMSprop's heavy ball is SGD's where nothing is divided."""
    sgd = {"lr": 0.1, "momentum": 0.9}
    assert_is_sgd("partial_rmsprop", sgd, sgd, modifiers)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_zero_keeps_no_estimator_state(name: str) -> None:
    """At p = 0 a step needs, and the state holds, nothing of the second moment."""
    optimizer = maker(name)(parameters(), partial=0.0)
    train(optimizer)
    rule = optimizer.recipe.rule(optimizer.param_groups[0], scaled=False)
    kept = {key for state in optimizer.state.values() for key, value in state.items() if value.numel()}
    assert kept == {"step", "estimator_step", *rule.slots, *rule.momentum.scalars}
    assert all(not state["estimator_step"] for state in optimizer.state.values())
    assert not kept & {
        slot for stage in optimizer.recipe.stages if isinstance(stage, SecondMoment) for slot in stage.slots
    }


def test_the_members_are_sorted() -> None:
    """No member that is SGD at p = 0 has slipped out of the lists above."""
    assert {"padam", "partial_adam", "partial_adam_mini"} <= set(AVERAGING)
    assert {"partial_rmsprop", "partial_adagrad", "partial_sm3"} <= set(PLAIN)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_zero_is_the_limit(name: str) -> None:
    """A tiny p does what p = 0 does, although it takes another path: the estimator's state and pow."""
    limit, zero = (displacement(maker(name), partial=p) for p in (1e-9, 0.0))
    same([limit], [zero], f"{name} is not continuous at p = 0", 1e-6)
