"""Bad steps: whether a gradient is NaN or infinite, so that nothing is to change, decided once for all parameters."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Unit
from partial_adaptive.execution.distributed import agreed, gathered
from partial_adaptive.execution.staging import locals_of


class Skips:
    """Decides which steps of an optimizer are skipped, and counts them where they are decided."""

    def __init__(self) -> None:
        self._count: Tensor | None = None

    @property
    def count(self) -> int:
        """How many have been skipped; waits for the device."""
        return 0 if self._count is None else int(self._count.item())

    def verdict(self, groups: Sequence[Mapping[str, Any]], found_inf: Any) -> "Verdict | None":
        """What will say whether a step is skipped; None where nobody asks.

        Args:
            groups: the optimizer's param groups.
            found_inf: what is known already, from a `torch.amp.GradScaler` or the user: not 0 where the step is bad.

        Raises:
            TypeError: where `found_inf` is not a tensor of one element.
        """
        # A group that lacks a hyperparameter is refused by name when the step is planned.
        looks = any(group.get("skip_nonfinite") for group in groups)
        if found_inf is None and not looks:
            return None
        if found_inf is not None and not (isinstance(found_inf, Tensor) and found_inf.numel() == 1):
            raise TypeError(f"found_inf must be a tensor of one element, or None, got {found_inf!r}")
        params = [param for group in groups for param in group["params"]]
        device = next((param.device for param in params if not param.is_cpu), torch.device("cpu"))
        waits = device.type == "cpu" and not any(group.get("capturable") for group in groups)
        return Verdict(found_inf, looks, params, torch.zeros((), device=device), waits, self._add)

    def _add(self, flag: Tensor) -> None:
        if self._count is None:
            self._count = torch.zeros((), dtype=torch.int64, device=flag.device)
        elif self._count.device != flag.device:
            self._count = self._count.to(flag.device)
        self._count.add_(flag != 0)


@dataclass(frozen=True)
class Verdict:
    """Whether a step is skipped: open while the step is planned, and given once all gradients are known.

    Args:
        found_inf: what was known before.
        looks: whether gradients are looked at, in some group.
        params: all of the optimizer's parameters.
        flag: becomes 1 where the step is skipped, else 0.
        waits: whether the flag is on the CPU and may be looked at, which costs nothing there.
        count: is told the verdict.
    """

    found_inf: Tensor | None
    looks: bool
    params: Sequence[Tensor]
    flag: Tensor
    waits: bool
    count: Callable[[Tensor], None]

    @property
    def mask(self) -> Tensor | None:
        """By what the step has to be masked; None where it is looked at before."""
        return None if self.waits else self.flag

    def skips(self, units: Iterable[Unit]) -> bool:
        """Give the verdict, and return whether the step can be left out; if that is not known here, it is masked.

        Args:
            units: all that the step would update.
        """
        device = self.flag.device
        known = [] if self.found_inf is None else gathered([self.found_inf.detach()])
        bad = [(flag.reshape(()) != 0).to(device) for flag in known]
        asking = [unit for unit in units if unit.group["skip_nonfinite"]]
        bad += [(~finite).to(device) for unit in asking for finite in _finite(locals_of(unit.columns["grad"]))]
        if bad:
            self.flag.copy_(torch.stack(bad).any())
        if self.looks:
            self.flag.copy_(agreed(self.flag, self.params))
        self.count(self.flag)
        return self.waits and self.flag.item() != 0


def is_finite(grad: Tensor) -> Tensor:
    """Whether all numbers of a gradient, or of what is here of it, are finite, as a 0-dim tensor."""
    found = _finite(locals_of([grad]))
    return found[0] if found else torch.ones((), dtype=torch.bool, device=grad.device)


def _finite(grads: Sequence[Tensor]) -> list[Tensor]:
    """For each device and dtype whether all numbers are finite."""
    alike: dict[Any, list[Tensor]] = {}
    for numbers in filter(Tensor.numel, map(_numbers, grads)):
        alike.setdefault((numbers.device, numbers.dtype), []).append(numbers)
    return [torch.stack(_extremes(tensors)).isfinite().all() for tensors in alike.values()]


def _numbers(grad: Tensor) -> Tensor:
    """The numbers that a gradient consists of, as real ones."""
    if grad.is_sparse:
        # As in torch.amp: only float16 is so narrow that a sum of entries of one place is likely to leave it.
        grad = (grad.coalesce() if grad.dtype is torch.float16 else grad)._values()
    return torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad


def _extremes(tensors: list[Tensor]) -> list[Tensor]:
    """Numbers that are finite only if those of the tensors all are; temporary memory is one number each."""
    if tensors[0].is_cpu:  # where norms are computed one by one as well, and slowly
        return [extreme for tensor in tensors for extreme in torch.aminmax(tensor)]
    return [*torch._foreach_norm(tensors, math.inf)]
