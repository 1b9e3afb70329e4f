"""The options that every optimizer of the family has, whatever its second moment; all are off by default."""

from collections.abc import Mapping
from typing import TypedDict

from partial_adaptive.rules.hyperparameters import Hyperparameter, RoundingMode
from partial_adaptive.rules.stage import Selectable, Switch, Transform
from partial_adaptive.rules.transforms import (
    AdaptiveClip,
    Cautious,
    LimitRMS,
    MomentumAfter,
    NormalizedGradient,
    TrustRatio,
)

BEFORE: tuple[Selectable[Transform], ...] = (
    Switch("normalize_gradient", NormalizedGradient(), None),
    Switch("agc", AdaptiveClip(), None),
)
AFTER: tuple[Selectable[Transform], ...] = (
    Switch("clip_rms", LimitRMS(), None),
    Switch("trust_ratio", TrustRatio(), None),
    Switch("momentum_after", MomentumAfter(), None),
    Switch("cautious", Cautious(), None),
)
OWN: Mapping[str, Hyperparameter] = {
    name: entry
    for part in (*BEFORE, *AFTER)
    for stage in part.alternatives
    if stage is not None
    for name, entry in stage.own.items()
}


class Options(TypedDict, total=False):
    """What every member takes by keyword besides its own arguments, and every param group by its entries.

    All are off by default and go with any second moment::

        g ← g/‖g‖                                normalize_gradient
        gᵢ ← gᵢ·min(1, λ·max(‖θᵢ‖, 10⁻³)/‖gᵢ‖)   agc = λ, row by row
        x ← P^(−p) n
        x ← x/max(1, RMS(x)/d)                   clip_rms = d
        x ← η(x + λθ)·‖θ‖/‖x + λθ‖               trust_ratio = η, with decoupled decay in it
        b ← μb + x, x ← b                        momentum_after = μ; x + μb with nesterov_after
        x ← x·m/max(mean(m), 10⁻³)               cautious, m = 1 where x·g > 0 and 0 elsewhere
        θ ← (1 − αλ)θ                            decoupled decay; αλ·α/α* with peak_lr = α*, and with
                                                 cautious_weight_decay only where x·θ > 0

    Those that look at a whole tensor (a norm, a mean) exclude `fused`: `normalize_gradient`, `agc`, `clip_rms`,
    `trust_ratio` and `cautious`. In `agc` ‖θᵢ‖ counts as at least 10⁻³, and so does mean(m) in `cautious`. LARS as
    published has ‖g‖ + λ‖θ‖ below the line, here it is ‖g + λθ‖.

    Args:
        normalize_gradient: divide each tensor's gradient by its norm, before momentum; True or False (default: False).
        agc: largest norm of a row's gradient, relative to that of the row's weights, as in adaptive gradient clipping
            (Brock et al., 2021); 0 and None: no limit; a finite number ≥ 0, or None (default: None).
        clip_rms: largest RMS of a tensor's direction, as in Adafactor; 0 and None: no limit; a finite number ≥ 0, or
            None (default: None).
        trust_ratio: factor η of ‖θ‖/‖x‖, by which the direction is multiplied: 1 is LAMB's, and 0.001 with a gradient
            (p = 0) and `momentum_after` LARS's; 0 and None: it is not; a finite number ≥ 0, or None (default: None).
        momentum_after: factor μ of the momentum of the direction; a number in [0, 1) (default: 0.0).
        nesterov_after: take the direction and μ times its momentum; True or False (default: False).
        cautious: leave out what would move against the gradient, and enlarge the rest (Liang et al., 2024); True or
            False (default: False).
        peak_lr: largest learning rate α* of a schedule: decoupled decay is αλ·α/α*, in proportion to what gradients do
            at the end of a schedule (Defazio, 2025); a finite number > 0, or None (default: None).
        cautious_weight_decay: decoupled decay only of the elements that the step moves towards 0 (Chen et al., 2025);
            True or False (default: False).
        rounding: how parameters in bfloat16 and float16 are rounded: to the nearest, at random without bias, or with
            what is lost kept in the state; 'nearest', 'stochastic' or 'kahan' (default: 'nearest').
        rounding_seed: the seed of stochastic rounding; a whole number in [0, 4294967295] (default: 0).
        skip_nonfinite: skip the whole step, of all param groups, where a gradient of this one is NaN or infinite; True
            or False (default: False).

    Example:
        >>> import torch
        >>> from partial_adaptive import PartialAdam
        >>> lamb = PartialAdam([torch.ones(2)], lr=0.01, partial=1 / 2, decoupled_weight_decay=True, trust_ratio=1.0)
    """

    normalize_gradient: bool
    agc: float | None
    clip_rms: float | None
    trust_ratio: float | None
    momentum_after: float
    nesterov_after: bool
    cautious: bool
    peak_lr: float | None
    cautious_weight_decay: bool
    rounding: RoundingMode
    rounding_seed: int
    skip_nonfinite: bool
