"""The results store: whole files or none, identities, and what is left out of a comparison."""

import errno
import json
import math

import pytest

from benchmarks.base import store as stores
from benchmarks.base.config import RunConfig
from benchmarks.base.store import Store, StoreError

CONFIG = RunConfig("digits-mlp", "sgd", {"lr": 0.1, "betas": (0.9, 0.99)}, epochs=2)
EPOCHS = [{"epoch": 1, "test": {"running": {"top1": 90.0}}, "time": {"train_s": 1.5}}, {"epoch": 2, "loss": math.nan}]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_a_run_comes_back_as_it_was_written(store):
    """Configuration, data, environment, epochs and status survive the file."""
    store.prepare()
    identity = CONFIG.identity("data")
    store.checkpoint(identity).write_bytes(b"state")
    path = store.write(CONFIG, "data", {"python": "3"}, EPOCHS)
    assert path.name == f"{identity}.jsonl"
    assert [json.loads(line)["type"] for line in path.read_text().splitlines()] == ["run", "epoch", "epoch", "end"]
    result = store.read(identity)
    assert (result.config, result.fingerprint, result.status) == (CONFIG.to_dict(), "data", "done")
    assert result.epochs[0]["test"]["running"]["top1"] == 90.0
    assert result.epochs[1]["loss"] is None
    assert store.has(identity)
    assert not store.checkpoint(identity).exists()


def test_a_diverged_run_is_marked(store):
    """Divergence is a result, and stays one."""
    store.write(CONFIG, "data", {}, [{"epoch": 1, "diverged": True}])
    assert store.read(CONFIG.identity("data")).diverged


def test_a_full_disk_loses_nothing(store, monkeypatch):
    """The checkpoint and an earlier result stay, no half file is left, and the error says what to do."""
    store.prepare()
    identity = CONFIG.identity("data")
    store.checkpoint(identity).write_bytes(b"state")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*checkpoint is kept"):
        store.write(CONFIG, "data", {}, EPOCHS)
    assert store.checkpoint(identity).exists()
    assert sorted(path.name for path in store.root.iterdir()) == ["checkpoints"]


def test_only_time_and_machine_are_left_out_of_a_comparison(store):
    """Two runs are equal but for their times exactly if the rest of their records is."""
    path = store.write(CONFIG, "data", {"python": "3"}, EPOCHS)
    before = stores.comparable(path)
    store.write(CONFIG, "data", {"python": "4"}, [{**EPOCHS[0], "time": {"train_s": 9.0}}, EPOCHS[1]])
    assert stores.comparable(path) == before
    store.write(CONFIG, "data", {"python": "3"}, [{**EPOCHS[0], "distance": 1.0}, EPOCHS[1]])
    assert stores.comparable(path) != before


@pytest.mark.parametrize("text", ["", "{}\n", '{"type": "run"}\n{"type": "end"}\n', '{"config": {}}\nnot json\n'])
def test_a_damaged_file_is_named(store, text):
    """A file that is not a run says so, with its path."""
    store.prepare()
    (store.root / "x.jsonl").write_text(text)
    with pytest.raises(StoreError, match=r"x\.jsonl is not a run"):
        list(store.results())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """--results on a file is an error before anything runs."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write results to"):
        Store(tmp_path / "file").prepare()
