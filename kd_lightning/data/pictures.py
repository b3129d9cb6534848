"""Picture files of any kind: found, opened upright, and read as 8-bit pixels."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps

from kd_lightning.data.found_files import found_files

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def image_files(paths: Sequence[str]) -> list[Path]:
    """The image files among the paths and in the folders among them; errors as of `found_files`."""
    return found_files(paths, "image", SUFFIXES)


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Refuse pictures of more than 89 million pixels, of which Pillow only warns. Not for each of several threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_upright(file: Path, content: bytes | None = None) -> tuple[Image.Image, int]:
    """A picture, turned upright as its EXIF orientation says, and how many frames it has; the first one is read.

    Args:
        file: The file.
        content: What it holds, where that is read already.

    Raises:
        ValueError: If it is not a picture, or only a part of one.
    """
    try:
        with Image.open(file if content is None else io.BytesIO(content)) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.format = opened.format
            frames = getattr(opened, "n_frames", 1)
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        raise unreadable(file, error) from error
    if not picture.width or not picture.height:
        raise unreadable(file, "it has no pixels")
    return picture, frames


def unreadable(file: Path, reason: object) -> ValueError:
    """The error of a file that is no picture."""
    return ValueError(f"{file} is not a readable image: {reason}")


class PictureFormat(NamedTuple):
    """What every picture is turned into.

    Attributes:
        channels: 3 for red, green and blue, 1 for grey.
        size: Height and width in pixels, to which a picture is stretched; None keeps its own.
        background: A colour, as Pillow names it, that shows where a picture is transparent.
    """

    channels: Literal[1, 3]
    size: tuple[int, int] | None
    background: str

    def check(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If a value is out of range.
        """
        if self.channels not in {1, 3}:
            raise ValueError(f"channels must be 3 for colour or 1 for grey, got {self.channels}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ValueError(f"size must be a side or [height, width], each >= 1, got {list(self.size)}")
        try:
            ImageColor.getrgb(self.background)
        except ValueError as error:
            raise ValueError(
                f"background must be a colour such as white or '#808080', got {self.background}"
            ) from error

    def pixels(self, file: Path, content: bytes | None = None) -> np.ndarray:
        """Read a file as pixels, (channels, height, width) uint8.

        Of 16 bits the upper 8 count, rounded. A palette, CMYK and the like become the wanted colours.

        Args:
            file: The file.
            content: What it holds, where that is read already.

        Raises:
            ValueError: If it is not a picture, or holds numbers of 32 bits.
        """
        picture, _ = open_upright(file, content)
        mode = "RGB" if self.channels == 3 else "L"
        if picture.mode != mode or picture.has_transparency_data:
            try:
                picture = self._eight_bits(picture).convert(mode)
            except Exception as error:  # as in open_upright
                raise unreadable(file, error) from error
        if self.size is not None and self.size != (picture.height, picture.width):
            picture = picture.resize(self.size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
        return pixels.transpose(2, 0, 1) if self.channels == 3 else pixels[None]

    def _eight_bits(self, picture: Image.Image) -> Image.Image:
        """A picture of 8 bits without transparency."""
        # Pillow cuts 16 bits off at 255. Before version 11.3 it opened such PNG files as 32 bits.
        if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
            values = np.asarray(picture).astype(np.int64)
            return Image.fromarray(((values + 128) // 257).astype(np.uint8))
        if picture.mode in {"I", "F"}:
            raise ValueError("it holds numbers of 32 bits, of any range; save it with 8 or 16 bits")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", picture.size, self.background), picture)
        return picture
