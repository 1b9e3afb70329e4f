"""What the next step would do, in numbers: how far it goes, by which step sizes, and where ε decides them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from partial_adaptive.execution.distributed import agreed, gathered
from partial_adaptive.execution.eager import update_one
from partial_adaptive.execution.nonfinite import is_finite
from partial_adaptive.execution.quantiles import counts, quantiles
from partial_adaptive.execution.scales import alone, next_of, total
from partial_adaptive.execution.settings import rule_of
from partial_adaptive.execution.staging import local, settled
from partial_adaptive.execution.state import State
from partial_adaptive.rules.hyperparameters import Hyperparameter, as_float
from partial_adaptive.rules.matrix_power import widened
from partial_adaptive.rules.power import divisor
from partial_adaptive.rules.rounding import group_of
from partial_adaptive.rules.rule import Recipe, RecipeOf, Rule
from partial_adaptive.rules.second_moments import Estimator, Null
from partial_adaptive.rules.stage import Needs

FRACTIONS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Metrics:
    """What the next step would do, in all param groups together, or in one of them.

    Norms are Euclidean, over the parameters that have a gradient.

    Args:
        name: a group's entry `name`; None where it has none, and of all groups together.
        param_norm: ‖θ‖.
        grad_norm: ‖g‖ of the gradients as they are; NaN or infinite where one of them is.
        update_norm: ‖θ′ − θ‖, with decay, projection and rounding in it. NaN where a gradient of the group is not
            finite, and 0 in all groups where the step would be skipped for that, or because of `found_inf`.
        grad_ratio: ‖g‖/‖θ‖, infinite where ‖θ‖ = 0 and NaN where both are.
        update_ratio: ‖θ′ − θ‖/‖θ‖, likewise.
        effective_step: α/s^(2p), by which an element's numerator is multiplied: its quantiles of 5, 50 and 95 % over
            all elements. None where the second moment has no value per element (of PartialMuon, PartialShampoo and
            PartialSOAP with p > 0), where there are no elements, or a gradient of the group is not finite.
        eps_floor: the share of the elements whose scale ε decides: without it s would be less than half of what it is
            (where s = √v + ε, √v < ε), or more than twice. None where `effective_step` is, or p = 0.
        groups: the same of each param group, in their order.
    """

    name: str | None
    param_norm: float
    grad_norm: float
    update_norm: float
    grad_ratio: float
    update_ratio: float
    effective_step: tuple[float, float, float] | None
    eps_floor: float | None
    groups: tuple["Metrics", ...] = ()


class _Next(NamedTuple):
    """The next step of a parameter; see `scale_of`."""

    param: Tensor
    group: Mapping[str, Any]
    table: Mapping[str, Hyperparameter]
    state: State
    rule: Rule


def metrics_of(
    groups: Sequence[Mapping[str, Any]],
    state: Mapping[Tensor, State],
    recipe_of: RecipeOf,
    found_inf: Tensor | None = None,
) -> Metrics:
    """What the next step would do. Nothing is changed; one parameter is looked at after the other, on copies.

    Args:
        groups: the optimizer's param groups.
        state: its state.
        recipe_of: the stages of a group.
        found_inf: not 0 where the step is to be skipped.
    """
    with torch.no_grad():
        steps = [_steps_of(group, state, recipe_of(group)) for group in groups]
        bad = _bad(steps, [param for group in groups for param in group["params"]])
        told = found_inf is not None and gathered([found_inf])[0].item() != 0
        skipped = told or any(its and group["skip_nonfinite"] for its, group in zip(bad, groups, strict=True))
        squares = [
            _squares(its, update=0.0 if skipped else math.nan if is_bad else None)
            for its, is_bad in zip(steps, bad, strict=True)
        ]
        looks = [_looks([] if is_bad else its) for its, is_bad in zip(steps, bad, strict=True)]
        each = [
            Metrics(_name(group), *_norms(its), *look) for group, its, look in zip(groups, squares, looks, strict=True)
        ]
        together = looks[0]
        if len(groups) > 1:
            together = _looks([] if any(bad) else [step for its in steps for step in its])
        return Metrics(None, *_norms([*map(sum, zip(*squares, strict=True))]), *together, tuple(each))


def _steps_of(group: Mapping[str, Any], state: Mapping[Tensor, State], recipe: Recipe) -> list[_Next]:
    params = [param for param in group["params"] if param.grad is not None]
    rules = [rule_of(recipe, group_of(group, param)) for param in params]
    return [
        _Next(param, group, recipe.table, state.get(param, {}), rule) for param, rule in zip(params, rules, strict=True)
    ]


def _name(group: Mapping[str, Any]) -> str | None:
    name = group.get("name")
    return None if name is None else str(name)


def _bad(steps: Sequence[Sequence[_Next]], params: Sequence[Tensor]) -> list[bool]:
    """Whether a gradient is not finite, of each group, in any process."""
    found = [any(not is_finite(step.param.grad) for step in its if step.param.grad is not None) for its in steps]
    return [flag > 0 for flag in agreed(torch.tensor(found, dtype=torch.float32, device="cpu"), params).tolist()]


def _squares(steps: Sequence[_Next], update: float | None) -> tuple[float, float, float]:
    """The sums of the squares of parameters, gradients and updates; that of updates is found out where it is None."""
    sums = [0.0, 0.0, update or 0.0]
    for step in steps:
        unit = alone(*step)
        param, grad = unit.columns["param"][0], unit.columns["grad"][0]
        values = [_wide(param), _wide(grad.coalesce().values() if grad.is_sparse else grad)]
        if update is None:
            after = param.clone()
            moved = replace(unit, columns={**unit.columns, "param": [after]})
            split = step.rule.needs is Needs.ELEMENT and not step.rule.coded
            update_one(moved, 0, unit.hyper([0]), plain=False, split=split)
            values.append(_wide(after).sub_(values[0]))
        parts = torch.stack([value.square().sum() for value in values])
        for i, part in enumerate(total(parts, step.param, step.rule).tolist()):
            sums[i] += part
    return sums[0], sums[1], sums[2]


def _wide(tensor: Tensor) -> Tensor:
    """A copy of the numbers that are here, complex ones as pairs, of which squares stay in range."""
    here = settled(local(tensor))
    return widened(torch.view_as_real(here) if here.is_complex() else here).clone()


def _norms(squares: Sequence[float]) -> tuple[float, float, float, float, float]:
    """The norms of parameters, gradients and updates, and the ratios of the last two to the first."""
    param, grad, update = map(math.sqrt, squares)
    return param, grad, update, _ratio(grad, param), _ratio(update, param)


def _ratio(norm: float, size: float) -> float:
    if size:
        return norm / size
    return math.inf if norm > 0 else math.nan


def _looks(steps: Sequence[_Next]) -> tuple[tuple[float, float, float] | None, float | None]:
    """The quantiles of the effective step, and the share of the elements where ε decides."""
    scaled = [step for step in steps if isinstance(step.rule.second_moment, Estimator)]
    having = [step for step in steps if isinstance(step.rule.second_moment, Estimator | Null)]

    def histograms(prefixes: Sequence[int], shift: int) -> Tensor:
        return _sum(total(counts(_effective(step), prefixes, shift), step.param, step.rule) for step in having)

    found = quantiles(histograms, FRACTIONS) if having else None
    if found is None:
        return None, None
    shares = _sum(total(_decided(step), step.param, step.rule) for step in scaled).tolist() if scaled else [0, 0]
    return (found[0], found[1], found[2]), shares[0] / shares[1] if shares[1] else None


def _sum(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors, on the CPU, of which there is one at a time."""
    return reduce(torch.add, (part.cpu() for part in parts))


def _effective(step: _Next) -> Tensor:
    """α/s^(2p) for each element of what is here of a parameter."""
    row, hyper = next_of(*step)
    lr = as_float(step.rule.momentum.step_size(hyper))
    if isinstance(step.rule.second_moment, Null):
        return torch.full_like(local(row.param), lr)
    return lr / divisor(_scale(step).clone(), hyper)


def _decided(step: _Next) -> Tensor:
    """How many elements have a scale that ε decides, and how many there are."""
    scale, without = _scale(step), _scale(step, eps=False)
    alike = (without >= scale / 2) & (without <= scale * 2)
    return torch.stack([(~alike).sum(), alike.new_tensor(alike.numel(), dtype=torch.int64)])


def _scale(step: _Next, *, eps: bool = True) -> Tensor:
    """The scale of each element of what is here of a parameter; also as it would be without an ε in this step."""
    row, hyper = next_of(*step)
    if not eps and "eps" in step.group:
        vars(hyper)["eps"] = (0.0, 0.0) if isinstance(hyper.eps, tuple) else 0.0
    scale = step.rule.scale(row.param, row.grad, hyper, row.slots)
    assert scale is not None, "an estimator has a scale"
    return local(scale.expand(row.param.shape))
