"""p = 0 is SGD: with momentum for the members that average the gradient, plain for the others."""

from typing import Any

import pytest
import torch

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, displacement, parameters, same, train, values

AVERAGING = ["padam", "partial_adam", "partial_adamax", "partial_adabelief", "partial_yogi"]
PLAIN = ["partial_rmsprop", "partial_adagrad", "partial_adadelta"]
MODIFIERS = [{}, {"weight_decay": 0.1}, {"maximize": True}]


def assert_is_sgd(name: str, options: dict[str, Any], sgd: dict[str, Any], modifiers: dict[str, Any]) -> None:
    """Twenty steps of a member at p = 0 are twenty steps of SGD."""
    ours, theirs = parameters(), parameters()
    optimizer = pa.create(name, ours, partial=0.0, **options, **modifiers)
    train(optimizer, 20)
    train(torch.optim.SGD(theirs, **sgd, **modifiers), 20)
    same(values(ours), values(theirs), f"{name} at p = 0 is not SGD", 1e-14)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("modifiers", MODIFIERS, ids=str)
@pytest.mark.parametrize("beta1", [0.9, 0.5, 0.0])
@pytest.mark.parametrize("name", AVERAGING)
def test_zero_is_sgd_with_momentum(name: str, beta1: float, modifiers: dict[str, Any], mode: dict[str, Any]) -> None:
    """Without bias correction, (lr) at p = 0 is SGD(lr(1−β₁), momentum=β₁) exactly, from the first step."""
    options = {"lr": 0.1, "betas": (beta1, 0.999), "bias_correction": "none", **mode}
    assert_is_sgd(name, options, {"lr": 0.1 * (1 - beta1), "momentum": beta1}, modifiers)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("modifiers", MODIFIERS, ids=str)
@pytest.mark.parametrize("name", PLAIN)
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
    params = parameters()
    optimizer = pa.create(name, params, partial=0.0)
    train(optimizer)
    assert {key for state in optimizer.state.values() for key in state} <= {"step", "exp_avg", "mu_product"}


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_zero_is_the_limit(name: str) -> None:
    """A tiny p does what p = 0 does, although it takes another path: the estimator's state and pow."""
    make = pa.MEMBERS[name].cls
    limit, zero = (displacement(make, partial=p) for p in (1e-9, 0.0))
    same([limit], [zero], f"{name} is not continuous at p = 0", 1e-6)
