"""The second moments of matrices: P is a matrix of its own, and its power that of its eigenvalues."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from partial_adaptive.rules.decompositions import eigh
from partial_adaptive.rules.hyperparameters import Hyper, Hyperparameter, choice
from partial_adaptive.rules.matrix_power import divided_by_products, finite, widened
from partial_adaptive.rules.power import LONGEST_LADDER, divisor_above_zero, is_dyadic
from partial_adaptive.rules.second_moments import SecondMoment
from partial_adaptive.rules.stage import TENSOR, Tensors, Transform

VECTORS = choice(
    "refuse",
    "refuse",
    "diagonal",
    meaning="what a parameter of less than two dimensions is: refused, or the diagonal of a matrix",
)
EIGH, PRODUCTS, BFLOAT16 = "eigh", "newton_schulz", "newton_schulz_bfloat16"
MATRIX_POWER = choice(
    EIGH,
    EIGH,
    PRODUCTS,
    BFLOAT16,
    meaning="how the power of a matrix is taken: by eigenvectors, or for a dyadic p by matrix products alone, in "
    "bfloat16 where that is named",
)


def no_matrix(shape: torch.Size, vectors: str) -> str | None:
    """Why a parameter is refused that is no matrix, as `Stage.refuses` says it; None where it is taken."""
    if len(shape) < 2 and vectors == "refuse":
        return f"it takes matrices, got the shape {tuple(shape)}; vectors='diagonal' takes others too"
    return None


@final
@dataclass(frozen=True)
class Spectrum(SecondMoment):
    """P = nnᵀ or nᵀn, whichever is smaller, so that P^(−p) n = U S^(1−2p) Vᵀ: Muon's at p = 1/2.

    n is a matrix of rows x[i]. By eigenvectors ε is added to the singular values S before the power is taken; products
    give S^(1−2p) without.

    Jordan et al.: Muon: An Optimizer for Hidden Layers in Neural Networks, 2024.
    """

    vectors: str = "refuse"
    matrix_power: str = EIGH

    needs = TENSOR
    batched = True
    hyperparameters = ("eps",)
    own = {"vectors": VECTORS, "matrix_power": MATRIX_POWER}

    def select(self, group: Mapping[str, Any]) -> "Spectrum":
        way = group["matrix_power"]
        if way != EIGH:
            _check_exponent(way, group)
        return Spectrum(group["vectors"], way)

    def refuses(self, shape: torch.Size) -> str | None:
        return no_matrix(shape, self.vectors)

    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper) -> Tensor:
        if numerator.ndim < 2:  # of a diagonal matrix the singular values are the sizes of its elements
            return numerator / self._power(numerator.abs(), hyper)
        if not numerator.shape.numel():
            return numerator.clone()
        matrix = numerator.reshape(numerator.shape[0], -1)
        tall = matrix.shape[0] > matrix.shape[1]
        wide = matrix.mT if tall else matrix
        divided = self._by_eigh(wide, hyper) if self.matrix_power == EIGH else self._by_products(wide, hyper)
        result: Tensor = (divided.mT if tall else divided).reshape(numerator.shape).to(numerator.dtype)
        return result

    def _by_eigh(self, matrix: Tensor, hyper: Hyper) -> Tensor:
        # A Gram matrix has the square of the condition number: in float32 small singular values would be lost in it.
        wide = widened(matrix)
        _, basis = eigh(finite(wide @ wide.mT))
        rows = basis.mT @ wide  # with which NaN comes back
        # Their norms are the singular values, to more digits than the roots of the eigenvalues.
        result: Tensor = basis @ (rows / self._power(rows.square().sum(1, keepdim=True).sqrt(), hyper))
        return result

    def _by_products(self, matrix: Tensor, hyper: Hyper) -> Tensor:
        dtype = torch.bfloat16 if self.matrix_power == BFLOAT16 else None
        divided = divided_by_products(matrix, hyper.partial, dtype)
        unbiased = isinstance(hyper.correction1, float) and hyper.correction1 == 1.0
        return divided if unbiased else divided * hyper.correction1 ** (2 * hyper.partial)

    @staticmethod
    def _power(sizes: Tensor, hyper: Hyper) -> Tensor:
        return divisor_above_zero(sizes / hyper.correction1, hyper)


def _check_exponent(way: str, group: Mapping[str, Any]) -> None:
    """Raise ValueError where products cannot take the power of a param group, or nobody may look what it is."""
    partial = group["partial"]
    if isinstance(partial, Tensor) and (group["capturable"] or group["differentiable"]):
        raise ValueError(
            f"matrix_power={way!r} takes partial as a number, whose binary digits say which products to take; got a "
            "tensor whose value must not be fetched; use matrix_power='eigh'"
        )
    if not is_dyadic(2 * float(partial)):
        raise ValueError(
            f"matrix_power={way!r} takes a partial of which 2·partial has at most {LONGEST_LADDER} binary digits, such "
            f"as 1/8 or 3/16, got {float(partial)}; use matrix_power='eigh'"
        )


_ADJUSTMENTS = ("original", "match_rms_adamw", "spectral_unclamped")


class ShapeScale(Transform):
    """x times a factor that depends on the shape of a matrix: Muon's.

    For a matrix of A rows of B elements `original` (None too) is √max(1, A/B), `match_rms_adamw` 0.2·√max(A, B) and
    `spectral_unclamped` √(A/B).
    """

    needs = TENSOR
    batched = True
    own = {
        "adjust_lr_fn": Hyperparameter(
            "the factor of the learning rate that depends on the shape",
            "'original', 'match_rms_adamw', 'spectral_unclamped' or None, which is 'original'",
            lambda value: value is None or value in _ADJUSTMENTS,
            None,
        )
    }

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        if x.ndim < 2:
            return x
        rows = x.shape[0]
        ratio = rows / max(1, x.shape[1:].numel())
        match hyper.adjust_lr_fn:
            case "match_rms_adamw":
                factor = 0.2 * max(rows, x.shape[1:].numel()) ** 0.5
            case "spectral_unclamped":
                factor = ratio**0.5
            case _:
                factor = max(1.0, ratio) ** 0.5
        scaled: Tensor = x * factor
        return scaled
