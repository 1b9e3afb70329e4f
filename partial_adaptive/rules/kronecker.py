"""The second moments of matrices as Kronecker products, L^(1/2) ⊗ R^(1/2) with L of the rows and R of the columns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor

from partial_adaptive.rules.decompositions import eigh, qr
from partial_adaptive.rules.hyperparameters import Hyper, number, optional, whole
from partial_adaptive.rules.matrix_power import finite, widened
from partial_adaptive.rules.power import divisor_above_zero
from partial_adaptive.rules.second_moments import SecondMoment
from partial_adaptive.rules.spectra import VECTORS, no_matrix
from partial_adaptive.rules.stage import TENSOR, Slot, average_, average_square_

BLOCK_SIZE = optional(
    whole(
        1024,
        1,
        meaning="largest dimension of a matrix that is not cut into equal blocks with factors of their own; None: none "
        "is cut",
    )
)
_DECAY = replace(
    optional(number(None, 0, 1, closed=False, meaning="decay rate of the averages L and R")),
    static=True,  # None and a number lead to other lines
)
SUM_OR_DECAY = replace(_DECAY, meaning=f"{_DECAY.meaning}; None: they are sums")
DECAY_OR_BETA2 = replace(
    _DECAY,
    meaning=f"{_DECAY.meaning}; None or -1: that of the second moment, β₂",
    allowed="a number in [0, 1), -1 or None",
    accepts=lambda value: value == -1 or _DECAY.accepts(value),
)

# -- blocks


@cache
def block(size: int, limit: int | None) -> int:
    """The size of the fewest equal blocks, of at most `limit`, that a dimension can be cut into."""
    if limit is None or size <= limit:
        return size
    return next(size // count for count in range(-(-size // limit), size + 1) if size % count == 0)


@final
@dataclass(frozen=True)
class Cut:
    """A tensor as a batch of matrices: it is one of rows x[i], and a dimension larger than a limit is cut.

    Args:
        limit: the largest dimension that stays whole; None for any.
    """

    limit: int | None

    def sizes(self, shape: torch.Size) -> tuple[int, int, int, int]:
        """Rows and columns of a parameter's matrix, and those of a block."""
        rows, columns = shape[0], shape[1:].numel()
        return rows, columns, block(rows, self.limit), block(columns, self.limit)

    def apart(self, x: Tensor) -> Tensor:
        """The blocks, in one batch."""
        rows, columns, a, b = self.sizes(x.shape)
        return x.reshape(rows // a, a, columns // b, b).transpose(1, 2).reshape(-1, a, b)

    def together(self, blocks: Tensor, shape: torch.Size) -> Tensor:
        """The tensor that blocks are of."""
        rows, columns, a, b = self.sizes(shape)
        return blocks.reshape(rows // a, columns // b, a, b).transpose(1, 2).reshape(shape)


@final
@dataclass(frozen=True)
class Factor:
    """The shape of a slot with a matrix, or the eigenvalues of one, for each block of a parameter.

    Args:
        cut: into which blocks.
        side: 0 for rows, 1 for columns.
        order: 2 for a matrix, 1 for its eigenvalues.
        diagonal: whether of a vector it is the diagonal; otherwise there is nothing of vectors.
    """

    cut: Cut
    side: int
    order: int = 2
    diagonal: bool = False

    def __call__(self, shape: torch.Size) -> Sequence[int]:
        """The slot's shape for a parameter's."""
        if len(shape) < 2 and self.diagonal:
            return shape
        if len(shape) < 2 or not shape.numel():
            return (0,)
        rows, columns, *sizes = self.cut.sizes(shape)
        return (rows // sizes[0] * (columns // sizes[1]), *(sizes[self.side],) * self.order)


# -- eigenvectors


class Eigen(NamedTuple):
    """Eigenvectors, in columns, and eigenvalues of a batch of Gram matrices, the largest first.

    Args:
        basis: the eigenvectors.
        values: the eigenvalues, not less than what rounding makes of 0.
        seen: which of them are more than that.
    """

    basis: Tensor
    values: Tensor
    seen: Tensor


def eigen(gram: Tensor, hyper: Hyper) -> Eigen:
    """The eigendecomposition in float64.

    Eigenvalues less than n times the machine epsilon of the largest, n the dimension, cannot be told from 0 and count
    as that much; those of a matrix that is not finite are not either. The derivative is that of distinct eigenvalues:
    what would turn eigenvectors of the same eigenvalue into each other is left out.
    """
    wide = widened(gram)
    sound = finite(wide)
    values, basis = (ascending.flip(-1) for ascending in eigh(sound.detach()))
    rounding = gram.shape[-1] * torch.finfo(gram.dtype).eps
    if hyper.differentiable:
        turn = basis.mT @ (sound - sound.detach()) @ basis  # zeros, that have a derivative
        gap = values[:, None, :] - values[:, :, None]
        apart = gap.abs() > 10 * rounding * values[:, :1, None]
        basis = basis + basis @ (turn / torch.where(apart, gap, math.inf))
        values = values + turn.diagonal(dim1=-2, dim2=-1)
    values = values + (wide - sound).diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    floor = rounding * values[:, :1].clamp(min=0.0)
    return Eigen(basis, torch.maximum(values, floor), values > floor)


def orthonormal(matrix: Tensor, hyper: Hyper) -> Tensor:
    """Q of the QR decomposition; columns that depend on those before them have no derivative among themselves."""
    basis, triangle = qr(matrix.detach())
    if not hyper.differentiable:
        return basis
    sizes = triangle.diagonal(dim1=-2, dim2=-1).abs()
    lost = sizes <= 10 * matrix.shape[-1] * torch.finfo(matrix.dtype).eps * sizes.amax(-1, keepdim=True)
    safe = triangle + torch.where(lost, math.inf, 0.0).diag_embed()
    change = basis.mT @ (matrix - matrix.detach())  # zeros, that have a derivative
    turn: Tensor = torch.linalg.solve_triangular(safe, change, upper=True, left=False).tril(-1)
    return basis + basis @ (turn - turn.mT)


def completed(found: Eigen, hyper: Hyper) -> Tensor:
    """The eigenvectors, those of 0 chosen anew, for which rounding has decided: as near to coordinates as they can be.

    They come from the coordinates that are least in the span of the others, made orthogonal.
    """
    seen = found.seen[:, None, :]
    outside = 1 - (found.basis.square() * seen).sum(-1)
    order = outside.argsort(dim=-1, stable=True)
    units = order[:, None, :] == torch.arange(order.shape[-1], device=order.device)[:, None]
    return orthonormal(torch.where(seen, found.basis, units.to(found.basis.dtype)), hyper)


def turned(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A tensor in the bases."""
    result: Tensor = left.mT @ x @ right
    return result


def outer(left: Tensor, right: Tensor) -> Tensor:
    """The products of the numbers of rows and those of columns."""
    result: Tensor = left[:, :, None] * right[:, None, :]
    return result


def choose_(slot: Tensor, condition: Any, value: Tensor, hyper: Hyper) -> None:
    """Overwrite a slot where a condition holds."""
    slot.copy_(hyper.when(condition, value, slot))


# -- the second moments


@dataclass(frozen=True)
class Kronecker(SecondMoment, ABC):
    """P of a matrix of rows x[i], or of each of its blocks, in a basis of its rows and one of its columns."""

    vectors: str = "refuse"
    block_size: int | None = 1024

    needs = TENSOR
    batched = True
    together = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", self._slots(self.cut))

    @property
    def cut(self) -> Cut:
        """Into which blocks."""
        return Cut(self.block_size)

    @abstractmethod
    def _slots(self, cut: Cut) -> Mapping[str, Slot]:
        """The slots for these blocks."""

    def select(self, group: Mapping[str, Any]) -> Self:
        return type(self)(group["vectors"], group["block_size"])

    def refuses(self, shape: torch.Size) -> str | None:
        if len(shape) < 2:
            return no_matrix(shape, self.vectors)
        if self.block_size is not None:
            rows, columns, *sizes = self.cut.sizes(shape)
            for size, of, name in zip((rows, columns), sizes, ("rows", "columns"), strict=True):
                if size > self.block_size > 2 * of:
                    return (
                        f"its {size} {name} are not equal blocks of at most block_size={self.block_size} and at least "
                        "half of that; choose another block_size, or None for no cut"
                    )
        return None

    def divide(self, numerator: Tensor, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor:
        if numerator.ndim < 2:
            return numerator / divisor_above_zero(self._of_vector(grad, hyper, *slots), hyper)
        if not numerator.shape.numel():
            return numerator.clone()
        return self._of_matrix(numerator, grad, hyper, *slots)

    @abstractmethod
    def _of_vector(self, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor:
        """Take the diagonal of a matrix into the slots, in place, and return the scale without ε."""

    @abstractmethod
    def _of_matrix(self, numerator: Tensor, grad: Tensor, hyper: Hyper, *slots: Any) -> Tensor:
        """What `divide` does with matrices."""

    def _divided(self, numerator: Tensor, scale: Tensor, left: Tensor, right: Tensor, hyper: Hyper) -> Tensor:
        """The numerator divided in these bases by the scale to its power."""
        quotient = turned(self.cut.apart(numerator), left, right) / divisor_above_zero(scale, hyper)
        return self.cut.together(turned(quotient, left.mT, right.mT), numerator.shape)


def _root(x: Tensor) -> Tensor:
    """√x, of 0 with a derivative."""
    return x.clamp(min=torch.finfo(x.dtype).tiny).sqrt()


@final
@dataclass(frozen=True)
class KroneckerSum(Kronecker):
    """P = L^(1/2) ⊗ R^(1/2), L = Σ ggᵀ and R = Σ gᵀg or averages of these: Shampoo's.

    s = (w_L × w_R)^(1/4) + ε in the bases of their eigenvectors, w the eigenvalues. Of a vector, and of a diagonal
    matrix, it is Adagrad's √Σg² + ε.

    Gupta, Koren, Singer: Shampoo: Preconditioned Stochastic Tensor Optimization, ICML 2018.
    """

    hyperparameters = ("eps", "initial_accumulator_value")
    own = {
        "shampoo_beta": SUM_OR_DECAY,
        "precondition_frequency": whole(
            1, 1, meaning="steps from one eigendecomposition to the next; until step that many each has one"
        ),
        "block_size": BLOCK_SIZE,
        "vectors": VECTORS,
    }

    def _slots(self, cut: Cut) -> Mapping[str, Slot]:
        return {
            "left": Slot(Factor(cut, 0, diagonal=True), coarse=False),
            "right": Slot(Factor(cut, 1), coarse=False),
            "left_basis": Slot(Factor(cut, 0), coarse=False),
            "right_basis": Slot(Factor(cut, 1), coarse=False),
            "left_values": Slot(Factor(cut, 0, 1), coarse=False),
            "right_values": Slot(Factor(cut, 1, 1), coarse=False),
        }

    @staticmethod
    def _gather(factor: Tensor, product: Tensor, hyper: Hyper) -> None:
        if hyper.shampoo_beta is None:
            factor.add_(product)
        else:
            average_(factor, product, hyper.shampoo_beta)

    @staticmethod
    def _spectrum(values: Tensor, hyper: Hyper) -> Tensor:
        """Eigenvalues as they count."""
        correction = 1.0 if hyper.shampoo_beta is None else hyper.weight_of("shampoo_beta", hyper.age)
        result: Tensor = values / correction + hyper.initial_accumulator_value
        return result

    def _of_vector(self, grad: Tensor, hyper: Hyper, left: Tensor, *none: Tensor) -> Tensor:
        self._gather(left, grad.square(), hyper)
        return _root(self._spectrum(left, hyper))

    def _of_matrix(
        self,
        numerator: Tensor,
        grad: Tensor,
        hyper: Hyper,
        left: Tensor,
        right: Tensor,
        left_basis: Tensor,
        right_basis: Tensor,
        left_values: Tensor,
        right_values: Tensor,
    ) -> Tensor:
        g = self.cut.apart(grad)
        self._gather(left, g @ g.mT, hyper)
        self._gather(right, g.mT @ g, hyper)
        # The first gradients may be zero or of low rank, and what they have not seen is hardly divided.
        due = (hyper.age < hyper.precondition_frequency) | (hyper.age % hyper.precondition_frequency == 0)
        if due is not False:
            for factor, basis, values in ((left, left_basis, left_values), (right, right_basis, right_values)):
                found = eigen(factor, hyper)
                choose_(basis, due, found.basis, hyper)
                choose_(values, due, self._spectrum(found.values, hyper), hyper)
        # Roots before the product, which in float32 would leave its range.
        scale = outer(_root(_root(left_values)), _root(_root(right_values)))
        return self._divided(numerator, scale, left_basis, right_basis, hyper)


@final
@dataclass(frozen=True)
class RotatedExpAvgSq(Kronecker):
    """s = √(v/c₂) + ε, v Adam's average of g² in the bases of Shampoo's eigenvectors: SOAP's.

    At first the squares are Shampoo's own √(w_L × w_R): on the diagonal, where all of the first gradient is, they are
    its squares, and they are not 0 beside it. Of a vector s is Adam's.

    Vyas et al.: SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025.
    """

    hyperparameters = ("betas", "eps", "bias_correction")
    own = {
        "shampoo_beta": DECAY_OR_BETA2,
        "precondition_frequency": whole(10, 1, meaning="steps from one change of the bases to the next"),
        "block_size": BLOCK_SIZE,
        "vectors": VECTORS,
    }
    decay = "beta2"

    def _slots(self, cut: Cut) -> Mapping[str, Slot]:
        return {
            "rotated_exp_avg_sq": Slot(nonnegative=True),
            "left_exp_avg": Slot(Factor(cut, 0), coarse=False),
            "right_exp_avg": Slot(Factor(cut, 1), coarse=False),
            "left_basis": Slot(Factor(cut, 0), coarse=False),
            "right_basis": Slot(Factor(cut, 1), coarse=False),
        }

    def _of_vector(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor, *none: Tensor) -> Tensor:
        average_square_(exp_avg_sq, grad, hyper.beta2)
        return _root(exp_avg_sq) / hyper.correction2_sqrt

    def _of_matrix(
        self,
        numerator: Tensor,
        grad: Tensor,
        hyper: Hyper,
        exp_avg_sq: Tensor,
        left: Tensor,
        right: Tensor,
        left_basis: Tensor,
        right_basis: Tensor,
    ) -> Tensor:
        g, v = self.cut.apart(grad), self.cut.apart(exp_avg_sq)
        products = g @ g.mT, g.mT @ g
        # Their product with the first bases, which they are of themselves, would have left these as they are.
        due = (hyper.age > 2) & ((hyper.age - 1) % hyper.precondition_frequency == 0)
        if due is not False:
            rows, left_order = self._iterated(left, left_basis, hyper)
            columns, right_order = self._iterated(right, right_basis, hyper)
            choose_(left_basis, due, rows, hyper)
            choose_(right_basis, due, columns, hyper)
            ordered = torch.take_along_dim(v, left_order[:, :, None], 1)
            choose_(v, due, torch.take_along_dim(ordered, right_order[:, None, :], 2), hyper)
        first = hyper.age == 1
        found = [eigen(product, hyper) for product in products] if first is not False else []
        for basis, one in zip((left_basis, right_basis), found, strict=False):
            choose_(basis, first, completed(one, hyper), hyper)
        square = turned(g, left_basis, right_basis).square()
        if found:
            seen = outer(*(_root(torch.where(one.seen, one.values, 0.0)) for one in found))
            square = hyper.when(first, seen.to(square.dtype), square)
        average_(v, square, hyper.beta2)
        exp_avg_sq.copy_(self.cut.together(v, exp_avg_sq.shape))
        if found:  # where nothing was seen the numerator is rounding, too
            least = outer(*(_root(one.values) for one in found)).to(v.dtype)
            v = hyper.when(first, least * (1 - hyper.beta2), v)
        decay = hyper.beta2 if hyper.shampoo_beta in (None, -1) else hyper.shampoo_beta
        for factor, product in zip((left, right), products, strict=True):
            average_(factor, product, decay)
        return self._divided(numerator, _root(v) / hyper.correction2_sqrt, left_basis, right_basis, hyper)

    @staticmethod
    def _iterated(factor: Tensor, basis: Tensor, hyper: Hyper) -> tuple[Tensor, Tensor]:
        """The basis after a step of power iteration, and the order of the old one in it, largest eigenvalues first."""
        wide = widened(basis)
        product = finite(widened(factor)) @ wide
        order = (wide * product).sum(1).argsort(dim=-1, descending=True, stable=True)
        return orthonormal(torch.take_along_dim(product, order[:, None, :], 2), hyper), order
