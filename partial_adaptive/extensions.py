"""Members written through the extension interface alone, as a user would write them."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.components import average_square_
from partial_adaptive.estimators import Estimator
from partial_adaptive.hyperparameters import BiasCorrection, Hyper, documented, given
from partial_adaptive.momentum import ExpAvg
from partial_adaptive.optimizer import PartialAdaptiveOptimizer


class ExpAvgVar(Estimator):
    """s = √(v/c₂) + ε, v = β₂v + (1−β₂)(g−m)² + ε: AdaBelief's, the variance around the expected gradient."""

    buffers = ("exp_avg_var",)
    reads = ("exp_avg",)
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_var: Tensor, exp_avg: Tensor) -> Tensor:
        average_square_(exp_avg_var, grad.sub(exp_avg), hyper.beta2).add_(hyper.eps)
        return exp_avg_var.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)


class YogiSq(Estimator):
    """s = √(v/c₂) + ε, v = v − (1−β₂)·sign(v − g²)·g²: Yogi's, which moves v by no more than the gradient's size."""

    buffers = ("exp_avg_sq",)
    hyperparameters = ("betas", "eps", "bias_correction", "initial_accumulator_value")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        square = grad.mul(grad)
        exp_avg_sq.sub_(exp_avg_sq.sub(square).sign_().mul_(square).mul_(1 - hyper.beta2))
        return exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)

    def initial(self, buffer: str, group: Mapping[str, Any]) -> float:
        return float(group["initial_accumulator_value"])


@final
@documented
class PartialAdaBelief(PartialAdaptiveOptimizer):
    r"""AdaBelief with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)(g−m)² + ε
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    Example:
        >>> optimizer = PartialAdaBelief([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    Zhuang et al.: AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients, NeurIPS 2020.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        partial: float | Tensor = 1 / 8,
        bias_correction: BiasCorrection = "consistent",
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpAvgVar(), momentum=ExpAvg())


@final
@documented
class PartialYogi(PartialAdaptiveOptimizer):
    r"""Yogi with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  v ← v − (1−β₂)·sign(v − g²)·g²
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    Example:
        >>> optimizer = PartialYogi([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    Zaheer et al.: Adaptive Methods for Nonconvex Optimization, NeurIPS 2018.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 1e-6,
        *,
        partial: float | Tensor = 1 / 8,
        bias_correction: BiasCorrection = "consistent",
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, given(locals()), estimator=YogiSq(), momentum=ExpAvg())
