"""File locks, with which processes on one machine or file system take turns. The system releases them."""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait for a file's lock and keep it; the system releases it when the process ends for any reason.

    Yields:
        Whether the lock was taken: Lustre and NFS may be mounted without locks.
    """
    with _lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Take a file's lock and yield True, or yield False if another process has it.

    Where the file system has no locks, each process gets True.
    """
    with _lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # Lustre and NFS may be mounted without locks
            pass
        yield True


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Let a user's processes on one machine take turns with a folder, in which nothing is written.

    Where there is no place for a lock, nobody waits.
    """
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(locked(_own_temporary_folder() / f"{name}.lock"))
        yield


def _own_temporary_folder() -> Path:
    """A folder that only this user can write to: in another one, a lock's file could be a link to something else.

    Raises:
        OSError: If it is another user's, or can't be made.
    """
    folder = Path(tempfile.gettempdir()) / f"kd_lightning-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NotADirectoryError(f"{folder} is not a folder of this user alone")
    return folder


@contextmanager
def _lock_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a lock's file, and give back the lock that was taken on it.

    Closing the file is not enough where a loader's worker process was forked meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            yield file
        finally:
            with suppress(OSError):  # there are no locks
                fcntl.flock(file, fcntl.LOCK_UN)
