"""Powers of symmetric positive semidefinite matrices A by matrix products alone.

By eigenvectors a `Spectrum` takes them itself.

A product is what an accelerator does best, and a square root is made of products: Newton and Schulz's iteration

    Y ← Y g(ZY),  Z ← g(ZY) Z    from Y = A, Z = 1    gives A^(1/2) and A^(−1/2) together

for a polynomial g(t) near t^(−1/2). Roots of roots are a ladder, and the binary digits of the exponent say which of its
rungs to multiply, as `power` does for numbers: A^(3/8) = A^(1/4) A^(1/8).

Of a Gram matrix A = nnᵀ the first rung runs on n itself, X ← g(XXᵀ) X from X = n: X is A^(−1/2) n = UVᵀ at the end, and
Xnᵀ the root of A. So n is never squared, and small singular values keep their digits.
"""

import math
from functools import cache

import torch
from torch import Tensor

from partial_adaptive.rules.power import LONGEST_LADDER, binary_digits

_CUSHION = 0.1  # what one step may make of 1, so that it costs no more than one digit: faster growth would cost more
_MARGIN = 4  # times the machine epsilon: how far rounding may carry a value beyond where a polynomial is good

Steps = tuple[tuple[float, float, float], ...]


def widened(x: Tensor) -> Tensor:
    """In float64, but on MPS, which has none."""
    return x if x.device.type == "mps" else x.to(torch.float64)


def finite(matrix: Tensor) -> Tensor:
    """With 0 for what is not finite, of which `eigh` would fail in the middle of a step."""
    return torch.where(matrix.isfinite(), matrix, 0.0)


def by_products(matrix: Tensor, exponent: float, dtype: torch.dtype | None = None) -> Tensor:
    """(A + δ‖A‖)^exponent by matrix products alone, ‖A‖ = (Σλ⁴)^(1/4) and δ the machine epsilon.

    Positive powers are exact to about δ^exponent of ‖A‖^exponent whatever the condition of A, negative ones only where
    its least eigenvalue is well above δ‖A‖.

    Args:
        matrix: A, symmetric and positive semidefinite, (…, m, m), in float32 or float64.
        exponent: k/2ⁿ in [−1, 1] with n ≤ 6.
        dtype: of the products; that of the matrix where None, and bfloat16 for speed.

    Returns:
        A tensor like `matrix`.

    Raises:
        ValueError: for an exponent that is none of these.

    Example:
        >>> by_products(torch.diag(torch.tensor([16.0, 81.0])), 1 / 4).diagonal().round(decimals=4)
        tensor([2., 3.])
    """
    digits = binary_digits(abs(exponent))
    if digits is None or abs(exponent) > 1:
        raise ValueError(f"exponent must be k/2ⁿ in [-1, 1] with n ≤ {LONGEST_LADDER}, got {exponent}")
    dtype = matrix.dtype if dtype is None else dtype
    precision = torch.finfo(dtype).eps
    one = torch.eye(matrix.shape[-1], dtype=dtype, device=matrix.device)
    if exponent in (0, 1):
        return matrix if exponent else one.to(matrix.dtype).expand_as(matrix)
    size = _norm(matrix, matrix.dtype)
    unit = (matrix / size).to(dtype)
    # Of Σλ⁴ the fourth root is a bound of the largest λ, like that of Σλ², and closer to it.
    closer = _norm(unit @ unit, matrix.dtype).sqrt()
    unit, size = unit / closer.to(dtype), size * closer
    # What rounding has made negative the iteration would blow up: ε of the machine on the diagonal lifts it.
    product, root, low = None, unit + precision * one, precision
    for digit in digits or (True,):
        low = low**0.5  # the least eigenvalue of the next root; the largest stays below 1
        root, inverse = _roots(root, one, steps(low, precision), inverse=exponent < 0)
        if digit:
            factor = inverse if exponent < 0 else root
            product = factor if product is None else product @ factor
    assert product is not None, "the last digit of a fraction is 1"
    if exponent == -1:
        product = product @ product
    return product.to(matrix.dtype) * size**exponent


