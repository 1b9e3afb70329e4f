"""p above 1/2: opened by an option, the same formula, in every mode."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from family import maker

import partial_adaptive as pa
from partial_adaptive.rules.second_moments import Estimator
from partial_adaptive.testing.harness import contents, gradient, modes_of, parameters, same, train, values


def test_root_free_rmsprop() -> None:
    """At p = 1 RMSprop divides by v itself, as its root-free form does, in every mode."""
    make = functools.partial(pa.PartialRMSprop, lr=0.01, alpha=0.9, eps=1e-3, partial=1.0, beyond_half=True)
    for mode in modes_of(make):
        (param,) = params = parameters([(5,)])
        optimizer = make(params, **mode)
        theta, v = param.detach().numpy().copy(), np.zeros(5)
        for step in range(20):
            param.grad = gradient(param, step)
            v = 0.9 * v + 0.1 * param.grad.numpy() ** 2
            theta = theta - 0.01 * param.grad.numpy() / (np.sqrt(v) + 1e-3) ** 2
            optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), theta, rtol=1e-12, atol=1e-12, err_msg=str(mode))


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_every_member(name: str) -> None:
    """A step at p is the step at p = 0 divided by s^(2p), with the scale that `scale_of` shows."""
    unclipped = {"d": 1e300} if "d" in maker(name)(parameters()).defaults else {}
    make = maker(name, lr=0.1, beyond_half=True, **unclipped)
    if not isinstance(
        make(parameters()).recipe.rule(make(parameters()).param_groups[0], scaled=True).second_moment, Estimator
    ):
        return
    for mode, p in itertools.product(modes_of(make), (0.55, 0.75, 1.0)):
        (param,), (plain,) = parameters([(6,)]), parameters([(6,)])
        optimizer, reference = make([param], partial=p, **mode), make([plain], partial=0.0)
        start = param.detach().clone()
        param.grad = plain.grad = gradient(param, 0)
        scale = optimizer.scale_of(param)
        optimizer.step()
        reference.step()
        assert scale is not None
        right = (plain.detach() - start) / scale ** (2 * p)
        same([param.detach() - start], [right], f"{name} at p = {p} ({mode})", 1e-9)


def test_without_the_option() -> None:
    """It is refused without the option, in a tensor too, before anything has changed; with it p up to 1 is allowed."""
    optimizer = pa.Padam(parameters())
    train(optimizer, 1)
    before = contents(optimizer)
    for value in (0.6, torch.tensor(0.6)):
        optimizer.param_groups[0]["partial"] = value
        with pytest.raises(ValueError, match=r"partial must be .* or in \[0, 1\] with beyond_half=True, got"):
            train(optimizer, 1)
        same(contents(optimizer), before, "the refused step has changed something")
    optimizer.param_groups[0]["beyond_half"] = True
    train(optimizer, 1)
    with pytest.raises(ValueError, match=r"got 1\.1"):
        pa.Padam(parameters(), partial=1.1, beyond_half=True)


@pytest.mark.parametrize("mode", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_continuous_at_a_half(mode: dict[str, Any]) -> None:
    """The option itself changes nothing, and there is no jump where p passes 1/2."""
    ends = []
    for p, option in ((0.5, False), (0.5, True), (0.5 + 1e-9, True)):
        params = parameters()
        train(pa.Padam(params, partial=p, beyond_half=option, **mode))
        ends.append(values(params))
    same(ends[1], ends[0], "the option changes the step", 1e-12)
    same(ends[2], ends[0], "the step jumps at p = 1/2", 1e-6)
