"""Pictures decoded once: into one array of bytes, and from there into a file that later runs read."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from rich import get_console
from rich.progress import track

from kd_lightning.data.pictures import PictureFormat, bombs_refused
from kd_lightning.runs.files import write_atomically
from kd_lightning.runs.texts import counted

_FORMAT = 1  # of the cache's files
_DIGEST = 16  # bytes of a picture's hash
_NAMED = 3  # files that an error names
_TOGETHER = 50  # pictures that a thread takes at a time


class Decoded(NamedTuple):
    """Pictures, decoded.

    Attributes:
        pixels: (pictures, channels, height, width) uint8.
        digests: (pictures, 16) uint8, a hash of each file's content.
    """

    pixels: np.ndarray
    digests: np.ndarray


class Pictures(NamedTuple):
    """Picture files that are decoded together.

    Attributes:
        root: The folder that all of them lie in.
        files: Their places, in order.
        format: What they are turned into.
        limit_gb: Largest size of the decoded pictures, in 10^9 bytes.
    """

    root: Path
    files: Sequence[Path]
    format: PictureFormat
    limit_gb: float

    def decode(self) -> Decoded:
        """Decode all files, in several threads.

        Raises:
            ValueError: If they are too many or too large, or some can't be used.
        """
        with bombs_refused():
            shape = (len(self.files), *self.format.pixels(self.files[0]).shape)
            self.check_size(shape)
            rank_zero_info(f"decoding {counted(len(self.files), 'picture')} of {self.root}")
            decoded = Decoded(np.empty(shape, np.uint8), np.empty((len(self.files), _DIGEST), np.uint8))
            starts = range(0, len(self.files), _TOGETHER)
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                problems = pool.map(partial(self._decode_some, decoded), starts)
                quiet = not get_console().is_terminal  # it would leave an empty line in a log
                shown = track(problems, "pictures", total=len(starts), transient=True, disable=quiet)
                bad = [problem for some in shown for problem in some]
        if bad:
            more = f"; and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
            raise ValueError(
                f"{len(bad):,} of {counted(len(self.files), 'picture')} in {self.root} can't be used, replace or "
                f"remove them: {'; '.join(bad[:_NAMED])}{more}"
            )
        return decoded

    def _decode_some(self, decoded: Decoded, start: int) -> list[str]:
        """Decode some files into their rows; give what is wrong with each that can't be used."""
        numbers = range(start, min(start + _TOGETHER, len(self.files)))
        return [problem for number in numbers if (problem := self._decode_one(decoded, number))]

    def _decode_one(self, decoded: Decoded, number: int) -> str:
        file = self.files[number]
        try:
            content = file.read_bytes()
            pixels = self.format.pixels(file, content)
        except (OSError, ValueError) as error:
            return str(error)
        expected, got = decoded.pixels.shape[1:], pixels.shape
        if got != expected:
            return (
                f"{file} is {got[1]} x {got[2]}, the first one, {self.files[0].name}, {expected[1]} x {expected[2]}: "
                "set size, to which all are scaled"
            )
        decoded.pixels[number] = pixels
        decoded.digests[number] = np.frombuffer(hashlib.blake2b(content, digest_size=_DIGEST).digest(), np.uint8)
        return ""

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Refuse decoded pictures that are larger than the limit.

        Args:
            shape: (pictures, channels, height, width).

        Raises:
            ValueError: If they are.
        """
        size = float(np.prod(shape, dtype=np.float64)) / 1e9
        if size > self.limit_gb:
            raise ValueError(
                f"decoded, the {counted(shape[0], 'picture')} of {self.root} take {size:.3g} GB "
                f"({' x '.join(map(str, shape))} bytes), expected at most limit_gb {self.limit_gb:g}: raise limit_gb, "
                "lower size, or decode them in each batch, see docs/own-nets.md, Pictures that do not fit into memory"
            )


class PictureCache:
    """A file of decoded pictures. It is used only if the picture files and the way of reading them are unchanged.

    Args:
        folder: Where it lies.
        pictures: What it keeps.
    """

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        # One file for each folder and way of reading, which is replaced when pictures change.
        place = repr((str(pictures.root.absolute()), tuple(pictures.format)))
        self.path = folder / f"{pictures.root.name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}.pictures"
        states = [(str(file), file.stat()) for file in pictures.files]
        root = f"{pictures.root}{os.sep}"  # relative_to takes ten times as long
        listed = [(name.removeprefix(root), state.st_size, state.st_mtime_ns) for name, state in states]
        content = json.dumps([_FORMAT, pictures.format, listed])
        self._key = hashlib.sha256(content.encode("utf-8", "surrogateescape")).digest()

    def is_current(self) -> bool:
        """Whether it exists and fits the current picture files."""
        try:
            with self.path.open("rb") as file:
                return file.read(len(self._key)) == self._key
        except OSError:
            return False

    def read(self) -> Decoded | None:
        """The decoded pictures; None if they must be decoded again. A damaged file is reported."""
        if not self.is_current():
            return None
        try:
            with self.path.open("rb") as file:
                file.seek(len(self._key))
                decoded = Decoded(np.load(file), np.load(file))
                if file.read() == self._checksum(decoded):
                    return decoded
        except Exception:  # noqa: S110  # numpy raises many kinds for a damaged file
            pass
        rank_zero_info(f"{self.path} is damaged; the pictures are decoded again")
        return None

    def write(self, decoded: Decoded) -> None:
        """Keep decoded pictures; where that fails, the next run decodes them again."""

        def write(part: Path) -> None:
            with part.open("wb") as file:
                file.write(self._key)
                np.save(file, decoded.pixels)
                np.save(file, decoded.digests)
                file.write(self._checksum(decoded))

        try:
            write_atomically(self.path, write)
        except OSError as error:
            rank_zero_info(f"the decoded pictures can't be kept in {self.path}: {error}")

    def _checksum(self, decoded: Decoded) -> bytes:
        digest = hashlib.sha256(self._key)
        for part in decoded:
            digest.update(np.ascontiguousarray(part).data)
        return digest.digest()


def load_pictures(pictures: Pictures, cache_dir: Path | None) -> Decoded:
    """The decoded pictures, from the cache where it has them as they are; else the cache gets them.

    Args:
        pictures: The files.
        cache_dir: The caches' folder; None for none.

    Raises:
        ValueError: If they are too many or too large, or some can't be used.
    """
    if cache_dir is None:
        return pictures.decode()
    cache = PictureCache(cache_dir, pictures)
    decoded = cache.read()
    if decoded is None:
        decoded = pictures.decode()
        cache.write(decoded)
    pictures.check_size(decoded.pixels.shape)
    return decoded


def fill_cache(pictures: Pictures, cache_dir: Path | None) -> None:
    """Decode pictures that the cache does not have as they are; arguments as of `load_pictures`."""
    if cache_dir is not None and not PictureCache(cache_dir, pictures).is_current():
        load_pictures(pictures, cache_dir)
