"""Padam and its siblings: each picks an estimator, a momentum rule and defaults, and nothing else."""

from typing import final

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.components import Switch
from partial_adaptive.estimators import (
    AmsgradMax,
    CenteredSquareAvg,
    DeltaRatio,
    ExpAvgSq,
    ExpInf,
    SquareAvg,
    SquareMean,
    SquareSum,
)
from partial_adaptive.hyperparameters import BiasCorrection, documented, given
from partial_adaptive.momentum import AnnealedGradient, ExpAvg, Gradient, HeavyBallAfter, NesterovExpAvg
from partial_adaptive.optimizer import PartialAdaptiveOptimizer


@final
@documented
class Padam(PartialAdaptiveOptimizer):
    r"""Padam: Amsgrad with the exponent p; `amsgrad=False` is Adam with it.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²,  v̂ ← max(v̂, v)
        θ ← θ − α · (m/c₁) / (√(v̂/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    At p = 1/2 it is `torch.optim.Adam(amsgrad=True)`, with decoupled decay AdamW; p = 0 is SGD with momentum.

    Example:
        >>> optimizer = Padam([torch.nn.Parameter(torch.ones(3))], lr=0.1, partial=1 / 8)

    Chen, Gu: Padam, Closing the Generalization Gap of Adaptive Gradient Methods.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = True,
        partial: float | Tensor = 1 / 8,
        *,
        bias_correction: BiasCorrection = "consistent",
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            params, given(locals()), estimator=Switch("amsgrad", AmsgradMax(), ExpAvgSq()), momentum=ExpAvg()
        )


@final
@documented
class PartialAdam(PartialAdaptiveOptimizer):
    r"""Adam with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    At p = 1/2 it is `torch.optim.Adam`, with decoupled decay `torch.optim.AdamW`.

    Example:
        >>> optimizer = PartialAdam([torch.nn.Parameter(torch.ones(3))], lr=0.1, partial=1 / 4)

    Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015.
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
        super().__init__(params, given(locals()), estimator=ExpAvgSq(), momentum=ExpAvg())


@final
@documented
class PartialNAdam(PartialAdaptiveOptimizer):
    r"""NAdam with the exponent p.

    ::

        n = g(1−μₜ)/(1−Πμ) + m·μₜ₊₁/(1−Πμ·μₜ₊₁),  μₜ = β₁(1 − 0.96^(t·momentum_decay)/2)
        θ ← θ − α · n / (√(v/c₂) + ε)^(2p),  m and v as in Adam

    At p = 1/2 it is `torch.optim.NAdam`.

    Example:
        >>> optimizer = PartialNAdam([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    Dozat: Incorporating Nesterov Momentum into Adam, ICLR workshop 2016.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        partial: float | Tensor = 1 / 8,
        bias_correction: BiasCorrection = "consistent",
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpAvgSq(), momentum=NesterovExpAvg())


@final
@documented
class PartialRMSprop(PartialAdaptiveOptimizer):
    r"""RMSprop with the exponent p; at p = 1/2 it is `torch.optim.RMSprop`.

    ::

        v ← αᵥv + (1−αᵥ)g²,  s = √v + ε,  or √(v − ḡ²) + ε if centered        (αᵥ = alpha)
        θ ← θ − α · g / s^(2p),  or by the heavy ball b ← μb + g / s^(2p)      (μ = momentum)

    Example:
        >>> optimizer = PartialRMSprop([torch.nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9)

    Tieleman, Hinton: Lecture 6.5, Neural Networks for Machine Learning, COURSERA 2012.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        partial: float | Tensor = 1 / 8,
        decoupled_weight_decay: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            params,
            given(locals()),
            estimator=Switch("centered", CenteredSquareAvg(), SquareAvg()),
            momentum=Switch("momentum", HeavyBallAfter(), Gradient()),
        )


@final
@documented
class PartialAdagrad(PartialAdaptiveOptimizer):
    r"""Adagrad with the exponent p.

    ::

        S ← S + g²
        θ ← θ − αₜ · g / (√S + ε)^(2p),  αₜ = α/(1 + (t−1)·lr_decay)

    With `mean=True` as the Padam paper writes it: S/t in the place of S, and αₜ/√t. Takes sparse gradients.
    At p = 1/2 it is `torch.optim.Adagrad`.

    Example:
        >>> optimizer = PartialAdagrad([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    Duchi, Hazan, Singer: Adaptive Subgradient Methods, JMLR 2011.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        partial: float | Tensor = 1 / 8,
        mean: bool = False,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            params, given(locals()), estimator=Switch("mean", SquareMean(), SquareSum()), momentum=AnnealedGradient()
        )


@final
@documented
class PartialAdaMax(PartialAdaptiveOptimizer):
    r"""AdaMax with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  u ← max(β₂u, |g| + ε)
        θ ← θ − α · (m/c₁) / u^(2p),  c₁ = 1 − β₁ᵗ

    u is not biased, so `consistent` and `adam` are one here. At p = 1/2 it is `torch.optim.Adamax`.

    Example:
        >>> optimizer = PartialAdaMax([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015, section 7.1.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        partial: float | Tensor = 1 / 8,
        bias_correction: BiasCorrection = "consistent",
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpInf(), momentum=ExpAvg())


@final
@documented
class PartialAdadelta(PartialAdaptiveOptimizer):
    r"""Adadelta with the exponent p.

    ::

        v ← ρv + (1−ρ)g²,  s = √((v + ε)/(d + ε)),  δ = g / s^(2p),  d ← ρd + (1−ρ)δ²
        θ ← θ − α · δ

    At p = 1/2 it is `torch.optim.Adadelta`.

    Example:
        >>> optimizer = PartialAdadelta([torch.nn.Parameter(torch.ones(3))], lr=0.1)

    Zeiler: ADADELTA: An Adaptive Learning Rate Method, 2012.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        partial: float | Tensor = 1 / 8,
        decoupled_weight_decay: bool = False,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, given(locals()), estimator=DeltaRatio(), momentum=Gradient())
