"""A step as torch.compile sees it: one break around all of it, or part of the graph where the optimizer is capturable.

Dynamo knows the optimizers of torch by two things, and these too. While it traces it runs `_init_group` in Python
proper, and takes the tensors that this puts into a list for inputs of the graph; and it guards on the param groups. So
what a plan is made of (checks, new state, who updates what with whom) is done once, outside of the graph. The graph
consists of one call, `update`, into which Dynamo does not look and through which AOTAutograd traces: the text that runs
without torch.compile.

Tensors in a param group are inputs of the graph. Numbers are a part of it and guarded, until they have moved once; from
then on those that may be tensors are inputs too, which is what Dynamo does with numbers by itself.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer
from torch.overrides import TorchFunctionMode

from partial_adaptive.execution.backend import Prepared, Task, Unit
from partial_adaptive.execution.plan import Planner
from partial_adaptive.execution.settings import flat
from partial_adaptive.execution.staging import is_lazy, without_autocast
from partial_adaptive.execution.state import State, scalars_of
from partial_adaptive.rules.hyperparameters import Hyperparameter, validated
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Needs

REASON = (
    "a step of this optimizer runs outside of torch.compile, with a graph break around it, which fullgraph=True does "
    "not allow: take fullgraph=False, or make the optimizer with capturable=True, with which its step is part of the "
    "graph (but not with fused, differentiable, skip_nonfinite, a constraint or coded state, nor if tensors are "
    "distributed, sparse or share memory)"
)

Group = Mapping[str, Any]
Table = Mapping[str, Hyperparameter]
Layout = tuple[tuple[str, ...], tuple[int, ...], tuple[tuple[int, float], ...]]
Constants = tuple[int, tuple[Layout, ...]]  # what Dynamo takes of a step besides tensors: its number, and the layouts

Planned = tuple[int, Prepared, Unit]
NOWHERE: Constants = (-1, ())  # of a step that cannot be part of a graph


def entered(step: Callable[..., Any]) -> Callable[..., Any]:
    """A `step` method as `torch.compile` is to find it, with what torch.optim puts around it: profiler and hooks.

    Args:
        step: of a class of the family, without these.
    """
    hooked = Optimizer.profile_hook_step(step)
    explained = {"reason": REASON} if "reason" in inspect.signature(torch.compiler.disable).parameters else {}
    outside = torch.compiler.disable(hooked, **explained)

    @functools.wraps(step)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        # `defaults`, not the groups: Dynamo would guard on all numbers in these, and says that all are capturable.
        possible = torch.compiler.is_dynamo_compiling() and self.defaults["capturable"]
        if possible and not hasattr(self, "found_inf") and self._init_group(None)[0] >= 0:
            return hooked(self, *args, **kwargs)
        return outside(self, *args, **kwargs)

    vars(enter)["hooked"] = True  # so that torch.optim puts nothing around it
    return enter


def trace(init_group: Callable[[list[Tensor]], Constants], groups: Sequence[Group]) -> None:
    """Take a step; this is what Dynamo traces.

    Args:
        init_group: the optimizer's `_init_group`.
        groups: its param groups.
    """
    tensors: list[Tensor] = []
    key, layouts = init_group(tensors)
    inputs = []
    for i, (names, moving, fixed) in enumerate(layouts):
        found = elements(groups[i], names)
        # What is compared is what Dynamo guards on. At 0 there may be other lines to run.
        stale = [1 for position, value in fixed if found[position] != value]
        stale += [1 for position in moving if not isinstance(found[position], Tensor) and found[position] == 0]
        if stale:
            raise AssertionError("a graph was made of other numbers than the param groups have")
        inputs.append([_as_tensor(found[position]) for position in moving])
    update(key, tensors, inputs)


def update(key: int, tensors: Sequence[Tensor], inputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """Take a step; this is what is in the graph.

    Args:
        key: the number of the step.
        tensors: those of its parts.
        inputs: of each group, the hyperparameters that are inputs of the graph.
    """
    lowered = _known[key]
    remaining = iter(tensors)
    with without_autocast({tensor.device.type for tensor in tensors}), _Multiplied():
        for part in lowered.parts:
            unit = part.unit(remaining, dict(zip(lowered.layouts[part.index][1], inputs[part.index], strict=True)))
            run = part.prepared.ready(unit)
            assert run is not None, "a plan of torch's own operations is always ready"
            run()
    return torch.empty(0, device="cpu")  # Dynamo expects a tensor


class _Multiplied(TorchFunctionMode):
    """Multiplies by the factors of a sum: with matrix products among the terms Inductor loses them (pytorch#167313)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("add", "add_") and "alpha" in kwargs:
            first, second, *rest = args
            return func(first, second * kwargs["alpha"], *rest)
        if name == "addmm" and kwargs.keys() & {"alpha", "beta"}:
            term, left, right = args
            return term * kwargs.get("beta", 1) + (left @ right) * kwargs.get("alpha", 1)
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Input:
    """Stands in a group for an input of the graph, by its position among the elements of the group."""

    position: int


@dataclass(frozen=True)
class Part:
    """What of a group, or of some of its parameters, goes into a graph besides the tensors.

    Args:
        index: which group.
        prepared: the backend's plan.
        rule: what is done to each parameter.
        group: the hyperparameters.
        table: what the library knows of them.
        slots: names of the entries of the slots.
        names: of all entries that the step reads, for each parameter.
    """

    index: int
    prepared: Prepared
    rule: Rule
    group: Group
    table: Table
    slots: Sequence[str]
    names: Sequence[Sequence[str]]

    def unit(self, tensors: Iterator[Tensor], inputs: Mapping[int, Tensor]) -> Unit:
        """What is to be updated, of what the graph is given."""
        params, grads, states = [], [], []
        for names in self.names:
            params.append(next(tensors))
            grads.append(next(tensors))
            states.append({name: next(tensors) for name in names})
        columns = {"param": params, "grad": grads}
        columns |= {name: [state[name] for state in states] for name in self.slots}

        def given(element: Any) -> Any:
            return inputs[element.position] if isinstance(element, Input) else element

        group = {name: _each(value, given) for name, value in self.group.items()}
        return Unit(self.rule, group, self.table, params, states, columns, [range(len(params))])


@dataclass(frozen=True, eq=False)
class Lowered:
    """A step as it goes into a graph, which knows it by number.

    Args:
        parts: what is updated.
        groups: the hyperparameters of each group.
        layouts: of each group, in constants: the names of its hyperparameters, and by position among their elements
            which are inputs of the graph, and the numbers that are a part of it.
    """

    parts: Sequence[Part]
    groups: Sequence[Group]
    layouts: tuple[Layout, ...]

    def enter(self, tensors: list[Tensor], units: Sequence[Unit]) -> Constants:
        """Give Dynamo the tensors, and what else it has to know."""
        for part, unit in zip(self.parts, units, strict=True):
            for i, names in enumerate(part.names):
                tensors += [unit.columns["param"][i], unit.columns["grad"][i]]
                tensors += [unit.states[i][name] for name in names]
        torch.compiler.allow_in_graph(update)
        key = next(_keys)
        _known[key] = self
        return key, self.layouts


_known: WeakValueDictionary[int, Lowered] = WeakValueDictionary()  # the optimizers keep them
_keys = count()


class Tracer:
    """Prepares the steps of one optimizer that become part of graphs.

    Args:
        planner: plans its steps.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._lowered: list[Lowered] = []  # all of them: who knows which graphs are still there

    def prepare(
        self, groups: Sequence[dict[str, Any]], state: MutableMapping[Tensor, State], tensors: list[Tensor] | None
    ) -> Constants:
        """Make what a step needs, and give Dynamo the tensors, and what else it has to know.

        Args:
            groups: the optimizer's param groups.
            state: the optimizer's state.
            tensors: where Dynamo looks for the inputs of its graph; None where it is only to be known whether there is
                one.
        """
        recipes = [self._planner.reader.recipe_of(group) for group in groups]
        with suppress(TypeError, ValueError):  # raised again where the step runs outside of a graph
            for group, recipe in zip(groups, recipes, strict=True):
                group.update(validated(group, recipe.table, recipe.owner, wait=False))  # Dynamo guards on plain numbers
        before = self._lowered[-1].groups if self._lowered else ()
        last: list[Group] = [*before, *groups[len(before) :]]
        tables = [recipe.table for recipe in recipes]
        moved = [_moved(*its) for its in zip(groups, tables, last, strict=True)]
        lowered = None
        for tensors_too in (True, False) if any(moved) else (False,):
            allowed = [_allowed(its, table) if tensors_too else {} for its, table in zip(moved, tables, strict=True)]
            with suppress(RuntimeError, TypeError, ValueError):  # raised again where the step runs outside of a graph
                commits: list[Task] = []
                units = self._planner.units(groups, state, allowed, commits)
                for commit in commits:
                    commit()
                whole = {index for index, _, unit in units if unit.rule.needs is Needs.TENSOR}
                inputs = [allowed[i] if i in whole or not tensors_too else its for i, its in enumerate(moved)]
                lowered = _lower(units, [group | its for group, its in zip(groups, inputs, strict=True)], tables)
                break
        if lowered is None or tensors is None:
            return NOWHERE if lowered is None else (0, ())
        self._lowered.append(lowered)
        return lowered.enter(tensors, [unit for *_, unit in units])


def _lower(units: Sequence[Planned], groups: Sequence[Group], tables: Sequence[Table]) -> Lowered | None:
    """What a step comes to in a graph; None where it cannot be part of one.

    Args:
        units: what is updated: the index of a group, the backend's plan, and what it is for.
        groups: the param groups, with tensors for what moves.
        tables: what the library knows of each group's hyperparameters.
    """
    guarded = all(map(_is_guarded, groups, tables))
    if not guarded or not all(_is_traceable(unit) for *_, unit in units):
        return None
    templates = [_template(group, tuple(table)) for group, table in zip(groups, tables, strict=True)]
    parts = []
    for index, prepared, unit in units:
        slots = [name for name in unit.columns if name not in ("param", "grad")]
        wanted = [*slots, *scalars_of(unit.rule)]
        names = [wanted for _ in unit.states]
        _rehearse(prepared, unit)
        template = templates[index] | {"rounding": unit.group["rounding"]}
        parts.append(Part(index, prepared, unit.rule, template, unit.table, slots, names))
    return Lowered(parts, templates, tuple(map(_layout, templates)))


def _moved(group: Group, table: Table, last: Group) -> dict[str, Any]:
    """The numbers of a group that are not what they were, or have not been before, as tensors.

    Args:
        group: the param group.
        table: what the library knows of its hyperparameters.
        last: what it was lowered to before; the group itself where it was not.
    """

    def one(value: Any, before: Any) -> Any:
        moves = type(value) is float and value != 0 and (isinstance(before, Input) or value != before)
        return torch.tensor(value, dtype=torch.float64, device="cpu") if moves else value

    found = {}
    for name in (name for name, entry in table.items() if not entry.static):
        value, before = group[name], last.get(name)
        pair = isinstance(value, tuple) and isinstance(before, tuple) and len(value) == len(before)
        now = tuple(map(one, flat(value), flat(before))) if pair else one(value, before)
        if any(new is not old for new, old in zip(flat(now), flat(value), strict=True)):
            found[name] = now
    return found


def _allowed(moved: Group, table: Table) -> dict[str, Any]:
    """Those that may be tensors in a param group; by the text of elements any may, which takes symbols for them."""
    return {name: value for name, value in moved.items() if table[name].accepts(value)}


def elements(group: Group, names: Sequence[str]) -> list[Any]:
    """The values of hyperparameters, those of a tuple one by one."""
    return [element for name in names for element in flat(group[name])]


def _is_guarded(group: Group, table: Table) -> bool:
    """Whether Dynamo notices another value of each hyperparameter: an object it would take for the first one."""
    return all(isinstance(it, Tensor | float | int | str | torch.dtype | None) for it in elements(group, tuple(table)))


def _is_traceable(unit: Unit) -> bool:
    """Whether a graph can do it: by torch's own operations, on plain tensors each of which has its own memory."""
    group = unit.group
    if not group["capturable"] or group["fused"] or group["differentiable"] or unit.rule.coded:
        return False
    apart = unit.places is not None and len(unit.rounds) == 1
    return apart and not any(grad.is_sparse or is_lazy(grad) for grad in unit.columns["grad"])


def _rehearse(prepared: Prepared, unit: Unit) -> None:
    """Take the step on copies: what a rule calculates of numbers once and keeps, it cannot calculate while traced."""
    run = prepared.ready(unit.copied(range(len(unit))))
    assert run is not None, "a plan of torch's own operations is always ready"
    run()


def _template(group: Group, names: Sequence[str]) -> dict[str, Any]:
    """The hyperparameters, with inputs of the graph in the place of tensors."""
    positions = count()

    def one(element: Any) -> Any:
        position = next(positions)
        return Input(position) if isinstance(element, Tensor) else element

    return {name: _each(group[name], one) for name in names}


def _layout(template: Group) -> Layout:
    found = list(enumerate(elements(template, tuple(template))))
    moving = tuple(position for position, element in found if isinstance(element, Input))
    return tuple(template), moving, tuple((i, element) for i, element in found if type(element) in (int, float))


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def _as_tensor(number: Any) -> Tensor:
    # By `torch.full` the number would be a constant of the graph for AOTAutograd.
    return number if isinstance(number, Tensor) else torch.ones((), dtype=torch.float64, device="cpu") * number
