"""A look at what the next step would do, on copies: by what it would divide, and how far it would go."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Unit
from partial_adaptive.execution.distributed import gathered, is_distributed, of_parts, placed, scattered
from partial_adaptive.execution.staging import Row, decoded, locals_of, pieces, settled
from partial_adaptive.execution.state import State, additions, advance, entries
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
        row, hyper = _next(param, group, table, state, rule)
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
        row, hyper = _next(param, group, table, state, rule)
        direction, _ = rule.direction(row.param, row.grad, hyper, row.slots)
        x: Tensor = direction.divided() if isinstance(direction, Quotient) else direction
        # Squares of float32 leave its range long before the step does.
        square = widened(x).square().sum()
        return StepLength(rule, hyper, math.sqrt(_total(square, param, rule).item()))


def _next(
    param: Tensor, group: Mapping[str, Any], table: Mapping[str, Hyperparameter], state: State, rule: Rule
) -> tuple[Row, Hyper]:
    """Copies of a parameter's tensors as its next step sees them, whole or what is here of them, and its numbers."""
    assert param.grad is not None
    copied = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
    copied |= additions(copied, param, group, rule)
    unit = Unit(rule, group, table, [param], [copied], {}, [[0]])
    for counter in unit.counters():
        advance([counter])
    grad = param.grad.to_dense() if param.grad.is_sparse else param.grad
    names = entries(rule, param)
    seen = gathered if rule.needs is Needs.TENSOR else locals_of
    theta, grad, *slots = seen([param, *placed([param], [grad]), *(copied[name] for name in names)])
    row = Row(theta, settled(grad), dict(zip(names, slots, strict=True)), rule.rounding)
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


def _total(square: Any, param: Any, rule: Rule) -> Any:
    """The sum of a number over the shards of a distributed parameter; of any other, and of whole ones, itself."""
    if not is_distributed(param) or rule.needs is Needs.TENSOR:
        return square
    from torch.distributed.tensor import DTensor, Partial, Replicate

    parts = [Replicate() if placement.is_replicate() else Partial() for placement in param.placements]
    return DTensor.from_local(square, param.device_mesh, parts, run_check=False).full_tensor()
