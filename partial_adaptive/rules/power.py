"""s^(2p), the one place where the exponent meets the scale."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyper

LONGEST_LADDER = 6


def power(scale: Tensor, exponent: Any) -> Tensor:
    """Raise a scale to a power, in place: s^(2p).

    A dyadic exponent needs no `pow`: s^(k/2ⁿ) is a product of repeated square roots, several times cheaper and
    exact to 1e-7 relative in float32 (s^(1/4) = √√s, s^(3/4) = s·√√s).

    Args:
        scale: non-negative, any shape, in units of |g|; it is overwritten.
        exponent: 2p, in (0, 1]. What isn't a number (a 0-dim tensor) goes through `pow`: nothing waits for its value.

    Example:
        >>> import torch
        >>> power(torch.tensor([16.0, 81.0]), 1 / 4)
        tensor([2., 3.])
    """
    digits = binary_digits(exponent) if isinstance(exponent, float | int) else None
    if digits is None:
        return scale.pow_(exponent)
    product, root = None, scale
    for digit in digits:
        root = root.sqrt() if root is product else root.sqrt_()
        if digit:
            product = root if product is None else product.mul_(root)
    return scale if product is None else product


def divisor(scale: Tensor, hyper: Hyper) -> Tensor:
    """s^(2p), by which a step divides; the scale is overwritten.

    Where 2p may be above 1 it is the square of s^p: `power` is for exponents up to 1.
    """
    return power(scale, hyper.partial).square() if hyper.beyond_half else power(scale, 2 * hyper.partial)


def divisor_above_zero(sizes: Tensor, hyper: Hyper) -> Tensor:
    """(s + ε)^(2p) of sizes s that may be 0, with any ε: no less than the power of the least normal number."""
    return divisor((sizes + hyper.eps).clamp(min=torch.finfo(sizes.dtype).tiny), hyper)


def is_dyadic(exponent: float) -> bool:
    """Whether `power` takes square roots for this exponent."""
    return binary_digits(exponent) is not None


@cache
def binary_digits(fraction: float) -> tuple[bool, ...] | None:
    """The digits of `fraction` after the binary point, empty for 1, None where there are too many to be worth it."""
    digits = []
    while fraction != int(fraction):
        fraction *= 2
        digits.append(int(fraction) % 2 == 1)
        if len(digits) > LONGEST_LADDER:
            return None
    return tuple(digits)
