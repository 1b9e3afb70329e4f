"""The coordinate check: how far the first steps move the activations of a network, against its width."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.theory.width.task import Task, started

STEPS = 5
EXAMPLES = 256
LAYERS = ("first hidden layer", "second hidden layer", "output")
RULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda p: 0.0,
    "width^(−2p)": lambda p: -2 * p,
    "width^(−p)": lambda p: -p,
}
"""The exponent of the width in the learning rate."""


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """How far the activations moved.

    Args:
        rule: a key of `RULES`.
        partial: p.
        width: of the hidden layers.
        lr: the learning rate.
        changes: the RMS of the change of each layer's values before its nonlinearity, a mean over the seeds; None where
            it is not finite.
    """

    rule: str
    partial: float
    width: int
    lr: float
    changes: tuple[float | None, ...]


def measure(
    task: Task, partial: float, base: tuple[int, float], widths: Iterable[int], seeds: Sequence[int]
) -> list[Coordinates]:
    """Take the first steps at each width, by each rule.

    Args:
        task: what to train on.
        partial: p.
        base: a width and the learning rate there.
        widths: all of them.
        seeds: of the runs.
    """
    found = []
    for rule, exponent in RULES.items():
        for width in widths:
            lr = base[1] * (width / base[0]) ** exponent(partial)
            changes = np.mean([_changes(task, lr, partial, width, seed) for seed in seeds], axis=0)
            shown = tuple(float(change) if math.isfinite(change) else None for change in changes)
            found.append(Coordinates(rule, partial, width, lr, shown))
    return found


def gradient(task: Task, width: int, seed: int) -> float:
    """The RMS of the first gradient of the matrix between the hidden layers."""
    model, _ = started(task, 0.0, 0.0, width, seed, 1)
    _, hidden, _ = (layer.weight.grad for layer in model.children() if isinstance(layer, nn.Linear))
    assert hidden is not None
    return hidden.square().mean().sqrt().item()


def _changes(task: Task, lr: float, partial: float, width: int, seed: int) -> list[float]:
    before, after = (_activations(started(task, lr, partial, width, seed, steps)[0], task) for steps in (0, STEPS))
    return [(b - a).square().mean().sqrt().item() for a, b in zip(before, after, strict=True)]


def _activations(model: nn.Module, task: Task) -> list[Tensor]:
    """The values of all linear layers for the same examples."""
    x, found = task.train[0][:EXAMPLES], []
    with torch.no_grad():
        for layer in model.children():
            x = layer(x)
            if isinstance(layer, nn.Linear):
                found.append(x)
    return found
