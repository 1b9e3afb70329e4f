"""Data sets: found, converted, checked, and clearly reported when missing or corrupt."""

import errno
import gzip
import hashlib
import os
import pickle
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from synthetic import cifar10
from torchvision.datasets import utils

from benchmarks.base import files
from benchmarks.workloads import data


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(utils.urllib.request, "urlopen", refuse)


def _gzip_idx(path: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def _fashion(folder: Path) -> None:
    for stem, count in (("train", 20), ("t10k", 10)):
        _gzip_idx(folder / f"{stem}-images-idx3-ubyte.gz", np.full((count, 28, 28), count, np.uint8))
        _gzip_idx(folder / f"{stem}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)


def test_npz_is_used_without_download(tmp_path: Path) -> None:
    """An npz in the data directory is all that is needed."""
    arrays = data.load("cifar10", cifar10(tmp_path))
    assert arrays.x_train.shape == (96, 32, 32, 3)
    assert data.load("cifar10", tmp_path) is arrays, "read twice"


@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
def test_fashion_archives_are_converted_without_download(tmp_path: Path, folder: str) -> None:
    """The four gzipped files, laid flat or as torchvision does, become the npz."""
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    _fashion(tmp_path / folder)
    arrays = data.load("fashion", tmp_path)
    assert (tmp_path / "fashion.npz").exists()
    assert arrays.x_train.shape == (20, 28, 28)
    assert (arrays.x_test == 10).all()
    assert arrays.y_train[11] == 1


@pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter extracted tar")  # torchvision's
def test_cifar_archive_is_converted_without_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchvision's tar file in the data directory becomes the npz; a damaged one is an error, not a download."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        batch = {"data": np.ones((3, 3072), np.uint8), "labels": [0, 1, 2], "label_names": ["a", "b", "c"]}
        (folder / name).write_bytes(pickle.dumps(batch))
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for path in folder.iterdir():
        path.unlink()
    cls = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cls, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(cls, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(cls, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": sums["batches.meta"]})
    assert data.load("cifar10", tmp_path).y_train.tolist() == [0, 1, 2]
    (tmp_path / "cifar10.npz").unlink()
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(data.DataError, match=r"cifar-10-python\.tar\.gz is corrupt"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"), [("cifar10", "cifar-10-python.tar.gz"), ("fashion", "train-images-idx3-ubyte.gz")]
)
def test_missing_data_names_the_files_expected(tmp_path: Path, name: str, expected: str) -> None:
    """Without data and network the error says which file to put where."""
    with pytest.raises(data.DataError, match=rf"(?s)not in {tmp_path}.*put {name}\.npz there, or .*{expected}"):
        data.load(name, tmp_path)


def test_missing_imagenet_names_the_folder(tmp_path: Path) -> None:
    """ImageNet is never downloaded: the error names the folder."""
    with pytest.raises(data.DataError, match="imagenet/train not found"):
        data.fingerprint("imagenet", tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"junk", lambda b: b""])
def test_corrupt_archives(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A damaged npz or gzip file is reported by name, with what to do about it."""
    npz = cifar10(tmp_path) / "cifar10.npz"
    _fashion(tmp_path)
    gz = tmp_path / "train-images-idx3-ubyte.gz"
    for path, name in ((npz, "cifar10"), (gz, "fashion")):
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(data.DataError, match=f"{path} is corrupt .*; delete it"):
            data.load(name, tmp_path)
    assert not (tmp_path / "fashion.npz").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x_train", np.zeros((4, 32, 32), np.uint8)),
        ("x_train", np.zeros((4, 32, 32, 3), np.float32)),
        ("y_train", np.zeros(3, np.uint8)),
        ("y_test", np.full(4, 10, np.uint8)),
    ],
)
def test_npz_of_another_shape(tmp_path: Path, key: str, value: np.ndarray) -> None:
    """An npz that is not the data set is refused before anything trains on it."""
    arrays = {"x_train": np.zeros((4, 32, 32, 3), np.uint8), "y_train": np.zeros(4, np.uint8)}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"], key: value}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with pytest.raises(data.DataError, match="must be uint8 and equally long"):
        data.load("cifar10", tmp_path)


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """The fingerprint is the same for the same arrays however the file was written, and another for other arrays."""
    path = cifar10(tmp_path) / "cifar10.npz"
    first = data.fingerprint("cifar10", tmp_path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez_compressed(path, **arrays)
    assert data.fingerprint("cifar10", tmp_path) == first
    arrays["x_test"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)
    assert data.fingerprint("cifar10", tmp_path) != first


@pytest.mark.parametrize("name", ["digits", "text", "prose", "ring"])
def test_embedded_data_needs_nothing(tmp_path: Path, name: str) -> None:
    """Digits, texts and ring come with what is installed, and no example is in both parts by construction."""
    arrays = data.load(name, tmp_path)
    assert len(arrays.x_train) > 3 * len(arrays.x_test) > 0
    if name in ("text", "prose"):
        assert (arrays.x_train[0, 1:] == arrays.y_train[0, :-1]).all(), "targets are the next characters"


def test_a_full_disk_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a write fails the error names the file, the former content stays, and no temporary file is left."""
    path = tmp_path / "state"
    path.write_bytes(b"former")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=rf"{path} could not be written \(No space left on device\)"),
        files.replacing(path) as file,
    ):
        file.write(b"new")
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]
