"""The members whose second moment is a Kronecker product."""

from typing import Unpack, final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import BiasCorrection, StateDtype, given
from partial_adaptive.rules.kronecker import KroneckerSum, RotatedExpAvgSq
from partial_adaptive.rules.numerators import ExpAvg, NesterovAverage
from partial_adaptive.rules.options import Options


@final
class PartialShampoo(PartialAdaptiveOptimizer, member="partial_shampoo"):
    r"""Shampoo with the exponent p: the momentum times L^(−p/2) and R^(−p/2).

    ::

        L ← L + ggᵀ,  R ← R + gᵀg,  or averages with shampoo_beta, divided by 1 − βᵗ
        n ← μn + (1−μ)g,  L = Q_L diag(w_L) Q_Lᵀ,  R = Q_R diag(w_R) Q_Rᵀ
        θ ← θ − α · Q_L ((Q_Lᵀ n Q_R) / s^(2p)) Q_Rᵀ,  s = (w_L × w_R)^(1/4) + ε

    At p = 1/2 it is Shampoo, L^(−1/4) n R^(−1/4); p = 0 is SGD with momentum. A tensor of more than two dimensions is a
    matrix of its rows x[i]. p may move at every step, whenever the eigenvectors were computed last. What the published
    method calls ε, by which L and R start as εI, is `initial_accumulator_value`; with momentum=0 a step is exactly that
    of Gupta et al. Large p with seldom eigenvectors needs it to be more than 0: steps are large in directions that the
    last ones have not seen.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.1).
        momentum: decay rate μ of the average of the gradient; a number in [0, 1) (default: 0.9).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.0).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        precondition_frequency: steps from one eigendecomposition to the next; until step that many each has one; a
            whole number ≥ 1 (default: 1).
        nesterov: take the average with the gradient in it twice; True or False (default: False).
        shampoo_beta: decay rate of the averages L and R; None: they are sums; a number in [0, 1), or None (default:
            None).
        initial_accumulator_value: what the second-moment state starts with; a finite number ≥ 0 (default: 0.0).
        block_size: largest dimension of a matrix that is not cut into equal blocks with factors of their own; None:
            none is cut; a whole number ≥ 1, or None (default: 1024).
        vectors: what a parameter of less than two dimensions is: refused, or the diagonal of a matrix; 'refuse' or
            'diagonal' (default: 'refuse').
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
        **options: what every member takes, off by default, see `Options`: `normalize_gradient`, `agc`, `clip_rms`,
            `trust_ratio`, `momentum_after`, `nesterov_after`, `cautious`, `peak_lr`, `cautious_weight_decay`,
            `rounding`, `rounding_seed`, `skip_nonfinite`.

    Raises:
        ValueError: where an argument is out of its range, or two modes exclude each other.
        TypeError: where an argument is text that should be a number.

    Example:
        >>> optimizer = PartialShampoo([torch.nn.Parameter(torch.ones(4, 3))], lr=0.1, partial=1 / 4)

    Gupta, Koren, Singer: Shampoo: Preconditioned Stochastic Tensor Optimization, ICML 2018.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        precondition_frequency: int = 1,
        *,
        nesterov: bool = False,
        shampoo_beta: float | None = None,
        initial_accumulator_value: float = 0.0,
        block_size: int | None = 1024,
        vectors: str = "refuse",
        partial: float | Tensor = 1 / 8,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=KroneckerSum(), momentum=NesterovAverage())


@final
class PartialSOAP(PartialAdaptiveOptimizer, member="partial_soap"):
    r"""SOAP with the exponent p: Adam in the bases of Shampoo's eigenvectors.

    ::

        m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)(Q_Lᵀ g Q_R)²,  L ← βL + (1−β)ggᵀ,  R ← βR + (1−β)gᵀg
        θ ← (1−αλ)θ − α · Q_L ((Q_Lᵀ m/c₁ Q_R) / s^(2p)) Q_Rᵀ,  s = √(v/c₂) + ε,  cᵢ = 1 − βᵢᵗ

    At p = 1/2 it is SOAP; p = 0 is SGD with momentum. The bases begin with the eigenvectors of the first gradient and
    take a step of power iteration with L and R every `precondition_frequency` steps, at the end of these as in the
    paper. Unlike the authors' code it does not skip the first step, for which v starts as √(w_L × w_R), w the
    eigenvalues. A tensor of more than two dimensions is a matrix of its rows x[i]. Weight decay is decoupled, as theirs
    is.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.003).
        betas: decay rates of the averages of the gradient and of its square; two numbers in [0, 1) (default: (0.95,
            0.95)).
        shampoo_beta: decay rate of the averages L and R; None or -1: that of the second moment, β₂; a number in [0, 1),
            -1 or None (default: None).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-08).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.01).
        precondition_frequency: steps from one change of the bases to the next; a whole number ≥ 1 (default: 10).
        block_size: largest dimension of a matrix that is not cut into equal blocks with factors of their own; None:
            none is cut; a whole number ≥ 1, or None (default: 1024).
        vectors: what a parameter of less than two dimensions is: refused, or the diagonal of a matrix; 'refuse' or
            'diagonal' (default: 'refuse').
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
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
        **options: what every member takes, off by default, see `Options`: `normalize_gradient`, `agc`, `clip_rms`,
            `trust_ratio`, `momentum_after`, `nesterov_after`, `cautious`, `peak_lr`, `cautious_weight_decay`,
            `rounding`, `rounding_seed`, `skip_nonfinite`.

    Raises:
        ValueError: where an argument is out of its range, or two modes exclude each other.
        TypeError: where an argument is text that should be a number.

    Example:
        >>> optimizer = PartialSOAP([torch.nn.Parameter(torch.ones(4, 3))], lr=0.003, partial=1 / 4)

    Vyas et al.: SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 3e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.95),
        shampoo_beta: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        *,
        block_size: int | None = 1024,
        vectors: str = "refuse",
        partial: float | Tensor = 1 / 8,
        bias_correction: BiasCorrection = "consistent",
        decoupled_weight_decay: bool = True,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        beyond_half: bool = False,
        state_dtype: StateDtype = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, given(locals()), estimator=RotatedExpAvgSq(), momentum=ExpAvg())
