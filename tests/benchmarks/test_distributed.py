"""The command line under torchrun: two processes, one run, on a small folder of images."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import imagenet

from benchmarks import cli
from benchmarks.base import distributed

ROOT = Path(__file__).parents[2]
STUDY = """
title = "ImageNet, in small"
[run]
workload = "imagenet-resnet18"
epochs = 2
batch_size = 8
recalibrate = 2
workload_options.size = 32
[[runs]]
optimizer = "padam"
hyper.lr = 0.1
clip_norm = 1.0
schedules = { lr = { kind = "cosine", warmup = 2 }, partial = { kind = "steps", at = [0.5], to = [0.25] } }
"""
SCRIPT = """
# `python -m benchmarks`, where each run is trained twice: as a whole, and stopped halfway and resumed. It leaves
# behind what each process saw. The network is narrow, so that this takes seconds.
import dataclasses, hashlib, json, msgspec, pathlib, runpy
from benchmarks import report, session, workloads
from benchmarks.base import distributed
from benchmarks.base import records
from benchmarks.training import checkpoint as checkpoints, engine
from benchmarks.workloads.models.resnet import resnet18

name, narrow = "imagenet-resnet18", lambda num_classes: resnet18(num_classes, width=1 / 8)
narrowed = dataclasses.replace(workloads.REGISTRY[name], network=narrow, fixed={})
workloads.REGISTRY = {**workloads.REGISTRY, name: narrowed}
runs, seen = [], {"written": [], "reports": 0}
engine.AGREE_EVERY = 2
init, replacing, write = engine.Run.__init__, checkpoints.replacing, report.write
engine.Run.__init__ = lambda run, *args: (init(run, *args), runs.append(run))[0]
checkpoints.replacing = lambda path: (seen["written"].append(path.suffix), replacing(path))[1]
report.write = lambda *args: (seen.update(reports=seen["reports"] + 1), write(*args))[1]

def train(config, *, checkpoint, **options):
    def halfway():  # asks only the first process to stop, in the middle of the second epoch
        return distributed.rank() == 0 and (len(runs[-1].records), runs[-1].position) == (1, 2)

    whole = engine.train(config, **options, checkpoint=checkpoint.with_suffix(".whole"))
    assert engine.train(config, **{**options, "should_stop": halfway}, checkpoint=checkpoint) is None
    resumed = engine.train(config, **options, checkpoint=checkpoint)
    seen["rank"], seen["world"] = distributed.rank(), distributed.world()
    timeless = [msgspec.structs.replace(record, time=records.Cost()) for record in whole]
    seen["whole"] = msgspec.to_builtins(timeless)
    weights = [b"".join(p.detach().numpy().tobytes() for p in run.model.parameters()) for run in runs]
    seen["weights"] = [hashlib.sha256(each).hexdigest() for each in weights]
    return resumed

session.train = train
try:
    runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
finally:
    pathlib.Path(f"{seen['rank']}.json").write_text(json.dumps(seen))
"""


def test_two_processes_share_a_run(tmp_path: Path) -> None:
    """Both end with the same weights, also after a stop; one result is stored and one report written, by the first."""
    folder = imagenet(tmp_path)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "study.toml").write_text(STUDY)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "script.py", "run", "study.toml", "--device", "cpu", "--threads", "1", "--data-dir", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr

    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["world"], first["whole"]) == (2, second["whole"])
    assert first["weights"] == second["weights"]
    whole, stopped, resumed = first["weights"]
    assert whole == resumed != stopped
    assert [(one["written"], one["reports"]) for one in (first, second)] == [([".pt"], 1), ([], 0)]

    (path,) = (folder / "runs").glob("*.jsonl")
    about, *epochs, end = map(json.loads, path.read_text().splitlines())
    assert about["environment"]["processes"] == 2
    assert about["environment"]["command"].endswith("--nproc-per-node=2 -m benchmarks " + " ".join(command[6:]))
    assert [{k: v for k, v in one.items() if k != "time"} for one in epochs] == [
        {k: v for k, v in one.items() if k != "time"} for one in first["whole"]
    ]
    assert ([one["step"] for one in epochs], end["status"]) == ([3, 6], "done")
    assert not list((folder / "runs/checkpoints").glob("*.pt"))
    for line in ("1 of 1 runs to do", "[1/1] padam/seed0", "report: "):
        assert run.stdout.count(line) == 1, run.stdout


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process look like one that torchrun started."""
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quick", "--device", "cpu", "--ray"), "use one of them"),
        (("run", "quick", "--device", "cpu", "--jobs-per-device", "2"), "one run after the other"),
        (("run", "quick", "--device", "cpu,cpu"), "each process takes its own"),
        (("run", "quick", "--device", "cpu:0"), "each process takes its own"),
        (("report", "quick"), "torchrun is for `run` alone"),
    ],
)
@pytest.mark.usefixtures("torchrun")
def test_senseless_combinations_are_refused(arguments: tuple[str, ...], message: str, capsys: Any) -> None:
    """Exit code 2 and one line, before anything is started."""
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("torchrun")
def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process needs a CUDA device of its own."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    device = torch.device("cuda")
    with pytest.raises(distributed.DistributedError, match="has 1 CUDA devices"), distributed.session(device):
        pass
