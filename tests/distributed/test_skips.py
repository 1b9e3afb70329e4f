"""Bad steps of distributed parameters: all processes agree, by one reduction for each dimension of a mesh."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import here, in_modes, maker
from processes import World, mesh
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, contents, gradient, params_of, same

SHAPES: list[tuple[int, ...]] = [(4, 3), (5,), (1, 2), (3,)]  # of the third one process has nothing, the last is plain
CASES = in_modes(list(pa.MEMBERS), [*MODES, {"foreach": True, "capturable": True}])


def placed(tensor: Tensor, index: int) -> Tensor:
    """A parameter or gradient as this process has it."""
    if index == 3:
        return tensor
    return distribute_tensor(tensor, mesh(2), [Replicate() if index == 1 else Shard(0)])


def give(optimizer: pa.PartialAdaptiveOptimizer, step: int, bad: float | None = None) -> None:
    """Set the gradients; the bad number is in the shard of the last process alone."""
    for i, param in enumerate(params_of(optimizer)):
        full = gradient(torch.empty(SHAPES[i], dtype=param.dtype), step, i)
        param.grad = placed(full, i)
        if i == 0 and bad is not None and dist.get_rank() == 1:
            assert isinstance(param.grad, DTensor)
            param.grad.to_local()[-1, -1] = bad


def reductions(communication: CommDebugMode) -> int:
    return sum(n for op, n in communication.get_comm_counts().items() if str(op).endswith("all_reduce"))


def course(name: str, mode: dict[str, Any]) -> int:
    """A course with bad steps is one without them, in each process; returns how many were skipped."""

    def make(**options: Any) -> pa.PartialAdaptiveOptimizer:
        plain = [gradient(torch.empty(shape, dtype=torch.float64), 50, i) for i, shape in enumerate(SHAPES)]
        return maker(name)([Parameter(placed(tensor, i)) for i, tensor in enumerate(plain)], **mode, **options)

    optimizer, twin = make(skip_nonfinite=True), make()
    for step, bad in enumerate((math.nan, None, math.inf, None, -math.inf, None)):
        give(optimizer, step, bad)
        optimizer.step()
        if bad is None:
            give(twin, step)
            twin.step()
            same(
                [*map(here, contents(optimizer))],
                [*map(here, contents(twin))],
                "a bad step has left a trace in one of the processes",
            )
    give(optimizer, 9)
    give(twin, 9)
    with CommDebugMode() as alone:
        twin.step()
    with CommDebugMode() as together:
        optimizer.step()
    assert reductions(together) - reductions(alone) == 1
    assert together.get_total_counts() - alone.get_total_counts() == 1
    return optimizer.skipped


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_all_processes_skip_the_same_steps(name: str, mode: dict[str, Any], two: World) -> None:
    """A bad number in the shard of one process skips the step in both, and one reduction is all it takes."""
    assert two.run(course, name, mode) == [3, 3]


def two_dimensions() -> tuple[int, int, int]:
    """Parameters on a mesh of two dimensions and on one of these."""
    grid = mesh(2, 2, names=("replicas", "shards"))
    params = [
        Parameter(distribute_tensor(torch.ones(4, 2), grid, [Replicate(), Shard(0)])),
        Parameter(distribute_tensor(torch.ones(4), grid["shards"], [Shard(0)])),
        Parameter(distribute_tensor(torch.ones(4), grid["shards"], [Shard(0)])),
    ]
    optimizer = pa.Padam(params, skip_nonfinite=True)
    for param in params[:2]:  # the third has no gradient
        param.grad = torch.zeros_like(param)
    if dist.get_rank() == 3:
        assert isinstance(params[1].grad, DTensor)
        params[1].grad.to_local()[0] = math.nan
    with CommDebugMode() as communication:
        optimizer.step()
    return optimizer.skipped, reductions(communication), communication.get_total_counts()


def test_meshes_of_several_dimensions(four: World) -> None:
    """One process of four has found something, on one dimension of the mesh: all four skip, after three reductions."""
    assert four.run(two_dimensions) == [(1, 3, 3)] * 4


def without_gradients() -> int:
    """A parameter that has a gradient in one process only, which is bad."""
    param = Parameter(distribute_tensor(torch.ones(4), mesh(2), [Shard(0)]))
    optimizer = pa.Padam([param, Parameter(torch.ones(1))], skip_nonfinite=True)
    if dist.get_rank() == 0:
        param.grad = DTensor.from_local(torch.ones(2), mesh(2), [Shard(0)])
        param.grad.to_local()[0] = math.nan
    optimizer.step()
    return optimizer.skipped


def test_processes_without_gradients_take_part(two: World) -> None:
    """A process that has no gradient at a step does not leave the others waiting, and counts as they do."""
    assert two.run(without_gradients) == [1, 1]


def reduced_by_hand() -> tuple[int, bool]:
    """What a user does who knows that plain tensors are shards: the flat parameters of FSDP1, for instance."""
    shard = Parameter(torch.ones(2))
    optimizer = pa.Padam([shard])
    shard.grad = torch.full((2,), math.nan if dist.get_rank() == 0 else 1.0)
    norm = shard.grad.norm() ** 2
    dist.all_reduce(norm)
    optimizer.found_inf = ~norm.isfinite()  # type: ignore[attr-defined]  # as a GradScaler does
    optimizer.step()
    return optimizer.skipped, torch.equal(shard, torch.ones(2))


def test_shards_that_are_plain_tensors(two: World) -> None:
    """Of these `found_inf` tells; all processes skip."""
    assert two.run(reduced_by_hand) == [(1, True)] * 2


def under_zero(told: bool) -> list[bool]:
    """Which parameters a bad gradient of the first has let move, where each process has one of them."""
    params = [Parameter(torch.ones(4)), Parameter(torch.ones(4))]
    make: Any = maker("padam")
    optimizer: Any = ZeroRedundancyOptimizer(params, make, skip_nonfinite=not told)
    for param, number in zip(params, (math.inf, 1.0), strict=True):
        param.grad = torch.full((4,), number)
    if told:
        optimizer.optim.found_inf = ~torch.nn.utils.clip_grad_norm_(params, 1.0).isfinite()
    optimizer.step()
    return [not torch.equal(param.detach(), torch.ones(4)) for param in params]


def test_zero_is_told(two: World) -> None:
    """A process of ZeRO sees the gradients of its own parameters alone; told of all of them, it skips with the rest."""
    assert two.run(under_zero, True) == [[False, False]] * 2
    assert two.run(under_zero, False) == [[False, True]] * 2, "then the docs need not say so any more"
