"""Who makes which run, where several processes share one store: a lock that dies with its holder."""

import contextlib
import errno
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.base.store import Store
from benchmarks.scheduling.plan import Planned

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module or nothing

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Claim:
    """The right to make a run, until it is released or the process ends, however it ends."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it up."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)  # while it is held, so that nobody's lock is on a file without a name
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Claims:
    """The claims on the runs of a store: ``flock`` on a file each in ``claims/``.

    On one machine they hold. On a network file system they hold between machines where it passes locks on: NFS does
    unless it is mounted with ``nolock`` or ``local_lock``, Lustre with ``flock``. Where there are no locks at all
    `note` says so, and every claim is granted: two processes may then make the same run twice, which costs time, but
    both files would be whole.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "claims"
        self.note: str | None = None

    def take(self, identity: str) -> Claim | str:
        """The claim on a run, or who has it."""
        path = self._folder / identity
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not self._lock(descriptor):
                    os.close(descriptor)
                    return Claim(path, None)
                if _is_at(descriptor, path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                    return Claim(path, descriptor)
                os.close(descriptor)  # its last holder took the name away between our two calls
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace")
                os.close(descriptor)
                return holder or "another process"

    def begin(self, planned: Planned, store: Store) -> Claim | str | None:
        """The claim on a run that is still to be made, or who has it; None if another process has just made it."""
        claim = self.take(planned.identity)
        if isinstance(claim, str) or not store.stored(planned.files_done) - planned.seen:
            return claim
        claim.release()
        return None

    def _lock(self, descriptor: int) -> bool:
        """Whether it could be locked; False where there are no locks."""
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no flock")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise BlockingIOError from error
            self.note = (
                f"no locks on {self._folder} ({error.strerror}): two commands on this store may make the same run"
            )
            return False
        return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has its name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
