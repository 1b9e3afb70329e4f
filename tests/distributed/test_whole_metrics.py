"""`metrics()` of distributed parameters: numbers of the whole, the same in all processes."""

import dataclasses
import math

import pytest
import torch
from family import maker
from processes import World, mesh
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn import Parameter

from partial_adaptive import MEMBERS, Metrics
from partial_adaptive.testing.harness import gradient, params_of

SHAPES: list[tuple[int, ...]] = [(5, 3), (5,), (1, 2), (3,)]  # of the third one process has nothing, the last is plain


def placed(tensor: Tensor, index: int) -> Tensor:
    """A parameter or gradient as this process has it."""
    return tensor if index == 3 else distribute_tensor(tensor, mesh(2), [Replicate() if index == 1 else Shard(0)])


def of_both(name: str) -> list[tuple[Metrics, Metrics]]:
    """The metrics of some steps, and those of the same parameters as plain tensors."""
    plain = [gradient(torch.empty(shape, dtype=torch.float64), 50, i) for i, shape in enumerate(SHAPES)]
    spread = [Parameter(placed(tensor.clone(), i)) for i, tensor in enumerate(plain)]
    optimizer, twin = maker(name)(spread, weight_decay=0.1), maker(name)(plain, weight_decay=0.1)
    found = []
    for step, bad in enumerate((None, None, math.inf)):
        for i, (ours, theirs) in enumerate(zip(params_of(optimizer), params_of(twin), strict=True)):
            theirs.grad = gradient(theirs, step, i)
            if i == 0 and bad is not None:
                theirs.grad[-1] = bad
            ours.grad = placed(theirs.grad.clone(), i)
        found.append((optimizer.metrics(), twin.metrics()))
        optimizer.step()
        twin.step()
    return found


@pytest.mark.parametrize("name", list(MEMBERS))
def test_metrics_are_those_of_the_whole(name: str, two: World) -> None:
    """Norms, quantiles and shares are those of plain tensors, to 1e-12, in both processes; so is a bad gradient."""
    for found in two.run(of_both, name):
        for ours, right in found:
            for actual, expected in zip(dataclasses.astuple(ours)[:-1], dataclasses.astuple(right)[:-1], strict=True):
                assert actual == (expected and pytest.approx(expected, rel=1e-12, nan_ok=True))
        assert math.isinf(found[-1][0].grad_norm)
