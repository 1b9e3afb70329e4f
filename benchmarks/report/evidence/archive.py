"""A store as one file, to be kept or sent: finished runs byte for byte as they are, and nothing else of it."""

import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.base.files import replacing
from benchmarks.base.store import Store, StoreError, verified

SUFFIX = ".tar.xz"


def pack(store: Store, archive: Path) -> int:
    """Write the finished runs of a store into an archive; equal runs make equal bytes.

    Args:
        store: whose runs.
        archive: where it goes; ends in ``.tar.xz``.

    Returns:
        How many runs there are.

    Raises:
        StoreError: there are none, or a file of the store is no run as the benchmark wrote it.
    """
    store.check_exists()
    if not archive.name.endswith(SUFFIX):
        raise StoreError(f"an archive must end in {SUFFIX}, got {str(archive)!r}")
    paths = [path for files in store.finished().values() for path in files]
    if not paths:
        raise StoreError(f"there are no finished runs at {store.root}")
    for path in paths:
        verified(path)
    try:
        with replacing(archive) as file, tarfile.open(fileobj=file, mode="w:xz", preset=9) as tar:
            for path in sorted(paths):
                content = path.read_bytes()
                entry = tarfile.TarInfo(path.name)  # with neither owner nor time
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    except OSError as error:
        raise StoreError(str(error)) from error
    return len(paths)


def unpack(archive: Path, store: Store) -> int:
    """Put the runs of an archive into a store, beside those that it has.

    Args:
        archive: what `pack` wrote.
        store: gets the runs; of one that it has already nothing changes.

    Returns:
        How many runs it has got.

    Raises:
        StoreError: it is no such archive, or the store has another file of a run's name; then nothing is changed.
    """
    new: dict[Path, bytes] = {}
    for name, content in _runs(archive):
        path = store.root / name
        if not path.exists():
            new[path] = content
        elif path.read_bytes() != content:
            raise StoreError(f"{path} is there already, and differs from that in {archive}")
    store.prepare()
    for path, content in new.items():
        with replacing(path) as file:
            file.write(content)
    return len(new)


def _runs(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, "r:xz") as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                if file is None or Path(entry.name).name != entry.name or not entry.name.endswith(".jsonl"):
                    raise StoreError(f"{archive} is no archive of a store: {entry.name!r} is no run")
                yield entry.name, file.read()
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise StoreError(f"cannot read {archive}: {error}") from error
