"""Optimizers of other packages, and those that ask for more than a step: closures, modes of training and judging."""

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timeless import CPU, stopped_everywhere, timeless, trained
from torch import Tensor

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.references import Catalogue
from benchmarks.training import engine, optimizers
from benchmarks.training.catalogue import CATALOGUE
from benchmarks.training.optimizers import OptimizerError
from benchmarks.workloads.task import Task

SIZES = {"batch_size": 128, "examples": 50_000, "epochs": 200}
LION, SCHEDULE_FREE, LBFGS = "lion_pytorch:Lion", "schedulefree:AdamWScheduleFree", "torch.optim:LBFGS"
HYPER: dict[str, dict[str, Any]] = {
    LION: {"lr": 1e-3, "weight_decay": 0.1},
    SCHEDULE_FREE: {"lr": 0.01, "warmup_steps": 3},
    LBFGS: {"lr": 0.1, "max_iter": 3, "line_search_fn": "strong_wolfe"},
}


def _config(name: str) -> RunConfig:
    module = name.partition(":")[0]
    if module != "torch.optim":
        pytest.importorskip(module)
    hyper = optimizers.resolve(name, "default", HYPER[name], **SIZES)
    return RunConfig("digits-mlp", name, hyper, epochs=2, max_steps=4)


class Rateless(torch.optim.Optimizer):
    """Somebody's, without a learning rate, with a whole number, and with keyword arguments that nobody declares."""

    def __init__(self, params: Any, memory: int = 3, *, factor: float = 1, **rest: Any) -> None:
        super().__init__(params, {"memory": memory, "factor": factor, **rest})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Moves against the sign of the gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad.sign(), alpha=1e-3 * group["factor"] / group["memory"])


RATELESS = "test_foreign:Rateless"
HYPER[RATELESS] = {"memory": 2}


class Rude(torch.optim.SGD):
    """Asks for a closure and does not call it."""

    def step(self, closure: Callable[[], float]) -> None:  # type: ignore[override]  # on purpose
        """Does nothing."""


def function(params: Any, lr: float = 0.1) -> torch.optim.Optimizer:
    """Makes an optimizer without being a class."""
    return torch.optim.SGD(params, lr=lr)


def no_optimizer(params: Any, lr: float = 0.1) -> object:
    """Makes something else."""
    return object()


def test_settings_from_the_signature() -> None:
    """What is stated is what the signature has; 1 is 1.0 where a float is declared, and a whole number elsewhere."""
    lbfgs = optimizers.resolve(LBFGS, "default", {"max_iter": 3, "history_size": 5, "lr": 1}, **SIZES)
    assert {key: repr(value) for key, value in lbfgs.items()} == {"lr": "1.0", "max_iter": "3", "history_size": "5"}
    mine = optimizers.resolve(RATELESS, "default", {"memory": 2, "factor": 2, "other": 3}, **SIZES)
    assert {key: repr(value) for key, value in mine.items()} == {"memory": "2", "factor": "2.0", "other": "3"}
    assert optimizers.resolve("test_foreign:function", "default", {}, **SIZES) == {"lr": 0.1}
    entry = optimizers.find(LBFGS)
    assert (entry.name, entry.title, entry.family, entry.capturable) == (LBFGS, "LBFGS", False, False)


@pytest.mark.parametrize(
    ("name", "preset", "hyper", "message"),
    [
        ("nowhere:Adam", "default", {}, "optimizer 'nowhere:Adam': there is no module 'nowhere'"),
        ("torch.optim:Adm", "default", {}, "optimizer 'torch.optim:Adm': .* no 'Adm'; did you mean 'Adam'"),
        ("torch.optim:__name__", "default", {}, "must be a class, got 'torch.optim'"),
        ("test_foreign:no_optimizer", "default", {}, "must make a torch.optim.Optimizer, got object"),
        (LBFGS, "paper", {}, "preset 'paper' has no setting for 'torch.optim:LBFGS'"),
        (LBFGS, "default", {"weight_decay": 0.1}, "torch.optim:LBFGS: unknown hyperparameter 'weight_decay'"),
        (RATELESS, "default", {"normalized_weight_decay": 0.1}, "is defined by lr, which it does not have"),
        (
            "torch.optim:Adam",
            "default",
            {"betas": [0.9]},
            r"torch.optim:Adam: betas must be 2 values, as in \[0.9, 0.999\], got \[0.9\]",
        ),
    ],
)
def test_what_cannot_be_built_is_named(name: str, preset: str, hyper: dict[str, Any], message: str) -> None:
    """One line that says what is wrong with a reference or a hyperparameter, whatever the class raises."""
    with pytest.raises(OptimizerError, match=message):
        optimizers.resolve(name, preset, hyper, **SIZES)


