"""What a workload's step costs in arithmetic, before anything is run."""

import functools
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.base.config import RunConfig
from benchmarks.workloads import data, find, of, sources

TEXTS = ("text", "prose")
EXAMPLES = 2  # of the batch that is counted: batch norm needs more than one


def flops_per_example(config: RunConfig) -> float | None:
    """Floating-point operations of forward and backward per training example, two for a multiply-add.

    Products and convolutions are counted, as `torch.utils.flop_counter` does it; on the meta device, so that nothing is
    computed. None where a task does not say what its model takes, or the model cannot be run without data.
    """
    options, data_options = (
        json.dumps(dict(x), sort_keys=True) for x in (config.workload_options, config.data_options)
    )
    return _flops(config.workload, config.model, options, config.data, data_options)


@functools.lru_cache(maxsize=4096)
def _flops(workload: str, model: str, options: str, own: str, data_options: str) -> float | None:
    """The same, of what it depends on."""
    config = RunConfig(
        workload,
        "",
        {},
        epochs=1,
        model=model,
        workload_options=json.loads(options),
        data=own,
        data_options=json.loads(data_options),
    )
    try:
        found = of(config)
        specimen = found.task_class.specimen(found, config)
        if specimen is None:
            return None
        arguments, inputs = specimen
        with torch.device("meta"):
            network = found.build(**(config.workload_options if model else arguments))
        with FlopCounterMode(display=False) as counter:
            outputs = [x.float().sum() for x in tree_leaves(network(*inputs)) if isinstance(x, Tensor)]
            torch.stack(outputs).sum().backward()
    except Exception:  # whatever a model of somebody else's does without data: an estimate is no place to say so
        return None
    return float(counter.get_total_flops()) / EXAMPLES


def examples(config: RunConfig) -> int | None:
    """Training examples of an epoch; None where only a file could say it, or the data cannot be had.

    Data that a function gives is made for this, and kept for the run.
    """
    try:
        workload = find(config.workload)
        where = sources.source(workload, config)
        if where.given:
            count: int | None = len(sources.load(where, Path()).x_train)
        else:
            count = workload.train_examples or _embedded(where.name)
    except Exception:  # as above: whatever a function of somebody else's does
        return None
    return count if count is None or config.split == "test" else count - count // 10


@functools.cache
def _embedded(dataset: str) -> int | None:
    """Examples of the texts inside Python's standard library, of which versions have more or less."""
    return len(data.DATASETS[dataset].decode(Path())["x_train"]) if dataset in TEXTS else None
