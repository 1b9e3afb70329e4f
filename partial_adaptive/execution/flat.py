"""Foreach for small tensors: many of them as one, whose state lies in one piece of memory."""

import operator
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from partial_adaptive.execution.staging import Staged

LARGEST = 4096  # elements of a tensor for which one more copy costs less than one more call of each operation


class Flat:
    """Small parameters as one tensor.

    Their state is moved into one tensor for each buffer, of which every parameter's state keeps a view; gradients and
    parameters are copied together and back.

    Args:
        params: contiguous, real parameters of one device and dtype.
        states: their state.
        buffers: names of the state tensors of the parameters' shapes.
    """

    def __init__(self, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]], buffers: Sequence[str]) -> None:
        self._params = list(params)
        self._names = tuple(buffers)
        self._param, self._param_views = _joined(params, params[0].dtype)
        self._grad, self._grad_views = _joined(params, params[0].dtype)
        self._buffers = []
        for name in buffers:
            joined, views = _joined(params, states[0][name].dtype)
            torch._foreach_copy_(views, [state[name] for state in states])
            self._buffers.append(joined)
            for state, view in zip(states, views, strict=True):
                state[name] = view
        self._views = self._state_tensors(states)

    def holds(self, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]], buffers: Sequence[str]) -> bool:
        """Whether it is of these parameters, and nobody has replaced their state."""
        return (
            self._names == tuple(buffers)
            and len(params) == len(self._params)
            and all(map(operator.is_, params, self._params))
            and all(map(operator.is_, self._state_tensors(states), self._views))
        )

    def stage(self) -> Staged:
        """The parameters and their gradients as one."""
        torch._foreach_copy_(self._param_views, self._params)
        torch._foreach_copy_(self._grad_views, [cast(Tensor, param.grad) for param in self._params])
        return Staged(self._param, self._grad, self._buffers, self._land)

    def _land(self) -> None:
        torch._foreach_copy_(self._params, self._param_views)

    def _state_tensors(self, states: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        return [state[name] for name in self._names for state in states]


def flattens(param: Tensor, dtype: torch.dtype | None) -> bool:
    """Whether a parameter and its gradient are small and plain enough."""
    grad = param.grad
    return (
        param.numel() <= LARGEST
        and param.is_contiguous()
        and not param.is_complex()
        and grad is not None
        and grad.layout is torch.strided
        and dtype in (None, param.dtype)
        and type(param) in (Tensor, torch.nn.Parameter)
    )


def _joined(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """One tensor with room for all, and the view of it that belongs to each."""
    sizes = [tensor.numel() for tensor in tensors]
    joined = torch.empty(sum(sizes), dtype=dtype, device=tensors[0].device)
    parts = torch.split(joined, sizes)
    return joined, [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
