"""Output that may be lost: a failed print must not end a run."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class _LossyFile(io.FileIO):
    """A file that ignores failed writes: a full disk, a closed pipe, a closed terminal."""

    def write(self, data: bytes | memoryview) -> int | None:  # type: ignore[override]  # Buffer is of Python 3.12
        """Write what can be written.

        Args:
            data: The bytes.

        Returns:
            How many of them were written or dropped.
        """
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def lossy(stream: TextIO) -> TextIO:
    """A stream to the same file that ignores failed writes.

    A stream of another program, such as a notebook's, is not changed.

    Args:
        stream: `sys.stdout` or `sys.stderr`.
    """
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        return stream
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_LossyFile(stream.fileno(), "w", closefd=False)),  # type: ignore[type-var]  # as above
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


@contextmanager
def output_may_be_lost() -> Iterator[None]:
    """Ignore failed prints while a run works: its results are in files."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(lossy, before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None in a process that was started without
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before
