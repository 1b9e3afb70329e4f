"""Param groups that name a member: whose stages and whose hyperparameters they have."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import torch

from partial_adaptive.rules.hyperparameters import HYPERPARAMETERS, nearest
from partial_adaptive.rules.rule import Recipe


class Example(Protocol):
    """An optimizer of a member."""

    recipe: Recipe
    defaults: dict[str, Any]


class Roles:
    """Whose stages a param group has: the optimizer's own, or those of the member that it names.

    Args:
        own: the optimizer's stages.
        members: the classes that a group may name.
    """

    def __init__(self, own: Recipe, members: Mapping[str, type[Any]]) -> None:
        self._own = own
        self._members = members
        self._examples: dict[str, Example] = {}
        self._known: frozenset[str] | None = None

    def recipe_of(self, group: Mapping[str, Any]) -> Recipe:
        """The stages of a group."""
        example = self.example(group)
        return self._own if example is None else example.recipe

    def foreign(self, group: Mapping[str, Any]) -> list[str]:
        """The hyperparameters in a group that other members have, and its own does not."""
        if self._known is None:
            names = set(HYPERPARAMETERS)
            for member in self._members:
                with suppress(TypeError):  # of one that cannot be in a group
                    names |= self.recipe_of({"member": member}).table.keys()
            self._known = frozenset(names)
        return sorted(group.keys() & self._known - self.recipe_of(group).table.keys())

    def example(self, group: Mapping[str, Any]) -> Example | None:
        """An optimizer of the member that a group names, of no parameter of anybody; None where it names none."""
        name = group.get("member")
        if name is None:
            return None
        if not isinstance(name, str) or name not in self._members:
            near = nearest(name, self._members) if isinstance(name, str) else ""
            raise ValueError(f"{self._own.owner}: member must be one of {', '.join(self._members)}, got {name!r}{near}")
        if name not in self._examples:
            try:
                self._examples[name] = self._members[name]([torch.zeros(1, 1, device="cpu")])
            except TypeError as error:
                raise TypeError(
                    f"{self._own.owner}: member {name!r} must be a class that can be made of params alone, from the "
                    f"defaults of all other arguments; {error}"
                ) from error
        return self._examples[name]
