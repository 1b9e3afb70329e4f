"""Staging: every kind of parameter as real, dense tensors of one dtype, which is all that the arithmetic knows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from operator import itemgetter, methodcaller
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from partial_adaptive.execution.state import encoded_like, shape_of
from partial_adaptive.rules.rounding import Rounding, noise, stochastically
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Codec

LIMITS = {"cpu": 2**21}  # bytes of a tensor that are updated at a time, so that temporary tensors stay in the cache
LIMIT = 2**25  # on other devices


class Row(NamedTuple):
    """The tensors of one parameter.

    Args:
        param: what to update.
        grad: its gradient, not to be changed.
        slots: its state, by name, to be updated in place.
        rounding: how it is rounded; None for the nearest.
        step: how many steps it has taken, which chooses the noise of rounding.
        start: the position of its first element, where it is a part of a parameter.
    """

    param: Tensor
    grad: Tensor
    slots: Mapping[str, Tensor]
    rounding: Rounding | None = None
    step: Any = 0
    start: int = 0

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (self.param, self.grad, *self.slots.values())

    def but(self, **changes: Any) -> "Row":
        """The row with something else in some places."""
        return self._replace(**changes)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Row":
        """The row of what a function makes of each tensor."""
        slots = {name: function(slot) for name, slot in self.slots.items()}
        return self.but(param=function(self.param), grad=function(self.grad), slots=slots)


Item = TypeVar("Item")
Land = Callable[[], object]  # brings a result home where it was computed on copies


def limit_of(tensor: Tensor) -> int:
    """How many bytes of a tensor are updated at a time."""
    return LIMITS.get(tensor.device.type, LIMIT)


def portions(items: Iterable[Item], param_of: Callable[[Item], Tensor]) -> Iterator[list[Item]]:
    """The items, in order, in lists of one device and of bounded size: what is made of a list takes as much memory.

    Args:
        items: as many as there are.
        param_of: the parameter, or the part of one, that an item is of.
    """
    portion: list[Item] = []
    size, device = 0, None
    for item in items:
        param = param_of(item)
        if portion and (param.device != device or size + param.nbytes > limit_of(param)):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size, device = size + param.nbytes, param.device
    if portion:
        yield portion


def is_lazy(tensor: Tensor) -> bool:
    """Whether its memory is not what it seems: a negation or conjugation is pending, or there is none at all."""
    return tensor.is_neg() or tensor.is_conj() or tensor._is_zerotensor()


def settled(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy without lazy bits."""
    return tensor.clone() if tensor._is_zerotensor() else tensor.resolve_conj().resolve_neg()


def local(tensor: Tensor) -> Tensor:
    """The part of a distributed tensor that is here, with its values arrived; any other tensor is itself."""
    part: Any = tensor
    while method := _unwrapping(part.__class__):
        part = getattr(part, method)()
    return cast(Tensor, part)


def locals_of(column: list[Tensor]) -> list[Tensor]:
    """The local parts of many."""
    kinds = {*map(type, column)}
    if len(kinds) != 1:
        return [*map(local, column)]
    method = _unwrapping(kinds.pop())
    return locals_of([*map(methodcaller(method), column)]) if method else column


@cache
def _unwrapping(kind: type) -> str | None:
    """The method by which a pending collective, or a DTensor, gives what it stands for."""
    return next((method for method in ("trigger_wait", "to_local") if hasattr(kind, method)), None)


def is_wrapper(tensor: Any) -> bool:
    """Whether it stands for other tensors: distributed ones, or in some code."""
    return is_traceable_wrapper_subclass(tensor)


def is_capturing(device: torch.device) -> bool:
    """Whether work on a device is being recorded into a CUDA graph."""
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def without_autocast(kinds: Iterable[str]) -> ExitStack:
    """A context in which no autocast, of the training loop's, makes matrix products less precise than they are.

    Args:
        kinds: of devices.
    """
    stack = ExitStack()
    for kind in kinds:
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def is_dense(tensor: Tensor) -> bool:
    """Whether it fills its memory without gaps or overlaps, in whatever order of its dimensions."""
    return cast(bool, torch.ops.aten.is_non_overlapping_and_dense(tensor))


