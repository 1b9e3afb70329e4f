"""A look at what the next step would divide by."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Unit
from partial_adaptive.execution.staging import Row, decoded, local, pieces, settled
from partial_adaptive.execution.state import State, additions, advance, entries
from partial_adaptive.rules.hyperparameters import Hyperparameter
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.second_moments import Null


def scale_of(
    param: Tensor, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], state: State, rule: Rule
) -> Tensor | None:
    """The scale s of a parameter's next step, of its shape (complex ones as pairs); None where there is none.

    Args:
        param: the parameter.
        group: its param group.
        table: the hyperparameters of the optimizer.
        state: its state, of which nothing is changed.
        rule: the rule of the next step.
    """
    if param.grad is None or isinstance(rule.second_moment, Null):
        return None
    with torch.no_grad():
        copied = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
        copied |= additions(copied, param, group, rule)
        unit = Unit(rule, group, table, [param], [copied], {}, [[0]])
        for counter in unit.counters():
            advance([counter])
        grad = settled(local(param.grad.to_dense() if param.grad.is_sparse else param.grad))
        row = Row(local(param), grad, {name: local(copied[name]) for name in entries(rule, param)}, rule.rounding)
        row, _ = decoded(rule, param, row, step=0)
        ((staged, _),) = pieces(row, split=False)
        scale = rule.scale(staged.param, staged.grad, unit.hyper([0]), staged.slots)
        return None if scale is None else scale.expand(staged.param.shape)
