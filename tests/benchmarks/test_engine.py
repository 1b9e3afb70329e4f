"""One run: its records, its interruption and resumption, the captured path, and runs side by side."""

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from synthetic import cifar10
from tape import capture_on_cpu

from benchmarks.base.config import RunConfig
from benchmarks.base.records import Cost, Epoch, Evaluation, number
from benchmarks.speed.overhead import measure
from benchmarks.training import engine
from benchmarks.training.engine import CheckpointError, train

CPU = torch.device("cpu")
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


def _timeless(records: list[Epoch] | None) -> str:
    """The records as the store writes them, but for what depends on the clock."""
    assert records is not None
    return "\n".join(
        json.dumps(msgspec.to_builtins(msgspec.structs.replace(r, time=Cost())), allow_nan=False) for r in records
    )


def _train(config: RunConfig, folder: Path, **options: Any) -> list[Epoch] | None:
    return train(config, data_dir=folder, device=CPU, checkpoint=folder / "checkpoint.pt", **options)


def test_records(tmp_path: Path) -> None:
    """Every epoch gives one record of everything the issue asks for, with both readings of batch norm."""
    seen: list[Epoch] = []
    steps: list[tuple[int, int]] = []
    records = _train(CONFIG, cifar10(tmp_path), on_epoch=seen.append, on_step=lambda *s: steps.append(s))
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
    resumed = _train(
        CONFIG, tmp_path, on_step=lambda done, total: steps.append(done), on_epoch=lambda r: restored.append(r.epoch)
    )
    assert steps[0] == last, "the step that was killed is the only one lost"
    assert restored == [1, 2, 3]
    (tmp_path / "checkpoint.pt").unlink()
    assert _timeless(resumed) == _timeless(_train(CONFIG, tmp_path))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "partial_nadam"])
def test_stop_and_resume_anywhere(tmp_path: Path, optimizer: str) -> None:
    """Stopped after every single step, the run still ends with the records of one that never stopped."""
    config = dataclasses.replace(DIGITS, optimizer=optimizer, hyper={"lr": 0.01}, max_steps=5)
    rounds = 0
    while (records := _train(config, tmp_path, should_stop=lambda: True)) is None:
        rounds += 1
    assert rounds == 9
    (tmp_path / "checkpoint.pt").unlink()
    assert _timeless(records) == _timeless(_train(config, tmp_path))


def test_train_time_accumulates_over_a_stop(tmp_path: Path) -> None:
    """The seconds before a stop count for the epoch that is finished after it."""
    config = dataclasses.replace(DIGITS, epochs=1)
    assert _train(config, tmp_path, should_stop=lambda: True) is None
    state = torch.load(tmp_path / "checkpoint.pt")
    state["train_s"] += 1000
    torch.save(state, tmp_path / "checkpoint.pt")
    records = _train(config, tmp_path)
    assert records is not None
    assert number(records[0].time.train_s) > 1000


def test_train_time_is_without_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds that checkpoints take are not counted as training."""

    def slow(state: object, file: Any) -> None:
        time.sleep(0.1)

    monkeypatch.setattr(torch, "save", slow)
    started = time.perf_counter()
    records = _train(dataclasses.replace(DIGITS, epochs=1), tmp_path, checkpoint_every=0)
    assert records is not None
    assert number(records[0].time.train_s) < time.perf_counter() - started - 11 * 0.1


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    """A checkpoint of another configuration, or no checkpoint at all, is refused by name."""
    assert _train(DIGITS, tmp_path, should_stop=lambda: True) is None
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt belongs to another run"):
        _train(dataclasses.replace(DIGITS, seed=1), tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is no checkpoint"):
        _train(DIGITS, tmp_path)


def test_diverged_run_ends_early(tmp_path: Path) -> None:
    """A run whose loss is no longer finite ends, says so, and still is strict JSON."""
    records = _train(dataclasses.replace(DIGITS, optimizer="sgd", hyper={"lr": 1e20}), tmp_path)
    assert records is not None
    assert len(records) == 1
    assert records[0].diverged
    assert records[0].train["online_loss"] is None
    _timeless(records)


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
    runs = [_train(dataclasses.replace(CONFIG, recalibrate=n, epochs=2), tmp_path) for n in (0, 2)]
    without, with_it = ([(r.train, r.test.running) for r in records or []] for records in runs)
    assert without == with_it


@pytest.mark.parametrize(("optimizer", "hyper"), [("padam", {"lr": 1e-3}), ("sgd", {"lr": 1e-2, "momentum": 0.9})])
def test_captured_path_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, hyper: dict[str, Any]
) -> None:
    """The step, recorded and replayed as a CUDA graph would be (no Python, no value read), trains as the eager one."""
    cifar10(tmp_path)
    config = dataclasses.replace(CONFIG, optimizer=optimizer, hyper=hyper, epochs=5, milestones=(2,))
    ordinary = _train(config, tmp_path)
    curves, losses = [], []
    for capture in (lambda generator: None, capture_on_cpu):
        monkeypatch.setattr(engine, "cuda_graph", capture)
        run = engine.Run(config, tmp_path, CPU, captured=True)
        while not run.finished:
            list(run.steps())
            run.close_epoch()
        curves.append(_timeless(run.records))
        losses.append([r.train["online_loss"] for r in run.records])
        replays = [slot.replay for slot in run.step._slots.values()]
        assert all(replays) == (capture is capture_on_cpu), "both shapes of batch"
    assert curves[0] == curves[1]
    assert losses[0] == pytest.approx([r.train["online_loss"] for r in ordinary or []], rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_on_cuda(tmp_path: Path) -> None:
    """On a GPU the same run is captured, and its loss is that of the CPU up to rounding."""
    config = dataclasses.replace(CONFIG, epochs=5)
    cifar10(tmp_path)
    cpu = _train(config, tmp_path)
    gpu = train(config, data_dir=tmp_path, device=torch.device("cuda"), checkpoint=tmp_path / "gpu.pt")
    assert cpu is not None
    assert gpu is not None
    assert gpu[-1].time.mode == "graph"
    assert gpu[0].test.running["loss"] == pytest.approx(cpu[0].test.running["loss"], rel=0.5)


def test_side_by_side(tmp_path: Path) -> None:
    """Runs in threads of one process give the records that each gives alone."""
    cifar10(tmp_path)
    configs = [dataclasses.replace(CONFIG, seed=seed, epochs=2) for seed in (0, 1)]

    def run(config: RunConfig, name: str) -> str:
        return _timeless(train(config, data_dir=tmp_path, device=CPU, checkpoint=tmp_path / name))

    alone = [run(config, "alone") for config in configs]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, configs, ["a", "b"]))
    assert together == alone


def test_overhead_of_the_engine(tmp_path: Path) -> None:
    """A step of the engine costs little more than that of a hand-written loop: see `benchmarks.speed.overhead`."""
    config = dataclasses.replace(CONFIG, batch_size=48, workload_options={"width": 0.25})
    assert measure(config, cifar10(tmp_path, train=48), rounds=15) < 1.25
