"""FSDP2: every member in every mode trains as it does on one process, also with replicas and tensor parallelism."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import in_modes, maker
from processes import World, mesh
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from training import CLIP, ON_CPU, STEPS, Mode, Net, assert_as_expected, batch, expected, mine, train

import partial_adaptive as pa

pytestmark = ON_CPU
MEMBERS = list(pa.MEMBERS)


def sharded(where: DeviceMesh, layers: tuple[str, ...] = ("even", "uneven", "single"), **options: Any) -> Net:
    """The model with some of its layers sharded, each by itself, and the rest as one if these are all."""
    net = Net()
    for name in layers:
        fully_shard(getattr(net, name), mesh=where, **options)
    return fully_shard(net, mesh=where, **options) if len(layers) == 3 else net


def per_layer(name: str, mode: Mode, replicas: int) -> None:
    """Accumulation over two micro-batches, of which the first does not communicate; gradients are clipped."""
    net = sharded(mesh(2) if replicas == 1 else mesh(replicas, 2, names=("replicate", "shard")))
    optimizer = maker(name)(net.parameters(), **mode)
    for step in range(STEPS):
        optimizer.zero_grad()
        for micro in range(2):
            net.set_requires_gradient_sync(micro == 1)
            net(mine(step, micro)).backward()
        assert nn.utils.clip_grad_norm_(net.parameters(), CLIP).full_tensor() > CLIP
        optimizer.step()
    assert all(isinstance(param, DTensor) for param in net.parameters())
    assert_as_expected(net.parameters(), expected(name, accumulate=True, clip=True))


@pytest.mark.environment("FSDP2")
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_fsdp2(name: str, mode: Mode, two: World) -> None:
    """Layer by layer, with even, uneven and empty shards, accumulation and clipping."""
    two.run(per_layer, name, mode, 1)


@pytest.mark.environment("HSDP (4 processes)")
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_hsdp(name: str, mode: Mode, four: World) -> None:
    """Two replicas of two shards."""
    four.run(per_layer, name, mode, 2)


def beside_plain(name: str, mode: Mode) -> None:
    net = sharded(mesh(2), ("even", "single"))
    plain = [*net.uneven.parameters()]

    def average() -> None:
        for param in plain:
            assert param.grad is not None
            dist.all_reduce(param.grad)
            param.grad /= dist.get_world_size()

    optimizer = maker(name)(net.parameters(), **mode)
    train(net, optimizer, average)
    assert not any(isinstance(param, DTensor) for param in plain)
    assert_as_expected(net.parameters(), expected(name))


@pytest.mark.environment("FSDP2 beside plain parameters")
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_beside_plain_parameters(name: str, mode: Mode, two: World) -> None:
    """One optimizer has sharded parameters and plain ones, which are whole in every process."""
    two.run(beside_plain, name, mode)


class Even(nn.Module):
    """What FSDP2 can shard after tensor parallelism in any version of torch: without remainders."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up = nn.Linear(6, 8, dtype=torch.float64)
        self.down = nn.Linear(8, 4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(x))).square().mean()


def two_dimensional(name: str, mode: Mode) -> None:
    both = mesh(2, 2, names=("data", "tensor"))
    net = Even()
    parallelize_module(net, both["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    fully_shard(net, mesh=both["data"])
    optimizer = maker(name)(net.parameters(), **mode)
    for step in range(STEPS):
        optimizer.zero_grad()
        rows = both["data"].get_local_rank()

        net(batch(step, rows, 2)).backward()
        optimizer.step()
    assert {param.device_mesh.ndim for param in net.parameters()} == {2}
    assert_as_expected(net.parameters(), expected(name, model=Even))


@pytest.mark.environment("TP × FSDP2 (4 processes)")
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_tensor_parallel_and_fsdp2(name: str, mode: Mode, four: World) -> None:
    """Sharded twice, on a mesh of two dimensions."""
    four.run(two_dimensional, name, mode)
