"""What the study must know of a feasible set besides its projection: its formula, its width and its lowest points."""

import numpy as np
import torch
from numpy.typing import NDArray

from partial_adaptive import Box, Constraint, L1Ball, L2Ball, Simplex

Vector = NDArray[np.float64]


def formula(feasible: Constraint) -> str:
    """The set as one writes it."""
    match feasible:
        case Box(low, high):
            return f"[{low:g}, {high:g}]ᵈ".replace("-", "−")
        case L1Ball(radius):
            return f"‖x‖₁ ≤ {radius:g}"
        case L2Ball(radius):
            return f"‖x‖₂ ≤ {radius:g}"
        case Simplex(total):
            return f"x ≥ 0, Σxᵢ = {total:g}"
    raise NotImplementedError(f"the formula of {feasible}")


def diameter(feasible: Constraint) -> float:
    """D∞, the largest ‖x − y‖∞ of two points of the set."""
    match feasible:
        case Box(low, high):
            return high - low
        case L1Ball(radius) | L2Ball(radius):
            return 2 * radius
        case Simplex(total):
            return total
    raise NotImplementedError(f"the width of {feasible}")


def lowest(feasible: Constraint, normal: Vector) -> float:
    """The least ⟨normal, x⟩ over the set."""
    match feasible:
        case Box(low, high):
            return float(np.minimum(low * normal, high * normal).sum())
        case L1Ball(radius):
            return -radius * float(np.abs(normal).max())
        case L2Ball(radius):
            return -radius * float(np.linalg.norm(normal))
        case Simplex(total):
            return total * float(normal.min())
    raise NotImplementedError(f"the lowest points of {feasible}")


def nearest(feasible: Constraint, x: Vector) -> Vector:
    """The nearest point of the set in the Euclidean metric, by the library's projection."""
    point = torch.from_numpy(x)
    found: Vector = feasible.project(point, torch.ones_like(point)).numpy()
    return found
