"""The counter-examples, played: by the library, and faster in NumPy; both on [−1, 1] with αₜ = α/√t and β₁ = 0."""

import numpy as np
import torch
from scipy.signal import lfilter

from benchmarks.theory.regret.drift import Cycle
from benchmarks.theory.regret.sets import Vector
from partial_adaptive import Box, InverseSqrt, Padam, PartialAdam, Schedule


def gradients(cycle: Cycle, rounds: int) -> Vector:
    """C, −1, …, −1, C, −1, … of so many rounds."""
    return np.where(np.arange(rounds) % cycle.length == 0, cycle.c, -1.0)


def path(cycle: Cycle, partial: float, lr: float, rounds: int, *, maximum: bool) -> Vector:
    """The point after each round, from 0.

    Args:
        cycle: the losses, and β₂.
        partial: p.
        lr: α.
        rounds: how many.
        maximum: whether v is the largest of the averages so far, as Amsgrad and Padam have it.
    """
    g = gradients(cycle, rounds)
    v = lfilter([1 - cycle.beta], [1, -cycle.beta], g**2)
    v = np.maximum.accumulate(v) if maximum else v
    x, points = 0.0, []
    for step in (-lr / np.sqrt(np.arange(1, rounds + 1)) * g / v**partial).tolist():
        x = min(max(x + step, -1.0), 1.0)
        points.append(x)
    return np.array(points)


def library_path(cycle: Cycle, partial: float, lr: float, rounds: int, *, maximum: bool) -> Vector:
    """What `path` gives, by Padam or, without the maximum, PartialAdam."""
    x, g = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    x.grad = g
    build = Padam if maximum else PartialAdam
    optimizer = build(
        [x],
        lr=lr,
        betas=(0.0, cycle.beta),
        partial=partial,
        eps=0.0,
        bias_correction="none",
        constraint=Box(-1, 1),
    )
    schedule = Schedule(optimizer, lr=InverseSqrt())
    points = []
    for gradient in gradients(cycle, rounds).tolist():
        g.fill_(gradient)
        optimizer.step()
        schedule.step()
        points.append(x.item())
    return np.array(points)


def measured_critical(cycle: Cycle, cycles: int = 10_000) -> float:
    """The p at which the drift changes sign, by bisection on paths without the maximum.

    A path counts by where it goes in its second half: by then v is steady, and α changes little within a cycle. α is
    so small that no path reaches a wall.
    """
    low, high = 0.0, 0.5
    while high - low > 1e-5:
        middle = (low + high) / 2
        points = path(cycle, middle, 1e-3 / cycle.c, cycles * cycle.length, maximum=False)
        low, high = (low, middle) if points[-1] > points[len(points) // 2 - 1] else (middle, high)
    return (low + high) / 2
