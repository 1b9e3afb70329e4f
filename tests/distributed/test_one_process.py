"""DTensors on a mesh of one process, where options are many and what is remembered can be looked at."""

from typing import Any

import pytest
import torch
from family import WHOLE, in_modes, maker, shaped
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.execution.checks import Checks
from partial_adaptive.execution.compiled.launch import Compiled
from partial_adaptive.execution.eager import Foreach, Loop
from partial_adaptive.testing.harness import MODES, gradient, parameters, same, values

SHAPES = [(4, 3), (5,), (2, 2)]


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
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_dtensor(name: str, mode: dict[str, Any], options: dict[str, Any], mesh: DeviceMesh) -> None:
    """Sharded and replicated parameters, with plain ones in one optimizer, move as plain ones do."""
    plain = parameters([*SHAPES, (3,)])
    params = [Parameter(distributed(param.detach().clone(), mesh, i)) for i, param in enumerate(plain[:3])]
    params.append(Parameter(plain[3].detach().clone()))
    make = maker(name, **options)
    reference, optimizer = make(plain, **mode), make(params, **mode)
    for step in range(3):
        for i, (theirs, ours) in enumerate(zip(plain, params, strict=True)):
            theirs.grad = gradient(theirs, step, i)
            ours.grad = distributed(theirs.grad.clone(), mesh, i) if i < 3 else theirs.grad.clone()
        reference.step()
        optimizer.step()
    assert all(isinstance(param, DTensor) for param in params[:3])
    full = [param.full_tensor() if isinstance(param, DTensor) else param for param in params]
    same([it.detach() for it in full], [it.detach() for it in plain], f"{name} moves DTensors elsewhere", 1e-12)


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


def pair(mesh: DeviceMesh, **options: Any) -> tuple[pa.Padam, pa.Padam]:
    """Optimizers of the same parameters, distributed and plain."""
    plain = parameters(SHAPES)
    params = [Parameter(distributed(param.detach().clone(), mesh, i)) for i, param in enumerate(plain)]
    return pa.Padam(params, **options), pa.Padam(plain)


def both(optimizers: tuple[pa.Padam, pa.Padam], step: int, place: Any) -> None:
    """Take a step with the same gradients, placed by a function for the distributed ones."""
    ours, plain = optimizers
    for i, (param, twin) in enumerate(
        zip(ours.param_groups[0]["params"], plain.param_groups[0]["params"], strict=True)
    ):
        twin.grad = gradient(twin, step, i)
        param.grad = place(twin.grad.clone(), i)
    ours.step()
    plain.step()


