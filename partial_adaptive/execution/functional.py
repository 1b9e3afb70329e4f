"""Differentiable: the arithmetic of one tensor, run without overwriting what autograd has to remember."""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

from partial_adaptive.execution.lifted import Lifted


class Functional(Lifted):
    """A tensor whose in-place methods replace it instead of overwriting it.

    Example:
        >>> import torch
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> y = Functional(x)
        >>> y.mul_(y).add_(1.0).value, x
        (tensor([5.], grad_fn=<AddBackward0>), tensor([2.], requires_grad=True))
    """

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @classmethod
    def lift(cls, tensors: Sequence[Tensor]) -> Any:
        """A copy of the only tensor: the original may be overwritten before autograd has used it."""
        (tensor,) = tensors
        return cls(tensor.clone())

    def item(self) -> float:
        """The value of a 0-dim tensor as a Python number."""
        return self.value.item()

    def copy_(self, other: Any) -> Self:
        """Take the values of `other`, in this tensor's shape and dtype."""
        self.value = _value(other).expand_as(self.value).to(self.value)
        return self

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Self:
        operation = method.removesuffix("_")
        result = getattr(self.value, operation)(*map(_value, args), **{k: _value(v) for k, v in kwargs.items()})
        if method == operation:
            return type(self)(result)
        self.value = result
        return self


def _value(arg: Any) -> Any:
    return arg.value if isinstance(arg, Functional) else arg
