"""Processes that are started once, and in which the tests of distributed training run one function after the other."""

import faulthandler
import multiprocessing
import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

TIMEOUT = 240.0  # seconds for one function
GRACE = 3.0  # seconds that others have, once one has failed: most wait for it in a collective
NOT_OURS = (
    "DTensor random operators may not have complete support",  # torch before 2.7, of every mesh of CPUs
    "TypedStorage is deprecated",  # torch's own checkpoints, before 2.7
    "isinstance\\(treespec, LeafSpec\\) is deprecated",  # torch's own code, against itself
)


class ProcessError(AssertionError):
    """What a function raised in one of the processes."""


class World:
    """Some processes on this machine, connected by gloo.

    A function that fails anywhere takes the processes with it; the next one gets new ones.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._folder = ""

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = TIMEOUT) -> list[Any]:
        """Call a function in all of the processes, and return what it returns in each.

        Args:
            function: of a module; it finds the process group ready.
            *args: can be pickled.
            timeout: in seconds.

        Raises:
            ProcessError: with the traceback of the first that failed, or if one has not answered in time.
        """
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, args))
        answers: dict[int, Any] = {}
        failure = ""
        end = monotonic() + timeout
        while len(answers) < self.size and (left := end - monotonic()) > 0:
            for ready in wait([pipe for rank, pipe in enumerate(self._pipes) if rank not in answers], left):
                rank = next(rank for rank, pipe in enumerate(self._pipes) if pipe is ready)
                try:
                    good, answers[rank] = self._pipes[rank].recv()
                except EOFError:
                    good, answers[rank] = False, "the process has ended"
                if not good and not failure:
                    failure = f"process {rank} of {self.size}: {answers[rank]}"
                    end = min(end, monotonic() + GRACE)
        if not failure and len(answers) < self.size:
            missing = ", ".join(str(rank) for rank in range(self.size) if rank not in answers)
            failure = f"no answer from process {missing} of {self.size} within {timeout} s"
        if failure:
            self.close()
            raise ProcessError(failure)
        return [answers[rank] for rank in range(self.size)]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.join()
        for pipe in self._pipes:
            pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.mkdtemp()
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            arguments = (rank, self.size, str(Path(self._folder) / "store"), theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)


@cache
def mesh(*sizes: int, names: tuple[str, ...] | None = None) -> DeviceMesh:
    """The mesh of all processes in these dimensions; of each kind there is one."""
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)


def _gather(part: torch.Tensor, size: int, group: Any) -> torch.Tensor:
    whole = part.new_empty(size * part.shape[0], *part.shape[1:])
    dist.all_gather([*whole.chunk(size)], part, group=_resolve_process_group(group))
    return whole


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    """What a process does: answer until nobody asks any more.

    A gather fills a tensor that is there, and is over before it returns: torch's own (2.14, gloo) makes one while a
    thread fills it, and memory has been freed twice within some 10,000 of them.
    """
    faulthandler.enable()  # one that is killed by a signal says where it was
    gathers = torch.library.Library("_c10d_functional", "IMPL")
    gathers.impl("all_gather_into_tensor", _gather, "CPU")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        torch.manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for message in NOT_OURS:
                    warnings.filterwarnings("ignore", message)
                answer = True, function(*args)
        except BaseException:
            answer = False, traceback.format_exc()
        try:
            pipe.send(answer)
        except Exception:  # what cannot be pickled
            pipe.send((False, traceback.format_exc()))