def working_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype of the arithmetic: float64 where one of the tensors has it, float32 for all others."""
    wide = any(tensor.dtype in (torch.float64, torch.complex128) for tensor in tensors)
    return torch.float64 if wide else torch.float32


def is_plain(row: Row) -> bool:
    """Whether the arithmetic can run on the tensors themselves."""
    dtype = row.param.dtype
    return (
        dtype in (torch.float32, torch.float64)
        and row.grad.layout is torch.strided
        and all(tensor.dtype == dtype and not is_lazy(tensor) for tensor in row.tensors)
    )


def pieces(row: Row, *, split: bool) -> Iterator[tuple[Row, Land | None]]:
    """The row staged, in parts of bounded size where it may be `split`, each with what brings it home.

    Complex numbers become pairs; of a sparse gradient the rows that it touches; and what is not of the working dtype,
    or lazy, a copy.
    """
    if row.grad.is_sparse and not row.grad.sparse_dim():
        row = row.but(grad=row.grad.to_dense())
    if row.grad.is_sparse:
        yield _touched(row)
        return
    if any(is_lazy(tensor) for tensor in (row.param, *row.slots.values())):
        yield _resolved(row)
        return
    if row.param.is_complex():
        row = row.map(_pairs)
    for part in _parts(row) if split else (row,):
        yield _working(part)


def decoded(rule: Rule, param: Tensor, row: Row, step: Any) -> tuple[Row, Land]:
    """The row with the values of coded slots in the places of their parts, and what codes them again at a step."""
    slots: dict[str, Tensor] = {}
    coded: list[tuple[str, Codec, dict[str, Tensor]]] = []
    for name, slot in rule.slots.items():
        if slot.codec is None:
            slots[name] = row.slots[name]
            continue
        shape = shape_of(slot, param)
        parts = {suffix: row.slots[name + suffix] for suffix in encoded_like(slot.codec, shape)}
        slots[name] = slot.codec.decode(parts, shape)
        coded.append((name, slot.codec, parts))

    def land() -> None:
        for name, codec, parts in coded:
            for suffix, part in codec.encode(slots[name], step).items():
                parts[suffix].copy_(part)

    return row.but(slots=slots), land


def _pairs(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _parts(row: Row) -> Iterator[Row]:
    """A row in parts of bounded size, views of its tensors, where they all lie in one order."""
    numel, strides = row.param.numel(), row.param.stride()
    limit = limit_of(row.param) // row.param.element_size()
    alike = all(tensor.stride() == strides and tensor.layout is torch.strided for tensor in row.tensors)
    if numel <= limit or not alike or type(row.param) not in (Tensor, torch.nn.Parameter) or not is_dense(row.param):
        yield row
        return
    flat = row.map(lambda tensor: tensor.as_strided((numel,), (1,)))
    for start in range(0, numel, limit):
        yield flat.map(itemgetter(slice(start, start + limit))).but(start=start)


def _resolved(row: Row) -> tuple[Row, Land]:
    """The row staged, where operations are pending on what is to be written."""
    copies = [(tensor, settled(tensor).clone()) for tensor in (row.param, *row.slots.values()) if is_lazy(tensor)]
    resolved = {id(tensor): copy for tensor, copy in copies}
    slots = {name: resolved.get(id(tensor), tensor) for name, tensor in row.slots.items()}
    ((staged, inner),) = pieces(row.but(param=resolved.get(id(row.param), row.param), slots=slots), split=False)

    def land() -> None:
        if inner is not None:
            inner()
        for tensor, copy in copies:
            tensor.copy_(copy)

    return staged, land


def _working(row: Row) -> tuple[Row, Land | None]:
    """The row in its working dtype; a copy where it is of another."""
    dtype = working_dtype(row.tensors)
    copies: list[tuple[Tensor, Tensor]] = []

    def target(tensor: Tensor) -> Tensor:
        if tensor.dtype == dtype and not is_lazy(tensor):
            return tensor
        copy = settled(tensor).to(dtype, copy=True)
        copies.append((tensor, copy))
        return copy

    grad = settled(row.grad).to(dtype)
    rounding = row.rounding
    kept = rounding.slots if rounding is not None else {}
    slots = {name: tensor if name in kept else target(tensor) for name, tensor in row.slots.items()}
    param = target(row.param) if rounding is None else row.param.to(dtype, copy=True)
    if rounding is not None:
        rounding.widen(param, slots)

    def land() -> None:
        for tensor, copy in copies:
            tensor.copy_(copy)
        if rounding is not None:
            rounding.land(param, row.param, slots, _Landing(row))

    return Row(param, grad, slots), land if copies or rounding is not None else None


class _Landing(NamedTuple):
    """How the values of a row's parameter are rounded to its dtype."""

    row: Row

    def nearest(self, value: Tensor) -> Tensor:
        """By torch."""
        return value.to(self.row.param.dtype).to(value.dtype)

    def stochastic(self, value: Tensor, seed: int) -> Tensor:
        """By noise for each position in memory; in place, in a dense copy of the parameter."""
        row, here = self.row, local(value)
        before, now = (t.as_strided((here.numel(),), (1,)) for t in (local(row.param).float(), here))
        bits = noise(here.numel(), row.step, seed, here.device, start=row.start, salt=before.view(torch.int32))
        now.copy_(stochastically(now.float(), row.param.dtype, bits))
        return value


def _touched(row: Row) -> tuple[Row, Land]:
    """The rows of a parameter that its sparse gradient touches."""
    grad = row.grad.coalesce()
    index = tuple(grad.indices())
    targets = {"param": row.param, **row.slots}
    rows = {name: target[index] for name, target in targets.items()}
    slots = {name: tensor for name, tensor in rows.items() if name != "param"}
    ((staged, inner),) = pieces(row.but(param=rows["param"], grad=grad.values(), slots=slots), split=False)

    def land() -> None:
        if inner is not None:
            inner()
        for name, target in targets.items():
            target[index] = rows[name]

    return staged, land
