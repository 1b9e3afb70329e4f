"""One run: its records, its interruption and resumption, the captured path, and runs side by side."""

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import cifar10
from tape import capture_on_cpu
from timeless import CPU, stopped_everywhere, timeless, trained

from benchmarks.base import environment
from benchmarks.base.config import RunConfig
from benchmarks.base.records import Epoch, Evaluation, number
from benchmarks.speed.overhead import measure
from benchmarks.training import engine
from benchmarks.training.engine import CheckpointError, train
from benchmarks.training.settings import captures

PADAM = {"lr": 0.1, "partial": 0.125, "weight_decay": 5e-4}
CONFIG = RunConfig(
    "cifar10-resnet18",
    "padam",
    PADAM,
    epochs=3,
    batch_size=20,
    milestones=(1, 2),
    recalibrate=2,
    workload_options={"width": 1 / 16},
)
DIGITS = RunConfig("digits-mlp", "padam", PADAM, epochs=2)


def test_records(tmp_path: Path) -> None:
    """Every epoch gives one record of everything the issue asks for, with both readings of batch norm."""
    seen: list[Epoch] = []
    steps: list[tuple[int, int]] = []
    records = trained(CONFIG, cifar10(tmp_path), on_epoch=seen.append, on_step=lambda *s: steps.append(s))
    assert records == seen
    assert steps == [(i, 15) for i in range(1, 16)], "96 examples are 5 steps of 20, the last one partial"
    assert [r.epoch for r in seen] == [1, 2, 3]
    assert [r.step for r in seen] == [5, 10, 15]
    assert [r.lr for r in seen] == pytest.approx([0.1, 0.01, 0.001])
    for record in seen:
        assert record.train.keys() >= {"online_loss", "online_top1", "clean_loss", "clean_top1"}
        assert all(record.test.of(k).keys() == {"loss", "top1", "top5"} for k in ("running", "recalibrated"))
        assert number(record.distance) > 0
        assert 0 <= number(record.floor_share) <= 1
        steps_sizes = [number(value) for value in record.effective_step.values()]
        assert steps_sizes == sorted(steps_sizes)
        assert record.time.mode == "eager"
        assert record.time.state_bytes_per_param == pytest.approx(12, rel=0.01)
        for name in ("train_s", "eval_s", "step_ms", "optimizer_ms", "peak_memory_bytes"):
            assert number(getattr(record.time, name)) > 0


KILLED = """
import json, os, pathlib, signal, sys, torch
from benchmarks.base.config import RunConfig
from benchmarks.training.engine import train
torch.set_num_threads(1)
folder, last = pathlib.Path(sys.argv[1]), int(sys.argv[2])

def on_step(done, total):
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)

train(RunConfig(**json.loads(sys.argv[3])), data_dir=folder, device=torch.device("cpu"),
      checkpoint=folder / "checkpoint.pt", checkpoint_every=0, on_step=on_step)
"""


@pytest.mark.parametrize("last", [8, 10])
def test_kill_and_resume(tmp_path: Path, last: int) -> None:
    """Kill -9 in the middle of an epoch, or before its evaluation, then resume: the records of an undisturbed run."""
    cifar10(tmp_path)
    command = [sys.executable, "-c", KILLED, tmp_path, str(last), json.dumps(CONFIG.to_dict())]
    killed = subprocess.run(
        [str(c) for c in command], cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."}
    )
    assert killed.returncode == -signal.SIGKILL
    steps: list[int] = []
    restored: list[int] = []
    resumed = trained(
        CONFIG, tmp_path, on_step=lambda done, total: steps.append(done), on_epoch=lambda r: restored.append(r.epoch)
    )
    assert steps[0] == last, "the step that was killed is the only one lost"
    assert restored == [1, 2, 3]
    (tmp_path / "checkpoint.pt").unlink()
    assert timeless(resumed) == timeless(trained(CONFIG, tmp_path))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "partial_nadam"])
def test_stop_and_resume_anywhere(tmp_path: Path, optimizer: str) -> None:
    """Stopped after every single step, the run still ends with the records of one that never stopped."""
    config = dataclasses.replace(DIGITS, optimizer=optimizer, hyper={"lr": 0.01}, max_steps=5)
    records, rounds = stopped_everywhere(config, tmp_path)
    assert rounds == 9
    assert records == timeless(trained(config, tmp_path))


