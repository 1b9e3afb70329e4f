"""What may be remembered of tensors between two steps: how they look, never the tensors and never where they are."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Not a public interface: where it is missing, a look at each tensor from Python is slower and sees the same.
_DYNAMO: Any = getattr(torch._C, "_dynamo", None)
_GUARDS: Any = getattr(getattr(_DYNAMO, "guards", None), "TensorGuards", None)


class Snapshot:
    """The class, dtype, device, shape, strides, layout and lazy bits of a list of tensors, at one moment.

    Whoever has planned by these may go by the plan again where the tensors of a later step look the same. Nothing else
    is kept, so nothing is kept alive, and addresses are always read anew.

    Args:
        tensors: strided tensors of any kind.

    Example:
        >>> x = torch.ones(3)
        >>> snapshot = Snapshot([x])
        >>> snapshot.holds([x]), snapshot.holds([torch.zeros(3)]), snapshot.holds([x.double()])
        (True, True, False)
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._count = len(tensors)
        guarded = _GUARDS is not None and len({*map(id, tensors)}) == len(tensors)  # the guards take each once
        self._looks = [] if guarded else list(map(_look, tensors))
        self._guards = guarded and _GUARDS(
            *tensors,
            dynamic_dims_sizes=[list(tensor.shape) for tensor in tensors],
            dynamic_dims_strides=[list(tensor.stride()) for tensor in tensors],
        )

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether other tensors, or the same ones later, look as these did."""
        if len(tensors) != self._count:
            return False
        if not self._guards:
            return list(map(_look, tensors)) == self._looks
        return bool(self._guards.check(*tensors))


def _look(tensor: Tensor) -> tuple[Any, ...]:
    lazy = (tensor.is_neg(), tensor.is_conj(), tensor._is_zerotensor())
    return type(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.layout, lazy
