"""Turns image files of digits into what MNIST holds: 28 x 28, light ink on black."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
# MNIST's makers scaled each digit into a box of 20 x 20 and put its centre of mass into the middle of 28 x 28.
_SIDE, _BOX = 28, 20
_LIGHT = 127.5
_INK = 32  # darker pixels count as background when the digit's box is looked for


def image_files(paths: Sequence[str]) -> list[Path]:
    """The image files among the paths and inside the folders among them, in the order given, folders sorted.

    Raises:
        FileNotFoundError: If a path does not exist or no image is found.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no image file or folder {path}")
    if not files:
        raise FileNotFoundError(f"no image ({', '.join(sorted(_SUFFIXES))}) in {', '.join(map(str, paths))}")
    return files


def read_images(files: Sequence[Path]) -> tuple[Tensor, list[str]]:
    """Read image files as MNIST-like digits.

    Colours become grey, transparency becomes white. Where the border is light the image is inverted. An image
    of another size than 28 x 28 is cut to its ink, scaled into 20 x 20 and centred by mass.

    Args:
        files: Image files in any format that Pillow reads.

    Returns:
        Images (files, 1, 28, 28) uint8, and per file what was done to it.

    Raises:
        ValueError: If a file is not an image.
    """
    images, notes = [], []
    for file in files:
        pixels, done = _as_digit(_read_grey(file))
        images.append(torch.from_numpy(pixels).unsqueeze(0))
        notes.append(", ".join(done) or "as it is")
    return torch.stack(images), notes


def _read_grey(file: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # 89 million pixels, and more than 1 GB here
            opened = Image.open(file)
        with opened:
            upright = ImageOps.exif_transpose(opened)
            coloured = upright.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file} is not a readable image: {error}") from error
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("L")


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
