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
from timeless import comparable

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.scheduling import runner
from benchmarks.scheduling.outcome import Stop
from benchmarks.scheduling.plan import distinct, plan
from benchmarks.scheduling.settings import Settings, SettingsError
from benchmarks.studies.study import Arm, Run
from benchmarks.training.engine import train
from benchmarks.workloads import fingerprint

ROOT = Path(__file__).parents[2]
CONFIG = RunConfig("digits-mlp", "padam", {"lr": 0.1}, epochs=3, max_steps=3, recalibrate=0)
SETTINGS = Settings()


def run_of(seed, config=CONFIG):
    return Run(Arm("padam", "Padam", config, "padam"), dataclasses.replace(config, seed=seed))


def fake_train(config, *, on_epoch, should_stop, checkpoint, **rest):
    """Writes a checkpoint, then ends at once; stops if told to."""
    checkpoint.write_text("begun")
    if should_stop():
        return None
    record = Epoch(epoch=1, test=Evaluation({"top1": 50.0 + config.seed}), time=Cost(train_s=1.0))
    on_epoch(record)
    return [record]


@pytest.fixture
def results(tmp_path):
    place = Store(tmp_path / "runs")
    place.prepare()
    return place


def planned(runs, results, data="data", **options):
    return distinct(plan(runs, results, SETTINGS, lambda config, data_dir: data, **options))


def execute(todo, results, train, budget=None, **settings):
    return runner.execute(todo, results, Settings(**settings), Stop(budget), train)


def states(runs, results, **options):
    return [one.state for one in planned(runs, results, **options)]


def test_done_runs_are_known(results, capsys):
    """The first time everything runs, with a line each; the second time nothing is left."""
    runs = [run_of(seed) for seed in range(3)]
    outcome = execute(planned(runs, results), results, fake_train)
    assert outcome.finished == ["padam/seed0", "padam/seed1", "padam/seed2"]
    assert "[3/3] padam/seed2: top1 52.00, 1.0 s" in capsys.readouterr().out
    assert set(states(runs, results)) == {"done"}


def test_a_run_asked_for_twice_runs_once(results):
    """Two labels of one configuration are one run."""
    assert len(planned([run_of(0), run_of(0)], results)) == 1


def test_other_data_is_another_run(results):
    """A result on other data does not count."""
    execute(planned([run_of(0)], results), results, fake_train)
    assert states([run_of(0)], results, data="other") == ["new"]


def test_what_is_not_believed_is_run_again(results):
    """A result that was edited is no result; the plan says which file, and the run takes its place."""
    execute(planned([run_of(0)], results), results, fake_train)
    (path,) = results.root.glob("*.jsonl")
    path.write_text(path.read_text().replace("50.0", "99.0"))
    (one,) = planned([run_of(0)], results)
    assert (one.state, one.files) == ("new", ())
    assert "checksum" in one.skipped[0].reason
    execute([one], results, fake_train)
    assert states([run_of(0)], results) == ["done"]


def test_fresh_and_force(results, monkeypatch):
    """Fresh makes what other code made and keeps both files; force makes everything anew in the place of its own."""
    execute(planned([run_of(0)], results), results, fake_train)
    (old,) = results.root.glob("*.jsonl")
    content = old.read_bytes()
    assert states([run_of(0)], results, fresh=True) == ["done"]
    monkeypatch.setattr("benchmarks.base.environment.sources", lambda: "other code")
    runner_here = runner.environment.here
    runner_here.cache_clear()
    try:
        (one,) = planned([run_of(0)], results)
        assert (one.state, one.own) == ("done", False)
        (one,) = planned([run_of(0)], results, fresh=True)
        assert one.due
        execute([one], results, fake_train)
        assert old.read_bytes() == content
        assert len(list(results.root.glob("*.jsonl"))) == 2
        assert states([run_of(0)], results, fresh=True) == ["done"]
        (one,) = planned([run_of(0)], results, force=True)
        results.checkpoint(one.identity).write_text("half a run")
        seen = []

        def anew(config, *, checkpoint, **rest):
            seen.append(checkpoint.exists())
            return fake_train(config, checkpoint=checkpoint, **rest)

        assert execute([one], results, anew).finished == ["padam/seed0"]
        assert seen == [False]
        assert len(list(results.root.glob("*.jsonl"))) == 2
    finally:
        runner_here.cache_clear()


def test_jobs_run_side_by_side(results):
    """With two jobs per device two runs are under way at once, all get done, and their records say how they ran."""
    together = threading.Barrier(2, timeout=10)

    def meet(config, **rest):
        together.wait()
        return fake_train(config, **rest)

    todo = planned([run_of(seed) for seed in range(4)], results)
    assert len(execute(todo, results, meet, jobs=2, threads=1).finished) == 4
    where = [result.environment for result in results.results()]
    assert {(facts["side_by_side"], facts["threads"]) for facts in where} == {(2, 1)}


def test_records_say_the_threads_that_a_run_had(results):
    """Not those of the process that asked for it, which keeps its own."""
    before = torch.get_num_threads()
    seen = []

    def look(config, **rest):
        seen.append(torch.get_num_threads())
        return fake_train(config, **rest)

    execute(planned([run_of(0)], results), results, look, threads=before + 1)
    assert seen == [before + 1]
    assert next(results.results()).environment["threads"] == before + 1
    assert torch.get_num_threads() == before
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [before + 1, before]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threads": 0}, "threads must be an integer of at least 1, got 0"),
        ({"threads": 1.5}, "threads must be"),
        ({"jobs": 0}, "jobs must be an integer of at least 1, got 0"),
        ({"budget": 0}, "budget must be a number of seconds above 0"),
        ({"budget": float("nan")}, "budget must be"),
        ({"devices": ()}, "devices must be a list of at least one"),
        ({"devices": ("gpu",)}, "unknown device 'gpu'"),
    ],
)
def test_settings_that_make_no_sense(setting, message):
    """They are refused before anything runs; with 0 threads every call used to end as if the time were up."""
    with pytest.raises(SettingsError, match=message):
        Settings(**setting)


