"""The whole sequence for a GPU: with a program that only writes down how it is called in the place of Python, and real.

Calls do not share a disk: a new one is given what the last one packed, and nothing else.
"""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from timeless import comparable

from benchmarks import session
from benchmarks.base.store import Store

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
STUB = """#!/bin/sh
case "$1" in
    -) echo 3; exit ;;
    -c) test -z "$MISSING"; exit ;;
esac
shift 2
echo "$@" >> "$CALLS"
test "$1" != run || touch "$RUNS/some.jsonl"
test "$1 $2" != "$STOPPED" || exit 3
test "$1" != "$ENDED" || exit 124
"""


@pytest.fixture
def call(tmp_path):
    """Calls the script on a bare machine that has the folder `carry`; returns what it ran, and the finished process."""
    stub, calls = tmp_path / "python", tmp_path / "calls"
    stub.write_text(STUB)
    stub.chmod(0o755)
    (tmp_path / "carry").mkdir()

    def run(*arguments, keep=False, **variables):
        calls.write_text("")
        places = {name: str(tmp_path / name.lower()) for name in ("DATA", "RUNS", "GPU_OUT", "CARRY")}
        for name in () if keep else ("runs", "gpu_out"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        environment = {**os.environ, "PYTHON": str(stub), "CALLS": str(calls), "OUT": "/nowhere", **places, **variables}
        process = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=120)
        return calls.read_text().splitlines(), process

    return run


