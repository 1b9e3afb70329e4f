"""Stages that change the gradient before momentum, or the direction after the division, side by side."""

from typing import Any

import torch
from torch import Tensor

from partial_adaptive.rules.blocks import FLOORS
from partial_adaptive.rules.hyperparameters import Hyper, flag, number, optional
from partial_adaptive.rules.stage import TENSOR, Slot, Tensors, Transform


def rms(x: Tensor) -> Tensor:
    """The root of the mean of the squares, 0-dim; 0 of nothing."""
    # The root first: torch 2.6 divides a sum over the shards of a DTensor by what it has divided an earlier one by.
    return x.square().sum().sqrt().div(max(1, x.shape.numel()) ** 0.5)


def clipped(x: Tensor, limit: Any) -> Tensor:
    """x, or x made smaller so that its RMS is the limit."""
    result: Tensor = x / (rms(x) / limit).clamp(min=1)
    return result


def norm(x: Tensor, dims: tuple[int, ...] = ()) -> Tensor:
    """The Euclidean norm over some dimensions, which stay as 1; over all, 0-dim, where there are none."""
    # √0 has no derivative.
    squares = x.square().sum(dims, keepdim=True) if dims else x.square().sum()
    return squares.clamp(min=torch.finfo(x.dtype).tiny).sqrt()


def decayed(x: Tensor, param: Tensor, hyper: Hyper) -> Any:
    """What decoupled decay adds to a direction x: λθ, with `cautious_weight_decay` only where the step has its sign."""
    decay = param.mul(hyper.effective_decay)
    return hyper.when(x.sign() * param > 0, decay, 0.0) if hyper.cautious_weight_decay else decay


# -- of the gradient


class NormalizedGradient(Transform):
    """x/‖x‖: the direction of the gradient alone."""

    needs = TENSOR
    batched = True
    own = {"normalize_gradient": flag(False, meaning="divide each tensor's gradient by its norm, before momentum")}
    breaks = ("linear",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return x / norm(x)


class AdaptiveClip(Transform):
    """xᵢ·min(1, λ·max(‖θᵢ‖, 10⁻³)/‖xᵢ‖) for each row i, or the whole of a vector: no gradient outgrows its weights.

    Brock, De, Smith, Simonyan: High-Performance Large-Scale Image Recognition Without Normalization, ICML 2021.
    """

    needs = TENSOR
    batched = True
    own = {
        "agc": optional(
            number(
                None,
                meaning="largest norm of a row's gradient, relative to that of the row's weights, as in adaptive "
                "gradient clipping (Brock et al., 2021); 0 and None: no limit",
            )
        )
    }
    breaks = ("linear", "units", "position")

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        dims = tuple(range(1, x.ndim))
        largest = norm(tensors.param, dims).clamp(min=1e-3) * hyper.agc
        result: Tensor = x * (largest / norm(x, dims)).clamp(max=1)
        return result


# -- of the direction


class ClipRMS(Transform):
    """x/max(1, RMS(x)/d): no direction is larger than d on average. Adafactor's.

    Shazeer, Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    needs = TENSOR
    batched = True
    own = {"d": number(1.0, 1, meaning="largest RMS of the direction")}
    breaks = ("linear",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return clipped(x, hyper.d)


class LimitRMS(Transform):
    """x/max(1, RMS(x)/d), d = `clip_rms`: as `ClipRMS`, for any optimizer."""

    needs = TENSOR
    batched = True
    own = {
        "clip_rms": optional(
            number(None, meaning="largest RMS of a tensor's direction, as in Adafactor; 0 and None: no limit")
        )
    }
    breaks = ("linear", "units")

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return clipped(x, hyper.clip_rms)


class ParameterScale(Transform):
    """x·max(ε₂, RMS(θ)): steps relative to the size of the parameter. Adafactor's.

    Shazeer, Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    needs = TENSOR
    batched = True
    own = {"eps": FLOORS}
    breaks = ("position",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return x * rms(tensors.param).clamp(min=hyper.eps[1])


class TrustRatio(Transform):
    """η·(x + λθ)·‖θ‖/‖x + λθ‖, or η·(x + λθ) where a norm is 0: LAMB's at η = 1, and LARS's of a gradient.

    You et al.: Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, ICLR 2020.
    """

    needs = TENSOR
    batched = True
    own = {
        "trust_ratio": optional(
            number(
                None,
                meaning="factor η of ‖θ‖/‖x‖, by which the direction is multiplied: 1 is LAMB's, and 0.001 with a "
                "gradient (p = 0) and `momentum_after` LARS's; 0 and None: it is not",
            )
        )
    }
    breaks = ("linear", "position")
    decays = True

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        if hyper.has_decay and hyper.decoupled_weight_decay:
            x = x + decayed(x, tensors.param, hyper)
        size, length = norm(tensors.param), norm(x)
        smallest = torch.finfo(x.dtype).tiny ** 0.5
        ratio = hyper.when(size > smallest, hyper.when(length > smallest, size / length, 1.0), 1.0)
        result: Tensor = x * (ratio * hyper.trust_ratio)
        return result


class MomentumAfter(Transform):
    """b = μb + x, or x + μb with `nesterov_after`: gathers the direction after the division.

    Polyak: Some Methods of Speeding up the Convergence of Iteration Methods, 1964.
    """

    slots = {"direction_buffer": Slot()}
    own = {
        "momentum_after": number(0.0, 0, 1, closed=False, meaning="factor μ of the momentum of the direction"),
        "nesterov_after": flag(False, meaning="take the direction and μ times its momentum"),
    }

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors, direction_buffer: Tensor) -> Tensor:
        direction_buffer.mul_(hyper.momentum_after).add_(x)
        return x.add(direction_buffer.mul(hyper.momentum_after)) if hyper.nesterov_after else direction_buffer


class Cautious(Transform):
    """x·m/max(mean(m), 10⁻³), m = 1 where x·g > 0 and 0 elsewhere: no element moves against its gradient.

    Liang, Chen, Liu, Liu: Cautious Optimizers: Improving Training with One Line of Code, 2024.
    """

    needs = TENSOR
    batched = True
    own = {
        "cautious": flag(
            False, meaning="leave out what would move against the gradient, and enlarge the rest (Liang et al., 2024)"
        )
    }
    breaks = ("linear",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        mask = hyper.when(x.sign() * tensors.grad > 0, torch.ones_like(x), 0.0)
        result: Tensor = x * mask / (mask.sum() / max(1, x.shape.numel())).clamp(min=1e-3)
        return result
