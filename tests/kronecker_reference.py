"""Shampoo and SOAP with the exponent p in NumPy float64, transcribed from their papers; nothing of the library's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def power(matrix: Array, exponent: float) -> Array:
    """A power of a positive matrix by its eigenvalues, of which those that are rounding count as the largest of it."""
    w, q = np.linalg.eigh(matrix)
    w = np.maximum(w, len(w) * np.finfo(np.float64).eps * w.max())
    result: Array = q @ np.diag(w**exponent) @ q.T
    return result


def shampoo(
    grads: Sequence[Array],
    exponents: Sequence[float],
    frequency: int = 1,
    beta: float | None = None,
    initial: float = 0.0,
    lr: float = 0.1,
    momentum: float = 0.0,
) -> Array:
    """θ ← θ − α L^(−p/2) n R^(−p/2), with L and R of the last step that was due; they see no step at which p is 0."""
    rows, columns = grads[0].shape
    theta, n = np.zeros((rows, columns)), np.zeros((rows, columns))
    left, right = initial * np.eye(rows), initial * np.eye(columns)
    age = 0
    for g, p in zip(grads, exponents, strict=True):
        n = momentum * n + (1 - momentum) * g
        if p == 0:
            theta = theta - lr * n
            continue
        age += 1
        if beta is None:
            left, right = left + g @ g.T, right + g.T @ g
            now = left, right
        else:
            left, right = beta * left + (1 - beta) * g @ g.T, beta * right + (1 - beta) * g.T @ g
            now = left / (1 - beta**age), right / (1 - beta**age)
        if age < frequency or age % frequency == 0:
            used = now
        theta = theta - lr * power(used[0], -p / 2) @ n @ power(used[1], -p / 2)
    return theta


def soap(
    grads: Sequence[Array],
    exponents: Sequence[float],
    frequency: int = 10,
    betas: tuple[float, float] = (0.95, 0.95),
    beta: float | None = None,
    eps: float = 1e-8,
    lr: float = 3e-3,
    corrected: bool = True,
    skip: bool = False,
) -> Array:
    """Algorithm 3 of Vyas et al.; the first gradient is skipped, as in their code, or sets v to √(w_L × w_R).

    Eigenvalues that are rounding are 0 there, and as large as they may be where the first step divides.
    """
    shape = grads[0].shape
    theta, m, v = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    beta = betas[1] if beta is None else beta
    factors: list[Array] = []
    bases: list[Array] = []
    t = age = 0
    for g, p in zip(grads, exponents, strict=True):
        if p == 0:
            t += 1
            m = betas[0] * m + (1 - betas[0]) * g
            theta = theta - lr * m / (1 - betas[0] ** t if corrected else 1)
            continue
        products = [g @ g.T, g.T @ g]
        if not factors:
            spectra = [np.linalg.eigh(product) for product in products]
            bases = [q[:, ::-1] for _, q in spectra]
            factors = [(1 - beta) * product for product in products]
            floors = [len(w) * np.finfo(np.float64).eps * w.max() for w, _ in spectra]
            pairs = [(w[::-1], floor) for (w, _), floor in zip(spectra, floors, strict=True)]
            first = np.sqrt(np.outer(*(np.where(w > floor, w, 0.0) for w, floor in pairs)))
            least = np.sqrt(np.outer(*(np.maximum(w, floor) for w, floor in pairs)))
            if skip:
                continue
        else:
            first = None
        t, age = t + 1, age + 1
        m = betas[0] * m + (1 - betas[0]) * g
        rotated = bases[0].T @ g @ bases[1]
        v = betas[1] * v + (1 - betas[1]) * (rotated**2 if first is None else first)
        c1, c2 = (1 - betas[0] ** t, 1 - betas[1] ** age) if corrected else (1, 1)
        scale = np.sqrt((v if first is None else (1 - betas[1]) * least) / c2) + eps
        theta = theta - lr * bases[0] @ ((bases[0].T @ m / c1 @ bases[1]) / scale ** (2 * p)) @ bases[1].T
        if first is not None:
            continue
        factors = [beta * old + (1 - beta) * new for old, new in zip(factors, products, strict=True)]
        if age % frequency == 0:
            for side, (factor, basis) in enumerate(zip(factors, bases, strict=True)):
                order = np.argsort(-np.diag(basis.T @ factor @ basis))
                v = np.take(v, order, side)
                bases[side] = np.linalg.qr(factor @ basis[:, order])[0]
    return theta