@pytest.fixture
def data(tmp_path):
    """The file that must be there."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/cifar10.npz").touch()


def packed(folder, name="results.tgz"):
    """The names in an archive that was packed in pieces."""
    content = b"".join(path.read_bytes() for path in sorted(folder.glob(f"{name}.*")))
    (folder.parent / "joined").write_bytes(content)
    with tarfile.open(folder.parent / "joined") as archive:
        return sorted(Path(member).name for member in archive.getnames())


def carry_on(tmp_path):
    """Put what the last call packed where the next one looks for it."""
    for path in (tmp_path / "gpu_out").iterdir():
        shutil.copy(path, tmp_path / "carry" / path.name)


@pytest.mark.usefixtures("data")
def test_what_is_worth_most_comes_first(call, tmp_path):
    """Whole runs first, then what may be begun; measurements and complete studies are not repeated elsewhere."""
    commands, process = call("1000", STOPPED="run paper-bn")
    assert process.returncode == 0, process.stderr
    assert [" ".join(command.split()[:2]) for command in commands] == [
        "kernels --device",
        "steptime --device",
        "profile --data-dir",
        "run paper-bn",
        "run paper-table1",
        "run paper-table1-short",
        "run paper-fig1",
        "run paper-bias-correction",
        "run paper-table1",
        "run paper-fig1",
        "run which-p-cifar10",
        "run paper-bn",
        "profile --data-dir",
    ]
    runs = [command for command in commands if command.startswith("run")]
    assert all("--jobs-per-device 3" in command and "--no-report" in command for command in runs)
    assert ["--whole" in command for command in runs] == [True] * 8 + [False]
    options = runs[0].split()
    assert 900 < int(options[options.index("--time-budget") + 1]) < 1000
    assert {"some.jsonl", "kernels.done", "steptime.done", "profile.done"} <= set(packed(tmp_path / "gpu_out"))
    assert len(list((tmp_path / "gpu_out").iterdir())) <= 8
    assert "1 to go on with, by the same command: paper-bn;" in process.stdout
    carry_on(tmp_path)
    commands, process = call("1000", JOBS="2")
    assert [" ".join(command.split()[:2]) for command in commands] == ["run paper-bn"]
    assert "--jobs-per-device 2" in commands[0]
    assert "all done" in process.stdout


def test_without_the_data_what_needs_none_is_done(call, tmp_path):
    """Kernels and step times are measured before anybody asks for the data, and packed."""
    commands, process = call("1000")
    assert [command.split()[0] for command in commands] == ["kernels", "steptime"]
    assert process.returncode == 3
    assert "cifar10.npz is missing" in process.stderr
    assert packed(tmp_path / "gpu_out") == ["kernels.done", "steptime.done"]


@pytest.mark.usefixtures("data")
def test_a_measurement_that_is_cut_off_goes_on(call, tmp_path):
    """It is no reason to stop, and the next call begins with it."""
    commands, process = call("1000", ENDED="steptime", MEASURE="kernels steptime")
    assert process.returncode == 0, process.stderr
    assert "steptime is not complete" in process.stdout
    assert len(commands) == 2 + 8
    carry_on(tmp_path)
    commands, _ = call("1000", MEASURE="kernels steptime")
    assert [command.split()[0] for command in commands] == ["steptime"]


@pytest.mark.usefixtures("data")
def test_states_are_packed_as_far_as_they_fit(call, tmp_path):
    """The smallest first, in pieces that may travel; what is lost is said."""
    call("40", MEASURE="")
    for name, size in (("small", 1), ("medium", 9), ("large", 170)):
        with (tmp_path / "runs/checkpoints" / f"{name}.pt").open("wb") as file:
            file.truncate(size * 1_000_000)
    _, process = call("40", keep=True, MEASURE="", STATES="20")
    assert process.returncode == 0, process.stderr
    assert packed(tmp_path / "gpu_out", "states.tar") == ["medium.pt", "small.pt"]
    assert "1 begun runs are too large to be packed" in process.stdout
    assert all(path.stat().st_size < 16 * 2**20 for path in (tmp_path / "gpu_out").iterdir())
    carry_on(tmp_path)
    call("40", MEASURE="")
    assert sorted(path.name for path in (tmp_path / "runs/checkpoints").iterdir()) == ["medium.pt", "small.pt"]


@pytest.mark.usefixtures("data")
def test_a_missing_package_comes_along(call, tmp_path):
    """It is installed from the wheels without a network, beside the runs and not into the system."""
    (tmp_path / "carry/wheels").mkdir()
    (tmp_path / "carry/wheels/msgspec-1-py3-none-any.whl").touch()
    commands, process = call("25", MISSING="yes")
    assert process.returncode == 0, process.stderr
    (command,) = commands
    assert command.startswith("install -q --no-index --no-deps --find-links")
    assert call("25")[0] == []


@pytest.mark.usefixtures("data")
def test_a_short_time_is_for_packing(call, tmp_path):
    """Nothing is begun that could not get anywhere, and the folder of another program is left alone."""
    commands, process = call("25")
    assert commands == []
    assert "12 to go on with, by the same command: kernels; steptime; profile; profile-compiled" in process.stdout
    assert (tmp_path / "gpu_out").is_dir()


def test_bad_input(call):
    """Exit code 2, and what is expected."""
    for arguments in ((), ("an hour",)):
        commands, process = call(*arguments)
        assert (process.returncode, commands) == (2, [])
        assert "usage" in process.stderr


STUDY = """
title = "Rehearsal of the rehearsal"
extends = "rehearsal-cifar10"
[run]
workload = "cifar10-resnet18"
workload_options = { width = 0.0625 }
epochs = 2
max_steps = 5
recalibrate = 2
"""


@pytest.fixture
def parts(tmp_path):
    """3000 small images, packed in both parts as the real ones are."""
    folder, labels = tmp_path / "source", np.arange(3000, dtype=np.uint8) % 10
    folder.mkdir()
    images = np.broadcast_to((20 * labels)[:, None, None, None], (3000, 32, 32, 3)).copy()
    images[:, ::5, ::7] += (np.arange(3000) % 13).astype(np.uint8)[:, None, None, None]
    cut = {"train": slice(2500), "test": slice(2500, None)}
    arrays = {f"{name}_{part}": x[where] for part, where in cut.items() for name, x in (("x", images), ("y", labels))}
    np.savez(folder / "cifar10.npz", **arrays)
    command = [sys.executable, "-m", "benchmarks.workloads.packed", "pack", str(folder), str(tmp_path / "parts")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return arrays


def test_short_calls_on_bare_machines_make_what_one_long_call_makes(call, tmp_path, parts):
    """Real runs on the CPU: the data in two parts, each call with nothing but what was carried to it."""
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    real = {"PYTHON": sys.executable, "DEVICE": "cpu", "JOBS": "1", "MEASURE": "", "STUDIES": str(study)}
    shutil.copytree(tmp_path / "parts/a", tmp_path / "carry/a")
    _, process = call("25", **real)
    assert process.returncode == 3, process.stderr
    assert "waits for the part that has not come yet" in process.stdout
    shutil.rmtree(tmp_path / "carry/a")
    shutil.copytree(tmp_path / "parts/b", tmp_path / "carry/b")  # to the same machine, which has kept the first part
    _, process = call("25", **real)
    assert process.returncode == 0, process.stderr
    with np.load(tmp_path / "data/cifar10.npz") as found:
        assert all((found[name] == x).all() for name, x in parts.items())
    settings = session.Settings(tmp_path / "data", threads=1)
    assert session.run(study, tmp_path / "whole", settings=settings, say=None).status == "done"
    whole = {run.path.name: comparable(run.path) for run in Store(tmp_path / "whole").results()}

    # One machine ends in the middle of a run, the next one makes the other run, the third goes on with the first one.
    stop = {"only": ["padam"], "on_epoch": lambda label, epoch: os.kill(os.getpid(), signal.SIGINT)}
    outcome = session.run(study, tmp_path / "runs", settings=settings, say=None, **stop)
    assert outcome.status == "interrupted"
    assert "begun runs" not in call("25", keep=True, **real)[1].stdout
    carry_on(tmp_path)
    _, process = call("600", **real | {"STUDIES": f"{study} --only sgd"})
    assert process.returncode == 0, process.stderr
    assert len(packed(tmp_path / "gpu_out", "states.tar")) == 1
    carry_on(tmp_path)
    _, process = call("600", **real)
    assert process.returncode == 0, process.stderr
    assert "1 of 2 runs to do, 1 done before" in process.stdout
    assert "all done" in process.stdout
    assert len(whole) == 2
    assert {run.path.name: comparable(run.path) for run in Store(tmp_path / "runs").results()} == whole
