"""All combinations of the options of torch.distributed.checkpoint.state_dict; its own limits, which Adam shares."""

import copy
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import in_modes
from lives import (
    HISTORIES,
    LOOP,
    TOLERANCE,
    Life,
    begin,
    distance,
    go_on,
    network,
    refused,
    started,
    step,
    uninterrupted,
)
from processes import World
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import partial_adaptive as pa

OPTIONS = ("full_state_dict", "flatten_optimizer_state_dict", "cpu_offload", "broadcast_from_rank0")
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in product((False, True), repeat=len(OPTIONS))]
KINDS = ("plain", "FSDP2", "DDP")
LATE = HISTORIES["0, then 1/4"]


def carried(source: Life, target: Life, options: Mapping[str, bool]) -> None:
    """Bring state from one optimizer to another by these options; a whole one that is on one process to all."""
    wanted = StateDictOptions(**options)
    state: Any = [copy.deepcopy(get_optimizer_state_dict(source.model, source.optimizer, options=wanted))]
    if options["full_state_dict"] and not options["broadcast_from_rank0"]:
        dist.broadcast_object_list(state)
    set_optimizer_state_dict(target.model, target.optimizer, state[0], options=wanted)
    with torch.no_grad():
        for ours, theirs in zip(target.model.parameters(), source.model.parameters(), strict=True):
            ours.copy_(theirs)


def by_adam(kind: str, options: Mapping[str, bool]) -> str:
    """What torch.optim.Adam comes to by these options: the kind of its error, if any."""
    source, target = (Life(model, torch.optim.Adam(model.parameters())) for model in (network(kind), network(kind)))
    step(source.optimizer, 0)
    try:
        carried(source, target, options)
    except Exception as error:
        return type(error).__name__
    return ""


def combinations(name: str, kind: str) -> dict[str, str]:
    """The combinations that fail for Adam, too, by their errors; any that fails for the member alone raises."""
    limits = {}
    for options in COMBINATIONS:
        limit = by_adam(kind, options)
        source, target = started(name, kind, LATE[0], LOOP), started(name, kind, 0.0, LOOP)
        begin(source.optimizer, LATE)
        try:
            carried(source, target, options)
        except Exception as error:
            if type(error).__name__ != limit:
                raise
            limits[" + ".join(option for option in OPTIONS if options[option])] = limit
            continue
        if limit:
            raise AssertionError(f"Adam fails by {options} with {limit}, {name} does not")
        go_on(target.optimizer)
        off = distance(target.model, uninterrupted(name, LATE, tuple(LOOP.items())))
        if not off <= TOLERANCE:
            raise AssertionError(f"{options}: off by {off:.0e}")
    return limits


@pytest.mark.environment("checkpoint, all combinations of options")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [LOOP]))
def test_combinations(name: str, mode: dict[str, Any], kind: str, two: World, record_property: Any) -> None:
    """State goes over by every combination of options that torch has for Adam; what it has not fails by name."""
    if kind == "FSDP2" and (reason := two.run(refused, name, mode)[0]):
        record_property("refused", reason)
        return
    limits = two.run(combinations, name, kind)
    both = "full_state_dict + flatten_optimizer_state_dict"
    assert limits[0].keys() >= {both}
    assert {key for key in limits[0] if "broadcast" not in key} == {both, f"{both} + cpu_offload"}
