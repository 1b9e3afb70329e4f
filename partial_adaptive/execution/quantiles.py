"""Quantiles of more numbers than there is memory for."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_BITS = 16  # of a number that are looked at in one pass
_BINS = 2**_BITS


def quantiles(
    histograms: Callable[[Sequence[int], int], Tensor], fractions: Sequence[float]
) -> tuple[float, ...] | None:
    """The exact quantiles of numbers ≥ 0, interpolated linearly as in `torch.quantile`, by four passes over them.

    The order of such numbers is that of their bits as float64, of which each pass finds 16 more.

    Args:
        histograms: the `counts` of all numbers, added up.
        fractions: which quantiles, in [0, 1].

    Returns:
        A number each, or None where there are no numbers.

    Example:
        >>> x = torch.arange(101.0)
        >>> quantiles(lambda prefixes, shift: counts(x, prefixes, shift), (0.05, 0.5))
        (5.0, 50.0)
    """
    first, *shifts = range(64 - _BITS, -1, -_BITS)
    below = {0: histograms([0], first)[0].cumsum(0)}
    size = int(below[0][-1])
    if not size:
        return None
    places = [fraction * (size - 1) for fraction in fractions]
    ranks = sorted({bound for place in places for bound in (math.floor(place), math.ceil(place))})
    known = [_narrowed(0, rank, below[0]) for rank in ranks]
    for shift in shifts:
        prefixes = sorted({prefix for prefix, _ in known})
        below = dict(zip(prefixes, histograms(prefixes, shift).cumsum(1), strict=True))
        known = [_narrowed(prefix, rank, below[prefix]) for prefix, rank in known]
    bits = torch.tensor([prefix for prefix, _ in known], dtype=torch.int64, device="cpu")
    found = dict(zip(ranks, bits.view(torch.float64).tolist(), strict=True))
    ends = ((found[math.floor(place)], found[math.ceil(place)], place % 1) for place in places)
    return tuple(low if low == high else low + (high - low) * part for low, high, part in ends)


def counts(numbers: Tensor, prefixes: Sequence[int], shift: int) -> Tensor:
    """How many numbers have each value in the 16 bits above `shift`, of those that begin with each of some prefixes.

    Args:
        numbers: of any shape, ≥ 0.
        prefixes: values of the bits above those; 0 where there are none.
        shift: how many bits come after.

    Returns:
        One row of 2¹⁶ counts for each prefix.
    """
    bits = numbers.to("cpu", torch.float64).abs().flatten().view(torch.int64) >> shift
    digits = bits & (_BINS - 1)
    above = bits >> _BITS
    return torch.stack([torch.bincount(digits[above == prefix], minlength=_BINS) for prefix in prefixes])


def _narrowed(prefix: int, rank: int, below: Tensor) -> tuple[int, int]:
    """One digit more of the number that has a place in the order of those with a prefix, and its place among these."""
    digit = int(torch.searchsorted(below, rank, right=True))
    return prefix * _BINS + digit, rank - (int(below[digit - 1]) if digit else 0)
