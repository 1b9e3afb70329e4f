"""A look at what the next step would do, on copies: by what it would divide, and how far it would go."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Unit
from partial_adaptive.execution.distributed import gathered, is_distributed, of_parts, placed, scattered, summed
from partial_adaptive.execution.resting import lacking
from partial_adaptive.execution.staging import Row, decoded, locals_of, pieces, settled
from partial_adaptive.execution.state import State, advance, entries, without_none
from partial_adaptive.rules.hyperparameters import Hyper, Hyperparameter, as_float
from partial_adaptive.rules.matrix_power import widened
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.second_moments import Null, Quotient
from partial_adaptive.rules.stage import Needs


def scale_of(
    param: Tensor, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], state: State, rule: Rule
) -> Tensor | None:
    """The scale s of a parameter's next step, of its shape (complex ones as pairs); None where there is none.

    Of a distributed parameter it is one, too, and placed as that.

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
        row, hyper = next_of(param, group, table, state, rule)
        scale = rule.scale(row.param, row.grad, hyper, row.slots)
        return None if scale is None else _as(scale.expand(row.param.shape), param, rule)


@dataclass(frozen=True)
class StepLength:
    """How far a parameter's next step goes.

    Args:
        rule: the rule of the step.
        hyper: its numbers.
        norm: the Euclidean norm of the direction.
    """

    rule: Rule
    hyper: Hyper
    norm: float

    def length(self, lr: float) -> float:
        """The Euclidean norm of what the step subtracts at this learning rate; decay of the parameter is not in it."""
        hyper = copy.copy(self.hyper)
        vars(hyper)["lr"] = lr
        return self.norm * as_float(self.rule.step_size(hyper))


def step_length_of(
    param: Tensor, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], state: State, rule: Rule
) -> StepLength:
    """How far the next step of a parameter that has a gradient goes; see `scale_of` for the arguments."""
    with torch.no_grad():
        row, hyper = next_of(param, group, table, state, rule)
        direction, _ = rule.direction(row.param, row.grad, hyper, row.slots)
        x: Tensor = direction.divided() if isinstance(direction, Quotient) else direction
        # Squares of float32 leave its range long before the step does.
        square = widened(x).square().sum()
        return StepLength(rule, hyper, math.sqrt(total(square, param, rule).item()))


def alone(
    param: Tensor, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], state: State, rule: Rule
) -> Unit:
    """A parameter by itself as its next step finds it, the step counted, with copies of its state; see `scale_of`.

    It is whole where the rule must see whole tensors, and otherwise what is here of it.
    """
    assert param.grad is not None
    copied = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
    copied = without_none({**copied, **lacking(copied, param, group, rule)})
    names = ["param", "grad", *entries(rule, param)]
    tensors = [param, *placed([param], [param.grad]), *(copied[name] for name in names[2:])]
    seen = gathered if rule.needs is Needs.TENSOR else locals_of
    columns = {name: [tensor] for name, tensor in zip(names, seen(tensors), strict=True)}
    unit = Unit(rule, group, table, [param], [copied], columns, [[0]])
    for counter in unit.counters():
        advance([counter])
    return unit


def next_of(
    param: Tensor, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], state: State, rule: Rule
) -> tuple[Row, Hyper]:
    """A parameter's tensors as the rule sees them in its next step, the state copied, and the numbers of the step."""
    unit = alone(param, group, table, state, rule)
    row = unit.row(0)
    row = row.but(grad=settled(row.grad.to_dense() if row.grad.is_sparse else row.grad))
    row, _ = decoded(rule, param, row, step=0)
    ((staged, _),) = pieces(row, split=False)
    return staged, unit.hyper([0])


def _as(scale: Tensor, param: Any, rule: Rule) -> Tensor:
    """What has been computed of a parameter, distributed as that is."""
    if not is_distributed(param):
        return scale
    if rule.needs is Needs.TENSOR:
        return scattered(scale.contiguous(), param)
    return of_parts(scale, param, torch.Size((*param.shape, 2)) if param.is_complex() else param.shape)


def total(numbers: Tensor, param: Any, rule: Rule) -> Tensor:
    """Sums over what a rule has seen of a parameter, as sums over all of it."""
    return numbers if rule.needs is Needs.TENSOR else summed(numbers, param)
