"""Turns image files of digits into what MNIST holds: 28 x 28, light ink on black."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kd_lightning.data.pictures import bombs_refused, image_files, open_upright, unreadable

__all__ = ["image_files", "read_images"]

# MNIST's makers scaled each digit into a box of 20 x 20 and put its centre of mass into the middle of 28 x 28.
_SIDE, _BOX = 28, 20
_LIGHT = 127.5
_INK = 32  # darker pixels count as background when the digit's box is looked for
# The value of white: 1 for shares and masks, else what 8, 10, 12, 14 or 16 bits can hold.
_WHITES = (1, 255, 1023, 4095, 16383, 65535)


def read_images(files: Sequence[Path]) -> tuple[Tensor, list[str]]:
    """Read image files as MNIST-like digits.

    Colours become grey, transparency becomes white. White is the smallest of 1, 255, 1023, 4095, 16383 and 65535 that
    no pixel is above; values beyond these, or below 0, are stretched from their smallest to their largest. Where the
    border is light the image is inverted. An image of another size than 28 x 28 is cut to its ink, scaled into 20 x 20
    and centred by mass. Of several frames the first is taken.

    Args:
        files: Image files in any format that Pillow reads.

    Returns:
        Images (files, 1, 28, 28) uint8, and per file what was done to it.

    Raises:
        ValueError: If a file is not an image, or a pixel is not a finite number.
    """
    images, notes = [], []
    for file in files:
        grey, read = _read_grey(file)
        pixels, fitted = _as_digit(grey)
        blank = ["hardly any contrast"] if np.ptp(pixels) < _INK else []
        done = read + fitted + blank
        images.append(torch.from_numpy(pixels).unsqueeze(0))
        notes.append(", ".join(done) or "as it is")
    return torch.stack(images), notes


def _read_grey(file: Path) -> tuple[Image.Image, list[str]]:
    """An upright picture in 8-bit grey, and what was done to it."""
    with bombs_refused():
        picture, frames = open_upright(file)
    try:
        if not _is_grey(picture):
            picture = picture.convert("RGBA")
        values = np.array(picture)
    except Exception as error:  # as in open_upright
        raise unreadable(file, error) from error
    done = [f"the first of {frames} frames"] if frames > 1 else []
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("L"), done
    grey, scaled = _eight_bits(values, file)
    return grey, done + scaled


def _is_grey(picture: Image.Image) -> bool:
    """Whether a picture holds one number per pixel: 8 bits without transparency, 16 or 32 bits, or float."""
    if picture.mode == "L":
        return "transparency" not in picture.info
    return picture.mode == "F" or picture.mode.startswith("I")


def _eight_bits(values: np.ndarray, file: Path) -> tuple[Image.Image, list[str]]:
    """Scale grey values of any range to 0 to 255; Pillow would cut them off there."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():  # of values with a NaN, too
        raise ValueError(f"{file} holds pixels that are not finite numbers; replace them")
    if values.dtype == np.uint8 and high > 1:
        return Image.fromarray(values), []
    white = next((white for white in _WHITES if high <= white), None)
    if low < 0 or white is None:
        start, end = low, high
    else:
        start, end = 0.0, float(white)
    factor = 255 / ((end - start) or 1.0)
    scaled = values.astype(np.float32) * np.float32(factor)
    scaled -= np.float32(start * factor)
    return Image.fromarray(scaled.round().astype(np.uint8)), [
        f"values from {start:g} to {end:g} taken as black to white"
    ]


def _as_digit(grey: Image.Image) -> tuple[np.ndarray, list[str]]:
    done = []
    pixels = np.array(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > _LIGHT:
        grey = ImageOps.invert(grey)
        done.append("inverted")
    if grey.size == (_SIDE, _SIDE):
        return np.array(grey), done
    box = grey.point([0] * _INK + [255] * (256 - _INK)).getbbox()
    digit = grey.crop(box) if box else grey
    scale = _BOX / max(digit.size)
    size = (max(1, round(digit.width * scale)), max(1, round(digit.height * scale)))
    scaled = np.array(digit.resize(size, Image.Resampling.LANCZOS))
    done.append(f"{grey.width} x {grey.height} to 28 x 28")
    return _centred(scaled), done


def _centred(digit: np.ndarray) -> np.ndarray:
    """Put the digit's centre of mass into the middle of a black 28 x 28 image, without cutting it."""
    canvas = np.zeros((_SIDE, _SIDE), dtype=np.uint8)
    mass = max(1.0, float(digit.sum()))
    corner = []
    for axis in (0, 1):
        profile = digit.sum(axis=1 - axis, dtype=np.float64)
        centre = float((profile * (np.arange(len(profile)) + 0.5)).sum()) / mass
        corner.append(min(max(0, round(_SIDE / 2 - centre)), _SIDE - digit.shape[axis]))
    top, left = corner
    canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return canvas
