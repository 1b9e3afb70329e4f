"""The members that keep less than a value per element."""

from typing import Unpack, final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.blocks import BlockMean, Cover, Factored
from partial_adaptive.rules.hyperparameters import BiasCorrection, StateDtype, given
from partial_adaptive.rules.numerators import ExpAvg, HeavyBall, RelativeGradient
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.projection import Constraint
from partial_adaptive.rules.stage import Switch
from partial_adaptive.rules.transforms import ClipRMS, ParameterScale


@final
class PartialAdamMini(PartialAdaptiveOptimizer, member="partial_adam_mini"):
    r"""Adam-mini with the exponent p: Adam with one second moment for each block, a row, a head or the whole tensor.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)·mean(g²) over the block
        θ ← θ − α · (m/c₁) / (√(v/c₂) + ε)^(2p),  cᵢ = 1 − βᵢᵗ

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.999)).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        blocks: what shares a second moment: each x[i]; as many equal groups of these as there are `heads`; all; 'row',
            'head' or 'tensor' (default: 'row').
        heads: how many groups of rows there are where `blocks` are heads; a whole number ≥ 1 (default: 1).
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
        >>> optimizer = PartialAdamMini([torch.nn.Parameter(torch.ones(4, 3))], lr=0.1, blocks="head", heads=2)

    Zhang et al.: Adam-mini: Use Fewer Learning Rates To Gain More, ICLR 2025.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        blocks: str = "row",
        heads: int = 1,
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
        super().__init__(params, given(locals()), estimator=BlockMean(), momentum=ExpAvg())


@final
class PartialAdafactor(PartialAdaptiveOptimizer, member="partial_adafactor"):
    r"""Adafactor with the exponent p: the second moment of a matrix from its rows and columns.

    ::

        r ← βr + (1−β)·mean of g² over a row,  c likewise over a column,  β = 1 − t^beta2_decay
        x = g / s^(2p),  s² = max(r·c/mean(r), ε₁²)
        θ ← θ − min(α, 1/√t) · max(ε₂, RMS(θ)) · x / max(1, RMS(x)/d)

    At p = 1/2 it is `torch.optim.Adafactor`. Vectors have a second moment for each element.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.01).
        beta2_decay: exponent of t in the weight 1 − β₂ of the newest gradient; a finite number ≤ 0 (default: -0.8).
        eps: least values of the scale (None: the machine epsilon) and of the parameter's size; two finite numbers ≥ 0,
            the first of which may be None (default: (None, 0.001)).
        d: largest RMS of the direction; a finite number ≥ 1 (default: 1.0).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        foreach: update all tensors in a few kernels; None: where torch.optim does; True, False or None (default: None).
        maximize: ascend instead of descend; True or False (default: False).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: True).
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
        >>> optimizer = PartialAdafactor([torch.nn.Parameter(torch.ones(4, 3))], lr=0.01)

    Shazeer, Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        partial: float | Tensor = 1 / 8,
        decoupled_weight_decay: bool = True,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        constraint: Constraint | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            given(locals()),
            estimator=Factored(),
            momentum=RelativeGradient(),
            after=(ClipRMS(), ParameterScale()),
        )


@final
class PartialSM3(PartialAdaptiveOptimizer, member="partial_sm3"):
    r"""SM3 with the exponent p: the second moment of a matrix from the largest of its rows and columns.

    ::

        v = min(r, c) + g²,  and then r and c the maxima of v over a row and a column
        θ ← θ − α · g / (√v + ε)^(2p),  or by the heavy ball b ← μb + g / s^(2p)      (μ = momentum)

    At p = 1/2 it is SM3-II; of vectors it is Adagrad.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        momentum: factor of the heavy ball, applied after the division; a finite number ≥ 0 (default: 0.0).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
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
        >>> optimizer = PartialSM3([torch.nn.Parameter(torch.ones(4, 3))], lr=0.1)

    Anil, Gupta, Koren, Singer: Memory-Efficient Adaptive Optimization, NeurIPS 2019.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        momentum: float = 0.0,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        partial: float | Tensor = 1 / 8,
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
        super().__init__(params, given(locals()), estimator=Cover(), after=(Switch("momentum", HeavyBall(), None),))