def test_train_time_accumulates_over_a_stop(tmp_path: Path) -> None:
    """The seconds before a stop count for the epoch that is finished after it."""
    config = dataclasses.replace(DIGITS, epochs=1)
    assert trained(config, tmp_path, should_stop=lambda: True) is None
    state = torch.load(tmp_path / "checkpoint.pt")
    state["train_s"] += 1000
    torch.save(state, tmp_path / "checkpoint.pt")
    records = trained(config, tmp_path)
    assert records is not None
    assert number(records[0].time.train_s) > 1000


def test_train_time_is_without_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds that checkpoints take are not counted as training."""

    def slow(state: object, file: Any) -> None:
        time.sleep(0.1)

    monkeypatch.setattr(torch, "save", slow)
    started = time.perf_counter()
    records = trained(dataclasses.replace(DIGITS, epochs=1), tmp_path, checkpoint_every=0)
    assert records is not None
    assert number(records[0].time.train_s) < time.perf_counter() - started - 11 * 0.1


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    """A checkpoint of another configuration, or no checkpoint at all, is refused by name."""
    assert trained(DIGITS, tmp_path, should_stop=lambda: True) is None
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt belongs to another run"):
        trained(dataclasses.replace(DIGITS, seed=1), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is no checkpoint"):
        trained(DIGITS, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": None},
            "is of format 1, which an earlier version of the benchmark wrote; .* delete it to start over",
        ),
        ({"format": 99}, "is of format 99, which a later version of the benchmark wrote; .* delete it to start over"),
        ({"processes": 2}, "belongs to another run, of 2 processes instead of 1; delete it to start over"),
        ({"draws": []}, r"does not fit what this version .*\(IndexError: .*\); delete it to start over"),
        ({"model": {"0.weight": torch.ones(1)}}, r"does not fit what this version .*\(RuntimeError: .*\); delete"),
        ({"records": [{"type": "epoch", "epoch": "one"}]}, r"does not fit what this version .*\(ValidationError: "),
        ({"update": None, "optimizer": {}}, r"does not fit what this version .*\(KeyError: "),
    ],
)
def test_checkpoints_of_other_versions(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """One line that says what it is and what to do, never a traceback of what is inside."""
    assert trained(DIGITS, tmp_path, should_stop=lambda: True) is None
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path) | change
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    with pytest.raises(CheckpointError, match=message) as raised:
        trained(DIGITS, tmp_path)
    assert "\n" not in str(raised.value)
    assert path.exists()


def test_code_that_goes_on_with_anothers_run_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By which sources, torch and device a run was made comes with its checkpoint, through every resumption."""
    made: list[Mapping[str, Any]] = []
    here = environment.here(CPU)

    def go_on(sources: str, stop: bool = True) -> None:
        monkeypatch.setattr(environment, "here", lambda *arguments: here._replace(sources=sources))
        trained(DIGITS, tmp_path, should_stop=lambda: stop, on_resume=made.append)

    for sources in ("old", "old", "new"):
        go_on(sources)
    go_on("old", stop=False)
    assert [one["sources"] for one in made] == ["old", "old+new", "old+new"]
    assert {(one["torch"], one["device"]) for one in made} == {(here.torch, here.device)}


def test_diverged_run_ends_early(tmp_path: Path) -> None:
    """A run whose loss is no longer finite ends, says so, and still is strict JSON."""
    records = trained(dataclasses.replace(DIGITS, optimizer="sgd", hyper={"lr": 1e20}), tmp_path)
    assert records is not None
    assert len(records) == 1
    assert records[0].diverged
    assert records[0].train["online_loss"] is None
    timeless(records)


