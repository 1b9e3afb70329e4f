"""Curves: how a number goes from its start value, step by step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from partial_adaptive.rules.hyperparameters import number

Curve: TypeAlias = Callable[[float, int], float]  # from the start value and t = 1, 2, …, the value at step t
_RATIO = number(1.0, 0, 1, meaning="the ratio of two values")


@final
@dataclass(frozen=True)
class Geometric:
    """start · ratio^(t−1): the β₁ₜ = β₁λᵗ⁻¹ of the theorem.

    Args:
        ratio: λ, a number in [0, 1].

    Example:
        >>> [Geometric(0.5)(0.8, t) for t in (1, 2, 3)]
        [0.8, 0.4, 0.2]
    """

    ratio: float

    def __post_init__(self) -> None:
        if not _RATIO.accepts(_RATIO.convert(self.ratio)):
            raise ValueError(f"Geometric: ratio must be {_RATIO.allowed}, got {self.ratio!r}")

    def __call__(self, start: float, t: int) -> float:
        return start * float(self.ratio) ** (t - 1)


@final
@dataclass(frozen=True)
class Inverse:
    """start / t: the slower decay of β₁ in the paper's Remark 4.3.

    Example:
        >>> [Inverse()(0.8, t) for t in (1, 2, 4)]
        [0.8, 0.4, 0.2]
    """

    def __call__(self, start: float, t: int) -> float:
        return start / t


@final
@dataclass(frozen=True)
class InverseSqrt:
    """start / √t: the αₜ = α/√t of the theorem.

    Example:
        >>> [InverseSqrt()(0.8, t) for t in (1, 4, 16)]
        [0.8, 0.4, 0.2]
    """

    def __call__(self, start: float, t: int) -> float:
        return start / math.sqrt(t)


@dataclass(frozen=True)
class Passage(ABC):
    """A curve that goes from the start value to another one within some steps, and stays there.

    Args:
        end: the value at the last of these steps and from then on.
        steps: how many there are, the first and the last included; a whole number ≥ 2.

    Raises:
        ValueError: where `end` is not finite or `steps` is not such a number.
    """

    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)
        if not isinstance(self.end, int | float) or not math.isfinite(self.end):
            raise ValueError(f"{type(self).__name__}: end must be a finite number, got {self.end!r}")

    @abstractmethod
    def share(self, progress: float) -> float:
        """How much of the way is done, 0 to 1, when this share of the steps is."""

    def __call__(self, start: float, t: int) -> float:
        share = self.share(_progress(t, self.steps))
        return start * (1 - share) + self.end * share


@final
@dataclass(frozen=True)
class Linear(Passage):
    """In equal steps.

    Example:
        >>> [Linear(0.0, 3)(0.5, t) for t in (1, 2, 3, 4)]
        [0.5, 0.25, 0.0, 0.0]
    """

    def share(self, progress: float) -> float:
        return progress


@final
@dataclass(frozen=True)
class Cosine(Passage):
    """Along half a cosine: slow at both ends.

    Example:
        >>> [round(Cosine(0.0, 5)(1.0, t), 3) for t in (1, 2, 3, 4, 5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def share(self, progress: float) -> float:
        return (1 - math.cos(math.pi * progress)) / 2


@final
@dataclass(frozen=True)
class Logistic(Passage):
    """Along a logistic curve, stretched so that it reaches both ends.

    Args:
        steepness: how much of the way is done in the middle; a finite number > 0.

    Example:
        >>> [round(Logistic(0.0, 5)(1.0, t), 3) for t in (1, 2, 3, 4, 5)]
        [1.0, 0.93, 0.5, 0.07, 0.0]
    """

    steepness: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.steepness, int | float) or not 0 < self.steepness < math.inf:
            raise ValueError(f"Logistic: steepness must be a finite number > 0, got {self.steepness!r}")

    def share(self, progress: float) -> float:
        return (1 + math.tanh(self.steepness * (progress - 0.5) / 2) / math.tanh(self.steepness / 4)) / 2


@final
@dataclass(frozen=True)
class Steps:
    """The start value, and from each of some steps on another value.

    Args:
        values: the new values, by the step t from which they hold; whole numbers ≥ 2.

    Raises:
        ValueError: where a key is not such a number.

    Example:
        >>> [Steps({3: 0.25, 5: 0.0})(0.5, t) for t in (1, 2, 3, 4, 5)]
        [0.5, 0.5, 0.25, 0.25, 0.0]
    """

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        for t in self.values:
            if type(t) is not int or t < 2:
                raise ValueError(f"Steps: values must have whole numbers ≥ 2 as keys, got {t!r}")

    def __call__(self, start: float, t: int) -> float:
        passed = [at for at in self.values if at <= t]
        return self.values[max(passed)] if passed else start


@final
@dataclass(frozen=True)
class LPSGDM:
    """LPSGDM's schedule of p: a cosine in the exponent of the norm in which the step is the steepest.

    A step n/|n|^(2p) is the steepest in the ℓ_q norm with q = (2−2p)/(1−2p). q goes from where p starts to 2, which is
    p = 0, SGD, along half a cosine: from near the sign to SGD, with `PartialSign`.

    Args:
        steps: how many there are, the first and the last included; a whole number ≥ 2.

    Raises:
        ValueError: where `steps` is not such a number, or the start is 1/2, where q is infinite.

    Example:
        >>> [round(LPSGDM(5)(0.45, t), 3) for t in (1, 2, 3, 4, 5)]
        [0.45, 0.442, 0.409, 0.284, 0.0]

    Xu, Yang: Beyond ℓ₂-norm and ℓ∞-norm: A Curvature-Inspired ℓ_p-Norm Scheme for Deep Neural Networks, 2026.
    """

    steps: int

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)

    def __call__(self, start: float, t: int) -> float:
        if not 0 <= start < 0.5:
            raise ValueError(f"LPSGDM: partial must start in [0, 1/2), where the norm is finite, got {start}")
        beyond = 1 / (1 - 2 * start) - 1  # q − 2
        beyond *= (1 + math.cos(math.pi * _progress(t, self.steps))) / 2
        return beyond / (beyond + 1) / 2


