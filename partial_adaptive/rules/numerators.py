"""The numerators, side by side: each turns gradients into the n that P^(−p) is applied to."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyper, flag, number
from partial_adaptive.rules.stage import Slot, Stage, Tensors, Transform, average_


class Momentum(Stage, ABC):
    """Base of all momentum rules.

    Attributes:
        scalars: names and first values of its numbers, one per parameter, that are kept in the state as 0-dim tensors.
    """

    scalars: Mapping[str, float] = {}

    @abstractmethod
    def numerator(self, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor:
        """Take `grad` into the slots, in place, and return n in the units of the gradient; n is not overwritten."""

    def numbers(self, hyper: Hyper, *scalars: Any) -> Mapping[str, Any]:
        """Take the step into the scalars, in place, and return what `numerator` will read from `hyper`, by name.

        It runs once for all parameters that share these numbers.
        """
        return {}

    def step_size(self, hyper: Hyper) -> Any:
        """The learning rate of the step, a number; the numerator's bias correction comes on top of it."""
        return hyper.lr


class Gradient(Momentum):
    """n = g."""

    sparse = True

    def numerator(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad


class AnnealedGradient(Momentum):
    """n = g with Adagrad's step size α/(1 + (t−1)·lr_decay), times 1/√t where the paper's `mean` is chosen."""

    hyperparameters = ("lr_decay", "mean")
    sparse = True

    def numerator(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad

    def step_size(self, hyper: Hyper) -> Any:
        step_size = hyper.lr / (1 + (hyper.step - 1) * hyper.lr_decay)
        return step_size / hyper.step**0.5 if hyper.mean else step_size


class ExpAvg(Momentum):
    """n = m/c₁, m = β₁m + (1−β₁)g: Adam's."""

    slots = {"exp_avg": Slot()}
    hyperparameters = ("betas", "bias_correction")
    decay = "beta1"

    def numerator(self, grad: Tensor, hyper: Hyper, exp_avg: Tensor) -> Tensor:
        return average_(exp_avg, grad, hyper.beta1)


class InterpolatedExpAvg(Momentum):
    """n = (β₁m + (1−β₁)g)/(1 − β₁β₂^(t−1)), and then m = β₂m + (1−β₂)g: Lion's; Adam's where β₁ = β₂.

    Chen et al.: Symbolic Discovery of Optimization Algorithms, NeurIPS 2023.
    """

    slots = {"exp_avg": Slot()}
    hyperparameters = ("betas", "bias_correction")

    def numerator(self, grad: Tensor, hyper: Hyper, exp_avg: Tensor) -> Tensor:
        numerator = exp_avg.mul(hyper.beta1).add_(grad.mul(1 - hyper.beta1))
        average_(exp_avg, grad, hyper.beta2)
        if hyper.bias_correction == "none":
            return numerator
        return numerator.div_(1 - hyper.beta1 * hyper.beta2 ** (hyper.step - 1))


class RelativeGradient(Momentum):
    """n = g with the step size min(α, 1/√t): Adafactor's."""

    def numerator(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad

    def step_size(self, hyper: Hyper) -> Any:
        relative = hyper.step**-0.5
        return hyper.when(hyper.lr < relative, hyper.lr, relative)


class NesterovAverage(Momentum):
    """m = μm + (1−μ)g, and n = m, or μm + (1−μ)g again with `nesterov`: Muon's."""

    slots = {"momentum_buffer": Slot()}
    own = {
        "momentum": number(0.95, 0, 1, closed=False, meaning="decay rate μ of the average of the gradient"),
        "nesterov": flag(True, meaning="take the average with the gradient in it twice"),
    }

    def numerator(self, grad: Tensor, hyper: Hyper, momentum_buffer: Tensor) -> Tensor:
        average_(momentum_buffer, grad, hyper.momentum)
        if not hyper.nesterov:
            return momentum_buffer
        return grad.lerp(momentum_buffer, hyper.momentum)


class NesterovExpAvg(Momentum):
    """n = g(1−μₜ)/(1−Πμ) + m·μₜ₊₁/(1−Πμ·μₜ₊₁), μₜ = β₁(1 − 0.96^(t·momentum_decay)/2): NAdam's.

    Dozat: Incorporating Nesterov Momentum into Adam, ICLR workshop 2016.
    """

    slots = {"exp_avg": Slot()}
    scalars = {"mu_product": 1.0}
    hyperparameters = ("betas", "momentum_decay", "bias_correction")

    def numbers(self, hyper: Hyper, mu_product: Tensor) -> Mapping[str, Any]:
        mu = hyper.beta1 * (1 - 0.5 * 0.96 ** (hyper.step * hyper.momentum_decay))
        mu_next = hyper.beta1 * (1 - 0.5 * 0.96 ** ((hyper.step + 1) * hyper.momentum_decay))
        mu_product.mul_(mu)
        if hyper.bias_correction == "none":
            return {"of_grad": 1 - mu, "of_exp_avg": mu_next}
        product = hyper.value(mu_product)
        return {"of_grad": (1 - mu) / (1 - product), "of_exp_avg": mu_next / (1 - product * mu_next)}

    def numerator(self, grad: Tensor, hyper: Hyper, exp_avg: Tensor) -> Tensor:
        average_(exp_avg, grad, hyper.beta1)
        return grad.mul(hyper.of_grad).add_(exp_avg.mul(hyper.of_exp_avg))


class HeavyBall(Transform):
    """b = μb + x: gathers the direction, after the division, as RMSprop does."""

    slots = {"momentum_buffer": Slot()}
    hyperparameters = ("momentum",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors, momentum_buffer: Tensor) -> Tensor:
        return momentum_buffer.mul_(hyper.momentum).add_(x)
