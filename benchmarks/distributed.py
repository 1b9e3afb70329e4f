"""One run over several processes started by torchrun; everything here does nothing in a single process."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def active() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number; 0 writes the results."""
    return dist.get_rank() if active() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if active() else 1


@contextlib.contextmanager
def session(device: torch.device) -> Iterator[torch.device]:
    """Joins the group that torchrun started, if it did; gives the device of this process."""
    if not dist.is_torchelastic_launched():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


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


def barrier() -> None:
    """Waits until every process is here."""
    if active():
        dist.barrier()
