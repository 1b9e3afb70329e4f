"""Decompositions of matrices, for which the host waits: none can be part of a CUDA graph."""

import torch
from torch import Tensor


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors, as columns; refused while a CUDA graph is captured."""
    _outside_graphs(matrix, "an eigendecomposition")
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal columns and an upper triangle; refused while a CUDA graph is captured."""
    _outside_graphs(matrix, "a QR decomposition")
    basis, triangle = torch.linalg.qr(matrix)
    return basis, triangle


def _outside_graphs(matrix: Tensor, what: str) -> None:
    # torch's own error would leave cuSOLVER unusable for the rest of the process. What stands in for a tensor has no
    # `is_cuda` that is False.
    if matrix.is_cuda is False or torch.compiler.is_compiling() or not torch.cuda.is_initialized():
        return
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{what} cannot be computed while a CUDA graph is captured, because the host waits for it: take the step "
            "outside of the graph, or choose a member that needs none, such as PartialMuon with "
            "matrix_power='newton_schulz'"
        )
