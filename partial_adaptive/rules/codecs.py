"""Codes in which a group's state is kept, and which slot is stored how."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from partial_adaptive.rules.hyperparameters import CODES, OTHERS, nearest
from partial_adaptive.rules.rounding import noise
from partial_adaptive.rules.stage import Slot, like

_PER_OCTAVE = 8
_LEAST = 2.0**-94  # of a block's largest value: then every level is a normal number


@final
@dataclass(frozen=True)
class Block8:
    """A byte per element, and a float32 per block of elements.

    A block's scale is the least power of two that none of its values exceeds. The values of the code are 0 and the
    scale times powers of 2^(1/8), down to 2^(−31.75), or 2^(−15.75) with signs. What lies between two of them becomes
    one of them at random, so that the expected value is right: an average that moves by a thousandth of itself at a
    step would otherwise never move. Without signs, nothing but 0 becomes 0: what is smaller than the smallest becomes
    that, for it may be divided by.

    Args:
        signed: whether values may be negative.
        block: how many elements share a scale; a whole number ≥ 1.

    Example:
        >>> code = Block8(signed=False)
        >>> parts = code.encode(torch.tensor([1.0, 0.0, 1e-30]))
        >>> parts[""], parts["_scale"]
        (tensor([255,   0,   1], dtype=torch.uint8), tensor([1.]))
        >>> code.decode(parts, torch.Size([3]))
        tensor([1.0000e+00, 0.0000e+00, 2.7688e-10])

    After Dettmers et al.: 8-bit Optimizers via Block-wise Quantization, 2022.
    """

    signed: bool = True
    block: int = 256

    def __post_init__(self) -> None:
        if not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"Block8: block must be a whole number ≥ 1, got {self.block!r}")

    def encode(self, value: Tensor, step: Any = 0) -> Mapping[str, Tensor]:
        """Bytes of the shape of the value, and scales.

        Args:
            value: of any shape and floating-point dtype; float32 is what counts of it. A block in which something is
                not finite, or larger than 1.7e38, is NaN when it is decoded.
            step: chooses the noise.
        """
        flat = value.to(torch.float32).reshape(-1)
        blocks = pad(flat, (0, -flat.numel() % self.block)).view(-1, self.block)
        largest = blocks.abs().amax(1).clamp_(min=_LEAST)
        mantissa = torch.frexp(largest).mantissa
        scale = torch.where(mantissa == 0.5, largest, largest / mantissa)
        levels = _levels(self.signed, value.device)
        top = len(levels) - 1
        size = (blocks.abs() / scale.unsqueeze(1)).nan_to_num_(0.0).view(-1)[: flat.numel()]
        # A value of a level is found to be on it or next to it, wherever the logarithm was rounded to.
        below = size.log2().mul_(_PER_OCTAVE).add_(top + 1e-3).floor_().clamp_(0, top - 1).to(torch.int32)
        low, high = levels.index_select(0, below), levels.index_select(0, below + 1)
        salt = flat.view(torch.int32)  # or all tensors would be rounded alike, position by position
        chance = noise(flat.numel(), step, int(self.signed), value.device, salt=salt).bitwise_right_shift_(8)
        up = chance.bitwise_and_(0xFFFFFF) * 2.0**-24 < (size - low) / (high - low)
        if self.signed:
            code = below.add_(up).add_((flat < 0) * (top + 1))
        else:
            code = below.add_(up | ((below == 0) & (flat > 0)))
        return {"": code.to(torch.uint8).view(value.shape), "_scale": scale}

    def decode(self, parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        """The values, in float32."""
        codes, scale = parts[""], parts["_scale"]
        levels = _levels(self.signed, codes.device)
        table = torch.cat([levels, -levels]) if self.signed else levels
        flat = table.index_select(0, codes.reshape(-1).to(torch.int32))
        blocks = pad(flat, (0, -flat.numel() % self.block)).view(-1, self.block)
        return (blocks * scale.unsqueeze(1)).view(-1)[: flat.numel()].view(shape)


@cache
def _levels(signed: bool, device: torch.device) -> Tensor:
    """0 and the powers of 2^(1/8) up to 1."""
    top = 127 if signed else 255
    powers = [math.exp2((i - top) / _PER_OCTAVE) for i in range(1, top + 1)]
    return torch.tensor([0.0, *powers], dtype=torch.float32, device=device)


CODECS: Mapping[str, Callable[[Slot], Block8]] = {"8bit": lambda slot: Block8(signed=not slot.nonnegative)}
assert CODECS.keys() == set(CODES), "what a param group may name and what there is must be one list"


def stored(slots: Mapping[str, Slot], storage: Any) -> dict[str, Slot]:
    """The slots as a param group wants them stored.

    Args:
        slots: as the stages declare them.
        storage: the group's `state_dtype`, as it is kept: for all slots, or (name, choice) pairs. A choice for all is
            not for slots with a codec of their own, and a code only for those of the parameter's shape for which few
            digits will do.

    Raises:
        ValueError: where a code is chosen by name for a slot for which few digits will not do.
    """
    named = dict(storage) if isinstance(storage, tuple) else {OTHERS: storage}
    for name, slot in slots.items():
        if isinstance(named.get(name), str) and not slot.coarse:
            raise ValueError(
                f"state_dtype stores {name!r} as {named[name]!r}, which keeps too few digits of it: what is used is a "
                "difference of nearly equal values; give it a dtype"
            )
    return {name: _stored(slot, named.get(OTHERS), named.get(name)) for name, slot in slots.items()}


def _stored(slot: Slot, general: Any, own: Any) -> Slot:
    fits = slot.codec is None and (not isinstance(general, str) or (slot.shape is like and slot.coarse))
    choice = general if own is None and fits else own
    if choice is None:
        return slot
    if isinstance(choice, str):
        return replace(slot, codec=CODECS[choice](slot))
    return replace(slot, codec=None, dtype=choice)


def check_names(storage: Any, slots: Iterable[str], owner: str) -> None:
    """Raise ValueError where `state_dtype` names a slot that an optimizer does not have."""
    known = dict.fromkeys(slots)
    for name, _ in storage if isinstance(storage, tuple) else ():
        if name != OTHERS and name not in known:
            raise ValueError(
                f"{owner}: state_dtype names the slot {name!r}, which it does not have{nearest(name, known)}; "
                f"there are {', '.join(known) or 'none'}, and {OTHERS!r} stands for all others"
            )
