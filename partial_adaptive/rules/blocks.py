"""The second moments with fewer values than the parameter has elements: one for a block, for a row, for a column."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyper, Hyperparameter, choice, number, whole
from partial_adaptive.rules.second_moments import Estimator
from partial_adaptive.rules.stage import TENSOR, Slot, average_


@final
@dataclass(frozen=True)
class Blocks:
    """The shape of a slot with one value for each block of a parameter.

    Args:
        kind: "row" for each x[i], "head" for equal groups of them, "tensor" for all.
        heads: how many groups.
    """

    kind: str
    heads: int

    def __call__(self, shape: torch.Size) -> Sequence[int]:
        """The slot's shape for a parameter's."""
        count = {"row": shape[0], "head": self.heads, "tensor": 1}[self.kind] if shape else 1
        return (count, *(1 for _ in shape[1:])) if shape else ()


@final
@dataclass(frozen=True)
class BlockMean(Estimator):
    """s = √(v/c₂) + ε, v an average of the mean of g² over a block: Adam-mini's.

    Zhang et al.: Adam-mini: Use Fewer Learning Rates To Gain More, ICLR 2025.
    """

    blocks: str = "row"
    heads: int = 1

    needs = TENSOR
    batched = True
    slots = {"exp_avg_sq": Slot(shape=Blocks("row", 1), nonnegative=True)}
    hyperparameters = ("betas", "eps", "bias_correction")
    own = {
        "blocks": choice(
            "row",
            "row",
            "head",
            "tensor",
            meaning="what shares a second moment: each x[i]; as many equal groups of these as there are `heads`; all",
        ),
        "heads": whole(1, 1, meaning="how many groups of rows there are where `blocks` are heads"),
    }
    decay = "beta2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", {"exp_avg_sq": Slot(shape=Blocks(self.blocks, self.heads), nonnegative=True)})

    def select(self, group: Mapping[str, Any]) -> "BlockMean":
        return BlockMean(group["blocks"], group["heads"])

    def refuses(self, shape: torch.Size) -> str | None:
        rows = shape[0] if shape else 1
        unequal = self.blocks == "head" and rows % self.heads
        return f"its {rows} rows are not {self.heads} equal heads" if unequal else None

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        if grad.shape.numel():
            blocks = grad.square().reshape(exp_avg_sq.shape.numel(), -1)
            average_(exp_avg_sq, blocks.mean(1).reshape(exp_avg_sq.shape), hyper.beta2)
        scale = exp_avg_sq.sqrt().div_(hyper.correction2_sqrt).add_(hyper.eps)
        if self.blocks != "head" or not grad.ndim:
            return scale
        return scale.repeat_interleave(grad.shape[0] // self.heads, 0)


# -- rows and columns


def rows(shape: torch.Size) -> Sequence[int]:
    """The mean over the last dimension; nothing of a vector."""
    return (*shape[:-1], 1) if len(shape) > 1 else (0,)


def columns(shape: torch.Size) -> Sequence[int]:
    """The mean over the last dimension but one; nothing of a vector."""
    return (*shape[:-2], 1, shape[-1]) if len(shape) > 1 else (0,)


def first_row(shape: torch.Size) -> Sequence[int]:
    """A value for each element of x[0]; nothing of a vector."""
    return (1, *shape[1:]) if len(shape) > 1 else (0,)


def vector(shape: torch.Size) -> Sequence[int]:
    """The whole of a vector, nothing of a matrix."""
    return (0,) if len(shape) > 1 else shape


def _floors(value: Any) -> bool:
    def fits(number: Any) -> bool:
        real = isinstance(number, int | float) and not isinstance(number, bool)
        return real and math.isfinite(number) and number >= 0

    return isinstance(value, tuple) and len(value) == 2 and (value[0] is None or fits(value[0])) and fits(value[1])


def _floats(value: Any) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    return tuple(float(one) if type(one) is int else one for one in value)


FLOORS = Hyperparameter(
    "least values of the scale (None: the machine epsilon) and of the parameter's size",
    "two finite numbers ≥ 0, the first of which may be None",
    _floors,
    (None, 1e-3),
    _floats,
)


class Factored(Estimator):
    """s = √max(r·c/mean(r), ε₁²), r and c averages of g² over rows and columns, β₂ = 1 − t^decay: Adafactor's.

    Shazeer, Stern: Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, ICML 2018.
    """

    needs = TENSOR
    batched = True
    slots = {
        "row_var": Slot(shape=rows, nonnegative=True),
        "col_var": Slot(shape=columns, nonnegative=True),
        "variance": Slot(shape=vector, nonnegative=True),
    }
    hyperparameters = ()
    own = {
        "eps": FLOORS,
        "beta2_decay": number(-0.8, -math.inf, 0, meaning="exponent of t in the weight 1 − β₂ of the newest gradient"),
    }

    def scale(self, grad: Tensor, hyper: Hyper, row_var: Tensor, col_var: Tensor, variance: Tensor) -> Tensor:
        floor = torch.finfo(grad.dtype).eps if hyper.eps[0] is None else hyper.eps[0]
        decay = 1 - hyper.age**hyper.beta2_decay
        if grad.ndim < 2:
            return average_(variance, grad.square(), decay).clamp(min=floor**2).sqrt_()
        if grad.shape.numel():  # of nothing there is no mean
            square = grad.square()
            average_(row_var, square.mean(-1, keepdim=True), decay)
            average_(col_var, square.mean(-2, keepdim=True), decay)
        relative = row_var / row_var.mean(-2, keepdim=True).clamp_(min=floor)
        return (relative * col_var).clamp_(min=floor**2).sqrt_()


class Cover(Estimator):
    """s = √v + ε, v = min(r, c) + g², and then r and c its maxima over rows and columns: SM3's.

    Anil, Gupta, Koren, Singer: Memory-Efficient Adaptive Optimization, NeurIPS 2019 (SM3-II).
    """

    needs = TENSOR
    batched = True
    slots = {
        "row_max": Slot(shape=Blocks("row", 1), nonnegative=True),
        "col_max": Slot(shape=first_row, nonnegative=True),
    }

    def scale(self, grad: Tensor, hyper: Hyper, row_max: Tensor, col_max: Tensor) -> Tensor:
        square = grad.square()
        if grad.ndim < 2:
            return row_max.add_(square).sqrt().add_(hyper.eps)
        v = row_max.minimum(col_max) + square
        if grad.shape.numel():
            row_max.copy_(v.flatten(1).amax(1).reshape(row_max.shape))
            col_max.copy_(v.amax(0, keepdim=True))
        return v.sqrt_().add_(hyper.eps)
