"""How long an epoch takes: networks in every mode of running, one to several runs side by side."""

import dataclasses
import gc
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks import workloads
from benchmarks.base.config import RunConfig
from benchmarks.base.environment import describe
from benchmarks.base.errors import BenchmarkError, known
from benchmarks.speed.sheet import Sheet
from benchmarks.training import engine, optimizers
from benchmarks.workloads.cost import flops_per_example

MODES = ("eager", "captured", "compiled")
"""The engine's step launched kernel by kernel; replayed from a CUDA graph; with the network through `torch.compile`,
and on CUDA replayed from a graph as well."""

WORKLOADS = ("cifar10-vgg16", "cifar10-resnet18", "cifar10-wrn16-4")
WARM_UP = 8  # steps: they compile, let cuDNN choose its kernels, and capture


class ProfileError(BenchmarkError, ValueError):
    """A profile that cannot be taken."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: `jobs` runs side by side in one mode."""

    config: RunConfig
    mode: str
    jobs: int


def modes(device: torch.device) -> tuple[str, ...]:
    """The modes that there are on a device."""
    return MODES if device.type == "cuda" else tuple(mode for mode in MODES if mode != "captured")


def configure(workload: str, optimizer: str, batch_size: int, width: float) -> RunConfig:
    """The run of which an epoch is timed, at the paper's setting."""
    hyper = optimizers.resolve(optimizer, "paper", {}, batch_size=batch_size, examples=50_000, epochs=200)
    options = {} if width == 1 else {"width": width}
    workloads.find(workload, options)
    return RunConfig(
        workload, optimizer, hyper, epochs=1, batch_size=batch_size, precision="bf16", workload_options=options
    )


def measure(
    case: Case, data_dir: Path, device: torch.device, steps: int, threads: int | None = None
) -> dict[str, float | str | None]:
    """Time the engine's own step; a row of the table. Seconds per epoch are those of training, without evaluation.

    Args:
        case: what to run.
        data_dir: where the data sets lie.
        device: where to run.
        steps: timed steps of each run after the warm-up, at most an epoch's.
        threads: CPU threads of each run; None leaves torch's choice.
    """
    cuda, name = device.type == "cuda", case.config.workload
    workload = workloads.find(name)
    examples = workload.task_class(workload, case.config, data_dir, device).examples
    epoch_steps = -(-examples // case.config.batch_size)
    steps = min(steps, examples // case.config.batch_size - WARM_UP)
    if steps < 1:
        raise ProfileError(f"{name}: an epoch has {epoch_steps} steps of {case.config.batch_size}, too few to time")
    torch.compiler.reset()
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    turn, ready = threading.Lock(), threading.Barrier(case.jobs)

    def job(seed: int) -> tuple[float, float]:
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            with engine.own_stream(device):
                with turn:  # compiling and capturing one after the other
                    remaining = _begin(case, seed, data_dir, device, steps)
                ready.wait()
                start = time.perf_counter()
                for _ in remaining:
                    pass
                return start, time.perf_counter()
        except BaseException:
            ready.abort()
            raise

    with ThreadPoolExecutor(case.jobs) as pool:
        futures = [pool.submit(job, seed) for seed in range(case.jobs)]
    for error in (future.exception() for future in futures):
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    starts, ends = zip(*(future.result() for future in futures), strict=True)
    seconds = (max(ends) - min(starts)) * epoch_steps / steps
    work = flops_per_example(case.config)
    return {
        "s/epoch": seconds,
        "s/epoch/runs": seconds / case.jobs,
        "ms/step": 1e3 * seconds / epoch_steps,
        "TFLOP/s": work * examples * case.jobs / seconds / 1e12 if work > 0 else None,
        "peak GB": torch.cuda.max_memory_allocated(device) / 1e9 if cuda else None,
    }


def _begin(case: Case, seed: int, data_dir: Path, device: torch.device, steps: int) -> Any:
    """A run past its warm-up, and with an idle device: the iterator over its remaining steps, which ends by waiting."""
    config = dataclasses.replace(case.config, seed=seed, max_steps=WARM_UP + steps)
    captured = case.mode != "eager" and device.type == "cuda" and optimizers.find(config.optimizer).capturable
    run = engine.Run(config, data_dir, device, captured)
    if case.mode == "compiled":
        run.called.compile()
    remaining = run.steps()
    for _ in range(WARM_UP):
        next(remaining)
    run.totals.sum().item()
    return remaining


def run(
    device: torch.device,
    configs: Sequence[RunConfig],
    chosen: Sequence[str] | None,
    jobs: Sequence[int],
    data_dir: Path,
    steps: int,
    threads: int | None,
    output: Path | None,
) -> list[dict[str, Any]]:
    """Measure, and show and write a table for each configuration.

    Args:
        device: where.
        configs: what to train, see `configure`.
        chosen: keys of `MODES`, of those that `modes` gives for the device; None for all of these.
        jobs: how many runs side by side.
        data_dir: where the data sets lie.
        steps: timed steps.
        threads: CPU threads of each run.
        output: a Markdown file; JSON goes beside it.
    """
    chosen = known(chosen or modes(device), MODES, "mode")
    for mode in chosen:
        if mode not in modes(device):
            raise ProfileError(f"mode {mode} needs CUDA graphs: on {device} there are {', '.join(modes(device))}")
    settings = {
        "batch_size": configs[0].batch_size,
        "optimizer": configs[0].optimizer,
        "options": configs[0].workload_options or None,
        "steps": steps,
    }
    where = describe(device)
    if threads is not None:
        where["threads"] = threads
    sheet = Sheet("Seconds per epoch", where | settings, output, ("workload",))
    for config, mode, count in itertools.product(configs, chosen, jobs):
        case = Case(config, mode, count)
        keys = {"workload": config.workload, "mode": mode, "side by side": str(count)}
        if sheet.lacks(keys):
            sheet.add(keys, [measure(case, data_dir, device, steps, threads)])
    return sheet.rows
