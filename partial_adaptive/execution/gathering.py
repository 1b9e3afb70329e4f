"""Gathering: rules that need whole tensors, on distributed ones.

Every process gathers the same whole tensors in the same order, takes the same step with them, and keeps its part.
"""

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from partial_adaptive.execution.backend import Backend, Task, Unit, pick
from partial_adaptive.execution.distributed import bring_home, gathered
from partial_adaptive.execution.sharing import addresses_of
from partial_adaptive.execution.staging import portions
from partial_adaptive.rules.rule import Rule


@dataclass(frozen=True)
class Gathering:
    """Has another backend update whole tensors, a few at a time.

    Args:
        inner: the other one.
    """

    inner: Backend

    def locate(self, tensors: list[Tensor]) -> "array[int]":
        """Where strided tensors of one device begin."""
        return addresses_of(tensors)

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """What the other one refuses."""
        return self.inner.refuses(rule, param)

    def prepare(self, unit: Unit) -> "PreparedGathers":
        """Sort the parameters by what all processes see alike: shapes and dtypes, never what is here of them."""
        kinds: dict[Hashable, list[int]] = {}
        for i, param in enumerate(unit.params):
            kinds.setdefault((param.shape, param.dtype, param.device.type), []).append(i)
        batches = [batch for kind in kinds.values() for batch in portions(kind, unit.params.__getitem__)]
        return PreparedGathers(self.inner, batches)


@dataclass(frozen=True)
class PreparedGathers:
    """Which positions are whole at one time."""

    inner: Backend
    batches: Sequence[Sequence[int]]

    def ready(self, unit: Unit) -> Task:
        """What is gathered is looked at when it is there."""
        return lambda: self._run(unit)

    def _run(self, unit: Unit) -> None:
        for positions in self.batches:
            part = whole(unit, positions)
            update = self.inner.prepare(part).ready(part)
            assert update is not None, "what has just been prepared is ready"
            update()
            for name in ("param", *unit.rule.slots):
                for tensor, i in zip(part.columns[name], positions, strict=True):
                    bring_home(tensor, unit.columns[name][i])


def whole(unit: Unit, positions: Sequence[int]) -> Unit:
    """Some parameters of a unit, gathered where they are distributed; step counts are the unit's own."""
    columns = {name: gathered(pick(column, positions)) for name, column in unit.columns.items()}
    states = [unit.states[i] for i in positions]
    return replace(unit, params=columns["param"], states=states, columns=columns, rounds=[range(len(positions))])
