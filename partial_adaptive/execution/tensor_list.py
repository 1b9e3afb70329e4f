"""Foreach: the arithmetic of one tensor, run on many in a few kernels."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from partial_adaptive.execution.lifted import Lifted

_TAKES_ONE_TENSOR = {"add", "mul", "div"}  # the operations whose `_foreach_` form takes one 0-dim tensor for all


class TensorList(Lifted):
    """A list of tensors with the elementwise methods of one, each a single `torch._foreach_*` call where there is one.

    Example:
        >>> x = TensorList([torch.tensor([4.0]), torch.tensor([9.0, 16.0])])
        >>> list(x.sqrt().add_(1.0).tensors)
        [tensor([3.]), tensor([4., 5.])]
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def lift(cls, tensors: Sequence[Tensor]) -> Any:
        """The tensors as one, a single one as it is."""
        return tensors[0] if len(tensors) == 1 else cls(tensors)

    def item(self) -> float:
        """The value that the 0-dim tensors of a bucket share."""
        return self.tensors[0].item()

    def choose(self, condition: Any, chosen: Any, otherwise: Any) -> Any:
        """`torch.where` on each."""
        arguments = (condition, chosen, otherwise)
        return type(self)([torch.where(*(_pick(x, i) for x in arguments)) for i in range(len(self.tensors))])

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Self:
        operation = method.removesuffix("_")
        if operation == "clamp":
            return self._clamp(method.removeprefix("clamp"), *args, **kwargs)
        foreach = getattr(torch, f"_foreach_{method}", None)
        if foreach is None:
            results = [
                getattr(tensor, method)(*(_pick(x, i) for x in args), **{k: _pick(x, i) for k, x in kwargs.items()})
                for i, tensor in enumerate(self.tensors)
            ]
        else:
            results = foreach(self.tensors, *(self._spread(arg, operation) for arg in args), **kwargs)
        return self if method != operation else type(self)(results)

    def _clamp(self, suffix: str, min: Any = None, max: Any = None) -> Self:
        result = self
        for bound, value in (("min", min), ("max", max)):
            if value is not None:
                result = result._call(f"clamp_{bound}{suffix}", value)
        return result

    def _spread(self, arg: Any, operation: str) -> Any:
        if isinstance(arg, TensorList):
            return arg.tensors
        if isinstance(arg, Tensor) and operation not in _TAKES_ONE_TENSOR:
            return [arg] * len(self.tensors)
        return arg


def _pick(arg: Any, i: int) -> Any:
    return arg.tensors[i] if isinstance(arg, TensorList) else arg
