"""The members that average the gradient, as Adam does."""

from typing import Unpack, final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import BiasCorrection, StateDtype, given
from partial_adaptive.rules.numerators import ExpAvg, NesterovExpAvg
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.projection import Constraint
from partial_adaptive.rules.second_moments import AmsgradMax, ExpAvgSq, ExpAvgVar, ExpInf, YogiSq
from partial_adaptive.rules.stage import Switch


@final
class Padam(PartialAdaptiveOptimizer, member="padam"):
    r"""Padam: Amsgrad with the exponent p; `amsgrad=False` is Adam with it.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²,  v̂ ← max(v̂, v)
        θ ← θ − α · (m/c₁) / (√(v̂/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    At p = 1/2 it is `torch.optim.Adam(amsgrad=True)`, with decoupled decay AdamW; p = 0 is SGD with momentum.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        amsgrad: keep the running maximum of the second moment; True or False (default: True).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params, given(locals()), estimator=Switch("amsgrad", AmsgradMax(), ExpAvgSq()), momentum=ExpAvg()
        )


@final
class PartialAdam(PartialAdaptiveOptimizer, member="partial_adam"):
    r"""Adam with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    At p = 1/2 it is `torch.optim.Adam`, with decoupled decay `torch.optim.AdamW`.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpAvgSq(), momentum=ExpAvg())


@final
class PartialNAdam(PartialAdaptiveOptimizer, member="partial_nadam"):
    r"""NAdam with the exponent p.

    ::

        n = g(1−μₜ)/(1−Πμ) + m·μₜ₊₁/(1−Πμ·μₜ₊₁),  μₜ = β₁(1 − 0.96^(t·momentum_decay)/2)
        θ ← θ − α · n / (√(v/c₂) + ε)^(2p),  m and v as in Adam

    At p = 1/2 it is `torch.optim.NAdam`.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        momentum_decay: decay of NAdam's momentum schedule; a finite number ≥ 0 (default: 0.004).
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpAvgSq(), momentum=NesterovExpAvg())


@final
class PartialAdaMax(PartialAdaptiveOptimizer, member="partial_adamax"):
    r"""AdaMax with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  u ← max(β₂u, |g| + ε)
        θ ← θ − α · (m/c₁) / u^(2p),  c₁ = 1 − β₁ᵗ

    u is not biased, so `consistent` and `adam` are one here. At p = 1/2 it is `torch.optim.Adamax`.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpInf(), momentum=ExpAvg())


@final
class PartialAdaBelief(PartialAdaptiveOptimizer, member="partial_adabelief"):
    r"""AdaBelief with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)(g−m)² + ε
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=ExpAvgVar(), momentum=ExpAvg())


@final
class PartialYogi(PartialAdaptiveOptimizer, member="partial_yogi"):
    r"""Yogi with the exponent p.

    ::

        m ← β₁m + (1−β₁)g,  v ← v − (1−β₂)·sign(v − g²)·g²
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 0.001).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        initial_accumulator_value: what the second-moment state starts with; a finite number ≥ 0 (default: 1e-06).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: False).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
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
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=YogiSq(), momentum=ExpAvg())
