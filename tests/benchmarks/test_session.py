"""The benchmark from Python: a study of one's own, from a thread, without a word, and its results as a table."""

import dataclasses
import os
import sys
import threading
import time

import pytest

from benchmarks import session
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Store
from benchmarks.studies.study import Arm, Study
from benchmarks.training.engine import CheckpointError, train


def config(optimizer, **fields):
    fields = {"epochs": 2, "max_steps": 3, "recalibrate": 0} | fields
    return RunConfig("digits-mlp", optimizer, {"lr": 0.1}, **fields)


def study(*arms, seeds=(0,), **options):
    return Study("own", "A study of one's own", "", arms, seeds, **options)


SGD = Arm("sgd", "SGD", config("sgd"), "sgd")
PADAM = Arm("padam", "Padam", config("padam"), "padam")


@pytest.fixture
def settings(tmp_path):
    return session.Settings(data_dir=tmp_path / "data", threads=1)


def test_a_study_made_in_python(tmp_path, settings, capsys):
    """Its runs are made, told epoch by epoch, and come back as rows; with `say=None` nothing is printed."""
    told = []
    outcome = session.run(
        study(SGD, PADAM),
        tmp_path / "runs",
        seeds=2,
        settings=settings,
        say=None,
        on_epoch=lambda label, epoch: told.append((label, epoch.epoch)),
    )
    assert (outcome.status, outcome.asked, outcome.left) == ("done", 4, 0)
    assert sorted(outcome.finished) == ["padam/seed0", "padam/seed1", "sgd/seed0", "sgd/seed1"]
    assert sorted(told) == sorted((label, epoch) for label in outcome.finished for epoch in (1, 2))
    assert capsys.readouterr() == ("", "")
    frame = session.results(tmp_path / "runs")
    assert len(frame) == 8
    assert set(frame.optimizer) == {"sgd", "padam"}
    last = frame[(frame.optimizer == "padam") & (frame.seed == 1)].iloc[-1]
    assert (last.epoch, last.step, last.status, last["hyper.lr"]) == (2, 6, "done", 0.1)
    assert 0 < last["test.top1"] <= 100
    assert last["time.train_s"] > 0
    assert last.processes == "1"
    again = session.run(study(SGD, PADAM), str(tmp_path / "runs"), seeds=[0, 1], settings=settings, say=None)
    assert (again.asked, again.status) == (0, "done")


def test_results_tell_apart_what_is_scheduled(tmp_path, settings):
    """Two arms that differ in their schedule alone can be grouped by a column."""
    cosine = Arm("cosine", "SGD", config("sgd", schedules={"lr": {"kind": "cosine"}}, clip_norm=1.0), "cosine")
    session.run(study(SGD, cosine), tmp_path, settings=settings, say=None)
    frame = session.results(tmp_path).drop_duplicates("identity")
    found = set(zip(frame.schedules.fillna(""), frame.clip_norm.fillna(0), strict=True))
    assert found == {("", 0.0), ('{"lr": {"kind": "cosine"}}', 1.0)}


def test_results_without_pandas(tmp_path, settings, monkeypatch):
    """The same rows as mappings."""
    session.run(study(SGD), tmp_path, settings=settings, say=None)
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = session.results(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"file", "identity", "sources", "torch", "device", "train.online_loss", "test.top1", "lr"} <= rows[0].keys()


def test_from_a_thread(tmp_path, settings):
    """A notebook's widget or a server may call it: signals are for the main thread alone."""
    outcomes = []
    thread = threading.Thread(
        target=lambda: outcomes.append(session.run(study(SGD), tmp_path, settings=settings, say=None))
    )
    thread.start()
    thread.join()
    assert [outcome.status for outcome in outcomes] == ["done"]


def test_failures_come_back(tmp_path, settings, monkeypatch):
    """A traceback of what nobody foresaw, one line of what the benchmark can say itself."""

    def fragile(config, **rest):
        if config.optimizer == "sgd":
            raise CheckpointError("the checkpoint is of another version")
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(session, "train", fragile)
    outcome = session.run(study(SGD, PADAM), tmp_path, settings=settings, say=None)
    assert outcome.status == "failed"
    assert outcome.failed["sgd/seed0"] == "the checkpoint is of another version"
    assert "Traceback" in outcome.failed["padam/seed0"]
    monkeypatch.setattr(session, "train", train)
    assert session.run(study(SGD, PADAM), tmp_path, settings=settings, say=None).status == "done"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads must be an integer of at least 1, got 0"),
        ({"threads": "two"}, "threads must be an integer"),
    ],
)
def test_a_study_cannot_ask_for_no_threads(tmp_path, change, message):
    """It used to end as if the time were up, whenever it was called."""
    with pytest.raises(BenchmarkError, match=message):
        session.run(study(SGD, **change), tmp_path, say=None)


