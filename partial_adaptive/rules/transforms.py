"""Stages that change the direction, side by side."""

from torch import Tensor

from partial_adaptive.rules.blocks import FLOORS
from partial_adaptive.rules.hyperparameters import Hyper, number
from partial_adaptive.rules.stage import TENSOR, Tensors, Transform


def rms(x: Tensor) -> Tensor:
    """The root of the mean of the squares, 0-dim; 0 of nothing."""
    # The root first: torch 2.6 divides a sum over the shards of a DTensor by what it has divided an earlier one by.
    return x.square().sum().sqrt().div(max(1, x.shape.numel()) ** 0.5)


class ClipRMS(Transform):
    """x/max(1, RMS(x)/d): no direction is larger than d on average. Adafactor's.

    Shazeer, Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    needs = TENSOR
    own = {"d": number(1.0, 1, meaning="largest RMS of the direction")}
    breaks = ("linear",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        clipped: Tensor = x / (rms(x) / hyper.d).clamp(min=1)
        return clipped


class ParameterScale(Transform):
    """x·max(ε₂, RMS(θ)): steps relative to the size of the parameter. Adafactor's.

    Shazeer, Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    needs = TENSOR
    own = {"eps": FLOORS}
    breaks = ("position",)

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return x * rms(tensors.param).clamp(min=hyper.eps[1])
