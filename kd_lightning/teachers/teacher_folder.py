"""The folder with one teacher's logits on one data set: blocks while it is filled, then one table.

    blocks/000012.block   a block of entries, with its checksum at the end
    blocks/000012.lock    held by the process that computes the block
    logits.npy            (entries, classes), all blocks in order
    store.json            what it was made from, and the checksum of each block

A block appears under its name only when it is finished. A folder is whole when it has its record, which is written
last; the blocks' files are removed then. The folder's name is a hash over everything that the logits depend on.
"""

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_lightning.runs.files import flush, read_json
from kd_lightning.teachers.npy import CHECKSUM_LENGTH, checksum, map_table, read_parts, table_bytes, write_table
from kd_lightning.teachers.store_plan import RECORD, StoreSpec

# Entries: little to lose, and as fast in one pass as more are on two cores. FORMAT rises with another number.
BLOCK = 1000
_LOGITS = "logits.npy"
_BLOCKS = "blocks"


class Blocks:
    """Files of the blocks of a table that is being filled.

    Args:
        folder: Where they lie; made when the first is written.
        entries: Rows of the table.
        classes: Columns of the table.
        dtype: Number type of the table.
    """

    def __init__(self, folder: Path, entries: int, classes: int, dtype: str) -> None:
        self.folder = folder
        self.shape, self.dtype = (entries, classes), np.dtype(dtype)
        self.count = -(-entries // BLOCK)
        self._finished: set[int] = set()  # those that were read and are as they were written

    def entries_of(self, block: int) -> Tensor:
        """Numbers of a block's entries, (entries,) int64."""
        return torch.arange(block * BLOCK, min((block + 1) * BLOCK, self.shape[0]))

    def lock_of(self, block: int) -> Path:
        """The lock that whoever computes a block holds."""
        return self.folder / f"{block:06}.lock"

    def has(self, block: int) -> bool:
        """Whether a block is there, damaged or not."""
        return self._file_of(block).is_file()

    def missing(self, log_line: Callable[[str], None]) -> list[int]:
        """Blocks that are not there; damaged ones are deleted.

        Args:
            log_line: Called with a line about each damaged one.
        """
        for block in set(range(self.count)) - self._finished:
            with suppress(FileNotFoundError):  # not there, or another process has just made the table of them
                content, expected = self.read(block)
                if checksum(content) == expected:
                    self._finished.add(block)
                else:
                    log_line(f"block {block} in {self.folder} is damaged; it is computed again")
                    self._file_of(block).unlink()
        return sorted(set(range(self.count)) - self._finished)

    def finished(self) -> list[int]:
        """Numbers of the blocks that `missing` found to be whole, in order."""
        return sorted(self._finished)

    def read(self, block: int) -> tuple[bytes, str]:
        """Rows of a block, as `table_bytes` gave them, and the checksum that was written with them.

        Raises:
            FileNotFoundError: If the block is not there.
        """
        whole = self._file_of(block).read_bytes()
        return whole[:-CHECKSUM_LENGTH], whole[-CHECKSUM_LENGTH:].decode(errors="replace")

    def delete(self, block: int) -> None:
        """Delete a block that `missing` found to be whole."""
        self._finished.remove(block)
        self._file_of(block).unlink(missing_ok=True)

    def write(self, block: int, content: bytes) -> None:
        """Write a block; a kill leaves all of it or nothing.

        Nothing waits for the disk here: after a power cut the checksum tells a torn block.

        Args:
            block: Its number.
            content: Its rows, as `table_bytes` gives them.

        Raises:
            OSError: If it can't be written.
        """
        whole = content + checksum(content).encode()
        self.replace(self._file_of(block), lambda part: part.write_bytes(whole))

    def replace(self, file: Path, write: Callable[[Path], object]) -> None:
        """Write a temporary file in the blocks' folder, then rename it to its final path on the same disk.

        Args:
            file: The name.
            write: Given a path, writes the content there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Without locks others may write the same file, on other machines too.
        part = self.folder / f".{file.name}.{platform.node()}-{os.getpid()}.part"
        try:
            write(part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def _file_of(self, block: int) -> Path:
        return self.folder / f"{block:06}.block"

    def drop(self) -> None:
        """Remove the blocks, their locks and temporary files of killed processes."""
        self._finished.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class TeacherFolder:
    """One teacher's logits on disk. It knows nothing of nets; `filling` computes what it lacks.

    Args:
        path: The folder.
        spec: What the logits depend on.
        source: Where the teacher comes from, for the record.
        classes: Logits of an entry.
    """

    def __init__(self, path: Path, spec: StoreSpec, source: str, classes: int) -> None:
        self.path, self.spec, self.source, self.classes = path, spec, source, classes
        self.blocks = Blocks(path / _BLOCKS, spec.entries, classes, spec.dtype)
        self.lock = path / ".lock"

    def has_record(self) -> bool:
        """Whether it was finished once; what lies in it may be damaged since."""
        return (self.path / RECORD).is_file()

    def is_whole(self) -> bool:
        """Whether it is finished, and every block of the table is as it was written."""
        return self.has_record() and sum(1 for _ in self._good_parts()) == self.blocks.count

    def table(self) -> Tensor:
        """Memory-map the logits of a whole folder, (entries, classes)."""
        return map_table(self.path / _LOGITS)

    def write(self, block: int, logits: Tensor) -> None:
        """Write a block.

        Args:
            block: Its number.
            logits: (entries, classes) float.

        Raises:
            ValueError: If a logit does not fit the number type.
            OSError: If it can't be written.
        """
        with self.unless_finished():
            self.blocks.write(block, table_bytes(logits, self.blocks.dtype))

    def join(self) -> None:
        """Make the table of the blocks, all of which are there, then the record.

        Raises:
            OSError: If it can't be written.
        """
        checksums: list[str] = []

        def parts() -> Iterator[bytes]:
            for block in self.blocks.finished():
                content, expected = self.blocks.read(block)
                checksums.append(expected)
                yield content

        def write(part: Path) -> None:
            write_table(part, self.blocks.shape, self.blocks.dtype, parts())
            flush(part)

        with self.unless_finished():
            self.blocks.replace(self.path / _LOGITS, write)
            record = {
                **self.spec._asdict(),
                "key": self.spec.key,
                "source": self.source,
                "classes": self.classes,
                "sha256": checksums,
            }
            self.blocks.replace(self.path / RECORD, lambda part: part.write_text(json.dumps(record), encoding="utf-8"))
            flush(self.path)

    @contextmanager
    def unless_finished(self) -> Iterator[None]:
        """Ignore that a block's file is gone, if another process has made the table and removed the blocks."""
        try:
            yield
        except FileNotFoundError:
            if not self.has_record():
                raise

    def reopen(self, *, keep: bool) -> None:
        """Turn the table back into blocks, so that wrong ones can be computed again.

        Args:
            keep: Whether blocks that are as they were written are kept; else all are computed again.
        """
        for block, content in self._good_parts() if keep else ():
            self.blocks.write(block, content)
        (self.path / RECORD).unlink(missing_ok=True)

    def _good_parts(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each block of the table that is as it was written."""
        blocks = self.blocks
        row = self.classes * blocks.dtype.itemsize
        sizes = [len(blocks.entries_of(block)) * row for block in range(blocks.count)]
        with suppress(OSError, ValueError, KeyError, TypeError):  # the record or the table is damaged
            record = read_json(self.path / RECORD)
            expected = record["sha256"] if record["key"] == self.spec.key else []
            parts = read_parts(self.path / _LOGITS, blocks.shape, blocks.dtype, sizes)
            for block, (part, correct) in enumerate(zip(parts, expected, strict=False)):
                if checksum(part) == correct:
                    yield block, part
