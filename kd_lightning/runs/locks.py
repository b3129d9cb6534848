"""Locks of files, by which processes on one machine or file system take turns; the system gives them back."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait for a file's lock and hold it; the system gives it back when the process ends, however it ends.

    Yields:
        Whether it is held: Lustre and NFS may be mounted without locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a file's lock and yield True, or yield False where another process holds it.

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
            pass
        yield True
