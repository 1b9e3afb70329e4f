"""Matrices with known singular values, and what PartialMuon makes of them beside the decomposition itself."""

from typing import Any

import torch
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.testing.harness import default_dtype

BARE: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "eps": 0.0}


def conditioned(shape: tuple[int, ...], condition: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A tensor whose matrix of rows x[i] has singular values from 1 down to 1/condition, evenly in their logarithms."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64).reshape(shape[0], -1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = torch.logspace(0, -1, len(s), base=condition, dtype=torch.float64) if len(s) > 1 else torch.ones_like(s)
    result: Tensor = ((u * s) @ vh).reshape(shape)
    return result.to(dtype)


def powered(n: Tensor, p: float, eps: float = 0.0) -> Tensor:
    """U S/(S+ε)^(2p) Vᵀ by the singular value decomposition in float64, 0 where S is 0."""
    u, s, vh = torch.linalg.svd(n.double().reshape(n.shape[0], -1), full_matrices=False)
    s = torch.where(s > 1e-14 * s.max(), s / (s + eps) ** (2 * p), 0.0)
    result: Tensor = ((u * s) @ vh).reshape(n.shape)
    return result


def stretch(shape: tuple[int, ...]) -> float:
    """Muon's factor of the learning rate, as it was first published; 1 for vectors."""
    return 1.0 if len(shape) < 2 else float(max(1.0, shape[0] / torch.Size(shape[1:]).numel()) ** 0.5)


def direction(n: Tensor, p: float, **options: Any) -> Tensor:
    """The first step with the gradient n, without the factor of the shape."""
    param = torch.zeros_like(n)
    param.grad = n.clone()
    with default_dtype(torch.float64):
        pa.PartialMuon([param], partial=p, **{**BARE, **options}).step()
    return -param / stretch(tuple(n.shape))


def by_eigh(matrix: Tensor, exponent: float, eps: float = 0.0) -> Tensor:
    """(A^(1/2) + ε)^(2·exponent) by eigenvectors: the reference.

    Args:
        matrix: A, symmetric and positive semidefinite, (…, m, m); negative eigenvalues are rounding, and taken as 0.
        exponent: any real number; where it is negative and ε is 0, A must have no eigenvalue 0.
        eps: ε, in units of the roots of the eigenvalues.

    Example:
        >>> by_eigh(torch.diag(torch.tensor([16.0, 81.0])), -1 / 2)
        tensor([[0.2500, 0.0000],
                [0.0000, 0.1111]])
    """
    values, basis = torch.linalg.eigh(matrix)
    powers = values.clamp(min=0).sqrt().add(eps).pow(2 * exponent)
    result: Tensor = (basis * powers.unsqueeze(-2)) @ basis.mT
    return result
