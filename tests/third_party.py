"""Stages as a user would write them: each kind of declaration is in one of them, and all go through the whole suite."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from partial_adaptive import TENSOR, Estimator, Hyper, Slot, Tensors, Transform, flag, number, whole
from partial_adaptive.rules.numerators import ExpAvg, Gradient
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.rules.stage import average_
from partial_adaptive.testing import Make, factory


class MeanAbs(Estimator):
    """s = a/c₂ + ε, a an average of |g|."""

    slots = {"exp_avg_abs": Slot()}
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_abs: Tensor) -> Tensor:
        average_(exp_avg_abs, grad.abs(), hyper.beta2)
        return exp_avg_abs.div(hyper.correction2_sqrt**2).add_(hyper.eps)


class Augmented(Estimator):
    """Adagrad in operators: `+=` changes the state in every mode."""

    slots = {"sum": Slot()}
    sparse = True

    def scale(self, grad: Tensor, hyper: Hyper, sum: Tensor) -> Tensor:
        sum += grad * grad
        scale: Tensor = sum**0.5 + hyper.eps
        return scale


class Choosing(Estimator):
    """Options choose lines, comparisons choose elements, and a whole number stays one."""

    slots = {"exp_avg_sq": Slot(first=1e-4), "largest": Slot()}
    hyperparameters = ("eps",)
    own = {
        "leak": number(0.99, 0, 1, meaning="what is left of the largest after a step"),
        "rounds": whole(2, 1, 8, meaning="how often the average is taken"),
        "slow": flag(False, meaning="whether small gradients count half"),
    }

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor, largest: Tensor) -> Tensor:
        square = grad * grad
        if hyper.slow:
            square = hyper.when(square < 0.1, square * 0.5, square)
        for _ in range(hyper.rounds):
            exp_avg_sq.lerp_(square, 0.2)
        largest *= hyper.leak
        largest.copy_(hyper.when(exp_avg_sq > largest, exp_avg_sq, largest))
        return largest.sqrt().add_(hyper.eps)


class AdamMini(Estimator):
    """s = √(v/c₂) + ε, one v for each row: Adam-mini's. Zhang et al., 2024."""

    needs = TENSOR
    slots = {"exp_avg_sq": Slot(shape=lambda shape: (*shape[:1], *(1 for _ in shape[1:])))}
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        rest = tuple(range(1, grad.ndim))
        square = grad.square()
        average_(exp_avg_sq, square.mean(rest, keepdim=True) if rest else square, hyper.beta2)
        return exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


def _without(last: int) -> Callable[[torch.Size], Sequence[int]]:
    return lambda shape: (
        tuple(1 if i - len(shape) == last else n for i, n in enumerate(shape)) if len(shape) > 1 else shape
    )


class Factored(Estimator):
    """s = √(r·c/mean(r)/c₂) + ε, r and c averages over rows and columns of g²: Adafactor's. Shazeer, Stern, 2018."""

    needs = TENSOR
    slots = {"row_var": Slot(shape=_without(-1)), "col_var": Slot(shape=_without(-2))}
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, row_var: Tensor, col_var: Tensor) -> Tensor:
        square = grad.square()
        if grad.ndim < 2:
            return average_(row_var, square, hyper.beta2).sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)
        average_(row_var, square.mean(-1, keepdim=True), hyper.beta2)
        average_(col_var, square.mean(-2, keepdim=True), hyper.beta2)
        v = row_var * col_var / row_var.mean(-2, keepdim=True).clamp(min=1e-30)
        return v.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class Cautious(Transform):
    """x where it agrees with the gradient, 0 elsewhere. Liang et al., 2024."""

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        agreeing: Tensor = hyper.when(x * tensors.grad > 0, x, x * 0.0)
        return agreeing


class Normalised(Transform):
    """g/(‖g‖ + ε): the norm is that of the parameter."""

    needs = TENSOR
    hyperparameters = ("eps",)
    breaks = ("linear",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return x / x.square().sum().sqrt().add(hyper.eps)


class TrustRatio(Transform):
    """x·‖θ‖/‖x‖: LAMB's. You et al., 2019."""

    needs = TENSOR

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        norms = tensors.param.square().sum().sqrt(), x.square().sum().sqrt()
        ratio: Tensor = hyper.when(norms[0] * norms[1] > 0, norms[0] / norms[1].clamp(min=1e-30), 1.0)
        return x * ratio


class Bfloat16:
    """Keeps a value in bfloat16 and what that loses in another: to about 16 bits."""

    def encode(self, value: Tensor, step: Any = 0) -> dict[str, Tensor]:
        high = value.to(torch.bfloat16)
        return {"": high, "_rest": (value - high.to(value.dtype)).to(torch.bfloat16)}

    def decode(self, parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        return parts[""].to(torch.float32) + parts["_rest"].to(torch.float32)


class Coded(ExpAvgSq):
    """Adam's, its average stored in a code."""

    needs = TENSOR
    slots = {"exp_avg_sq": Slot(codec=Bfloat16())}


OPTIMIZERS: dict[str, Make] = {
    "mean-abs": factory(MeanAbs(), ExpAvg()),
    "augmented": factory(Augmented()),
    "choosing": factory(Choosing(), ExpAvg()),
    "choosing-slow": factory(Choosing(), ExpAvg(), slow=True, rounds=3),
    "adam-mini": factory(AdamMini(), ExpAvg()),
    "factored": factory(Factored(), ExpAvg()),
    "cautious": factory(ExpAvgSq(), ExpAvg(), after=(Cautious(),)),
    "normalised": factory(ExpAvgSq(), Gradient(), before=(Normalised(),)),
}
