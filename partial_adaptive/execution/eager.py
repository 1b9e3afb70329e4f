"""Loop and foreach: torch's own operations, on one tensor at a time or on many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor

from partial_adaptive.execution.backend import Task, Unit
from partial_adaptive.execution.joined import Joined, is_small
from partial_adaptive.execution.sharing import addresses_of
from partial_adaptive.execution.staging import Land, Row, decoded, is_plain, limit_of, pieces, portions
from partial_adaptive.execution.state import advance
from partial_adaptive.execution.tensor_list import TensorList
from partial_adaptive.rules.hyperparameters import Hyper
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Needs


class Loop:
    """One parameter after the other: for any rule and any kind of tensor."""

    locate = staticmethod(addresses_of)

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """Nothing."""
        return None

    def prepare(self, unit: Unit) -> "PreparedLoop":
        """Tell the parameters that the rule can be run on as they are from those that are staged."""
        whole = unit.rule.needs is Needs.TENSOR
        rows = map(unit.row, range(len(unit)))
        coded = bool(unit.rule.coded)
        plain = [not coded and is_plain(row) and (whole or row.param.nbytes <= limit_of(row.param)) for row in rows]
        return PreparedLoop(plain, split=not whole and not coded and not unit.group["capturable"])


@dataclass(frozen=True)
class PreparedLoop:
    """What a loop remembers: which positions are plain, and whether the others may be split."""

    plain: Sequence[bool]
    split: bool

    def ready(self, unit: Unit) -> Task:
        """There is nothing that could have changed."""
        return lambda: self._run(unit)

    def _run(self, unit: Unit) -> None:
        buckets = (
            list(unit.buckets(range(len(unit)))) if not unit.group["capturable"] else [[i] for i in range(len(unit))]
        )
        advance_all(unit)
        for positions in buckets:
            hyper = unit.hyper(positions)
            for i in positions:
                update_one(unit, i, hyper, plain=self.plain[i], split=self.split)


def update_one(unit: Unit, i: int, hyper: Hyper, *, plain: bool, split: bool) -> None:
    """Update one parameter: as it is where it is plain, otherwise staged, and then in parts where it may be split."""
    if plain:
        columns = unit.columns
        state = {name: columns[name][i] for name in unit.rule.slots}
        unit.rule.update(columns["param"][i], columns["grad"][i], hyper, state)
        return
    row, encode = decoded(unit.rule, unit.columns["param"][i], unit.row(i), hyper.step)
    for piece, land in pieces(row, split=split):
        unit.rule.update(piece.param, piece.grad, hyper, piece.slots)
        if land is not None:
            land()
    encode()


def advance_all(unit: Unit) -> None:
    """Count the step of all parameters."""
    by_device: dict[Any, list[Tensor]] = {}
    for counter in unit.counters():
        by_device.setdefault((counter.device, counter.dtype), []).append(counter)
    for counters in by_device.values():
        advance(counters)


class Foreach:
    """Many parameters at once, in a few kernels each."""

    locate = staticmethod(addresses_of)

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """What has to see whole tensors, or is stored in a code."""
        if rule.needs is Needs.TENSOR:
            return "takes rules that need single elements only"
        return f"takes no coded slots, as {rule.coded[0]!r} is" if rule.coded else None

    def prepare(self, unit: Unit) -> "PreparedForeach":
        """Sort the parameters by device and dtype, and by how each is staged."""
        groups: dict[Any, list[int]] = {}
        small: dict[Any, list[int]] = {}
        plain = []
        for i in range(len(unit)):
            row = unit.row(i)
            plain.append(is_plain(row) and (unit.group["capturable"] or row.param.nbytes <= limit_of(row.param)))
            key = (row.param.device, row.param.dtype if plain[i] else None)
            groups.setdefault(key, []).append(i)
            if plain[i] and not unit.group["capturable"] and is_small(row):
                small.setdefault(key, []).append(i)
        joined = [Joined(found, unit.columns) if len(found := small.get(key, [])) > 1 else None for key in groups]
        return PreparedForeach(plain, [*zip(groups.values(), joined, strict=True)])


@dataclass(frozen=True)
class PreparedForeach:
    """What foreach remembers: which positions are plain, and which can be in one call, the small ones joined."""

    plain: Sequence[bool]
    groups: Sequence[tuple[Sequence[int], Joined | None]]

    def ready(self, unit: Unit) -> Task:
        """Parameters that share memory are updated one after the other, as a loop would."""
        return lambda: self._run(unit)

    def _run(self, unit: Unit) -> None:
        work: list[tuple[Sequence[int], Joined | None]] = []
        for positions in unit.rounds:
            chosen = None if len(positions) == len(unit) else {*positions}
            for group, joined in self.groups:
                here = group if chosen is None else [i for i in group if i in chosen]
                buckets = [here] if unit.group["capturable"] else unit.buckets(here)
                work += [(bucket, joined if len(bucket) == len(group) else None) for bucket in buckets if bucket]
        advance_all(unit)
        for positions, joined in work:
            if unit.group["capturable"]:
                for portion in portions(((self._whole(unit, i), i) for i in positions), lambda item: item[0][0].param):
                    self._update(unit, [piece for piece, _ in portion], unit.hyper([i for _, i in portion]))
                continue
            hyper = unit.hyper(positions)
            if joined is not None:
                for piece in joined.rows(unit.columns):
                    self._update(unit, [piece], hyper)
                done = {*joined.positions}
                positions = [i for i in positions if i not in done]
            staged = chain.from_iterable(self._pieces(unit, i) for i in positions)
            for batch in portions(staged, lambda piece: piece[0].param):
                self._update(unit, batch, hyper)

    def _pieces(self, unit: Unit, i: int) -> Iterator[tuple[Row, Land | None]]:
        """A parameter as it can be updated together with others, in parts of bounded size."""
        return iter([(unit.row(i), None)]) if self.plain[i] else pieces(unit.row(i), split=True)

    def _whole(self, unit: Unit, i: int) -> tuple[Row, Land | None]:
        if self.plain[i]:
            return unit.row(i), None
        (piece,) = pieces(unit.row(i), split=False)
        return piece

    def _update(self, unit: Unit, batch: Sequence[tuple[Row, Land | None]], hyper: Hyper) -> None:
        lift = TensorList.lift
        rows = [row for row, _ in batch]
        slots = {name: lift([row.slots[name] for row in rows]) for name in unit.rule.slots}
        unit.rule.update(lift([row.param for row in rows]), lift([row.grad for row in rows]), hyper, slots)
        for _, land in batch:
            if land is not None:
                land()