def assert_alike(optimizers: tuple[pa.Padam, pa.Padam], otherwise: str) -> None:
    ours, plain = optimizers
    full = [param.full_tensor().detach() for param in ours.param_groups[0]["params"]]
    same(full, values(plain.param_groups[0]["params"]), otherwise, 1e-12)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_plans_are_kept(mode: dict[str, Any], mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributed tensors are planned for once, as plain ones are; a plan for each step took a hundredfold."""
    prepared: list[int] = []
    for backend in (Loop, Foreach, Compiled):
        prepare = backend.prepare
        monkeypatch.setattr(backend, "prepare", lambda *args, it=prepare: prepared.append(1) or it(*args))
    optimizers = pair(mesh, **mode)
    optimizers[1].param_groups[0]["foreach"] = False
    for step in range(4):
        prepared.clear()
        both(optimizers, step, lambda grad, i: distributed(grad, mesh, i))
        assert len(prepared) == (2 if step == 0 else 0)
    for state in optimizers[0].state.values():
        state["exp_avg"] = state["exp_avg"].clone()  # elsewhere, and it looks the same
    both(optimizers, 4, lambda grad, i: distributed(grad, mesh, i))
    assert_alike(optimizers, "state that was replaced was not what the step used")


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_checked_once(name: str, mode: dict[str, Any], mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks as it did is not checked again, whether its parts are updated or the whole; what has moved is."""
    checked: list[Tensor] = []
    parameter = Checks.parameter
    monkeypatch.setattr(Checks, "parameter", lambda self, param: checked.append(param) or parameter(self, param))
    params = [Parameter(distributed(param.detach(), mesh, i)) for i, param in enumerate(parameters(SHAPES))]
    optimizer = maker(name)(params, **mode)
    for step, count in enumerate((len(params), 0, 0)):
        for i, param in enumerate(params):
            param.grad = distributed(gradient(param, step, i), mesh, i)
        checked.clear()
        optimizer.step()
        assert len(checked) == count
    params[0].grad = torch.ones(SHAPES[0], dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"number 0 .* is a DTensor on .*, and its gradient a plain tensor"):
        optimizer.step()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_state_placed_otherwise(mode: dict[str, Any], mesh: DeviceMesh) -> None:
    """State that is not placed as its parameter is refused by name, at any step, before anything has changed."""
    optimizers = pair(mesh, **mode)
    ours, _ = optimizers
    both(optimizers, 0, lambda grad, i: distributed(grad, mesh, i))
    first = ours.param_groups[0]["params"][0]
    right = ours.state[first]["exp_avg"]
    for wrong in (distribute_tensor(right.full_tensor(), mesh, [Replicate()]), right.full_tensor()):
        ours.state[first]["exp_avg"] = wrong
        before = [param.full_tensor().clone() for param in ours.param_groups[0]["params"]]
        with pytest.raises(RuntimeError, match=r"Padam: parameter number 0 .*exp_avg"):
            ours.step()
        same([param.full_tensor() for param in ours.param_groups[0]["params"]], before, "something has changed")
    ours.state[first]["exp_avg"] = right
    both(optimizers, 1, lambda grad, i: distributed(grad, mesh, i))
    assert_alike(optimizers, "training does not go on")


@pytest.mark.parametrize("name", [name for name in WHOLE if shaped(maker(name)([torch.ones(1)]))])
def test_distributed_state_of_another_shape(name: str, mesh: DeviceMesh) -> None:
    """State with a shape of its own is a plain tensor; a DTensor in its place is refused by name."""
    (plain, *_) = parameters(SHAPES)
    param: Any = Parameter(distributed(plain.detach().clone(), mesh, 0))
    optimizer = maker(name)([param])
    param.grad = distributed(gradient(plain, 0), mesh, 0)
    optimizer.step()
    key = next(key for key in shaped(optimizer) if optimizer.state[param][key].numel())
    optimizer.state[param][key] = distribute_tensor(optimizer.state[param][key], mesh, [Replicate()])
    before = param.full_tensor().clone()
    with pytest.raises(RuntimeError, match=rf"number 0 .*'{key}'\] a DTensor .*; it must be a plain tensor"):
        optimizer.step()
    assert torch.equal(param.full_tensor(), before)


@pytest.mark.parametrize("name", list(pa.MEMBERS))
def test_checkpoints_of_distributed_state(name: str, mesh: DeviceMesh) -> None:
    """State of DTensors is saved and loaded as DTensors, and training goes on."""
    start = parameters(SHAPES)
    runs = []
    for resumed in (False, True):
        params = [Parameter(distributed(param.detach().clone(), mesh, i)) for i, param in enumerate(start)]
        optimizer = maker(name)(params)
        for step in range(4):
            if resumed and step == 2:
                checkpoint = optimizer.state_dict()
                optimizer = maker(name)(params)
                optimizer.load_state_dict(checkpoint)
            for i, param in enumerate(params):
                param.grad = distributed(gradient(start[i], step, i), mesh, i)
            optimizer.step()
        runs.append([param.full_tensor().detach() for param in params])
        for param in params:
            own = shaped(optimizer)
            slots = [value for name, value in optimizer.state[param].items() if value.ndim and name not in own]
            assert all(isinstance(value, DTensor) and value.placements == param.placements for value in slots)
    same(runs[1], runs[0], "training resumed from a checkpoint differs")


@pytest.mark.parametrize("kind", ["stochastic", "kahan"])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS)))
def test_rounding(name: str, mode: dict[str, Any], kind: str, mesh: DeviceMesh) -> None:
    """The parts of parameters in 16 bits are rounded as plain ones are."""
    plain = parameters(SHAPES, torch.bfloat16)
    params = [Parameter(distributed(param.detach().clone(), mesh, i)) for i, param in enumerate(plain)]
    make = maker(name)
    reference = make([{"params": plain, "rounding": kind}], **mode)
    optimizer = make([{"params": params, "rounding": kind}], **mode)
    for step in range(3):
        for i, (theirs, ours) in enumerate(zip(plain, params, strict=True)):
            theirs.grad = gradient(theirs, step, i)
            ours.grad = distributed(theirs.grad.clone(), mesh, i)
        reference.step()
        optimizer.step()
    same([param.full_tensor() for param in params], values(plain), "parts are rounded otherwise")


def codes(name: str) -> bool:
    """Whether a member has state that can be coded."""
    optimizer = maker(name, state_dtype="8bit")([torch.ones(4, 3)])
    return bool(optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).coded)


@pytest.mark.parametrize("name", [name for name in pa.MEMBERS if codes(name)])
def test_codes_are_refused(name: str, mesh: DeviceMesh) -> None:
    """The blocks of a code are those of the whole tensor: coded state of a DTensor is refused by name."""
    (plain,) = parameters([(4, 3)], torch.float32)
    param = Parameter(distributed(plain.detach().clone(), mesh, 0))
    optimizer = maker(name, state_dtype="8bit")([param])
    param.grad = distributed(gradient(plain, 0), mesh, 0)
    with pytest.raises(RuntimeError, match=r"is a DTensor, of which no part has the blocks in which '\w+' is coded"):
        optimizer.step()
    assert not optimizer.state
