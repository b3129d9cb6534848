"""Tables of numbers on disk: written piece by piece with a checksum, memory-mapped after."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_lightning.runs.files import flush


class TableWriter:
    """A .npy file written piece by piece, hashed on the way; a full disk is an error here, not a crash.

    Args:
        path: The file to make.
        shape: Of the whole array.
        dtype: Number type of the file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.dtype = path, dtype
        self._file = path.open("w+b")
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        self._file.seek(0)
        self._hash = hashlib.sha256(self._file.read())

    def append(self, values: Tensor) -> None:
        """Write the next rows.

        Args:
            values: (rows, ...) as the shape says.

        Raises:
            ValueError: If a value does not fit the number type.
            OSError: If it can't be written.
        """
        with np.errstate(over="ignore"):
            cast = values.cpu().numpy().astype(self.dtype)
        if self.dtype.kind == "f" and not np.isfinite(cast).all():
            largest = float(values.abs().max())
            raise ValueError(
                f"a teacher's logits reach {largest:g}, which {self.dtype} can't hold; "
                "set --model.store.dtype float32, or check the teacher"
            )
        content = cast.tobytes()
        self._hash.update(content)
        self._file.write(content)

    def close(self) -> None:
        """Close the file, finished or not."""
        with suppress(OSError):  # on a full disk; the write that failed has said so
            self._file.close()

    def checksum(self) -> str:
        """Bring the finished file to disk and give its SHA-256."""
        self._file.close()
        flush(self.path)
        return self._hash.hexdigest()


def map_table(path: Path) -> Tensor:
    """Memory-map a .npy file."""
    # Copy-on-write: torch takes no read-only arrays. Nothing writes, so the pages stay the file's.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
