"""The second moments of matrices: P is a matrix of its own, and its power that of its eigenvalues."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyper, Hyperparameter, choice
from partial_adaptive.rules.power import divisor
from partial_adaptive.rules.second_moments import SecondMoment
from partial_adaptive.rules.stage import TENSOR, Tensors, Transform

VECTORS = choice(
    "refuse",
    "refuse",
    "diagonal",
    meaning="what a parameter of less than two dimensions is: refused, or the diagonal of a matrix",
)


@final
@dataclass(frozen=True)
class Spectrum(SecondMoment):
    """P = nnᵀ or nᵀn, whichever is smaller, so that P^(−p) n = U S^(1−2p) Vᵀ: Muon's at p = 1/2.

    n is a matrix of rows x[i]. ε is added to the singular values S before the power is taken.

    Jordan et al.: Muon: An Optimizer for Hidden Layers in Neural Networks, 2024.
    """

    vectors: str = "refuse"

    needs = TENSOR
    hyperparameters = ("eps",)
    own = {"vectors": VECTORS}

    def select(self, group: Mapping[str, Any]) -> "Spectrum":
        return Spectrum(group["vectors"])

    def refuses(self, shape: torch.Size) -> str | None:
        if len(shape) < 2 and self.vectors == "refuse":
            return f"it takes matrices, got the shape {tuple(shape)}; vectors='diagonal' takes others too"
        return None

    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper) -> Tensor:
        if numerator.ndim < 2:  # of a diagonal matrix the singular values are the sizes of its elements
            return numerator / self._power(numerator.abs(), hyper)
        if not numerator.shape.numel():
            return numerator.clone()
        # A Gram matrix has the square of the condition number: in float32 small singular values would be lost in it.
        dtype = numerator.dtype if numerator.device.type == "mps" else torch.float64
        matrix = numerator.reshape(numerator.shape[0], -1).to(dtype)
        tall = matrix.shape[0] > matrix.shape[1]
        wide = matrix.mT if tall else matrix
        gram = wide @ wide.mT
        # Of what is not finite eigh would fail, in the middle of a step; NaN comes back with the rows.
        basis = torch.linalg.eigh(torch.where(gram.isfinite(), gram, 0.0)).eigenvectors
        rows = basis.mT @ wide
        # Their norms are the singular values, to more digits than the roots of the eigenvalues.
        divided = basis @ (rows / self._power(rows.square().sum(1, keepdim=True).sqrt(), hyper))
        result: Tensor = (divided.mT if tall else divided).reshape(numerator.shape).to(numerator.dtype)
        return result

    @staticmethod
    def _power(sizes: Tensor, hyper: Hyper) -> Tensor:
        return divisor((sizes / hyper.correction1 + hyper.eps).clamp(min=torch.finfo(sizes.dtype).tiny), hyper)


_ADJUSTMENTS = ("original", "match_rms_adamw", "spectral_unclamped")


class ShapeScale(Transform):
    """x times a factor that depends on the shape of a matrix: Muon's.

    For a matrix of A rows of B elements `original` (None too) is √max(1, A/B), `match_rms_adamw` 0.2·√max(A, B) and
    `spectral_unclamped` √(A/B).
    """

    needs = TENSOR
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
