"""The engine's step against a hand-written loop of the same model and optimizer, side by side.

python -m benchmarks.speed.overhead DATA_DIR [WORKLOAD [WIDTH]]
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from benchmarks.base.config import RunConfig
from benchmarks.training import engine, optimizers
from benchmarks.workloads import augment
from benchmarks.workloads.classification import Images
from benchmarks.workloads.task import memory_format

CPU = torch.device("cpu")


def by_hand(run: engine.Run) -> Callable[[], None]:
    """One step after another of the loop that one would write without the engine."""
    task = run.task
    assert isinstance(task, Images)
    images, labels, mean, std = task.data.x_train, task.data.y_train, task.mean, task.std
    model = task.model()
    optimizer = optimizers.build(run.config.optimizer, model.parameters(), run.config.hyper, capturable=False)
    layout = memory_format(model, CPU)
    draws = torch.Generator().manual_seed(0)

    def step() -> None:
        index = torch.randperm(len(images))[: run.config.batch_size]
        x = augment.crop_flip(images, index, augment.draw(len(index), task.margin, draws), task.margin)
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=layout)
        loss = cross_entropy(model((x.float() - mean) / std), labels[index].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def by_engine(run: engine.Run) -> Callable[[], None]:
    """One step after another of the engine, from one epoch into the next."""
    steps = run.steps()

    def step() -> None:
        nonlocal steps
        if next(steps, "end") == "end":
            run.position = 0
            steps = run.steps()
            next(steps)

    return step


def measure(config: RunConfig, data_dir: Path, rounds: int) -> float:
    """The median over rounds of the engine's time for a step over the loop's, taken in turns after a warm-up."""
    run = engine.Run(config, data_dir, CPU, captured=False)
    pair = by_engine(run), by_hand(run)
    ratios = []
    for i in range(rounds + 3):
        seconds = {}
        for step in pair if i % 2 else pair[::-1]:
            started = time.perf_counter()
            step()
            seconds[step] = time.perf_counter() - started
        ratios.append(seconds[pair[0]] / seconds[pair[1]])
    return statistics.median(ratios[3:])


if __name__ == "__main__":
    _, folder, workload, width = [*sys.argv, "cifar10-resnet18", "0.25"][:4]
    torch.set_num_threads(1)
    setting = RunConfig(workload, "padam", {"lr": 0.1}, epochs=1, workload_options={"width": float(width)})
    print(f"{workload}, width {width}: engine / by hand = {measure(setting, Path(folder), rounds=40):.3f}")
