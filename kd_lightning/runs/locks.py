"""File locks, with which processes on one machine or file system take turns. The system releases them."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait for a file's lock and keep it; the system releases it when the process ends for any reason.

    Yields:
        Whether the lock was taken: Lustre and NFS may be mounted without locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            try:
                yield True
            finally:
                _release(file)


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Take a file's lock and yield True, or yield False if another process has it.

    Where the file system has no locks, each process gets True.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # Lustre and NFS may be mounted without locks
            yield True
            return
        try:
            yield True
        finally:
            _release(file)


def _release(file: IO[bytes]) -> None:
    """Give the lock back; closing the file is not enough where a loader's worker process was forked meanwhile."""
    fcntl.flock(file, fcntl.LOCK_UN)
