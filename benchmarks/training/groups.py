"""Parameter groups of a model from `RunConfig.groups`: what each takes, by role, type of module or name.

    [[run.groups]]
    match = "norms and biases"
    weight_decay = 0.0

`match` is a role of `partial_adaptive.param_groups` (matrices, embeddings, heads, norms, biases, others), a type of
module as ``"module:class"``, or a pattern of parameter names such as ``"features.*"``; several are joined by " and ",
or in a list. Of several groups that match a parameter the first takes it; what none takes has the run's own
hyperparameters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from benchmarks.base.errors import BenchmarkError
from benchmarks.base.references import ReferenceLookupError, is_reference, load
from partial_adaptive import param_groups

MATCH = "match"


class GroupError(BenchmarkError, ValueError):
    """A parameter group that takes nothing, or does not say what it takes."""


def split(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The model's parameters in groups for an optimizer, those that no group takes first.

    Raises:
        GroupError: a group has no `match`, or one that takes no parameter.
    """
    places: dict[Any, dict[str, int]] = {}
    for place, group in enumerate(groups):
        for selector in selectors(place, group):
            places.setdefault(_resolved(place, selector), {_PLACE: place})
    try:
        found = param_groups(model, weight_decay=0.0, no_decay=(), overrides=places)
    except (TypeError, ValueError) as error:
        raise GroupError(f"groups: {error}") from error
    place_of = {id(p): part.get(_PLACE, _REST) for part in found for _, p in part["params"]}
    taken: dict[int, dict[str, Any]] = {_REST: {"params": []}}
    taken |= {place: {"params": [], **hyper(group)} for place, group in enumerate(groups)}
    for p in model.parameters():
        taken[place_of[id(p)]]["params"].append(p)
    for place, group in enumerate(groups):
        if not taken[place]["params"]:
            raise GroupError(f"groups[{place}].match: {group[MATCH]!r} takes no parameter that is not taken before")
    return [group for group in taken.values() if group["params"]]


def selectors(place: int, group: Mapping[str, Any]) -> list[str]:
    """What the group at a place matches."""
    match = group.get(MATCH)
    listed = [match] if isinstance(match, str) else match
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(one, str) for one in listed):
        raise GroupError(
            f"groups[{place}].match: must be a role, a type or a pattern of names, or several; got {match!r}"
        )
    return [one.strip() for several in listed for one in several.split(" and ")]


def hyper(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's own hyperparameters."""
    return {key: value for key, value in group.items() if key != MATCH}


_PLACE = "place"
_REST = -1


def _resolved(place: int, selector: str) -> Any:
    if not is_reference(selector):
        return selector
    try:
        found = load(selector)
    except ReferenceLookupError as error:
        raise GroupError(f"groups[{place}].match: {error}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise GroupError(f"groups[{place}].match: {selector} must be a type of modules, got {found!r}")
    return found
