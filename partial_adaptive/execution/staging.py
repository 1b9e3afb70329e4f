"""Staging: every kind of parameter as real, dense tensors of one dtype, which is all that the arithmetic knows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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
