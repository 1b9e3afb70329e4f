"""Checkpoints by torch.distributed.checkpoint and by torch.save: training goes on exactly, whatever p is and was."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from family import CAPTURABLE, in_modes
from lives import (
    HISTORIES,
    LOOP,
    TOLERANCE,
    begin,
    distance,
    go_on,
    lives,
    network,
    refused,
    resumed_lives,
    saved_lives,
    started,
    step,
    uninterrupted,
    whole,
)
from processes import World
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import partial_adaptive as pa

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is .*single process")  # it is meant so

Record = Callable[[str, object], None]


@pytest.mark.environment("checkpoint, file")
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), CAPTURABLE))
def test_file(name: str, mode: dict[str, Any]) -> None:
    """A file of torch.save, read with weights_only, goes on exactly, whatever p is and was on both sides."""
    assert lives(name, mode, "file", "plain") == []


@pytest.mark.environment("checkpoint, {way}, 1 → 1")
@pytest.mark.parametrize("way", ["folder", "flattened folder", "full"])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [LOOP]))
def test_one_process(name: str, mode: dict[str, Any], way: str) -> None:
    """A checkpoint of DCP, by a single process, does so too."""
    assert lives(name, mode, way, "plain") == []


def sharded(two: World, name: str, mode: dict[str, Any], record: Record) -> bool:
    """Whether a member takes sharded parameters; if not, that is said by name."""
    reasons = two.run(refused, name, mode)
    if reasons[0]:
        record("refused", reasons[0])
    return not reasons[0]


@pytest.mark.environment("checkpoint, sharded {way}, 2 → 2")
@pytest.mark.parametrize("way", ["folder", "flattened folder"])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), CAPTURABLE))
def test_sharded(name: str, mode: dict[str, Any], way: str, two: World, record_property: Record) -> None:
    """Each process writes and reads its shards."""
    if sharded(two, name, mode, record_property):
        assert two.run(lives, name, mode, way, "FSDP2") == [[], []]


@pytest.mark.environment("checkpoint, sharded {way}, 2 → 2")
@pytest.mark.parametrize("way", ["full", "full, broadcast", "folder, CPU offload"])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [LOOP]))
def test_sharded_whole(name: str, mode: dict[str, Any], way: str, two: World, record_property: Record) -> None:
    """One process writes all of it, each reads that or is sent its part; what is written comes from the CPU."""
    if sharded(two, name, mode, record_property):
        assert two.run(lives, name, mode, way, "FSDP2") == [[], []]


@pytest.mark.environment("checkpoint, DDP {way}, 2 → 2")
@pytest.mark.parametrize("way", ["folder", "flattened folder", "full"])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [LOOP]))
def test_replicated(name: str, mode: dict[str, Any], way: str, two: World) -> None:
    """The state of DistributedDataParallel's models is that of the model inside, by its names."""
    assert two.run(lives, name, mode, way, "DDP") == [[], []]


FEWER = ("folder", "flattened folder", "full")
MORE = (*FEWER, "full, broadcast")


@pytest.mark.environment("checkpoint, {way}, {numbers}")
@pytest.mark.parametrize(("way", "numbers"), [*((way, "2 → 1") for way in FEWER), *((way, "1 → 2") for way in MORE)])
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [LOOP]))
def test_another_number_of_processes(
    name: str, mode: dict[str, Any], way: str, numbers: str, two: World, tmp_path: Path, record_property: Record
) -> None:
    """What two processes have saved of a sharded model one goes on with, and the other way round."""
    if not sharded(two, name, mode, record_property):
        return
    if numbers == "1 → 2":
        saved_lives(name, mode, way, "plain", tmp_path)
        assert two.run(resumed_lives, name, mode, way, "FSDP2", tmp_path) == [[], []]
    else:
        two.run(saved_lives, name, mode, way, "FSDP2", tmp_path)
        assert resumed_lives(name, mode, way, "plain", tmp_path) == []


STORED: list[dict[str, Any]] = [
    {"state_dtype": "8bit"},
    {"state_dtype": torch.bfloat16},
    {"rounding": "kahan"},
    {"named": True},
    {"beside": "partial_muon"},
]


@pytest.mark.environment("checkpoint, all kinds of state, 1 → 1")
@pytest.mark.parametrize("way", ["file", "flattened folder"])
@pytest.mark.parametrize(
    ("name", "mode", "stored"),
    [(name, LOOP, stored) for name in pa.MEMBERS for stored in STORED if stored.get("beside") != name],
    ids=str,
)
def test_kinds_of_state(name: str, mode: dict[str, Any], stored: dict[str, Any], way: str) -> None:
    """Coded and compensated state, that of parameters by name, and of several members in one optimizer."""
    assert lives(name, mode | stored, way, "plain") == []


@pytest.mark.environment("checkpoint, folder of an earlier version, 1 → 1")
@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [LOOP]))
def test_folder_without_counts(name: str, mode: dict[str, Any], tmp_path: Path) -> None:
    """What earlier versions and torch have saved lacks `estimator_step`; what is not asked for is derived."""
    source, target = started(name, "plain", 0.25, mode), started(name, "plain", 0.0, mode)
    begin(source.optimizer, HISTORIES["1/4"])
    saved, wanted = (get_optimizer_state_dict(life.model, life.optimizer) for life in (source, target))
    for entry in (*saved["state"].values(), *wanted["state"].values()):
        del entry["estimator_step"]
    dcp.save({"model": source.weights, "optimizer": saved}, checkpoint_id=tmp_path)
    dcp.load({"model": target.weights, "optimizer": wanted}, checkpoint_id=tmp_path)
    set_optimizer_state_dict(target.model, target.optimizer, wanted)
    go_on(target.optimizer)
    assert distance(target.model, uninterrupted(name, HISTORIES["1/4"], tuple(mode.items()))) <= TOLERANCE


@pytest.mark.parametrize("fused", [False, True])
def test_torch_loads_ours(fused: bool) -> None:
    """torch.optim.Adam goes on from a checkpoint of PartialAdam at p = 1/2: what it does not know is no hindrance."""
    ours, theirs = network(), network()
    optimizer = pa.PartialAdam(ours.parameters(), lr=0.01, partial=0.5)
    for number in range(3):
        step(optimizer, number)
    theirs.load_state_dict(ours.state_dict())
    adam = torch.optim.Adam(theirs.parameters())
    adam.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    adam.param_groups[0].update(fused=fused, foreach=False)
    for number in range(3, 6):
        step(optimizer, number)
        step(adam, number)
    assert distance(ours, whole(theirs)) <= TOLERANCE