def _start(config: RunConfig, folder: Path) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The initial weights, and the batches of the first two epochs."""
    run = engine.Run(config, folder, CPU, captured=False)
    batches: list[torch.Tensor] = []
    run.step.body = lambda batch: batches.append(batch[0].clone())
    for _ in range(2):
        list(run.steps())
        run.records.append(Epoch(epoch=1, test=Evaluation({})))
        run.position = 0
    return run.initial, batches


def test_common_random_numbers(tmp_path: Path) -> None:
    """Optimizers share initial weights and data order per seed; seeds and epochs do not."""
    weights, batches = _start(DIGITS, tmp_path)
    for other, same in (
        (dataclasses.replace(DIGITS, optimizer="sgd", hyper={}), True),
        (dataclasses.replace(DIGITS, seed=1), False),
    ):
        weights2, batches2 = _start(other, tmp_path)
        assert all(map(torch.equal, weights[::2], weights2[::2])) == same
        assert all(map(torch.equal, batches, batches2)) == same
    half = len(batches) // 2
    assert not torch.equal(batches[0], batches[half])
    assert torch.equal(torch.cat(batches[:half]).sort().values, torch.arange(1437)), "each example once an epoch"


def test_recalibration_does_not_disturb_training(tmp_path: Path) -> None:
    """Training is the same with and without it."""
    cifar10(tmp_path)
    runs = [trained(dataclasses.replace(CONFIG, recalibrate=n, epochs=2), tmp_path) for n in (0, 2)]
    without, with_it = ([(r.train, r.test.running) for r in records or []] for records in runs)
    assert without == with_it


PADAM_MOVES: dict[str, Any] = {
    "milestones": (),
    "schedules": {
        "lr": {"kind": "cosine", "warmup": 3},
        "partial": {"kind": "linear", "to": 0.4},
        "beta1": {"kind": "linear", "to": 0.5},
    },
    "groups": ({"match": "norms and biases", "weight_decay": 0.0, "lr": 1e-2},),
    "clip_norm": 0.5,
    "ema": 0.9,
}


@pytest.mark.parametrize(
    ("optimizer", "hyper", "settings"),
    [
        ("padam", {"lr": 1e-3}, {}),
        ("sgd", {"lr": 1e-2, "momentum": 0.9}, {}),
        ("padam", {"lr": 1e-3, "weight_decay": 1e-2}, PADAM_MOVES),
    ],
)
def test_captured_path_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, hyper: dict[str, Any], settings: dict[str, Any]
) -> None:
    """The step, recorded and replayed as a CUDA graph would be (no Python, no value read), trains as the eager one.

    So it does with what moves from step to step, with groups, clipping and an average of the weights.
    """
    cifar10(tmp_path)
    config = dataclasses.replace(CONFIG, optimizer=optimizer, hyper=hyper, epochs=5, **{"milestones": (2,), **settings})
    assert captures(config)
    ordinary = trained(config, tmp_path)
    curves, losses = [], []
    for capture in (lambda generator: None, capture_on_cpu):
        monkeypatch.setattr(engine, "cuda_graph", capture)
        run = engine.Run(config, tmp_path, CPU, captured=True)
        while not run.finished:
            list(run.steps())
            run.close_epoch()
        curves.append(timeless(run.records))
        losses.append([r.train["online_loss"] for r in run.records])
        replays = [slot.replay for slot in run.step._slots.values()]
        assert all(replays) == (capture is capture_on_cpu), "both shapes of batch"
    assert curves[0] == curves[1]
    assert losses[0] == pytest.approx([r.train["online_loss"] for r in ordinary or []], rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "schedules", "captured"),
    [
        ("padam", {"partial": {}, "beta2": {}, "lr": {}}, True),
        ("padam", {"weight_decay": {}}, False),
        ("adam", {"lr": {}}, True),
        ("adam", {"beta1": {}}, False),
        ("sgd", {}, True),
        ("muon", {}, False),
        ("torch.optim:Adam", {}, False),
        ("torch.optim:LBFGS", {}, False),
    ],
)
def test_what_is_captured(optimizer: str, schedules: dict[str, Any], captured: bool) -> None:
    """Only steps whose moving numbers are read from tensors; every other run is eager rather than wrong."""
    assert captures(RunConfig("digits-mlp", optimizer, {}, epochs=1, schedules=schedules)) == captured


def test_a_resumed_captured_run_reads_its_own_tensors(tmp_path: Path) -> None:
    """After a checkpoint was loaded the groups have the tensors that schedules fill, and not the file's."""
    moves = {name: {"kind": "linear", "to": 0.4} for name in ("partial", "beta1")}
    config = dataclasses.replace(DIGITS, schedules=moves)
    run, resumed = (engine.Run(config, tmp_path, CPU, captured=True) for _ in range(2))
    run.step.capture = None
    next(run.steps())
    run.save(tmp_path / "checkpoint.pt")

    def tensors(of: engine.Run) -> list[torch.Tensor]:
        (group,) = of.optimizer.param_groups
        return [group["lr"], group["partial"], group["betas"][0]]

    before = tensors(resumed)
    resumed.load(tmp_path / "checkpoint.pt")
    assert all(mine is own for mine, own in zip(tensors(resumed), before, strict=True))
    assert list(map(float, tensors(resumed))) == list(map(float, tensors(run)))


