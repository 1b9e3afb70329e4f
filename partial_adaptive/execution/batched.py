"""Batched: rules that need whole tensors, on many tensors of one shape at once."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from partial_adaptive.execution.backend import Task, Unit
from partial_adaptive.execution.eager import advance_all, update_one
from partial_adaptive.execution.sharing import addresses_of
from partial_adaptive.execution.staging import is_lazy, is_plain, limit_of, pieces
from partial_adaptive.execution.state import counts_of, scalars_of
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Needs

ROOM = 2**19  # bytes of a stack on the CPU: with the others of its row it stays in the cache
FEWEST = 8  # tensors in a full stack: to copy fewer, larger ones costs more than the calls that it saves

# Under vmap these run tensor by tensor, with a warning; out of place they do not.
_UNBATCHED = {"addcdiv_", "addcmul_", "clamp_", "eq_", "ge_", "gt_", "le_", "lerp_", "lt_", "ne_", "pow_", "square_"}


class Batched:
    """Stacks parameters of one shape and runs the text for one of them under `torch.vmap`; the others in a loop."""

    locate = staticmethod(addresses_of)

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """What needs no whole tensors, or has a stage that has not declared that it may be batched."""
        if rule.needs is Needs.ELEMENT:
            return "takes rules that need whole tensors only"
        whole = (stage for stage in rule.stages if stage.needs is Needs.TENSOR)
        alone = next((stage for stage in whole if not stage.batched), None)
        return f"takes no {type(alone).__name__}, which does not declare batched = True" if alone else None

    def prepare(self, unit: Unit) -> "PreparedBatches":
        """Sort the parameters by all that their rows must have in common."""
        groups: dict[Hashable, list[int]] = {}
        for i in range(len(unit)):
            groups.setdefault(_kind(unit, i), []).append(i)
        coded = bool(unit.rule.coded)
        plain = [not coded and is_plain(unit.row(i)) for i in range(len(unit))]
        return PreparedBatches(plain, [*groups.values()])


@dataclass(frozen=True)
class PreparedBatches:
    """What is remembered: which positions are plain, and which may be stacked."""

    plain: Sequence[bool]
    groups: Sequence[Sequence[int]]

    def ready(self, unit: Unit) -> Task:
        """There is nothing that could have changed."""
        return lambda: self._run(unit)

    def _run(self, unit: Unit) -> None:
        work: list[Sequence[int]] = []
        capturable = unit.group["capturable"]
        for positions in unit.rounds:
            chosen = {*positions}
            for group in self.groups:
                here = [i for i in group if i in chosen]
                work += [here] if capturable else unit.buckets(here)
        advance_all(unit)
        for positions in work:
            hyper = None if capturable else unit.hyper(positions)
            for chunk in _chunks(unit, positions):
                if len(chunk) > 1:
                    self._together(unit, chunk, hyper)
                    continue
                for i in chunk:
                    update_one(unit, i, unit.hyper([i]) if hyper is None else hyper, plain=self.plain[i], split=False)

    def _together(self, unit: Unit, positions: Sequence[int], hyper: Any) -> None:
        """Update some parameters of one kind on stacked copies."""
        staged = [(unit.row(i), None) if self.plain[i] else next(pieces(unit.row(i), split=False)) for i in positions]
        rows = [row for row, _ in staged]
        home = {"param": [row.param for row in rows]}
        home |= {name: [row.slots[name] for row in rows] for name in unit.rule.slots}
        scalars = (
            {} if hyper is not None else {name: unit.scalars(name, positions) for name in unit.rule.momentum.scalars}
        )
        names = counts_of(unit.rule)
        counts = {} if hyper is not None else {name: unit.scalars(name, positions) for name in names}
        stacks = {name: torch.stack(column) for name, column in (home | scalars).items()}
        read = {name: torch.stack(column) for name, column in ({"grad": [row.grad for row in rows]} | counts).items()}

        def update(tensors: Mapping[str, Tensor], read: Mapping[str, Tensor]) -> Tensor:
            numbers = hyper
            if numbers is None:
                numbers = unit.rule.hyper(
                    unit.group, read[names[0]], read[names[-1]], [tensors[name] for name in scalars]
                )
            unit.rule.update(tensors["param"], read["grad"], numbers, tensors)
            return tensors["param"]

        with _OutOfPlace():
            torch.vmap(update)(stacks, read)
        for name, column in (home | scalars).items():
            torch._foreach_copy_(column, list(stacks[name].unbind()))
        for _, land in staged:
            if land is not None:
                land()


class _OutOfPlace(TorchFunctionMode):
    """Computes elsewhere, and copies, where vmap cannot change a stack in place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name not in _UNBATCHED:
            return func(*args, **(kwargs or {}))
        return args[0].copy_(getattr(Tensor, name[:-1])(*args, **(kwargs or {})))


def _kind(unit: Unit, i: int) -> Hashable:
    """What rows that can be stacked have in common; of a row that must stay alone its position."""
    row = unit.row(i)
    alone = bool(unit.rule.coded) or any(
        type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided or is_lazy(tensor)
        for tensor in row.tensors
    )
    if alone:
        return i
    looks = tuple((tensor.shape, tensor.dtype) for tensor in row.tensors)
    devices = tuple(unit.states[i][name].device for name in scalars_of(unit.rule))
    return row.param.device, looks, devices


def _chunks(unit: Unit, positions: Sequence[int]) -> Iterator[Sequence[int]]:
    """The positions in lists whose stacks are of bounded size; one by one where few would fit into it."""
    if not positions:
        return
    param = unit.columns["param"][positions[0]]
    room = ROOM if param.is_cpu else limit_of(param)
    count = room // max(1, param.nbytes)
    if count < FEWEST:
        count = 1
    for start in range(0, len(positions), count):
        yield positions[start : start + count]
