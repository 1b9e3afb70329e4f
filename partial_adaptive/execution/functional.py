"""Differentiable: the arithmetic of one tensor, run without overwriting what autograd has to remember."""

from typing import Any, Self

import torch
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
    elementwise = False

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @classmethod
    def lift(cls, tensor: Tensor) -> Self:
        """A copy of the tensor: the original may be overwritten before autograd has used it."""
        return cls(tensor.clone())

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Functions of torch, for those who do not use methods, and where there is none."""
        result = function(*map(_value, args), **{name: _value(value) for name, value in (kwargs or {}).items()})
        if isinstance(result, Tensor):
            return cls(result)
        return type(result)([cls(part) for part in result]) if isinstance(result, tuple) else result

    version = property(lambda self: id(self.value), doc="Another one after each change in place.")
    shape = property(lambda self: self.value.shape, doc="The tensor's shape.")
    ndim = property(lambda self: self.value.ndim, doc="Its number of dimensions.")
    dtype = property(lambda self: self.value.dtype, doc="Its dtype.")
    device = property(lambda self: self.value.device, doc="Its device.")
    T = property(lambda self: type(self)(self.value.T), doc="Its transpose.")
    mT = property(lambda self: type(self)(self.value.mT), doc="The transpose of its last two dimensions.")  # noqa: N815  # torch's name

    def __getitem__(self, index: Any) -> Self:
        return type(self)(self.value[_value(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        changed = self.value.clone()
        changed[_value(index)] = _value(value)
        self.value = changed

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def item(self) -> float:
        """The value of a 0-dim tensor as a Python number."""
        return self.value.item()

    def choose(self, condition: Any, chosen: Any, otherwise: Any) -> Any:
        """`torch.where`."""
        return type(self)(torch.where(_value(condition), _value(chosen), _value(otherwise)))

    def zero_(self) -> Self:
        """Become zeros."""
        return self.fill_(0.0)

    def fill_(self, number: Any) -> Self:
        """Become a number everywhere."""
        self.value = torch.zeros_like(self.value) + _value(number)
        return self

    def copy_(self, other: Any) -> Self:
        """Take the values of `other`, in this tensor's shape and dtype."""
        self.value = _value(other).expand_as(self.value).to(self.value)
        return self

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        operation = method.removesuffix("_")
        result = getattr(self.value, operation)(*map(_value, args), **{k: _value(v) for k, v in kwargs.items()})
        if method == operation:
            return type(self)(result) if isinstance(result, Tensor) else result
        self.value = result
        return self


def _value(arg: Any) -> Any:
    return arg.value if isinstance(arg, Functional) else arg
