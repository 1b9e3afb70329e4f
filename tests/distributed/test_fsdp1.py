"""The older FullyShardedDataParallel: elementwise members train as on one process, the others are refused by name."""

import re
import warnings
from typing import Any

import pytest
import torch
from family import ELEMENTWISE, in_modes, maker
from processes import World
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn import Linear
from training import STEPS, Mode, Net, assert_as_expected, batch, expected, mine, train

import partial_adaptive as pa
from partial_adaptive import L2Ball, equivalent_lr
from partial_adaptive.testing.harness import raises, same, values

REFUSED = "is a part of what FullyShardedDataParallel has made one vector of, and .* must see whole TENSORs"


def wrapped(original: bool, strategy: ShardingStrategy = ShardingStrategy.FULL_SHARD) -> FullyShardedDataParallel:
    """The model with a flat parameter for each layer, which the optimizer sees in `original` pieces, or as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # use fully_shard, use DDP
        return FullyShardedDataParallel(
            Net(),
            sharding_strategy=strategy,
            auto_wrap_policy=ModuleWrapPolicy({Linear}),
            use_orig_params=original,
            device_id=torch.device("cpu"),
        )


def finish(net: FullyShardedDataParallel, name: str) -> None:
    with FullyShardedDataParallel.summon_full_params(net):
        assert_as_expected(values(net.parameters()), expected(name))


def flat(name: str, mode: Mode, original: bool) -> str | None:
    """Train; the refusal where there is one."""
    net = wrapped(original)
    optimizer = maker(name)(net.parameters(), **mode)
    if name not in ELEMENTWISE:
        net(mine(0)).backward()
        before = values(net.parameters())
        reason = raises(RuntimeError, optimizer.step, "a piece of a vector is taken for a whole tensor")
        same(values(net.parameters()), before, "something has changed")
        assert not optimizer.state
        return reason
    train(net, optimizer)
    finish(net, name)
    return None


@pytest.mark.environment("FSDP1")
@pytest.mark.parametrize("original", [False, True], ids=["flat", "original"])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_fsdp1(name: str, mode: Mode, original: bool, two: World, record_property: Any) -> None:
    """With and without use_orig_params, even, uneven and empty pieces."""
    for reason in two.run(flat, name, mode, original):
        if reason is not None:
            assert re.search(REFUSED, reason), reason
            record_property("refused", reason)


def whole_vectors() -> list[str]:
    """What is said of a set of whole vectors, and of a length that no process has."""
    net = wrapped(False)
    balls = pa.Padam(net.parameters(), constraint=L2Ball(1.0))
    net(mine(0)).backward()
    plain = pa.Padam(net.parameters())
    return [
        raises(RuntimeError, balls.step, "a piece of a vector is projected as if it were whole"),
        raises(RuntimeError, lambda: equivalent_lr(plain, 0.5), "each process finds another learning rate"),
    ]


def test_what_needs_whole_vectors(two: World) -> None:
    """Sets of whole tensors, and the equivalent learning rate, are refused by name."""
    for ball, rate in two.run(whole_vectors):
        assert re.search(REFUSED, ball)
        assert "equivalent_lr: param group 0 of Padam has parts of FullyShardedDataParallel's vectors" in rate


def unsharded() -> None:
    for name in pa.MEMBERS:
        net = wrapped(True, ShardingStrategy.NO_SHARD)
        weights = [param for param in net.parameters() if param.ndim == 2]
        twin = Net()
        theirs = [param for param in twin.parameters() if param.ndim == 2]
        ours, reference = maker(name)(weights), maker(name)(theirs, foreach=False)
        train(net, ours)
        for step in range(STEPS):
            reference.zero_grad()
            twin(batch(step)).backward()
            reference.step()
        same(values(weights), values(theirs), f"{name} goes elsewhere", 1e-12)


def test_unsharded_parameters_are_whole(two: World) -> None:
    """Matrices that FullyShardedDataParallel leaves as they are, with NO_SHARD, are nobody's pieces."""
    two.run(unsharded)
