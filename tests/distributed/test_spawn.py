"""Optimizers and parameters that are handed to another process."""

from typing import Any

import pytest
import torch.distributed as dist
from family import CAPTURABLE, in_modes, maker
from processes import World
from torch import Tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.testing.harness import contents, gradient, parameters, same, train, values

CASES = pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), CAPTURABLE))


def shared() -> list[Parameter]:
    """Parameters that lie in shared memory."""
    return [Parameter(param.detach().clone().share_memory_()) for param in parameters()]


def train_shared(name: str, mode: dict[str, Any], params: list[Parameter]) -> None:
    """Training in the first process, of parameters that belong to another one."""
    if dist.get_rank() == 0:
        train(maker(name)(params, **mode))
    dist.barrier()


def resume(optimizer: pa.PartialAdaptiveOptimizer) -> list[Tensor] | None:
    """Training that goes on with an optimizer from elsewhere."""
    if dist.get_rank():
        return None
    train(optimizer, steps=2, start=2)
    return [value.clone() for value in contents(optimizer)]


@pytest.mark.environment("spawn, and shared memory")
@CASES
def test_shared_parameters(name: str, mode: dict[str, Any], two: World) -> None:
    """What another process does to parameters in shared memory is seen here, and is what training here would do."""
    params, expected = shared(), parameters()
    two.run(train_shared, name, mode, params)
    train(maker(name)(expected, **mode))
    same(values(params), values(expected), "training in another process is another one")


@pytest.mark.environment("spawn, and shared memory")
@CASES
def test_sent_optimizer(name: str, mode: dict[str, Any], two: World) -> None:
    """An optimizer that was pickled in the middle of training goes on in another process where it was."""
    optimizer = maker(name)(parameters(), **mode)
    train(optimizer, steps=2)
    ended, _ = two.run(resume, optimizer)
    expected = maker(name)(parameters(), **mode)
    train(expected, steps=4)
    same(ended, contents(expected), "in another process training goes on otherwise")


@pytest.mark.environment("spawn, and shared memory")
@CASES
def test_in_turns(name: str, mode: dict[str, Any], two: World) -> None:
    """Two processes with an optimizer each step the same parameters in turns; none sees what has been."""
    params = shared()
    two.run(take_turns, name, mode, params)
    expected = parameters()
    optimizers = [maker(name)(expected, **mode) for _ in range(2)]
    for step in range(3):
        for optimizer in optimizers:
            for index, param in enumerate(expected):
                param.grad = gradient(param, step, index)
            optimizer.step()
    same(values(params), values(expected), "an update of one process was lost")


def take_turns(name: str, mode: dict[str, Any], params: list[Parameter]) -> None:
    """Steps by one process after the other."""
    optimizer = maker(name)(params, **mode)
    for step in range(3):
        for rank in range(2):
            if dist.get_rank() == rank:
                for index, param in enumerate(params):
                    param.grad = gradient(param, step, index)
                optimizer.step()
            dist.barrier()
