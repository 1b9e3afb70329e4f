"""How a result becomes a parameter in 16 bits: rounded to the nearest, at random, or with what is lost kept beside it.

The noise has no state: it is a hash of a seed, the step, the element's position and its value before the step. So it is
the same in every mode, goes on from a checkpoint as it would have, and is drawn anew at each replay of a CUDA graph.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final

import torch
from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyper
from partial_adaptive.rules.stage import COMPENSATION, Slot

HALVES = (torch.bfloat16, torch.float16)
NEAREST = "nearest"
GOLDEN = 0x9E3779B9
_SCALE = 2.0**10  # of what is kept, which would be below the range of float16
_MOST = 4.0  # times θ: half a spacing of bfloat16, times the scale


class Landing(Protocol):
    """The two ways to round a result to the parameter's dtype; what they give is as wide as the result is."""

    def nearest(self, value: Any) -> Any:
        """The nearest number of the parameter's dtype, the even one of two."""

    def stochastic(self, value: Any, seed: int) -> Any:
        """One of the two numbers around it, with the probabilities that make the expected result the value itself."""


class Rounding(ABC):
    """How parameters in 16 bits are rounded, if not to the nearest.

    Attributes:
        name: how a param group names it.
        slots: what it keeps of each parameter.
    """

    name: ClassVar[str]
    slots: Mapping[str, Slot] = {}

    @abstractmethod
    def widen(self, param: Any, slots: Mapping[str, Any]) -> None:
        """Make the value that a step starts from of a parameter in the dtype of the arithmetic, in place."""

    @abstractmethod
    def land(self, value: Any, param: Any, slots: Mapping[str, Any], landing: Landing) -> None:
        """Bring the value that a step has come to into the parameter and the slots."""


@final
@dataclass(frozen=True)
class Stochastic(Rounding):
    """Up or down at random, without bias. Gupta et al., 2015.

    Args:
        seed: other seeds give other noise.
    """

    seed: int

    name = "stochastic"

    def widen(self, param: Any, slots: Mapping[str, Any]) -> None:
        pass

    def land(self, value: Any, param: Any, slots: Mapping[str, Any], landing: Landing) -> None:
        param.copy_(landing.stochastic(value, self.seed))


@final
@dataclass(frozen=True)
class Kahan(Rounding):
    """To the nearest, and what that loses is kept: θ + compensation/2¹⁰ has the digits of both. Zamirai et al., 2020.

    What is lost is no more than about 2⁻⁸ of θ in bfloat16 and 2⁻¹¹ in float16; times 2¹⁰ it is in the range of the
    dtype whenever θ is. More than that belongs to a value that has been overwritten since, and does not count.
    """

    name = "kahan"
    slots = {COMPENSATION: Slot(dtype="param")}

    def widen(self, param: Any, slots: Mapping[str, Any]) -> None:
        kept = slots[COMPENSATION]
        param.add_(Hyper.when(kept.abs() <= param.abs().mul(_MOST), kept, 0.0), alpha=1 / _SCALE)

    def land(self, value: Any, param: Any, slots: Mapping[str, Any], landing: Landing) -> None:
        stored = landing.nearest(value)
        slots[COMPENSATION].copy_((value - stored) * _SCALE)
        param.copy_(stored)


def rounding_of(group: Mapping[str, Any]) -> Rounding | None:
    """The rounding of a param group; None for the nearest."""
    if group["rounding"] == Stochastic.name:
        return Stochastic(group["rounding_seed"])
    return Kahan() if group["rounding"] == Kahan.name else None


def group_of(group: Mapping[str, Any], param: Tensor) -> Mapping[str, Any]:
    """A group as it is for one of its parameters: only those in 16 bits are rounded otherwise than to the nearest."""
    if group["rounding"] == NEAREST or param.dtype in HALVES:
        return group
    return {**group, "rounding": NEAREST}


def mixed(x: Tensor) -> Tensor:
    """A hash of 32 bits, in place: each bit of the result depends on all bits. "lowbias32" of Wellons' hash-prospector.

    Args:
        x: of int32, which stands for unsigned numbers.
    """
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x21F0AAAD)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(0xD35A2D97 - 2**32)
    return x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))


def noise(
    count: int, step: Any, seed: int, device: torch.device, *, start: int = 0, salt: Tensor | None = None
) -> Tensor:
    """Random bits: a hash of the seed, the step, the position, and a value at it.

    Args:
        count: how many.
        step: a whole number, or a 0-dim tensor that holds one.
        seed: in [0, 2³²).
        device: where they are needed.
        start: the first position.
        salt: a value for each position, of int32.

    Returns:
        A tensor of int32, of `count` elements.
    """
    key = mixed(torch.tensor(seed, device="cpu").to(torch.int32))
    key = mixed(key + (step.to(torch.int32) if isinstance(step, Tensor) else int(step)))
    bits = torch.arange(start, start + count, device=device).to(torch.int32).mul_(GOLDEN - 2**32).add_(key)
    return mixed(bits if salt is None else bits.bitwise_xor_(salt))


def stochastically(value: Tensor, dtype: torch.dtype, bits: Tensor) -> Tensor:
    """Round to one of the two neighbours in a dtype of 16 bits, up with a probability that is the way from the lower.

    Args:
        value: of float32. What is not finite comes through.
        dtype: of the neighbours; subnormal numbers count.
        bits: random ones, as `noise` gives.

    Returns:
        A tensor of float32.
    """
    dropped, smallest = (16, 2.0**-126) if dtype == torch.bfloat16 else (13, 2.0**-14)
    lift = torch.where(value.abs() < smallest, torch.full_like(value, smallest).copysign(value), 0.0)
    lifted = (value + lift).view(torch.int32)
    lifted.add_((bits >> (32 - dropped)).bitwise_and_((1 << dropped) - 1)).bitwise_and_(-(1 << dropped))
    return torch.where(value.isfinite(), lifted.view(torch.float32).sub_(lift), value)
