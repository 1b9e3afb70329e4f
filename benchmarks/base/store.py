"""The results store: one sealed JSONL file per finished run, written in one piece or not at all."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.base.config import RunConfig
from benchmarks.base.environment import Provenance, provenance
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.files import replacing
from benchmarks.base.records import FORMAT, End, Epoch, Head, Line, Record

_LINES = msgspec.json.Decoder(Line)
_MACHINE = frozenset({"environment", "time", "sha256"})


class StoreError(BenchmarkError, RuntimeError):
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
        path: its file.
    """

    config: Mapping[str, Any]
    fingerprint: str
    environment: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    status: str
    path: Path

    @property
    def diverged(self) -> bool:
        """Whether the loss stopped being finite."""
        return self.status == "diverged"

    @property
    def provenance(self) -> Provenance:
        """The code, torch, device and number of processes that made it."""
        return provenance(self.environment)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file of the store that is not believed, and why."""

    path: Path
    reason: str


class Store:
    """The results below one directory, and what unfinished runs left in ``checkpoints/``.

    A run's file is called ``<identity>-<provenance>.jsonl``: the same run made by other code, or on another device,
    lies beside it. Files of the first format are called ``<identity>.jsonl``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, identity: str, made: Provenance) -> Path:
        """Where the run lies or will lie that `made` describes."""
        return self.root / f"{identity}-{made.key}.jsonl"

    def checkpoint(self, identity: str) -> Path:
        """Where the unfinished run keeps its state."""
        return self.root / "checkpoints" / f"{identity}.pt"

    def finished(self) -> dict[str, list[Path]]:
        """The files of the store by the identity in their names."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.root.glob("*.jsonl")):
            found.setdefault(path.stem.partition("-")[0], []).append(path)
        return found

    def begun(self) -> frozenset[str]:
        """The identities of the runs that were begun and are not finished."""
        return frozenset(path.stem for path in (self.root / "checkpoints").glob("*.pt"))

    def prepare(self) -> None:
        """Make the directories, or say why they cannot be made."""
        try:
            (self.root / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write results to {self.root}: {error.strerror or error}") from error

    def write(
        self, config: RunConfig, fingerprint: str, environment: Mapping[str, Any], epochs: Sequence[Epoch]
    ) -> Path:
        """Store a finished run, then drop its checkpoint. Until the file is whole, only the checkpoint exists."""
        identity = config.identity(fingerprint)
        head = Head(
            identity=identity,
            config=config.to_dict(),
            fingerprint=fingerprint,
            environment=dict(environment),
            format=FORMAT,
        )
        lines: list[Record] = [head, *epochs]
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        status = "diverged" if epochs and epochs[-1].diverged else "done"
        end = End(status=status, sha256=hashlib.sha256(text).hexdigest())
        path = self.path(identity, provenance(environment))
        try:
            with replacing(path) as file:
                file.write(text + msgspec.json.encode(end) + b"\n")
        except OSError as error:
            raise StoreError(f"{error.strerror or error}; the checkpoint is kept, run again to go on") from error
        self.checkpoint(identity).unlink(missing_ok=True)
        return path

    def scan(self) -> tuple[list[Result], list[Skipped]]:
        """All finished runs in the order of their names, and the files that are none."""
        results, skipped = [], []
        for path in sorted(self.root.glob("*.jsonl")):
            try:
                results.append(read(path))
            except StoreError as error:
                skipped.append(Skipped(path, str(error)))
        return results, skipped

    def results(self) -> Iterator[Result]:
        """All finished runs, in the order of their names."""
        yield from self.scan()[0]


def read(path: Path) -> Result:
    """The run stored at `path`.

    Raises:
        StoreError: it cannot be read, is no run of this benchmark, or is not what the benchmark wrote.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        head, *epochs, end = _LINES.decode_lines(content)
        if not (isinstance(head, Head) and isinstance(end, End) and all(isinstance(one, Epoch) for one in epochs)):
            raise ValueError("its lines are not a head, epochs and an end")
        if head.format > FORMAT:
            raise ValueError(f"it is of format {head.format}, of a later version of the benchmark")
        _check_seal(content, head, end)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a run of this benchmark ({error}); remove it to run it again") from error
    kept = tuple(one for one in epochs if isinstance(one, Epoch))
    return Result(head.config, head.fingerprint, head.environment, kept, end.status, path)


def _check_seal(content: bytes, head: Head, end: End) -> None:
    """Raise `ValueError` if the lines above the end are not those that were written."""
    if head.format == 1:
        return
    above = content[: content.rstrip(b"\n").rfind(b"\n") + 1]
    if hashlib.sha256(above).hexdigest() != end.sha256:
        raise ValueError("it has been changed since it was written: its checksum differs")


def comparable(path: Path) -> list[Any]:
    """The run stored at `path` without what depends on the clock or the machine."""
    return [_timeless(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _MACHINE}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
