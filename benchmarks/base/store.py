"""The results store: one sealed JSONL file per finished run, written in one piece or not at all."""

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.base.config import RunConfig, identity
from benchmarks.base.environment import Provenance, provenance
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.files import replacing
from benchmarks.base.records import FORMAT, End, Epoch, Head, Line, Record

_LINES = msgspec.json.Decoder(Line)


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
        sealed: whether a checksum shows that the file is as it was written; those of the first format have none.
    """

    config: Mapping[str, Any]
    fingerprint: str
    environment: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    status: str
    path: Path
    sealed: bool = True

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

    def stored(self, pattern: str) -> frozenset[tuple[Path, int]]:
        """The files whose names a glob matches, with when each was written: to tell later what has come since."""
        return frozenset((path, path.stat().st_mtime_ns) for path in self.root.glob(pattern))

    def check_exists(self) -> None:
        """Raise `StoreError` where there is no store, which is most often a slip of the pen."""
        if not self.root.is_dir():
            raise StoreError(f"there are no results at {self.root}: `run` makes them, --results says where they are")

    def prepare(self) -> None:
        """Make the directories and see that they can be written to, or say why not."""
        try:
            (self.root / "checkpoints").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / "checkpoints"):
                pass
        except OSError as error:
            raise StoreError(f"cannot write results to {self.root}: {error.strerror or error}") from error

    def write(
        self, config: RunConfig, fingerprint: str, environment: Mapping[str, Any], epochs: Sequence[Epoch]
    ) -> Path:
        """Store a finished run, then drop its checkpoint. Until the file is whole, only the checkpoint exists."""
        name = config.identity(fingerprint)
        head = Head(
            identity=name,
            config=config.to_dict(),
            fingerprint=fingerprint,
            environment=dict(environment),
            format=FORMAT,
        )
        lines: list[Record] = [head, *epochs]
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        status = "diverged" if epochs and epochs[-1].diverged else "done"
        end = End(status=status, sha256=hashlib.sha256(text).hexdigest())
        path = self.path(name, provenance(environment))
        try:
            with replacing(path) as file:
                file.write(text + msgspec.json.encode(end) + b"\n")
        except OSError as error:
            raise StoreError(f"{error.strerror or error}; the checkpoint is kept, run again to go on") from error
        self.checkpoint(name).unlink(missing_ok=True)
        return path

    def scan(self) -> tuple[list[Result], list[Skipped]]:
        """All finished runs in the order of their names, and the files that are none."""
        results, skipped = [], []
        for path in sorted(self.root.glob("*.jsonl")):
            try:
                results.append(read(path))
            except StoreError as error:
                skipped.append(Skipped(path, str(error).removeprefix(f"{path} ")))
        return results, skipped

    def results(self) -> Iterator[Result]:
        """All finished runs, in the order of their names."""
        yield from self.scan()[0]


def read(path: Path) -> Result:
    """The run stored at `path`.

    Raises:
        StoreError: it cannot be read, is no run of this benchmark, or is not what the benchmark wrote.
    """
    with _named(path):
        content = path.read_bytes()
        head, end = _frame(path, content)
        lines = _LINES.decode_lines(content)[1:-1]
        epochs = tuple(one for one in lines if isinstance(one, Epoch))
        if len(epochs) < len(lines):
            raise ValueError("its lines are not a head, epochs and an end")
    return Result(head.config, head.fingerprint, head.environment, epochs, end.status, path, bool(end.sha256))


def verified(path: Path) -> Head:
    """The head of the run stored at `path`, once the rest is known to be as it was written; costs less than `read`.

    Raises:
        StoreError: as `read` does.
    """
    with _named(path):
        head, end = _frame(path, path.read_bytes())
    if not end.sha256:  # of the first format: what nothing seals is to be read
        read(path)
    return head


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of reading a file as `StoreError`, with its path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a run of this benchmark ({error}); it is passed over") from error


def _frame(path: Path, content: bytes) -> tuple[Head, End]:
    """The first and the last line, once they go with the file's name and what is between them; else `ValueError`."""
    lines = content.rstrip(b"\n")
    cut = lines.rfind(b"\n") + 1
    head, end = _LINES.decode(lines.partition(b"\n")[0]), _LINES.decode(lines[cut:])
    if not (isinstance(head, Head) and isinstance(end, End)):
        raise ValueError("its lines are not a head, epochs and an end")
    if head.format > FORMAT:
        raise ValueError(f"it is of format {head.format}, of a later version of the benchmark")
    if (head.format > 1 or end.sha256) and hashlib.sha256(content[:cut]).hexdigest() != end.sha256:
        raise ValueError("it has been changed since it was written: its checksum differs")
    last = _LINES.decode(content[: cut - 1].rpartition(b"\n")[2])
    if not isinstance(last, Epoch):
        raise ValueError("it has no epochs")
    if end.status != ("diverged" if last.diverged else "done"):
        raise ValueError(f"its status {end.status!r} is not that of its last epoch")
    name = identity(head.config, head.fingerprint)
    if head.identity not in ("", name):
        raise ValueError("its identity is not that of its configuration")
    if path.stem.partition("-")[0] != name:
        raise ValueError(f"its name should begin with {name}")
    return head, end