def test_entry_points_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a distribution offers by name is built like any reference, and is a reference in the run's configuration."""
    point = importlib.metadata.EntryPoint("rateless", RATELESS, "partial_adaptive.benchmarks.optimizers")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    offered = Catalogue("optimizer", CATALOGUE.own, CATALOGUE.group)
    monkeypatch.setattr("benchmarks.training.catalogue.CATALOGUE", offered)
    entry = optimizers.find("rateless")
    assert (entry.name, entry.cls) == (RATELESS, Rateless)
    assert set(offered) == {"rateless", *optimizers.REGISTRY}


@pytest.mark.parametrize("name", [LION, SCHEDULE_FREE, LBFGS, RATELESS])
def test_stop_and_resume_anywhere(tmp_path: Path, name: str) -> None:
    """Stopped after every single step, the run ends with the records of one that never stopped."""
    config = _config(name)
    records, rounds = stopped_everywhere(config, tmp_path)
    assert rounds == 7
    assert records == timeless(trained(config, tmp_path))


KILLED = """
import json, os, pathlib, signal, sys, torch
from benchmarks.base.config import RunConfig
from benchmarks.training.engine import train
torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
for name, config in json.loads(sys.argv[2]).items():
    if os.fork() == 0:
        train(RunConfig(**config), data_dir=folder, device=torch.device("cpu"), checkpoint=folder / name,
              checkpoint_every=0, on_step=lambda done, total: done == 6 and os.kill(os.getpid(), signal.SIGKILL))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
"""


