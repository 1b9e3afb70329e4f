"""Checkpoints from torch.optim, a change of optimizer in mid-training, and distributed checkpoints."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, contents, parameters, same, train, values

COUNTERPARTS = [
    *((m.name, m.counterpart, dict(m.counterpart_options)) for m in pa.MEMBERS.values() if m.counterpart),
    ("padam", torch.optim.Adam, {"amsgrad": False}),
    ("padam", torch.optim.AdamW, {"amsgrad": True}),
    ("partial_adam", torch.optim.AdamW, {}),
    ("partial_rmsprop", torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize(("name", "counterpart", "options"), COUNTERPARTS, ids=str)
def test_torch_checkpoint_goes_on(
    name: str, counterpart: Any, options: dict[str, Any], dtype: torch.dtype, mode: dict[str, bool]
) -> None:
    """A torch.optim checkpoint loads into the member, hyperparameters and all, and at p = 1/2 goes on exactly."""
    theirs = parameters(dtype=dtype)
    reference = counterpart(theirs, lr=0.01, weight_decay=0.1, foreach=False, **options)
    train(reference, 10)
    ours = copy.deepcopy(theirs)
    decoupled = {"decoupled_weight_decay": counterpart is torch.optim.AdamW}  # older AdamW checkpoints do not say so
    optimizer = pa.create(name, ours, partial=0.5, **decoupled)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    optimizer.param_groups[0].update(mode)
    assert optimizer.param_groups[0]["lr"] == 0.01
    train(reference, 10, start=10)
    train(optimizer, 10, start=10)
    same(values(ours), values(theirs), f"{name} does not go on where {counterpart.__name__} was", 1e-12)


@pytest.mark.parametrize(("name", "counterpart", "options"), COUNTERPARTS, ids=str)
def test_warm_start_takes_over(name: str, counterpart: Any, options: dict[str, Any]) -> None:
    """warm_start takes the running optimizer's moments, not its hyperparameters; at p = 1/2 it goes on exactly."""
    params = parameters()
    running = counterpart(params, lr=0.01, foreach=False, **options)
    train(running, 10)
    ours = copy.deepcopy(params)
    twins = dict(zip(params, ours, strict=True))
    before = copy.deepcopy(running.state_dict())
    running_on_twins = counterpart(ours, **options)
    running_on_twins.state.update({twins[param]: state for param, state in running.state.items()})
    decoupled = {"decoupled_weight_decay": True, "weight_decay": 0.01} if counterpart is torch.optim.AdamW else {}
    eps = running.defaults["eps"]
    optimizer = pa.create(name, ours, lr=0.02, eps=eps, partial=0.5, **options, **decoupled)
    optimizer.warm_start(running_on_twins)
    assert optimizer.param_groups[0]["lr"] == 0.02
    train(optimizer, 5, start=10)
    after = running.state_dict()
    for index, state in before["state"].items():
        same(list(after["state"][index].values()), list(state.values()), "warm_start has changed the source")
    for group in running.param_groups:
        group["lr"] = 0.02
    train(running, 5, start=10)
    same(values(ours), values(params), f"{name} does not take over from {counterpart.__name__}", 1e-12)


def test_adam_to_padam() -> None:
    """Switching Adam → Padam in mid-training keeps both averages and the count; the maximum starts from there."""
    params = parameters()
    adam = torch.optim.Adam(params)
    train(adam, 10)
    padam = pa.Padam(params, lr=0.1)
    padam.warm_start(adam)
    for param in params:
        same([padam.state[param]["exp_avg_sq"]], [adam.state[param]["exp_avg_sq"]], "the average was not taken over")
        assert padam.state[param]["step"] == 10
    train(padam, 1, start=10)
    for param in params:
        state = padam.state[param]
        same([state["max_exp_avg_sq"]], [state["exp_avg_sq"]], "the maximum must start with the average")


