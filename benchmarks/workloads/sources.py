"""Where a run's data comes from: a data set of the benchmark by name, or a function that gives the arrays."""

import dataclasses
import functools
import hashlib
import inspect
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base import references
from benchmarks.base.config import RunConfig
from benchmarks.workloads import data
from benchmarks.workloads.data import KEYS, Array, Arrays, DataError
from benchmarks.workloads.workload import Workload

_lock = threading.RLock()


@dataclasses.dataclass(frozen=True)
class Source:
    """What gives the data of a run.

    Args:
        name: of a data set, or ``"module:object"`` of a function of `options`, called once per process, which returns
            ``x_train``, ``y_train``, ``x_test``, ``y_test`` in this order or by these names: arrays or tensors of
            numbers, of any shape. It must return the same every time.
        options: its keyword arguments, as JSON.
        like: data set of the benchmark whose shape the data must have, because the workload's network or task was made
            for that; empty for any.
    """

    name: str
    options: str = "{}"
    like: str = ""

    @property
    def given(self) -> bool:
        """Whether a function gives the data."""
        return references.is_reference(self.name)


def source(workload: Workload, config: RunConfig) -> Source:
    """Where the data of a run comes from: the run's own data set, or else the workload's.

    Raises:
        DataError: the workload has no data set, or its data set takes no options.
    """
    name = config.data or workload.dataset
    if not name:
        raise DataError(f"{workload.name} needs data of your own: give data = 'module:object'")
    if config.data and not references.is_reference(name):
        raise DataError(f"data must be 'module:object', got {name!r}")
    if config.data_options and not references.is_reference(name):
        raise DataError(
            f"{workload.name}: the data set {name!r} takes no data_options, got {dict(config.data_options)}"
        )
    made_for = workload.dataset if config.data and workload.dataset in data.DATASETS else ""
    if config.data and workload.dataset == "imagenet":
        raise DataError(f"{workload.name} reads a folder of images: use 'classification' for data of your own")
    return Source(name, json.dumps(dict(config.data_options), sort_keys=True), made_for)


def load(where: Source, data_dir: Path) -> Arrays:
    """The arrays, read or made once per process.

    Raises:
        DataError: they are missing, corrupt or not what a run can train on.
    """
    if not where.given:
        return data.load(where.name, data_dir)
    with _lock:
        return _given(where)


def fingerprint(where: Source, data_dir: Path) -> str:
    """A hash of the content.

    Raises:
        DataError: as `load`.
    """
    return load(where, data_dir).fingerprint if where.given else data.fingerprint(where.name, data_dir)


@functools.lru_cache(maxsize=8)
def _given(where: Source) -> Arrays:
    """What the function gives, once it is known to be fit to train on."""
    function, options = references.load(where.name), json.loads(where.options)
    if not callable(function):
        raise DataError(f"data {where.name!r} must be a function, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise DataError(f"data {where.name!r} does not take data_options {options}: {error}") from error
    arrays = _arrays(where.name, function(**options))
    _check(where.name, arrays)
    if where.like:
        data.check(data.DATASETS[where.like], where.name, arrays)
    found = _digest(arrays)
    if _digest(_arrays(where.name, function(**options))) != found:
        raise DataError(
            f"data {where.name!r} must give the same arrays at every call, or no run could be resumed or compared, and "
            "two calls gave different ones; seed a generator inside the function"
        )
    return Arrays(**arrays, fingerprint=found)


def _arrays(name: str, found: Any) -> dict[str, Array]:
    return {key: _array(name, key, value) for key, value in _named(name, found).items()}


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape}".encode())
        digest.update(arrays[key].data)
    return digest.hexdigest()[:16]


def _named(name: str, found: Any) -> Mapping[str, Any]:
    """The four arrays by name."""
    if isinstance(found, Mapping):
        if set(found) != set(KEYS):
            raise DataError(f"data {name!r} must have the keys {', '.join(KEYS)}, got {', '.join(map(str, found))}")
        return found
    if not isinstance(found, tuple | list) or len(found) != len(KEYS):
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise DataError(f"data {name!r} must return {', '.join(KEYS)}, got a {type(found).__name__}{size}")
    return dict(zip(KEYS, found, strict=True))


def _array(name: str, key: str, value: Any) -> Array:
    """The value as a contiguous array of float32, uint8, bool or int64."""
    if hasattr(value, "detach"):  # a tensor, without importing torch to ask
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise DataError(f"data {name!r}: {key} must be an array of real numbers, got {array.dtype}{list(array.shape)}")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what does not fit is found below
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"data {name!r}: {key} has numbers that are not finite in float32")
    elif array.dtype not in (np.uint8, np.bool_):
        array = array.astype(np.int64)
    return np.require(array, requirements=["C", "W"])


def _check(name: str, arrays: Mapping[str, Array]) -> None:
    """Raise `DataError` where examples and labels, or training and test set, do not go together."""
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if not 0 < len(x) == len(y):
            raise DataError(f"data {name!r}: x_{part} and y_{part} must be equally long, got {len(x)} and {len(y)}")
    for letter in "xy":
        train, test = arrays[f"{letter}_train"], arrays[f"{letter}_test"]
        if (train.dtype, train.shape[1:]) != (test.dtype, test.shape[1:]):
            raise DataError(
                f"data {name!r}: {letter}_train and {letter}_test must have examples of one dtype and shape, "
                f"got {train.dtype}{list(train.shape[1:])} and {test.dtype}{list(test.shape[1:])}"
            )
