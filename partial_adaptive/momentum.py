"""The numerators, side by side: each turns gradients into the direction that is then divided by s^(2p)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partial_adaptive.components import Component, average_
from partial_adaptive.hyperparameters import Hyper


class Momentum(Component, ABC):
    """Base of all momentum rules.

    Attributes:
        scalars: names and first values of its 0-dim state tensors, which are passed to its methods after the buffers.
    """

    scalars: Mapping[str, float] = {}

    @abstractmethod
    def numerator(self, grad: Tensor, hyper: Hyper, *state: Any) -> Tensor:
        """Take `grad` into the state, in place, and return n; the result is not overwritten."""

    def follow(self, direction: Tensor, hyper: Hyper, *state: Any) -> Tensor:
        """What is subtracted where the direction n/s^(2p) still has momentum to gather; itself otherwise."""
        return direction

    def step_size(self, hyper: Hyper) -> Any:
        """The factor of the direction, the numerator's bias correction included."""
        return hyper.lr / hyper.correction1


class Gradient(Momentum):
    """n = g."""

    def numerator(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad


class AnnealedGradient(Gradient):
    """n = g with Adagrad's step size α/(1 + (t−1)·lr_decay), times 1/√t where the paper's `mean` is chosen."""

    hyperparameters = ("lr_decay", "mean")

    def step_size(self, hyper: Hyper) -> Any:
        step_size = hyper.lr / (1 + (hyper.step - 1) * hyper.lr_decay)
        return step_size / hyper.step**0.5 if hyper.mean else step_size


class ExpAvg(Momentum):
    """n = m/c₁, m = β₁m + (1−β₁)g: Adam's."""

    buffers = ("exp_avg",)
    hyperparameters = ("betas", "bias_correction")
    decay = "beta1"

    def numerator(self, grad: Tensor, hyper: Hyper, exp_avg: Tensor) -> Tensor:
        return average_(exp_avg, grad, hyper.beta1)


class NesterovExpAvg(Momentum):
    """n = g(1−μₜ)/(1−Πμ) + m·μₜ₊₁/(1−Πμ·μₜ₊₁), μₜ = β₁(1 − 0.96^(t·momentum_decay)/2): NAdam's.

    Dozat: Incorporating Nesterov Momentum into Adam, ICLR workshop 2016.
    """

    buffers = ("exp_avg",)
    scalars = {"mu_product": 1.0}
    hyperparameters = ("betas", "momentum_decay", "bias_correction")

    def numerator(self, grad: Tensor, hyper: Hyper, exp_avg: Tensor, mu_product: Tensor) -> Tensor:
        mu = hyper.beta1 * (1 - 0.5 * 0.96 ** (hyper.step * hyper.momentum_decay))
        mu_next = hyper.beta1 * (1 - 0.5 * 0.96 ** ((hyper.step + 1) * hyper.momentum_decay))
        mu_product.mul_(mu)
        average_(exp_avg, grad, hyper.beta1)
        if hyper.bias_correction == "none":
            return grad.mul(1 - mu).add_(exp_avg.mul(mu_next))
        product = mu_product if hyper.capturable else mu_product.item()
        return grad.mul((1 - mu) / (1 - product)).add_(exp_avg.mul(mu_next / (1 - product * mu_next)))


class HeavyBallAfter(Momentum):
    """n = g, and the heavy ball b = μb + g/s^(2p) gathers what has been divided: RMSprop's."""

    buffers = ("momentum_buffer",)
    hyperparameters = ("momentum",)

    def numerator(self, grad: Tensor, hyper: Hyper, momentum_buffer: Tensor) -> Tensor:
        return grad

    def follow(self, direction: Tensor, hyper: Hyper, momentum_buffer: Tensor) -> Tensor:
        return momentum_buffer.mul_(hyper.momentum).add_(direction)
