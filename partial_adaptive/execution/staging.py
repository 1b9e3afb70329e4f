"""Staging: every kind of parameter as real, dense tensors of one dtype, which is all that the arithmetic knows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_BATCH_BYTES = {"cpu": 2**21, "cuda": 2**25}


class Staged(NamedTuple):
    """A parameter ready for the update rule.

    Args:
        param: what to update.
        grad: its gradient, not to be changed.
        buffers: its state tensors, to be updated.
        land: brings the result home where `param` and `buffers` are copies; None where they share memory.
    """

    param: Tensor
    grad: Tensor
    buffers: Sequence[Tensor]
    land: Callable[[], object] | None = None


def stage(param: Tensor, grad: Tensor, buffers: Sequence[Tensor], dtype: torch.dtype | None) -> Staged:
    """Stage one parameter: the rows that a sparse gradient touches, complex numbers as pairs, in the state's dtype."""
    if grad.is_sparse:
        return _stage_rows(param, grad.coalesce(), buffers, dtype)
    if param.is_complex():
        param, grad, *buffers = map(torch.view_as_real, (param, grad, *buffers))
    if dtype is None or param.dtype == dtype:
        return Staged(param, grad, buffers)
    working = param.to(dtype)
    return Staged(working, grad.to(dtype), buffers, lambda: param.copy_(working))


def batches(rows: Sequence[Staged]) -> Iterator[list[Staged]]:
    """The rows, long ones in parts, in lists of bounded size; temporary tensors are no larger than such a list."""
    batch: list[Staged] = []
    size = 0
    for row in rows:
        limit = _BATCH_BYTES.get(row.param.device.type, _BATCH_BYTES["cuda"])
        for part in _parts(row, limit):
            if batch and size + part.param.nbytes > limit:
                yield batch
                batch, size = [], 0
            batch.append(part)
            size += part.param.nbytes
    if batch:
        yield batch


def _parts(row: Staged, limit: int) -> Iterable[Staged]:
    tensors = (row.param, row.grad, *row.buffers)
    plain = type(row.param) in (Tensor, torch.nn.Parameter) and all(tensor.is_contiguous() for tensor in tensors)
    if row.param.nbytes <= limit or not plain:
        return (row,)
    parts = (torch.split(tensor.view(-1), limit // row.param.element_size()) for tensor in tensors)
    return (Staged(param, grad, buffers) for param, grad, *buffers in zip(*parts, strict=True))


def _stage_rows(param: Tensor, grad: Tensor, buffers: Sequence[Tensor], dtype: torch.dtype | None) -> Staged:
    touched = tuple(grad.indices())
    targets = (param, *buffers)
    rows = [target[touched] for target in targets]
    staged = stage(rows[0], grad.values(), rows[1:], dtype)

    def land() -> None:
        if staged.land is not None:
            staged.land()
        for target, row in zip(targets, rows, strict=True):
            target[touched] = row

    return staged._replace(land=land)