def test_an_error_outside_of_a_run_ends_the_session(results, monkeypatch):
    """A thread that dies would leave its runs undone, and the next call as well: that is no spent budget."""

    def broken(number):
        raise RuntimeError("no threads here")

    monkeypatch.setattr(torch, "set_num_threads", broken)
    with pytest.raises(RuntimeError, match="no threads here"):  # the caller's own threads cannot be put back either
        execute(planned([run_of(0)], results), results, fake_train, threads=1)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: broken(number) if number == 7 else None)
    outcome = execute(planned([run_of(0), run_of(1)], results), results, fake_train, threads=7)
    assert outcome.status == "broken"
    assert outcome.fatal is not None
    assert "no threads here" in outcome.fatal


def test_the_budget_stops_between_and_inside_runs(results):
    """Runs that were not reached stay new, the one that was stopped has its checkpoint."""

    def slow(config, **rest):
        time.sleep(0.2)
        return fake_train(config, **rest)

    runs = [run_of(seed) for seed in range(3)]
    outcome = execute(planned(runs, results), results, slow, budget=0.3)
    assert (outcome.finished, outcome.stopped) == (["padam/seed0"], ["padam/seed1"])
    assert states(runs, results) == ["done", "begun", "new"]


def test_ctrl_c_stops_politely(results):
    """SIGINT lets running runs save their state, and the handlers are put back."""

    def interrupted(config, *, should_stop, **rest):
        os.kill(os.getpid(), signal.SIGINT)
        while not should_stop():
            time.sleep(0.01)
        return fake_train(config, should_stop=should_stop, **rest)

    before = signal.getsignal(signal.SIGINT)
    outcome = execute(planned([run_of(0), run_of(1)], results), results, interrupted)
    assert outcome.interrupted
    assert (outcome.finished, outcome.stopped) == ([], ["padam/seed0"])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_comes_twice_at_once_is_one(results):
    """`timeout` signals the process and its group; the second must not end what the first has asked to save."""

    def interrupted(config, *, should_stop, **rest):
        os.kill(os.getpid(), signal.SIGTERM)
        while not should_stop():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # the main thread handles signals between two looks at its threads
        return fake_train(config, should_stop=should_stop, **rest)

    outcome = execute(planned([run_of(0)], results), results, interrupted)
    assert (outcome.status, outcome.stopped) == ("interrupted", ["padam/seed0"])


def test_a_failing_run_does_not_stop_the_others(results):
    """Its traceback is kept for the end; where the error says itself what is wrong, its message alone."""

    def fragile(config, **rest):
        if config.seed == 0:
            raise RuntimeError("out of memory")
        if config.seed == 1:
            raise BenchmarkError("the checkpoint is of another version")
        return fake_train(config, **rest)

    outcome = execute(planned([run_of(seed) for seed in range(3)], results), results, fragile)
    assert outcome.finished == ["padam/seed2"]
    assert outcome.failed["padam/seed0"].startswith("Traceback")
    assert outcome.failed["padam/seed0"].endswith("RuntimeError: out of memory")
    assert outcome.failed["padam/seed1"] == "the checkpoint is of another version"
    assert outcome.status == "failed"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("CUDA error: device-side assert triggered")]
)
def test_what_would_hit_every_run_stops_everything(results, error):
    """No use in training what cannot be stored, or on a device that is lost."""

    def lost(config, **rest):
        raise error

    outcome = execute(planned([run_of(0), run_of(1)], results), results, lost)
    assert outcome.fatal is not None
    assert str(error) in outcome.fatal
    assert outcome.status == "broken"
    assert (outcome.finished, len(outcome.failed) < 2) == ([], True)


def test_epochs_are_told_as_they_come(results):
    """By the run's label; and nothing is printed where nobody listens."""
    told = []
    runner.execute(
        planned([run_of(0)], results),
        results,
        SETTINGS,
        Stop(None),
        fake_train,
        say=None,
        on_epoch=lambda label, epoch: told.append((label, epoch.epoch)),
    )
    assert told == [("padam/seed0", 1)]


def test_a_run_that_other_code_began_says_so(results):
    """Its record names both, so it passes for neither's."""

    def resumed(config, *, on_resume, **rest):
        on_resume({"sources": "old+new", "torch": "2.0+2.1", "device": "cpu"})
        return fake_train(config, **rest)

    execute(planned([run_of(0)], results), results, resumed)
    (run,) = results.results()
    assert (run.provenance.sources, run.provenance.torch) == ("old+new", "2.0+2.1")
    (one,) = planned([run_of(0)], results)
    assert (one.state, one.own) == ("done", False)


def test_killed_and_resumed_is_the_same_run(tmp_path):
    """Killed with -9 in the middle of a run, then again: the file equals an uninterrupted one, but for times."""
    config, data = dataclasses.replace(CONFIG, epochs=40, max_steps=0), tmp_path / "data"
    run, identity = run_of(0, config), config.identity(fingerprint(config, data))
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
    settings = Settings(data, threads=1)
    for place in places.values():
        todo = plan([run], place, settings, fingerprint)
        assert todo[0].state == ("begun" if place is places["killed"] else "new")
        outcome = runner.execute(todo, place, settings, Stop(None), train)
        assert outcome.finished == ["padam/seed0"]
    killed, whole = (next(place.root.glob("*.jsonl")) for place in places.values())
    assert comparable(killed) == comparable(whole)
    assert not checkpoint.exists()
