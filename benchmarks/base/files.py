"""Files that are either there in full or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write(path: Path, text: str) -> None:
    """Write a text file, in full or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that takes the place of `path`, on disk, when the block ends without an error.

    Whatever happens before that (a kill, a full disk), `path` keeps its former content. Like any new file,
    it has the permissions that the umask leaves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(
            error.errno, f"{path} could not be written ({error.strerror}); its former content is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
