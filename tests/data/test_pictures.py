"""Pictures of every kind become 8-bit pixels, or are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kd_lightning.data.pictures import PictureFormat, bombs_refused, image_files

RGB = PictureFormat(3, None, "white")
GREY = PictureFormat(1, None, "white")


def _saved(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def test_colours_stay_and_become_grey(tmp_path: Path) -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7
    file = _saved(Image.fromarray(pixels), tmp_path / "a.png")
    assert np.array_equal(RGB.pixels(file), pixels.transpose(2, 0, 1))
    grey = np.round(pixels @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(GREY.pixels(file)[0], grey, atol=1)
    one = _saved(Image.fromarray(pixels[..., 0]), tmp_path / "grey.png")
    assert np.array_equal(GREY.pixels(one)[0], pixels[..., 0])
    assert np.array_equal(RGB.pixels(one), np.stack([pixels[..., 0]] * 3))


@pytest.mark.parametrize(("background", "shown"), [("white", 255), ("#336699", (0x33, 0x66, 0x99))])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB"])
def test_the_background_shows_through(kind: str, background: str, shown: object, tmp_path: Path) -> None:
    if kind in {"P", "RGB"}:  # one colour is the transparent one
        picture, options = Image.new(kind, (2, 2), 0), {"transparency": 0 if kind == "P" else (0, 0, 0)}
    else:
        picture, options = Image.new(kind, (2, 2), (0,) * len(kind)), {}
    file = _saved(picture, tmp_path / "a.png", **options)
    pixels = PictureFormat(3, None, background).pixels(file)
    assert np.array_equal(pixels[:, 0, 0], np.broadcast_to(shown, 3))  # type: ignore[call-overload]


def test_half_transparent_is_half_background(tmp_path: Path) -> None:
    file = _saved(Image.new("RGBA", (1, 1), (255, 0, 0, 128)), tmp_path / "a.png")
    assert RGB.pixels(file).ravel().tolist() == [255, 127, 127]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(suffix: str, tmp_path: Path) -> None:
    values = np.array([[0, 128, 257, 25700, 65535]], dtype=np.uint16)
    file = _saved(Image.fromarray(values), tmp_path / f"a.{suffix}")
    assert GREY.pixels(file)[0, 0].tolist() == [0, 0, 1, 100, 255]
    assert RGB.pixels(file)[2, 0].tolist() == [0, 0, 1, 100, 255]


@pytest.mark.parametrize("mode", ["CMYK", "1", "YCbCr"])
def test_other_colours_are_converted(mode: str, tmp_path: Path) -> None:
    file = _saved(Image.new("RGB", (3, 3), "white").convert(mode), tmp_path / "a.tif")
    assert (RGB.pixels(file) > 250).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_32_bits_are_refused(mode: str, tmp_path: Path) -> None:
    file = _saved(Image.new(mode, (3, 3), 5), tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif is not a readable image: it holds numbers of 32 bits"):
        RGB.pixels(file)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row is the right side
    file = _saved(Image.fromarray(pixels), tmp_path / "a.png", exif=exif)
    upright = RGB.pixels(file)
    assert upright.shape == (3, 4, 2)
    assert upright[0, 0].tolist() == [0, 255]


def test_pictures_are_stretched_to_a_size(tmp_path: Path) -> None:
    file = _saved(Image.new("RGB", (40, 30), "red"), tmp_path / "a.png")
    pixels = PictureFormat(3, (8, 6), "white").pixels(file)
    assert pixels.shape == (3, 8, 6)
    assert pixels[:, 4, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("keep", "reason"), [(0, "cannot identify"), (20, ""), (1000, "truncated")])
def test_damaged_files_are_named(keep: int, reason: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    file = _saved(Image.fromarray(noise), tmp_path / "a.jpg")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"a\.jpg is not a readable image: .*{reason}"):
        RGB.pixels(file)


def test_enormous_pictures_are_refused(tmp_path: Path) -> None:
    file = _saved(Image.new("1", (10_000, 9_000)), tmp_path / "a.png")
    with bombs_refused(), pytest.raises(ValueError, match=r"a\.png is not a readable image: .*decompression bomb"):
        RGB.pixels(file)


def test_hidden_files_and_files_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", ".c.png", "notes.txt", "png", ".hidden/d.png", "deep/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in image_files([str(tmp_path)])] == ["a.jpeg", "b.PNG", "e.png"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (PictureFormat(2, None, "white"), "channels must be 3 for colour or 1 for grey, got 2"),  # type: ignore[arg-type]
        (PictureFormat(3, (0, 5), "white"), r"size must be a side or \[height, width\], each >= 1, got \[0, 5\]"),
        (PictureFormat(3, None, "nice"), "background must be a colour such as white or '#808080', got nice"),
    ],
)
def test_options_are_checked(wrong: PictureFormat, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong.check()
