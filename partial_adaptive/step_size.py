"""The learning rate that belongs to p: when the exponent changes, the update keeps its size."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from partial_adaptive.execution.distributed import is_flattened
from partial_adaptive.execution.scales import StepLength, step_length_of
from partial_adaptive.execution.settings import rule_of
from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import accepted, as_float

_EXACT = 1e-12  # relative; what is left is rounding
_CLOSE = 1e-5  # of step sizes in float32, as `capturable` has them
_FAR_BELOW = 2.0**-40


def equivalent_lr(
    optimizer: PartialAdaptiveOptimizer, partial: float | Tensor | Sequence[float | Tensor]
) -> list[float]:
    r"""The learning rate of each param group at which its update keeps its size if p becomes `partial`.

    With Δ(p, α) the update of a group's parameters that the next step would make from the present state and gradients,
    before decay of the parameters themselves and before a projection::

        RMS Δ(partial, α′) = RMS Δ(p, α),  α′ = α · RMS(P^(−p) n) / RMS(P^(−partial) n)

    Nothing is changed: the group's own rule is run on copies, at both exponents. That takes about as long as two steps
    with `foreach=False`. Parameters without a gradient are left out. Where p is 0 now and always was, there is no
    second moment yet and it starts with the present gradients: call this after some steps at another p if it can be.
    At the first step s is |g| itself, and what comes out can be several times too large: take ten steps before.

    Args:
        optimizer: one of the family, after `backward`; gradients must not be scaled for mixed precision.
        partial: the new exponent, or one for each group; a number in [0, 1/2], or in [0, 1] with beyond_half=True.

    Returns:
        One learning rate for each param group, α itself for a group whose exponent does not change.

    Raises:
        TypeError: for an optimizer that is not of the family.
        ValueError: for an exponent that is not allowed, or the wrong number of them.
        RuntimeError: where a group has no gradients, or has parts of FullyShardedDataParallel's flat parameters; where
            its update is zero or not finite, or no learning rate does it: the step size of `PartialAdafactor` never
            exceeds 1/√t.

    Example:
        >>> import torch
        >>> from partial_adaptive import Padam, equivalent_lr
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = Padam([weight], lr=1e-3, partial=1 / 2)
        >>> (weight * 1e-4).sum().backward()
        >>> [round(lr, 6) for lr in equivalent_lr(optimizer, partial=0)]
        [9.999]
    """
    if not isinstance(optimizer, PartialAdaptiveOptimizer):
        raise TypeError(f"equivalent_lr: optimizer must be one of the family, got {type(optimizer).__name__}")
    groups = optimizer.param_groups
    wanted = [*partial] if isinstance(partial, list | tuple) else [partial] * len(groups)
    if len(wanted) != len(groups):
        raise ValueError(
            f"equivalent_lr: partial must be one number, or one for each of {len(groups)} param groups, got {partial!r}"
        )
    return [_Group(optimizer, i).lr(one) for i, one in enumerate(wanted)]


class _Group:
    """A param group and what its next step would do.

    Args:
        optimizer: whose group it is.
        index: which one.
    """

    def __init__(self, optimizer: PartialAdaptiveOptimizer, index: int) -> None:
        self._group: dict[str, Any] = optimizer.param_groups[index]
        recipe = optimizer.recipe_of(self._group)
        self._name = f"equivalent_lr: param group {index} of {recipe.owner}"
        self._table = recipe.table
        self._recipe = recipe
        self._state = optimizer.state

    def lr(self, partial: Any) -> float:
        """The learning rate at another exponent."""
        entry = self._table["partial"]
        wanted = entry.convert(partial)
        if not accepted("partial", wanted, entry, self._group):
            raise ValueError(f"{self._name}: partial must be {entry.allowed}, got {partial!r}")
        p, now, lr = (as_float(value) for value in (wanted, self._group["partial"], self._group["lr"]))
        if p == now or lr == 0:
            return lr
        target = _length(self._steps(now), lr)
        steps = self._steps(p)
        found = lr * _FAR_BELOW  # any bound, where the length is proportional to the learning rate
        reached = _length(steps, found)
        if not (0 < target < math.inf and 0 < reached < math.inf):
            zero = target == 0 or reached == 0
            raise RuntimeError(f"{self._name} has no update to go by: it is {'zero' if zero else 'not finite'}")
        off, before = math.inf, math.nan
        while off > _EXACT and not off >= before:  # once, unless some of the step sizes are at their bounds
            found *= target / reached
            reached = _length(steps, found)
            before, off = off, abs(reached / target - 1)
        if off > _CLOSE:
            raise RuntimeError(
                f"{self._name} cannot keep its update at partial={p:g}: its step size is bounded, and the "
                f"update at most {reached / target:.3g} of what it is now"
            )
        return found

    def _steps(self, partial: float) -> list[StepLength]:
        """How far the step of each parameter goes at an exponent."""
        group = {**self._group, "partial": partial}
        rule = rule_of(self._recipe, group)
        params = [param for param in group["params"] if param.grad is not None]
        if not params:
            raise RuntimeError(f"{self._name} has no parameter with a gradient; call it between backward and zero_grad")
        if any(map(is_flattened, params)):
            raise RuntimeError(f"{self._name} has parts of FullyShardedDataParallel's vectors: none has all")
        return [step_length_of(param, group, self._table, self._state.get(param, {}), rule) for param in params]


def _length(steps: Sequence[StepLength], lr: float) -> float:
    """The Euclidean norm of all updates together."""
    return math.hypot(*(step.length(lr) for step in steps))