def test_bad_arguments(tmp_path, settings):
    """What cannot be meant is said before anything runs."""
    for seeds in (0, [], [1, 1], [-1]):
        with pytest.raises(BenchmarkError, match="seeds must be"):
            session.run(study(SGD), tmp_path / "runs", seeds=seeds, settings=settings)
    for call in (session.results, lambda place: session.report(study(SGD), place)):
        with pytest.raises(BenchmarkError, match="there are no results at"):
            call(tmp_path / "typo")
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written(tmp_path, settings):
    """One line that names the file; the results are where they were."""
    session.run(study(SGD), tmp_path / "runs", settings=settings, say=None)
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match=r"cannot write the report to .*file"):
        session.report(study(SGD), tmp_path / "runs", tmp_path / "file")
    assert len(session.results(tmp_path / "runs")) == 2


def fill(store, settings, arms, seconds, epochs=2, **environment):
    """Results of these arms that took so many seconds a step, as this machine would have made them."""
    planned = session.survey(study(*arms), store, settings=settings).planned
    for one in planned:
        made = session.runner.described(session.torch.device("cpu"), one.run.config, 1) | environment
        records = [
            Epoch(epoch=i + 1, step=3 * (i + 1), test=Evaluation({}), time=Cost(train_s=3 * seconds, eval_s=0.0))
            for i in range(epochs)
        ]
        store.write(one.run.config, one.fingerprint, made, records)


def expected(arm, store, settings):
    """What the survey says of an arm."""
    survey = session.survey(study(arm), store, settings=settings)
    return survey.expected[survey.planned[0].identity]


def test_estimates_go_by_the_nearest_runs(tmp_path, settings):
    """The same shape first; then other optimizers, other threads; then another size, scaled by the work of a step."""
    store = Store(tmp_path / "runs")
    store.prepare()
    wide = dataclasses.replace(config("sgd"), batch_size=256)
    first, other = (Arm(name, name, config(name, epochs=10), name) for name in ("sgd", "padam"))
    assert expected(first, store, settings)[1] == "a calibrated guess"
    fill(store, settings, [SGD], 2.0, threads=1)
    assert expected(first, store, settings) == (pytest.approx(60), "earlier runs")
    assert expected(other, store, settings) == (pytest.approx(60), "earlier runs of other optimizers")
    seconds, source = expected(Arm("wide", "wide", wide, "wide"), store, settings)
    assert (seconds, source) == (pytest.approx(24), "earlier runs of another size, scaled")  # 2 epochs, 3 steps, 4 s
    more = dataclasses.replace(settings, threads=2)
    assert expected(first, store, more)[1] == "earlier runs, with other threads or side by side"
    beside = dataclasses.replace(settings, jobs=2)
    assert expected(first, store, beside)[1] == "earlier runs, with other threads or side by side"
    fill(store, settings, [PADAM], 5.0, threads=1, side_by_side=2)
    assert expected(other, store, settings) == (
        pytest.approx(150),
        "earlier runs, with other threads or side by side",
    )
    assert expected(other, store, beside) == (pytest.approx(150), "earlier runs")


def test_estimates_know_how_many_steps(tmp_path, settings):
    """Earlier runs that stopped an epoch early tell the seconds of a step, not those of a whole epoch."""
    store = Store(tmp_path / "runs")
    store.prepare()
    fill(store, settings, [SGD], 2.0, threads=1)
    whole = Arm("whole", "whole", config("sgd", max_steps=0), "whole")
    assert expected(whole, store, settings) == (pytest.approx(2 * 12 * 2.0), "earlier runs")  # 1437 images by 128


def test_whole_runs_alone_are_begun(tmp_path, settings):
    """What earlier runs say would not end within the budget is left for another time; what is unknown is tried."""
    store = Store(tmp_path / "runs")
    store.prepare()
    fill(store, settings, [SGD], 2.0, threads=1)
    long = Arm("long", "Long", config("sgd", epochs=100), "long")  # ten minutes, it seems; the other one twelve seconds
    brief = dataclasses.replace(settings, budget=100, whole=True)
    outcome = session.run(study(long, PADAM), store, settings=brief, say=None)
    assert (outcome.status, outcome.finished, outcome.left) == ("stopped", ["padam/seed0"], 1)
    with pytest.raises(BenchmarkError, match="give one"):
        dataclasses.replace(settings, whole=True)


def test_ten_thousand_runs_are_planned_in_seconds(tmp_path, settings, monkeypatch):
    """With five thousand results in the store, each of which is checked; and they are told in a few lines."""
    arms = [
        Arm(f"sgd,lr={i}", "SGD", dataclasses.replace(SGD.config, hyper={"lr": 1 + i}), "sgd") for i in range(10_000)
    ]
    store = Store(tmp_path)
    store.prepare()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    fill(store, settings, arms[:5000], 1.0, epochs=20, threads=1)
    begun = time.process_time()
    survey = session.survey(study(*arms), store, settings=settings)
    lines = list(survey.lines())
    assert time.process_time() - begun < 5  # it takes one
    assert (len(survey.due), len(lines)) == (5000, 3)
    assert lines[0].startswith("sgd: 5000 of 10000 to do: about")
