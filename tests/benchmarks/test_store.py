"""The results store: whole files or none, identities, seals, and what is left out of a comparison."""

import errno
import json
from pathlib import Path

import pytest
from timeless import comparable

from benchmarks import studies
from benchmarks.base import store as stores
from benchmarks.base.config import RunConfig
from benchmarks.base.environment import Provenance
from benchmarks.base.records import Cost, Epoch, Evaluation
from benchmarks.base.store import Store, StoreError
from benchmarks.report import results

CONFIG = RunConfig("digits-mlp", "sgd", {"lr": 0.1, "betas": (0.9, 0.99)}, epochs=2)
EPOCHS = [
    Epoch(epoch=1, test=Evaluation({"top1": 90.0}), time=Cost(train_s=1.5)),
    Epoch(epoch=2, lr=None, test=Evaluation({"top1": None})),
]
HERE = {"python": "3", "sources": "abc", "torch": "2", "device": "cpu"}
MADE = Provenance("abc", "2", "cpu", "1")
FORMAT1 = Path(__file__).with_name("format1")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_a_run_comes_back_as_it_was_written(store):
    """Configuration, data, environment, epochs and status survive the file."""
    store.prepare()
    identity = CONFIG.identity("data")
    store.checkpoint(identity).write_bytes(b"state")
    path = store.write(CONFIG, "data", HERE, EPOCHS)
    assert path == store.path(identity, MADE)
    assert [json.loads(line)["type"] for line in path.read_text().splitlines()] == ["run", "epoch", "epoch", "end"]
    (result,) = store.results()
    assert (result.config, result.fingerprint, result.status) == (CONFIG.to_dict(), "data", "done")
    assert (result.environment, result.provenance) == (HERE, MADE)
    assert result.epochs == tuple(EPOCHS)
    assert store.finished() == {identity: [path]}
    assert not store.checkpoint(identity).exists()


def test_a_diverged_run_is_marked(store):
    """Divergence is a result, and stays one."""
    store.write(CONFIG, "data", HERE, [Epoch(epoch=1, test=Evaluation({}), diverged=True)])
    assert next(store.results()).diverged


def test_what_other_code_made_lies_beside_it(store):
    """Neither replaces the other; the same code does replace its own."""
    paths = {store.write(CONFIG, "data", HERE | {"sources": code}, EPOCHS) for code in ("abc", "def", "abc")}
    assert len(paths) == len(list(store.results())) == 2


def test_a_full_disk_loses_nothing(store, monkeypatch):
    """The checkpoint and an earlier result stay, no half file is left, and the error says what to do."""
    store.prepare()
    identity = CONFIG.identity("data")
    store.checkpoint(identity).write_bytes(b"state")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*checkpoint is kept"):
        store.write(CONFIG, "data", HERE, EPOCHS)
    assert store.checkpoint(identity).exists()
    assert sorted(path.name for path in store.root.iterdir()) == ["checkpoints"]


def test_only_time_and_machine_are_left_out_of_a_comparison(store):
    """Two runs are equal but for their times exactly if the rest of their records is."""
    first, second = EPOCHS
    before = comparable(store.write(CONFIG, "data", HERE, EPOCHS))
    later = Epoch(epoch=1, test=first.test, time=Cost(train_s=9.0))
    assert comparable(store.write(CONFIG, "data", HERE | {"python": "4"}, [later, second])) == before
    farther = Epoch(epoch=1, test=first.test, distance=1.0)
    assert comparable(store.write(CONFIG, "data", HERE, [farther, second])) != before


def test_a_changed_byte_is_not_believed(store):
    """Whichever byte of a file changes to whatever else: it is skipped with its reason, and the others are read."""
    sound = store.write(CONFIG, "other data", HERE, EPOCHS)
    path = store.write(CONFIG, "data", HERE, EPOCHS)
    content = path.read_bytes()
    for place in range(len(content) - 1):  # the last one ends the line
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StoreError, match="is not a run of this benchmark"):
            stores.read(path)
        with pytest.raises(StoreError, match="is not a run of this benchmark"):
            stores.verified(path)
    results, skipped = store.scan()
    assert [result.path for result in results] == [sound]
    assert [one.path for one in skipped] == [path]


