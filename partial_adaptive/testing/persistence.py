"""What can be saved, copied and brought back: training goes on as if nothing had happened."""

import copy
import io
import itertools
import pickle
from typing import Any

import torch

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.testing.harness import (
    Make,
    check,
    contents,
    modes_of,
    parameters,
    params_of,
    same,
    train,
    values,
)

SETTINGS: tuple[dict[str, Any], ...] = ({}, {"partial": 0.0}, {"capturable": True}, {"weight_decay": 0.1})


def saved(optimizer: PartialAdaptiveOptimizer) -> Any:
    """A checkpoint after a trip through a file, read as `torch.load` reads untrusted ones."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@check
def check_resume(make: Make) -> None:
    """A fresh optimizer with the checkpoint, read by weights_only=True, goes on bit for bit: buffers hold it all."""
    for mode, setting in itertools.product(modes_of(make), SETTINGS):
        params = parameters()
        optimizer = make(params, **setting, **mode)
        train(optimizer, 2)
        copies = copy.deepcopy(params)
        resumed = make(copies, **setting, **mode)
        resumed.load_state_dict(saved(optimizer))
        train(optimizer, 2, start=2)
        train(resumed, 2, start=2)
        same(contents(resumed), contents(optimizer), f"training resumed from a checkpoint differs ({setting}, {mode})")


@check
def check_resume_after_switching_on(make: Make) -> None:
    """A checkpoint remembers that the estimator started later than the parameter, where p was 0 at first."""
    params = parameters()
    optimizer = make(params, partial=0.0)
    train(optimizer, 2)
    optimizer.param_groups[0]["partial"] = 0.125
    train(optimizer, 2, start=2)
    copies = copy.deepcopy(params)
    resumed = make(copies)
    resumed.load_state_dict(saved(optimizer))
    train(optimizer, 2, start=4)
    train(resumed, 2, start=4)
    same(contents(resumed), contents(optimizer), "training resumed after p was raised from 0 differs")


@check
def check_loading_copies(make: Make) -> None:
    """The checkpoint stays as it was: training on after loading must not write into its tensors."""
    optimizer, loaded = make(parameters()), make(parameters())
    train(optimizer, 2)
    checkpoint = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(checkpoint["state"])
    loaded.load_state_dict(checkpoint)
    train(loaded, 2)
    for index, state in before.items():
        for name, value in state.items():
            same([checkpoint["state"][index][name]], [value], f"training has changed {name} in the loaded checkpoint")


@check
def check_loading_hyperparameters(make: Make) -> None:
    """Hyperparameters come from the checkpoint, and those it lacks stay as they are, in every group."""
    params = parameters()
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    checkpoint = make([{**group, "lr": 0.02} for group in groups]).state_dict()
    for group in checkpoint["param_groups"]:
        del group["partial"]
    optimizer = make([{**groups[0], "partial": 0.25}, {**groups[1], "partial": 0.4}])
    optimizer.load_state_dict(checkpoint)
    loaded = [(group["lr"], group["partial"]) for group in optimizer.param_groups]
    assert loaded == [(0.02, 0.25), (0.02, 0.4)], f"(lr, partial) must be 0.02 with 0.25 and with 0.4, got {loaded}"


@check
def check_loading_keeps_state_dtype(make: Make) -> None:
    """float32 state of bfloat16 parameters comes back as it was; torch's own loading would round it to bfloat16."""
    for mode in modes_of(make):
        params = parameters(dtype=torch.bfloat16)
        optimizer = make(params, state_dtype=torch.float32, **mode)
        train(optimizer, 2)
        copies = copy.deepcopy(params)
        resumed = make(copies, state_dtype=torch.float32, **mode)
        resumed.load_state_dict(saved(optimizer))
        same(contents(resumed), contents(optimizer), "float32 state was not kept on load")


@check
def check_deepcopy(make: Make) -> None:
    """A deep copy trains on like the original, and on its own."""
    params = parameters()
    optimizer = make(params)
    train(optimizer, 2)
    twin = copy.deepcopy(optimizer)
    before = contents(twin)
    train(optimizer, 2, start=2)
    same(contents(twin), before, "the copy shares tensors with the original")
    train(twin, 2, start=2)
    same(contents(twin), contents(optimizer), "the copy trains on unlike the original")


@check
def check_pickle(make: Make) -> None:
    """An optimizer can be pickled, so components are classes of a module and hold no lambdas."""
    optimizer = make(parameters())
    train(optimizer, 2)
    twin = pickle.loads(pickle.dumps(optimizer))
    train(optimizer, 2, start=2)
    train(twin, 2, start=2)
    same(values(params_of(twin)), values(params_of(optimizer)), "what was unpickled trains on unlike the original")
