"""What stands in for a tensor when the arithmetic of one tensor is run some other way."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, Self

# What looks at one element and no other. Everything else is for rules that see the whole TENSOR.
_METHODS = """
    abs add addcdiv addcmul ceil clamp clamp_max clamp_min clone copy div eq exp exp2 expm1 fill floor ge gt le lerp log
    log2 lt maximum minimum mul ne neg pow reciprocal rsqrt sign sqrt square sub where zero
"""
ELEMENTWISE = frozenset(_METHODS.split())
IN_PLACE = ("copy", "fill", "zero")  # those that tensors have in place only


class Lifted(ABC):
    """An object with the methods and operators of a tensor, each routed through one `_call`."""

    __slots__ = ()
    __hash__ = object.__hash__
    version: Any = 0  # as a tensor's: another one after each change in place
    elementwise = True  # whether it may stand for several tensors or a part of one, so that only elements can be seen

    @abstractmethod
    def _call(self, method: str, *args: Any, **kwargs: Any) -> Self:
        """Run the tensor method of that name; names with a trailing underscore change `self` and return it."""

    @abstractmethod
    def item(self) -> Any:
        """The value of a 0-dim tensor."""

    @abstractmethod
    def choose(self, condition: Any, chosen: Any, otherwise: Any) -> Any:
        """`Hyper.when`, of which at least one argument is of this kind."""

    def __getattr__(self, name: str) -> Callable[..., Self]:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.elementwise and (name.removesuffix("_") not in ELEMENTWISE or name in IN_PLACE):
            raise TypeError(
                f"a rule that declares needs = ELEMENT uses Tensor.{name}, which is not one of the methods that look "
                "at one element only and that every mode has; build it from these, or declare needs = TENSOR in the "
                f"stage that does: {', '.join(sorted(ELEMENTWISE))}"
            )
        return partial(self._call, name)

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise TypeError(f"a rule that declares needs = ELEMENT uses {what}, which it does not have; {instead}")

    def __bool__(self) -> bool:
        self._refuse("the truth value of a tensor or number", "compare and choose by hyper.when(condition, a, b)")

    def __float__(self) -> float:
        self._refuse("a value as a Python number", "calculate with the tensor itself")

    def __int__(self) -> int:
        self._refuse("a value as a Python number", "calculate with the tensor itself")

    __index__ = __int__

    def __getitem__(self, index: Any) -> Self:
        self._refuse("an item of a tensor", "declare needs = TENSOR")

    def __setitem__(self, index: Any, value: Any) -> None:
        self._refuse("an item of a tensor", "declare needs = TENSOR")

    def __iter__(self) -> NoReturn:
        self._refuse("the rows of a tensor", "declare needs = TENSOR")

    def __len__(self) -> int:
        self._refuse("the length of a tensor", "declare needs = TENSOR")

    def __neg__(self) -> Self:
        return self._call("neg")

    def __abs__(self) -> Self:
        return self._call("abs")

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
        return self._call("mul", math.log(base) if base else -1e3)._call("exp")  # 0⁰ is 1, any other power 0

    def __matmul__(self, other: Any) -> Self:
        return self._call("matmul", other)

    # In place, as for a tensor: without these Python would bind the name to a new object and the state would stay.

    def __iadd__(self, other: Any) -> Self:
        return self._call("add_", other)

    def __isub__(self, other: Any) -> Self:
        return self._call("sub_", other)

    def __imul__(self, other: Any) -> Self:
        return self._call("mul_", other)

    def __itruediv__(self, other: Any) -> Self:
        return self._call("div_", other)

    def __ipow__(self, exponent: Any) -> Self:
        return self._call("pow_", exponent)

    def __lt__(self, other: Any) -> Self:
        return self._call("lt", other)

    def __le__(self, other: Any) -> Self:
        return self._call("le", other)

    def __gt__(self, other: Any) -> Self:
        return self._call("gt", other)

    def __ge__(self, other: Any) -> Self:
        return self._call("ge", other)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]  # a tensor, as a tensor's is
        return self._call("eq", other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]  # as above
        return self._call("ne", other)
