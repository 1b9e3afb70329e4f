"""What estimators and momentum rules have in common: a declaration of state and hyperparameters, no state itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from torch import Tensor


class Component:
    """A part of the update rule that declares the state it needs and never holds any.

    Attributes:
        buffers: names of its state tensors, each of the parameter's shape, passed to its methods in this order.
        hyperparameters: keys that it reads from the param group.
        decay: the hyperparameter whose powers bias its average towards zero (dividing by 1 − decayᵗ corrects it), None
            where nothing is biased.
    """

    buffers: tuple[str, ...] = ()
    hyperparameters: tuple[str, ...] = ()
    decay: str | None = None

    def initial(self, buffer: str, group: Mapping[str, Any]) -> float:
        """The value with which a buffer starts."""
        return 0.0

    def select(self, group: Mapping[str, Any]) -> Self:
        """The component to use for a param group: itself; a `Switch` chooses."""
        return self


C_co = TypeVar("C_co", bound=Component, covariant=True)


class Selectable(Protocol[C_co]):
    """A component, or a `Switch` between two."""

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Keys that it reads from the param group."""

    def select(self, group: Mapping[str, Any]) -> C_co:
        """The component to use for a param group."""


@dataclass(frozen=True)
class Switch(Generic[C_co]):
    """One of two components, by an entry of the param group (torch's `amsgrad`, `centered`, `momentum`).

    Args:
        option: key in the param group.
        on: the component where it is true, or not zero.
        off: the component where it is false, or zero.
    """

    option: str
    on: C_co
    off: C_co

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """The option and what either component reads."""
        return (self.option, *self.on.hyperparameters, *self.off.hyperparameters)

    def select(self, group: Mapping[str, Any]) -> C_co:
        """The component for a param group."""
        return self.on if group[self.option] else self.off


def average_(buffer: Tensor, value: Tensor, decay: Any) -> Tensor:
    """Take `value` into the exponential moving average `buffer`, in place."""
    if isinstance(decay, Tensor):
        return buffer.mul_(decay).add_(value.mul(1 - decay))
    return buffer.lerp_(value, 1 - decay)


def average_square_(buffer: Tensor, value: Tensor, decay: Any) -> Tensor:
    """Take value² into the exponential moving average `buffer`, in place."""
    if isinstance(decay, Tensor):
        return average_(buffer, value.mul(value), decay)
    return buffer.mul_(decay).addcmul_(value, value, value=1 - decay)