def test_kill_and_resume(tmp_path: Path) -> None:
    """Kill -9 in the second epoch, then resume: the records of an undisturbed run, for each of them."""
    configs = {name: _config(name) for name in (LION, SCHEDULE_FREE, LBFGS)}
    plain = json.dumps({name: config.to_dict() for name, config in configs.items()})
    command = [sys.executable, "-c", KILLED, str(tmp_path), plain]
    subprocess.run(command, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."}, check=True)
    for name, config in configs.items():
        steps: list[int] = []
        resumed = engine.train(
            config,
            data_dir=tmp_path,
            device=CPU,
            checkpoint=tmp_path / name,
            on_step=lambda done, total, steps=steps: steps.append(done),
        )
        assert steps == [6, 7, 8]
        assert timeless(resumed) == timeless(trained(config, tmp_path)), name


def test_records_without_a_rate_or_a_scale(tmp_path: Path) -> None:
    """Of an optimizer that nothing is known of, nothing is claimed, and the rest of the record is there."""
    records = trained(_config(RATELESS), tmp_path)
    assert records is not None
    assert (records[-1].lr, records[-1].effective_step, records[-1].floor_share) == (None, {}, None)
    assert records[-1].distance
    assert records[-1].train["online_loss"] < records[0].train["online_loss"]  # type: ignore[operator]  # both finite


def test_the_state_of_lbfgs_is_counted(tmp_path: Path) -> None:
    """Tensors in lists are state, too."""
    records = trained(_config(LBFGS), tmp_path)
    assert records is not None
    assert records[-1].time.state_bytes_per_param is not None
    assert records[-1].time.state_bytes_per_param > 4 * 5


class Counted:
    """Counts evaluations of a task's loss, and keeps the draws that each began with."""

    def __init__(self, task: Task) -> None:
        self.original = task.loss
        self.draws: list[Tensor] = []
        self.losses: list[float] = []
        task.loss = self  # type: ignore[method-assign, assignment]  # a spy

    def __call__(self, model: Any, batch: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        self.draws.append(generator.get_state())
        loss, means = self.original(model, batch, generator)
        torch.rand(3, generator=generator)  # as an augmentation would
        self.losses.append(means[0].item())
        return loss, means


def test_a_schedule_may_end_where_a_constructor_may_not_begin(tmp_path: Path) -> None:
    """Lion's constructor refuses a learning rate of 0, at which a schedule may end; other mistakes are named by it."""
    config = dataclasses.replace(_config(LION), schedules={"lr": {"kind": "steps", "at": [6], "to": 0.0}})
    records = trained(config, tmp_path)
    assert records is not None
    assert records[-1].lr == 0
    with pytest.raises(OptimizerError, match=r"lion_pytorch:Lion: AssertionError\(\)"):
        optimizers.resolve(LION, "default", {"lr": 0.0}, **SIZES)


def test_closures_see_the_same_batch_and_draws(tmp_path: Path) -> None:
    """A step of several evaluations draws once, records once, and ends as far in the stream as any other step."""
    run = engine.Run(_config(LBFGS), tmp_path, CPU, captured=False)
    counted, start = Counted(run.task), run.draws.get_state()
    steps = run.steps()
    next(steps)
    evaluations = len(counted.draws)
    assert evaluations > 1
    assert all(torch.equal(state, start) for state in counted.draws)
    once = torch.Generator()
    once.set_state(start)
    torch.rand(3, generator=once)
    assert torch.equal(run.draws.get_state(), once.get_state())
    assert float(run.totals[0]) == pytest.approx(128 * counted.losses[0])
    assert counted.losses[-1] < counted.losses[0]
    next(steps)
    assert torch.equal(counted.draws[evaluations], once.get_state())


def test_closures_move_batch_norm_once(tmp_path: Path) -> None:
    """The running statistics are those of one evaluation a step, at the weights before it."""
    from synthetic import cifar10

    options = {"width": 1 / 16}
    config = dataclasses.replace(_config(LBFGS), workload="cifar10-resnet18", workload_options=options, batch_size=16)
    run = engine.Run(config, cifar10(tmp_path), CPU, captured=False)
    other = engine.Run(dataclasses.replace(config, optimizer="sgd", hyper={}), tmp_path, CPU, captured=False)
    for each in (run, other):
        next(each.steps())
    assert all(map(torch.equal, run.model.buffers(), other.model.buffers()))
    assert any(not torch.equal(a, b) for a, b in zip(run.model.parameters(), other.model.parameters(), strict=True))


def test_clipping_inside_closures(tmp_path: Path) -> None:
    """Each evaluation's gradients are clipped before the optimizer sees them."""
    run = engine.Run(dataclasses.replace(_config(LBFGS), clip_norm=1e-3), tmp_path, CPU, captured=False)
    next(run.steps())
    grads = [p.grad for p in run.model.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(grads)) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, "precision: fp16 .* closures of torch.optim:LBFGS"),
        ({"optimizer": "test_foreign:Rude", "hyper": {}}, "test_foreign:Rude: step must call the closure"),
    ],
)
def test_what_closures_do_not_go_with(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """A clear error in one line."""
    with pytest.raises(BenchmarkError, match=message):
        trained(dataclasses.replace(_config(LBFGS), **changes), tmp_path)


def test_schedule_free_is_judged_by_its_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained in train mode, judged in eval mode, and in train mode again for the checkpoint."""
    config = _config(SCHEDULE_FREE)
    run = engine.Run(config, tmp_path, CPU, captured=False)
    modes: list[tuple[str, bool]] = []

    def spy(name: str) -> None:
        original = getattr(run.task, name)

        def called(*arguments: Any) -> Any:
            modes.append((name, run.optimizer.param_groups[0]["train_mode"]))
            return original(*arguments)

        monkeypatch.setattr(run.task, name, called)

    for name in ("loss", "evaluate", "evaluate_clean"):
        spy(name)
    for _ in run.steps():
        pass
    judged_by = run.close_epoch().test.running["loss"]
    assert set(modes) == {("loss", True), ("evaluate", False), ("evaluate_clean", False)}
    assert run.optimizer.param_groups[0]["train_mode"]
    assert run.task.evaluate(run.model)["loss"] != judged_by, "the weights in train mode are others"