def test_fused_members(tmp_path: Path) -> None:
    """`fused` is a hyperparameter: part of a run's identity where it is given, resumed exactly, kept under capture."""
    config = dataclasses.replace(DIGITS, hyper={**PADAM, "fused": True}, max_steps=3)
    assert config.identity("") != dataclasses.replace(config, hyper=PADAM).identity("")
    assert captures(config)
    run = engine.Run(config, tmp_path, CPU, captured=True)
    assert run.optimizer.defaults["fused"]
    assert run.optimizer.defaults["capturable"]
    run.step.capture = None  # the kernel is none of torch's operations: the stand-in for a graph cannot record it
    losses = []
    for _ in run.steps():
        losses.append(float(run.totals[0]))
    records, _ = stopped_everywhere(config, tmp_path)
    assert records == timeless(whole := trained(config, tmp_path))
    assert whole is not None
    assert losses[-1] / 384 == pytest.approx(whole[0].train["online_loss"], rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "settings", [{}, {"hyper": {**PADAM, "fused": True}}, PADAM_MOVES], ids=["", "fused", "moving"]
)
def test_captured_on_cuda(tmp_path: Path, settings: dict[str, Any]) -> None:
    """On a GPU the same run is captured, and its loss is that of the CPU up to rounding; also after a stop."""
    config = dataclasses.replace(CONFIG, epochs=5, **settings)
    cifar10(tmp_path)
    cpu = trained(dataclasses.replace(config, hyper={**config.hyper, "fused": False}), tmp_path)
    cuda: dict[str, Any] = {"data_dir": tmp_path, "device": torch.device("cuda"), "checkpoint": tmp_path / "gpu.pt"}
    gpu = train(config, **cuda)
    steps: list[int] = []
    assert train(config, **cuda, on_step=lambda *s: steps.append(s[0]), should_stop=lambda: len(steps) == 12) is None
    resumed = train(config, **cuda)
    assert cpu is not None
    assert gpu is not None
    assert resumed is not None
    assert gpu[-1].time.mode == "graph"
    for ours in (gpu, resumed):
        assert number(ours[0].test.running["loss"]) == pytest.approx(number(cpu[0].test.running["loss"]), rel=0.5)
        assert [r.lr for r in ours] == pytest.approx([r.lr for r in cpu])
        assert number(ours[-1].distance) == pytest.approx(number(cpu[-1].distance), rel=0.2)


def test_side_by_side(tmp_path: Path) -> None:
    """Runs in threads of one process give the records that each gives alone."""
    cifar10(tmp_path)
    configs = [dataclasses.replace(CONFIG, seed=seed, epochs=2) for seed in (0, 1)]

    def run(config: RunConfig, name: str) -> str:
        return timeless(train(config, data_dir=tmp_path, device=CPU, checkpoint=tmp_path / name))

    alone = [run(config, "alone") for config in configs]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, configs, ["a", "b"]))
    assert together == alone


def test_overhead_of_the_engine(tmp_path: Path) -> None:
    """A step of the engine costs little more than that of a hand-written loop: see `benchmarks.speed.overhead`."""
    config = dataclasses.replace(CONFIG, batch_size=48, workload_options={"width": 0.25})
    assert measure(config, cifar10(tmp_path, train=48), rounds=15) < 1.25
