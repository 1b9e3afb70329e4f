"""The members whose numerator is the gradient itself, as Adagrad has it."""

from typing import Unpack, final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import StateDtype, given
from partial_adaptive.rules.numerators import AnnealedGradient, Gradient, HeavyBall
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.projection import Constraint
from partial_adaptive.rules.second_moments import CenteredSquareAvg, DeltaRatio, SquareAvg, SquareMean, SquareSum
from partial_adaptive.rules.stage import Switch


@final
class PartialAdagrad(PartialAdaptiveOptimizer, member="partial_adagrad"):
    r"""Adagrad with the exponent p.

    ::

        S ← S + g²
        θ ← θ − αₜ · g / (√S + ε)^(2p),  αₜ = α/(1 + (t−1)·lr_decay)

    With `mean=True` as the Padam paper writes it: S/t in the place of S, and αₜ/√t. Takes sparse gradients.
    At p = 1/2 it is `torch.optim.Adagrad`.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        lr_decay: step t has the learning rate α/(1 + (t−1)·lr_decay); a finite number ≥ 0 (default: 0.0).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        initial_accumulator_value: what the second-moment state starts with; a finite number ≥ 0 (default: 0.0).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-10).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        mean: the paper's Adagrad: the mean of the squares with α/√t, where torch sums with α; True or False (default:
            False).
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        maximize: ascend instead of descend; True or False (default: False).
        capturable: never wait for a value on the device (CUDA graphs); True or False (default: False).
        differentiable: let autograd run through `step`; True or False (default: False).
        fused: update all tensors in one kernel, compiled from the rule at the first step; True, False or None (default:
            None).
        beyond_half: allow p up to 1, where the theory says nothing; True or False (default: False).
        state_dtype: how the state is stored; None: in the parameter's dtype, and in float32 for parameters in 16 bits;
            a floating-point torch.dtype, '8bit', None, or a dict of these by slot, '*' for all others (default: None).
        constraint: feasible set, onto which every step is projected in the metric s^(2p); None, a Constraint or its
            description; it must be a frozen dataclass of plain values, tensors and other sets (default: None).
        **options: what every member takes, off by default, see `Options`: `normalize_gradient`, `agc`, `clip_rms`,
            `trust_ratio`, `momentum_after`, `nesterov_after`, `cautious`, `peak_lr`, `cautious_weight_decay`,
            `rounding`, `rounding_seed`, `skip_nonfinite`.

    Raises:
        ValueError: where an argument is out of its range, or two modes exclude each other.
        TypeError: where an argument is text that should be a number.

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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params, given(locals()), estimator=Switch("mean", SquareMean(), SquareSum()), momentum=AnnealedGradient()
        )


@final
class PartialRMSprop(PartialAdaptiveOptimizer, member="partial_rmsprop"):
    r"""RMSprop with the exponent p; at p = 1/2 it is `torch.optim.RMSprop`.

    ::

        v ← αᵥv + (1−αᵥ)g²,  s = √v + ε,  or √(v − ḡ²) + ε if centered        (αᵥ = alpha)
        θ ← θ − α · g / s^(2p),  or by the heavy ball b ← μb + g / s^(2p)      (μ = momentum)

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        alpha: decay rate of the average of squared gradients; a number in [0, 1] (default: 0.99).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        momentum: factor of the heavy ball, applied after the division; a finite number ≥ 0 (default: 0.0).
        centered: subtract the squared average gradient; True or False (default: False).
        capturable: never wait for a value on the device (CUDA graphs); True or False (default: False).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
        maximize: ascend instead of descend; True or False (default: False).
        differentiable: let autograd run through `step`; True or False (default: False).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        fused: update all tensors in one kernel, compiled from the rule at the first step; True, False or None (default:
            None).
        beyond_half: allow p up to 1, where the theory says nothing; True or False (default: False).
        state_dtype: how the state is stored; None: in the parameter's dtype, and in float32 for parameters in 16 bits;
            a floating-point torch.dtype, '8bit', None, or a dict of these by slot, '*' for all others (default: None).
        constraint: feasible set, onto which every step is projected in the metric s^(2p); None, a Constraint or its
            description; it must be a frozen dataclass of plain values, tensors and other sets (default: None).
        **options: what every member takes, off by default, see `Options`: `normalize_gradient`, `agc`, `clip_rms`,
            `trust_ratio`, `momentum_after`, `nesterov_after`, `cautious`, `peak_lr`, `cautious_weight_decay`,
            `rounding`, `rounding_seed`, `skip_nonfinite`.

    Raises:
        ValueError: where an argument is out of its range, or two modes exclude each other.
        TypeError: where an argument is text that should be a number.

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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            given(locals()),
            estimator=Switch("centered", CenteredSquareAvg(), SquareAvg()),
            momentum=Gradient(),
            after=(Switch("momentum", HeavyBall(), None),),
        )


@final
class PartialAdadelta(PartialAdaptiveOptimizer, member="partial_adadelta"):
    r"""Adadelta with the exponent p.

    ::

        v ← ρv + (1−ρ)g²,  s = √((v + ε)/(d + ε)),  δ = g / s^(2p),  d ← ρd + (1−ρ)δ²
        θ ← θ − α · δ

    At p = 1/2 it is `torch.optim.Adadelta`.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        rho: decay rate of the averages of squares; a number in [0, 1] (default: 0.9).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-06).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        capturable: never wait for a value on the device (CUDA graphs); True or False (default: False).
        maximize: ascend instead of descend; True or False (default: False).
        differentiable: let autograd run through `step`; True or False (default: False).
        fused: update all tensors in one kernel, compiled from the rule at the first step; True, False or None (default:
            None).
        beyond_half: allow p up to 1, where the theory says nothing; True or False (default: False).
        state_dtype: how the state is stored; None: in the parameter's dtype, and in float32 for parameters in 16 bits;
            a floating-point torch.dtype, '8bit', None, or a dict of these by slot, '*' for all others (default: None).
        constraint: feasible set, onto which every step is projected in the metric s^(2p); None, a Constraint or its
            description; it must be a frozen dataclass of plain values, tensors and other sets (default: None).
        **options: what every member takes, off by default, see `Options`: `normalize_gradient`, `agc`, `clip_rms`,
            `trust_ratio`, `momentum_after`, `nesterov_after`, `cautious`, `peak_lr`, `cautious_weight_decay`,
            `rounding`, `rounding_seed`, `skip_nonfinite`.

    Raises:
        ValueError: where an argument is out of its range, or two modes exclude each other.
        TypeError: where an argument is text that should be a number.

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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=DeltaRatio(), momentum=Gradient())
