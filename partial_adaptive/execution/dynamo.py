"""A step as torch.compile sees it: one break around all of it, or part of the graph where the optimizer is capturable.

Dynamo knows the optimizers of torch by two things, and these too. It runs `_init_group` in Python proper while it
traces, and takes the tensors that this puts into lists for inputs of the graph; and it guards on the param groups. So
what a plan is made of (checks, new state, who updates what with whom) is done once, outside of the graph, and the
graph consists of one call, `update`, into which Dynamo does not look and through which AOTAutograd traces: the text
that runs without torch.compile. What is fixed in a graph is guarded, as in torch's own: with another float, or another
set of parameters with gradients, it is traced again. Tensors (lr, partial, betas) are its inputs.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from partial_adaptive.execution.backend import Prepared, Unit
from partial_adaptive.execution.staging import is_lazy
from partial_adaptive.execution.state import AGE, scalars_of
from partial_adaptive.rules.hyperparameters import Hyperparameter
from partial_adaptive.rules.rule import Rule

REASON = (
    "a step of this optimizer runs outside of torch.compile, at its own speed: without fullgraph=True there is one "
    "graph break around it. With capturable=True it becomes part of the graph (not with fused=True, differentiable=True, "
    "or distributed, sparse, complex or overlapping tensors)"
)
NOWHERE = -1  # for what cannot be part of a graph

Step = Callable[..., Any]


def entered(step: Step) -> Step:
    """A `step` method as `torch.compile` is to find it, with what torch.optim puts around it (profiler and hooks).

    Args:
        step: of a class of the family, without that.
    """
    hooked = Optimizer.profile_hook_step(step)
    known = inspect.signature(torch.compiler.disable).parameters
    outside = torch.compiler.disable(hooked, **({"reason": REASON} if "reason" in known else {}))

    @functools.wraps(step)
    def enter(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() and self.defaults["capturable"] and self._init_group(None) != NOWHERE:
            return hooked(self, *args, **kwargs)
        return outside(self, *args, **kwargs)

    vars(enter)["hooked"] = True  # so that torch.optim puts nothing around it
    return enter


def without_autocast(kinds: set[str]) -> ExitStack:
    """A context in which no autocast, of the training loop's, makes matrix products less precise than they are."""
    stack = ExitStack()
    for kind in kinds:
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


@dataclass(frozen=True)
class Place:
    """Stands in a group for the tensor of this position among the numbers of a step."""

    position: int


@dataclass(frozen=True)
class Part:
    """What of a group goes into a graph besides its tensors.

    Args:
        prepared: the backend's plan.
        rule: what is done to each parameter.
        group: the hyperparameters, with places for tensors.
        table: what the library knows of them.
        slots: names of the entries of the slots.
        names: of all entries of each parameter's state that the step reads.
    """

    prepared: Prepared
    rule: Rule
    group: Mapping[str, Any]
    table: Mapping[str, Hyperparameter]
    slots: Sequence[str]
    names: Sequence[Sequence[str]]

    def unit(self, tensors: Iterator[Tensor], numbers: Sequence[Tensor]) -> Unit:
        """What is to be updated, of the tensors that the graph is given."""
        params, grads, states = [], [], []
        for names in self.names:
            params.append(next(tensors))
            grads.append(next(tensors))
            states.append({name: next(tensors) for name in names})
        columns = {name: [state[name] for state in states] for name in self.slots}
        columns = {"param": params, "grad": grads, **columns}
        group = {name: _with(numbers, value) for name, value in self.group.items()}
        return Unit(self.rule, group, self.table, params, states, columns, [range(len(params))])


@dataclass(frozen=True, eq=False)
class Lowered:
    """The parts of a step. A graph knows them by number; they live as long as the optimizer that it belongs to."""

    parts: Sequence[Part]


_lowered: WeakValueDictionary[int, Lowered] = WeakValueDictionary()
_keys = count()


def numbers_of(groups: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """The tensors among the hyperparameters."""
    values = [value for group in groups for name, value in group.items() if name not in ("params", "param_names")]
    elements = [element for value in values for element in (value if isinstance(value, tuple) else (value,))]
    return [element for element in elements if isinstance(element, Tensor)]


def lowered(units: Sequence[tuple[Prepared, Unit]], groups: Sequence[Mapping[str, Any]]) -> Lowered | None:
    """What a step comes to in a graph; None where it cannot be part of one."""
    if not all(map(_is_traceable, (unit for _, unit in units))):
        return None
    places = {id(number): Place(i) for i, number in enumerate(numbers_of(groups))}
    return Lowered([_part(prepared, unit, places) for prepared, unit in units])


def enter_graph(lowered: Lowered, units: Sequence[tuple[Prepared, Unit]], tensors: list[Tensor]) -> int:
    """Put a step's tensors where Dynamo looks for them, and return the number by which `update` finds the rest."""
    for part, (_, unit) in zip(lowered.parts, units, strict=True):
        for names, param, grad, state in zip(
            part.names, unit.columns["param"], unit.columns["grad"], unit.states, strict=True
        ):
            tensors += [param, grad, *(state[name] for name in names)]
    torch.compiler.allow_in_graph(update)
    key = next(_keys)
    _lowered[key] = lowered
    return key


def update(key: int, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> Tensor:
    """Take a step: the one call in a graph.

    Args:
        key: which step.
        tensors: those of its units.
        numbers: those of the param groups.
    """
    remaining = iter(tensors)
    with without_autocast({tensor.device.type for tensor in tensors}):
        for part in _lowered[key].parts:
            unit = part.unit(remaining, numbers)
            run = part.prepared.ready(unit)
            assert run is not None, "a plan of torch's own operations is always ready"
            run()
    return torch.empty(0)  # Dynamo expects a tensor


def _is_traceable(unit: Unit) -> bool:
    """Whether the tensors are as a graph has them: plain ones, each with memory of its own."""
    modes = ("fused", "differentiable")
    if unit.places is None or len(unit.rounds) > 1 or any(unit.group[mode] for mode in modes):
        return False
    return unit.group["capturable"] and not any(grad.is_sparse or is_lazy(grad) for grad in unit.columns["grad"])


def _part(prepared: Prepared, unit: Unit, places: Mapping[int, Place]) -> Part:
    slots = [name for name in unit.columns if name not in ("param", "grad")]
    wanted = [*slots, *scalars_of(unit.rule), AGE]
    names = [[name for name in wanted if name in state] for state in unit.states]
    known = {name: value for name, value in unit.group.items() if name not in ("params", "param_names")}
    group = {name: _placed(places, value) for name, value in known.items()}
    return Part(prepared, unit.rule, group, unit.table, slots, names)


def _placed(places: Mapping[int, Place], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_placed(places, element) for element in value)
    return places[id(value)] if isinstance(value, Tensor) else value


def _with(numbers: Sequence[Tensor], value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_with(numbers, element) for element in value)
    return numbers[value.position] if isinstance(value, Place) else value
