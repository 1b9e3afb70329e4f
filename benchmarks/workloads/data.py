"""The data sets, each decoded once into `<name>.npz` from an archive in the data directory or a download."""

import dataclasses
import functools
import gzip
import hashlib
import math
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.base.errors import BenchmarkError
from benchmarks.base.files import replacing

Array = npt.NDArray[Any]
KEYS = ("x_train", "y_train", "x_test", "y_test")
WINDOW = 64  # characters of a training example of text
LONG = 128  # of prose
_lock = threading.RLock()


class DataError(BenchmarkError, RuntimeError):
    """A data set that is missing, cannot be downloaded, or is corrupt."""


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A data set: examples and labels, uint8 if it is one of `DATASETS`, with a hash of their content."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """How to get a data set, and what it must look like.

    Args:
        name: the stem of its npz.
        shape: of one example.
        classes: number of labels.
        raw: the archives it can be made from, for messages.
        decode: makes the four arrays from what lies in the data directory, or from a download.
        labels: shape of one example's label.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    raw: str
    decode: Callable[[Path], Mapping[str, Array]]
    labels: tuple[int, ...] = ()


def load(name: str, data_dir: Path) -> Arrays:
    """The data set `name`, decoded into the data directory if it is not there yet, and read once per process."""
    dataset, path = DATASETS[name], data_dir / f"{name}.npz"
    with _lock:
        if not path.exists():
            arrays = dataset.decode(data_dir)
            try:
                with replacing(path) as file:
                    named: Any = {key: arrays[key] for key in KEYS}
                    np.savez(file, **named)
            except OSError as error:
                raise DataError(str(error)) from error
        status = path.stat()
        return _read(name, path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(name: str, path: Path, size: int, modified: int) -> Arrays:
    """The checked content of an npz; `size` and `modified` make the cache follow the file."""
    dataset = DATASETS[name]
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {key: archive[key] for key in KEYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is corrupt ({error}); delete it to have it made again from {dataset.raw}") from error
    check(dataset, str(path), arrays)
    digest = hashlib.sha256()
    for part in ("train", "test"):
        for array in (arrays[f"x_{part}"], arrays[f"y_{part}"]):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return Arrays(**arrays, fingerprint=digest.hexdigest()[:16])


def check(dataset: Dataset, where: str, arrays: Mapping[str, Array]) -> None:
    """Raise `DataError` for arrays that do not look like the data set; `where` they come from, for the message."""
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if not (
            (x.dtype == y.dtype == np.uint8)
            and 0 < len(x) == len(y)
            and (x.shape[1:], y.shape[1:]) == (dataset.shape, dataset.labels)
            and int(y.max()) < dataset.classes
        ):
            raise DataError(
                f"{where}: x_{part} and y_{part} must be uint8 and equally long, items {list(dataset.shape)} "
                f"and labels below {dataset.classes}; got {x.dtype}{list(x.shape)} and {y.dtype}{list(y.shape)}"
            )


def fingerprint(dataset: str, data_dir: Path) -> str:
    """A hash of a data set's content.

    Raises:
        DataError: it is missing and cannot be downloaded, or is corrupt.
    """
    return _folder_fingerprint(imagenet(data_dir)) if dataset == "imagenet" else load(dataset, data_dir).fingerprint


def imagenet(data_dir: Path) -> Path:
    """The folder ``imagenet`` of the data directory; its ``train`` and ``val`` have one folder of images per class."""
    root = data_dir / "imagenet"
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise DataError(
                f"{root / part} not found: ImageNet must lie there unpacked, one folder of images per class"
            )
    return root


@functools.cache
def _folder_fingerprint(root: Path) -> str:
    """A hash of the names and sizes of all files: the content of ImageNet takes too long to read for this."""
    files = sorted((str(f.relative_to(root)), f.stat().st_size) for f in root.rglob("*") if f.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _missing(data_dir: Path, name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(
        f"{name} is not in {data_dir} and could not be downloaded ({reason}); "
        f"put {name}.npz there, or {DATASETS[name].raw}"
    )


def _cifar(name: str, data_dir: Path) -> dict[str, Array]:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    cls: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    archive = data_dir / cls.filename
    if archive.exists() and not check_integrity(archive, cls.tgz_md5):
        raise DataError(f"{archive} is corrupt (its MD5 is not {cls.tgz_md5}); delete it to have it downloaded again")
    try:
        train, test = (cls(data_dir, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:
        raise _missing(data_dir, name, error) from error
    return {
        "x_train": train.data,
        "y_train": np.array(train.targets, np.uint8),
        "x_test": test.data,
        "y_test": np.array(test.targets, np.uint8),
    }


_FASHION = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _fashion(data_dir: Path) -> dict[str, Array]:
    from torchvision.datasets import FashionMNIST

    folders = (data_dir, data_dir / "FashionMNIST" / "raw")
    found = [next((p for f in folders if (p := f / f"{stem}-ubyte.gz").exists()), None) for stem in _FASHION]
    if None in found:
        try:
            FashionMNIST(data_dir, download=True)
        except (OSError, RuntimeError) as error:
            raise _missing(data_dir, "fashion", error) from error
        found = [folders[1] / f"{stem}-ubyte.gz" for stem in _FASHION]
    return dict(zip(KEYS, (_idx(path) for path in found if path), strict=True))


def _idx(path: Path) -> Array:
    """The content of a gzipped IDX file of unsigned bytes: a magic number, the dimensions, the data."""
    try:
        content = gzip.decompress(path.read_bytes())
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        if content[:3] != b"\0\0\x08" or len(content) != 4 + 4 * dimensions + math.prod(shape.tolist()):
            raise ValueError("not an IDX file of bytes, or cut short")
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise DataError(f"{path} is corrupt ({error}); delete it to have it downloaded again") from error
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _digits(data_dir: Path) -> dict[str, Array]:
    """The 1,797 digits inside scikit-learn, in a fixed random order, a fifth of them for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.images[order].astype(np.uint8), digits.target[order].astype(np.uint8)
    return {"x_train": x[:1437], "y_train": y[:1437], "x_test": x[1437:], "y_test": y[1437:]}


def _topics() -> list[str]:
    """The chapters of Python's manual that are in the standard library; other versions have others."""
    import pydoc_data.topics

    return [text for _, text in sorted(pydoc_data.topics.topics.items())]


def _windows(text: str, length: int) -> dict[str, Array]:
    """Windows of a text, each with the characters that follow; the last tenth for testing."""
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    windows = (len(codes) - 1) // length
    x, y = (codes[shift:][: windows * length].reshape(windows, length) for shift in (0, 1))
    cut = windows - windows // 10
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def _text(data_dir: Path) -> dict[str, Array]:
    """The manual as it is: part of what is tested also stands in the training text."""
    return _windows("".join(_topics()), WINDOW)


def _prose(data_dir: Path) -> dict[str, Array]:
    """The manual with each paragraph once: where it stands first, white space aside."""
    paragraphs: dict[str, str] = {}
    for paragraph in "\n\n".join(_topics()).split("\n\n"):
        paragraphs.setdefault(" ".join(paragraph.split()), paragraph.strip("\n"))
    return _windows("\n\n".join(filter(None, paragraphs.values())), LONG)


def _ring(data_dir: Path) -> dict[str, Array]:
    """Which of eight modes each point belongs to; the points themselves are drawn as they are used."""
    train, test = (np.tile(np.arange(8, dtype=np.uint8), n) for n in (1024, 256))
    return {"x_train": train, "y_train": train, "x_test": test, "y_test": test}


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            Dataset("digits", (8, 8), 10, "scikit-learn", _digits),
            Dataset("fashion", (28, 28), 10, ", ".join(f"{stem}-ubyte.gz" for stem in _FASHION), _fashion),
            Dataset("cifar10", (32, 32, 3), 10, "cifar-10-python.tar.gz", functools.partial(_cifar, "cifar10")),
            Dataset("cifar100", (32, 32, 3), 100, "cifar-100-python.tar.gz", functools.partial(_cifar, "cifar100")),
            Dataset("text", (WINDOW,), 128, "the standard library", _text, (WINDOW,)),
            Dataset("prose", (LONG,), 128, "the standard library", _prose, (LONG,)),
            Dataset("ring", (), 8, "nothing", _ring),
        )
    }
)
