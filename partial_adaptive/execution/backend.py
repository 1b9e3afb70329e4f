"""The protocol of those who carry out a step, and what they are given."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from partial_adaptive.execution.staging import Row
from partial_adaptive.execution.state import STEP, State, counters_of, counts_of, scalars_of
from partial_adaptive.execution.tensor_list import TensorList
from partial_adaptive.rules.hyperparameters import Hyper, Hyperparameter
from partial_adaptive.rules.rule import Rule

T = TypeVar("T")
Task = Callable[[], None]


@dataclass(frozen=True)
class Unit:
    """What is updated together: the parameters with gradients of a group, with their state, as they are at this step.

    Args:
        rule: what is done to each.
        group: the hyperparameters.
        table: what the library knows of them.
        params: the parameters, as the user has them.
        states: their entries in the optimizer's state.
        columns: "param", "grad" and every entry of the slots, a list of tensors each: the local shards of distributed
            ones, gradients without lazy bits.
        rounds: the positions in rounds, in each of which no two parameters share memory.
        places: where the parameters, the gradients and the state (slot by slot, then the 0-dim entries) are in memory;
            None where it has not been looked at.
        grad_scale: by which all gradients come multiplied, where a `torch.amp.GradScaler` leaves that to the step.
        found_inf: not 0 where the step is to leave no trace; None where it is taken in any case.
    """

    rule: Rule
    group: Mapping[str, Any]
    table: Mapping[str, Hyperparameter]
    params: Sequence[Tensor]
    states: Sequence[State]
    columns: Mapping[str, list[Tensor]]
    rounds: Sequence[Sequence[int]]
    places: "tuple[array[int], array[int], array[int]] | None" = None
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __len__(self) -> int:
        return len(self.params)

    def row(self, i: int) -> Row:
        """The tensors of one parameter."""
        slots = {name: column[i] for name, column in self.columns.items()}
        row = Row(slots.pop("param"), slots.pop("grad"), slots)
        if self.rule.rounding is None:
            return row
        step = self.states[i][STEP]
        return row.but(rounding=self.rule.rounding, step=step if self.group["capturable"] else step.item())

    def scalars(self, name: str, positions: Sequence[int]) -> list[Tensor]:
        """The 0-dim tensors of one name of some of the parameters."""
        return [self.states[i][name] for i in positions]

    def hyper(self, positions: Sequence[int]) -> Hyper:
        """The numbers that some parameters share, of the step that has just been counted."""
        counts = counts_of(self.rule)
        step, age = (TensorList.lift(self.scalars(name, positions)) for name in (counts[0], counts[-1]))
        if not self.group["capturable"]:
            step, age = step.item(), age.item()
        scalars = [TensorList.lift(self.scalars(name, positions)) for name in self.rule.momentum.scalars]
        return self.rule.hyper(self.group, step, age, scalars)

    def buckets(self, positions: Sequence[int]) -> Iterator[Sequence[int]]:
        """The positions, in lists that share all numbers of the step."""
        if not positions:
            return
        states = pick(self.states, positions)
        columns: list[list[Any]] = [
            [*map(Tensor.item, map(itemgetter(name), states))] for name in scalars_of(self.rule)
        ]
        if all(column.count(column[0]) == len(column) for column in columns):
            yield positions
            return
        found: dict[tuple[Any, ...], list[int]] = {}
        for position, values in zip(positions, zip(*columns, strict=True), strict=True):
            found.setdefault(values, []).append(position)
        yield from found.values()

    def counters(self) -> list[Tensor]:
        """The counts that this step advances."""
        return counters_of(self.states, self.rule)

    def some(self, positions: Sequence[int]) -> "Unit":
        """Some of the parameters, in this order."""
        if len(positions) == len(self):
            return self
        inside = {i: k for k, i in enumerate(positions)}
        rounds = [[inside[i] for i in members if i in inside] for members in self.rounds]
        return replace(
            self,
            params=pick(self.params, positions),
            states=pick(self.states, positions),
            columns={name: pick(column, positions) for name, column in self.columns.items()},
            rounds=[members for members in rounds if members],
            places=None,
        )

    def copied(self, positions: Sequence[int], *, blank: bool = False) -> "Unit":
        """Some of the parameters in memory of their own, with gradients of 0 where `blank`."""
        copies = {name: [column[i].detach().clone() for i in positions] for name, column in self.columns.items()}
        if blank:
            copies["grad"] = [*map(torch.zeros_like, copies["grad"])]
        states = [
            {name: value.clone() if isinstance(value, Tensor) else value for name, value in self.states[i].items()}
            for i in positions
        ]
        return replace(self, params=copies["param"], states=states, columns=copies, rounds=[range(len(positions))])


class Prepared(Protocol):
    """A backend's plan for all units that look like the one it was made for."""

    def ready(self, unit: Unit) -> Task | None:
        """Look at what cannot be told from how tensors look, and return what takes the step; None where it is outdated.

        Raises:
            RuntimeError: where the step cannot be taken. What is returned does not fail.
        """


class Backend(Protocol):
    """One way to carry out a rule."""

    def locate(self, tensors: list[Tensor]) -> "array[int]":
        """Where strided tensors of one device begin."""

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """Why it cannot update a parameter by a rule, as the end of a sentence that begins with its name; or None."""

    def prepare(self, unit: Unit) -> Prepared:
        """Compile and sort what does not change from step to step; nothing of the unit is kept or changed."""


def pick(column: Sequence[T], positions: Sequence[int]) -> list[T]:
    """Some of a column, as a new list."""
    if len(positions) == len(column):
        return list(column)
    return [column[i] for i in positions]
