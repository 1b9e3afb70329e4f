"""What follows from the hyperparameters of the param groups at a step: checked values, and the rule of each group."""

import operator
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from torch import Tensor

from partial_adaptive.execution.compiled.program import static
from partial_adaptive.rules.hyperparameters import validated
from partial_adaptive.rules.rounding import NEAREST, group_of
from partial_adaptive.rules.rule import Recipe, RecipeOf, Rule

Group = MutableMapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """A group's hyperparameters and what they lead to.

    Args:
        recipe: the stages of the group's member.
        values: the hyperparameters, in the order of the table.
        rule: what is done to each of its parameters.
        key: all that a plan depends on besides the tensors.
        lasting: whether the same values mean the same at another step: there are no tensors among them.
    """

    recipe: Recipe
    values: tuple[Any, ...]
    rule: Rule
    key: Hashable
    lasting: bool


class Reader:
    """Reads the hyperparameters of an optimizer's groups.

    Args:
        recipe_of: the stages of a group.
        foreign: the hyperparameters in a group that its member does not have.
    """

    def __init__(self, recipe_of: RecipeOf, foreign: Callable[[Mapping[str, Any]], list[str]]) -> None:
        self.recipe_of = recipe_of
        self.foreign = foreign
        self._known: dict[int, Settings] = {}

    def read(self, groups: Sequence[Group]) -> list[tuple[Group, Settings]]:
        """The groups and their settings, those with equal hyperparameters as one: fewer and larger launches.

        A group of which only some parameters are rounded in a way of their own is two.

        Raises:
            ValueError, TypeError: for a hyperparameter that is not allowed, in any of them.
        """
        _separate(groups)
        settings = [self._settle(i, group) for i, group in enumerate(groups)]
        if len(groups) == 1 and groups[0]["rounding"] == NEAREST:
            return [(groups[0], settings[0])]
        merged: dict[Hashable, tuple[Group, Settings]] = {}
        for group, its in chain.from_iterable(map(self._parts, groups, settings)):
            key = (id(its.recipe), *map(_comparable, its.values))
            merged[key] = (_joined(merged[key][0], group) if key in merged else group, its)
        return list(merged.values())

    def apart(self, groups: Sequence[Group], others: Sequence[Mapping[str, Any]]) -> list[tuple[int, Group, Settings]]:
        """The same of each group by itself, with its index, and with some other values; the group stays as it is."""
        _separate(groups)
        found = []
        for i, (group, other) in enumerate(zip(groups, others, strict=True)):
            changed = {**group, **other}
            found += [(i, part, its) for part, its in self._parts(changed, self._settle(i, changed))]
        return found

    def _parts(self, group: Group, its: Settings) -> list[tuple[Group, Settings]]:
        """A group as those of its parameters that are rounded as it says, and those that are not."""
        others = [i for i, param in enumerate(group["params"]) if group_of(group, param) is not group]
        if not others:
            return [(group, its)]
        rest = {**_chosen(group, others), "rounding": NEAREST}
        rounded = [i for i in range(len(group["params"])) if i not in {*others}]
        return [(_chosen(group, rounded), its), (rest, self._settings(rest))]

    def _settle(self, index: int, group: Group) -> Settings:
        recipe = self.recipe_of(group)
        table = recipe.table
        try:
            values = tuple(map(group.__getitem__, table))
        except KeyError as error:
            raise RuntimeError(f"{recipe.owner}: param group {index} must have {error}; {_ADDED}") from None
        known = self._known.get(index)
        if known and known.recipe is not recipe and (others := self.foreign(group)):
            raise RuntimeError(f"{recipe.owner}: param group {index} must not have {others[0]!r}; {_ADDED}")
        if known and known.lasting and known.recipe is recipe:
            (lr, *others), (last, *known_others) = values, known.values
            if all(map(operator.is_, others, known_others)):
                if lr is last:
                    return known
                if type(lr) is float and table["lr"].accepts(lr):  # which a schedule moves, and no rule depends on
                    settings = self._known[index] = replace(known, values=values)
                    return settings
        changed = validated(group, table, recipe.owner, wait=False)
        if changed:
            group.update(changed)
        settings = self._known[index] = self._settings(group)
        return settings

    def _settings(self, group: Group) -> Settings:
        recipe = self.recipe_of(group)
        values = tuple(map(group.__getitem__, recipe.table))
        rule = rule_of(recipe, group)
        lasting = not any(isinstance(v, Tensor) for value in values for v in flat(value))
        return Settings(recipe, values, rule, (rule, static(group, recipe.table)), lasting)


def rule_of(recipe: Recipe, group: Mapping[str, Any]) -> Rule:
    """The rule that the next step of a group, of this recipe, will follow."""
    partial = group["partial"]
    if isinstance(partial, Tensor) and not (group["capturable"] or group["differentiable"]):
        partial = partial.item()
    return recipe.rule(group, scaled=isinstance(partial, Tensor) or partial != 0)


def on_device(group: Group, settings: Settings) -> tuple[Group, Settings]:
    """A group of which a step may be taken back on another device than the CPU: with `capturable`, unless it is fused.

    Only the device knows then how many steps there have been.
    """
    if group["capturable"] or group["fused"] or all(param.is_cpu for param in group["params"]):
        return group, settings
    return {**group, "capturable": True}, replace(settings, key=(settings.key, "on_device"))


_ADDED = "a group gets its member's hyperparameters by add_param_group, and cannot change its member later"


def _separate(groups: Sequence[Group]) -> None:
    """Give groups that a scheduler changes one by one, in place, tensors of their own."""
    seen: set[int] = set()
    for group in groups:
        for name in ("lr", "partial"):
            value = group[name]
            if isinstance(value, Tensor):
                if id(value) in seen and "initial_lr" in group:
                    group[name] = value.clone()
                seen.add(id(value))


def _joined(first: Group, second: Group) -> Group:
    both = {**first, "params": [*first["params"], *second["params"]]}
    if "param_names" in first and "param_names" in second:
        both["param_names"] = [*first["param_names"], *second["param_names"]]
    return both


def _chosen(group: Group, positions: Sequence[int]) -> Group:
    lists = {name: [group[name][i] for i in positions] for name in ("params", "param_names") if name in group}
    return {**group, **lists}


def flat(value: Any) -> tuple[Any, ...]:
    """The elements of a hyperparameter: of a tuple several, of any other one."""
    return value if type(value) is tuple else (value,)


def _comparable(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(_comparable, value))
    return id(value) if isinstance(value, Tensor) else value
