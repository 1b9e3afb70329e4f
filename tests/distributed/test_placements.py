"""Gradients that are placed otherwise than their parameters, in every mode and for every member."""

import re
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import here, in_modes, maker
from processes import World, mesh
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.nn import Parameter
from training import Mode, whole

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, contents, gradient, parameters, raises, same, values

PAIRS: list[tuple[Placement, Placement]] = [
    (Replicate(), Partial()),
    (Replicate(), Shard(0)),
    (Shard(0), Replicate()),
    (Shard(0), Partial()),
    (Shard(0), Shard(1)),
    (Shard(1), Shard(0)),
    (Shard(0), Shard(0)),
]  # of a parameter and its gradient
SHAPE = (5, 3)  # uneven in both
ALL_MODES = [*MODES, {"foreach": False, "capturable": True}, {"differentiable": True}]
STEPS = 3


def distributed(tensor: Tensor, placement: Placement, where: DeviceMesh) -> DTensor:
    """A tensor as it is in both processes; as partial sums, this process has its rank's share."""
    if not placement.is_partial():
        return distribute_tensor(tensor, where, [placement])
    first = torch.rand(tensor.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(tensor.dtype)
    return DTensor.from_local(first if dist.get_rank() == 0 else tensor - first, where, [placement], run_check=False)


def otherwise(name: str, mode: Mode) -> None:
    where = mesh(2)
    plain = parameters([SHAPE] * len(PAIRS))
    params: list[Any] = [
        distribute_tensor(param.detach(), where, [ours]) for param, (ours, _) in zip(plain, PAIRS, strict=True)
    ]
    if not mode.get("differentiable"):
        params = [Parameter(param) for param in params]
    capturable = mode.get("capturable", False)
    reference = maker(name)(plain, foreach=False, capturable=capturable)
    optimizer = maker(name)(params, **mode)
    for step in range(STEPS):
        given = []
        for i, (param, twin, (_, theirs)) in enumerate(zip(params, plain, PAIRS, strict=True)):
            twin.grad = gradient(twin, step, i)
            param.grad = distributed(twin.grad, theirs, where)
            given.append((param.grad, param.grad.to_local().clone()))
        reference.step()
        optimizer.step()
        for param, (grad, local), (_, theirs) in zip(params, given, PAIRS, strict=True):
            assert param.grad is grad, "the gradient is another one"
            assert grad.placements == (theirs,), "the gradient is placed otherwise"
            assert torch.equal(grad.to_local(), local), "the gradient has changed"
    assert [param.placements for param in params] == [(ours,) for ours, _ in PAIRS]
    same([*whole(params)], values(plain), f"{name} goes elsewhere", 1e-12)


@pytest.mark.environment("gradients placed otherwise")
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), ALL_MODES))
def test_gradients_placed_otherwise(name: str, mode: Mode, two: World) -> None:
    """Partial sums, other shards and replicas are placed as the parameter first; `.grad` stays the user's."""
    two.run(otherwise, name, mode)


def mismatches() -> list[tuple[str, str]]:
    """What is wrong, by name, and what each member says of it; nothing has changed then."""
    ours, other = mesh(2), mesh(1, 2)
    (tensor,) = values(parameters([SHAPE]))

    def sharded() -> Any:
        return distribute_tensor(tensor.clone(), ours, [Shard(0)])

    cases: dict[str, tuple[Any, Any]] = {
        "plain gradient": (sharded(), tensor.clone()),
        "plain parameter": (tensor.clone(), sharded()),
        "another mesh": (sharded(), distribute_tensor(tensor, other, [Replicate(), Shard(0)])),
        "partial parameter": (DTensor.from_local(tensor.clone(), ours, [Partial()], run_check=False), sharded()),
    }
    said = []
    for name in pa.MEMBERS:
        for what, (value, grad) in cases.items():
            good, bad = Parameter(tensor.clone()), Parameter(value)
            good.grad, bad.grad = tensor.clone(), grad
            optimizer = maker(name)([good, bad])
            before = contents(optimizer)
            said.append((what, raises(RuntimeError, optimizer.step, f"{name} takes a {what}")))
            assert not optimizer.state
            same([*map(here, contents(optimizer))], [*map(here, before)], "something has changed")
    return said


def test_what_does_not_belong_together(two: World) -> None:
    """A plain gradient of a DTensor, the reverse, and one on another mesh are refused by name; so is a Partial θ."""
    says = {
        "plain gradient": "is a DTensor on .*, and its gradient a plain tensor",
        "plain parameter": "is a plain tensor, and its gradient a DTensor on",
        "another mesh": "is a DTensor on .*, and its gradient a DTensor on",
        "partial parameter": "a parameter cannot be sums that are still to be taken",
    }
    for what, message in two.run(mismatches)[0]:
        assert re.search(f"parameter number 1 of its group, .* {says[what]}", message), (what, message)


def switched(name: str, mode: Mode) -> None:
    """A kept plan meets gradients of another placement, and of another mesh."""
    where = mesh(2)
    (plain,) = parameters([SHAPE])
    param: Any = Parameter(distribute_tensor(plain.detach().clone(), where, [Shard(0)]))
    reference, optimizer = maker(name)([plain], foreach=False), maker(name)([param], **mode)
    for step, placement in enumerate((Shard(0), Shard(0), Partial(), Replicate(), Shard(1), Shard(0))):
        plain.grad = gradient(plain, step)
        param.grad = distributed(plain.grad, placement, where)
        reference.step()
        optimizer.step()
    same([*whole([param])], values([plain]), f"{name} goes elsewhere", 1e-12)
    param.grad = distribute_tensor(gradient(plain, 0), mesh(1, 2), [Replicate(), Shard(0)])
    raises(RuntimeError, optimizer.step, "a gradient of another mesh is taken by a plan that is kept")


@pytest.mark.environment("gradients placed otherwise")
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_placements_that_change(name: str, mode: Mode, two: World) -> None:
    """From step to step, while the plan of the last step is kept."""
    two.run(switched, name, mode)


def derivatives(name: str) -> None:
    """By what two steps start from, of a function of where they end; gradients are placed otherwise."""
    where = mesh(2)
    (start,) = values(parameters([SHAPE]))
    found = []
    for sharded in (False, True):

        def place(tensor: Tensor, placement: Placement, it: bool = sharded) -> Tensor:
            return distributed(tensor, placement, where) if it else tensor.clone()

        leaf = place(start, Shard(0)).requires_grad_()
        grads = [place(gradient(start, step), Replicate()) for step in range(2)]
        param = leaf.clone()
        optimizer = maker(name)([param], differentiable=True)
        for grad in grads:
            param.grad = grad
            optimizer.step()
        (end,) = [param.full_tensor() if isinstance(param, DTensor) else param]
        (end * gradient(start, 5)).sum().backward()
        found += whole([leaf.grad])
    same(found[1:], found[:1], f"{name} has another derivative", 1e-10)
    assert found[0].abs().max() > 0


@pytest.mark.parametrize("name", list(pa.MEMBERS))
def test_derivatives(name: str, two: World) -> None:
    """Autograd runs through a differentiable step of distributed parameters, gathered or in parts."""
    two.run(derivatives, name)
