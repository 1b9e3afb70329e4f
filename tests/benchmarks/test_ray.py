"""A study spread over Ray: two local workers, the same store, the same results."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from timeless import comparable

from benchmarks import studies
from benchmarks.base import references
from benchmarks.base.store import Store
from benchmarks.scheduling import cluster, runner
from benchmarks.scheduling.outcome import Stop
from benchmarks.scheduling.plan import plan
from benchmarks.scheduling.settings import Settings
from benchmarks.training import schedules
from benchmarks.training.engine import train
from benchmarks.workloads import REGISTRY, fingerprint

ROOT = Path(__file__).parents[2]
STUDY = """
title = "Two optimizers, and one workload of each kind with one schedule of each kind"
threads = 1
[run]
epochs = 1
max_steps = 2
recalibrate = 0
[[runs]]
workload = "digits-mlp"
optimizer = ["padam", "own_beside:Own"]
schedules.lr = { kind = "constant", warmup = 1 }
[[runs]]
workload = "digits-vit"
optimizer = "padam"
schedules.lr = { kind = "own_beside:halved" }
[[runs]]
workload = "prose-lstm"
optimizer = "padam"
schedules.lr = { kind = "wsd" }
[[runs]]
workload = "prose-transformer-small"
optimizer = "padam"
schedules = { lr = { kind = "cosine", warmup = 1 }, partial = { kind = "linear", to = 0.25 } }
[[runs]]
workload = "zipf-softmax"
optimizer = "padam"
milestones = [1]
[[runs]]
workload = "friedman-mlp"
optimizer = "padam"
schedules.lr = { kind = "steps", at = [1] }
[[runs]]
workload = "ring-gan"
optimizer = "padam"
schedules.lr = { kind = "exponential", final = 0.1 }
"""
OWN = """
import torch
class Own(torch.optim.SGD): ...
def halved(step, total, base):
    return base / 2 ** step
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_two_workers_fill_the_same_store(tmp_path, monkeypatch):
    """All land in the driver's store, equal to those made without Ray but for times; modules beside a study as well."""
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "own_beside.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(references.VARIABLE, "")
    places = {name: Store(tmp_path / name) for name in ("ray", "alone")}
    data = tmp_path / "data"
    # In a process of its own: Ray's threads, sockets and warnings are none of the tests'.
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "run",
        str(tmp_path / "study.toml"),
        "--ray",
        "--jobs-per-device",
        "2",
    ]
    command += ["--results", str(places["ray"].root), "--data-dir", str(data), "--device", "cpu"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "[8/8] " in process.stdout
    runs = studies.load(str(tmp_path / "study.toml")).runs()
    assert {REGISTRY[run.config.workload].task for run in runs} == {one.task for one in REGISTRY.values()}
    kinds = {schedule["kind"] for run in runs for schedule in run.config.schedules.values()}
    assert kinds == {*schedules.KINDS, "own_beside:halved"}, "no run of a kind of schedule"
    settings = Settings(data, threads=1)
    runner.execute(plan(runs, places["alone"], settings, fingerprint), places["alone"], settings, Stop(None), train)
    assert {one.state for one in plan(runs, places["ray"], settings, fingerprint)} == {"done"}
    assert not list((places["ray"].root / "claims").iterdir())
    for path in places["alone"].root.glob("*.jsonl"):
        assert comparable(places["ray"].root / path.name) == comparable(path)


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    """--ray on a machine that has none."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(cluster.ClusterError, match=r"partial-adaptive\[ray\]"):
        cluster.execute([], Store(tmp_path), Settings(tmp_path, ray="local"), Stop(None), train)
