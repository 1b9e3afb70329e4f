"""The whole sequence for a GPU, with a program that only writes down how it is called in the place of Python."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
STUB = """#!/bin/sh
case "$1" in
    -) echo 3 ;;
    *) shift 2; echo "$@" >> "$CALLS"; touch "$RUNS/some.jsonl"; test "$1 $2" != "$STOPPED" || exit 3 ;;
esac
"""


@pytest.fixture
def call(tmp_path):
    """Calls the script with everything in an empty directory; returns what it ran, and the finished process."""
    stub, calls = tmp_path / "python", tmp_path / "calls"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def run(*arguments, **variables):
        calls.write_text("")
        places = {name: str(tmp_path / name.lower()) for name in ("DATA", "RUNS", "RESULTS", "OUT")}
        environment = {**os.environ, "PYTHON": str(stub), "CALLS": str(calls), **places, **variables}
        process = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=60)
        return calls.read_text().splitlines(), process

    return run


@pytest.fixture
def data(tmp_path):
    """The file that must be there."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/cifar10.npz").touch()


@pytest.mark.usefixtures("data")
def test_what_is_worth_most_comes_first(call, tmp_path):
    """Each study gets the time that is left, stopped ones too; measurements are not repeated; results are collected."""
    commands, process = call("1000", STOPPED="run paper-bn")
    assert process.returncode == 0, process.stderr
    assert [" ".join(command.split()[:2]) for command in commands] == [
        "profile --data-dir",
        "run paper-bn",
        "run paper-table1",
        "profile --data-dir",
        "steptime --device",
        "run paper-table1-short",
        "run paper-fig1",
        "run paper-bias-correction",
        "run paper-table1",
        "run paper-fig1",
        "report paper-bn",
    ]
    assert all("--jobs-per-device 3" in command for command in commands if command.startswith("run"))
    assert 900 < int(commands[1].split()[-1]) < 1000
    assert (tmp_path / "results/some.jsonl").exists()
    commands, _ = call("1000", JOBS="2")
    assert [command.split()[0] for command in commands] == ["run"] * 7 + ["report"]
    assert "--jobs-per-device 2" in commands[0]


@pytest.mark.usefixtures("data")
def test_a_short_time_is_for_the_report(call):
    """Nothing is begun that could not get anywhere."""
    commands, process = call("40")
    assert [command.split()[0] for command in commands] == ["report"]
    assert "time is up" in process.stdout


def test_bad_input(call):
    """Exit code 2, and what is expected."""
    for arguments in ((), ("an hour",)):
        commands, process = call(*arguments)
        assert (process.returncode, commands) == (2, [])
        assert "usage" in process.stderr
    commands, process = call("100")
    assert (process.returncode, commands) == (2, [])
    assert "cifar10.npz is missing" in process.stderr