def test_sgd_endpoint_to_padam() -> None:
    """From p = 0 the first moment is taken over and the estimator starts at its own step 1."""
    params = parameters()
    sgd = pa.Padam(params, partial=0.0)
    train(sgd, 3)
    padam = pa.Padam(params)
    padam.warm_start(sgd)
    train(padam, 1, start=3)
    state = padam.state[params[0]]
    assert (state["step"], state["estimator_step"]) == (4, 1)


def test_unrelated_source_starts_afresh() -> None:
    """What the source has under other names is not guessed: only parameters with usable state are taken."""
    params = parameters()
    rmsprop = torch.optim.RMSprop(params)
    train(rmsprop, 2)
    with pytest.raises(ValueError, match="source must hold state"):
        pa.Padam(params).warm_start(rmsprop)


def test_older_checkpoint_has_plain_steps() -> None:
    """Checkpoints from before torch 1.12 hold the step as a number."""
    params = parameters()
    adam = torch.optim.Adam(params, amsgrad=True)
    train(adam, 3)
    checkpoint = copy.deepcopy(adam.state_dict())
    for state in checkpoint["state"].values():
        state["step"] = int(state["step"])
    optimizer = pa.Padam(params)
    optimizer.load_state_dict(checkpoint)
    train(optimizer, 1, start=3)
    assert optimizer.state[params[0]]["step"] == 4


def test_load_runs_the_users_hooks() -> None:
    """Hooks that change a checkpoint on its way in are heard, and loading leaves none of its own behind."""
    params = parameters()
    source = pa.Padam(params, lr=0.3)
    train(source, 1)
    optimizer = pa.Padam(params)

    def halve(_: Any, checkpoint: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "lr": group["lr"] / 2} for group in checkpoint["param_groups"]]
        return {**checkpoint, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.load_state_dict(source.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.15
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


@pytest.mark.parametrize("shapes", [[(2,)], [(2,)] * 9], ids=len)
def test_wrong_checkpoint(shapes: list[tuple[int, ...]]) -> None:
    """A checkpoint of another model is refused by torch's own error, and the optimizer stays as it was."""
    optimizer = pa.Padam(parameters())
    train(optimizer, 1)
    before = contents(optimizer)
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(pa.Padam(parameters(shapes)).state_dict())
    same(contents(optimizer), before, "a refused checkpoint has changed something")


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_distributed_checkpoint(name: str) -> None:
    """torch.distributed.checkpoint makes state by a step with zero gradients and lr 0; training goes on exactly."""

    def setup() -> tuple[nn.Module, pa.PartialAdaptiveOptimizer]:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
        with torch.no_grad():
            for param, value in zip(model.parameters(), parameters([(4, 3), (4,), (2, 4), (2,)]), strict=True):
                param.copy_(value)
        return model, pa.create(name, model.parameters(), weight_decay=0.1)

    model, optimizer = setup()
    train(optimizer, 3)
    checkpoint = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    twin, resumed = setup()
    twin.load_state_dict(model.state_dict())
    set_optimizer_state_dict(twin, resumed, checkpoint)
    same(values(twin.parameters()), values(model.parameters()), "making state has moved a parameter")
    train(optimizer, 3, start=3)
    train(resumed, 3, start=3)
    same(contents(resumed), contents(optimizer), "training resumed from a distributed checkpoint differs")


def test_state_dtype_in_a_torch_checkpoint() -> None:
    """float32 moments from a float32 run are kept where the model goes on in bfloat16 with state_dtype=float32."""
    wide = parameters(dtype=torch.float32)
    adam = torch.optim.Adam(wide, amsgrad=True)
    train(adam, 2)
    low = [Parameter(param.detach().bfloat16()) for param in wide]
    optimizer = pa.Padam(low, state_dtype=torch.float32)
    optimizer.load_state_dict(adam.state_dict())
    for param, twin in zip(wide, low, strict=True):
        same([optimizer.state[twin]["exp_avg"]], [adam.state[param]["exp_avg"]], "float32 state was rounded")
