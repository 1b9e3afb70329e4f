"""Records as JSON files in the results store: dataclasses of plain types, read as they were written."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.base.files import replacing
from benchmarks.base.store import StoreError

T = TypeVar("T")


def save(path: Path, record: Any) -> None:
    """Write a dataclass."""
    text = json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False, ensure_ascii=False)
    try:
        with replacing(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise StoreError(str(error)) from error


def load(kind: type[T], path: Path, hint: str) -> T:
    """Read a dataclass of this kind.

    Args:
        kind: the dataclass.
        path: where `save` wrote it.
        hint: how to make the file, for the error.
    """
    try:
        found: T = _read(kind, json.loads(path.read_text(encoding="utf-8")))
        return found
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}; {hint}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a record of this study ({error!r}); {hint}") from error


def _read(kind: Any, data: Any) -> Any:
    """The value of a type that JSON's `data` stands for."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(**{name: _read(hints[name], value) for name, value in data.items()})
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        inners = [inner[0]] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(_read(one, value) for one, value in zip(inners, data, strict=True))
    return data
