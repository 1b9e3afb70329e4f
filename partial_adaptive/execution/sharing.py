"""Where tensors are in memory at a step, and which of them share it."""

from array import array
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor


def extent(tensor: Tensor) -> int:
    """How many bytes lie between the first and the last byte of a tensor."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def addresses_of(tensors: list[Tensor]) -> "array[int]":
    """Where strided tensors begin."""
    return array("q", [*map(Tensor.data_ptr, tensors)])


def addresses_of_any(tensors: list[Tensor]) -> "array[int]":
    """Where tensors begin; 0 for sparse ones, which begin in several places."""
    return array("q", [0 if tensor.is_sparse else tensor.data_ptr() for tensor in tensors])


class Sharing:
    """Which tensors of a step share memory: found anew whenever an address has changed.

    Args:
        params: parameters, of which the extents are kept.

    Attributes:
        rounds: the positions in rounds, in each of which no two parameters share memory.
        aliased: positions of the gradients that begin where a parameter does.
        doubled: the first entry of the state that begins where another or a parameter does, by its place in the list.
        nowhere: whether a tensor has no memory: it is empty, its storage was freed, or it is on the meta device.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._extents = list(map(extent, params))
        self._seen: tuple[array[int], ...] = ()
        self.rounds: Sequence[Sequence[int]] = [range(len(params))]
        self.aliased: Sequence[int] = []
        self.doubled: int | None = None
        self.nowhere = False

    def look(self, params: "array[int]", grads: "array[int]", slots: "array[int]") -> None:
        """Take in where parameters, gradients and the entries of the state are now."""
        if (params, grads, slots) == self._seen:
            return
        if not self._seen or self._seen[0] != params:
            self.rounds = self._sorted(params)
        self._seen = params, grads, slots
        places = {*params} - {0}
        self.aliased = [] if places.isdisjoint(grads) else [i for i, grad in enumerate(grads) if grad in places]
        self.nowhere = 0 in params or 0 in grads or 0 in slots
        self.doubled = None
        if len({*slots}) != len(slots) or not places.isdisjoint(slots):
            for k, slot in enumerate(slots):
                if slot in places:
                    self.doubled = k
                    break
                places |= {slot} - {0}

    def _sorted(self, addresses: Sequence[int]) -> Sequence[Sequence[int]]:
        extents = self._extents
        everything = range(len(addresses))
        order = sorted((i for i in everything if extents[i] and addresses[i]), key=addresses.__getitem__)
        if all(addresses[a] + extents[a] <= addresses[b] for a, b in pairwise(order)):
            return [everything]
        rounds: list[list[int]] = []
        for i in everything:
            # After the last one that it shares memory with, as a loop would have it.
            before = (r for r, members in enumerate(rounds) if any(self._meet(addresses, i, j) for j in members))
            last = max(before, default=-1)
            if last + 1 == len(rounds):
                rounds.append([])
            rounds[last + 1].append(i)
        return rounds

    def _meet(self, addresses: Sequence[int], i: int, j: int) -> bool:
        return addresses[i] < addresses[j] + self._extents[j] and addresses[j] < addresses[i] + self._extents[i]
