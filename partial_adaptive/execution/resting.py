"""The second moment's state at p = 0, where nothing reads it: there by name, and in a checkpoint in full.

Whoever saves and loads state goes by the names and shapes that it finds: torch.distributed.checkpoint loads what the
state of a fresh optimizer has, and nothing else. So these must follow from the stages alone, never from what p is or
has been. At p = 0 an entry that has seen no gradient is an empty tensor, which takes no memory. A checkpoint holds the
value that it would start with in its place, and the count 0, by which loading knows it.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.state import (
    AGE,
    EMPTY,
    STEP,
    State,
    additions,
    empty,
    entries,
    holds_nothing,
    recoded,
    stored_names,
    without_none,
)
from partial_adaptive.rules.rounding import group_of
from partial_adaptive.rules.rule import RecipeOf, Rule


def resting(state: Mapping[str, Any], param: Tensor, rule: Rule) -> State:
    """What the state of a parameter lacks while p is 0: the second moment's count, and its entries by name.

    Args:
        state: the parameter's state, with its count of steps; it is not changed.
        param: the parameter.
        rule: the rule that it would have with p > 0.
    """
    own = empty(rule, param)
    added: State = {name: value for name, value in own.items() if name not in state}
    if AGE not in state:
        unseen = bool(own) and holds_nothing(state, param, rule)
        added[AGE] = torch.zeros_like(state[STEP]) if unseen else state[STEP].clone()
    return added


def _woken(state: Mapping[str, Any], param: Tensor, rule: Rule) -> State:
    """The entries that were there by name only and that a rule has use for: None, as they are to be made anew."""
    shapes, own = entries(rule, param), stored_names(rule, param)
    names = [
        name
        for name, value in state.items()
        if name in own and isinstance(value, Tensor) and value.shape == EMPTY != shapes.get(name)
    ]
    return dict.fromkeys(names) if names and (AGE not in state or has_seen_nothing(state)) else {}


def converted(state: Mapping[str, Any], param: Tensor, rule: Rule) -> State:
    """The entries that are otherwise than a rule has them: there by name only, or stored otherwise. None for nothing.

    Args:
        state: the parameter's state; it is not changed.
        param: the parameter.
        rule: the rule of the next step.
    """
    changed = _woken(state, param, rule)
    return changed | recoded(without_none({**state, **changed}) if changed else state, param, rule)


def has_seen_nothing(state: Mapping[str, Any]) -> bool:
    """Whether the second moment is known to have seen no gradient."""
    age = state.get(AGE)
    return isinstance(age, Tensor) and age.numel() == 1 and not age.item()


def in_full(
    checkpoint: MutableMapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    recipe_of: RecipeOf,
) -> None:
    """Give a checkpoint the entries that the next step with p > 0 would find or make, with the values of that moment.

    Args:
        checkpoint: as torch.optim makes it; the entries of its "state" that lack something are replaced.
        groups: the optimizer's param groups.
        recipe_of: the stages of a group.
    """
    for group, its in zip(groups, checkpoint["param_groups"], strict=True):
        recipe = recipe_of(group)
        for param, key in zip(group["params"], its["params"], strict=True):
            state = checkpoint["state"].get(key)
            if isinstance(state, dict) and isinstance(state.get(STEP), Tensor):
                rule = recipe.rule(group_of(group, param), scaled=True)
                added = lacking(state, param, group, rule)
                if added:
                    checkpoint["state"][key] = without_none({**state, **added})


def lacking(state: Mapping[str, Any], param: Tensor, group: Mapping[str, Any], rule: Rule) -> State:
    """What a step would put into the state of a parameter before it starts; None stands for what it would take out."""
    changed = converted(state, param, rule)
    return changed | additions(without_none({**state, **changed}), param, group, rule)
