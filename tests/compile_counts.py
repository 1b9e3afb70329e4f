"""How a training step looks to torch.compile: graphs, breaks and recompilations, ours beside torch.optim.Adam's.

`python tests/compile_counts.py` prints the table of docs/execution.md.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import Parameter
from torch.optim import Adam, Optimizer

import partial_adaptive as pa
from partial_adaptive.testing.harness import gradient, parameters, params_of

SHAPES = ((3, 4), (5,))
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "capturable": {"capturable": True},
}
STEPS = 50
Train = Callable[[], Any]


@dataclass(frozen=True)
class Counts:
    """What torch.compile made of a function.

    Args:
        graphs: how many it compiled.
        breaks: the places at which it broke a graph, in torch's words.
    """

    graphs: int
    breaks: frozenset[str]


class Counting:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module: torch.fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return module.forward


def counted(function: Train, calls: int = 2) -> Counts:
    """Compile a function afresh, call it, and count."""
    torch._dynamo.reset()
    counters.clear()
    backend = Counting()
    compiled = torch.compile(function, backend=backend)
    for _ in range(calls):
        compiled()
    return Counts(backend.graphs, frozenset(counters["graph_break"]))


def whole(params: Sequence[Parameter], optimizer: Optimizer | None) -> Train:
    """A training step, without an optimizer all but its part: what breaks there is `backward` and `zero_grad`."""
    clearing = optimizer or torch.optim.SGD(params)

    def train() -> Tensor:
        loss = torch.stack([(param.square() + param).sum() for param in params]).sum()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        clearing.zero_grad()
        return loss

    return train


@cache
def breaks_without() -> frozenset[str]:
    """Those of a training step that are not the optimizer's."""
    return counted(whole(parameters(SHAPES), None)).breaks


def counts_of(make: Callable[..., Optimizer], **mode: Any) -> tuple[Counts, Counts]:
    """Of a training step, with the breaks that the optimizer adds, and of `step` alone."""
    params = parameters(SHAPES)
    step = counted(whole(params, make(params, **mode)))
    for index, param in enumerate(params):
        param.grad = gradient(param, 0, index)
    return Counts(step.graphs, step.breaks - breaks_without()), counted(make(params, **mode).step)


def set_numbers(optimizer: Optimizer, step: int) -> None:
    """Give lr, betas and p values that they have not had before; tensors are filled."""
    size = 1 / (step + 2)
    moved = {"lr": 0.01 + 0.01 * size, "partial": 0.1 + 0.1 * size, "betas": (0.8 + 0.1 * size, 0.9 + 0.05 * size)}
    for group in optimizer.param_groups:
        for name in moved.keys() & group.keys():
            old, new = group[name], moved[name]
            if isinstance(old, Tensor):
                old.fill_(new)
            elif isinstance(old, tuple) and isinstance(old[0], Tensor):
                for tensor, value in zip(old, new, strict=True):
                    tensor.fill_(value)
            else:
                group[name] = new


def recompiled(optimizer: Optimizer, steps: int = STEPS) -> int:
    """How many graphs or pieces of code a compiled `step` was compiled into after the first, with `set_numbers`."""
    torch._dynamo.reset()
    counters.clear()
    step = torch.compile(optimizer.step, backend="aot_eager")  # AOTAutograd may make constants of inputs
    first = 0
    for index in range(steps):
        for i, param in enumerate(params_of(optimizer)):
            param.grad = gradient(param, index, i)
        set_numbers(optimizer, index)
        step()
        first = first or counters["frames"]["total"]
    return int(counters["frames"]["total"] - first)


def table() -> str:
    """Rows (mode, for ours and Adam's: graphs and breaks of a training step and of `step`, recompilations)."""
    lines = [
        "| mode | | graphs, training step | breaks of the optimizer | graphs, `step` | breaks | recompilations |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, mode in MODES.items():
        for make in (pa.PartialAdam, Adam):
            step, alone = counts_of(make, **mode)
            try:
                times = str(recompiled(make(parameters(SHAPES), **mode)))
            except AssertionError:  # at its limit Dynamo lets the step run as it is, and torch's own is for GPUs then
                times = "8, then an error"
            row = (name, make.__name__, step.graphs, len(step.breaks), alone.graphs, len(alone.breaks), times)
            lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.stdout.write(f"{table()}\n")
