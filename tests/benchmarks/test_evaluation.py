"""Both readings of batch norm."""

import dataclasses
from pathlib import Path

import pytest
import torch
from synthetic import cifar10
from torch import nn

from benchmarks.base.config import RunConfig
from benchmarks.training.evaluation import evaluate, norms, recalibrated
from benchmarks.workloads import find
from benchmarks.workloads.task import Task

CPU = torch.device("cpu")
CONFIG = RunConfig(
    "cifar10-resnet18", "sgd", {"lr": 0.1}, epochs=1, batch_size=16, recalibrate=3, workload_options={"width": 1 / 16}
)


def _task(folder: Path, config: RunConfig = CONFIG) -> Task:
    workload = find(config.workload)
    return workload.task_class(workload, config, folder, CPU)


def _statistics(model: nn.Module) -> list[torch.Tensor]:
    return [x.clone() for layer in norms(model) for x in (layer.running_mean, layer.running_var) if x is not None]


def test_recalibration_is_torchs_cumulative_average(tmp_path: Path) -> None:
    """The statistics are those that torch's momentum=None gives over the same batches."""
    task = _task(cifar10(tmp_path))
    model = task.model()
    seen: list[tuple[tuple[torch.Tensor, ...], torch.Tensor]] = []
    original = task.loss

    def spy(
        net: nn.Module, batch: tuple[torch.Tensor, ...], draws: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((batch, draws.get_state()))
        return original(net, batch, draws)

    task.loss = spy
    with recalibrated(task, model, epoch=1):
        ours = _statistics(model)
    assert len(seen) == 3
    for layer in norms(model):
        layer.momentum = None
        layer.reset_running_stats()
    for batch, state in seen:
        draws = torch.Generator()
        draws.set_state(state)
        with torch.no_grad():
            original(model, batch, draws)
    for a, b in zip(ours, _statistics(model), strict=True):
        torch.testing.assert_close(a, b)


def test_recalibration_leaves_no_trace(tmp_path: Path) -> None:
    """Buffers, momenta, weights and mode are what they were, bit for bit."""
    task = _task(cifar10(tmp_path))
    model = task.model()
    with torch.no_grad():
        model(torch.randn(8, 3, 32, 32))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = evaluate(task, model, epoch=1)
    assert result.running != result.recalibrated
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {layer.momentum for layer in norms(model)} == {0.1}
    assert model.training


@pytest.mark.parametrize(
    "config", [dataclasses.replace(CONFIG, recalibrate=0), RunConfig("digits-mlp", "sgd", {}, epochs=1)]
)
def test_nothing_to_recalibrate(tmp_path: Path, config: RunConfig) -> None:
    """Without batch norm, or without batches for it, there is only the one reading."""
    task = _task(cifar10(tmp_path), config)
    assert evaluate(task, task.model(), epoch=1).recalibrated is None
