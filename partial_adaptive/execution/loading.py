"""State from elsewhere: what of a checkpoint, or of another optimizer, fits, brought into the form it has here."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _get_scalar_dtype

from partial_adaptive.execution.resting import converted, has_seen_nothing, resting
from partial_adaptive.execution.state import (
    AGE,
    STEP,
    State,
    entries,
    placed,
    recoded,
    scalars_of,
    scaling,
)
from partial_adaptive.rules.hyperparameters import EXCLUSIVE, validated
from partial_adaptive.rules.rounding import group_of
from partial_adaptive.rules.rule import Recipe, RecipeOf

Group = MutableMapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint comes to in an optimizer.

    Args:
        groups: for each param group what is not to be as the checkpoint has it.
        state: the entries of the parameters that it has state for.
    """

    groups: Sequence[Mapping[str, Any]]
    state: Mapping[Tensor, State]


def read(
    checkpoint: Mapping[str, Any],
    groups: Sequence[Group],
    recipe_of: RecipeOf,
) -> Loaded:
    """Read a checkpoint for an optimizer, of which nothing is changed.

    Args:
        checkpoint: as `state_dict` gives it.
        groups: the optimizer's param groups.
        recipe_of: the stages of a group.

    Raises:
        ValueError: where the checkpoint does not fit.
    """
    saved_groups = checkpoint["param_groups"]
    if [len(group["params"]) for group in groups] != [len(saved["params"]) for saved in saved_groups]:
        return Loaded([], {})  # torch says what is wrong
    fitting = []
    state: dict[Tensor, State] = {}
    for group, saved in zip(groups, saved_groups, strict=True):
        recipe = recipe_of(group)
        if saved.get("member") != group.get("member"):
            raise ValueError(
                f"{recipe.owner}: member must be the checkpoint's, {saved.get('member')!r} (None: that of the "
                f"optimizer), got {group.get('member')!r}"
            )
        theirs = {name: value for name, value in saved.items() if name not in ("params", "param_names")}
        ours = {name: value for name, value in group.items() if name not in ("params", *theirs)}
        merged = {**group, **theirs}
        if any(merged[mode] and merged[other] for mode, other in EXCLUSIVE):
            ours |= {mode: group[mode] for mode in ("foreach", "fused", "differentiable")}
            merged |= ours
        ours |= validated(merged, recipe.table, recipe.owner)
        merged |= ours
        fitting.append(ours)
        for param, key in zip(group["params"], saved["params"], strict=True):
            if key in checkpoint["state"]:
                state[param] = _fitted(checkpoint["state"][key], param, merged, recipe)
    return Loaded(fitting, state)


def taken(
    source: Mapping[Tensor, Mapping[str, Any]],
    groups: Sequence[Group],
    recipe_of: RecipeOf,
) -> dict[Tensor, State]:
    """What an optimizer can use of another one's state, for the parameters that both have.

    Args:
        source: the other one's state.
        groups: the optimizer's param groups.
        recipe_of: the stages of a group.

    Raises:
        ValueError: where an entry does not fit its parameter.
    """
    found = {}
    for group in groups:
        recipe = recipe_of(group)
        for param in group["params"]:
            its = recipe.rule(group_of(group, param), scaled=True)
            theirs = source.get(param, {})
            theirs = {**theirs, **recoded(theirs, param, its)}
            names = {*scalars_of(its), *entries(its, param)} & theirs.keys()
            if names - {STEP, AGE}:
                found[param] = _fitted({name: theirs[name] for name in names}, param, group, recipe)
    return found


def _fitted(saved: Mapping[str, Any], param: Tensor, group: Mapping[str, Any], recipe: Recipe) -> State:
    """The entry of a parameter, each tensor a copy; None stands for what is not there."""
    rule, owner = recipe.rule(group_of(group, param), scaled=True), recipe.owner
    saved = {**saved, **converted(saved, param, rule)}
    shapes = entries(rule, param) | dict.fromkeys(scalars_of(rule), ())
    state = {}
    for name, value in saved.items():
        if value is None:
            continue
        if name in shapes and isinstance(value, int | float):
            value = torch.tensor(
                float(value),
                dtype=torch.float64 if name in rule.momentum.scalars else _get_scalar_dtype(),
                device="cpu",
            )
        if name in shapes and not isinstance(value, Tensor):
            raise ValueError(f"{owner}: the checkpoint's {name!r} must be a tensor or a number, got {value!r}")
        number = name in shapes and shapes[name] == () and name not in rule.slots and value.numel() == 1
        if name in shapes and not number and tuple(value.shape) != shapes[name]:
            raise ValueError(
                f"{owner}: the checkpoint's {name!r} must have the shape {shapes[name]}, as a parameter of shape "
                f"{tuple(param.shape)} calls for, got {tuple(value.shape)}"
            )
        slot = rule.slots.get(name)
        if slot is not None and value.is_complex() != (slot.follows and param.is_complex()):
            raise ValueError(
                f"{owner}: the checkpoint's {name!r} is of {value.dtype}, for a parameter of {param.dtype}"
            )
        if slot is not None and slot.codec is None and not (value.is_floating_point() or value.is_complex()):
            raise ValueError(
                f"{owner}: the checkpoint's {name!r} must be of a floating-point dtype, got {value.dtype}; a "
                "code needs all of its parts"
            )
        state[name] = placed(name, value, param, group, rule) if isinstance(value, Tensor) else copy.deepcopy(value)
    if STEP in state and has_seen_nothing(state):
        state = {name: value for name, value in state.items() if name not in scaling(rule, param)}
        state |= resting(state, param, rule)
    return state
