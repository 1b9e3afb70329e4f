"""Training that is saved and goes on elsewhere: a small model, gradients that repeat, and the ways to save."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from family import maker
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import partial_adaptive as pa
from partial_adaptive.testing.harness import gradient

Optimizer = torch.optim.Optimizer
Histories = Mapping[str, tuple[float, float]]

HISTORIES: Histories = {"0, then 1/4": (0.0, 0.25), "1/4": (0.25, 0.25), "0": (0.0, 0.0), "1/4, then 0": (0.25, 0.0)}
LOOP: dict[str, Any] = {"foreach": False}
FRESH = (0.0, 0.25)  # p of the optimizers that load
HALF = 2  # steps at each p
RAISED = 0.25  # p at the very end, which shows what has been kept of a second moment that rests
TOLERANCE = 1e-12


def network(kind: str = "plain") -> nn.Module:
    """A model with the same float64 parameters on every call: "plain", sharded by "FSDP2", or wrapped by "DDP"."""
    torch.manual_seed(0)
    model = nn.Linear(3, 5).double()
    if kind == "FSDP2":
        return fully_shard(model)
    return DistributedDataParallel(model) if kind == "DDP" else model


@cache
def _gradient(step: int, index: int, like: Any) -> Tensor:
    shape, dtype, mesh, placements = like
    value = gradient(torch.empty(shape, dtype=dtype), step, index)
    return value if mesh is None else distribute_tensor(value, mesh, placements)


def step(optimizer: Optimizer, number: int) -> None:
    """Take a step by the gradients of its number, each placed as its parameter is."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for index, param in enumerate(params):
        mesh, placements = getattr(param, "device_mesh", None), getattr(param, "placements", None)
        param.grad = _gradient(number, index, (param.shape, param.dtype, mesh, placements))
    optimizer.step()
    optimizer.zero_grad()


def begin(optimizer: Optimizer, exponents: tuple[float, float]) -> None:
    """The steps before the checkpoint, at one p and then at another."""
    for number in range(2 * HALF):
        for group in optimizer.param_groups:
            group["partial"] = exponents[number // HALF]
        step(optimizer, number)


def go_on(optimizer: Optimizer) -> None:
    """The steps after the checkpoint, with p as it is, and then raised."""
    for number in range(2 * HALF, 4 * HALF):
        for group in optimizer.param_groups if number == 3 * HALF else ():
            group["partial"] = RAISED
        step(optimizer, number)


def whole(model: nn.Module) -> list[Tensor]:
    """The parameters, gathered."""
    params = [param.detach() for param in model.parameters()]
    return [(param.full_tensor() if isinstance(param, DTensor) else param).clone() for param in params]


@cache
def uninterrupted(name: str, exponents: tuple[float, float], mode: tuple[tuple[str, Any], ...]) -> list[Tensor]:
    """Where a member leads without a checkpoint, on one process."""
    life = started(name, "plain", exponents[0], dict(mode))
    begin(life.optimizer, exponents)
    go_on(life.optimizer)
    return whole(life.model)


def started(name: str, kind: str, p: float, mode: Mapping[str, Any]) -> "Life":
    """A member with a model that it has not trained yet.

    Args:
        name: the member.
        kind: the model's, see `network`.
        p: the exponent.
        mode: its options. Besides, "beside" names a member for the bias alone, "named" gives parameters by name; with
            "rounding" parameters are in bfloat16.
    """
    options = dict(mode)
    beside, named = options.pop("beside", None), options.pop("named", False)
    model = network(kind).to(torch.bfloat16 if "rounding" in options else torch.float64)
    params: Any = model.named_parameters() if named else model.parameters()
    if beside:
        weight, bias = params
        params = [
            {"params": [weight]},
            {"params": [bias], "member": beside, "partial": p, **pa.MEMBERS[beside].options},
        ]
    return Life(model, maker(name)(params, lr=0.01, partial=p, **options))


@dataclass(frozen=True)
class Life:
    """A model in training.

    Args:
        model: what is trained.
        optimizer: what trains it.
    """

    model: nn.Module
    optimizer: pa.PartialAdaptiveOptimizer

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters by name, without the prefix of DDP."""
        return {name.removeprefix("module."): param for name, param in self.model.named_parameters()}


Lives = Mapping[str, Life]  # several at once, as one of them costs little more than the collectives


def save_file(lives: Lives, path: Path) -> None:
    """`torch.save`."""
    saved = {name: (life.model.state_dict(), life.optimizer.state_dict()) for name, life in lives.items()}
    torch.save(saved, path / "it.pt")


def load_file(lives: Lives, path: Path) -> None:
    """`torch.load`, of tensors and plain values only."""
    saved = torch.load(path / "it.pt", weights_only=True)
    for name, life in lives.items():
        life.model.load_state_dict(saved[name][0])
        life.optimizer.load_state_dict(saved[name][1])


def contents(lives: Lives, options: StateDictOptions) -> dict[str, Any]:
    """What is saved, or what is to be filled where it is loaded."""
    return {
        name: {
            "model": life.weights,
            "optimizer": get_optimizer_state_dict(life.model, life.optimizer, options=options),
        }
        for name, life in lives.items()
    }


def save_folder(lives: Lives, path: Path, **options: Any) -> None:
    """`torch.distributed.checkpoint`, each process its shards."""
    dcp.save(contents(lives, StateDictOptions(**options)), checkpoint_id=path)


def load_folder(lives: Lives, path: Path, **options: Any) -> None:
    """The same back: into the entries that a fresh optimizer's state has."""
    wanted = StateDictOptions(**options)
    target = contents(lives, wanted)
    dcp.load(target, checkpoint_id=path)
    for name, life in lives.items():
        set_optimizer_state_dict(life.model, life.optimizer, target[name]["optimizer"], options=wanted)


def save_full(lives: Lives, path: Path) -> None:
    """Gathered by the first process, which writes a file."""
    saved = contents(lives, StateDictOptions(full_state_dict=True, cpu_offload=True))
    for name, life in lives.items():
        saved[name]["model"] = dict(zip(life.weights, whole(life.model), strict=True))
    if rank() == 0:
        torch.save(saved, path / "it.pt")
    wait()


def load_full(lives: Lives, path: Path, *, broadcast: bool = False) -> None:
    """From the file, read by each process; or of the optimizers by the first, which sends the others their shards."""
    saved = torch.load(path / "it.pt", weights_only=True)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=broadcast)
    for name, life in lives.items():
        state = saved[name]["optimizer"] if rank() == 0 or not broadcast else {}
        set_optimizer_state_dict(life.model, life.optimizer, state, options=options)
        with torch.no_grad():
            for key, param in life.weights.items():
                param.copy_(placed_as(param, saved[name]["model"][key]))


