"""Decompositions of matrices, for which the host waits: none can be part of a CUDA graph."""

from typing import NamedTuple

import torch
from torch import Tensor


class Eigh(NamedTuple):
    """Eigenvalues, ascending, and eigenvectors, as columns, of symmetric matrices."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QR(NamedTuple):
    """Orthonormal columns and an upper triangle, whose product is a matrix."""

    basis: Tensor
    triangle: Tensor


def eigh(matrix: Tensor) -> Eigh:
    """`torch.linalg.eigh`, refused while a CUDA graph is captured."""
    _outside_graphs(matrix, "an eigendecomposition")
    return Eigh(*torch.linalg.eigh(matrix))


def qr(matrix: Tensor) -> QR:
    """`torch.linalg.qr`, refused while a CUDA graph is captured."""
    _outside_graphs(matrix, "a QR decomposition")
    return QR(*torch.linalg.qr(matrix))


def _outside_graphs(matrix: Tensor, what: str) -> None:
    # torch's own error would leave cuSOLVER unusable for the rest of the process.
    if matrix.is_cuda is False or torch.compiler.is_compiling() or not torch.cuda.is_initialized():  # or a stand-in's
        return
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{what} cannot be computed while a CUDA graph is captured, because the host waits for it: take the step "
            "outside of the graph, or choose a member that needs none, such as PartialMuon with "
            "matrix_power='newton_schulz'"
        )
