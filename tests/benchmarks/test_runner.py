"""Running studies: what is done is skipped, what is begun is resumed, and every way to stop leaves both intact."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmarks.base import store
from benchmarks.base.config import RunConfig
from benchmarks.base.store import Store
from benchmarks.scheduling import runner
from benchmarks.scheduling.runner import Settings, Stop
from benchmarks.studies.study import Arm, Run
from benchmarks.training.engine import train
from benchmarks.workloads import fingerprint

ROOT = Path(__file__).parents[2]
CONFIG = RunConfig("digits-mlp", "padam", {"lr": 0.1}, epochs=3, max_steps=3, recalibrate=0)


def run_of(seed, config=CONFIG):
    return Run(Arm("padam", "Padam", config, "padam"), dataclasses.replace(config, seed=seed))


def fake_train(config, *, on_epoch, should_stop, checkpoint, **rest):
    """Writes a checkpoint, then ends at once; stops if told to."""
    checkpoint.write_text("begun")
    if should_stop():
        return None
    record = {"epoch": 1, "test": {"running": {"top1": 50.0 + config.seed}}, "time": {"train_s": 1.0}}
    on_epoch(record)
    return [record]


@pytest.fixture
def results(tmp_path):
    place = Store(tmp_path / "runs")
    place.prepare()
    return place


def plan(runs, results):
    return runner.plan(runs, results, Path("data"), lambda workload, data_dir: "data")


def execute(todo, results, train, budget=None, **settings):
    return runner.execute(todo, results, Settings(Path("data"), **settings), Stop(budget), train)


def test_done_runs_are_known(results, capsys):
    """The first time everything runs, with a line each; the second time nothing is left."""
    runs = [run_of(seed) for seed in range(3)]
    outcome = execute(plan(runs, results), results, fake_train)
    assert outcome.finished == ["padam/seed0", "padam/seed1", "padam/seed2"]
    assert "[3/3] padam/seed2: top1 52.00, 1.0 s" in capsys.readouterr().out
    assert {one.state for one in plan(runs, results)} == {"done"}


def test_a_run_asked_for_twice_runs_once(results):
    """Two labels of one configuration are one run."""
    assert len(plan([run_of(0), run_of(0)], results)) == 1


def test_other_data_is_another_run(results):
    """A result on other data does not count."""
    execute(plan([run_of(0)], results), results, fake_train)
    assert runner.plan([run_of(0)], results, Path(), lambda workload, data_dir: "other")[0].state == "new"


def test_jobs_run_side_by_side(results):
    """With two jobs per device two runs are under way at once, and all get done."""
    together = threading.Barrier(2, timeout=10)

    def meet(config, **rest):
        together.wait()
        return fake_train(config, **rest)

    assert len(execute(plan([run_of(seed) for seed in range(4)], results), results, meet, jobs=2).finished) == 4


def test_the_budget_stops_between_and_inside_runs(results):
    """Runs that were not reached stay new, the one that was stopped has its checkpoint."""

    def slow(config, **rest):
        time.sleep(0.2)
        return fake_train(config, **rest)

    runs = [run_of(seed) for seed in range(3)]
    outcome = execute(plan(runs, results), results, slow, budget=0.3)
    assert (outcome.finished, outcome.stopped) == (["padam/seed0"], ["padam/seed1"])
    assert [one.state for one in plan(runs, results)] == ["done", "begun", "new"]


def test_ctrl_c_stops_politely(results):
    """SIGINT lets running runs save their state, and the handlers are put back."""

    def interrupted(config, *, should_stop, **rest):
        os.kill(os.getpid(), signal.SIGINT)
        while not should_stop():
            time.sleep(0.01)
        return fake_train(config, should_stop=should_stop, **rest)

    before = signal.getsignal(signal.SIGINT)
    outcome = execute(plan([run_of(0), run_of(1)], results), results, interrupted)
    assert outcome.interrupted
    assert (outcome.finished, outcome.stopped) == ([], ["padam/seed0"])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failing_run_does_not_stop_the_others(results):
    """Its traceback is kept for the end."""

    def fragile(config, **rest):
        if config.seed == 0:
            raise RuntimeError("out of memory")
        return fake_train(config, **rest)

    outcome = execute(plan([run_of(0), run_of(1)], results), results, fragile)
    assert outcome.finished == ["padam/seed1"]
    assert "out of memory" in outcome.failed["padam/seed0"]


def test_a_full_disk_stops_everything(results):
    """No use in training what cannot be stored."""

    def full(config, **rest):
        raise OSError(28, "No space left on device")

    outcome = execute(plan([run_of(0), run_of(1)], results), results, full)
    assert outcome.fatal is not None
    assert "No space left" in outcome.fatal
    assert not outcome.failed


def test_killed_and_resumed_is_the_same_run(tmp_path):
    """Killed with -9 in the middle of a run, then again: the file equals an uninterrupted one, but for times."""
    config, data = dataclasses.replace(CONFIG, epochs=40, max_steps=0), tmp_path / "data"
    run, identity = run_of(0, config), config.identity(fingerprint(config.workload, data))
    places = {name: Store(tmp_path / name) for name in ("killed", "whole")}
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from benchmarks.training.engine import train; from benchmarks.base.config import RunConfig\n"
        f"config = RunConfig(**{dataclasses.asdict(config)!r})\n"
        "train(config, data_dir=Path(sys.argv[1]), device=torch.device('cpu'), checkpoint=Path(sys.argv[2]),"
        " checkpoint_every=0.05)"
    )
    checkpoint = places["killed"].checkpoint(identity)
    places["killed"].prepare()
    process = subprocess.Popen([sys.executable, "-c", code, str(data), str(checkpoint)], cwd=ROOT)
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    threads = torch.get_num_threads()
    try:
        for place in places.values():
            planned = runner.plan([run], place, data, fingerprint)
            assert planned[0].state == ("begun" if place is places["killed"] else "new")
            outcome = runner.execute(planned, place, Settings(data, threads=1), Stop(None), train)
            assert outcome.finished == ["padam/seed0"]
    finally:
        torch.set_num_threads(threads)
    killed, whole = (place.path(identity) for place in places.values())
    assert store.comparable(killed) == store.comparable(whole)
    assert not checkpoint.exists()
