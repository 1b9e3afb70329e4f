"""Evaluation with the running batch-norm statistics and with statistics estimated anew for the current weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.base import distributed
from benchmarks.base.records import Evaluation, finite
from benchmarks.base.seeds import derive, generator
from benchmarks.workloads.task import Task


def evaluate(task: Task, model: nn.Module, epoch: int, average: nn.Module | None = None) -> Evaluation:
    """The metrics under all readings.

    Args:
        task: judges the model.
        model: what is trained.
        epoch: its number, by which the batches are drawn for ``recalibrated``; that is None without batch norm or
            batches for it.
        average: the exponential average of the model, read as ``ema``.
    """
    running = finite(task.evaluate(model))
    ema = None if average is None else finite(task.evaluate(average))
    if not task.config.recalibrate or not norms(model):
        return Evaluation(running, ema=ema)
    with recalibrated(task, model, epoch):
        return Evaluation(running, finite(task.evaluate(model)), ema)


def norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@contextlib.contextmanager
def recalibrated(task: Task, model: nn.Module, epoch: int) -> Iterator[None]:
    """Inside, batch norm uses plain averages over `RunConfig.recalibrate` augmented batches with the weights frozen.

    The buffers come back bit for bit, and the random streams of the training are not touched.
    """
    config, layers = task.config, norms(model)
    saved = [buffer.clone() for buffer in model.buffers()]
    momenta = [layer.momentum for layer in layers]
    seed = derive(config.seed, "recalibration", epoch)
    chosen = torch.randperm(task.examples, generator=torch.Generator().manual_seed(seed))
    chosen = distributed.shard(chosen[: config.recalibrate * config.batch_size])
    draws = generator(task.device, config.seed, "recalibration", epoch, distributed.rank())
    try:
        with torch.no_grad():
            batches = task.batches(chosen, config.batch_size // distributed.world(), epoch)
            for seen, batch in enumerate(batches):
                for layer in layers:
                    layer.momentum = 1 / (seen + 1)  # as momentum=None, which would wait for the device at every layer
                task.loss(model, batch, draws)
            for layer in layers:
                for statistic in (layer.running_mean, layer.running_var):
                    if statistic is not None:
                        distributed.add(statistic).div_(distributed.world())
        yield
    finally:
        for buffer, value in zip(model.buffers(), saved, strict=True):
            buffer.copy_(value)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
