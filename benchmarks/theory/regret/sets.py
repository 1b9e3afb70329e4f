"""What the study must know of a feasible set besides its projection: its formula, its width and its lowest points."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from partial_adaptive import Box, Constraint, L1Ball, L2Ball, Simplex

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Form:
    """A set as the theorem sees it.

    Args:
        formula: the set as one writes it.
        diameter: D∞, the largest ‖x − y‖∞ of two points of the set.
        lowest: the least ⟨normal, x⟩ over the set, of a normal.
    """

    formula: str
    diameter: float
    lowest: Callable[[Vector], float]


def form(feasible: Constraint) -> Form:
    """The form of a set that is bounded, which the theorem asks for."""
    match feasible:
        case Box(low, high):
            interval = f"[{low:g}, {high:g}]ᵈ".replace("-", "−")
            return Form(interval, high - low, lambda a: float(np.minimum(low * a, high * a).sum()))
        case L1Ball(radius):
            return Form(f"‖x‖₁ ≤ {radius:g}", 2 * radius, lambda a: -radius * float(np.abs(a).max()))
        case L2Ball(radius):
            return Form(f"‖x‖₂ ≤ {radius:g}", 2 * radius, lambda a: -radius * float(np.linalg.norm(a)))
        case Simplex(total):
            return Form(f"x ≥ 0, Σxᵢ = {total:g}", total, lambda a: total * float(a.min()))
    raise TypeError(f"feasible must be a Box, an L1Ball, an L2Ball or a Simplex, which are bounded, got {feasible}")


def nearest(feasible: Constraint, x: Vector) -> Vector:
    """The nearest point of the set in the Euclidean metric, by the library's projection."""
    point = torch.from_numpy(x)
    found: Vector = feasible.project(point, torch.ones_like(point)).numpy()
    return found
