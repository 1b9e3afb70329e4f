"""DTensor, the parameters of FSDP2 and tensor parallelism, on a mesh of one process."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, gradient, parameters, same

SHAPES = [(4, 3), (5,), (2, 2)]


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def distributed(tensor: Tensor, mesh: DeviceMesh, index: int) -> DTensor:
    return distribute_tensor(tensor, mesh, [Replicate() if index == 2 else Shard(0)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"partial": 0.3, "maximize": True},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "partial": 0.0},
        {"capturable": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_dtensor(name: str, mode: dict[str, bool], options: dict[str, Any], mesh: DeviceMesh) -> None:
    """Sharded and replicated parameters, with plain ones in one optimizer, move as plain ones do."""
    plain = parameters([*SHAPES, (3,)])
    params = [Parameter(distributed(param.detach().clone(), mesh, i)) for i, param in enumerate(plain[:3])]
    params.append(Parameter(plain[3].detach().clone()))
    reference, optimizer = pa.create(name, plain, **options), pa.create(name, params, **options, **mode)
    for step in range(3):
        for i, (theirs, ours) in enumerate(zip(plain, params, strict=True)):
            theirs.grad = gradient(theirs, step, i)
            ours.grad = distributed(theirs.grad.clone(), mesh, i) if i < 3 else theirs.grad.clone()
        reference.step()
        optimizer.step()
    assert all(isinstance(param, DTensor) for param in params[:3])
    full = [param.full_tensor() if isinstance(param, DTensor) else param for param in params]
    same([it.detach() for it in full], [it.detach() for it in plain], f"{name} moves DTensors elsewhere", 1e-6)


def test_state_is_sharded_as_the_parameter(mesh: DeviceMesh) -> None:
    """State of a DTensor is one, placed as its parameter is."""
    param = Parameter(distributed(torch.ones(4, 3), mesh, 0))
    optimizer = pa.Padam([param])
    param.grad = distributed(torch.ones(4, 3), mesh, 0)
    optimizer.step()
    for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        state = optimizer.state[param][name]
        assert isinstance(state, DTensor)
        assert state.placements == param.placements