@final
@dataclass(frozen=True)
class DynMuon:
    """DynMuon's schedule of p: a logistic fall of the power of the singular values, from the start to beyond Muon.

    p = start + (end − start)/(1 + exp(−(t/steps − center)/width)). The logistic curve is not stretched to its ends: at
    the first step p has already left the start, and at the last it has not quite come to the end. The paper's exponent
    of the singular values is 1 − 2p, so that its 1 → −1/4 is p = 0 → 5/8.

    Args:
        steps: how many there are; a whole number ≥ 2.
        end: what p tends to; a number in [0, 1], above 1/2 with `beyond_half` (default: 0.625).
        center: the share of the steps at which half of the way is done; a finite number (default: 0.04).
        width: the share of the steps in which the way goes from 1/2 to 1/(1 + 1/e); a finite number > 0 (default:
            0.04).

    Raises:
        ValueError: where an argument is not such a number.

    Example:
        >>> [round(DynMuon(100)(0.0, t), 3) for t in (1, 4, 8, 20, 100)]
        [0.201, 0.312, 0.457, 0.614, 0.625]

    Wu, Shah, Silwal, Zhang: DynMuon: A Dynamic Spectral Shaping View of Muon, 2026.
    """

    steps: int
    end: float = 5 / 8
    center: float = 0.04
    width: float = 0.04

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)
        for name, allowed, fits in (
            ("end", "a number in [0, 1]", lambda value: 0 <= value <= 1),
            ("center", "a finite number", math.isfinite),
            ("width", "a finite number > 0", lambda value: 0 < value < math.inf),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
                raise ValueError(f"DynMuon: {name} must be {allowed}, got {value!r}")

    def __call__(self, start: float, t: int) -> float:
        share = (1 + math.tanh((t / self.steps - self.center) / self.width / 2)) / 2  # a logistic that cannot overflow
        return start * (1 - share) + self.end * share


def _progress(t: int, steps: int) -> float:
    return min((t - 1) / (steps - 1), 1.0)


def _check_steps(curve: Any, steps: Any) -> None:
    if type(steps) is not int or steps < 2:
        raise ValueError(f"{type(curve).__name__}: steps must be a whole number ≥ 2, got {steps!r}")
