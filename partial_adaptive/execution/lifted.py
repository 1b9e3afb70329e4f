"""What stands in for a tensor when the arithmetic of one tensor is run some other way."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Self


class Lifted(ABC):
    """An object with the methods and operators of a tensor, each routed through one `_call`."""

    __slots__ = ()

    @abstractmethod
    def _call(self, method: str, *args: Any, **kwargs: Any) -> Self:
        """Run the tensor method of that name; names with a trailing underscore change `self` and return it."""

    @abstractmethod
    def item(self) -> float:
        """The value of a 0-dim tensor as a Python number."""

    def __getattr__(self, name: str) -> Callable[..., Self]:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(self._call, name)

    def __neg__(self) -> Self:
        return self._call("neg")

    def __add__(self, other: Any) -> Self:
        return self._call("add", other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Self:
        return self._call("mul", other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Self:
        return self._call("sub", other)

    def __rsub__(self, other: Any) -> Self:
        return self._call("neg")._call("add", other)

    def __truediv__(self, other: Any) -> Self:
        return self._call("div", other)

    def __rtruediv__(self, other: Any) -> Self:
        return self._call("reciprocal")._call("mul", other)

    def __pow__(self, exponent: Any) -> Self:
        return self._call("pow", exponent)

    def __rpow__(self, base: float) -> Self:
        return self._call("mul", math.log(base))._call("exp")
