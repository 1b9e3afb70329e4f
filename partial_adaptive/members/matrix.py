"""The members whose second moment is a matrix."""

from typing import Unpack, final

from torch import Tensor
from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import StateDtype, given
from partial_adaptive.rules.numerators import NesterovAverage
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.spectra import ShapeScale, Spectrum


@final
class PartialMuon(PartialAdaptiveOptimizer, member="partial_muon"):
    r"""Muon with the exponent p: the momentum's singular values to the power 1 − 2p.

    ::

        m ← μm + (1−μ)g,  n = μm + (1−μ)g with nesterov, otherwise m
        n = U S Vᵀ,  θ ← (1−αλ)θ − α · U S/(S+ε)^(2p) Vᵀ · a factor of the shape

    At p = 1/2 it is `torch.optim.Muon` with the exact polar factor UVᵀ in the place of five Newton–Schulz steps; p = 0
    is SGD with momentum. A tensor of more than two dimensions is a matrix of its rows x[i]. Weight decay is decoupled,
    as Muon's is.

    Args:
        params: tensors, (name, tensor) pairs, or dicts that define param groups.
        lr: learning rate α; a finite number ≥ 0 (default: 0.001).
        weight_decay: weight decay λ; a finite number ≥ 0 (default: 0.1).
        momentum: decay rate μ of the average of the gradient; a number in [0, 1) (default: 0.95).
        nesterov: take the average with the gradient in it twice; True or False (default: True).
        eps: ε, added to the scale before the power is taken; a finite number ≥ 0 (default: 1e-07).
        adjust_lr_fn: the factor of the learning rate that depends on the shape; 'original', 'match_rms_adamw',
            'spectral_unclamped' or None, which is 'original' (default: None).
        vectors: what a parameter of less than two dimensions is: refused, or the diagonal of a matrix; 'refuse' or
            'diagonal' (default: 'refuse').
        matrix_power: how the power of a matrix is taken: by eigenvectors, or for a dyadic p by matrix products alone,
            in bfloat16 where that is named; 'eigh', 'newton_schulz' or 'newton_schulz_bfloat16' (default: 'eigh').
        partial: the exponent p: 1/2 is the classical optimizer, 0 is SGD; a number in [0, 1/2], or in [0, 1] with
            beyond_half=True (default: 0.125).
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
        >>> optimizer = PartialMuon([torch.nn.Parameter(torch.ones(4, 3))], lr=0.02, partial=1 / 4)

    Jordan et al.: Muon: An Optimizer for Hidden Layers in Neural Networks, 2024.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        *,
        eps: float = 1e-7,
        adjust_lr_fn: str | None = None,
        vectors: str = "refuse",
        matrix_power: str = "eigh",
        partial: float | Tensor = 1 / 8,
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
        super().__init__(
            params, given(locals()), estimator=Spectrum(), momentum=NesterovAverage(), after=(ShapeScale(),)
        )
