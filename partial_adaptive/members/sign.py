"""The members whose second moment is made from the numerator, as the sign of the momentum is."""

from typing import Unpack, final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import BiasCorrection, StateDtype, given
from partial_adaptive.rules.numerators import InterpolatedExpAvg
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.projection import Constraint
from partial_adaptive.rules.second_moments import NumeratorSq


@final
class PartialSign(PartialAdaptiveOptimizer, member="partial_sign"):
    r"""Lion with the exponent p: between the sign of the momentum and the momentum itself; with β₁ = β₂ Signum.

    ::

        n = (β₁m + (1−β₁)g)/(1 − β₁β₂^(t−1)),  m ← β₂m + (1−β₂)g
        θ ← θ − α · n / (|n| + ε)^(2p),  which is α · sign(n) · |n|^(1−2p) where ε is 0

    At p = 1/2 it is Lion, and with β₁ = β₂ signSGD with momentum; p = 0 is SGD with momentum. Weight decay is
    decoupled, as Lion's is.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.9,
            0.99)).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 0.0).
        bias_correction: `consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by
            √(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1);
            'consistent', 'adam' or 'none' (default: 'consistent').
        decoupled_weight_decay: decay the parameter itself (as AdamW does), not through the gradient; True or False
            (default: True).
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
        >>> optimizer = PartialSign([torch.nn.Parameter(torch.ones(3))], lr=0.01, partial=1 / 4)

    Chen et al.: Symbolic Discovery of Optimization Algorithms, NeurIPS 2023.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        partial: float | Tensor = 1 / 8,
        eps: float = 0.0,
        bias_correction: BiasCorrection = "consistent",
        decoupled_weight_decay: bool = True,
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
        super().__init__(params, given(locals()), estimator=NumeratorSq(), momentum=InterpolatedExpAvg())
