"""One run over several processes started by torchrun; everything here does nothing in a single process."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.base.errors import BenchmarkError

T = TypeVar("T")


class DistributedError(BenchmarkError, RuntimeError):
    """What torchrun was asked to start makes no sense."""


def launched() -> bool:
    """Whether torchrun started this process."""
    return bool(dist.is_torchelastic_launched())


def active() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number; 0 writes the results."""
    return dist.get_rank() if active() else 0


def first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return int(os.environ["RANK"]) == 0 if launched() else True


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if active() else 1


@contextlib.contextmanager
def session(device: torch.device) -> Iterator[torch.device]:
    """Joins the group that torchrun started, if it did; gives the device of this process.

    Inside, only the first process prints. Errors have every process's standard error.
    """
    if not launched():
        yield device
        return
    if device.type == "cuda":
        here, devices = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > devices:
            raise DistributedError(f"--nproc-per-node {here}: this machine has {devices} CUDA devices, one per process")
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        with contextlib.nullcontext() if rank() == 0 else _silence():
            yield device
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def parallel(model: nn.Module) -> nn.Module:
    """The model as it is to be called in training, its gradients averaged over the processes."""
    return DistributedDataParallel(model) if active() else model


def shard(rows: Tensor) -> Tensor:
    """This process's share of the rows."""
    return rows[rank() :: world()]


def add(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if active():
        dist.all_reduce(values)
    return values


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in any process; all must ask at the same point."""
    return bool(add(torch.tensor(float(flag), device=device))) if active() else flag


def gather(value: Any) -> list[Any]:
    """The value of every process, by rank."""
    if not active():
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def agreed(function: Callable[[], T]) -> T:
    """What `function` gives in the first process, the only one that calls it; an error there is raised in all."""
    if not active():
        return function()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = function()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    result: T = answer[0]
    return result


def barrier() -> None:
    """Waits until every process is here."""
    if active():
        dist.barrier()
