"""Data parallelism with whole parameters: with DDP, ZeRO and PostLocalSGD every member trains as on one process."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import in_modes, maker
from processes import World
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from training import STEPS, Mode, Net, assert_as_expected, batch, expected, mine, train

import partial_adaptive as pa
from partial_adaptive.testing.harness import raises, values

MEMBERS = list(pa.MEMBERS)


def accumulated(name: str, mode: Mode) -> None:
    net = DistributedDataParallel(Net(), gradient_as_bucket_view=True)
    optimizer = maker(name)(net.parameters(), **mode)
    for step in range(STEPS):
        optimizer.zero_grad()
        with net.no_sync():
            net(mine(step, 0)).backward()
        net(mine(step, 1)).backward()
        optimizer.step()
    assert_as_expected(net.parameters(), expected(name, accumulate=True))


@pytest.mark.environment("DDP")
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_ddp(name: str, mode: Mode, two: World) -> None:
    """With accumulation under no_sync, and gradients that are views of buckets."""
    two.run(accumulated, name, mode)


def static_graphs() -> None:
    for name in MEMBERS:
        net = DistributedDataParallel(Net(), static_graph=True)
        train(net, maker(name)(net.parameters()))
        assert_as_expected(net.parameters(), expected(name))


def test_ddp_with_a_static_graph(two: World) -> None:
    """Every member, as it comes."""
    two.run(static_graphs)


def zero(name: str, mode: Mode, as_view: bool) -> None:
    """Training that is interrupted after each step, from the state of one process that has all of it."""
    net = DistributedDataParallel(Net())
    make: Any = maker(name)

    def optimizer() -> ZeroRedundancyOptimizer:
        return ZeroRedundancyOptimizer(net.parameters(), make, parameters_as_bucket_view=as_view, **mode)

    current = optimizer()
    for step in range(STEPS):
        current.zero_grad()
        net(mine(step)).backward()
        current.step()
        current.consolidate_state_dict(to=0)
        checkpoint: list[Any] = [current.state_dict() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(checkpoint, src=0)
        assert len(checkpoint[0]["state"]) == len([*net.parameters()]), "a process's state is missing"
        current = optimizer()
        current.load_state_dict(checkpoint[0])
    assert_as_expected(net.parameters(), expected(name))


@pytest.mark.environment("ZeroRedundancyOptimizer")
@pytest.mark.parametrize("as_view", [False, True], ids=["", "views"])
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_zero(name: str, mode: Mode, as_view: bool, two: World) -> None:
    """Each process updates some of the parameters; state is consolidated, saved and loaded at every step."""
    two.run(zero, name, mode, as_view)


def overlapping() -> str:
    make: Any = maker(MEMBERS[0])
    return raises(
        ValueError,
        lambda: ZeroRedundancyOptimizer(Net().parameters(), make, overlap_with_ddp=True),
        "torch overlaps ZeRO with DDP for any optimizer: say so in docs/distributed.md",
    )


def test_zero_does_not_overlap(two: World) -> None:
    """`overlap_with_ddp` is for torch's own functional optimizers, which it says itself."""
    for message in two.run(overlapping):
        assert "there is no supported functional optimizer equivalent" in message


PERIOD = 2


@pytest.mark.environment("PostLocalSGDOptimizer")
@pytest.mark.parametrize(("name", "mode"), in_modes(MEMBERS))
def test_post_local_sgd(name: str, mode: Mode, two: World) -> None:
    """Each process goes its own way, and every second step they meet in the middle."""
    two.run(local_sgd, name, mode)


def local_sgd(name: str, mode: Mode) -> None:
    steps = 2 * PERIOD
    net = Net()
    averager = PeriodicModelAverager(period=PERIOD, warmup_steps=0)
    optimizer = PostLocalSGDOptimizer(maker(name)(net.parameters(), **mode), averager)
    for step in range(steps):
        optimizer.zero_grad()
        net(mine(step)).backward()
        optimizer.step()
    nets = [Net(), Net()]
    optimizers = [maker(name)(twin.parameters(), foreach=False) for twin in nets]
    for step in range(steps):
        for part, (twin, each) in enumerate(zip(nets, optimizers, strict=True)):
            each.zero_grad()
            twin(batch(step, part, 2)).backward()
            each.step()
        if step % PERIOD == 0:
            with torch.no_grad():
                for a, b in zip(*(twin.parameters() for twin in nets), strict=True):
                    middle = (a + b) / 2
                    a.copy_(middle)
                    b.copy_(middle)
    assert_as_expected(net.parameters(), values(nets[dist.get_rank()].parameters()))
