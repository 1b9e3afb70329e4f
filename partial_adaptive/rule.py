"""The one update rule, for one tensor or for whatever stands in for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from partial_adaptive.estimators import Estimator
from partial_adaptive.hyperparameters import Hyper
from partial_adaptive.momentum import Momentum
from partial_adaptive.power import power


@dataclass(frozen=True)
class Rule:
    """θ ← θ − α·n/s^(2p), with its numerator n and its scale s filled in.

    Args:
        momentum: gives n.
        estimator: gives s; None where p = 0, which never looks at it.
        estimator_decay: the estimator's `decay`, on which the authors' bias correction depends even where p = 0.
    """

    momentum: Momentum
    estimator: Estimator | None
    estimator_decay: str | None = None

    @cached_property
    def buffers(self) -> tuple[str, ...]:
        """Names of all state tensors of the parameter's shape."""
        return (*self.momentum.buffers, *(self.estimator.buffers if self.estimator else ()))

    def initial(self, buffer: str, group: Mapping[str, Any]) -> float:
        """The value with which a buffer starts."""
        if self.estimator is not None and buffer in self.estimator.buffers:
            return self.estimator.initial(buffer, group)
        return self.momentum.initial(buffer, group)

    def hyper(self, group: Mapping[str, Any], step: Any, age: Any) -> Hyper:
        """The numbers of a step; see `Hyper` for the arguments."""
        return Hyper(group, step, age, self.momentum.decay, self.estimator_decay)

    def fraction(
        self, param: Tensor, grad: Tensor, hyper: Hyper, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """The numerator n and the scale s (None where p = 0); takes `grad` into the state and leaves it as it is."""
        if hyper.maximize:
            grad = grad.neg()
        if hyper.weight_decay != 0 and not hyper.decoupled_weight_decay:
            grad = grad.add(param, alpha=hyper.weight_decay)
        numerator = self.momentum.numerator(grad, hyper, *self._momentum_state(state))
        if self.estimator is None:
            return numerator, None
        return numerator, self.estimator.scale(grad, hyper, *self._estimator_state(state))

    def update(self, param: Tensor, grad: Tensor, hyper: Hyper, state: Mapping[str, Tensor]) -> None:
        """Take one step: change `param` and its state, in place."""
        numerator, scale = self.fraction(param, grad, hyper, state)
        if hyper.weight_decay != 0 and hyper.decoupled_weight_decay:
            param.mul_(1 - hyper.lr * hyper.weight_decay)
        step_size = self.momentum.step_size(hyper)
        direction = numerator
        if self.estimator is not None and scale is not None:
            denominator = power(scale, 2 * hyper.partial)
            if isinstance(step_size, float) and not self._needs_direction:
                param.addcdiv_(numerator, denominator, value=-step_size)
                return
            direction = numerator.div(denominator)
            self.estimator.observe(direction, hyper, *self._estimator_state(state))
        direction = self.momentum.follow(direction, hyper, *self._momentum_state(state))
        if isinstance(step_size, float):
            param.add_(direction, alpha=-step_size)
        else:
            param.sub_(direction.mul(step_size))

    @cached_property
    def _needs_direction(self) -> bool:
        observed = self.estimator is not None and type(self.estimator).observe is not Estimator.observe
        return observed or type(self.momentum).follow is not Momentum.follow

    def _momentum_state(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        return [state[name] for name in (*self.momentum.buffers, *self.momentum.scalars)]

    def _estimator_state(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        assert self.estimator is not None
        return [state[name] for name in (*self.estimator.buffers, *self.estimator.reads)]
