"""Tables of numbers on disk: bytes of logits, .npy files made of them, and reading them again."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHECKSUM_LENGTH = 64  # characters


def table_bytes(values: Tensor, dtype: np.dtype[Any]) -> bytes:
    """The rows of a table as they stand in its file.

    Args:
        values: (rows, classes) float logits.
        dtype: Number type of the file.

    Raises:
        ValueError: If a value does not fit the number type.
    """
    with np.errstate(over="ignore"):
        cast = values.cpu().numpy().astype(dtype)
    if not np.isfinite(cast).all():
        largest = float(values.abs().max())
        raise ValueError(
            f"a teacher's logits reach {largest:g}, which {dtype} can't hold; "
            "set --model.store.dtype float32, or check the teacher"
        )
    return cast.tobytes()


def write_table(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[bytes]) -> None:
    """Write a .npy file. A full disk is an error here, not a crash as with a memory map.

    Args:
        path: The file to make.
        shape: Of the whole array.
        dtype: Number type of the file.
        parts: Its rows in order, as `table_bytes` gives them.

    Raises:
        OSError: If it can't be written.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        file.writelines(parts)


def read_parts(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], sizes: Iterable[int]) -> Iterator[bytes]:
    """Read the rows of a .npy file that `write_table` wrote.

    If the file is too short, the last parts are short or empty.

    Args:
        path: The file.
        shape: Expected shape of the whole array.
        dtype: Expected number type.
        sizes: Bytes of each part, in order.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is another array.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        found = np.lib.format.read_array_header_1_0(file)
        if found != (shape, False, dtype):
            raise ValueError(f"{path} is damaged: expected {shape} of {dtype}, got {found[0]} of {found[2]}")
        for size in sizes:
            yield file.read(size)


def map_table(path: Path) -> Tensor:
    """Memory-map a .npy file."""
    # Copy-on-write: torch takes no read-only arrays. Nothing writes, so the pages stay the file's.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def checksum(content: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
