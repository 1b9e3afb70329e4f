"""Optimizers in mid-training, and how far their steps go, for the tests of the step size."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from family import maker

from partial_adaptive.testing.harness import gradient, parameters, params_of, train, values


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


def rates(optimizer: Any) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]
