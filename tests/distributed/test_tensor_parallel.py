"""Tensor parallelism: every member in every mode trains as it does on one process."""

from typing import Any

import pytest
from family import in_modes, maker
from processes import World, mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module
from training import Block, Mode, assert_as_expected, expected, train

import partial_adaptive as pa


def parallel(name: str, mode: Mode) -> list[Any]:
    """Train; how the norm's gradient is placed."""
    net = Block()
    plan = {
        "norm": SequenceParallel(sequence_dim=0),
        "up": ColwiseParallel(input_layouts=Shard(0), use_local_output=False),  # which would forget the remainder
        "down": RowwiseParallel(output_layouts=Replicate()),
    }
    parallelize_module(net, mesh(2), plan)
    optimizer = maker(name)(net.parameters(), **mode)
    train(net, optimizer)
    assert_as_expected(net.parameters(), expected(name, model=Block))
    weight: Any = net.norm.weight
    return [*weight.placements, *weight.grad.placements]


@pytest.mark.environment("tensor parallel")
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_tensor_parallel(name: str, mode: Mode, two: World) -> None:
    """Columns and rows, not evenly, and a norm under sequence parallelism, whose gradient comes as partial sums."""
    for param, grad in two.run(parallel, name, mode):
        assert param.is_replicate()
        assert grad.is_partial()
