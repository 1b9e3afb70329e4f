"""A store as one file: what comes out is what went in, byte for byte, and nothing half-done."""

import io
import tarfile
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.base.config import RunConfig
from benchmarks.base.records import Epoch, Evaluation
from benchmarks.base.store import Store, StoreError
from benchmarks.report.evidence.archive import pack, unpack


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of two runs, and what an unfinished one leaves."""
    made = Store(tmp_path / "runs")
    made.prepare()
    for seed in (0, 1):
        epochs = [Epoch(epoch=1, test=Evaluation({"top1": 90.0 + seed}))]
        made.write(RunConfig("digits-mlp", "sgd", {"lr": 0.1}, epochs=1, seed=seed), "data", {"torch": "2"}, epochs)
    (made.root / "checkpoints" / "left.pt").touch()
    return made


def contents(store: Store) -> dict[str, bytes]:
    """Every finished run."""
    return {path.name: path.read_bytes() for path in store.root.glob("*.jsonl")}


def test_the_way_there_and_back(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line; a second time nothing is new."""
    file, other = tmp_path / "records" / "one.tar.xz", tmp_path / "other"
    assert cli.main(["pack", str(store.root), str(file)]) == 0
    for count in (2, 0):
        assert cli.main(["unpack", str(file), str(other)]) == 0
        assert capsys.readouterr().out.endswith(f"{count} runs are new in {other}\n")
    assert contents(Store(other)) == contents(store)
    assert not list((other / "checkpoints").iterdir())


def test_equal_runs_make_equal_bytes(store: Store, tmp_path: Path) -> None:
    """Whatever was written when, so that a repository sees a change only where there is one."""
    first, second = tmp_path / "first.tar.xz", tmp_path / "second.tar.xz"
    pack(store, first)
    for path in sorted(store.root.glob("*.jsonl"), reverse=True):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    pack(store, second)
    assert first.read_bytes() == second.read_bytes()


def test_what_was_changed_is_not_packed(store: Store, tmp_path: Path) -> None:
    """An archive vouches for its runs."""
    path = min(store.root.glob("*.jsonl"))
    path.write_text(path.read_text().replace("9", "8", 1))
    with pytest.raises(StoreError, match=path.name):
        pack(store, tmp_path / "one.tar.xz")
    assert not (tmp_path / "one.tar.xz").exists()


def test_another_run_of_the_name_stays(store: Store, tmp_path: Path) -> None:
    """Nothing is overwritten, and none of the others is put beside it."""
    pack(store, tmp_path / "one.tar.xz")
    other = Store(tmp_path / "other")
    other.prepare()
    last = max(store.root.glob("*.jsonl"))
    (other.root / last.name).write_text("mine")
    with pytest.raises(StoreError, match=r"is there already, and differs"):
        unpack(tmp_path / "one.tar.xz", other)
    assert contents(other) == {last.name: b"mine"}


@pytest.mark.parametrize("name", ["../out.jsonl", "a/b.jsonl", "x.sh"])
def test_an_archive_of_something_else(tmp_path: Path, name: str) -> None:
    """Nothing is written anywhere."""
    with tarfile.open(tmp_path / "evil.tar.xz", "w:xz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(StoreError, match=r"is no archive of a store: .* is no run"):
        unpack(tmp_path / "evil.tar.xz", Store(tmp_path / "in" / "runs"))
    assert {path.name for path in tmp_path.iterdir()} == {"evil.tar.xz"}


@pytest.mark.parametrize("cut", [0, 40, None])
def test_no_archive_at_all(store: Store, tmp_path: Path, cut: int | None) -> None:
    """One that is missing, empty or cut short is one line."""
    file = tmp_path / "one.tar.xz"
    if cut is not None:
        pack(store, file)
        file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(StoreError, match=r"cannot read .*one\.tar\.xz"):
        unpack(file, Store(tmp_path / "other"))


def test_nothing_to_pack(tmp_path: Path) -> None:
    """A store without runs, no store, and a name that is none of an archive."""
    with pytest.raises(StoreError, match=r"there are no results at"):
        pack(Store(tmp_path / "none"), tmp_path / "one.tar.xz")
    Store(tmp_path / "empty").prepare()
    with pytest.raises(StoreError, match=r"no finished runs"):
        pack(Store(tmp_path / "empty"), tmp_path / "one.tar.xz")
    with pytest.raises(StoreError, match=r"must end in \.tar\.xz, got .*one\.zip"):
        pack(Store(tmp_path / "empty"), tmp_path / "one.zip")