def polar(matrix: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """UVᵀ of n = USVᵀ by matrix products alone; 0 where S is 0.

    Singular values come out as 1 if they are above twice the machine epsilon of `dtype` times (Σs⁴)^(1/4), and smaller
    ones, in proportion, as less.

    Args:
        matrix: n, (…, m, k) with m ≤ k for speed.
        dtype: of the products; that of the matrix where None, and bfloat16 for speed.

    Returns:
        A tensor like `matrix`.

    Example:
        >>> polar(torch.tensor([[0.0, 3.0], [-2.0, 0.0]])).round(decimals=4)
        tensor([[ 0.,  1.],
                [-1.,  0.]])

    Amsel, Persson, Musco, Gower: The Polar Express: Optimal Matrix Sign Methods and Their Application to the Muon
    Algorithm, 2025.
    """
    dtype = matrix.dtype if dtype is None else dtype
    precision = torch.finfo(dtype).eps
    x = (matrix / _norm(matrix, matrix.dtype)).to(dtype)
    gram = x @ x.mT  # the fourth root of Σs⁴ is a closer bound of the largest s, and saves a step
    root = _norm(gram, matrix.dtype).sqrt()
    x, gram = x / root.to(dtype), gram / root.square().to(dtype)
    for i, (a, b, c) in enumerate(steps(2 * precision, precision)):
        gram = x @ x.mT if i else gram
        x = _sum(a, x, 1.0, _sum(b, gram, c, gram, gram), x)
    return x.to(matrix.dtype)


def divided_by_products(numerator: Tensor, p: float, dtype: torch.dtype | None = None) -> Tensor:
    """(nnᵀ)^(−p) n = US^(1−2p)Vᵀ by matrix products alone: H^(1−2p) UVᵀ, H = USUᵀ the root of nnᵀ.

    For p ≤ 1/2 powers are positive, so that errors stay small against the step whatever the condition of n.

    Args:
        numerator: n, (…, m, k) with m ≤ k for speed, in float32 or float64.
        p: in [0, 1], so that 2p is k/2ⁿ with n ≤ 6.
        dtype: of the products; that of n where None, and bfloat16 for speed. Norms and sizes stay in that of n.

    Example:
        >>> divided_by_products(torch.diag(torch.tensor([16.0, 81.0])), 3 / 8).diagonal()
        tensor([2.0000, 3.0000])
    """
    # The largest element becomes 1: a sum of squares leaves the range of float32 long before.
    size = numerator.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(numerator.dtype).tiny)
    unit = numerator / size
    direction = polar(unit, dtype)
    if p == 0.5:
        return direction
    half = _product(direction, unit.mT, dtype)  # H
    return _product(by_products(half, 1 - 2 * p, dtype), direction, dtype) * size ** (1 - 2 * p)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A product in some dtype, where it is not that of the factors."""
    if dtype is None:
        return left @ right
    return (left.to(dtype) @ right.to(dtype)).to(left.dtype)


def _norm(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The Frobenius norm, no less than a number whose square can be divided by, in bfloat16 too."""
    norm: Tensor = torch.linalg.matrix_norm(matrix, keepdim=True, dtype=dtype)
    return norm.clamp(min=torch.finfo(torch.float32).tiny ** 0.5)


def _roots(matrix: Tensor, one: Tensor, polynomials: Steps, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """A^(1/2), and where the inverse is wanted A^(−1/2)."""
    y, z = matrix, one
    for i, (a, b, c) in enumerate(polynomials):
        near = z @ y if i else y  # one, at the end
        factor = _sum(b, near, c, near, near) + a * one
        y = y @ factor
        if inverse or i + 1 < len(polynomials):
            z = factor @ z if i else factor
    return y, z


def _sum(beta: float, term: Tensor, alpha: float, left: Tensor, right: Tensor) -> Tensor:
    """β·term + α·left·right, of matrices or of stacks of them."""
    if term.ndim == 2:
        return torch.addmm(term, left, right, beta=beta, alpha=alpha)
    return beta * term + alpha * (left @ right)


@cache
def steps(low: float, precision: float) -> Steps:
    """The coefficients of x·g(x²) = ax + bx³ + cx⁵ that one after the other bring [low, 1] to 1, in as few as it takes.

    Each is the polynomial nearest to 1 on where the one before has brought the interval.

    Args:
        low: in (0, 1).
        precision: machine epsilon of the arithmetic, to which they converge.

    Example:
        >>> len(steps(1e-3, 1e-7)), len(steps(1e-7, 1e-7))
        (7, 14)
    """
    margin = 1 + _MARGIN * precision
    high = margin
    found = []
    while True:
        start = max(low, _CUSHION * high)
        a, b, c = _nearest(start, high)
        ends = [a * x + b * x**3 + c * x**5 for x in (start, high)]
        centre = 2 / sum(ends)
        a, b, c = a * centre, b * centre, c * centre
        found.append((a, b, c))
        if 1 - low <= (2 * precision) ** (1 / 3):  # this one makes of an error e no more than e³/2
            return tuple(found)
        low = a * low + b * low**3 + c * low**5
        high = (2 - ends[0] * centre) * margin


def _nearest(low: float, high: float) -> tuple[float, float, float]:
    """a, b and c of the ax + bx³ + cx⁵ that is nearest to 1 on [low, high], by Remez's exchange."""
    if low > (1 - 1e-5) * high:  # Padé's, to which they tend
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    extremes = [(3 * low + high) / 4, (low + 3 * high) / 4]
    error = before = math.inf
    while True:
        points = torch.tensor([low, *extremes, high], dtype=torch.float64, device="cpu").unsqueeze(1)
        signs = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64, device="cpu")
        system = torch.cat((points, points**3, points**5, signs), 1)
        a, b, c, error = torch.linalg.solve(system, torch.ones_like(signs)).flatten().tolist()
        if abs(error - before) < 1e-13:
            return a, b, c
        before = error
        root = math.sqrt(9 * b**2 - 20 * a * c)
        extremes = [math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c))]
