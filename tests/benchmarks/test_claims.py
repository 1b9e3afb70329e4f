"""Two processes on one store: each run is made once, and what a dead one had begun is taken over."""

import collections
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.base.store import Store
from benchmarks.scheduling import claims
from benchmarks.scheduling.claims import Claim, Claims

ROOT = Path(__file__).parents[2]
STUDY = """
title = "Shared"
seeds = 8
threads = 1
[run]
workload = "digits-mlp"
epochs = 30
recalibrate = 0
[[runs]]
optimizer = "sgd"
hyper.lr = 0.1
"""


@pytest.fixture
def start(tmp_path):
    """Starts the command line on the study in an empty directory, in a process of its own."""
    (tmp_path / "study.toml").write_text(STUDY)
    running = []

    def run(*arguments):
        command = [sys.executable, "-m", "benchmarks", "run", str(tmp_path / "study.toml"), "--no-report"]
        command += [
            "--device",
            "cpu",
            "--results",
            str(tmp_path / "runs"),
            "--data-dir",
            str(tmp_path / "data"),
            *arguments,
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()


def made(output):
    """The runs that a process says it has made itself."""
    return re.findall(r"\] (sgd/seed\d): top1", output)


def test_two_processes_share_the_work(start, tmp_path):
    """Started at once on eight runs: none is made twice, all are there, and the claims are gone."""
    pair = [start(), start()]
    outputs = [process.communicate(timeout=240)[0] for process in pair]
    assert {process.returncode for process in pair} <= {0, 3}, outputs
    counts = collections.Counter(made(outputs[0]) + made(outputs[1]))
    assert counts == {f"sgd/seed{seed}": 1 for seed in range(8)}, outputs
    store = Store(tmp_path / "runs")
    assert len(list(store.results())) == 8
    assert not list((store.root / "claims").iterdir())
    assert not store.begun()


def test_a_killed_process_leaves_its_run_to_others(start, tmp_path):
    """While it lives its run is passed over and told; after kill -9 the next command goes on with it."""
    folder = tmp_path / "runs" / "claims"
    first = start("--seeds", "0,")
    while first.poll() is None and not (folder.is_dir() and any(path.read_text() for path in folder.iterdir())):
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # it holds its claim, which it has signed, and gets no further
    (claimed,) = folder.iterdir()
    assert isinstance(Claims(tmp_path / "runs").take(claimed.name), str)
    second = start("--seeds", "2")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 3, output
    assert made(output) == ["sgd/seed1"]
    assert f"sgd/seed0 is left to another run command: process {first.pid} on " in output
    assert "nothing more to do here: 1 runs finished, 1 left" in output
    first.kill()
    first.communicate()
    third = start("--seeds", "2")
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0, output
    assert made(output) == ["sgd/seed0"]
    assert not list(folder.iterdir())


def test_a_claim_is_taken_once_and_given_back(tmp_path):
    """Also between two threads of one process; who has it is told."""
    mine = Claims(tmp_path).take("a")
    assert isinstance(mine, Claim)
    assert f"process {os.getpid()} on " in str(Claims(tmp_path).take("a"))
    other = Claims(tmp_path).take("b")
    assert isinstance(other, Claim)
    mine.release()
    with Claims(tmp_path).take("a"):
        pass
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["b"]
    other.release()


def test_a_file_without_a_name_is_no_claim(tmp_path, monkeypatch):
    """Between opening the file and locking it, its last holder may take its name away: then it is opened again."""
    lock, calls = Claims._lock, []

    def late(self, descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / "claims" / "a").unlink()
        return lock(self, descriptor)

    monkeypatch.setattr(Claims, "_lock", late)
    held = Claims(tmp_path).take("a")
    assert len(calls) == 2
    assert isinstance(Claims(tmp_path).take("a"), str)
    assert isinstance(held, Claim)


@pytest.mark.parametrize("missing", ["module", "locks"])
def test_without_locks_every_claim_is_granted_and_said(tmp_path, monkeypatch, missing):
    """On a system or a file system that has none, the work is done all the same."""

    class Refusing:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(descriptor, flags):
            raise OSError(95, "Operation not supported")

    monkeypatch.setattr(claims, "fcntl", None if missing == "module" else Refusing)
    both = Claims(tmp_path)
    assert isinstance(both.take("a"), Claim)
    assert isinstance(both.take("a"), Claim)
    assert "two commands on this store may make the same run" in str(both.note)