def placed_as(param: Any, value: Tensor) -> Tensor:
    """A whole tensor as a parameter is: sharded where that is."""
    return distribute_tensor(value, param.device_mesh, param.placements) if isinstance(param, DTensor) else value


def flattened(function: Callable[..., None]) -> Callable[..., None]:
    """By the flattened names of the entries."""
    return lambda *args: function(*args, flatten_optimizer_state_dict=True)


WAYS: dict[str, tuple[Callable[[Lives, Path], None], Callable[[Lives, Path], None]]] = {
    "file": (save_file, load_file),
    "folder": (save_folder, load_folder),
    "flattened folder": (flattened(save_folder), flattened(load_folder)),
    "full": (save_full, load_full),
    "full, broadcast": (save_full, lambda *args: load_full(*args, broadcast=True)),
    "folder, CPU offload": (lambda *args: save_folder(*args, cpu_offload=True), load_folder),
}


def rank() -> int:
    """That of this process; 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Wait for the others."""
    if dist.is_initialized():
        dist.barrier()


def folder() -> Iterator[Path]:
    """A folder that all processes know, emptied at the end."""
    names: list[Any] = [tempfile.mkdtemp()] if rank() == 0 else [None]
    if dist.is_initialized():
        dist.broadcast_object_list(names)
    yield Path(names[0])
    wait()
    if rank() == 0:
        shutil.rmtree(names[0])


def saved_lives(name: str, mode: Mapping[str, Any], way: str, kind: str, path: Path) -> None:
    """Train a member by each of the histories, and save."""
    lives = {history: started(name, kind, exponents[0], mode) for history, exponents in HISTORIES.items()}
    for history, life in lives.items():
        begin(life.optimizer, HISTORIES[history])
    WAYS[way][0](lives, path)


def resumed_lives(name: str, mode: Mapping[str, Any], way: str, kind: str, path: Path) -> list[str]:
    """Load into fresh optimizers and go on; which of them do not get to where an uninterrupted run does."""
    wrong = []
    for p in FRESH:
        lives = {history: started(name, kind, p, mode) for history in HISTORIES}
        try:
            WAYS[way][1](lives, path)
        except (Exception, CheckpointException) as error:
            wrong.append(f"loaded at {p:g}: {str(error)[-300:]}")
            continue
        for history, life in lives.items():
            go_on(life.optimizer)
            off = distance(life.model, uninterrupted(name, HISTORIES[history], tuple(mode.items())))
            if not off <= TOLERANCE:
                wrong.append(f"saved after p = {history}, loaded at {p:g}: off by {off:.0e}")
    return wrong


def distance(model: nn.Module, right: list[Tensor]) -> float:
    """How far the parameters are from the right ones, as a part of the largest value."""
    pairs = zip(whole(model), right, strict=True)
    return max(((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in pairs)


def refused(name: str, mode: Mapping[str, Any]) -> str:
    """Why a member does not take the sharded parameters of this world; an empty string where it does."""
    try:
        step(started(name, "FSDP2", 0.25, mode).optimizer, 0)
    except RuntimeError as error:
        if "is a DTensor" not in str(error):
            raise
        return str(error)
    return ""


def lives(name: str, mode: Mapping[str, Any], way: str, kind: str) -> list[str]:
    """Save and resume in the same processes."""
    for path in folder():
        saved_lives(name, mode, way, kind, path)
        return resumed_lives(name, mode, way, kind, path)
    return []
