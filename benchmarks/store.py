"""The results store: one JSONL file per finished run, named by its identity, written in one piece or not at all."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.config import RunConfig
from benchmarks.files import replacing

_MACHINE = frozenset({"environment", "time"})


class StoreError(RuntimeError):
    """A result that cannot be written or read."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run as stored.

    Args:
        config: the configuration as plain JSON types.
        fingerprint: hash of the data.
        environment: where it ran.
        epochs: one record per epoch.
        status: ``"done"`` or ``"diverged"``.
    """

    config: Mapping[str, Any]
    fingerprint: str
    environment: Mapping[str, Any]
    epochs: tuple[Mapping[str, Any], ...]
    status: str

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being finite."""
        return self.status == "diverged"


class Store:
    """The results below one directory: ``<identity>.jsonl``, and what unfinished runs left in ``checkpoints/``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, identity: str) -> Path:
        """Where the finished run lies or will lie."""
        return self.root / f"{identity}.jsonl"

    def checkpoint(self, identity: str) -> Path:
        """Where the unfinished run keeps its state."""
        return self.root / "checkpoints" / f"{identity}.pt"

    def has(self, identity: str) -> bool:
        """Whether the run is finished."""
        return self.path(identity).is_file()

    def prepare(self) -> None:
        """Make the directories, or say why they cannot be made."""
        try:
            (self.root / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write results to {self.root}: {error.strerror or error}") from error

    def write(
        self, config: RunConfig, fingerprint: str, environment: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]
    ) -> Path:
        """Store a finished run, then drop its checkpoint. Until the file is whole, only the checkpoint exists."""
        identity = config.identity(fingerprint)
        first = {"type": "run", "identity": identity, "config": config.to_dict(), "fingerprint": fingerprint}
        first["environment"] = dict(environment)
        status = "diverged" if epochs and epochs[-1].get("diverged") else "done"
        records = [first, *({"type": "epoch", **epoch} for epoch in epochs), {"type": "end", "status": status}]
        text = "".join(json.dumps(_plain(record), allow_nan=False) + "\n" for record in records)
        path = self.path(identity)
        try:
            with replacing(path) as file:
                file.write(text.encode())
        except OSError as error:
            raise StoreError(f"{error.strerror or error}; the checkpoint is kept, run again to go on") from error
        self.checkpoint(identity).unlink(missing_ok=True)
        return path

    def read(self, identity: str) -> Result:
        """A finished run."""
        return read(self.path(identity))

    def results(self) -> Iterator[Result]:
        """All finished runs, in the order of their names."""
        for path in sorted(self.root.glob("*.jsonl")):
            yield read(path)


def read(path: Path) -> Result:
    """The run stored at `path`."""
    try:
        first, *epochs, end = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return Result(first["config"], first["fingerprint"], first.get("environment", {}), tuple(epochs), end["status"])
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a run of this benchmark ({error}); remove it to run it again") from error


def comparable(path: Path) -> list[Any]:
    """The run stored at `path` without what depends on the clock or the machine."""
    return [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _MACHINE}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """`value` with null in place of infinities and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
