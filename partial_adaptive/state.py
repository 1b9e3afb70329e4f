"""What a parameter's entry in the optimizer's state holds: the rule's buffers, its 0-dim tensors, and step counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _get_scalar_dtype

from partial_adaptive.execution.tensor_list import TensorList
from partial_adaptive.rule import Rule

STEP = "step"  # how many steps the parameter has taken
AGE = "estimator_step"  # how many of them the estimator has seen; only there where p was 0 for some


def initialize(state: dict[str, Tensor], param: Tensor, group: Mapping[str, Any], rule: Rule) -> None:
    """Add what the rule needs and was not there yet.

    Args:
        state: the parameter's state, maybe empty.
        param: the parameter.
        group: its param group.
        rule: the rule of the next step.
    """
    own = rule.estimator.buffers if rule.estimator else ()
    if own and STEP in state and not any(name in state for name in own) and state[STEP].item() > 0:
        state[AGE] = torch.zeros_like(state[STEP])
    for name, value in {STEP: 0.0, **rule.momentum.scalars}.items():
        if name not in state:
            state[name] = torch.full((), value, dtype=_get_scalar_dtype(), device=scalar_device(param, group))
    for name in rule.buffers:
        if name not in state:
            dtype = buffer_dtype(param, group)
            state[name] = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)
            real = torch.view_as_real(state[name]) if param.is_complex() else state[name]
            real.fill_(rule.initial(name, group))


def advance(states: Sequence[Mapping[str, Tensor]], rule: Rule) -> None:
    """Count a step of parameters of one bucket."""
    counters = [state[STEP] for state in states]
    if rule.estimator is not None:
        counters += [state[AGE] for state in states if AGE in state]
    # A Python number would be made into a tensor for each of them.
    torch._foreach_add_(counters, torch.ones_like(counters[0]), alpha=1.0)


def counts(states: Sequence[Mapping[str, Tensor]], group: Mapping[str, Any], rule: Rule) -> tuple[Any, Any]:
    """The steps of the parameters of one bucket and of their estimators, as numbers unless capturable."""
    step = TensorList.lift([state[STEP] for state in states])
    age = step if rule.estimator is None else TensorList.lift([state.get(AGE, state[STEP]) for state in states])
    return (step, age) if group["capturable"] else (step.item(), age.item())


def rest(state: dict[str, Tensor], buffers: Sequence[str]) -> None:
    """Keep the estimator's count of steps while p is 0, if it has begun to count."""
    if AGE not in state and any(name in state for name in buffers):
        state[AGE] = state[STEP].clone()


def placed(name: str, value: Any, param: Tensor, group: Mapping[str, Any], rule: Rule) -> Tensor:
    """A copy of an entry from elsewhere, on the device and in the dtype that it has in this parameter's state."""
    tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=_get_scalar_dtype())
    if tensor.ndim == 0 and name in (STEP, AGE, *rule.momentum.scalars):
        return tensor.to(scalar_device(param, group), copy=True)
    return tensor.to(param.device, buffer_dtype(param, group), copy=True)


def scalar_device(param: Tensor, group: Mapping[str, Any]) -> torch.device:
    """Where 0-dim state lives: with the parameter if a kernel reads it, else where Python does."""
    return param.device if group["capturable"] or group["fused"] else torch.device("cpu")


def buffer_dtype(param: Tensor, group: Mapping[str, Any]) -> torch.dtype:
    """The dtype of the state of the parameter's shape."""
    dtype: torch.dtype = group["state_dtype"] or param.dtype
    return dtype.to_complex() if param.is_complex() else dtype