def test_an_edited_line_is_named_as_such(store):
    """Somebody improved a score by hand."""
    path = store.write(CONFIG, "data", HERE, EPOCHS)
    path.write_text(path.read_text().replace("90.0", "99.0"))
    assert "it has been changed since it was written" in store.scan()[1][0].reason


def test_a_renamed_file_does_not_pass_for_another_run(store):
    """A name is a claim about what is inside; a run is looked up by it."""
    path = store.write(CONFIG, "data", HERE, EPOCHS)
    path.rename(store.root / f"{'0' * 16}-{MADE.key}.jsonl")
    assert "its name should begin with" in store.scan()[1][0].reason


@pytest.mark.parametrize(
    "text",
    ["", "{}\n", '{"type": "run"}\n{"type": "end"}\n', '{"config": {}}\nnot json\n', '{"text": "a", "label": 1}\n' * 3],
)
def test_a_foreign_file_is_listed_and_skipped(store, text):
    """A .jsonl that is no run is no reason to stop, and is not passed over in silence."""
    path = store.write(CONFIG, "data", HERE, EPOCHS)
    (store.root / "x.jsonl").write_text(text)
    results, skipped = store.scan()
    assert [result.path for result in results] == [path]
    assert [one.path.name for one in skipped] == ["x.jsonl"]
    assert skipped[0].reason.startswith("is not a run of this benchmark")


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """--results on a file, or on a disk that has become read-only, is an error before anything runs."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write results to"):
        Store(tmp_path / "file").prepare()
    Store(tmp_path / "runs").prepare()

    def read_only(**place):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(StoreError, match=r"cannot write results to .*: Read-only file system"):
        Store(tmp_path / "runs").prepare()


def test_files_of_the_first_format_are_read():
    """Two runs made by the code of version 0.2: what they hold, and what made them."""
    results, skipped = Store(FORMAT1).scan()
    assert skipped == []
    assert [(run.config["optimizer"], len(run.epochs), run.status) for run in results] == [
        ("padam", 2, "done"),
        ("sgd", 2, "done"),
    ]
    padam = results[0]
    assert padam.epochs[0].test.of("running")["top1"] == pytest.approx(23.3333, abs=1e-4)
    assert padam.epochs[1].time.mode == "eager"
    assert padam.provenance.sources == "f066286bdf5b"


def test_runs_of_the_first_format_keep_their_identity():
    """A study of then, read today, asks for the runs that are there."""
    arms = studies.load(str(FORMAT1 / "format1.toml")).arms
    asked = {arm.config.identity(run.fingerprint) for arm in arms for run in Store(FORMAT1).results()}
    assert asked == set(Store(FORMAT1).finished())


def test_runs_that_nothing_seals_are_named():
    """The report says of which runs it cannot tell whether they have been changed."""
    study = studies.load(str(FORMAT1 / "format1.toml"))
    notes = results.collect(study, Store(FORMAT1)).notes
    names = sorted(path.name for path in FORMAT1.glob("*.jsonl"))
    (note,) = [note for note in notes if "from before runs had a checksum" in note]
    assert all(name in note for name in names[:3])


def test_a_file_of_the_first_format_under_another_configuration_is_not_believed(store):
    """It has no seal, but its name still is that of its configuration and data."""
    store.prepare()
    (source, *_) = FORMAT1.glob("*.jsonl")
    (store.root / source.name).write_text(source.read_text().replace('"max_steps": 3', '"max_steps": 0'))
    assert "its identity is not that of its configuration" in store.scan()[1][0].reason


def test_a_file_without_epochs_is_not_believed(store):
    """One of the first format, which nothing seals, cut down to its first and last line."""
    source = sorted(FORMAT1.glob("*.jsonl"))[0]
    first, *_, last = source.read_text().splitlines()
    store.prepare()
    (store.root / source.name).write_text(f"{first}\n{last}\n")
    assert [one.reason for one in store.scan()[1]] == [
        "is not a run of this benchmark (it has no epochs); it is passed over"
    ]
